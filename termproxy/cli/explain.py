"""`termproxy explain`: ask a running master what a client would get, and why, or why clients fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson

from termproxy.cli.control import ANSWER_TIMEOUT, CONFIG, CONTROL, JSON, ask, control_path


@click.command()
@CONTROL
@CONFIG
@JSON
@click.option("--sni", metavar="NAME", help="The name that the client asks for; without it, none.")
@click.option("--alpn", multiple=True, metavar="PROTOCOL", help="A protocol that the client offers.")
@click.option("--client-ip", metavar="ADDRESS", help="Where the client comes from.")
@click.option("--failures", is_flag=True, help="Why handshakes fail, most frequent first.")
def explain(  # noqa: PLR0913, PLR0917 - click's way
    control: Path | None,
    file: Path | None,
    as_json: bool,  # noqa: FBT001 - click's way
    sni: str | None,
    alpn: tuple[str, ...],
    client_ip: str | None,
    failures: bool,  # noqa: FBT001
) -> None:
    """Which certificate, policy and cluster a client would get, and why.

    No client is needed: the running master is asked about what it serves now.  With --failures, what it
    has seen: the handshakes that failed, what the client and we do not have in common, and the cure.
    """
    if failures:
        if sni is not None or alpn or client_ip is not None:
            raise click.UsageError("--failures goes with none of --sni, --alpn and --client-ip")
        show_failures(
            ask(control_path(control, file), {"verb": "failures"}, timeout=ANSWER_TIMEOUT),
            as_json=as_json,
        )
        return
    # A shell hands over bytes that are no text as surrogates, which JSON does not have.
    name = None if sni is None else sni.encode("utf-8", "surrogateescape").decode("latin-1")
    question = {
        "verb": "explain",
        "sni": name,
        "alpn": [_as_text(protocol) for protocol in alpn],
        "client_ip": None if client_ip is None else _as_text(client_ip),
    }
    answer = ask(control_path(control, file), question, timeout=ANSWER_TIMEOUT)
    if as_json:
        click.echo(orjson.dumps(answer["frontends"], option=orjson.OPT_INDENT_2))
        return
    for frontend in answer["frontends"]:
        for line in lines(frontend):
            click.echo(line)


def _as_text(given: str) -> str:
    return given.encode("utf-8", "replace").decode()


def show_failures(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
        return
    if not answer["failures"]:
        click.echo(f"no handshake has failed since {answer['since']}")
    for each in answer["failures"]:
        asked = f", asked for {each['name']}" if each["name"] else ""
        click.echo(f"{each['count']} × {each['reason']} at {each['frontend']}: {each['detail']}")
        click.echo(f"    cure: {each['cure']}")
        click.echo(f"    latest: {each['last']}, {each['client']}{asked}")


def lines(answer: dict[str, Any]) -> list[str]:
    """A frontend's answer for a person's eyes."""
    head = f"{answer['frontend']} ({', '.join(answer['listen'])})"
    if "unreachable" in answer:
        return [head, f"  cannot be reached: {answer['unreachable']}"]
    if "refused" in answer:
        return [head, f"  refused with the alert {answer['refused']}: {answer['why']}"]
    policy = answer["policy"]
    told = [head, f"  certificate: {answer['why']}"]
    for each in answer["certificates"]:
        validity = f"issued by {each['issuer']}, {each['days_left']} days left"
        told.append(f"    {each['file']}: {each['key_type']}, {validity}")
    told += [f"    not {each}" for each in answer["not_shown"]]
    versions = f"TLS {policy['min_version']} to {policy['max_version']}"
    groups = ", ".join(policy["groups"])
    return [
        *told,
        f"  host block: {answer['host_block']}",
        f"  policy: {versions}, groups {groups}; client certificates {policy['client_auth']}",
        f"  ALPN: {answer['alpn'] or 'none'}",
        f"  cluster: {answer['cluster']}",
    ]
