"""The binding: what a Context demands is what a handshake gives.  RFC 8446, RFC 5246."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess

import pytest
import trustme

from termproxy.errors import TlsError
from termproxy.outcome import DONE, WANT_READ, WANT_WRITE
from termproxy.tls._openssl import (
    Connection,
    Context,
    TicketKeys,
    openssl_version,
    openssl_version_number,
)
from tests.support.tls import (
    DATA_RECORD,
    TLS_1_2,
    TLS_1_3,
    Pair,
    client_context,
    records,
    server_context,
    signature_scheme,
    site,
    ticket_ring,
)

ECDSA_SHA256, ECDSA_SHA384 = 0x0403, 0x0503
AES_128, AES_256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
CHACHA = "ECDHE-ECDSA-CHACHA20-POLY1305"
TEN_SECONDS = struct.pack("ll", 10, 0)  # a struct timeval

BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])


def test_the_library_names_itself() -> None:
    assert openssl_version().startswith("OpenSSL 3.")
    assert openssl_version_number() >= (3, 0)


# Versions.


def test_both_ends_able_the_newest_version_is_agreed() -> None:
    with Pair(server_context()) as pair:
        assert pair.handshake().server.version == "TLSv1.3"


def test_the_maximum_version_holds() -> None:
    with Pair(server_context(max_version=TLS_1_2)) as pair:
        assert pair.handshake().server.version == "TLSv1.2"


def test_a_client_below_the_minimum_version_is_refused() -> None:
    with (
        Pair(server_context(min_version=TLS_1_3), client_context(version=TLS_1_2)) as pair,
        pytest.raises(TlsError) as failure,
    ):
        pair.handshake()
    assert (failure.value.alert, failure.value.alert_from) == (70, "proxy")


# Ciphers.


def test_the_ciphers_hold() -> None:
    with Pair(server_context(ciphers=AES_256), client_context(version=TLS_1_2)) as pair:
        assert pair.handshake().server.cipher == AES_256


@pytest.mark.parametrize("ours", [f"{AES_128}:{AES_256}", f"{AES_256}:{AES_128}"])
@pytest.mark.parametrize("theirs", [f"{AES_128}:{AES_256}", f"{AES_256}:{AES_128}"])
def test_the_order_of_ciphers_is_ours(ours: str, theirs: str) -> None:
    client = client_context(version=TLS_1_2, ciphers=theirs)
    with Pair(server_context(ciphers=ours), client) as pair:
        assert pair.handshake().server.cipher == ours.split(":", maxsplit=1)[0]


def test_a_client_without_aes_in_hardware_gets_its_chacha() -> None:
    """It puts ChaCha20 first, and then the order is its own."""
    client = client_context(version=TLS_1_2, ciphers=f"{CHACHA}:{AES_128}")
    with Pair(server_context(ciphers=f"{AES_128}:{CHACHA}"), client) as pair:
        assert pair.handshake().server.cipher == CHACHA


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
def test_the_ciphersuites_of_tls_1_3_hold(suite: str) -> None:
    with Pair(server_context(ciphersuites=suite)) as pair:
        assert pair.handshake().server.cipher == suite


# Groups and signatures.


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("group", "name"), [("X25519", "x25519"), ("P-256", "secp256r1"), ("P-384", "secp384r1")]
)
def test_the_groups_hold(group: str, name: str, version: int) -> None:
    """In TLS 1.3 a group whose share the client did not send costs a HelloRetryRequest."""
    with Pair(server_context(groups=group), client_context(version=version)) as pair:
        agreed = pair.handshake().server.group
    assert agreed is not None
    assert agreed.lower() == name


@BOTH_VERSIONS
def test_no_group_in_common_is_refused(version: int) -> None:
    client = client_context(version=version, group="prime256v1")
    context = server_context(site(key_type=trustme.KeyType.RSA), ciphers="ECDHE", groups="X25519")
    with Pair(context, client) as pair, pytest.raises(TlsError) as failure:
        pair.handshake()
    assert (failure.value.alert, failure.value.alert_from) == (40, "proxy")


@pytest.mark.parametrize(
    ("algorithms", "scheme"), [("ECDSA+SHA256", ECDSA_SHA256), ("ECDSA+SHA384", ECDSA_SHA384)]
)
def test_the_signature_algorithms_hold(algorithms: str, scheme: int) -> None:
    client = client_context(version=TLS_1_2)
    with Pair(server_context(signature_algorithms=algorithms), client) as pair:
        assert signature_scheme(pair.handshake().client.heard) == scheme


def test_a_key_that_can_make_no_allowed_signature_is_refused() -> None:
    """In TLS 1.3 SHA-384 goes with P-384 only (RFC 8446 §4.2.3), and our key is on P-256."""
    context = server_context(signature_algorithms="ECDSA+SHA384")
    with (
        Pair(context, client_context(version=TLS_1_3)) as pair,
        pytest.raises(TlsError) as failure,
    ):
        pair.handshake()
    assert (failure.value.alert, failure.value.alert_from) == (40, "proxy")


@BOTH_VERSIONS
@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_rsa_and_ecdsa_keys_both_serve(key_type: trustme.KeyType, version: int) -> None:
    with Pair(server_context(site(key_type=key_type)), client_context(version=version)) as pair:
        pair.handshake()


# ALPN.


@BOTH_VERSIONS
def test_our_order_decides_on_the_protocol(version: int) -> None:
    client = client_context(version=version, alpn=["http/1.1", "h2"])
    with Pair(server_context(alpn=[b"h2", b"http/1.1"]), client) as pair:
        pair.handshake()
        assert pair.server.alpn == b"h2"
        assert pair.client.tls.selected_alpn_protocol() == "h2"


@BOTH_VERSIONS
def test_no_protocol_in_common_is_refused(version: int) -> None:
    """RFC 7301 §3.2: no_application_protocol; going on with a protocol of our own is ALPACA's hole."""
    client = client_context(version=version, alpn=["ftp"])
    with Pair(server_context(alpn=[b"h2", b"http/1.1"]), client) as pair:
        with pytest.raises(TlsError) as failure:
            pair.handshake()
        assert (failure.value.code, failure.value.alert, failure.value.alert_from) == (235, 120, "proxy")
        assert pair.client.alert() == 120


