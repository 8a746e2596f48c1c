"""The binding: who must show a certificate, and whose is let in.

Each case is decided three ways that must agree: by a connection's own context, and by one that the
ClientHello callback chooses while the first asks for nothing, or for something else.  CPython's
`sslobject.context = other` keeps the first one's demand, and so let everybody in (openssl #352);
Caddy did so when its CA file could not be read (CVE-2026-27586).
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from termproxy.errors import TlsError
from termproxy.outcome import WANT_READ
from termproxy.tls._openssl import Context
from termproxy.tls.failures import explain
from tests.support.tls import TLS_1_2, TLS_1_3, Pair, client_context, server_context
from tests.tls.pki import (
    CLIENT_USE,
    DAY,
    NOW,
    SERVER_USE,
    Issued,
    an_authority,
    crl_of,
    issue,
    showing,
)

CA = an_authority()
INTERMEDIATE = issue("intermediate", by=CA, is_authority=True)
SECOND_INTERMEDIATE = issue("second intermediate", by=INTERMEDIATE, is_authority=True)
REVOKED = issue("revoked", by=CA)
CRL = crl_of(CA, REVOKED)

GOOD: dict[str, Issued | None] = {
    "good": issue("good", by=CA),
    "good_for_clients": issue("good", by=CA, use=CLIENT_USE),
    "good_with_rsa": issue("good", by=CA, key="rsa"),
    "good_with_ed25519": issue("good", by=CA, key="ed25519"),
}
BAD: dict[str, tuple[Issued, str]] = {
    "wrong_authority": (issue("wrong", by=an_authority("others")), "unable to get local issuer"),
    "expired": (issue("late", by=CA, not_before=NOW - 9 * DAY, not_after=NOW - DAY), "has expired"),
    "not_yet_valid": (issue("early", by=CA, not_before=NOW + DAY), "not yet valid"),
    "revoked": (REVOKED, "certificate revoked"),
    "for_servers": (
        issue("server", by=CA, use=SERVER_USE),
        "un(suitable|supported) certificate purpose",
    ),
    "self_signed": (issue("self-signed"), "self-signed certificate"),
    "issued_by_no_authority": (issue("fake", by=issue("leaf", by=CA)), "invalid CA|unable to get"),
    "too_deep": (issue("deep", by=SECOND_INTERMEDIATE), "chain too long|unable to get"),
}

FORGED = issue("forged", by=issue("Tests' root", is_authority=True))

BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
WAYS = pytest.mark.parametrize("way", ["own", "after_off", "after_optional", "after_others"])


def demanding(demand: str, **policy: Any) -> Context:
    trusted: dict[str, Any] = {"client_ca": CA.pem, "client_crl": CRL, "client_depth": 1}
    return server_context(client_auth=demand, **trusted | policy)


def arriving(way: str, at: Context) -> Context:
    """A context whose connections end up `at` this one."""
    if way == "own":
        return at
    first: dict[str, dict[str, Any]] = {
        "after_off": {},
        "after_optional": {"client_auth": "optional", "client_ca": CA.pem, "client_depth": 9},
        "after_others": {
            "client_auth": "required",
            "client_ca": b"".join(issued.pem for issued, _ in BAD.values()),
            "client_depth": 9,
        },
    }
    return server_context(**first[way], on_client_hello=lambda _: at)


def client(version: int, shown: Issued | None) -> Any:
    return showing(client_context(version=version), shown)


def handshake(context: Context, version: int, shown: Issued | None) -> bytes | None:
    """The certificate that the server says was shown; after a byte has come through, too."""
    with Pair(context, client(version, shown)) as pair:
        pair.handshake()
        pair.client.send(b"let in")
        assert pair.read() == (b"let in", WANT_READ)
        return pair.server.peer_certificate


def refusal(context: Context, version: int, shown: Issued | None) -> TlsError:
    """How the handshake ended; not a byte of what the client said comes through."""
    with Pair(context, client(version, shown)) as pair:
        with pytest.raises(TlsError) as failure:
            pair.handshake()
        if pair.client.handshaken:  # TLS 1.3: the client has not heard of it yet
            pair.client.send(b"a request")
        for _ in range(3):
            with pytest.raises(TlsError):
                pair.server.read_into(bytearray(100))
        return failure.value


# Off, optional, required.


@WAYS
@BOTH_VERSIONS
@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("demand", ["optional", "required"])
def test_a_certificate_in_order_is_let_in_and_known(
    way: str, version: int, name: str, demand: str
) -> None:
    shown = GOOD[name]
    assert shown is not None
    assert handshake(arriving(way, demanding(demand)), version, shown) == shown.der


@WAYS
@BOTH_VERSIONS
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("demand", ["optional", "required"])
def test_a_certificate_not_in_order_is_refused_and_it_is_said_why(
    way: str, version: int, name: str, demand: str
) -> None:
    """A bad certificate is worse than none: "optional" does not let it in either."""
    shown, why = BAD[name]
    failure = refusal(arriving(way, demanding(demand)), version, shown)
    told = explain(failure)
    assert failure.code == 134
    assert (told.reason, told.alert_from) == ("client_certificate_refused", "proxy")
    assert re.search(why, told.detail)


@WAYS
@BOTH_VERSIONS
@pytest.mark.parametrize("demand", ["optional", "required"])
def test_a_forged_certificate_is_refused(way: str, version: int, demand: str) -> None:
    """Its authority has our authority's name, but not its key."""
    failure = refusal(arriving(way, demanding(demand)), version, FORGED)
    assert (failure.alert, failure.alert_from) == (51, "proxy")  # decrypt_error


