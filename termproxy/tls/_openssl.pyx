# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""A thin, typed binding to the system's libssl (OpenSSL 3.0 and later).  No policy here.

`Context` wraps an SSL_CTX that is complete when it is made.  `Connection` wraps one server-side SSL on
a non-blocking socket.  Its operations never block: each returns a count, or an Outcome (as a plain
integer), and a failure raises TlsError (the client's side) or OSError (the backend's socket).

Rules that keep it safe:
* An SSL belongs to exactly one Connection, is freed by close() or the destructor, once.
* Python code runs inside OpenSSL only in the ClientHello callback.  While it runs, the connection
  refuses every operation, close() too.  An exception there fails the handshake with an internal_error
  alert and is raised from the operation that took the handshake on.
* Memory that OpenSSL's callbacks need (the ALPN list) hangs on the SSL_CTX itself, so the garbage
  collector may take the Python objects in any order.
* The interpreter lock is held throughout: no operation blocks, and a worker has one thread.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.limits cimport INT_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strerror
from libc.time cimport time

from termproxy.errors import TlsError

cdef extern from "sys/socket.h" nogil:
    enum: MSG_NOSIGNAL
    ssize_t c_recv "recv"(int, void*, size_t, int)
    ssize_t c_send "send"(int, const void*, size_t, int)

cdef extern from "openssl/crypto.h" nogil:
    ctypedef struct CRYPTO_EX_DATA:
        pass
    ctypedef void CRYPTO_EX_free(void*, void*, CRYPTO_EX_DATA*, int, long, void*)
    const char* OpenSSL_version(int)
    void OPENSSL_free(void*)
    void* OPENSSL_malloc(size_t)
    unsigned int OPENSSL_version_major()
    unsigned int OPENSSL_version_minor()
    enum: OPENSSL_VERSION

cdef extern from "openssl/err.h" nogil:
    unsigned long ERR_get_error()
    unsigned long ERR_peek_error()
    unsigned long ERR_peek_last_error()
    void ERR_clear_error()
    int ERR_GET_LIB(unsigned long)
    int ERR_GET_REASON(unsigned long)
    const char* ERR_reason_error_string(unsigned long)
    enum: ERR_LIB_SSL

cdef extern from "openssl/bio.h" nogil:
    ctypedef struct BIO:
        pass
    BIO* BIO_new_mem_buf(const void*, int)
    int BIO_free(BIO*)

cdef extern from "openssl/pem.h" nogil:
    ctypedef struct X509:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct X509_CRL:
        pass
    ctypedef struct X509_STORE:
        pass
    ctypedef struct X509_STACK "STACK_OF(X509)":
        pass
    ctypedef int pem_password_cb(char*, int, int, void*)
    X509* PEM_read_bio_X509(BIO*, X509**, pem_password_cb*, void*)
    EVP_PKEY* PEM_read_bio_PrivateKey(BIO*, EVP_PKEY**, pem_password_cb*, void*)
    X509_CRL* PEM_read_bio_X509_CRL(BIO*, X509_CRL**, pem_password_cb*, void*)
    void X509_free(X509*)
    void X509_CRL_free(X509_CRL*)
    int i2d_X509(X509*, unsigned char**)
    X509_STACK* sk_X509_new_null()
    int sk_X509_push(X509_STACK*, X509*)
    X509* sk_X509_shift(X509_STACK*)
    int sk_X509_num(X509_STACK*)
    void sk_X509_pop_free(X509_STACK*, void (*)(X509*))
    X509_STORE* X509_STORE_new()
    void X509_STORE_free(X509_STORE*)
    int X509_STORE_add_cert(X509_STORE*, X509*)
    int X509_STORE_add_crl(X509_STORE*, X509_CRL*)
    int X509_STORE_set_flags(X509_STORE*, unsigned long)
    const char* X509_verify_cert_error_string(long)
    enum:
        X509_V_OK
        X509_V_FLAG_CRL_CHECK
        X509_V_FLAG_CRL_CHECK_ALL
        X509_V_FLAG_PARTIAL_CHAIN
    void EVP_PKEY_free(EVP_PKEY*)
    enum: PEM_R_NO_START_LINE

cdef extern from *:
    """
    /* Certificate compression (RFC 8879, OpenSSL 3.2) costs memory and CPU before a client has shown
       anything (CVE-2025-66199): off, both ways. */
    #ifdef SSL_OP_NO_TX_CERTIFICATE_COMPRESSION
    #define TP_NO_CERTIFICATE_COMPRESSION \\
        (SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION)
    #else
    #define TP_NO_CERTIFICATE_COMPRESSION 0
    #endif
    """
    unsigned long TP_NO_CERTIFICATE_COMPRESSION

