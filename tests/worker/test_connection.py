"""One client whose handshake fails: its word, what differs, the cure, and how many lines it may fill."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from typing import Any

import pytest

from termproxy import clock
from termproxy.address import parse_address
from termproxy.backends.cluster import Cluster
from termproxy.backends.server import Server
from termproxy.config.schema import Host
from termproxy.errors import Fault
from termproxy.observability.metrics import FAILED, as_plain
from termproxy.observability.scoreboard import Column
from termproxy.tls.context import Resumption, Stores
from termproxy.worker.assembly import Assembly
from termproxy.worker.main import _together
from termproxy.worker.shared import FAILURE_LINES, FailureLine
from tests.relay.ends import TlsClient, receive, reset, turns, until
from tests.support.hello import client_hello, hand_made, numbers
from tests.support.tls import TLS_1_2, TLS_1_3, client_context
from tests.tls.pki import NOW, issue, loaded
from tests.worker.harness import Bench
from tests.worker.test_assembly import frontend

SITE = loaded(issue("a", "a.test"), "a.pem")
RSA_SITE = loaded(issue("r", "rsa.test", key="rsa"), "rsa.pem")

GROUPS, SIGNATURE_ALGORITHMS, ALPN, VERSIONS = 10, 13, 16, 43
SIGNATURES = (SIGNATURE_ALGORITHMS, numbers(0x0403, 0x0804, 0x0401))
CURVES = (GROUPS, numbers(0x1D, 0x17))
IN_1_3 = (VERSIONS, numbers(0x0304, length_bytes=1))
KEY_SHARES = (51, b"\0\0")


def before(bench: Bench, *hosts: Host, **tls: Any) -> None:
    """A frontend as a server has it: the ClientHello is looked at."""
    cluster = Cluster("app", [Server(parse_address(bench.address))])
    assembly = Assembly(frontend(*hosts, **tls), {"app": cluster}, {}, Resumption(Stores()))
    assembly.serve([SITE, RSA_SITE], {}, NOW)
    bench.given = assembly.frontend


def counters(bench: Bench) -> dict[str, int]:
    assert bench.given is not None
    return as_plain(bench.given.tally)["handshakes_failed"]


def failure_on(bench: Bench, said: bytes) -> dict[str, Any]:
    """What stands in the book after these bytes; in the log and the counters it must be the same."""
    client = bench.accept()
    client.send(said)
    until(bench.failures, "the failure")
    (kind,) = bench.failures()
    record = bench.record()
    assert (record["ended"], record.get("detail")) == (kind["reason"], kind["detail"])
    assert record["fault"] == "client"
    assert counters(bench) == {kind["reason"]: 1}
    assert bench.count(Column.HANDSHAKES_FAILED) == 1
    assert kind["cure"]
    return kind


HELLOS: dict[str, tuple[bytes, str, str]] = {
    "ssl 3.0": (hand_made(version=0x0300), "old_client", "the client offers SSL 3.0; accepted here:"),
    "tls 1.1": (hand_made(version=0x0302), "old_client", "the client offers TLS 1.1; accepted here:"),
    "tls 1.0 in its list": (
        hand_made(extensions=[(VERSIONS, numbers(0x0301, 0x0302, length_bytes=1)), SIGNATURES]),
        "old_client",
        "the client offers TLS 1.1, TLS 1.0; accepted here:",
    ),
    "a version to come": (
        hand_made(extensions=[(VERSIONS, numbers(0x0305, length_bytes=1)), SIGNATURES]),
        "no_shared_version",
        "the client offers 0x0305; accepted here: TLS 1.2, TLS 1.3",
    ),
    "only grease for a version": (
        hand_made(
            ciphers=[0x1301], extensions=[(VERSIONS, numbers(0x1A1A, length_bytes=1)), SIGNATURES]
        ),
        "no_shared_version",
        "the client offers none; accepted here: TLS 1.2, TLS 1.3",
    ),
    "a version in the old field that is not negotiated there": (
        hand_made(version=0x0304, ciphers=[0x002F], extensions=[SIGNATURES, CURVES]),
        "no_shared_cipher",
        "the client offers AES128-SHA; accepted here: ECDHE",
    ),
    "cbc": (
        hand_made(ciphers=[0xC009, 0xC013], extensions=[SIGNATURES, CURVES]),
        "no_shared_cipher",
        "the client offers ECDHE-ECDSA-AES128-SHA, ECDHE-RSA-AES128-SHA; accepted here: ECDHE",
    ),
    "finite fields": (
        hand_made(ciphers=[0x009E, 0x009F], extensions=[SIGNATURES, CURVES]),
        "no_shared_cipher",
        "the client offers DHE-RSA-AES128-GCM-SHA256, DHE-RSA-AES256-GCM-SHA384; accepted here: ",
    ),
    "no ciphers of tls 1.3": (
        hand_made(ciphers=[0x1304], extensions=[SIGNATURES, CURVES, IN_1_3, KEY_SHARES]),
        "no_shared_cipher",
        "the client offers TLS_AES_128_CCM_SHA256; accepted here: TLS_AES_128_GCM_SHA256",
    ),
    "export": (
        hand_made(ciphers=[0x0003, 0x0006, 0x00FF]),
        "scanner",
        "offers only ciphers that no client",
    ),
    "nothing but a signal": (hand_made(ciphers=[0x00FF]), "no_shared_cipher", "the client offers none;"),
    "another key": (
        hand_made(ciphers=[0xC02F], extensions=[SIGNATURES, CURVES]),
        "no_shared_cipher",
        "of our ciphers the client offers only ECDHE-RSA-AES128-GCM-SHA256; here the key is ecdsa",
    ),
    "another group": (
        hand_made(extensions=[SIGNATURES, (GROUPS, numbers(0x19))]),
        "no_shared_group",
        "the client offers P-521; accepted here: ",
    ),
    "another group in tls 1.3": (
        hand_made(
            ciphers=[0x1301], extensions=[SIGNATURES, (GROUPS, numbers(0x19)), IN_1_3, KEY_SHARES]
        ),
        "no_shared_group",
        "the client offers P-521; accepted here: ",
    ),
    "no groups": (
        hand_made(extensions=[SIGNATURES]),
        "no_shared_group",
        "the client offers none; accepted here: ",
    ),
    "not our key's curve": (
        hand_made(ciphers=[0xC02B], extensions=[SIGNATURES, (GROUPS, numbers(0x1D, 0x18))]),
        "no_shared_group",
        "the client offers X25519, P-384; here the key is ecdsa (P-256)",
    ),
    "rsa's signatures": (
        hand_made(extensions=[CURVES, (SIGNATURE_ALGORITHMS, numbers(0x0804, 0x0401))]),
        "no_shared_signature_algorithm",
        "the client accepts signatures of rsa_pss_rsae_sha256, rsa_pkcs1_sha256; here the key is ecdsa",
    ),
    "rsa's signatures in tls 1.3": (
        hand_made(
            ciphers=[0x1301],
            extensions=[CURVES, (SIGNATURE_ALGORITHMS, numbers(0x0804)), IN_1_3, KEY_SHARES],
        ),
        "no_shared_signature_algorithm",
        "the client accepts signatures of rsa_pss_rsae_sha256; here the key is ecdsa (P-256)",
    ),
    "sha-1": (
        hand_made(extensions=[CURVES, (SIGNATURE_ALGORITHMS, numbers(0x0203, 0x0201))]),
        "no_shared_signature_algorithm",
        "the client accepts signatures with SHA-1 or MD5 only",
    ),
    "no signatures": (
        hand_made(extensions=[CURVES]),
        "no_shared_signature_algorithm",
        "the client accepts signatures with SHA-1 or MD5 only",
    ),
    "a fallback": (
        hand_made(ciphers=[0xC02B, 0x5600], extensions=[SIGNATURES, CURVES]),
        "inappropriate_fallback",
        "the client offered less than it can, and said so",
    ),
    "tls 1.3 without key shares": (
        hand_made(ciphers=[0x1301], extensions=[SIGNATURES, CURVES, IN_1_3]),
        "protocol_error",
        "no suitable key share",
    ),
    "tls 1.3 without groups": (
        hand_made(ciphers=[0x1301], extensions=[SIGNATURES, IN_1_3, KEY_SHARES]),
        "protocol_error",
        "missing supported groups extension",
    ),
    "a list of versions that is cut": (
        hand_made(extensions=[(VERSIONS, b"\3\3\4\3"), SIGNATURES]),
        "protocol_error",
        "length mismatch",
    ),
    "an empty list of groups": (
        hand_made(extensions=[(GROUPS, b"\0\0"), SIGNATURES]),
        "protocol_error",
        "bad extension",
    ),
    "an alert of another version after the hello": (
        hand_made(extensions=[SIGNATURES, CURVES]) + b"\x15\3\1\0\2\2\x28",
        "protocol_error",
        "wrong version number",
    ),
    "an alert after the hello": (
        hand_made(extensions=[SIGNATURES, CURVES]) + b"\x15\3\3\0\2\2\x28",
        "client_alert",
        "the client refused with the alert handshake_failure",
    ),
    "an alert about our certificate": (
        hand_made(extensions=[SIGNATURES, CURVES]) + b"\x15\3\3\0\2\2\x2e",
        "certificate_rejected",
        "the client refused our certificate: it does not accept the certificate",
    ),
    "ssl 2.0": (
        bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16),
        "old_client",
        "the client offers SSL 2.0; accepted here:",
    ),
    "smtp": (b"EHLO mail.test\r\n", "not_tls", "what the client sent is not TLS"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls", "what the client sent is not TLS"),
    "http": (b"GET / HTTP/1.0\r\n\r\n", "plain_http", "plain HTTP was spoken to the TLS port"),
}


@pytest.mark.parametrize("which", HELLOS)
def test_what_differs_is_told(bench: Bench, which: str) -> None:
    said, reason, detail = HELLOS[which]
    before(bench)
    kind = failure_on(bench, said)

    assert kind["reason"] == reason
    assert kind["detail"].startswith(detail)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_hello_in_pieces_is_explained_as_one_that_is_whole(bench: Bench, size: int) -> None:
    said, reason, detail = HELLOS["another group"]
    before(bench)
    client = bench.accept()
    for at in range(0, len(said), size):
        client.send(said[at : at + size])
        turns(1)
    until(bench.failures, "the failure")

    (kind,) = bench.failures()
    assert kind["reason"] == reason
    assert kind["detail"].startswith(detail)


def test_what_no_name_accepts_in_common_is_told_by_the_name_s_own_policy(bench: Bench) -> None:
    before(bench, Host(names=("rsa.test",), groups=("P-384",), min_version="1.3"))
    hello = client_hello("rsa.test", version=ssl.TLSVersion.TLSv1_2)
    kind = failure_on(bench, hello)

    assert kind["reason"] == "no_shared_version"
    assert kind["detail"] == "the client offers TLS 1.2; accepted here: TLS 1.3"
    assert kind["name"] == "rsa.test"


def test_a_key_is_that_of_the_name(bench: Bench) -> None:
    before(bench)
    context = client_context(version=TLS_1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    client = context.wrap_socket(
        bench.accept(), server_hostname="rsa.test", do_handshake_on_connect=False
    )
    with client:
        until(lambda: bench.failures() or _step(client), "the failure")

    (kind,) = bench.failures()
    assert kind["reason"] == "no_shared_cipher"
    assert kind["detail"].endswith("here the key is rsa")


def _step(client: ssl.SSLSocket) -> bool:
    try:
        client.do_handshake()
    except (ssl.SSLError, OSError):
        pass
    return False


@pytest.mark.parametrize("protocols", [["h3"], ["x" * 255, "y" * 200]])
def test_protocols_are_told(bench: Bench, protocols: list[str]) -> None:
    before(bench, alpn=("h2",))
    offered = b"".join(bytes([len(each)]) + each.encode() for each in protocols)
    body = len(offered).to_bytes(2) + offered
    kind = failure_on(bench, hand_made(extensions=[SIGNATURES, CURVES, (ALPN, body)]))

    assert kind["reason"] == "no_shared_protocol"
    assert kind["detail"] == f"the client speaks {', '.join(protocols)}; spoken here: h2"


def test_a_name_that_is_not_served_is_told_with_it(bench: Bench) -> None:
    before(bench, unknown_name="reject")
    kind = failure_on(bench, client_hello("other.test"))

    assert (kind["reason"], kind["name"]) == ("unknown_name", "other.test")
    assert "unknown_name" in kind["cure"]


def test_a_client_without_a_name_is_not_said_to_have_asked_for_one(bench: Bench) -> None:
    before(bench, unknown_name="reject")
    kind = failure_on(bench, client_hello(None))

    assert (kind["reason"], kind["name"]) == ("unknown_name", None)
    assert kind["detail"].endswith("or for none")


def test_a_malformed_name_is_told_as_it_can_be_printed(bench: Bench) -> None:
    before(bench)
    kind = failure_on(bench, client_hello(b"a\x1b[2J.test"))

    assert kind["reason"] == "unknown_name"
    assert kind["name"] == r"a\x1b[2J.test"


# Those that leave.


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
@pytest.mark.parametrize("said", [b"", b"\x16", client_hello("a.test")[:-1]])
def test_who_leaves_before_its_hello_is_whole_is_a_scanner(
    bench: Bench, leave: Any, said: bytes
) -> None:
    before(bench)
    client = bench.accept()
    if said:
        client.send(said)
        turns(2)
    leave(client)
    until(bench.failures, "the failure")

    assert counters(bench) == {"scanner": 1}
    assert bench.record()["detail"] == "the client left before it had sent a ClientHello"


def test_who_leaves_after_its_hello_is_none(bench: Bench) -> None:
    before(bench)
    client = bench.accept()
    client.send(client_hello("a.test"))
    assert receive(client)
    client.close()
    until(bench.failures, "the failure")

    assert set(counters(bench)) <= {"client_closed", "client_reset"}
    assert sum(counters(bench).values()) == 1


@pytest.mark.parametrize(
    ("said", "told"), [(b"", "sent no whole ClientHello"), (b"\x16", "sent no whole ClientHello")]
)
def test_who_is_silent_runs_out_of_time(bench: Bench, said: bytes, told: str) -> None:
    before(bench)
    client = bench.accept()
    if said:
        client.send(said)
        turns(2)
    bench.pass_time(10.3)

    assert told in bench.record()["detail"]
    assert counters(bench) == {"handshake_timeout": 1}


def test_who_is_silent_after_its_hello_runs_out_of_time(bench: Bench) -> None:
    before(bench)
    client = bench.accept()
    client.send(client_hello("a.test"))
    assert receive(client)
    bench.pass_time(10.3)

    assert "did not finish its handshake" in bench.record()["detail"]
    assert bench.failures()[0]["name"] == "a.test"


def test_a_drain_that_ends_in_a_handshake_is_nobody_s_fault(bench: Bench) -> None:
    before(bench)
    bench.accept()
    bench.connections[-1].drain_is_over()

    assert counters(bench) == {"drain_timeout": 1}
    assert bench.record()["fault"] == "none"


# Handshakes that succeed.


def test_a_handshake_that_succeeds_is_no_failure(bench: Bench) -> None:
    before(bench)
    context = client_context(version=TLS_1_3)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with TlsClient(context, bench.accept()) as client:
        client.handshake()
        until(lambda: bench.count(Column.HANDSHAKES) == 1, "our side of it")
        client.vanish()
        until(lambda: bench.records, "the record")

    assert counters(bench) == {}
    assert bench.failures() == []


def test_a_certificate_that_is_refused_after_the_handshake_is_no_failed_one(bench: Bench) -> None:
    """A client may look at it only then; the line says so, and the handshake stays done."""
    client, _ = bench.relay()
    assert bench.given is None
    raw = client.sock.detach()
    with socket.socket(fileno=raw) as sock:
        sock.send(b"\x15\3\3\0\2\2\x2e")  # in the clear: not to be read, but an end

    until(lambda: bench.records, "the record")
    assert bench.count(Column.HANDSHAKES_FAILED) == 0
    assert bench.failures() == []


# A bug of ours.


def test_a_bug_in_the_handshake_is_counted_as_one_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while another failure is explained, and ends this connection only."""
    before(bench)
    monkeypatch.setattr("termproxy.worker.connection.explain_handshake", lambda *_: 1 / 0)
    client = bench.accept()
    client.send(b"\0" * 100)
    until(lambda: bench.records, "the record")

    assert counters(bench) == {"internal_error": 1}
    assert bench.record()["fault"] == "proxy"
    assert bench.count(Column.HANDSHAKES_FAILED) == 1
    assert bench.all_is_given_back()


