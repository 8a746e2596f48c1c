"""What the master tells a worker, and what comes of it."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from termproxy.config.load import PlainSource, load
from termproxy.config.schema import Host, Limits
from termproxy.messages import DESCRIPTORS_MAX, MessageReader
from termproxy.observability.access_log import open_access_log, open_file
from termproxy.tls.certificates import Certificate, CertificateError
from termproxy.tls.context import Stores
from termproxy.worker.assembly import Assembly
from termproxy.worker.orders import (
    ORDER_MAX,
    Orders,
    order,
    reopen_order,
    settings_in,
    settings_order,
    slot_orders,
)
from tests.tls.pki import NOW, an_authority
from tests.worker.test_assembly import (
    CA_FILE,
    CLUSTERS,
    GUARD,
    PEM,
    A,
    B,
    certificate,
    contexts,
    files,
    frontend,
    served,
    serving,
)

C = certificate("c.test", file="certs/\u00fc.pem")


def read(*pieces: bytes) -> list[dict[str, Any]]:
    reader = MessageReader(ORDER_MAX)
    return [each for piece in pieces for each in reader.feed(piece)]


def message(before: Sequence[Certificate], now: Sequence[Certificate], index: int = 0) -> bytes:
    return order(index, before, now, PEM)


def never(place: int, slot: int, _: socket.socket) -> None:
    raise AssertionError((place, slot))


def obeyed(assembly: Assembly, *said: bytes) -> None:
    orders = Orders([assembly], Stores(), None, never)
    for body in read(*said):
        orders.obey(body, [], NOW)


# What is said.


def test_only_what_is_new_is_sent_along() -> None:
    (body,) = read(message([A, B], [B, C]))
    assert body["certificates"] == [B.chain_sha256, C.chain_sha256]
    assert len(body["new"]) == 1
    assert body["new"][0]["chain"].encode() == C.chain


# Obeying.


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([A], [B]),
        ([A, B], [B, A]),
        ([A, B], [A]),
        ([A], [A, B, C]),
        ([A, B], [certificate("a.test", file="renewed"), B]),
        ([A, B], [A, B]),
        ([A], [A, certificate("a.test", file="rsa", key="rsa")]),
    ],
)
def test_an_order_brings_a_worker_from_before_to_now(
    before: list[Certificate], now: list[Certificate]
) -> None:
    config = frontend(Host(names=("b.test",), **GUARD))
    worker, master = serving(config, *before), serving(config, *now)
    obeyed(worker, message(before, now))
    for name in (None, "a.test", "b.test", "c.test", "other.test"):
        assert files(worker, name) == files(master, name)
    assert [each.chain_sha256 for each in worker.certificates] == [each.chain_sha256 for each in now]
    assert [each.key for each in worker.certificates] == [each.key for each in now]


def test_orders_follow_one_another() -> None:
    worker = serving(frontend(), A)
    steps = [[A], [A, B], [B], [B, C], [C, A]]
    obeyed(worker, *(message(before, now) for before, now in itertools.pairwise(steps)))
    assert files(worker, None) == ["certs/\u00fc.pem"]


def test_contexts_that_are_served_on_are_kept() -> None:
    worker = serving(frontend(), A, B)
    before = contexts(worker, None, "b.test")
    obeyed(worker, message([A, B], [A, B, C]))
    assert contexts(worker, None, "b.test") == before


def test_an_order_is_for_one_frontend() -> None:
    one, other = serving(frontend(), A), serving(frontend(), A)
    (body,) = read(message([A], [B], index=1))
    Orders([one, other], Stores(), None, never).obey(body, [], NOW)
    assert (files(one, None), files(other, None)) == (["a.test"], ["b.test"])


def test_another_ca_is_sent_along() -> None:
    worker = serving(frontend(**GUARD), A)
    before = contexts(worker, None)
    obeyed(worker, order(0, [A], [A], {CA_FILE: an_authority("others").pem}))
    assert contexts(worker, None) != before


@pytest.mark.parametrize(
    "pem", [{}, {CA_FILE: b"-----BEGIN garbage"}, {Path("/another.pem"): an_authority().pem}]
)
def test_a_refused_order_leaves_all_as_it_was(pem: dict[Path, bytes]) -> None:
    worker = serving(frontend(**GUARD), A)
    before = contexts(worker, None, "a.test")
    with pytest.raises(CertificateError):
        obeyed(worker, order(0, [A], [A, B], pem))
    assert contexts(worker, None, "a.test") == before
    assert worker.certificates == (A,)


def test_an_order_builds_on_a_refused_one() -> None:
    """The master believes that the worker has what it was sent."""
    worker = serving(frontend(**GUARD), A)
    orders = Orders([worker], Stores(), None, never)
    refused, good = read(order(0, [A], [A, B], {}), message([A, B], [A, B, C]))
    with pytest.raises(CertificateError):
        orders.obey(refused, [], NOW)
    orders.obey(good, [], NOW)
    assert worker.certificates == (A, B, C)


def test_what_is_not_wanted_any_more_is_forgotten() -> None:
    """It holds keys."""
    worker = serving(frontend(), A)
    orders = Orders([worker], Stores(), None, never)
    for number in range(5):
        (body,) = read(message([], [certificate(f"{number}.test")]))
        orders.obey(body, [], NOW)
    assert len(orders._known[0]) == 1


def test_bytes_of_any_kind_are_kept() -> None:
    """PEM files have comments, in whatever their writers' encoding was."""
    said = order(0, [A], [A], {CA_FILE: bytes(range(256))})
    (body,) = read(said)
    assert body["pem"][str(CA_FILE)].encode("latin-1") == bytes(range(256))