cdef extern from "openssl/ssl.h":
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_CIPHER:
        pass
    enum:
        SSL_MODE_ENABLE_PARTIAL_WRITE
        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        SSL_MODE_RELEASE_BUFFERS
        SSL_ERROR_WANT_READ
        SSL_ERROR_WANT_WRITE
        SSL_ERROR_ZERO_RETURN
        SSL_ERROR_SSL
        SSL_ERROR_SYSCALL
        SSL_SESS_CACHE_OFF
        SSL_CLIENT_HELLO_SUCCESS
        SSL_CLIENT_HELLO_ERROR
        SSL_TLSEXT_ERR_OK
        SSL_TLSEXT_ERR_NOACK
        SSL_TLSEXT_ERR_ALERT_FATAL
        SSL_CB_ALERT
        SSL_CB_READ
        SSL_AD_INTERNAL_ERROR
        TLSEXT_NAMETYPE_host_name
        OPENSSL_NPN_NEGOTIATED
        SSL_R_UNEXPECTED_EOF_WHILE_READING
        SSL_R_CERTIFICATE_VERIFY_FAILED
        SSL_VERIFY_NONE
        SSL_VERIFY_PEER
        SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    unsigned long SSL_OP_NO_RENEGOTIATION
    unsigned long SSL_OP_NO_COMPRESSION
    unsigned long SSL_OP_CIPHER_SERVER_PREFERENCE
    unsigned long SSL_OP_PRIORITIZE_CHACHA

    const SSL_METHOD* TLS_server_method()
    SSL_CTX* SSL_CTX_new(const SSL_METHOD*)
    void SSL_CTX_free(SSL_CTX*)
    unsigned long SSL_CTX_set_options(SSL_CTX*, unsigned long)
    unsigned long SSL_CTX_get_options(SSL_CTX*)
    long SSL_CTX_set_mode(SSL_CTX*, long)
    int SSL_CTX_set_min_proto_version(SSL_CTX*, int)
    int SSL_CTX_set_max_proto_version(SSL_CTX*, int)
    int SSL_CTX_set_cipher_list(SSL_CTX*, const char*)
    int SSL_CTX_set_ciphersuites(SSL_CTX*, const char*)
    int SSL_CTX_set1_groups_list(SSL_CTX*, const char*)
    int SSL_CTX_set1_sigalgs_list(SSL_CTX*, const char*)
    long SSL_CTX_set_session_cache_mode(SSL_CTX*, long)
    int SSL_CTX_set_session_id_context(SSL_CTX*, const unsigned char*, unsigned int)
    int SSL_CTX_set_num_tickets(SSL_CTX*, size_t)
    long SSL_CTX_set_tlsext_ticket_keys(SSL_CTX*, void*, long)
    ctypedef struct CIPHER_STACK "STACK_OF(SSL_CIPHER)":
        pass
    CIPHER_STACK* SSL_CTX_get_ciphers(const SSL_CTX*)
    int sk_SSL_CIPHER_num(const CIPHER_STACK*)
    const SSL_CIPHER* sk_SSL_CIPHER_value(const CIPHER_STACK*, int)
    void SSL_CTX_set_read_ahead(SSL_CTX*, int)
    int SSL_CTX_use_cert_and_key(SSL_CTX*, X509*, EVP_PKEY*, X509_STACK*, int)
    long SSL_CTX_set_dh_auto(SSL_CTX*, int)
    X509_STORE* SSL_CTX_get_cert_store(SSL_CTX*)
    int SSL_CTX_add_client_CA(SSL_CTX*, X509*)
    void SSL_CTX_set_verify(SSL_CTX*, int, void*)
    void SSL_CTX_set_verify_depth(SSL_CTX*, int)
    void SSL_set_verify(SSL*, int, void*)
    void SSL_set_verify_depth(SSL*, int)
    X509* SSL_get1_peer_certificate(const SSL*)
    X509* SSL_get_certificate(const SSL*)
    long SSL_get_verify_result(const SSL*)
    int SSL_CTX_get_ex_new_index(long, void*, void*, void*, CRYPTO_EX_free*)
    int SSL_CTX_set_ex_data(SSL_CTX*, int, void*)
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX*,
        int (*)(SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned int,
                void*) noexcept,
        void*)
    int SSL_select_next_proto(unsigned char**, unsigned char*, const unsigned char*, unsigned int,
                              const unsigned char*, unsigned int)
    void SSL_CTX_set_client_hello_cb(SSL_CTX*, int (*)(SSL*, int*, void*) noexcept, void*)
    unsigned int SSL_client_hello_get0_legacy_version(SSL*)
    size_t SSL_client_hello_get0_ciphers(SSL*, const unsigned char**)
    int SSL_client_hello_get0_ext(SSL*, unsigned int, const unsigned char**, size_t*)
    void SSL_CTX_set_info_callback(SSL_CTX*, void (*)(const SSL*, int, int) noexcept)
    long SSL_CTX_set_tlsext_servername_callback(SSL_CTX*, int (*)(SSL*, int*, void*) noexcept)

    SSL* SSL_new(SSL_CTX*)
    void SSL_free(SSL*)
    int SSL_set_fd(SSL*, int)
    void SSL_set_accept_state(SSL*)
    int SSL_get_ex_new_index(long, void*, void*, void*, void*)
    int SSL_set_ex_data(SSL*, int, void*)
    void* SSL_get_ex_data(const SSL*, int)
    int SSL_do_handshake(SSL*)
    int SSL_read(SSL*, void*, int)
    int SSL_write(SSL*, const void*, int)
    int SSL_shutdown(SSL*)
    int SSL_in_init(const SSL*)
    int SSL_has_pending(const SSL*)
    int SSL_get_error(const SSL*, int)
    const char* SSL_get_version(const SSL*)
    const SSL_CIPHER* SSL_get_current_cipher(const SSL*)
    const char* SSL_CIPHER_get_name(const SSL_CIPHER*)
    unsigned int SSL_CIPHER_get_protocol_id "(unsigned int) SSL_CIPHER_get_protocol_id"(const SSL_CIPHER*)
    long SSL_get_negotiated_group(SSL*)
    void* SSL_get_session(const SSL*)
    const char* SSL_group_to_name(SSL*, int)
    const char* SSL_get_servername(const SSL*, int)
    void SSL_get0_alpn_selected(const SSL*, const unsigned char**, unsigned int*)
    int SSL_session_reused(const SSL*)
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct ASN1_TIME:
        pass
    X509* SSL_SESSION_get0_peer(SSL_SESSION*)
    const ASN1_TIME* X509_get0_notAfter(const X509*)
    int X509_cmp_current_time(const ASN1_TIME*)
    ctypedef struct EVP_MD:
        pass
    const EVP_MD* EVP_sha256()
    int X509_digest(const X509*, const EVP_MD*, unsigned char*, unsigned int*)
    long SSL_CTX_set_tlsext_status_cb(SSL_CTX*, int (*)(SSL*, void*) noexcept)
    long SSL_set_tlsext_status_ocsp_resp(SSL*, void*, long)
    enum:
        SSL_TICKET_SUCCESS
        SSL_TICKET_SUCCESS_RENEW
        SSL_TICKET_RETURN_IGNORE_RENEW
        SSL_TICKET_RETURN_USE
        SSL_TICKET_RETURN_USE_RENEW
    int SSL_CTX_set_session_ticket_cb(
        SSL_CTX*, void*,
        int (*)(SSL*, SSL_SESSION*, const unsigned char*, size_t, int, void*) noexcept, void*)

    SSL_CTX* SSL_set_SSL_CTX(SSL*, SSL_CTX*)
    unsigned long SSL_get_options(const SSL*)
    unsigned long SSL_clear_options(SSL*, unsigned long)
    unsigned long SSL_set_options(SSL*, unsigned long)
    int SSL_set_min_proto_version(SSL*, int)
    int SSL_set_max_proto_version(SSL*, int)
    int SSL_set1_groups_list(SSL*, const char*)
    int SSL_set_num_tickets(SSL*, size_t)


