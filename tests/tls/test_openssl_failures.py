"""The binding: a TlsError has OpenSSL's reason, the alert, and which side sent it.

And what tls/failures.py makes of it: here the numbers are OpenSSL's own.
"""

from __future__ import annotations

import errno
import ssl
from typing import Any

import pytest
import trustme

from termproxy.errors import Fault, TlsError
from termproxy.outcome import DONE, WANT_READ
from termproxy.tls.failures import explain
from tests.support.tls import TLS_1_2, TLS_1_3, Pair, client_context, server_context, site

BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])


def failure_of(pair: Pair) -> TlsError:
    with pytest.raises(TlsError) as failure:
        pair.handshake()
    return failure.value


def failure_on(first_bytes: bytes) -> TlsError:
    """What a server makes of a client that says this."""
    with Pair(server_context()) as pair:
        pair.client.wire.send(first_bytes)
        with pytest.raises(TlsError) as failure:
            pair.server.handshake()
        return failure.value


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "plain_http"),
        (b"POST /x HTTP/1.1\r\n\r\n", "plain_http"),
        (b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", "plain_http"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
        (bytes(100), "not_tls"),
        (b"\xff" * 100, "not_tls"),
    ],
)
def test_what_is_not_tls_is_told_from_what_is_http(said: bytes, reason: str) -> None:
    failure = explain(failure_on(said))
    assert (failure.reason, failure.fault) == (reason, Fault.CLIENT)


def test_a_client_hello_that_is_cut_short_inside_is_a_protocol_error() -> None:
    with Pair(server_context()) as pair:
        hello = bytearray(pair.client.hello())
        hello[43] = 0xFF  # the session id is longer than all that follows
        pair.client.wire.send(hello)
        failure = failure_of(pair)
    assert (failure.alert, failure.alert_from) == (50, "proxy")  # decode_error
    assert explain(failure).reason == "protocol_error"


@BOTH_VERSIONS
def test_a_client_that_does_not_trust_us_says_so(version: int) -> None:
    stranger = client_context(version=version, trusts=trustme.CA())
    with Pair(server_context(), stranger) as pair:
        failure = failure_of(pair)
        assert isinstance(pair.client.error, ssl.SSLCertVerificationError)
    assert (failure.code, failure.alert, failure.alert_from) == (1048, 48, "client")
    assert explain(failure).reason == "certificate_rejected"
    assert explain(failure).alert == "unknown_ca"


def test_no_shared_cipher() -> None:
    client = client_context(version=TLS_1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    with Pair(server_context(), client) as pair:
        failure = failure_of(pair)
    assert (failure.reason, failure.code) == ("no shared cipher", 193)
    assert (failure.alert, failure.alert_from) == (40, "proxy")
    assert explain(failure).reason == "no_shared_cipher"


def test_no_shared_group() -> None:
    rsa = site(key_type=trustme.KeyType.RSA)
    client = client_context(version=TLS_1_3, group="prime256v1")
    with Pair(server_context(rsa, groups="X25519"), client) as pair:
        assert explain(failure_of(pair)).reason == "no_shared_group"


def test_no_shared_signature_algorithm() -> None:
    context = server_context(signature_algorithms="ECDSA+SHA384")
    with Pair(context, client_context(version=TLS_1_3)) as pair:
        assert explain(failure_of(pair)).reason == "no_shared_signature_algorithm"


@pytest.mark.parametrize(
    ("policy", "version"), [({"min_version": TLS_1_3}, TLS_1_2), ({"max_version": TLS_1_2}, TLS_1_3)]
)
def test_a_version_that_is_not_allowed(policy: dict[str, Any], version: int) -> None:
    with Pair(server_context(**policy), client_context(version=version)) as pair:
        failure = failure_of(pair)
        assert pair.client.alert() == 70
    assert (failure.alert, failure.alert_from) == (70, "proxy")
    assert explain(failure).reason == "no_shared_version"


def test_no_shared_protocol() -> None:
    with Pair(server_context(alpn=[b"h2"]), client_context(alpn=["ftp"])) as pair:
        assert explain(failure_of(pair)).reason == "no_shared_protocol"


@pytest.mark.parametrize("heard", [0, 1, 100])
def test_a_client_that_leaves_in_the_middle(heard: int) -> None:
    with Pair(server_context()) as pair:
        pair.client.wire.send(pair.client.hello()[:heard])
        pair.client.wire.close()
        with pytest.raises(TlsError) as failure:
            pair.server.handshake()
    assert (failure.value.code, failure.value.errno) == (294, 0)
    assert explain(failure.value).reason == "client_closed"


def test_a_client_that_resets_in_the_middle() -> None:
    with Pair(server_context()) as pair:
        pair.greet()
        assert pair.server.handshake() == WANT_READ
        pair.client.wire.close()  # with our flight unread: a reset
        with pytest.raises(TlsError) as failure:
            pair.server.handshake()
    assert (failure.value.code, failure.value.errno) == (0, errno.ECONNRESET)
    assert (failure.value.alert, failure.value.alert_from) == (None, None)
    assert explain(failure.value).reason == "client_reset"


def test_a_close_notify_is_not_told_as_the_alert_of_a_later_failure() -> None:
    with Pair(server_context()) as pair:
        pair.handshake()
        assert pair.server.shutdown() == DONE
        pair.client.wire.close()  # with the tickets unread: a reset
        with pytest.raises(TlsError) as failure:
            pair.server.read_into(bytearray(1))
    assert (failure.value.alert, failure.value.alert_from) == (None, None)


def test_a_record_that_was_tampered_with() -> None:
    with Pair(server_context()) as pair:
        pair.handshake()
        record = bytearray(pair.client.sealed(b"the bytes"))
        record[-1] ^= 1
        pair.client.wire.send(record)
        with pytest.raises(TlsError) as failure:
            pair.server.read_into(bytearray(100))
    assert (failure.value.alert, failure.value.alert_from) == (20, "proxy")  # bad_record_mac
    assert explain(failure.value).reason == "protocol_error"


def test_a_failure_of_one_connection_is_not_told_of_another() -> None:
    """OpenSSL keeps its errors in one queue for all of a thread's connections."""
    with Pair(server_context()) as good, Pair(server_context()) as bad:
        good.greet()
        bad.client.wire.send(bytes(100))
        with pytest.raises(TlsError):
            bad.server.handshake()
        assert good.server.handshake() == WANT_READ
        good.handshake()


def test_errors_that_others_left_in_openssls_queue_are_not_ours() -> None:
    with Pair(server_context()) as pair:
        pair.greet()
        with pytest.raises(ssl.SSLError):
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=b"no certificate")
        assert pair.server.handshake() == WANT_READ