def test_a_client_without_alpn_is_served() -> None:
    with Pair(server_context(alpn=[b"h2"])) as pair:
        assert pair.handshake().server.alpn is None


def test_without_protocols_of_ours_alpn_is_ignored() -> None:
    with Pair(server_context(), client_context(alpn=["h2"])) as pair:
        assert pair.handshake().server.alpn is None


def test_the_last_of_very_many_protocols_is_found() -> None:
    protocols = [b"%0255d" % number for number in range(1000)]
    client = client_context(alpn=[protocols[-1].decode()])
    with Pair(server_context(alpn=protocols), client) as pair:
        assert pair.handshake().server.alpn == protocols[-1]


# The name.


@BOTH_VERSIONS
def test_the_name_is_told(version: int) -> None:
    with Pair(server_context(), client_context(version=version)) as pair:
        assert pair.handshake().server.sni == b"a.test"


def test_a_client_that_names_no_site_is_served() -> None:
    client = client_context()
    client.check_hostname = False
    with Pair(server_context(), client, name=None) as pair:
        assert pair.handshake().server.sni is None


# Resumption.


def resumed(context: Context, client: ssl.SSLContext, *, again: Context | None = None) -> bool:
    """Whether a second handshake, with `again`, resumes the session that a first one gave."""
    with Pair(context, client) as first:
        session = first.handshake().client.session()
        first.server.shutdown()  # or OpenSSL would not keep it: it might have been an attack
    with Pair(again or context, client, session=session) as second:
        second.handshake()
        assert second.server.resumed == second.client.tls.session_reused
        assert second.server.sni == b"a.test"
        return second.server.resumed