cdef enum:
    # termproxy.outcome.Outcome, for C.
    _DONE = 0
    _WANT_READ = -1
    _WANT_WRITE = -2
    _CLOSED = -3
    _SINK_FULL = -4
    _MORE = -5
    _TRUNCATED = -6
    # Never a result: tells Cython to look whether an exception is set.
    _RAISED = -100

cdef enum:
    # The most plaintext that a TLS record holds (RFC 8446 §5.1).
    RECORD_MAX = 16384
    NO_ALERT = -1
    # An OCSP response beyond this is refused by OpenSSL's clients in TLS 1.2: its message has to fit
    # in 16384 bytes.
    STAPLE_MAX = 16380
    # What is kept of a list in a ClientHello, bytes; real ones are shorter.
    OFFER_MAX = 512
    # Extensions' numbers.
    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    ALPN = 16
    SUPPORTED_VERSIONS = 43


def openssl_version() -> str:
    """The libssl in use, as in "OpenSSL 3.0.19 27 Jan 2026"."""
    return OpenSSL_version(OPENSSL_VERSION).decode()


def openssl_version_number() -> tuple[int, int]:
    """Major and minor version of the libssl in use, as in (3, 0)."""
    return OPENSSL_version_major(), OPENSSL_version_minor()


_NAME_CHARACTERS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-")


def knows(str kind not None, str name not None) -> bool:
    """Whether this OpenSSL can do `name`; `kind` is what Context calls such names.

    OpenSSL itself skips what it does not know among what it does.
    """
    cdef SSL_CTX* ctx
    try:
        value = _text(name)
    except ValueError:
        return False  # a NUL, or no text at all
    ctx = SSL_CTX_new(TLS_server_method())
    if ctx == NULL:
        raise _refused("SSL_CTX_new")
    try:
        if not value:
            return False  # OpenSSL takes an empty list of ciphersuites
        if kind == "ciphers":
            return SSL_CTX_set_cipher_list(ctx, value) == 1 and _has_cipher(ctx, value)
        if not set(name) <= _NAME_CHARACTERS:
            return False  # a list, or an expression, of names
        if kind == "ciphersuites":
            return SSL_CTX_set_ciphersuites(ctx, value) == 1 and _has_cipher(ctx, value)
        if kind == "groups":
            return SSL_CTX_set1_groups_list(ctx, value) == 1
        if kind == "signature_algorithms":
            return SSL_CTX_set1_sigalgs_list(ctx, value) == 1
    finally:
        SSL_CTX_free(ctx)
        ERR_clear_error()
    raise ValueError(f"kind: {kind!r}")


# Of TLS 1.3 OpenSSL's own list lacks the last two, and it has no word for all of them.
cdef const char* _ALL_CIPHERSUITES = (
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:"
    "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256"
)


def known_ciphers() -> dict[int, str]:
    """Every cipher suite that this OpenSSL has a name for, by IANA's number."""
    cdef SSL_CTX* ctx = SSL_CTX_new(TLS_server_method())
    if ctx == NULL:
        raise _refused("SSL_CTX_new")
    try:
        SSL_CTX_set_cipher_list(ctx, "ALL:COMPLEMENTOFALL@SECLEVEL=0")
        SSL_CTX_set_ciphersuites(ctx, _ALL_CIPHERSUITES)
        return _ciphers(ctx)
    finally:
        SSL_CTX_free(ctx)
        ERR_clear_error()


cdef dict _ciphers(SSL_CTX* ctx):
    cdef CIPHER_STACK* ciphers = SSL_CTX_get_ciphers(ctx)
    cdef const SSL_CIPHER* cipher
    cdef int index
    numbers = {}
    for index in range(sk_SSL_CIPHER_num(ciphers)):
        cipher = sk_SSL_CIPHER_value(ciphers, index)
        numbers[SSL_CIPHER_get_protocol_id(cipher)] = SSL_CIPHER_get_name(cipher).decode()
    return numbers


cdef bint _has_cipher(SSL_CTX* ctx, bytes name):
    """OpenSSL also takes expressions, such as ALL, for names of ciphers."""
    cdef CIPHER_STACK* ciphers = SSL_CTX_get_ciphers(ctx)
    cdef int index
    for index in range(sk_SSL_CIPHER_num(ciphers)):
        if SSL_CIPHER_get_name(sk_SSL_CIPHER_value(ciphers, index)) == name:
            return True
    return False


def check_authorities(bytes pem not None) -> None:
    """ValueError when `pem` is not at least one certificate and nothing damaged."""
    sk_X509_pop_free(_read_certificates(pem, "client CA"), X509_free)


def check_crls(bytes pem not None) -> None:
    """ValueError when `pem` is not at least one CRL and nothing damaged."""
    cdef X509_STORE* store = X509_STORE_new()
    if store == NULL:
        raise MemoryError
    try:
        _add_crls(store, pem)
    finally:
        X509_STORE_free(store)


# ------------------------------------------------------------------------------------ callbacks

cdef struct AlpnList:
    unsigned int length
    unsigned char protocols[1]


cdef void _free_alpn_list(
    void* parent, void* pointer, CRYPTO_EX_DATA* data, int index, long argl, void* argp
) noexcept nogil:
    free(pointer)


cdef int ALPN_INDEX = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, _free_alpn_list)
cdef int CONNECTION_INDEX = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL)


cdef int _select_alpn(
    SSL* ssl, const unsigned char** out, unsigned char* out_length,
    const unsigned char* offers, unsigned int offers_length, void* arg
) noexcept:
    """Our preference decides; no overlap is no_application_protocol (RFC 7301 §3.2)."""
    cdef AlpnList* ours = <AlpnList*>arg
    cdef int found = SSL_select_next_proto(
        <unsigned char**>out, out_length, ours.protocols, ours.length, offers, offers_length
    )
    return SSL_TLSEXT_ERR_OK if found == OPENSSL_NPN_NEGOTIATED else SSL_TLSEXT_ERR_ALERT_FATAL


cdef int _acknowledge_name(SSL* ssl, int* alert, void* arg) noexcept:
    """Without this callback OpenSSL forgets the name in resumed TLS 1.2 sessions."""
    return SSL_TLSEXT_ERR_OK


cdef void _note_alert(const SSL* ssl, int where, int value) noexcept:
    cdef void* pointer
    if where & SSL_CB_ALERT and value & 0xFF:  # 0 is close_notify: an end, not a failure
        pointer = SSL_get_ex_data(ssl, CONNECTION_INDEX)
        if pointer != NULL:
            (<Connection>pointer)._alert = value & 0xFF
            (<Connection>pointer)._alert_from_client = (where & SSL_CB_READ) != 0


