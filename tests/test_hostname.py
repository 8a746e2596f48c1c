"""Which texts are host names: RFC 1035 §2.3.4, RFC 1123 §2.1, and underscores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.hostname import NAME_MAX, is_host_name, is_ip_address

LABEL = "a" * 63
LONGEST = ".".join([LABEL, LABEL, LABEL, "a" * 61])


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "localhost",
        "a.test",
        "a-b.test",
        "a--b.test",
        "_dmarc.a.test",
        "a_b.test",
        "1.test",
        "123",
        "xn--mnchen-3ya.test",
        f"{LABEL}.test",
        LONGEST,
        "a.b.c.d.e.f.g",
    ],
)
def test_a_host_name_is_one(text: str) -> None:
    assert is_host_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a.test",
        "a-.test",
        "a.-b",
        "-",
        "A.test",
        "a.Test",
        "a b",
        "a.test ",
        " a.test",
        "a.test\n",
        "a\x00",
        "*.a.test",
        "*",
        "a*b",
        "[::1]",
        "::1",
        "a:443",
        "münchen.test",
        "a.teıst",
        "K.test",
        "a/b",
        "a@b",
        "a,b",
        f"a{LABEL}.test",
        f"a{LONGEST}",
        ".".join(["a"] * 128),
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert not is_host_name(text)


ADDRESSES = [
    "192.0.2.1",
    "0.0.0.0",
    "::",
    "2001:db8::1",
    "[2001:db8::1]",
    "::ffff:192.0.2.1",
    "fe80::1%eth0",
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_no_host_name(text: str) -> None:
    assert is_ip_address(text)
    assert not is_host_name(text)


@pytest.mark.parametrize(
    "text", ["", "a", "1", "1.2.3", "1.2.3.4.5", "256.0.0.1", "a.1", "a:b", "1.2.3.4.test"]
)
def test_what_only_looks_like_an_address_is_none(text: str) -> None:
    assert not is_ip_address(text)


@given(address=st.ip_addresses())
def test_every_address_is_one(address: object) -> None:
    assert is_ip_address(str(address))
    assert not is_host_name(str(address))


def test_the_longest_name_has_253_characters() -> None:
    assert len(LONGEST) == NAME_MAX == 253


LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", fullmatch=True)


@given(labels=st.lists(LABELS, min_size=1, max_size=8))
def test_labels_make_a_name_while_they_are_not_too_long(labels: list[str]) -> None:
    name = ".".join(labels)
    assert is_host_name(name) == (len(name) <= NAME_MAX and not is_ip_address(name))
    assert not is_host_name(f"{name}.")
    assert not is_host_name(f"*.{name}")


@given(text=st.text(max_size=300))
def test_a_host_name_is_plain_whatever_the_text(text: str) -> None:
    if is_host_name(text):
        assert text.isascii()
        assert text == text.lower()
        assert not set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_a_text_without_an_end_is_decided_at_once() -> None:
    """No pattern of ours takes longer than the text is long."""
    assert not is_host_name("a" * 1_000_000)
    assert not is_host_name(("a-" * 126)[:252] + "!")