# Scanners do not flood the log.


def scan(bench: Bench, times: int, *, peer: Any = ("192.0.2.1", 40000)) -> None:
    for _ in range(times):
        bench.accept(peer=peer).close()
    until(bench.all_is_given_back, "the end of all")


def lines_together(bench: Bench, now: float) -> list[dict[str, Any]]:
    lines = bench.shared.failure_lines.over(now)
    return [_together(line, held).as_line() for line, held in lines]


def test_many_failures_of_one_client_have_few_lines(bench: Bench) -> None:
    before(bench)
    scan(bench, 3 * FAILURE_LINES)
    assert len(bench.records) == FAILURE_LINES
    assert all("count" not in record for record in bench.records)
    assert counters(bench) == {"scanner": 3 * FAILURE_LINES}
    assert bench.failures()[0]["count"] == 3 * FAILURE_LINES

    (line,) = lines_together(bench, clock.monotonic() + 11)
    assert (line["client"], line["frontend"], line["ended"]) == ("192.0.2.1", "web", "scanner")
    assert (line["count"], line["fault"]) == (2 * FAILURE_LINES, "client")
    assert line["detail"] == "20 more such handshakes failed in the 10 s before this"
    assert lines_together(bench, clock.monotonic() + 100) == []


def test_a_client_s_ports_are_one_client(bench: Bench) -> None:
    before(bench)
    for port in range(2 * FAILURE_LINES):
        scan(bench, 1, peer=("2001:db8::1", 1000 + port, 0, 0))

    assert len(bench.records) == FAILURE_LINES


