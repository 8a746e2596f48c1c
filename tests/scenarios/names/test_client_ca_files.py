"""A CA or CRL that cannot be read or goes missing: refused, or the old one stays.  Never open."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.names.parties import Place, Recorder, attempt, client_of, wait_until_all_serve
from tests.support.command import termproxy
from tests.support.pki import Authority
from tests.support.waiting import wait_until

NAME = "closed.test"

GARBAGE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def absent(file: Path, good: Authority) -> None:
    file.unlink(missing_ok=True)


def a_folder(file: Path, good: Authority) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def empty(file: Path, good: Authority) -> None:
    file.write_bytes(b"")


def no_pem(file: Path, good: Authority) -> None:
    file.write_bytes(b"\x30\x82" + bytes(400))


def garbage(file: Path, good: Authority) -> None:
    file.write_bytes(GARBAGE)


def good_then_garbage(file: Path, good: Authority) -> None:
    file.write_bytes(good.pem + GARBAGE)


def cut_off(file: Path, good: Authority) -> None:
    file.write_bytes(good.pem[:-60])


def a_key(file: Path, good: Authority) -> None:
    file.write_bytes(good.key)


def a_crl(file: Path, good: Authority) -> None:
    file.write_bytes(good.revoke())


BAD_CA = [absent, a_folder, empty, no_pem, garbage, good_then_garbage, cut_off, a_key, a_crl]
Damage = Callable[[Path, Authority], None]


def closed(place: Place, clients: Authority, *, crl: bool = False) -> tuple[Path, Path]:
    place.site("site.pem", "open.test", NAME)
    ca, crl_file = place.folder / "ca" / "clients.pem", place.folder / "ca" / "clients.crl"
    ca.parent.mkdir()
    ca.write_bytes(clients.pem)
    crl_file.write_bytes(clients.revoke())
    policy = {"client_crl": str(crl_file)} if crl else {}
    place.host(NAME, client_auth="required", client_ca=str(ca), **policy)
    return ca, crl_file


def refusal_to_start(place: Place) -> str:
    server = place.server("127.0.0.1:9")
    server.write_config()
    for verb in ("check", "run"):
        result = termproxy(verb, "-c", str(server.file), cwd=place.folder)
        assert result.returncode == 1, (verb, result)
        assert "Traceback" not in result.stderr
        assert " serves; " not in result.stderr
    return result.stderr


@pytest.mark.parametrize("damage", BAD_CA)
def test_a_bad_ca_refuses_the_start(place: Place, clients: Authority, damage: Damage) -> None:
    ca, _ = closed(place, clients)
    damage(ca, clients)
    said = refusal_to_start(place)
    assert "frontend[0]" in said


@pytest.mark.parametrize("damage", [absent, empty, a_key, cut_off])
def test_the_refusal_names_the_file(place: Place, clients: Authority, damage: Damage) -> None:
    ca, _ = closed(place, clients)
    damage(ca, clients)
    assert str(ca) in refusal_to_start(place)


def test_client_auth_without_a_ca_refuses_the_start(place: Place) -> None:
    place.site("site.pem", NAME)
    place.host(NAME, client_auth="required")
    assert "nobody may issue certificates" in refusal_to_start(place)


@pytest.mark.parametrize("rest", [b"", GARBAGE, b"no PEM"], ids=["empty", "certificate", "no PEM"])
def test_a_bad_crl_refuses_the_start(place: Place, clients: Authority, rest: bytes) -> None:
    _, crl = closed(place, clients, crl=True)
    crl.write_bytes(rest)
    assert "CRL" in refusal_to_start(place) or str(crl) in refusal_to_start(place)


def test_a_crl_that_is_cut_off_after_a_whole_one_refuses_the_start(
    place: Place, clients: Authority
) -> None:
    """The newest list of a CA may be the one that is lost."""
    _, crl = closed(place, clients, crl=True)
    crl.write_bytes(clients.revoke() + clients.revoke(clients.client("gone"))[:-60])
    refusal_to_start(place)


@pytest.mark.parametrize("damage", [absent, empty, garbage, good_then_garbage, a_key])
def test_a_ca_that_goes_bad_is_not_reloaded_and_the_old_one_holds(
    place: Place, root: Authority, clients: Authority, damage: Damage
) -> None:
    """By HUP, and by noticing it: both are refused, and nobody is let in who was not before."""
    ca, _ = closed(place, clients)
    good = client_of(root, shows=clients.client("good"), folder=place.folder)
    stranger = client_of(root, shows=Authority("clients' root").client("good"), folder=place.folder)
    with Recorder() as backend, place.server(backend.address, workers=2) as server:
        damage(ca, clients)
        server.wait_for_words("what was served before stays")
        assert not server.reload()["ok"]
        for context in (client_of(root), stranger):
            answer, _ = attempt(server, context, NAME)
            assert answer == b""
        assert backend.accepted == 0
        answer, _ = attempt(server, good, NAME)
        assert answer
        assert server.said().count("what was served before stays") == 1


def test_a_worker_that_is_replaced_while_the_ca_is_gone_demands_as_before(
    place: Place, root: Authority, clients: Authority
) -> None:
    ca, _ = closed(place, clients)
    with Recorder() as backend, place.server(backend.address) as server:
        ca.unlink()
        server.wait_for_words("what was served before stays")
        [first] = server.workers()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [first]), "the worker is replaced")
        answer, line = attempt(server, client_of(root), NAME)
        assert (answer, line["ended"]) == (b"", "no_client_certificate")
        answer, _ = attempt(
            server, client_of(root, shows=clients.client("good"), folder=place.folder), NAME
        )
        assert answer
        assert backend.accepted == 1


def test_a_bad_ca_does_not_hold_up_a_good_certificate(
    place: Place, root: Authority, clients: Authority
) -> None:
    """A site whose CA file was spoilt must still not run into the expiry of its own certificate."""
    ca, _ = closed(place, clients)
    with Recorder() as backend, place.server(backend.address) as server:
        garbage(ca, clients)
        server.wait_for_words("what was served before stays")
        new = root.issue("open.test", NAME)
        new.write(place.folder / "site.pem")
        wait_until_all_serve(server, client_of(root), "open.test", new.serial)