@BOTH_VERSIONS
def test_of_a_forged_certificate_it_is_said_that_it_is(version: int) -> None:
    told = explain(refusal(demanding("required"), version, FORGED))
    assert told.reason == "client_certificate_refused"
    assert "signature failure" in told.detail


@WAYS
@BOTH_VERSIONS
def test_no_certificate_is_refused_where_one_is_required(way: str, version: int) -> None:
    failure = refusal(arriving(way, demanding("required")), version, None)
    assert failure.code == 199
    assert failure.alert == (116 if version == TLS_1_3 else 40)  # RFC 8446 §6.2, RFC 5246 §7.4.6
    assert explain(failure).reason == "no_client_certificate"


@WAYS
@BOTH_VERSIONS
def test_no_certificate_is_let_in_where_one_is_optional(way: str, version: int) -> None:
    assert handshake(arriving(way, demanding("optional")), version, None) is None


@WAYS
@BOTH_VERSIONS
@pytest.mark.parametrize("shown", [None, GOOD["good"], *(issued for issued, _ in BAD.values())])
def test_switched_off_nobody_is_asked(way: str, version: int, shown: Issued | None) -> None:
    """Also when the first context would have refused this very client."""
    assert handshake(arriving(way, server_context()), version, shown) is None


# Whose.


@BOTH_VERSIONS
def test_the_chosen_authorities_are_trusted_and_the_first_ones_are_not(version: int) -> None:
    other = an_authority("others")
    chosen = server_context(client_auth="required", client_ca=other.pem)
    first = demanding("required", on_client_hello=lambda _: chosen)
    theirs, ours = issue("theirs", by=other), issue("ours", by=CA)
    assert handshake(first, version, theirs) == theirs.der
    assert refusal(first, version, ours).code == 134


@BOTH_VERSIONS
def test_any_of_several_authorities_may_have_issued_it(version: int) -> None:
    other = an_authority("others")
    context = server_context(client_auth="required", client_ca=CA.pem + b"text\n" + other.pem)
    for authority in (CA, other):
        shown = issue("client", by=authority)
        assert handshake(context, version, shown) == shown.der


@BOTH_VERSIONS
def test_an_intermediate_alone_may_be_trusted(version: int) -> None:
    """A site that trusts one department needs not to trust all that the root has issued."""
    context = server_context(client_auth="required", client_ca=INTERMEDIATE.pem)
    shown = issue("client", by=INTERMEDIATE)
    assert handshake(context, version, shown) == shown.der
    assert refusal(context, version, issue("client", by=CA)).code == 134