cdef int _on_client_hello(SSL* ssl, int* alert, void* arg) noexcept:
    cdef void* pointer = SSL_get_ex_data(ssl, CONNECTION_INDEX)
    if pointer == NULL:
        return SSL_CLIENT_HELLO_SUCCESS
    cdef Connection connection = <Connection>pointer
    if connection.client_hello_seen:
        return SSL_CLIENT_HELLO_SUCCESS  # again, after a HelloRetryRequest: all has been decided
    connection.client_hello_seen = True
    cdef int refused = connection._ask_for_context()
    if refused == NO_ALERT:
        return SSL_CLIENT_HELLO_SUCCESS
    alert[0] = refused
    return SSL_CLIENT_HELLO_ERROR


cdef int _on_ticket(
    SSL* ssl, SSL_SESSION* session, const unsigned char* name, size_t length, int status, void* arg
) noexcept:
    """A session does not outlive the client's certificate: OpenSSL would not look at it again."""
    cdef X509* peer
    if status != SSL_TICKET_SUCCESS and status != SSL_TICKET_SUCCESS_RENEW:
        return SSL_TICKET_RETURN_IGNORE_RENEW
    peer = SSL_SESSION_get0_peer(session)
    if peer != NULL and X509_cmp_current_time(X509_get0_notAfter(peer)) <= 0:
        return SSL_TICKET_RETURN_IGNORE_RENEW
    return SSL_TICKET_RETURN_USE if status == SSL_TICKET_SUCCESS else SSL_TICKET_RETURN_USE_RENEW


cdef int _staple(SSL* ssl, void* arg) noexcept:
    """The OCSP response for the certificate we show, if there is one that is current."""
    cdef unsigned char digest[32]
    cdef bytes response
    cdef Py_ssize_t length
    cdef void* copy
    cdef void* pointer = SSL_get_ex_data(ssl, CONNECTION_INDEX)
    cdef X509* certificate = SSL_get_certificate(ssl)
    cdef Context context
    if pointer == NULL or certificate == NULL:
        return SSL_TLSEXT_ERR_NOACK
    context = (<Connection>pointer).context
    if context is None or not context.staples:
        return SSL_TLSEXT_ERR_NOACK
    if X509_digest(certificate, EVP_sha256(), digest, NULL) != 1:
        return SSL_TLSEXT_ERR_NOACK
    try:
        found = context.staples.get(PyBytes_FromStringAndSize(<const char*>digest, 32))
        if found is None:
            return SSL_TLSEXT_ERR_NOACK
        response, until = found  # checked, as indexing without bounds is not
        length = len(response)
        if until <= time(NULL) or length > STAPLE_MAX:
            return SSL_TLSEXT_ERR_NOACK
        copy = OPENSSL_malloc(length)
        if copy == NULL:
            return SSL_TLSEXT_ERR_NOACK
        memcpy(copy, <const char*>response, length)
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, length)  # which frees it
        return SSL_TLSEXT_ERR_OK
    except Exception:
        return SSL_TLSEXT_ERR_NOACK  # without a staple the client is served all the same


cdef int _no_password(char* buffer, int size, int writing, void* arg) noexcept nogil:
    """OpenSSL's own callback would ask at the terminal."""
    return -1


# -------------------------------------------------------------------------------------- context

cdef object _refused(str what):
    """A ValueError for `what`, with OpenSSL's reason; empties the error queue."""
    cdef unsigned long error = ERR_get_error()
    cdef const char* reason = ERR_reason_error_string(error) if error else NULL
    ERR_clear_error()
    return ValueError(f"{what}: {reason.decode()}" if reason != NULL else what)


_VERIFY_MODES = {
    "off": SSL_VERIFY_NONE,
    "optional": SSL_VERIFY_PEER,
    "required": SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
}


cdef bytes _text(str text):
    """For C, which would take what stands before a NUL for all of it."""
    if "\0" in text:
        raise ValueError(f"{text!r} holds a NUL")
    return text.encode()


