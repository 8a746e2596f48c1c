"""Routes: the first that takes host and path, and no other spelling of a path finds another one."""

from __future__ import annotations

import posixpath
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.http.routing import Route, Routes, plain_path

ROUTES = Routes(
    [
        Route("a.test", b"/admin", "admin"),
        Route("a.test", b"/", "a"),
        Route("*.b.test", b"/", "under b"),
        Route("", b"/static/", "static"),
    ]
)


@pytest.mark.parametrize(
    ("host", "target", "to"),
    [
        ("a.test", b"/", "a"),
        ("a.test", b"/static/", "a"),
        ("a.test", b"/admin", "admin"),
        ("a.test", b"/admin/x?y", "admin"),
        ("a.test", b"/administration", "admin"),
        ("a.test", b"/x?/admin", "a"),
        ("a.test", b"/Admin", "a"),
        ("a.test", b"/%61dmin", "admin"),
        ("a.test", b"//admin", "admin"),
        ("a.test", b"/./admin", "admin"),
        ("a.test", b"/x/../admin", "admin"),
        ("a.test", b"/x/%2e%2E/admin", "admin"),
        ("a.test", b"/x//../../admin", "admin"),
        ("a.test", b"/x/..%2fadmin", "admin"),
        ("a.test", b"/admin/../x", "a"),
        ("b.test", b"/", None),
        ("x.b.test", b"/", "under b"),
        ("y.x.b.test", b"/", None),
        (".b.test", b"/", "under b"),
        ("xb.test", b"/", None),
        ("c.test", b"/static/x", "static"),
        ("c.test", b"/static", None),
        ("c.test", b"/x/../static/x", "static"),
        ("c.test", b"/static/../x", None),
        ("", b"/static/x", "static"),
        ("", b"/", None),
        ("a.test", b"*", None),
        ("c.test", b"/?/static/", None),
    ],
)
def test_the_first_route_that_takes_host_and_path_wins(host: str, target: bytes, to: str | None) -> None:
    assert ROUTES.find(host, target) == to


def test_where_there_are_no_routes_none_is_found() -> None:
    nowhere: Routes[str] = Routes()
    assert nowhere.find("a.test", b"/") is None
    assert (bool(nowhere), bool(ROUTES)) == (False, True)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/a/b", b"/a/b"),
        (b"/a/b/", b"/a/b/"),
        (b"/a?b/../c", b"/a"),
        (b"/a/?b", b"/a/"),
        (b"/.", b"/"),
        (b"/..", b"/"),
        (b"/../../a", b"/a"),
        (b"/a/.", b"/a/"),
        (b"/a/b/..", b"/a/"),
        (b"/a/b/%2e%2e", b"/a/"),
        (b"/a/..", b"/"),
        (b"/a/./b", b"/a/b"),
        (b"/a//b", b"/a/b"),
        (b"//", b"/"),
        (b"/a//", b"/a/"),
        (b"/a//../b", b"/b"),
        (b"/a/b%2f..%2fc", b"/a/c"),
        (b"/.a", b"/.a"),
        (b"/..a", b"/..a"),
        (b"/a..", b"/a.."),
        (b"/a.../b", b"/a.../b"),
        (b"/%", b"/%"),
        (b"/%zz", b"/%zz"),
        (b"/%252e%252e/", b"/%2e%2e/"),
        (b"/%C3%A9", b"/\xc3\xa9"),
        (b"*", b"*"),
    ],
)
def test_a_path_is_what_a_server_takes_it_for(target: bytes, path: bytes) -> None:
    assert plain_path(target) == path


SEGMENTS = st.lists(st.sampled_from(["a", "b", "", ".", "..", "...", "a.b", "é"]), max_size=8)


@given(SEGMENTS)
def test_a_path_is_pythons_normal_one(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    plain = plain_path(path.encode()).decode()
    assert posixpath.normpath(plain) == posixpath.normpath(path).replace("//", "/", 1)
    assert plain.startswith("/")
    assert plain_path(plain.encode()).decode() == plain


@given(SEGMENTS, st.randoms(use_true_random=False))
def test_a_path_is_the_same_however_it_is_encoded(segments: list[str], random: Random) -> None:
    path = ("/" + "/".join(segments)).encode()
    spellings = [b"%c", b"%%%02x", b"%%%02X"]
    encoded = b"".join(random.choice(spellings) % byte for byte in path[1:])
    assert plain_path(b"/" + encoded) == plain_path(path)


@given(st.binary(max_size=60))
def test_no_target_is_too_odd(target: bytes) -> None:
    path = plain_path(b"/" + target)
    assert path.startswith(b"/")
    assert b"?" not in path or b"%" in target