def test_one_client_does_not_take_another_s_lines(bench: Bench) -> None:
    before(bench)
    scan(bench, 2 * FAILURE_LINES)
    scan(bench, 1, peer=("192.0.2.2", 1))

    assert bench.records[-1]["client"] == "192.0.2.2:1"


def test_one_reason_does_not_take_another_s_lines(bench: Bench) -> None:
    before(bench)
    scan(bench, 2 * FAILURE_LINES)
    client = bench.accept()
    client.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    until(lambda: counters(bench).get("not_tls"), "the failure")

    assert bench.records[-1]["ended"] == "not_tls"


def test_a_client_that_succeeds_has_its_line_all_the_same(bench: Bench) -> None:
    scan(bench, 2 * FAILURE_LINES)
    client, backend = bench.relay()
    backend.close()
    assert client.receive_all() == b""
    client.vanish()
    until(lambda: bench.records[-1]["ended"] == "done", "its line")


def test_many_clients_have_lines_too_but_not_without_bound(bench: Bench) -> None:
    keys_max = bench.shared.failure_lines.KEYS_MAX
    for number in range(keys_max + 50):
        key = FailureLine(f"192.0.2.{number}", "web", "scanner", Fault.CLIENT)
        bench.shared.failure_lines.admits(key, 5.0)
    (line,) = lines_together(bench, 16.0)

    assert (line["client"], line["frontend"], line["ended"], line["count"]) == (
        "(many)",
        "(many)",
        "(many)",
        50,
    )


def test_counters_and_lines_tell_the_same(bench: Bench) -> None:
    before(bench)
    scan(bench, 35)
    for _ in range(13):
        client = bench.accept()
        client.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        assert receive(client) == b""
        client.close()
    until(bench.all_is_given_back, "the end of all")
    lines = [*bench.records, *lines_together(bench, float("inf"))]
    told: Counter[str] = Counter()
    for line in lines:
        told[line["ended"]] += line.get("count", 1)

    assert told == counters(bench) == {"scanner": 35, "not_tls": 13}
    assert sum(told.values()) == bench.count(Column.HANDSHAKES_FAILED)
    assert set(told) <= set(FAILED)
