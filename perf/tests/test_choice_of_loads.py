"""Which loads the command line chooses, and that their rows fit together."""

import click
import pytest

from comparison.choices import choose
from comparison.loads import LOADS
from comparison.machine import Cores
from comparison.scale import SCALE_LOADS
from comparison.servers import SERVERS, Setting

ALL = [*LOADS, *SCALE_LOADS]
PLACES = {
    "port": "1",
    "backend_port": "2",
    "connections": "3",
    "sockets": "6",
    "workers": "2",
    "directory": "/site",
    "chain": "/site/c.crt",
    "key": "/site/c.key",
    "pem": "/site/c.pem",
    "pem_kind": "file",
    "groups": "X25519",
    "ciphersuites": "TLS_AES_128_GCM_SHA256",
}


def names(words: str) -> list[str]:
    return [load.name for load in choose(words, ALL)]


def test_the_first_words_of_names_choose_all_that_begin_so() -> None:
    assert names("bulk, handshake") == ["handshake-rsa", "handshake-ecdsa", "bulk"]
    assert names("scale") == [load.name for load in SCALE_LOADS]


def test_half_a_word_chooses_nothing() -> None:
    with pytest.raises(click.BadParameter, match=r"unknown: hand; known: keepalive, response-10k"):
        choose("hand", ALL)


def test_a_name_that_another_one_continues_is_not_mistaken_for_it() -> None:
    assert names("scale-connections-100") == ["scale-connections-100"]


def test_what_grows_grows_from_a_load_that_is_measured_before_it() -> None:
    seen: set[str] = set()
    for load in ALL:
        assert not load.grows_from or load.grows_from in seen
        assert load.name not in seen
        seen.add(load.name)


def test_more_workers_get_more_cores_where_there_are_any() -> None:
    assert Cores(serving=0, load=1).serving_for(2) == (0,)
    assert Cores(serving=0, load=1, more=(2, 3)).serving_for(2) == (0, 2)
    assert Cores(serving=0, load=1, more=(2, 3)).serving_for(1) == (0,)


@pytest.mark.parametrize(
    "server", [it for peers in SERVERS.values() for it in peers], ids=lambda it: it.name
)
def test_every_server_is_told_how_many_workers_it_has(server) -> None:  # noqa: ANN001
    few = server.config_for(PLACES)
    many = server.config_for({**PLACES, "workers": "7"})
    assert few != many


def test_servers_have_one_worker_unless_a_load_says_otherwise() -> None:
    assert Setting().workers == 1