cdef class Context:
    """A server's certificates and TLS policy.  Complete when made; never changed after.

    `identities` are pairs of PEM texts, a chain (leaf first) and its key: at most one for each type of
    key, and the client's signature algorithms choose among them.
    Versions are TLS version numbers (0x0303, 0x0304; 0: no limit).
    `alpn` lists what we speak, most wanted first; with an empty one ALPN is ignored.
    `client_auth` is "off", "optional" or "required": whether a client must show a certificate.  One that
    is shown must be issued by `client_ca` (PEM, at least one), through at most `client_depth`
    intermediates, and in no CRL of `client_crl` (PEM): with CRLs, every CA of the chain must have one.
    `ticket_keys` are the 80 bytes that session tickets are made with: contexts with the same ones, in
    whichever process, redeem each other's.  Without them OpenSSL draws its own.
    `staples` are OCSP responses, by the certificate's SHA-256: each with when it expires, in seconds since
    1970.  The dictionary is looked into for every client that asks, and may change meanwhile.
    `on_client_hello(connection)` is asked before OpenSSL decides anything.  It returns the Context to
    go on with, None for this one, or the number of the alert to refuse with.
    Raises ValueError, which says what OpenSSL does not accept.
    """

    cdef SSL_CTX* ctx
    cdef readonly object on_client_hello
    cdef readonly int min_version, max_version
    cdef readonly int tickets
    cdef int verify_mode, verify_depth
    cdef bytes groups
    cdef bytes signature_algorithms
    cdef dict staples

    def __cinit__(self, *args, **kwargs):
        self.ctx = SSL_CTX_new(TLS_server_method())
        if self.ctx == NULL:
            raise _refused("SSL_CTX_new")

    def __init__(
        self, *, identities not None, int min_version=0x0303, int max_version=0,
        str ciphers=None, str ciphersuites=None, str groups not None, str signature_algorithms=None,
        alpn=(), int tickets=2, bytes session_id_context not None=b"termproxy",
        str client_auth not None="off", bytes client_ca=None, bytes client_crl=None,
        int client_depth=4, bytes ticket_keys=None, dict staples=None, on_client_hello=None,
    ):
        if self.groups is not None:
            raise RuntimeError("a Context is made once")
        if on_client_hello is not None and not callable(on_client_hello):
            raise TypeError("on_client_hello is not callable")
        if max_version and min_version > max_version:
            raise ValueError(f"minimum version {min_version:#06x} above maximum {max_version:#06x}")
        if tickets < 0:
            raise ValueError(f"tickets: {tickets} is negative")
        if client_auth not in _VERIFY_MODES:
            raise ValueError(f"client_auth: {client_auth!r} is none of {', '.join(_VERIFY_MODES)}")
        self.on_client_hello = on_client_hello
        self.min_version, self.max_version, self.tickets = min_version, max_version, tickets
        self.verify_mode, self.verify_depth = _VERIFY_MODES[client_auth], client_depth
        self.groups = _text(groups)
        if signature_algorithms is not None:
            self.signature_algorithms = _text(signature_algorithms)
        ERR_clear_error()
        self._set_behaviour()
        self._set_policy(ciphers, ciphersuites, session_id_context)
        if ticket_keys is not None and SSL_CTX_set_tlsext_ticket_keys(
                self.ctx, <char*>ticket_keys, len(ticket_keys)) != 1:
            raise _refused("ticket keys")
        if staples is not None:
            self.staples = staples
            SSL_CTX_set_tlsext_status_cb(self.ctx, _staple)
        if client_auth != "off":
            self._demand_certificates(client_ca, client_crl)
        for chain, key in identities:
            self._use_identity(chain, key)
        if alpn:
            self._set_alpn(alpn)
        ERR_clear_error()

    def __dealloc__(self):
        if self.ctx != NULL:
            SSL_CTX_free(self.ctx)

    @property
    def ciphers(self) -> dict[int, str]:
        """The cipher suites that are accepted, by IANA's number, best first."""
        return _ciphers(self.ctx)

    cdef _set_behaviour(self):
        SSL_CTX_set_options(
            self.ctx,
            SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE
            | SSL_OP_PRIORITIZE_CHACHA | TP_NO_CERTIFICATE_COMPRESSION)
        SSL_CTX_set_mode(
            self.ctx,
            SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
            | SSL_MODE_RELEASE_BUFFERS)
        # One read() takes a record's header and body, and often the next record, together.
        SSL_CTX_set_read_ahead(self.ctx, 1)
        # OpenSSL's own cache is one process's, and holds 20,480 sessions for whoever asks.
        SSL_CTX_set_session_cache_mode(self.ctx, SSL_SESS_CACHE_OFF)
        # Only matters when the cipher list has finite-field Diffie-Hellman.
        SSL_CTX_set_dh_auto(self.ctx, 1)
        SSL_CTX_set_info_callback(self.ctx, _note_alert)
        SSL_CTX_set_session_ticket_cb(self.ctx, NULL, _on_ticket, NULL)
        SSL_CTX_set_tlsext_servername_callback(self.ctx, _acknowledge_name)
        if self.on_client_hello is not None:
            SSL_CTX_set_client_hello_cb(self.ctx, _on_client_hello, NULL)

    cdef _set_policy(self, str ciphers, str ciphersuites, bytes session_id_context):
        cdef const unsigned char* id_context = session_id_context
        if SSL_CTX_set_min_proto_version(self.ctx, self.min_version) != 1:
            raise _refused(f"minimum version {self.min_version:#06x}")
        if SSL_CTX_set_max_proto_version(self.ctx, self.max_version) != 1:
            raise _refused(f"maximum version {self.max_version:#06x}")
        if ciphers is not None and SSL_CTX_set_cipher_list(self.ctx, _text(ciphers)) != 1:
            raise _refused(f"ciphers {ciphers!r}")
        if ciphersuites is not None and (
                SSL_CTX_set_ciphersuites(self.ctx, _text(ciphersuites)) != 1):
            raise _refused(f"ciphersuites {ciphersuites!r}")
        if SSL_CTX_set1_groups_list(self.ctx, self.groups) != 1:
            raise _refused(f"groups {self.groups.decode()!r}")
        if self.signature_algorithms is not None and (
                SSL_CTX_set1_sigalgs_list(self.ctx, self.signature_algorithms) != 1):
            raise _refused(f"signature algorithms {self.signature_algorithms.decode()!r}")
        if SSL_CTX_set_session_id_context(self.ctx, id_context, len(session_id_context)) != 1:
            raise _refused("session id context")
        SSL_CTX_set_num_tickets(self.ctx, self.tickets)

    cdef _demand_certificates(self, bytes client_ca, bytes client_crl):
        """The store hangs on the SSL_CTX, flags and all: it follows when a connection is switched."""
        cdef X509_STORE* store = SSL_CTX_get_cert_store(self.ctx)
        cdef X509_STACK* authorities
        cdef X509* authority
        if client_ca is None:
            raise ValueError("client_auth without client_ca: nobody could be trusted")
        authorities = _read_certificates(client_ca, "client CA")
        try:
            while sk_X509_num(authorities) > 0:
                authority = sk_X509_shift(authorities)
                added = (X509_STORE_add_cert(store, authority) == 1
                         and SSL_CTX_add_client_CA(self.ctx, authority) == 1)
                X509_free(authority)
                if not added:
                    raise _refused("client CA")
        finally:
            sk_X509_pop_free(authorities, X509_free)
        # Each certificate given is trusted for itself, also when it is an intermediate.
        X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN)
        if client_crl is not None:
            _add_crls(store, client_crl)
            X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL)
        SSL_CTX_set_verify(self.ctx, self.verify_mode, NULL)
        SSL_CTX_set_verify_depth(self.ctx, self.verify_depth)

    cdef _use_identity(self, bytes chain, bytes key):
        cdef X509_STACK* rest
        cdef X509* leaf
        cdef EVP_PKEY* private_key
        if chain is None or key is None:
            raise TypeError("an identity is a chain and a key")
        private_key = _read_key(key)
        try:
            rest = _read_certificates(chain, "chain")
            leaf = sk_X509_shift(rest)
            used = SSL_CTX_use_cert_and_key(self.ctx, leaf, private_key, rest, 0)
            X509_free(leaf)
            sk_X509_pop_free(rest, X509_free)
            if used != 1:
                raise _refused("certificate and key")
        finally:
            EVP_PKEY_free(private_key)

    cdef _set_alpn(self, alpn):
        cdef AlpnList* list
        wire = b""
        for protocol in alpn:
            if not isinstance(protocol, bytes) or not 0 < len(protocol) < 256:
                raise ValueError(f"ALPN protocol {protocol!r}: 1 to 255 bytes each (RFC 7301 §3.1)")
            wire += bytes([len(protocol)]) + protocol
        list = <AlpnList*>malloc(sizeof(AlpnList) + len(wire))
        if list == NULL:
            raise MemoryError
        list.length = len(wire)
        memcpy(list.protocols, <const char*>wire, len(wire))
        if SSL_CTX_set_ex_data(self.ctx, ALPN_INDEX, list) != 1:
            free(list)
            raise MemoryError
        SSL_CTX_set_alpn_select_cb(self.ctx, _select_alpn, list)


