"""Which certificate serves which name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termproxy.tls.certificates import Certificate
from termproxy.tls.selection import (
    Identity,
    NameTable,
    certificates_by_name,
    default_identity,
    why_not,
)

NOW = datetime(2030, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def certificate(
    file: str, *names: str, key: str = "ecdsa", begins: float = -10, ends: float = 10
) -> Certificate:
    """`begins` and `ends` in days from NOW."""
    return Certificate(
        chain_file=Path(file),
        key_file=Path(file),
        chain=b"",
        key=b"",
        names=names,
        issuer="CA",
        key_type=key,
        curve=None,
        not_before=NOW + begins * DAY,
        not_after=NOW + ends * DAY,
        sha256=f"leaf of {file}",
        chain_sha256=f"chain of {file}",
        leaf_der=file.encode(),
        findings=(),
        ocsp_responder=None,
    )


def files(identity: Identity | None) -> list[str] | None:
    return None if identity is None else [str(each.chain_file) for each in identity]


def serving(name: str, *certificates: Certificate) -> list[str] | None:
    return files(certificates_by_name(certificates, NOW).find(name))


# Names and wildcards.


def table(*patterns: str) -> NameTable[str]:
    made: NameTable[str] = NameTable()
    for pattern in patterns:
        made.add(pattern, pattern)
    return made


def test_the_exact_name_comes_before_the_wildcard() -> None:
    for patterns in (["*.e.test", "a.e.test"], ["a.e.test", "*.e.test"]):
        assert table(*patterns).find("a.e.test") == "a.e.test"
        assert table(*patterns).find("b.e.test") == "*.e.test"


@pytest.mark.parametrize(
    "name", ["e.test", "a.b.e.test", "ae.test", "test", "a.e.test.evil", "", ".e.test."]
)
def test_a_wildcard_is_one_label_and_never_the_bare_domain(name: str) -> None:
    assert table("*.e.test").find(name) is None


def test_a_wildcard_one_label_down_is_another() -> None:
    assert table("*.e.test", "*.b.e.test").find("a.b.e.test") == "*.b.e.test"


def test_a_name_without_a_dot_has_no_wildcard() -> None:
    assert table("*.test", "localhost").find("test") is None
    assert table("*.test", "localhost").find("localhost") == "localhost"


def test_a_wildcard_itself_finds_what_serves_a_name_that_nothing_else_knows() -> None:
    assert table("*.e.test", "a.e.test").find("*.e.test") == "*.e.test"
    assert table("a.e.test").find("*.e.test") is None


def test_a_later_value_replaces_the_earlier() -> None:
    made: NameTable[int] = NameTable()
    for value in (1, 2):
        made.add("a.test", value)
        made.add("*.a.test", -value)
    assert (made.find("a.test"), made.find("b.a.test")) == (2, -2)
    assert sorted(made.values()) == [-2, 2]
    assert sorted(made.patterns()) == ["*.a.test", "a.test"]


LABEL = st.sampled_from(["a", "b", "c", "xn--d"])
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATTERN = NAME | NAME.map("*.{}".format)


def naive(patterns: list[str], name: str) -> str | None:
    """As RFC 9525 §6.3 says it, pattern by pattern."""
    if name in patterns:
        return name
    for pattern in patterns:
        if pattern.startswith("*."):
            label, dot, rest = name.partition(".")
            if label and dot and rest == pattern[2:]:
                return pattern
    return None


@given(patterns=st.lists(PATTERN, max_size=12), name=NAME)
def test_the_table_finds_what_a_search_through_all_patterns_does(patterns: list[str], name: str) -> None:
    assert table(*patterns).find(name) == naive(patterns, name)


@given(patterns=st.lists(PATTERN, max_size=12), name=NAME)
def test_a_match_is_the_pattern_that_found_it(patterns: list[str], name: str) -> None:
    assert table(*patterns).match(name) == table(*patterns).find(name)


@given(patterns=st.lists(PATTERN, max_size=12))
def test_the_table_gives_back_its_patterns(patterns: list[str]) -> None:
    assert sorted(table(*patterns).patterns()) == sorted(set(patterns))
    assert sorted(table(*patterns).values()) == sorted(set(patterns))


# Two certificates for one name.


def test_of_two_the_one_that_is_valid_now_serves() -> None:
    early = certificate("early", "a.test", begins=1, ends=90)
    late = certificate("late", "a.test", begins=-90, ends=-1)
    good = certificate("good", "a.test", ends=1)
    for order in ([early, late, good], [good, late, early], [late, good, early]):
        assert serving("a.test", *order) == ["good"]


def test_of_two_valid_ones_that_which_expires_last_serves() -> None:
    one, other = certificate("short", "a.test", ends=5), certificate("long", "a.test", ends=50)
    assert serving("a.test", one, other) == serving("a.test", other, one) == ["long"]


def test_of_two_equals_the_first_given_serves() -> None:
    one, other = certificate("one", "a.test"), certificate("other", "a.test")
    assert serving("a.test", one, other) == ["one"]
    assert serving("a.test", other, one) == ["other"]


def test_of_two_invalid_ones_one_serves_all_the_same() -> None:
    one = certificate("one", "a.test", begins=-90, ends=-2)
    other = certificate("other", "a.test", begins=-90, ends=-1)
    assert serving("a.test", one, other) == ["other"]


def test_a_certificate_is_valid_from_its_beginning_until_before_its_end() -> None:
    begins, ended = certificate("a", "a.test", begins=0), certificate("b", "a.test", ends=0)
    assert begins.is_valid(NOW)
    assert not ended.is_valid(NOW)


def test_each_type_of_key_has_its_own_best() -> None:
    rsa = [certificate(f"rsa{ends}", "a.test", key="rsa", ends=ends) for ends in (3, 9, 6)]
    ecdsa = [certificate(f"ecdsa{ends}", "a.test", ends=ends) for ends in (8, 2)]
    found = serving("a.test", *rsa, *ecdsa)
    assert found is not None
    assert sorted(found) == ["ecdsa8", "rsa9"]


def test_a_certificate_s_every_name_is_decided_for_itself() -> None:
    both = certificate("both", "a.test", "b.test", ends=5)
    long = certificate("long", "b.test", ends=50)
    assert serving("a.test", both, long) == ["both"]
    assert serving("b.test", both, long) == ["long"]


def test_a_certificate_without_names_serves_none() -> None:
    assert list(certificates_by_name([certificate("nameless")], NOW).patterns()) == []


CERTIFICATES = st.lists(
    st.builds(
        lambda number, names, key, begins, ends: replace(
            certificate(str(number), *names, key=key),
            not_before=NOW + begins * DAY,
            not_after=NOW + ends * DAY,
        ),
        st.integers(0, 10**9),
        st.lists(PATTERN, max_size=3),
        st.sampled_from(["rsa", "ecdsa"]),
        st.integers(-3, 2),
        st.integers(-2, 3),
    ),
    min_size=1,
    max_size=8,
)


@given(certificates=CERTIFICATES, name=NAME)
def test_the_best_of_each_key_serves_whatever_there_is(
    certificates: list[Certificate], name: str
) -> None:
    pattern = naive([each for c in certificates for each in c.names], name)
    found = certificates_by_name(certificates, NOW).find(name)
    if pattern is None:
        assert found is None
        return
    assert found is not None
    for key in ("rsa", "ecdsa"):
        rivals = [c for c in certificates if pattern in c.names and c.key_type == key]
        best = max(rivals, key=lambda c: (c.is_valid(NOW), c.not_after), default=None)
        assert [c for c in found if c.key_type == key] == ([best] if best else [])


# Without a known name.


def by_default(*certificates: Certificate) -> list[str] | None:
    return files(default_identity(certificates, certificates_by_name(certificates, NOW)))


def test_the_first_certificate_is_the_default() -> None:
    assert by_default(certificate("one", "a.test"), certificate("other", "b.test")) == ["one"]
    assert by_default(certificate("nameless"), certificate("other", "b.test")) == ["nameless"]


def test_its_siblings_with_other_keys_come_along() -> None:
    assert by_default(
        certificate("ecdsa", "a.test"),
        certificate("rsa", "a.test", key="rsa"),
        certificate("other", "b.test", key="rsa"),
    ) == ["ecdsa", "rsa"]


def test_the_first_stays_the_default_where_another_serves_its_name() -> None:
    assert by_default(certificate("one", "a.test", ends=1), certificate("two", "a.test", ends=2)) == [
        "one"
    ]


@given(certificates=CERTIFICATES)
def test_the_default_has_the_first_and_one_of_each_key(certificates: list[Certificate]) -> None:
    found = default_identity(certificates, certificates_by_name(certificates, NOW))
    assert certificates[0] in found
    assert len({each.key_type for each in found}) == len(found)


# Why.


def reason(one: Certificate, other: Certificate, name: str = "a.test") -> str | None:
    chosen = certificates_by_name([one, other], NOW).find(name) or ()
    return why_not(one, name, chosen, NOW)


def test_the_one_that_serves_needs_no_reason() -> None:
    assert reason(certificate("one", "a.test", ends=9), certificate("other", "a.test")) == (
        "a.test is served by other, which expires later"
    )
    assert reason(certificate("one", "a.test"), certificate("other", "a.test", ends=9)) is None


def test_one_that_is_not_valid_is_told_so() -> None:
    one = certificate("one", "a.test", begins=1, ends=90)
    assert reason(one, certificate("other", "a.test")) == (
        "a.test is served by other: this one is not valid now"
    )


def test_of_equals_it_is_not_said_that_the_other_expires_later() -> None:
    """It does not: it was only given first."""
    told = reason(certificate("other", "a.test"), certificate("one", "a.test", ends=10))
    chosen = (certificate("first", "a.test"),)
    second = why_not(certificate("one", "a.test"), "a.test", chosen, NOW)
    assert told is None
    assert second is not None
    assert "expires later" not in second


def test_a_copy_of_what_serves_needs_no_reason() -> None:
    one = certificate("one", "a.test")
    copy = replace(one, chain_file=Path("copy"))
    assert why_not(copy, "a.test", (one,), NOW) is None


def test_another_key_is_no_rival() -> None:
    assert (
        reason(certificate("rsa", "a.test", key="rsa"), certificate("ecdsa", "a.test", ends=99)) is None
    )
    assert why_not(certificate("one", "a.test"), "a.test", (), NOW) is None