@BOTH_VERSIONS
@pytest.mark.parametrize(("depth", "let_in"), [(0, False), (1, False), (2, True), (9, True)])
def test_the_depth_counts_intermediates(version: int, depth: int, *, let_in: bool) -> None:
    shown = issue("deep", by=SECOND_INTERMEDIATE)
    assert len(shown.intermediates) == 2
    chosen = demanding("required", client_crl=None, client_depth=depth)
    for context in (chosen, server_context(on_client_hello=lambda _: chosen)):
        if let_in:
            assert handshake(context, version, shown) == shown.der
        else:
            assert refusal(context, version, shown).code == 134


@BOTH_VERSIONS
def test_the_authorities_names_are_told_to_the_client(version: int) -> None:
    """RFC 5246 §7.4.4, RFC 8446 §4.2.4: browsers offer only what these have issued."""
    chosen = demanding("optional", client_ca=an_authority("Authority of the chosen").pem)
    first = demanding("optional", on_client_hello=lambda _: chosen)
    with Pair(first, client_context(version=version)) as pair:
        pair.handshake()
        heard = bytes(pair.client.heard)
    if version == TLS_1_2:  # in TLS 1.3 it is encrypted
        assert b"Authority of the chosen" in heard
        assert b"Tests' root" not in heard


# Revocation.


def under(crl: bytes, version: int, shown: Issued, **policy: Any) -> TlsError | None:
    context = demanding("required", client_crl=crl, **policy)
    try:
        handshake(context, version, shown)
    except TlsError as failure:
        return failure
    return None


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("crl", "why"),
    [
        (crl_of(an_authority("others")), "unable to get certificate CRL"),
        (crl_of(CA, next_update=NOW - DAY / 2), "CRL has expired"),
        (crl_of(CA, last_update=NOW + DAY / 2), "CRL is not yet valid"),
    ],
)
def test_a_crl_that_proves_nothing_lets_nobody_in(version: int, crl: bytes, why: str) -> None:
    shown = issue("client", by=CA)
    failure = under(crl, version, shown)
    assert failure is not None
    assert re.search(why, failure.reason)


@BOTH_VERSIONS
def test_a_forged_crl_lets_nobody_in(version: int) -> None:
    forged = crl_of(issue("Tests' root", is_authority=True))
    assert under(forged, version, issue("client", by=CA)) is not None


@BOTH_VERSIONS
def test_every_authority_of_a_chain_must_have_a_crl(version: int) -> None:
    shown = issue("client", by=INTERMEDIATE)
    assert under(CRL, version, shown) is not None
    assert under(CRL + crl_of(INTERMEDIATE), version, shown) is None


@BOTH_VERSIONS
def test_a_revoked_intermediate_takes_its_clients_along(version: int) -> None:
    crls = crl_of(CA, INTERMEDIATE) + crl_of(INTERMEDIATE)
    failure = under(crls, version, issue("client", by=INTERMEDIATE))
    assert failure is not None
    assert "revoked" in failure.reason


def test_a_trusted_intermediate_s_own_crl_is_not_enough() -> None:
    """With CRLs, every CA of the chain must have one: OpenSSL goes up to the root, and fails closed."""
    crl = crl_of(INTERMEDIATE)
    shown = issue("client", by=INTERMEDIATE)
    assert under(crl, TLS_1_3, shown, client_ca=INTERMEDIATE.pem) is not None


# Nothing that could be taken for "nobody is asked".


@pytest.mark.parametrize("demand", ["optional", "required"])
@pytest.mark.parametrize(
    "authorities",
    [
        None,
        b"",
        b"no PEM",
        b"\0",
        CRL,
        CA.key_pem,
        CA.pem[:-40],
        CA.pem + CA.pem[:-40],
        CA.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        CA.pem + b"-----BEGIN CERTIFICATE-----\n",
    ],
)
def test_without_whole_authorities_there_is_no_context(demand: str, authorities: bytes | None) -> None:
    with pytest.raises(ValueError, match=r"client CA|client_ca"):
        server_context(client_auth=demand, client_ca=authorities)


