"""A ClientHello is the same however it is cut: CVE-2026-32305 was a proxy that saw its first piece only.

Long ones are common since X25519MLKEM768; servers that took one read() for a hello broke (tldr.fail).
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenarios.names.hellos import (
    ALERT,
    GREASE,
    HEADER,
    SERVER_NAME,
    Talk,
    alert_in,
    answer_to,
    extended,
    hello_asking,
    in_pieces,
    in_records,
    many_protocols,
    message_of,
    record,
    send_pieces,
)
from tests.scenarios.names.parties import (
    TLS_1_2,
    TLS_1_3,
    VERSIONS,
    Place,
    Recorder,
    attempt,
    client_of,
    is_line_of,
)
from tests.support.hello import client_hello
from tests.support.pki import Authority, Issued
from tests.support.processes import status
from tests.support.server import Server

OPEN, CLOSED = "open.test", "closed.test"

WORD = b"a word"


@dataclass
class Scene:
    server: Server
    open: Recorder
    closed: Recorder
    root: Authority
    good: Issued
    folder: Path

    def context(self, version: ssl.TLSVersion, shows: Issued | None = None) -> ssl.SSLContext:
        offers = many_protocols(1500)
        return client_of(self.root, version, shows=shows, folder=self.folder, alpn=offers)


@pytest.fixture(scope="module")
def scene(module_place: Place, root: Authority, clients: Authority) -> Iterator[Scene]:
    place = module_place
    place.site("open.pem", OPEN)
    place.site("closed.pem", CLOSED)
    ca = place.write("clients.ca", clients.pem)
    place.host(CLOSED, client_auth="required", client_ca=ca, cluster="closed")
    with Recorder() as open_, Recorder() as closed:
        place.clusters["closed"] = [closed.address]
        with place.server(open_.address, log={"level": "info"}) as server:
            yield Scene(server, open_, closed, root, clients.client("good"), place.folder)


def cuts(hello: bytes) -> Iterator[tuple[str, Iterable[bytes]]]:
    """The same message in other pieces: of the stream, of the records, of both."""
    message = message_of(hello)
    for at in range(1, len(hello), 7):
        yield f"two segments, cut at {at}", (hello[:at], hello[at:])
    for at in range(1, len(message), 97):
        yield f"two records, cut at {at}", (record(message[:at]) + record(message[at:]),)
        yield f"two records and segments, cut at {at}", (record(message[:at]), record(message[at:]))
    yield "segments of 7 bytes", in_pieces(hello, 7)
    yield "records of 64 bytes", (in_records(message, 64),)
    yield "records of 61 bytes in segments of 50", in_pieces(in_records(message, 61), 50)


@pytest.mark.parametrize("version", VERSIONS)
def test_however_it_is_cut_a_stranger_is_asked_for_a_certificate(
    scene: Scene, version: ssl.TLSVersion
) -> None:
    context = scene.context(version)
    came, addresses = scene.closed.accepted, []
    assert len(hello_of(context)) > 1600
    for what, _ in cuts(hello_of(context)):
        with Talk(scene.server.port, context, CLOSED) as talk:
            addresses.append(talk.sock.getsockname())
            pieces = dict(cuts(talk.hello()))[what]
            answer = b""
            with pytest.raises((ssl.SSLError, ConnectionError)):
                answer = talk.exchange(pieces, WORD)
            assert answer == b"", what
    for address in addresses:
        [line] = scene.server.wait_for_access(that=is_line_of(address))
        assert (line["ended"], line["sni"]) == ("no_client_certificate", CLOSED)
    assert scene.closed.accepted == came
    assert scene.open.accepted == 0


def hello_of(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=CLOSED)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_however_it_is_cut_the_name_gets_its_certificate_and_its_backend(scene: Scene) -> None:
    context = scene.context(TLS_1_3, scene.good)
    for what in [what for what, _ in cuts(hello_of(context))][::9]:
        came = scene.closed.accepted
        with Talk(scene.server.port, context, CLOSED) as talk:
            assert talk.exchange(dict(cuts(talk.hello()))[what], WORD) == WORD
            certificate = talk.client.getpeercert()
            assert certificate is not None
            assert certificate["subjectAltName"] == (("DNS", CLOSED),)
        assert scene.closed.accepted == came + 1


@pytest.mark.parametrize("version", VERSIONS)
def test_one_byte_a_record_is_the_same_hello_or_none(scene: Scene, version: ssl.TLSVersion) -> None:
    """OpenSSL may find it too odd to answer; what it must not do is to forget the name."""
    context = client_of(scene.root, version)
    with Talk(scene.server.port, context, CLOSED) as talk:
        hello = talk.hello()
        came, address = scene.closed.accepted, talk.sock.getsockname()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert not talk.exchange([in_records(message_of(hello), 1)], WORD)
    [line] = scene.server.wait_for_access(that=is_line_of(address))
    assert line["ended"] == "no_client_certificate"
    assert scene.closed.accepted == came


def test_an_empty_record_between_two_does_not_change_the_name(scene: Scene) -> None:
    """RFC 8446 §5.1 forbids it; refused or read on, it is not another client's policy."""
    context = client_of(scene.root)
    came, opened = scene.closed.accepted, scene.open.accepted
    for at in (1, 4, 50, 120):
        with Talk(scene.server.port, context, CLOSED) as talk:
            message = message_of(talk.hello())
            with pytest.raises((ssl.SSLError, ConnectionError)):
                talk.exchange([record(message[:at]) + record(b"") + record(message[at:])], WORD)
    assert (scene.closed.accepted, scene.open.accepted) == (came, opened)