@BOTH_VERSIONS
def test_a_ticket_is_redeemed_and_the_name_is_kept(version: int) -> None:
    """Without a name callback OpenSSL forgets the name in resumed TLS 1.2 sessions."""
    assert resumed(server_context(), client_context(version=version))


@BOTH_VERSIONS
def test_a_ticket_of_another_context_is_not_redeemed_and_does_no_harm(version: int) -> None:
    others = TicketKeys(ticket_ring(b"another seed"), bytes(32))
    again = server_context(ticket_keys=others)
    assert not resumed(server_context(), client_context(version=version), again=again)


def test_no_session_is_kept_for_a_client_without_tickets() -> None:
    """OpenSSL's own cache is off: it is one process's, and memory for whoever asks."""
    assert not resumed(server_context(), client_context(version=TLS_1_2, tickets=False))


@pytest.mark.parametrize("tickets", [0, 1, 2, 5])
def test_tls_1_3_sends_as_many_tickets_as_it_is_told(tickets: int) -> None:
    with Pair(server_context(tickets=tickets)) as pair:
        pair.handshake()
        before = len(pair.client.heard)
        pair.client.receive()
        after_handshake = records(pair.client.heard[before:])
    assert [kind for kind, _ in after_handshake] == [DATA_RECORD] * tickets


# What is switched off.


def test_there_is_no_compression() -> None:
    """CRIME: what compresses with a secret tells its length."""
    client = client_context(version=TLS_1_2)
    client.options &= ~ssl.OP_NO_COMPRESSION
    with Pair(server_context(), client) as pair:
        assert pair.handshake().client.tls.compression() is None


def test_a_renegotiation_is_refused() -> None:
    """Ours is the warning no_renegotiation (RFC 5246 §7.2.2); s_client then gives up."""
    asked: list[Connection] = []
    context = server_context(max_version=TLS_1_2, on_client_hello=asked.append)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = subprocess.Popen(
            ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with client, listener.accept()[0] as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TEN_SECONDS)
            server = Connection(context, wire.fileno())
            assert server.handshake() == DONE
            assert client.stdin is not None
            client.stdin.write(b"R\n")
            client.stdin.flush()
            with pytest.raises(TlsError) as failure:
                server.read_into(bytearray(100))
            told, _ = client.communicate(timeout=10)
    assert b"no renegotiation" in told
    assert failure.value.alert_from == "client"
    assert asked == [server]


# In pieces.


@BOTH_VERSIONS
def test_a_handshake_may_come_byte_by_byte(version: int) -> None:
    with Pair(server_context(), client_context(version=version)) as pair:
        hello = pair.client.hello()
        for byte in hello[:-1]:
            pair.client.wire.send(bytes([byte]))
            assert pair.server.handshake() == WANT_READ
        pair.client.wire.send(hello[-1:])
        assert pair.handshake().server.handshake() == DONE


def test_a_client_hello_may_be_cut_anywhere() -> None:
    context, client = server_context(), client_context()
    with Pair(context, client) as pair:
        length = len(pair.client.hello())
    for cut in range(1, length):
        with Pair(context, client) as pair:
            hello = pair.client.hello()
            pair.client.wire.send(hello[:cut])
            assert pair.server.handshake() == WANT_READ
            pair.client.wire.send(hello[cut:])
            pair.handshake()


def test_a_long_chain_waits_until_the_client_has_read_the_beginning() -> None:
    chain = site().chain + b"".join(site(f"{number}.test").chain for number in range(20))
    with Pair(server_context(chain=chain), wire_size=4096) as pair:
        pair.greet()
        assert pair.server.handshake() == WANT_WRITE
        assert pair.server.handshake() == WANT_WRITE
        pair.handshake()


# Before the handshake.


def test_before_the_handshake_nothing_is_agreed() -> None:
    with Pair(server_context()) as pair:
        server = pair.server
        assert (server.cipher, server.group, server.sni, server.alpn) == (None, None, None, None)
        assert (server.resumed, server.pending()) == (False, False)
        assert (server.plaintext_read, server.plaintext_written) == (0, 0)
        assert server.shutdown() == DONE
