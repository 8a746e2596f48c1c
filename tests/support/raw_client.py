"""libssl's own client, by ctypes and in memory: it shows any session that a test makes up."""

from __future__ import annotations

import ctypes
import functools
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from termproxy.outcome import DONE, Miss
from termproxy.tls._openssl import Connection, Context

TLS_1_2 = 0x0303
TLS_1_3 = 0x0304

# No handshake takes as many turns: one that does, hangs.
TURNS = 50

_libssl = ctypes.CDLL("libssl.so.3")  # the binding's, which is loaded already
_libcrypto = ctypes.CDLL("libcrypto.so.3")

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
_SIZE = ctypes.c_size_t
for _library, _name, _result, *_arguments in (
    (_libssl, "TLS_client_method", _P),
    (_libssl, "SSL_CTX_new", _P, _P),
    (_libssl, "SSL_CTX_ctrl", _L, _P, _I, _L, _P),
    (_libssl, "SSL_CTX_set_options", ctypes.c_uint64, _P, ctypes.c_uint64),
    (_libssl, "SSL_CTX_set_cipher_list", _I, _P, ctypes.c_char_p),
    (_libssl, "SSL_CTX_set_ciphersuites", _I, _P, ctypes.c_char_p),
    (_libssl, "SSL_new", _P, _P),
    (_libssl, "SSL_free", None, _P),
    (_libssl, "SSL_set_bio", None, _P, _P, _P),
    (_libssl, "SSL_set_connect_state", None, _P),
    (_libssl, "SSL_do_handshake", _I, _P),
    (_libssl, "SSL_get_error", _I, _P, _I),
    (_libssl, "SSL_read", _I, _P, _P, _I),
    (_libssl, "SSL_session_reused", _I, _P),
    (_libssl, "SSL_set_session", _I, _P, _P),
    (_libssl, "SSL_get1_session", _P, _P),
    (_libssl, "SSL_SESSION_free", None, _P),
    (_libssl, "i2d_SSL_SESSION", _I, _P, _P),
    (_libssl, "d2i_SSL_SESSION", _P, _P, _P, _L),
    (_libcrypto, "BIO_s_mem", _P),
    (_libcrypto, "BIO_new", _P, _P),
    (_libcrypto, "BIO_ctrl", _L, _P, _I, _L, _P),
    (_libcrypto, "BIO_read", _I, _P, _P, _I),
    (_libcrypto, "BIO_write", _I, _P, ctypes.c_char_p, _I),
    (_libcrypto, "ERR_clear_error", None),
):
    _function = getattr(_library, _name)
    _function.restype, _function.argtypes = _result, _arguments

_SET_MIN_VERSION, _SET_MAX_VERSION = 123, 124  # SSL_CTX_ctrl
_BIO_SET_EOF_RETURN = 130
_NO_TICKET = 1 << 14
_ERROR_WANT_READ = 2


@dataclass(frozen=True, slots=True)
class Meeting:
    """How a handshake went, as both sides saw it."""

    resumed: bool
    session: bytes  # what the client may show next time, in DER
    miss: Miss
    from_cache: bool
    ticket_age: int


class ClientFailedError(AssertionError):
    """The client broke the handshake off: what the server said was wrong."""


def meet(
    server: Context,
    session: bytes | None = None,
    *,
    version: int = TLS_1_3,
    ciphers: bytes | None = None,
    takes_tickets: bool = True,
) -> Meeting:
    """A handshake with a client that shows `session` (DER).  TlsError when the server breaks it off."""
    with ExitStack() as stack:
        client, incoming, outgoing = _client(stack, version, ciphers, takes_tickets=takes_tickets)
        if session is not None:
            _show(client, session)
        near, far = socket.socketpair()
        for end in (near, far):
            stack.enter_context(end)
            end.setblocking(False)
        connection = Connection(server, far.fileno())
        stack.callback(connection.close)
        for _ in range(TURNS):
            is_done = _step(client)
            _send(outgoing, near)
            outcome = connection.handshake()
            _receive(near, incoming)
            if is_done and outcome == DONE:
                break
        else:
            raise AssertionError("the handshake does not end")
        # In TLS 1.3 tickets come after the handshake: reading takes them in.
        buffer = ctypes.create_string_buffer(64)
        result = _libssl.SSL_read(client, buffer, 64)
        assert _libssl.SSL_get_error(client, result) == _ERROR_WANT_READ
        assert (_libssl.SSL_session_reused(client) == 1) == connection.resumed
        return Meeting(
            connection.resumed,
            _session_of(client),
            Miss(connection.miss),
            connection.from_cache,
            connection.ticket_age,
        )