@pytest.mark.parametrize("size", [1_500, 4_000, 16_000, 60_000])
def test_a_long_hello_gets_its_answer(scene: Scene, size: int) -> None:
    """A ServerHello, or an alert about the padding's effect on a handshake that we cannot finish."""
    message = extended(message_of(client_hello(OPEN)), GREASE, bytes(size))
    with socket.create_connection(("127.0.0.1", scene.server.port), timeout=10) as sock:
        send_pieces(sock, [in_records(message, 16_384)])
        first = sock.recv(4096)
    assert first[0] == 22, "a handshake record: the hello was read whole"


@pytest.mark.parametrize("size", [70_000, 140_000, 1_000_000])
def test_a_hello_longer_than_any_is_refused(scene: Scene, size: int) -> None:
    message = b"\x01" + size.to_bytes(3) + bytes(size)
    answer = answer_to(scene.server.port, in_pieces(in_records(message, 16_384), 1 << 16))
    assert answer == b"" or answer[0] == ALERT
    it_lives(scene)


def test_a_hello_that_never_ends_does_not_fill_the_memory(scene: Scene) -> None:
    [worker] = scene.server.workers()
    before = resident_kib(worker)
    start = b"\x01\xff\xff\xff" + bytes(10_000)
    for _ in range(50):
        answer = answer_to(scene.server.port, [in_records(start, 100)])
        assert answer == b"" or answer[0] == ALERT
    it_lives(scene)
    assert resident_kib(worker) - before < 20_000


def resident_kib(pid: int) -> int:
    return int(status(pid)["VmRSS"].split()[0])


def it_lives(scene: Scene) -> None:
    answer, _ = attempt(scene.server, client_of(scene.root), OPEN)
    assert answer
    assert len(scene.server.workers()) == 1


@pytest.mark.parametrize("name", [OPEN, CLOSED])
def test_flipped_bits_change_nothing_but_the_outcome(scene: Scene, name: str) -> None:
    """An answer, an alert or an end; the worker lives, and nobody comes to the closed backend."""
    came, [worker] = scene.closed.accepted, scene.server.workers()
    rng = random.Random(20261123)
    hello = client_hello(name, alpn=b"http/1.1")
    for _ in range(300):
        damaged = bytearray(hello)
        for _ in range(rng.choice((1, 1, 2, 8))):
            damaged[rng.randrange(HEADER, len(hello))] ^= 1 << rng.randrange(8)
        answer = answer_to(scene.server.port, [bytes(damaged)])
        assert answer == b"" or answer[0] in (ALERT, 22)
    assert scene.server.workers() == [worker]
    assert scene.closed.accepted == came
    it_lives(scene)


@pytest.mark.parametrize("version", [TLS_1_2, None])
@pytest.mark.parametrize(
    ("name", "alert"),
    [
        (b"a\0b.test", 50),
        (b"closed.test\0", 50),
        (b"two words", 112),
        (b"-a.test", 112),
        (b"a..test", 112),
        (b".closed.test", 112),
        (b"*.closed.test", 112),
        (b"caf\xc3\xa9.test", 112),
        (b"\xff\xfe", 112),
        (b"closed.test..", 112),
        (b"a" * 64 + b".test", 112),
        (b".".join([b"a" * 50] * 5), 112),
        (b"x" * 300, 112),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_and_never_defaulted(
    scene: Scene, name: bytes, alert: int, version: ssl.TLSVersion | None
) -> None:
    opened = scene.open.accepted
    answer = answer_to(scene.server.port, [hello_asking(name, version)])
    got = alert_in(answer)
    if name == b".".join([b"a" * 50] * 5):  # 254 characters: one too many
        assert len(name) == 254
    # A NUL is OpenSSL's affair or ours: refused by either.
    assert got == alert or (b"\0" in name and got in (50, 112)), got
    assert scene.open.accepted == opened


@pytest.mark.parametrize(
    "extension",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\0\1\0",
        b"\0\3\0\0\0",  # an empty name
        b"\0\x0e\0\0\x0bclosed.tes",  # shorter than it says
        b"\0\x0f\0\0\x0bclosed.test!",  # longer than it says
        b"\0\x0e\1\0\x0bclosed.test",  # of a type that is not defined
        b"\0\x1c" + b"\0\0\x0bclosed.test" * 2,  # two names
    ],
)
def test_a_server_name_extension_that_cannot_be_read_is_refused(scene: Scene, extension: bytes) -> None:
    message = extended(message_of(client_hello(None)), SERVER_NAME, extension)
    opened = scene.open.accepted
    answer = answer_to(scene.server.port, [record(message)])
    assert alert_in(answer) == 50
    assert scene.open.accepted == opened


def test_the_same_extension_with_a_name_in_it_is_read(scene: Scene) -> None:
    """A control: what the ones before it are refused for is the extension's content."""
    message = extended(message_of(client_hello(None)), SERVER_NAME, b"\0\x0c\0\0\x09open.test")
    with socket.create_connection(("127.0.0.1", scene.server.port), timeout=10) as sock:
        sock.sendall(record(message))
        assert sock.recv(4096)[0] == 22
