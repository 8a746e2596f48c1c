"""The `termproxy` command.  One file a family of verbs; what they do is done elsewhere.

Exit codes: 0 done, 1 refused or failed (the reason on standard error), 2 wrong usage.
"""

from __future__ import annotations

import sys

import click

from termproxy import __version__
from termproxy.cli import config, control, demo, run
from termproxy.errors import ConfigError, TermproxyError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="termproxy")
def termproxy() -> None:
    """Terminate TLS in front of servers that speak plaintext."""


termproxy.add_command(run.run)
termproxy.add_command(config.check)
termproxy.add_command(config.config)
termproxy.add_command(control.stop)
termproxy.add_command(control.status)
termproxy.add_command(demo.demo)


def main() -> None:
    """The console script: run a verb, and say plainly why it could not be done."""
    try:
        termproxy()
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"termproxy: {problem}", err=True)
        sys.exit(1)
    except TermproxyError as error:
        click.echo(f"termproxy: {error}", err=True)
        sys.exit(1)