def _client(
    stack: ExitStack, version: int, ciphers: bytes | None, *, takes_tickets: bool
) -> tuple[int, int, int]:
    """An SSL, and where it reads from and writes to."""
    _libcrypto.ERR_clear_error()
    client = _libssl.SSL_new(_context(version, ciphers, takes_tickets=takes_tickets))
    stack.callback(_libssl.SSL_free, client)
    incoming, outgoing = (_libcrypto.BIO_new(_libcrypto.BIO_s_mem()) for _ in range(2))
    _libcrypto.BIO_ctrl(incoming, _BIO_SET_EOF_RETURN, -1, None)
    _libssl.SSL_set_bio(client, incoming, outgoing)  # frees them, too
    _libssl.SSL_set_connect_state(client)
    return client, incoming, outgoing


@functools.cache
def _context(version: int, ciphers: bytes | None, *, takes_tickets: bool) -> int:
    context: int = _libssl.SSL_CTX_new(_libssl.TLS_client_method())
    for limit in (_SET_MIN_VERSION, _SET_MAX_VERSION):
        _libssl.SSL_CTX_ctrl(context, limit, version, None)
    if not takes_tickets:
        _libssl.SSL_CTX_set_options(context, _NO_TICKET)
    if ciphers is not None:
        is_new = version == TLS_1_3
        choose = _libssl.SSL_CTX_set_ciphersuites if is_new else _libssl.SSL_CTX_set_cipher_list
        assert choose(context, ciphers) == 1
    return context


def _show(client: int, session: bytes) -> None:
    start = ctypes.c_char_p(session)
    shown = _libssl.d2i_SSL_SESSION(None, ctypes.byref(start), len(session))
    assert shown, "no session that the client could read"
    assert _libssl.SSL_set_session(client, shown) == 1
    _libssl.SSL_SESSION_free(shown)


def _step(client: int) -> bool:
    """Whether the client has finished."""
    _libcrypto.ERR_clear_error()
    result = _libssl.SSL_do_handshake(client)
    error = 0 if result == 1 else _libssl.SSL_get_error(client, result)
    _libcrypto.ERR_clear_error()
    if error not in {0, _ERROR_WANT_READ}:
        raise ClientFailedError(f"the client failed: {error}")
    return bool(result == 1)


def _send(outgoing: int, wire: socket.socket) -> None:
    buffer = ctypes.create_string_buffer(1 << 16)
    while (count := _libcrypto.BIO_read(outgoing, buffer, len(buffer))) > 0:
        wire.sendall(buffer.raw[:count])


def _receive(wire: socket.socket, incoming: int) -> None:
    try:
        while received := wire.recv(1 << 16):
            _libcrypto.BIO_write(incoming, received, len(received))
    except BlockingIOError:
        pass  # all that there is


def _session_of(client: int) -> bytes:
    session = _libssl.SSL_get1_session(client)
    try:
        buffer = ctypes.create_string_buffer(_libssl.i2d_SSL_SESSION(session, None))
        end = ctypes.cast(buffer, ctypes.c_void_p)
        _libssl.i2d_SSL_SESSION(session, ctypes.byref(end))
        return buffer.raw
    finally:
        _libssl.SSL_SESSION_free(session)
