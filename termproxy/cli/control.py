"""`termproxy stop`, `reload`, `reopen`, `status` and `certs`: ask a running master, over its socket."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from termproxy.admin.routes import FIELDS_MAX, HEAD_MAX, request_for
from termproxy.config.load import FileSource, absolute, load
from termproxy.errors import ControlError
from termproxy.http._wire import MalformedError
from termproxy.http.head import response_reader

DEFAULT_CONFIG = Path("/etc/termproxy/termproxy.toml")
ANSWER_MAX = 1 << 24  # bytes
UPGRADE_TIMEOUT = 120.0  # seconds: more than a new master has to come up, or to go
ANSWER_TIMEOUT = 10.0  # seconds; a stop takes as long as the drain, and has none

PATH = click.Path(path_type=Path)
CONTROL = click.option("--control", type=PATH, help="The master's control socket.")
CONFIG = click.option(
    "-c", "--config", "file", type=PATH, help=f"Where `control` is set [default: {DEFAULT_CONFIG}]."
)
JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.command()
@CONTROL
@CONFIG
@JSON
@click.option("--now", is_flag=True, help="At once: do not wait for open connections.")
def stop(control: Path | None, file: Path | None, as_json: bool, now: bool) -> None:  # noqa: FBT001
    """Drain and stop a running termproxy, and wait until it has."""
    answer = ask(control_path(control, file), {"verb": "stop", "now": now}, timeout=None)
    click.echo(orjson.dumps(answer) if as_json else f"stopped (process {answer['pid']})")


@click.command()
@CONTROL
@CONFIG
@JSON
@click.option(
    "--new-workers", is_flag=True, help="Bring up new workers, also when the running ones could follow."
)
def reload(control: Path | None, file: Path | None, as_json: bool, new_workers: bool) -> None:  # noqa: FBT001
    """Have a running termproxy read its configuration anew, and wait until that is decided.

    Says what has changed; or why all stays as it was, and exits with 1.
    """
    path = control_path(control, file)
    answer = ask(path, {"verb": "reload", "new_workers": new_workers}, timeout=None)
    if as_json:
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    else:
        for change in answer["changes"]:
            click.echo(change)
    if not answer["ok"]:
        raise ControlError(f"not reloaded, the old configuration stays: {answer['detail']}")
    if not as_json:
        click.echo(f"reloaded: {answer['detail']}")


@click.command()
@CONTROL
@CONFIG
@JSON
def upgrade(control: Path | None, file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Have the termproxy that is installed now take over from the running one, and wait until it serves.

    What is open stays open; when the new one does not come up, the old one goes on.
    """
    answer = ask(control_path(control, file), {"verb": "upgrade"}, timeout=UPGRADE_TIMEOUT)
    if as_json:
        click.echo(orjson.dumps(answer))
    else:
        old, new = (
            f"termproxy {answer[of]['version']} (process {answer[of]['pid']})" for of in ("old", "new")
        )
        click.echo(f"upgraded from {old} to {new}")


