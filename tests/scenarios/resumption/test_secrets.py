"""What must not be seen is not: keys, and the random numbers that workers would share after a fork."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from termproxy.tls import sealing
from tests.conftest import Serve
from tests.scenarios.resumption.visits import KINDS, by_worker, client_of, told, visit
from tests.support.backends import Backend
from tests.support.command import termproxy
from tests.support.hello import client_hello
from tests.support.processes import session_members
from tests.support.server import Server

KEY, SALT = bytes(range(32)), bytes(16)


def secrets_of(server: Server) -> list[bytes]:
    """The seed and the keys, as raw bytes; and as what they would look like in a text."""
    sealed = bytes.fromhex(told(server, "export", key=KEY.hex(), salt=SALT.hex())["sealed"])
    ring = json.loads(sealing.unseal(sealed, KEY))
    raw = [bytes.fromhex(ring["seed"])] + [bytes.fromhex(key["secret"]) for key in ring["keys"]]
    raw = [secret for secret in raw if secret]
    assert len(raw) >= 3
    return [
        form for secret in raw for form in (secret, secret.hex().encode(), repr(secret)[2:-1].encode())
    ]


def places(server: Server) -> Iterator[tuple[str, bytes]]:
    """Everything that others may come to see."""
    for file in server.folder.rglob("*"):
        if file.is_file():
            yield str(file), file.read_bytes()
    for name in ("status", "certs", "failures", "tickets"):
        question = ["tickets", "status", "--json"] if name == "tickets" else [name, "--json"]
        result = termproxy(*question, "--control", str(server.control))
        yield name, result.stdout.encode() + result.stderr.encode()
    for pid in session_members(server.pid):
        for name in ("cmdline", "environ", "comm"):
            file = Path(f"/proc/{pid}/{name}")
            try:
                yield str(file), file.read_bytes()
            except OSError:
                continue  # a worker is closed to all but root


def test_no_key_is_seen_in_logs_status_arguments_environment_or_files(
    serve: Serve, ca: trustme.CA
) -> None:
    with (
        Backend() as backend,
        serve(
            backend.address,
            workers=2,
            state_dir="state",
            log={"level": "debug"},
            resumption={"persist": True},
        ) as server,
    ):
        secrets = secrets_of(server)
        for kind in KINDS:
            context = client_of(ca, kind)
            visit(server.port, context, visit(server.port, context).session)
        told(server, "rotate")
        secrets += secrets_of(server)
        told(server, "revoke")
        secrets += secrets_of(server)
        server.reload(new_workers=True)
        server.wait_for_access(2 * len(KINDS))
        for place, content in places(server):
            for secret in secrets:
                assert secret not in content, place


@pytest.fixture
def _cores_are_wanted() -> Iterator[None]:
    """By whoever starts the server, as far as that is allowed here."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.usefixtures("_cores_are_wanted")
def test_neither_master_nor_worker_may_dump_core(serve: Serve) -> None:
    with serve("127.0.0.1:9", workers=2) as server:
        members = session_members(server.pid)
        assert len(members) == 4  # with the master and the admin process
        for pid in members:
            limits = Path(f"/proc/{pid}/limits").read_text()
            [line] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
            assert line.split()[4] == "0", f"process {pid}: {line}"


def test_the_memory_of_keys_is_left_out_of_a_core(serve: Serve) -> None:
    """Also of one that somebody takes by force."""
    if os.getuid() != 0:
        pytest.skip("only root looks at a worker's memory")
    with serve("127.0.0.1:9") as server:
        for pid in session_members(server.pid):
            found = Path(f"/proc/{pid}/smaps").read_text().split("VmFlags:")
            shared = [
                each for each in found if "/dev/zero" in each or "memfd:termproxy-sessions" in each
            ]
            assert len(shared) >= 2, "the ring, and the sessions"
            # The flags of a mapping stand behind it, at the beginning of the next piece.
            flags = [found[at + 1].splitlines()[0] for at, entry in enumerate(found) if entry in shared]
            assert all(" dd" in line for line in flags), flags


def test_no_two_workers_draw_the_same_random_numbers(serve: Serve) -> None:
    """Sixty-four of them, forked from one master: the first thing each says is its own."""
    workers = 64
    hello = client_hello("site.test")
    with serve("127.0.0.1:9", workers=workers, log={"level": "info", "access": "off"}) as server:
        randoms: list[bytes] = []
        for _ in range(60):
            randoms += [server_random(server.port, hello) for _ in range(20)]
            if all(by_worker(server, "accepted").values()):
                break
        assert all(by_worker(server, "accepted").values()), "each was asked"
        assert len(by_worker(server)) == workers
        assert len(set(randoms)) == len(randoms)


def server_random(port: int, hello: bytes) -> bytes:
    """Of the ServerHello (RFC 8446 §4.1.3)."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(hello)
        answer = b""
        while len(answer) < 5 + 4 + 2 + 32 and (piece := sock.recv(4096)):
            answer += piece
    assert answer[0] == 22, "a handshake record"
    assert answer[5] == 2, "a ServerHello"
    return answer[11 : 11 + 32]
