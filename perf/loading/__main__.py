"""The command line of `perf/load`: who comes, to whom, for how long, and where the reports go."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from comparison.machine import CoresError
from comparison.metering import MeasurementError
from comparison.processes import StartError
from comparison.run import OUTPUT, WIDTH, allow_open_files, termproxy_option
from loading.profiles import CA, PROFILES, Profile
from loading.report import problems, show, write_json
from loading.run import LoadError, Plan, run, worker_command
from loading.storm import may_kill


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("profile", type=click.Choice(list(PROFILES)), default="steady")
@click.option("--users", type=click.IntRange(1, 5000), help="How many people.  [default: the profile's]")
@click.option("--seconds", type=click.IntRange(1, 3600), default=20, show_default=True)
@click.option("--mode", type=click.Choice(["http", "tcp"]), default="http", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Of termproxy."
)
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Of the load."
)
@click.option("--reload-every", type=click.FloatRange(0), help="Seconds; 0: never.")
@click.option(
    "--kill-every", type=click.FloatRange(0), help="Seconds between kills of workers; 0: none."
)
@click.option("--access-log", is_flag=True, help="Have termproxy write one beside the reports.")
@click.option("--host", help="Load this one, as in https://proxy.example:8443, and start none.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Who signed its certificate.  [default: the system's]",
)
@click.option("--master", metavar="ADDRESS:PORT", help="Listen here for --worker on other machines.")
@click.option(
    "--expect-workers", type=click.IntRange(1), default=1, show_default=True, help="Begin with so many."
)
@click.option(
    "--worker", metavar="ADDRESS:PORT", help="Be a worker of that --master, and report nothing."
)
@termproxy_option
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=OUTPUT / "load",
    help="Where the reports go.  [default: build/perf/load]",
)
def main(  # noqa: PLR0913 - one parameter per option
    *,
    profile: str,
    users: int | None,
    seconds: int,
    mode: str,
    workers: int,
    processes: int,
    reload_every: float | None,
    kill_every: float | None,
    access_log: bool,
    host: str | None,
    ca: Path | None,
    master: str | None,
    expect_workers: int,
    worker: str | None,
    termproxy: Path,
    output: Path,
) -> None:
    """Load a termproxy as people do, with locust: PROFILE is steady, storm or slow.

    Exits with 1 when a request was lost, unless the worker that held its connection was killed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    chosen = chosen_profile(profile, reload_every, kill_every)
    allow_open_files()
    if worker is not None:
        become_worker(chosen, worker, ca)
    if master is not None and (host is None or processes > 1):
        raise click.UsageError("--master needs --host: others have to reach it; and no --processes")
    if host is not None and (chosen.reload_every or chosen.kill_every):
        raise click.UsageError("only what is started here can be reloaded or killed: leave out --host")
    plan = Plan(
        profile=chosen,
        mode=mode,
        users=users or chosen.users,
        seconds=seconds,
        workers=workers,
        processes=processes,
        termproxy=termproxy.absolute(),
        output=output,
        with_access_log=access_log,
        host=host,
        ca=ca,
        master=master,
        expect_workers=expect_workers,
    )
    try:
        outcome = run(plan)
    except (LoadError, MeasurementError, StartError, CoresError) as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    show(outcome, console if console.is_terminal else Console(width=WIDTH))
    write_json(outcome, plan.file(".json"))
    click.echo(f"\nwritten: {plan.file('.html')}, {plan.file('_stats.csv')}, {plan.file('.json')}")
    sys.exit(1 if problems(outcome) else 0)


def chosen_profile(name: str, reload_every: float | None, kill_every: float | None) -> Profile:
    profile = PROFILES[name]
    if reload_every is not None:
        profile = replace(profile, reload_every=reload_every)
    if kill_every is not None:
        profile = replace(profile, kill_every=kill_every)
    if profile.kill_every and not may_kill():
        raise click.UsageError(
            "a worker's connections can only be told by root; as somebody else, --kill-every 0"
        )
    return profile


def become_worker(profile: Profile, master: str, ca: Path | None) -> None:
    """Be locust from here on; does not return."""
    command = worker_command(profile, master)
    os.execve(  # noqa: S606 - no shell
        command[0], command, os.environ | ({CA: str(ca.absolute())} if ca else {})
    )


if __name__ == "__main__":
    main(prog_name="perf/load")