def test_a_file_s_name_may_be_no_text() -> None:
    odd = certificate("a.test", file="\udcff.pem")
    assert read(order(0, [], [odd], PEM))


# Descriptors.


def test_a_new_slot_s_sockets_are_accepted_from_at_their_places_however_many_there_are() -> None:
    heard: list[tuple[int, int, int]] = []
    orders = Orders([], Stores(), None, lambda place, slot, sock: listened(heard, place, slot, sock))
    places = [*range(1, DESCRIPTORS_MAX + 3)]
    pair = socket.socketpair()
    for said, these in slot_orders(4, places):
        (body,) = read(said)
        fds = [os.dup(pair[0].fileno()) for _ in these]
        orders.obey(body, fds, NOW)
        assert fds == [], "they are kept"
    inode = os.fstat(pair[0].fileno()).st_ino
    for sock in pair:
        sock.close()

    assert heard == [(place, 4, inode) for place in places]


def listened(heard: list[tuple[int, int, int]], place: int, slot: int, sock: socket.socket) -> None:
    with sock:
        heard.append((place, slot, os.fstat(sock.fileno()).st_ino))


def test_a_log_that_was_opened_anew_is_written_to(tmp_path: Path) -> None:
    log = open_access_log(tmp_path / "old")
    assert log is not None
    fd = open_file(tmp_path / "new")
    (body,) = read(reopen_order())
    Orders([], Stores(), log, never).obey(body, [fd], NOW)
    assert os.fstat(log.fd).st_ino == (tmp_path / "new").stat().st_ino
    os.close(fd)
    log.close()


# Settings.


def test_settings_arrive_as_they_were_read(tmp_path: Path) -> None:
    values = {
        "frontend": [
            {"name": "web", "listen": ["127.0.0.1:1"], "cluster": "app", "certificates": ["\u00fc.pem"]}
        ],
        "cluster": {"app": {"servers": ["127.0.0.1:2"]}},
        "timeouts": {"drain": 1.5},
    }
    (body,) = read(settings_order(values, tmp_path, [("app", "127.0.0.1:2")]))
    config, keys = settings_in(body)

    assert config == load(PlainSource(values, tmp_path))
    assert keys == [("app", "127.0.0.1:2")]


def test_a_frontend_follows_other_clusters_and_keeps_its_contexts() -> None:
    assembly = serving(frontend(Host(names=("b.test",), **GUARD)), A, B)
    before = contexts(assembly)
    changed = replace(assembly.config, cluster="two", accept_proxy_from=())
    assembly.change(changed, CLUSTERS, Limits(), logs_query=False)
    obeyed(assembly, message([A, B], [A, B]))

    assert {served(assembly, name).cluster.name for name in ("a.test", "b.test")} == {"two"}
    assert contexts(assembly) == before
