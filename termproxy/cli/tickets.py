"""`termproxy tickets`: see how sessions are resumed, and turn the keys of their tickets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from termproxy.cli.control import ANSWER_TIMEOUT, CONFIG, CONTROL, JSON, PATH, ask, control_path
from termproxy.errors import ControlError
from termproxy.tls.sealing import KEY_SIZE, SALT_SIZE, SealError, key_from_passphrase, salt_of

SEALED_MAX = 1 << 15  # bytes
PASSPHRASE_MIN = 8
PASSPHRASE_MAX = 4096


@click.group()
def tickets() -> None:
    """Session tickets: how sessions are resumed, and the keys that are used."""


@tickets.command()
@CONTROL
@CONFIG
@JSON
def status(control: Path | None, file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The keys, and how many sessions were resumed, or why not."""
    show(_ask(control, file, {"do": "status"}), as_json=as_json)


@tickets.command()
@CONTROL
@CONFIG
@JSON
@click.option(
    "--revoke-old", is_flag=True, help="Redeem no ticket that was made before: in an emergency."
)
def rotate(control: Path | None, file: Path | None, as_json: bool, revoke_old: bool) -> None:  # noqa: FBT001
    """Issue with the next key from now on; the one before still redeems."""
    show(_ask(control, file, {"do": "revoke" if revoke_old else "rotate"}), as_json=as_json)


PASSPHRASE = click.option(
    "--passphrase-file", type=PATH, help="Its first line is the passphrase; else you are asked for it."
)
KEY = click.option("--key-file", type=PATH, help="32 random bytes, instead of a passphrase.")


@tickets.command(name="export")
@CONTROL
@CONFIG
@PASSPHRASE
@KEY
@click.argument("target", type=PATH)
def export(
    control: Path | None,
    file: Path | None,
    passphrase_file: Path | None,
    key_file: Path | None,
    target: Path,
) -> None:
    """Write the keys and their schedule to TARGET, sealed, for another machine.

    Both then rotate to the same keys at the same times, without talking to each other.
    """
    salt = os.urandom(SALT_SIZE)
    key = _key(passphrase_file, key_file, salt, is_new=True)
    question = {"do": "export", "key": key.hex(), "salt": salt.hex()}
    sealed = bytes.fromhex(_ask(control, file, question)["sealed"])
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(sealed)
    except OSError as error:
        raise ControlError(f"cannot write {target}: {error.strerror}") from None
    click.echo(f"{target}: sealed; bring it to the other machine, and `termproxy tickets import` it")


@tickets.command(name="import")
@CONTROL
@CONFIG
@PASSPHRASE
@KEY
@click.argument("source", type=PATH)
def import_(
    control: Path | None,
    file: Path | None,
    passphrase_file: Path | None,
    key_file: Path | None,
    source: Path,
) -> None:
    """Go on with the keys that another machine has exported; those of here still redeem."""
    sealed = _read(source, SEALED_MAX)
    try:
        salt = salt_of(sealed)
    except SealError as error:
        raise ControlError(f"{source}: {error}") from None
    key = _key(passphrase_file, key_file, salt, is_new=False)
    show(_ask(control, file, {"do": "import", "sealed": sealed.hex(), "key": key.hex()}), as_json=False)


def _key(passphrase_file: Path | None, key_file: Path | None, salt: bytes, *, is_new: bool) -> bytes:
    if passphrase_file is not None and key_file is not None:
        raise click.UsageError("--passphrase-file and --key-file exclude each other")
    if key_file is not None:
        key = _read(key_file, KEY_SIZE)
        if len(key) != KEY_SIZE:
            raise ControlError(f"{key_file}: {len(key)} bytes; make it with `openssl rand {KEY_SIZE}`")
        return key
    if passphrase_file is not None:
        passphrase = _read(passphrase_file, PASSPHRASE_MAX).split(b"\n", 1)[0].removesuffix(b"\r")
    else:
        asked = click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new)
        passphrase = str(asked).encode()
    if len(passphrase) < PASSPHRASE_MIN:
        raise ControlError(f"the passphrase is too short; use {PASSPHRASE_MIN} bytes at least")
    return key_from_passphrase(passphrase, salt)


def _read(file: Path, size_max: int) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(size_max + 1)
    except OSError as error:
        raise ControlError(f"cannot read {file}: {error.strerror}") from None
    if len(content) > size_max:
        raise ControlError(f"{file}: larger than {size_max} bytes; is it the right file?")
    return content


def _ask(control: Path | None, file: Path | None, question: dict[str, Any]) -> dict[str, Any]:
    path = control_path(control, file)
    return ask(path, {"verb": "tickets"} | question, timeout=ANSWER_TIMEOUT)


def show(answer: dict[str, Any], *, as_json: bool) -> None:
    """The master's answer, for programs or for a person's eyes."""
    if as_json:
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
        return
    console = Console()
    table = Table("key", "role", "issues until (UTC)", "redeems until (UTC)", "tickets")
    for key in answer["keys"]:
        table.add_row(
            str(key["number"]),
            key["role"],
            _moment(key["issue_until"]),
            _moment(key["redeem_until"]),
            str(key["tickets_issued"]),
        )
    console.print(table)
    for name, totals in answer["frontends"].items():
        for line in lines(name, totals):
            click.echo(line)


def lines(frontend: str, totals: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """What a frontend's counters tell about resumption."""
    handshakes, cpu = totals["handshakes"], totals["handshake_cpu_microseconds"]
    full = handshakes.get("full", 0)
    ticket, session_id = handshakes.get("ticket", 0), handshakes.get("session_id", 0)
    resumed = ticket + session_id
    rate = f" ({resumed / (full + resumed):.1%} resumed)" if full + resumed else ""
    kinds = f"{full} full, {ticket} by ticket, {session_id} by session id"
    yield f"{frontend}: {full + resumed} handshakes{rate}: {kinds}"
    missed = {
        word: count for word, count in totals["resumption_misses"].items() if word != "none_offered"
    }
    if missed:
        told = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in missed.items())
        yield f"    not resumed though offered: {told}"
    if full and resumed:
        each_full = cpu.get("full", 0) / full
        spent = cpu.get("ticket", 0) + cpu.get("session_id", 0)
        saved = each_full * resumed - spent
        yield (
            f"    time in OpenSSL: {each_full:.0f} µs a full handshake, {spent / resumed:.0f} µs "
            f"a resumed one; {saved / 1_000_000:.1f} s saved"
        )
    ages = totals["ticket_age_seconds"]
    if ages:
        told = ", ".join(f"{count} up to {bound} s" for bound, count in ages.items())
        yield f"    age of the sessions resumed: {told}"


def _moment(seconds: int | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