cdef X509_STACK* _read_certificates(bytes pem, str what) except NULL:
    """At least one certificate; the caller frees them."""
    cdef X509* certificate
    cdef X509_STACK* certificates = sk_X509_new_null()
    cdef BIO* bio = BIO_new_mem_buf(<const char*>pem, <int>len(pem))
    if certificates == NULL or bio == NULL:
        sk_X509_pop_free(certificates, X509_free)
        BIO_free(bio)
        raise MemoryError
    while True:
        certificate = PEM_read_bio_X509(bio, NULL, _no_password, NULL)
        if certificate == NULL:
            break
        if sk_X509_push(certificates, certificate) < 1:
            X509_free(certificate)
            break
    BIO_free(bio)
    # The end of the PEM text is reported as an error, too: no further line that begins one.
    count = sk_X509_num(certificates)
    if count == 0 or ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE:
        sk_X509_pop_free(certificates, X509_free)
        raise _refused(f"certificate {count + 1} of the {what}")
    ERR_clear_error()
    return certificates


cdef EVP_PKEY* _read_key(bytes pem) except NULL:
    cdef EVP_PKEY* private_key
    cdef BIO* bio = BIO_new_mem_buf(<const char*>pem, <int>len(pem))
    if bio == NULL:
        raise MemoryError
    private_key = PEM_read_bio_PrivateKey(bio, NULL, _no_password, NULL)
    BIO_free(bio)
    if private_key == NULL:
        raise _refused("private key")
    return private_key


cdef bytes _der(X509* certificate):
    cdef unsigned char* der = NULL
    cdef int length = i2d_X509(certificate, &der)
    if length < 0:
        raise _refused("certificate")
    try:
        return PyBytes_FromStringAndSize(<const char*>der, length)
    finally:
        OPENSSL_free(der)


cdef _add_crls(X509_STORE* store, bytes pem):
    cdef X509_CRL* crl
    cdef int count = 0
    cdef BIO* bio = BIO_new_mem_buf(<const char*>pem, <int>len(pem))
    if bio == NULL:
        raise MemoryError
    try:
        while True:
            crl = PEM_read_bio_X509_CRL(bio, NULL, _no_password, NULL)
            if crl == NULL:
                break
            added = X509_STORE_add_crl(store, crl)
            X509_CRL_free(crl)
            if added != 1:
                raise _refused("client CRL")
            count += 1
    finally:
        BIO_free(bio)
    if count == 0 or ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE:
        raise _refused(f"CRL {count + 1} of the client CRL")
    ERR_clear_error()


# -------------------------------------------------------------------------------------- scratch

cdef class Scratch:
    """The buffer of `size` bytes that all connections of a worker share while bytes pass through it.

    It holds something between two calls only after SINK_FULL: then take_rest() gives what was not
    passed on, and must be called before the buffer is used again.
    """

    cdef unsigned char* memory
    cdef int start, end
    cdef readonly int size

    def __cinit__(self, int size):
        if size < RECORD_MAX:
            raise ValueError(f"a scratch buffer holds at least one record, {RECORD_MAX} bytes")
        self.memory = <unsigned char*>malloc(size)
        if self.memory == NULL:
            raise MemoryError
        self.size = size

    def __dealloc__(self):
        free(self.memory)

    cdef int check_free(self) except _RAISED:
        if self.end:
            raise RuntimeError("the scratch buffer still holds a rest: take_rest() first")
        return 0

    def take_rest(self) -> bytes:
        rest = PyBytes_FromStringAndSize(<const char*>self.memory + self.start, self.end - self.start)
        self.start = self.end = 0
        return rest


# ----------------------------------------------------------------------------------- connection