@click.command()
@CONTROL
@CONFIG
@JSON
def status(control: Path | None, file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """What a running termproxy serves, and how its workers are."""
    answer = ask(control_path(control, file), {"verb": "status"}, timeout=ANSWER_TIMEOUT)
    if as_json:
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    else:
        show_status(answer, Console())


@click.command()
@CONTROL
@CONFIG
@JSON
def reopen(control: Path | None, file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Open the access log anew, after it was renamed, and wait until every worker writes to it."""
    answer = ask(control_path(control, file), {"verb": "reopen"}, timeout=ANSWER_TIMEOUT)
    if as_json:
        click.echo(orjson.dumps(answer))
    elif answer["reopened"]:
        click.echo(f"{', '.join(answer['reopened'])}: opened anew by {answer['workers']} workers")
    else:
        click.echo("no log is a file: there was nothing to open anew")


def show_status(answer: dict[str, Any], console: Console) -> None:
    """The master's answer for a person's eyes."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    say(
        f"termproxy {answer['version']}, process {answer['pid']}, {answer['state']}, "
        f"generation {answer['generation']}, up {answer['uptime_seconds']:.0f} s"
    )
    for frontend in answer["frontends"]:
        say(f"{frontend['name']}: {', '.join(frontend['listen'])} to {frontend['cluster']}")
    if answer["last_reload"]:
        last = answer["last_reload"]
        outcome = "done" if last["ok"] else "refused"
        say(f"last reload {last['at']}: {outcome}; {last['detail']}")
        for change in last["changes"]:
            say(f"  {change}")
    for generation in answer["generations"]:
        if generation["why"]:
            say(f"generation {generation['number']} is {generation['state']}: {generation['why']}")
    if answer["last_upgrade"]:
        upgrade = answer["last_upgrade"]
        outcome = "done" if upgrade["ok"] else "refused"
        say(f"last upgrade {upgrade['at']}: {outcome}; {upgrade['detail']}")
    if answer["before"]:
        pid, version, left = (answer["before"][what] for what in ("pid", "version", "connections"))
        say(f"the master before, process {pid}, termproxy {version}: drains {left} connections")
    table = Table(*WORKER_COLUMNS.values())
    for worker in answer["workers"]:
        table.add_row(*(str(worker[column]) for column in WORKER_COLUMNS))
    console.print(table)
    totals = answer["totals"]
    say(
        f"since the start: {totals['accepted']} accepted, {totals['handshakes']} handshakes "
        f"({totals['handshakes_resumed']} resumed), {totals['handshakes_failed']} failed, "
        f"{totals['bytes_from_clients']} bytes from clients, "
        f"{totals['bytes_from_backends']} from backends"
    )


WORKER_COLUMNS = {
    "pid": "pid",
    "slot": "slot",
    "generation": "gen.",
    "state": "state",
    "connections": "open",
    "accepted": "accepted",
    "handshakes": "handshakes",
    "handshakes_failed": "failed",
}


@click.command()
@CONTROL
@CONFIG
@JSON
@click.option(
    "--expiring-within", type=int, metavar="DAYS", help="Exit with 1 when one expires by then."
)
def certs(control: Path | None, file: Path | None, as_json: bool, expiring_within: int | None) -> None:  # noqa: FBT001
    """The certificates that a running termproxy serves, soonest to expire first."""
    answer = ask(control_path(control, file), {"verb": "certs"}, timeout=ANSWER_TIMEOUT)
    certificates = answer["certificates"]
    if as_json:
        click.echo(orjson.dumps(certificates, option=orjson.OPT_INDENT_2))
    else:
        file_column = Column("file", overflow="fold")
        table = Table("days left", "names", "key", "issuer", "frontend", file_column, "OCSP response")
        for each in certificates:
            names = ", ".join(each["names"]) or "(none)"
            cells = (
                str(each["days_left"]),
                names,
                each["key_type"],
                each["issuer"],
                each["frontend"],
                each["file"],
                each["ocsp"] or "-",
            )
            table.add_row(*map(Text, cells))  # as they are: others wrote some of it
        Console().print(table)
    if expiring_within is not None:
        expiring = [c for c in certificates if c["days_left"] < expiring_within]
        if expiring:
            raise ControlError(f"{len(expiring)} certificate(s) expire within {expiring_within} days")


def control_path(control: Path | None, file: Path | None) -> Path:
    """The socket to speak to; ControlError when nobody says where it is."""
    if control is not None:
        return control
    file = file or DEFAULT_CONFIG
    if not file.exists():
        raise ControlError(f"{file} does not exist; give --control PATH or -c FILE")
    path = load(FileSource.read(absolute(file))).control
    if path is None:
        raise ControlError(f"{file} sets no control socket; stop it with the TERM signal instead")
    return path


def ask(path: Path, question: dict[str, Any], *, timeout: float | None) -> dict[str, Any]:
    """The master's answer.  ControlError when it does not answer, or refuses."""
    answer = converse(path, question, timeout=timeout)
    if "error" in answer:
        raise ControlError(f"{path}: {answer['error']}")
    return answer


def converse(path: Path, question: dict[str, Any], *, timeout: float | None) -> dict[str, Any]:
    """The answer, also when it is a refusal: {"error": "..."}.  ControlError when there is none."""
    try:
        request = request_for(question)
    except ValueError as error:
        raise ControlError(str(error)) from None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(path))
            try:
                sock.sendall(request)
            except BrokenPipeError:
                pass  # it has answered already: too many ask at once
            received = _read_all(sock)
    except OSError as error:
        raise ControlError(f"no termproxy answers at {path}: {error.strerror or error}") from None
    if not received:
        raise ControlError(f"{path}: hung up without an answer; ask again")
    answer = _answer_in(received)
    if answer is None:
        raise ControlError(f"{path}: what answers there is not termproxy")
    return answer


def _read_all(sock: socket.socket) -> bytes:
    """Until it hangs up, as it does behind each answer."""
    received = bytearray()
    while len(received) < ANSWER_MAX and (piece := sock.recv(1 << 16)):
        received += piece
    return bytes(received)


def _answer_in(received: bytes) -> dict[str, Any] | None:
    """The JSON object in a whole response; None when there is none."""
    try:
        head = response_reader(HEAD_MAX, FIELDS_MAX).response(received, 0, len(received))
        if head is None or head.content_length != len(received) - head.length:
            return None
        answer = orjson.loads(received[head.length :])
    except (MalformedError, orjson.JSONDecodeError):
        return None
    return answer if isinstance(answer, dict) else None
