"""The `termproxy` command.  One file a family of verbs; what they do is done elsewhere.

Exit codes: 0 done, 1 refused or failed (the reason on standard error), 2 wrong usage.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from termproxy import __version__
from termproxy.environment import scrub
from termproxy.errors import ConfigError, TermproxyError

VERBS = {
    "backends": "backends",
    "run": "run",
    "check": "config",
    "config": "config",
    "demo": "demo",
    "certs": "control",
    "explain": "explain",
    "reopen": "control",
    "reload": "control",
    "status": "control",
    "stop": "control",
    "tickets": "tickets",
    "top": "top",
    "upgrade": "control",
}


class Verbs(click.Group):
    """Imports a verb's module when it is asked for: a server carries no code for tables or demos."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"termproxy.cli.{VERBS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="termproxy")
def termproxy() -> None:
    """Terminate TLS in front of servers that speak plaintext."""


def main() -> None:
    """The console script: run a verb, and say plainly why it could not be done."""
    for fd in (0, 1, 2):
        _have_descriptor(fd)
    ignored = scrub(os.environ, is_root=os.geteuid() == 0)
    try:
        termproxy(obj=ignored)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"termproxy: {problem}", err=True)
        sys.exit(1)
    except TermproxyError as error:
        click.echo(f"termproxy: {error}", err=True)
        sys.exit(1)


def _have_descriptor(fd: int) -> None:
    """Started without standard streams, the next thing we open would become one, and be written to."""
    try:
        os.fstat(fd)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