cdef class Connection:
    """The server's end of one TLS connection on the non-blocking socket `fd`, which stays the caller's.

    Raises ValueError for a descriptor that cannot be one, and for every use after close().
    """

    cdef SSL* ssl
    cdef bint in_client_hello, client_hello_seen, close_notify_sent
    cdef int _alert
    cdef bint _alert_from_client
    cdef object _callback_error, _held_error
    cdef int _held_end
    cdef readonly Context context
    """The context in force: the one given, or the one that on_client_hello chose."""
    cdef Context _first_context
    cdef public object note
    """The caller's own, for what on_client_hello found out."""
    cdef readonly tuple offer
    """What the client offers, as client_hello.RawOffer; None before its ClientHello and once the handshake
    is done.  Only with on_client_hello."""
    cdef readonly long long plaintext_read, plaintext_written
    """Bytes so far, without TLS's own."""

    def __cinit__(self, Context context not None, int fd):
        if fd < 0:
            raise ValueError(f"{fd} is not a descriptor")
        self.context = self._first_context = context
        self._alert = NO_ALERT
        self.ssl = SSL_new(context.ctx)
        if self.ssl == NULL or SSL_set_fd(self.ssl, fd) != 1:
            raise _refused("SSL_new")
        SSL_set_ex_data(self.ssl, CONNECTION_INDEX, <void*>self)
        SSL_set_accept_state(self.ssl)

    def __dealloc__(self):
        if self.ssl != NULL:
            SSL_free(self.ssl)

    def close(self) -> None:
        """Free what OpenSSL holds for this connection.  Sends nothing; may be called again."""
        if self.in_client_hello:
            raise RuntimeError("close() inside the connection's own callback")
        if self.ssl != NULL:
            SSL_free(self.ssl)
            self.ssl = NULL
            ERR_clear_error()

    # The operations.

    def handshake(self) -> int:
        """Take the handshake as far as it goes: DONE, WANT_READ or WANT_WRITE."""
        cdef int result
        self._check_usable()
        result = SSL_do_handshake(self.ssl)
        if result == 1:
            ERR_clear_error()  # OpenSSL may leave harmless entries of its search for algorithms
            self.offer = None  # it only explains failures
            return _DONE
        return self._outcome(result)

    def read_into(self, buffer not None) -> int:
        """Read at most one record's plaintext into a writable buffer: the count, or an Outcome."""
        cdef Py_buffer view
        cdef int count
        self._check_usable()
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if view.len == 0:
                raise ValueError("read_into() an empty buffer")
            count = SSL_read(self.ssl, view.buf, <int>min(view.len, INT_MAX))
        finally:
            PyBuffer_Release(&view)
        if count > 0:
            self.plaintext_read += count
            return count
        return self._read_outcome(count)

    def write(self, buffer not None) -> int:
        """Encrypt and send: how many bytes were taken (perhaps not all), or WANT_WRITE.

        After WANT_WRITE the next write must begin with the same bytes.
        """
        cdef Py_buffer view
        cdef int count = 0
        self._check_usable()
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if view.len == 0:
                return 0
            count = SSL_write(self.ssl, view.buf, <int>min(view.len, INT_MAX))
        finally:
            PyBuffer_Release(&view)
        if count > 0:
            self.plaintext_written += count
            return count
        return self._write_outcome(count)

    def decrypt_to(self, int fd, Scratch scratch not None) -> int:
        """Read what the client sent, up to the scratch's size, and send it to the socket `fd`.

        The count when all was passed on and no more is at hand, else an Outcome.  One call where
        reading, slicing and sending from Python would be four: a tenth of a small request's cost.
        Raises TlsError for the client's side, OSError for `fd`.
        """
        cdef int total = 0, count = 1, state
        cdef ssize_t sent
        self._check_usable()
        scratch.check_free()
        if self._held_error is not None:
            error, self._held_error = self._held_error, None
            raise error
        if self._held_end:
            return self._held_end
        while total < scratch.size:
            count = SSL_read(self.ssl, scratch.memory + total, scratch.size - total)
            if count <= 0:
                break
            total += count
            # After a short record with nothing buffered the socket is most likely empty: the next
            # event will tell, and a read() that finds nothing is saved.
            if count < RECORD_MAX and not SSL_has_pending(self.ssl):
                break
        state = _WANT_READ
        if count <= 0:
            try:
                state = self._read_outcome(count)
            except TlsError as failure:
                if total == 0:
                    raise
                # What came before the failure, or the end, is passed on first.
                self._held_error = failure
                state = _MORE
            if state == _CLOSED or state == _TRUNCATED:
                self._held_end = state
        elif SSL_has_pending(self.ssl):
            state = _MORE
        if total == 0:
            return state
        self.plaintext_read += total
        sent = c_send(fd, scratch.memory, total, MSG_NOSIGNAL)
        if sent == total:
            return total if state == _WANT_READ or state == _WANT_WRITE else _MORE
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                PyErr_SetFromErrno(OSError)
            sent = 0
        scratch.start, scratch.end = <int>sent, total
        return _SINK_FULL

    def encrypt_from(self, int fd, Scratch scratch not None) -> int:
        """Receive from the socket `fd`, up to the scratch's size, and write it to the client.

        The count when all was passed on, WANT_READ when `fd` had nothing, else an Outcome.
        Raises OSError for `fd`, TlsError for the client's side.
        """
        cdef int done = 0, count
        cdef ssize_t received
        self._check_usable()
        scratch.check_free()
        received = c_recv(fd, scratch.memory, scratch.size, 0)
        if received <= 0:
            if received == 0:
                return _CLOSED
            if errno == EAGAIN or errno == EINTR:
                return _WANT_READ
            PyErr_SetFromErrno(OSError)
        while done < received:
            count = SSL_write(self.ssl, scratch.memory + done, <int>received - done)
            if count <= 0:
                self._write_outcome(count)  # raises, or the client's socket is full
                scratch.start, scratch.end = done, <int>received
                return _SINK_FULL
            done += count
            self.plaintext_written += count
        return done

    def shutdown(self) -> int:
        """Send close_notify: DONE, or WANT_WRITE.  Does not wait for the client's.

        Nothing is sent before the handshake is over, nor a second time.
        """
        cdef int result
        self._check_usable()
        if self.close_notify_sent or SSL_in_init(self.ssl):
            return _DONE
        result = SSL_shutdown(self.ssl)
        if result >= 0:
            self.close_notify_sent = True
            return _DONE
        return self._write_outcome(result)

    def pending(self) -> bool:
        """Whether OpenSSL holds bytes that no event on the socket will announce."""
        self._check_usable()
        return SSL_has_pending(self.ssl) == 1

    def client_hello_extension(self, unsigned int number) -> bytes | None:
        """The body of an extension of the ClientHello; only inside on_client_hello."""
        cdef const unsigned char* body
        cdef size_t length
        if not self.in_client_hello:
            raise RuntimeError("client_hello_extension() outside on_client_hello")
        if SSL_client_hello_get0_ext(self.ssl, number, &body, &length) != 1:
            return None
        return PyBytes_FromStringAndSize(<const char*>body, length)

    # What was agreed.

    @property
    def version(self) -> str:
        """As in "TLSv1.3"."""
        self._check_usable()
        return SSL_get_version(self.ssl).decode()

    @property
    def cipher(self) -> str | None:
        self._check_usable()
        cdef const SSL_CIPHER* cipher = SSL_get_current_cipher(self.ssl)
        return None if cipher == NULL else SSL_CIPHER_get_name(cipher).decode()

    @property
    def group(self) -> str | None:
        """The key exchange's group, as in "x25519"; a resumed TLS 1.2 session keeps its first one."""
        self._check_usable()
        if SSL_get_session(self.ssl) == NULL:
            return None  # OpenSSL 3.0 would look for it there all the same, and crash
        cdef int number = SSL_get_negotiated_group(self.ssl)
        cdef const char* name = NULL if number == 0 else SSL_group_to_name(self.ssl, number)
        return None if name == NULL else name.decode()

    @property
    def sni(self) -> bytes | None:
        """The name that the client asked for, as it sent it: any bytes but NUL."""
        self._check_usable()
        cdef const char* name = SSL_get_servername(self.ssl, TLSEXT_NAMETYPE_host_name)
        return None if name == NULL else <bytes>name

    @property
    def alpn(self) -> bytes | None:
        """The protocol agreed on (RFC 7301)."""
        self._check_usable()
        cdef const unsigned char* protocol
        cdef unsigned int length
        SSL_get0_alpn_selected(self.ssl, &protocol, &length)
        return None if length == 0 else PyBytes_FromStringAndSize(<const char*>protocol, length)

    @property
    def resumed(self) -> bool:
        self._check_usable()
        return SSL_session_reused(self.ssl) == 1

    @property
    def own_certificate(self) -> bytes | None:
        """The certificate we showed, in DER."""
        self._check_usable()
        cdef X509* certificate = SSL_get_certificate(self.ssl)
        return None if certificate == NULL else _der(certificate)

    @property
    def peer_certificate(self) -> bytes | None:
        """The client's certificate in DER; verified, or the handshake would have failed."""
        self._check_usable()
        cdef X509* certificate = SSL_get1_peer_certificate(self.ssl)
        if certificate == NULL:
            return None
        try:
            return _der(certificate)
        finally:
            X509_free(certificate)

    # Inside.

    cdef int _check_usable(self) except _RAISED:
        if self.ssl == NULL:
            raise ValueError("the connection is closed")
        if self.in_client_hello:
            raise RuntimeError("called inside the connection's own callback")
        if ERR_peek_error():
            ERR_clear_error()  # someone else's: SSL_get_error would take it for ours
        return 0

    cdef int _read_outcome(self, int result) except _RAISED:
        """As _outcome(); but that clients leave without close_notify is routine, and no exception."""
        cdef int error = SSL_get_error(self.ssl, result)
        if (error == SSL_ERROR_SSL
                and ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING):
            ERR_clear_error()
            return _TRUNCATED
        return self._outcome(result)

    cdef int _write_outcome(self, int result) except _RAISED:
        """As _outcome(); but once the client has said its last word, OpenSSL calls a failure an end."""
        cdef int error = SSL_get_error(self.ssl, result)
        if error == SSL_ERROR_ZERO_RETURN:
            raise self._failure(SSL_ERROR_SYSCALL)
        return self._outcome(result)

    cdef int _outcome(self, int result) except _RAISED:
        """What an operation's failure means: a constant, or the exception it raises."""
        cdef int error = SSL_get_error(self.ssl, result)
        if error == SSL_ERROR_WANT_READ:
            return _WANT_READ
        if error == SSL_ERROR_WANT_WRITE:
            return _WANT_WRITE
        if error == SSL_ERROR_ZERO_RETURN:
            ERR_clear_error()
            return _CLOSED
        if self._callback_error is not None:
            failure, self._callback_error = self._callback_error, None
            ERR_clear_error()
            raise failure
        raise self._failure(error)

    cdef object _failure(self, int error):
        cdef int socket_error = errno
        cdef unsigned long first = ERR_get_error()
        cdef const char* text
        cdef int code = 0
        while ERR_GET_LIB(first) != ERR_LIB_SSL and ERR_peek_error():
            # What libcrypto could not do stands before what that meant to TLS, which says more.
            first = ERR_get_error()
        if first:
            text = ERR_reason_error_string(first)
            reason = text.decode() if text != NULL else "unknown"
            if ERR_GET_LIB(first) == ERR_LIB_SSL:
                code = ERR_GET_REASON(first)
            if code == SSL_R_CERTIFICATE_VERIFY_FAILED:
                text = X509_verify_cert_error_string(SSL_get_verify_result(self.ssl))
                reason = f"{reason}: {text.decode()}"
            socket_error = 0
        elif error == SSL_ERROR_SYSCALL and socket_error:
            reason = strerror(socket_error).decode()
        else:  # the socket ended where TLS had not
            reason, code, socket_error = "unexpected eof", SSL_R_UNEXPECTED_EOF_WHILE_READING, 0
        ERR_clear_error()
        alert, self._alert = self._alert, NO_ALERT
        if alert == NO_ALERT:
            return TlsError(reason, code, socket_error, None, None)
        sender = "client" if self._alert_from_client else "proxy"
        return TlsError(reason, code, socket_error, alert, sender)

    cdef int _ask_for_context(self) noexcept:
        """Run on_client_hello and apply its choice: NO_ALERT, or the alert to refuse with."""
        try:
            if self._first_context is None:
                return NO_ALERT  # the garbage collector has been here: all that is left is to be freed
            self.offer = self._take_offer()
            self.in_client_hello = True  # from whichever operation: each one takes the handshake on
            choice = self._first_context.on_client_hello(self)
            if choice is None or choice is self.context:
                return NO_ALERT
            if isinstance(choice, Context):
                self._switch_to(choice)
                return NO_ALERT
            if isinstance(choice, int) and not isinstance(choice, bool) and 0 < choice < 256:
                return choice
            raise TypeError(f"on_client_hello returned {choice!r}: a Context, None or an alert's number")
        except BaseException as error:  # noqa: BLE001 - raised again from handshake()
            self._callback_error = error
            return SSL_AD_INTERNAL_ERROR
        finally:
            self.in_client_hello = False

    cdef tuple _take_offer(self):
        cdef const unsigned char* ciphers
        cdef size_t length = SSL_client_hello_get0_ciphers(self.ssl, &ciphers)
        return (
            SSL_client_hello_get0_legacy_version(self.ssl),
            PyBytes_FromStringAndSize(<const char*>ciphers, min(length, OFFER_MAX)),
            self._offered(SUPPORTED_VERSIONS),
            self._offered(SUPPORTED_GROUPS),
            self._offered(SIGNATURE_ALGORITHMS),
            self._offered(ALPN),
        )

    cdef bytes _offered(self, unsigned int number):
        cdef const unsigned char* body
        cdef size_t length
        if SSL_client_hello_get0_ext(self.ssl, number, &body, &length) != 1:
            return None
        return PyBytes_FromStringAndSize(<const char*>body, min(length, OFFER_MAX))

    cdef _switch_to(self, Context context):
        """SSL_set_SSL_CTX carries the certificates, signature algorithms, ciphers, callbacks, the store
        of trusted CAs and the session id context; the rest of the policy was copied when the SSL was
        made and is set here, field by field."""
        if SSL_set_SSL_CTX(self.ssl, context.ctx) == NULL:
            raise _refused("SSL_set_SSL_CTX")
        SSL_clear_options(self.ssl, SSL_get_options(self.ssl))
        SSL_set_options(self.ssl, SSL_CTX_get_options(context.ctx))
        if (SSL_set_min_proto_version(self.ssl, context.min_version) != 1
                or SSL_set_max_proto_version(self.ssl, context.max_version) != 1
                or SSL_set1_groups_list(self.ssl, context.groups) != 1
                or SSL_set_num_tickets(self.ssl, context.tickets) != 1):
            raise _refused("the chosen context's policy")
        SSL_set_verify(self.ssl, context.verify_mode, NULL)
        SSL_set_verify_depth(self.ssl, context.verify_depth)
        self.context = context