@pytest.mark.parametrize("crl", [b"", b"no PEM", CA.pem, CRL[:-40], b"\0" * 99])
def test_without_a_whole_crl_there_is_no_context(crl: bytes) -> None:
    with pytest.raises(ValueError, match="CRL"):
        demanding("required", client_crl=crl)


@pytest.mark.parametrize(
    "damage", [CRL[:-40], b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"]
)
def test_a_bundle_is_not_cut_at_its_first_damaged_crl(damage: bytes) -> None:
    with pytest.raises(ValueError, match="CRL"):
        demanding("required", client_crl=CRL + damage)


@pytest.mark.parametrize("demand", ["on", "OFF", "Required", "", "none"])
def test_an_unknown_demand_is_refused(demand: str) -> None:
    with pytest.raises(ValueError, match="client_auth"):
        server_context(client_auth=demand, client_ca=CA.pem)


# A verified client that comes back.


@BOTH_VERSIONS
@pytest.mark.parametrize("demand", ["optional", "required"])
def test_a_resumed_session_keeps_who_the_client_is(version: int, demand: str) -> None:
    shown = issue("client", by=CA)
    chosen = demanding(demand)
    first = server_context(on_client_hello=lambda _: chosen)
    theirs = client(version, shown)
    with Pair(first, theirs) as pair:
        session = pair.handshake().client.session()
    with Pair(first, theirs, session=session) as pair:
        pair.handshake()
        assert pair.server.resumed
        assert pair.server.peer_certificate == shown.der


@BOTH_VERSIONS
def test_a_session_without_a_certificate_is_not_resumed_where_one_is_required(version: int) -> None:
    """CVE-2025-23419: a name that asks nobody must not open the door of one that does."""
    open_to_all = server_context(session_id_context=b"open")
    guarded = demanding("required", session_id_context=b"guarded")
    choices = [open_to_all, guarded]
    first = server_context(on_client_hello=lambda _: choices.pop(0))
    theirs = client(version, None)
    with Pair(first, theirs) as pair:
        session = pair.handshake().client.session()
    with Pair(first, theirs, session=session) as pair, pytest.raises(TlsError) as failure:
        pair.handshake()
    assert failure.value.code == 199


@BOTH_VERSIONS
def test_a_session_of_another_authoritys_client_is_not_resumed(version: int) -> None:
    other = an_authority("others")
    choices = [
        server_context(client_auth="required", client_ca=other.pem, session_id_context=b"others"),
        demanding("required", session_id_context=b"ours"),
    ]
    first = server_context(on_client_hello=lambda _: choices.pop(0))
    theirs = client(version, issue("theirs", by=other))
    with Pair(first, theirs) as pair:
        session = pair.handshake().client.session()
    with Pair(first, theirs, session=session) as pair, pytest.raises(TlsError) as failure:
        pair.handshake()
    assert failure.value.code == 134


@BOTH_VERSIONS
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("one", "other"), [("off", "optional"), ("off", "required")])
def test_a_session_of_another_group_means_a_full_handshake_with_its_demand(
    version: int, one: str, other: str, *, back: bool
) -> None:
    shown = issue("client", by=CA)
    choices = [demanding(one, session_id_context=b"one"), demanding(other, session_id_context=b"other")]
    if back:
        choices.reverse()
    last_demands = not back
    first = server_context(on_client_hello=lambda _: choices[0])
    theirs = client(version, shown)
    with Pair(first, theirs) as pair:
        session = pair.handshake().client.session()
    choices.pop(0)
    with Pair(first, theirs, session=session) as pair:
        pair.handshake()
        assert not pair.server.resumed
        assert pair.server.peer_certificate == (shown.der if last_demands else None)


@BOTH_VERSIONS
def test_before_the_handshake_nobody_has_shown_anything(version: int) -> None:
    with Pair(demanding("required"), client(version, GOOD["good"])) as pair:
        assert pair.server.peer_certificate is None


def test_two_keys_of_one_type_are_refused() -> None:
    one, other = issue("a", "a.test"), issue("b", "b.test")
    with pytest.raises(ValueError, match="certificate and key"):
        server_context(identities=[(one.pem, one.key_pem), (other.pem, other.key_pem)])
