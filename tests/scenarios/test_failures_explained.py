"""Why clients fail: one word, what differs and the cure; in the log, in counters and for who asks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from termproxy import clock
from termproxy.cli.control import ask
from termproxy.master.verbs import FAILURES_TOLD
from termproxy.worker.shared import FAILURE_LINES, FAILURE_LINES_INTERVAL
from tests.conftest import Dial, Serve
from tests.scenarios.names.hellos import extended, in_pieces, message_of, record
from tests.scenarios.names.parties import VERSIONS, Place, Recorder, client_of
from tests.support.backends import Backend
from tests.support.clients import exchange, leave, stranger, vanish
from tests.support.command import termproxy
from tests.support.hello import client_hello, hand_made, numbers
from tests.support.pki import Authority, Issued, now, self_signed_client
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import PATIENCE, wait_until

HANDSHAKE = 3.0  # seconds that clients get here

GROUPS, SIGNATURE_ALGORITHMS, VERSIONS_EXTENSION = 10, 13, 43


@dataclass
class Scene:
    server: Server
    root: Authority
    clients: Authority
    folder: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("failures")
    root, clients = Authority("servers' root"), Authority("clients' root")
    place = Place(folder, root)
    place.tls = {"unknown_name": "reject"}
    place.site("open.pem", "open.test", "modern.test", "guarded.test", "alpn.test", "p384.test")
    place.site("rsa.pem", "rsa.test", rsa_bits=2048)
    place.host("modern.test", min_version="1.3")
    place.host("guarded.test", client_auth="required", client_ca=place.write("ca", clients.pem))
    place.host("alpn.test", alpn=["h2"])
    place.host("p384.test", groups=["P-384"])
    with (
        Recorder() as backend,
        place.server(backend.address, workers=2, timeouts={"handshake": HANDSHAKE}) as server,
    ):
        yield Scene(server, root, clients, folder)
        assert len(told(server)) < FAILURES_TOLD, "some could not be told"
        assert backend.accepted == 0, "somebody got in"


# Asking.


def counted(server: Server, frontend: str = "main") -> Counter[str]:
    totals = {each["name"]: each["totals"] for each in server.status()["frontends"]}
    return Counter(totals[frontend]["handshakes_failed"])


def told(server: Server) -> list[dict[str, Any]]:
    kinds: list[dict[str, Any]] = ask(server.control, {"verb": "failures"}, timeout=PATIENCE)["failures"]
    return kinds


def wait_until_told(server: Server, count: int) -> list[dict[str, Any]]:
    """The kinds that the master knows of, once they are so many failures."""

    def look() -> list[dict[str, Any]]:
        kinds = told(server)
        return kinds if sum(kind["count"] for kind in kinds) >= count else []

    return wait_until(look, f"{count} failures are told")


def is_of(address: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line["client"].rpartition(":")[0] == address


def fails(scene: Scene, attempt: Callable[[str], None], reason: str) -> dict[str, Any]:
    """What the log says of a client that fails for `reason`: counters and `explain` say the same."""
    server, (address, _) = scene.server, stranger()
    before = counted(server)
    attempt(address)
    [line] = server.wait_for_access(that=is_of(address))
    assert line["ended"] == reason, line
    assert line["fault"] == "client"
    assert "version" not in line, "the handshake was not done"
    assert counted(server) - before == Counter([reason])

    def is_told() -> list[dict[str, Any]]:
        return [kind for kind in told(server) if kind["client"] == address]

    [kind] = wait_until(is_told, "the master is told")
    assert (kind["frontend"], kind["reason"], kind["detail"]) == ("main", reason, line["detail"])
    said = termproxy("explain", "-c", str(server.file), "--failures").stdout
    assert f"{kind['count']} × {reason} at main: {line['detail']}\n    cure: {kind['cure']}\n" in said
    return line | {"cure": kind["cure"], "name": kind["name"]}


# Clients.


def raw(scene: Scene, *pieces: bytes, end: bool = False) -> Callable[[str], None]:
    """Says this, and reads what comes until the proxy closes; `end`: or leaves when it has said it."""

    def attempt(address: str) -> None:
        with socket.create_connection(
            ("127.0.0.1", scene.server.port), timeout=PATIENCE, source_address=(address, 0)
        ) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    sock.sendall(piece)
                while not end and sock.recv(4096):
                    pass

    return attempt


def s_client(scene: Scene, *options: str, name: str = "open.test") -> Callable[[str], None]:
    """OpenSSL's own."""

    def attempt(address: str) -> None:
        asked = ["-servername", name] if name else ["-noservername"]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{scene.server.port}", "-bind", address]
        done = subprocess.run(
            [*command, *asked, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode != 0, done.stdout

    return attempt


def python(scene: Scene, context: ssl.SSLContext, name: str = "open.test") -> Callable[[str], None]:
    """In TLS 1.3 a client takes its handshake for done before it hears whether it is good enough."""

    def attempt(address: str) -> None:
        sock = socket.create_connection(
            ("127.0.0.1", scene.server.port), timeout=PATIENCE, source_address=(address, 0)
        )
        with sock, contextlib.suppress(ssl.SSLError, ConnectionError):
            client = context.wrap_socket(sock, server_hostname=name, suppress_ragged_eofs=False)
            with client:
                client.sendall(b"a word")
                assert client.recv(1) == b"", "it got in"

    return attempt


def showing(scene: Scene, version: ssl.TLSVersion, shown: Issued | None) -> ssl.SSLContext:
    return client_of(scene.root, version, shows=shown, folder=scene.folder)


# Who does not speak TLS, or not at all.


@pytest.mark.parametrize(
    "begin", [b"", b"\x16", client_hello("open.test")[:100]], ids=["silent", "a byte", "half a hello"]
)
def test_a_port_scanner(scene: Scene, begin: bytes) -> None:
    line = fails(scene, raw(scene, begin, end=True), "scanner")
    assert line["detail"] == "the client left before it had sent a ClientHello"
    assert line["cure"].startswith("nothing, if it is a port scanner")


def test_a_port_scanner_that_resets(scene: Scene) -> None:
    def attempt(address: str) -> None:
        sock = socket.create_connection(("127.0.0.1", scene.server.port), source_address=(address, 0))
        sock.sendall(b"\x16")
        vanish(sock)

    fails(scene, attempt, "scanner")


def test_a_scanner_for_weak_ciphers(scene: Scene) -> None:
    line = fails(scene, s_client(scene, "-tls1_2", "-cipher", "eNULL:aNULL:@SECLEVEL=0"), "scanner")
    assert "only ciphers that no client uses" in line["detail"]
    assert line["alert"] == "handshake_failure"


def test_another_protocol(scene: Scene) -> None:
    line = fails(scene, raw(scene, b"SSH-2.0-OpenSSH_9.2\r\n"), "not_tls")
    assert line["detail"] == "what the client sent is not TLS"


def test_plain_http(scene: Scene) -> None:
    line = fails(scene, raw(scene, b"GET / HTTP/1.1\r\nHost: open.test\r\n\r\n"), "plain_http")
    assert "https://" in line["cure"]


# What both do not have in common.


def test_an_old_client(scene: Scene) -> None:
    line = fails(scene, s_client(scene, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"), "old_client")
    assert line["detail"] == "the client offers TLS 1.1; accepted here: TLS 1.2, TLS 1.3"
    assert line["cure"].startswith("update the client")
    assert (line["alert"], line["alert_from"]) == ("protocol_version", "proxy")


def test_no_common_version(scene: Scene) -> None:
    line = fails(scene, s_client(scene, "-tls1_2", name="modern.test"), "no_shared_version")
    assert line["detail"] == "the client offers TLS 1.2; accepted here: TLS 1.3"
    assert "min_version" in line["cure"]
    assert line["name"] == "modern.test"


@pytest.mark.parametrize(
    ("options", "offered", "setting"),
    [
        (
            ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"],
            "ECDHE-ECDSA-AES128-SHA, ECDHE-RSA-AES128-SHA",
            "`ciphers`",
        ),
        (
            ["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"],
            "DHE-RSA-AES128-GCM-SHA256",
            "`ciphers`",
        ),
        (["-tls1_2", "-cipher", "AES128-GCM-SHA256"], "AES128-GCM-SHA256", "`ciphers`"),
        (
            ["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"],
            "TLS_AES_128_CCM_SHA256",
            "`ciphersuites`",
        ),
    ],
)
def test_no_common_cipher(scene: Scene, options: list[str], offered: str, setting: str) -> None:
    line = fails(scene, s_client(scene, *options), "no_shared_cipher")
    assert line["detail"].startswith(f"the client offers {offered}; accepted here: ")
    assert setting in line["cure"]
    assert (line["alert"], line["alert_from"]) == ("handshake_failure", "proxy")


@pytest.mark.parametrize(
    ("name", "cipher", "key"),
    [
        ("open.test", "ECDHE-RSA-AES128-GCM-SHA256", "ecdsa (P-256)"),
        ("rsa.test", "ECDHE-ECDSA-AES128-GCM-SHA256", "rsa"),
    ],
)
def test_ciphers_for_another_key(scene: Scene, name: str, cipher: str, key: str) -> None:
    line = fails(scene, s_client(scene, "-tls1_2", "-cipher", cipher, name=name), "no_shared_cipher")
    assert line["detail"] == f"of our ciphers the client offers only {cipher}; here the key is {key}"
    assert line["cure"].startswith("add a certificate")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("name", ["open.test", "rsa.test"])
def test_no_common_group(scene: Scene, version: str, name: str) -> None:
    line = fails(scene, s_client(scene, version, "-groups", "P-521", name=name), "no_shared_group")
    assert line["detail"].startswith("the client offers P-521; accepted here: ")
    assert line["detail"].endswith("X25519, P-256, P-384")
    assert "`groups`" in line["cure"]


def test_a_client_that_does_not_know_our_key_s_curve(scene: Scene) -> None:
    line = fails(
        scene, s_client(scene, "-tls1_2", "-groups", "X25519", "-cipher", "aECDSA"), "no_shared_group"
    )
    assert line["detail"] == "the client offers X25519; here the key is ecdsa (P-256)"


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        (["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "rsa_pss_rsae_sha256"),
        (["-tls1_2", "-sigalgs", "ed25519:ed448"], "ed25519, ed448"),
    ],
)
def test_no_common_signature_algorithm(scene: Scene, options: list[str], offered: str) -> None:
    line = fails(scene, s_client(scene, *options), "no_shared_signature_algorithm")
    assert line["detail"] == f"the client accepts signatures of {offered}; here the key is ecdsa (P-256)"
    assert "another type of key" in line["cure"]


def test_no_common_signature_algorithm_after_a_hello_retry_request(scene: Scene) -> None:
    """The client's key share is of another group, so it has to say hello twice."""
    options = ["-tls1_3", "-groups", "X25519:P-384", "-sigalgs", "rsa_pss_rsae_sha256"]
    line = fails(scene, s_client(scene, *options, name="p384.test"), "no_shared_signature_algorithm")
    assert "rsa_pss_rsae_sha256; here the key is ecdsa (P-256)" in line["detail"]


def test_no_common_protocol(scene: Scene) -> None:
    line = fails(scene, s_client(scene, "-alpn", "h3,ftp", name="alpn.test"), "no_shared_protocol")
    assert line["detail"] == "the client speaks h3, ftp; spoken here: h2"
    assert "`alpn`" in line["cure"]


def test_a_fallback(scene: Scene) -> None:
    line = fails(scene, s_client(scene, "-tls1_2", "-fallback_scsv"), "inappropriate_fallback")
    assert line["alert"] == "inappropriate_fallback"


@pytest.mark.parametrize("size", [1, 50])
def test_an_offer_in_many_pieces(scene: Scene, size: int) -> None:
    hello = hand_made(
        extensions=[(SIGNATURE_ALGORITHMS, numbers(0x0403)), (GROUPS, numbers(0x0A0A, 0x19, 0x3A3A))]
    )
    # No name: but unknown ones are refused here.
    hello = record(extended(message_of(hello), 0, b"\0\x0c\0\0\x09open.test"))
    line = fails(scene, raw(scene, *in_pieces(hello, size)), "no_shared_group")
    assert line["detail"].startswith("the client offers P-521;")


# Names.


def test_an_unknown_name(scene: Scene) -> None:
    line = fails(scene, s_client(scene, name="nowhere.test"), "unknown_name")
    assert (line["name"], line["sni"], line["alert"]) == ("nowhere.test",) * 2 + ("unrecognized_name",)
    assert "unknown_name" in line["cure"]


def test_no_name(scene: Scene) -> None:
    line = fails(scene, s_client(scene, name=""), "unknown_name")
    assert line["name"] is None
    assert "or for none" in line["detail"]


def test_a_malformed_name(scene: Scene) -> None:
    hello = record(extended(message_of(client_hello(None)), 0, b"\0\x0c\0\0\x0aopen.test"))
    line = fails(scene, raw(scene, hello), "malformed_name")
    assert line["alert"] == "decode_error"


# Certificates.


@pytest.mark.parametrize("version", VERSIONS)
def test_a_missing_client_certificate(scene: Scene, version: ssl.TLSVersion) -> None:
    attempt = python(scene, showing(scene, version, None), "guarded.test")
    line = fails(scene, attempt, "no_client_certificate")
    assert line["detail"] == "the client showed no certificate, and must"
    assert "client_ca" in line["cure"]
    assert line["alert_from"] == "proxy"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("expired", "certificate has expired"),
        ("not yet valid", "certificate is not yet valid"),
        ("of others", "unable to get local issuer certificate"),
        ("self-signed", "self-signed certificate"),
    ],
)
def test_a_bad_client_certificate(scene: Scene, version: ssl.TLSVersion, which: str, why: str) -> None:
    day = timedelta(days=1)
    shown = {
        "expired": lambda: scene.clients.client("x", not_before=now() - 9 * day, not_after=now() - day),
        "not yet valid": lambda: scene.clients.client("x", not_before=now() + day),
        "of others": lambda: Authority("others").client("x"),
        "self-signed": lambda: self_signed_client("x"),
    }[which]()
    attempt = python(scene, showing(scene, version, shown), "guarded.test")
    line = fails(scene, attempt, "client_certificate_refused")
    assert line["detail"] == f"the client's certificate was not accepted: {why}"
    assert "client_ca" in line["cure"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_does_not_trust_our_issuer(scene: Scene, version: ssl.TLSVersion) -> None:
    attempt = python(scene, client_of(Authority("others"), version))
    line = fails(scene, attempt, "certificate_rejected")
    assert line["detail"] == "the client refused our certificate: it does not trust the issuer"
    assert "intermediate" in line["cure"]
    assert (line["alert"], line["alert_from"]) == ("unknown_ca", "client")
    assert line["certificate"].endswith("open.pem")


def test_openssl_s_client_that_does_not_trust_our_issuer(scene: Scene) -> None:
    attempt = s_client(scene, "-verify_return_error", "-CApath", str(scene.folder), name="rsa.test")
    line = fails(scene, attempt, "certificate_rejected")
    assert line["certificate"].endswith("rsa.pem")


def test_a_client_that_expects_another_name(scene: Scene) -> None:
    options = [
        "-verify_return_error",
        "-CAfile",
        str(trusted(scene)),
        "-verify_hostname",
        "another.test",
    ]
    line = fails(scene, s_client(scene, *options), "certificate_rejected")
    assert line["alert"] in ("bad_certificate", "certificate_unknown")
    assert "explain --sni" in line["cure"]


def trusted(scene: Scene) -> Path:
    file = scene.folder / "root.crt"
    file.write_bytes(scene.root.pem)
    return file


# Who does not come to an end.


@pytest.mark.parametrize(
    ("begin", "how_far"),
    [
        (client_hello("open.test")[:-1], "sent no whole ClientHello"),
        (client_hello("open.test"), "did not finish its handshake"),
    ],
)
def test_a_client_that_stops_in_the_middle(scene: Scene, begin: bytes, how_far: str) -> None:
    line = fails(scene, raw(scene, begin), "handshake_timeout")
    assert line["detail"] == f"the client {how_far} within 3 s"
    assert "MTU" in line["cure"]


def test_a_client_that_leaves_in_the_middle(scene: Scene) -> None:
    def attempt(address: str) -> None:
        with socket.create_connection(
            ("127.0.0.1", scene.server.port), timeout=PATIENCE, source_address=(address, 0)
        ) as sock:
            sock.sendall(client_hello("open.test"))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass

    line = fails(scene, attempt, "client_closed")
    assert "alert" not in line


@pytest.mark.parametrize(
    ("broken", "detail"),
    [
        (client_hello("open.test")[:43] + b"\xff" + client_hello("open.test")[44:], "length"),
        (b"\x14\x03\x03\x00\x01\x01", "unexpected message"),
        (b"\x16\x03\x01\xff\xff" + bytes(100), "packet length too long"),
    ],
)
def test_a_client_that_breaks_the_protocol(scene: Scene, broken: bytes, detail: str) -> None:
    line = fails(scene, raw(scene, broken), "protocol_error")
    assert detail in line["detail"]
    assert line["alert_from"] == "proxy"


# Many failures.


def scan(server: Server, times: int) -> None:
    for _ in range(times):
        socket.create_connection(("127.0.0.1", server.port)).close()


def lines_of(server: Server, ended: str) -> list[dict[str, Any]]:
    return [line for line in server.access_lines() if line["ended"] == ended]


def sum_of(lines: list[dict[str, Any]]) -> int:
    return sum(line.get("count", 1) for line in lines)


def test_scanners_do_not_flood_the_log(serve: Serve, dial: Dial) -> None:
    with Backend() as backend, serve(backend.address, workers=2) as server:
        begun = clock.monotonic()
        scan(server, 500)
        wait_until(lambda: counted(server)["scanner"] == 500, "all are counted")
        intervals = 1 + (clock.monotonic() - begun) // FAILURE_LINES_INTERVAL
        assert all(worker["handshakes_failed"] > 0 for worker in server.status()["workers"])
        with dial(server) as client:
            assert exchange(client) == b"ping"
            leave(client)
        wait_until(lambda: sum_of(lines_of(server, "scanner")) >= 500, "the held back lines are told")
        lines = lines_of(server, "scanner")
        together = [line for line in lines if "count" in line]

        assert sum_of(lines) == 500
        assert len(lines) - len(together) <= intervals * 2 * FAILURE_LINES
        assert 1 <= len(together) <= intervals * 2
        for line in together:
            assert (line["client"], line["frontend"], line["fault"]) == ("127.0.0.1", "main", "client")
            assert f"{line['count']} more such handshakes failed" in line["detail"]
        [kind] = wait_until_told(server, 500)
        assert (kind["reason"], kind["count"]) == ("scanner", 500)
        assert len(lines_of(server, "done")) == 1
        assert server.status()["totals"]["handshakes_failed"] == 500


def test_a_client_that_offers_something_new_each_time_takes_bounded_room(serve: Serve) -> None:
    with serve("127.0.0.1:9", workers=2) as server:
        for number in range(500):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
                sock.sendall(hand_made(ciphers=[0xD000 + number]))
                assert sock.recv(100)
        kinds = wait_until_told(server, 50)  # of the most frequent
        wait_until(lambda: counted(server)["no_shared_cipher"] == 500, "all are counted")
        assert {kind["reason"] for kind in kinds} == {"no_shared_cipher"}
        assert len(termproxy("explain", "-c", str(server.file), "--failures").stdout) < 50 * 1000


def test_each_frontend_has_its_own_counters(serve: Serve) -> None:
    server = serve("127.0.0.1:9", workers=2)
    other = server.values["frontend"][0] | {"name": "other", "listen": [f"127.0.0.1:{free_port()}"]}
    server.values["frontend"].append(other)
    with server:
        scan(server, 3)
        port = int(other["listen"][0].rpartition(":")[2])
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
                sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                sock.recv(100)
        kinds = wait_until_told(server, 8)

        assert counted(server) == {"scanner": 3}
        assert counted(server, "other") == {"not_tls": 5}
        assert [(kind["frontend"], kind["reason"], kind["count"]) for kind in kinds] == [
            ("other", "not_tls", 5),
            ("main", "scanner", 3),
        ]


# Workers that go.


def test_what_a_killed_worker_had_told_stays_known(serve: Serve) -> None:
    with serve("127.0.0.1:9", workers=2) as server:
        scan(server, 40)
        wait_until_told(server, 40)
        before = server.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(server.workers()) == 2 and not {*server.workers()} & {*before}, "new workers"
        )
        assert counted(server) == {"scanner": 40}
        assert sum(kind["count"] for kind in told(server)) == 40
        scan(server, 10)
        [kind] = wait_until_told(server, 50)
        assert kind["count"] == 50
        assert counted(server) == {"scanner": 50}


def test_failures_of_drained_workers_reach_the_master(serve: Serve) -> None:
    """The last ones fail because the drain ends: there is no tick after that."""
    with serve("127.0.0.1:9", workers=2, timeouts={"drain": 1}) as server:
        old = server.workers()
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
                stack.enter_context(sock).sendall(b"\x16")
            wait_until(lambda: server.open_connections() == 6, "all are accepted")
            scan(server, 30)
            assert server.reload(new_workers=True)["ok"]
            wait_until(
                lambda: not {worker["pid"] for worker in server.status()["workers"]} & {*old},
                "the old workers have gone",
            )
        wait_until(lambda: counted(server)["scanner"] == 30, "the new workers' share, if there is one")
        kinds = wait_until_told(server, 36)

        assert counted(server) == {"scanner": 30, "drain_timeout": 6}
        assert Counter({kind["reason"]: kind["count"] for kind in kinds}) == counted(server)
        [timeout] = [kind for kind in kinds if kind["reason"] == "drain_timeout"]
        assert "timeouts.drain" in timeout["cure"]


def test_lines_that_were_held_back_are_written_when_the_server_stops(serve: Serve) -> None:
    with serve("127.0.0.1:9", workers=2) as server:
        scan(server, 100)
        wait_until(lambda: counted(server)["scanner"] == 100, "all are counted")
        server.signal(signal.SIGTERM)
        assert server.wait_until_gone() == 0

        assert sum_of(lines_of(server, "scanner")) == 100


def test_a_frontend_that_goes_in_a_reload_stays_in_what_is_told(serve: Serve) -> None:
    """And its old workers, which still serve it, are no liars."""
    server = serve("127.0.0.1:9", workers=2)
    with server:
        scan(server, 5)
        wait_until_told(server, 5)
        server.values["frontend"][0]["name"] = "renamed"
        assert server.reload(new_workers=True)["ok"]
        scan(server, 2)
        kinds = wait_until_told(server, 7)

        assert Counter({kind["frontend"]: kind["count"] for kind in kinds}).keys() >= {"main"}
        assert sum(kind["count"] for kind in kinds) == 7
        assert "nonsense" not in server.said()
