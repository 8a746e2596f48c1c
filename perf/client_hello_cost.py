"""What does it cost to look at every ClientHello, and to choose one of ten thousand contexts?

    PYTHONPATH=. .venv/bin/python perf/client_hello_cost.py [HANDSHAKES]          (3000)

termproxy's callback always runs, so perf/names cannot tell.  Here a client and the binding's Connection
share one thread and a socket pair, and of each full handshake only what the server's side takes is
counted.  All ways have their turn in each round; what one costs more than the first is the median of the
rounds' differences.
"""

from __future__ import annotations

import random
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import trustme

from termproxy.outcome import DONE
from termproxy.tls._openssl import Connection, Context
from termproxy.tls.selection import NameTable
from termproxy.worker.frontend import Frontend
from tests.support.tls import TURNS, Pair, Site, client_context, server_context

NAMES = [f"www.site-{number:05}.example" for number in range(10_000)]
WARM_UP = 200  # rounds, after one handshake for each name: what is done only once is not compared

Callback = Callable[[Connection], Context | int | None]


@dataclass(frozen=True, slots=True)
class Way:
    title: str
    context: Context
    names: list[str]  # what its clients ask for


@dataclass(frozen=True, slots=True)
class OnlyContext:
    """What a name gets, as far as the callback looks at it."""

    context: Context


def ways() -> list[Way]:
    print(f"making {len(NAMES):,} certificates and contexts", flush=True)
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    sites = [issued(authority, name) for name in NAMES]
    first = NAMES[:1]
    one, many = Frontend("one", reject_unknown=False), Frontend("many", reject_unknown=False)
    serve(one, sites[:1])
    serve(many, sites)
    return [
        Way("no callback", server_context(sites[0]), first),
        Way("a callback that does nothing", server_context(sites[0], on_client_hello=nothing), first),
        Way("the frontend's, 1 name", one.entry, first),
        Way("the frontend's, 10,000 names, the first", many.entry, first),
        Way("the frontend's, 10,000 names, another", many.entry, NAMES[-1:]),
        Way("the frontend's, 10,000 names, all of them", many.entry, NAMES),
    ]


def issued(authority: trustme.CA, name: str) -> Site:
    leaf = authority.issue_cert(name, key_type=trustme.KeyType.ECDSA)
    return Site(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())


def nothing(_: Connection) -> None:
    return None


def serve(frontend: Frontend, sites: list[Site]) -> None:
    """Show these for NAMES; the first one's context is the one that asks."""
    entry = server_context(sites[0], on_client_hello=frontend.on_client_hello)
    served = [OnlyContext(context) for context in (entry, *map(server_context, sites[1:]))]
    table: NameTable[Any] = NameTable()
    for name, of_name in zip(NAMES, served, strict=False):
        table.add(name, of_name)
    frontend.serve(cast("Any", served[0]), table)


def server_seconds(way: Way, client: ssl.SSLContext, name: str) -> float:
    """CPU time of the server's side of one full handshake."""
    with Pair(way.context, client, name=name) as pair:
        spent = 0
        for _ in range(TURNS):
            pair.client.advance()
            began = time.thread_time_ns()
            outcome = pair.server.handshake()
            spent += time.thread_time_ns() - began
            if outcome == DONE:
                return spent / 1e9
    raise AssertionError("the handshake does not end")


def one_round(compared: list[Way], client: ssl.SSLContext) -> list[float]:
    """A handshake each, in a random order: who comes after the ten thousand finds colder caches."""
    spent = {
        way.title: server_seconds(way, client, random.choice(way.names))
        for way in random.sample(compared, len(compared))
    }
    return [spent[way.title] for way in compared]


def main(handshakes: int) -> None:
    client = client_context()
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE  # its own time is not counted
    compared = ways()
    for way in compared:
        for name in way.names:
            server_seconds(way, client, name)
    rounds = [one_round(compared, client) for _ in range(WARM_UP + handshakes)][WARM_UP:]
    columns = list(zip(*rounds, strict=True))
    without = statistics.median(columns[0])
    print(f"server's CPU for a full handshake, median of {handshakes:,}:")
    for way, column in zip(compared, columns, strict=True):
        more = statistics.median(mine - first for mine, first in zip(column, columns[0], strict=True))
        spent = statistics.median(column)
        print(f"{way.title:>45}  {spent * 1e6:6.1f} µs  {more * 1e6:+5.1f} µs  {more / without:+.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
