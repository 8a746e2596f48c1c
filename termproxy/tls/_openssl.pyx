# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""A thin, typed binding to the system's libssl (OpenSSL 3.0 and later).  No policy here.

`Context` wraps an SSL_CTX that is complete when it is made.  `Connection` wraps one server-side SSL on
a non-blocking socket.  Its operations never block: each returns a count, or an outcome (a plain
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
from libc.limits cimport INT_MAX, LLONG_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset, strerror
from libc.time cimport time
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

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
    void OPENSSL_cleanse(void*, size_t)
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

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD:
        pass
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_MAC_CTX:
        pass
    ctypedef struct OSSL_PARAM:
        pass
    const EVP_MD* EVP_sha256()
    int EVP_Digest(const void*, size_t, unsigned char*, unsigned int*, const EVP_MD*, void*)
    EVP_CIPHER* EVP_CIPHER_fetch(void*, const char*, const char*)
    int EVP_EncryptInit_ex(
        EVP_CIPHER_CTX*, const EVP_CIPHER*, void*, const unsigned char*, const unsigned char*)
    int EVP_DecryptInit_ex(
        EVP_CIPHER_CTX*, const EVP_CIPHER*, void*, const unsigned char*, const unsigned char*)
    int EVP_MAC_CTX_set_params(EVP_MAC_CTX*, const OSSL_PARAM*)
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char*, void*, size_t)
    OSSL_PARAM OSSL_PARAM_construct_utf8_string(const char*, char*, size_t)
    OSSL_PARAM OSSL_PARAM_construct_end()
    unsigned char* HMAC "HMAC"(
        const EVP_MD*, const void*, int, const unsigned char*, size_t, unsigned char*, unsigned int*)

cdef extern from "openssl/hmac.h" nogil:
    pass

cdef extern from "openssl/params.h" nogil:
    pass

cdef extern from "openssl/rand.h" nogil:
    int RAND_bytes(unsigned char*, int)

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
        SSL_ERROR_WANT_CLIENT_HELLO_CB
        SSL_ERROR_ZERO_RETURN
        SSL_ERROR_SSL
        SSL_ERROR_SYSCALL
        SSL_SESS_CACHE_OFF
        SSL_CLIENT_HELLO_SUCCESS
        SSL_CLIENT_HELLO_ERROR
        SSL_CLIENT_HELLO_RETRY
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
    unsigned long SSL_OP_NO_TICKET
    enum: TLS1_3_VERSION
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
    int SSL_CTX_set_tlsext_ticket_key_evp_cb(
        SSL_CTX*,
        int (*)(SSL*, unsigned char*, unsigned char*, EVP_CIPHER_CTX*, EVP_MAC_CTX*, int) noexcept)
    long SSL_CTX_set_timeout(SSL_CTX*, long)
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
    size_t SSL_client_hello_get0_session_id(SSL*, const unsigned char**)
    size_t SSL_client_hello_get0_ciphers(SSL*, const unsigned char**)
    long SSL_get0_raw_cipherlist(SSL*, unsigned char**)
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
    long SSL_SESSION_get_time(const SSL_SESSION*)
    long SSL_SESSION_get_timeout(const SSL_SESSION*)
    int SSL_SESSION_get_protocol_version(const SSL_SESSION*)
    const SSL_CIPHER* SSL_SESSION_get0_cipher(const SSL_SESSION*)
    const unsigned char* SSL_SESSION_get0_id_context(const SSL_SESSION*, unsigned int*)
    int SSL_version(const SSL*)
    const unsigned char* SSL_SESSION_get_id(const SSL_SESSION*, unsigned int*)
    int i2d_SSL_SESSION(const SSL_SESSION*, unsigned char**)
    SSL_SESSION* d2i_SSL_SESSION(SSL_SESSION**, const unsigned char**, long)
    void SSL_SESSION_free(SSL_SESSION*)
    void SSL_CTX_sess_set_new_cb(SSL_CTX*, int (*)(SSL*, SSL_SESSION*) noexcept)
    void SSL_CTX_sess_set_get_cb(
        SSL_CTX*, SSL_SESSION* (*)(SSL*, const unsigned char*, int, int*) noexcept)
    enum:
        SSL_SESS_CACHE_SERVER
        SSL_SESS_CACHE_NO_INTERNAL
        SSL_SESS_CACHE_NO_AUTO_CLEAR
    const ASN1_TIME* X509_get0_notAfter(const X509*)
    int X509_cmp_current_time(const ASN1_TIME*)
    int X509_digest(const X509*, const EVP_MD*, unsigned char*, unsigned int*)
    long SSL_CTX_set_tlsext_status_cb(SSL_CTX*, int (*)(SSL*, void*) noexcept)
    long SSL_set_tlsext_status_ocsp_resp(SSL*, void*, long)
    enum:
        SSL_TICKET_SUCCESS
        SSL_TICKET_SUCCESS_RENEW
        SSL_TICKET_RETURN_IGNORE_RENEW
        SSL_TICKET_RETURN_USE
        SSL_TICKET_RETURN_USE_RENEW
    long SSL_SESSION_set_timeout(SSL_SESSION*, long)
    int SSL_CTX_set_session_ticket_cb(
        SSL_CTX*, int (*)(SSL*, void*) noexcept,
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
    # termproxy.outcome, for C.
    _DONE = 0
    _WANT_READ = -1
    _WANT_WRITE = -2
    _CLOSED = -3
    _SINK_FULL = -4
    _MORE = -5
    _TRUNCATED = -6
    _HELLO = -7
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
    # A ticket's parts (RFC 5077 §4), and what its keys are made of, in bytes.
    NAME_SIZE = 16
    ID_SIZE = 8
    IV_SIZE = 16
    SECRET_SIZE = 32
    GROUP_SIZE = 32
    KEYS_MAX = 32
    # RFC 8446 §4.6.1: seven days.
    LIFETIME_MAX = 604800
    # Seconds that the clocks of machines with the same keys may differ.
    SKEW_MAX = 10
    # termproxy.outcome.Miss, for C.
    _UNKNOWN_KEY = 1
    _RETIRED_KEY = 2
    _OTHER_GROUP = 3
    _DAMAGED = 4
    _EXPIRED = 5
    _OTHER_VERSION = 6
    _CLIENT_CERTIFICATE_EXPIRED = 7
    _NOT_ACCEPTED = 8
    _EVICTED = 9
    # Extensions' numbers.
    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    ALPN = 16
    SESSION_TICKET = 35
    PRE_SHARED_KEY = 41
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
    if connection.stops_at_hello:
        connection.stops_at_hello = False
        connection.offers_session = connection._has_session_to_offer()
        return SSL_CLIENT_HELLO_RETRY
    connection.client_hello_seen = True
    cdef int refused = connection._ask_for_context()
    if refused == NO_ALERT:
        return SSL_CLIENT_HELLO_SUCCESS
    alert[0] = refused
    return SSL_CLIENT_HELLO_ERROR


cdef int _on_ticket(
    SSL* ssl, SSL_SESSION* session, const unsigned char* name, size_t length, int status, void* arg
) noexcept:
    """A ticket has been opened, or could not be: whether its session is resumed."""
    cdef void* pointer = SSL_get_ex_data(ssl, CONNECTION_INDEX)
    if status != SSL_TICKET_SUCCESS and status != SSL_TICKET_SUCCESS_RENEW:
        return SSL_TICKET_RETURN_IGNORE_RENEW
    if pointer == NULL or not (<Connection>pointer).may_resume(session):
        return SSL_TICKET_RETURN_IGNORE_RENEW
    return SSL_TICKET_RETURN_USE if status == SSL_TICKET_SUCCESS else SSL_TICKET_RETURN_USE_RENEW


cdef int _on_new_ticket(SSL* ssl, void* arg) noexcept:
    """In TLS 1.3 each ticket has its own time; OpenSSL would go on with the lifetime that the first of
    them was given, perhaps before a reload."""
    cdef void* pointer = SSL_get_ex_data(ssl, CONNECTION_INDEX)
    cdef SSL_SESSION* session = <SSL_SESSION*>SSL_get_session(ssl)
    cdef Context context
    if pointer != NULL and session != NULL and SSL_version(ssl) == TLS1_3_VERSION:
        context = (<Connection>pointer).context
        if context is not None:
            SSL_SESSION_set_timeout(session, context.lifetime)
    return 1


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


# Fetched once: EVP_aes_256_cbc() is looked up anew for every ticket.
cdef EVP_CIPHER* AES_256_CBC = EVP_CIPHER_fetch(NULL, b"AES-256-CBC", NULL)
if AES_256_CBC == NULL:
    raise ImportError("this OpenSSL has no AES-256-CBC, which tickets are made with")


cdef int _on_ticket_key(
    SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac, int making
) noexcept:
    """Set up the ciphers to make a ticket, or to open one: 0 not with us, 1 done, 2 and a new one is due.

    OpenSSL asks the context that the connection began with; the keys are those of the one it has now.
    """
    cdef void* pointer = SSL_get_ex_data(ssl, CONNECTION_INDEX)
    cdef Connection connection
    cdef TicketKeys keys
    cdef long long now = time(NULL)
    cdef int index
    if pointer == NULL:
        return 0
    connection = <Connection>pointer
    if connection.context is None or connection.context.ticket_keys is None:
        return 0
    keys = connection.context.ticket_keys
    keys.refresh()
    if making:
        index = keys.issuing(now)
        if index < 0 or RAND_bytes(iv, IV_SIZE) != 1:
            return 0
        memcpy(name, keys.keys[index].name, NAME_SIZE)
        if EVP_EncryptInit_ex(cipher, AES_256_CBC, NULL, keys.keys[index].cipher_key, iv) != 1:
            return -1
        keys.ring.count(keys.keys[index].number)
    else:
        index = keys.find(name, now)
        if index < 0:
            connection.miss = -index
            return 0
        connection.miss = _DAMAGED  # until it has been opened
        if EVP_DecryptInit_ex(cipher, AES_256_CBC, NULL, keys.keys[index].cipher_key, iv) != 1:
            return -1
    if not _set_mac_key(mac, keys.keys[index].mac_key):
        return -1
    if making or (SSL_version(ssl) != TLS1_3_VERSION and index == keys.issuing(now)):
        return 1
    return 2  # in TLS 1.3 a client uses a ticket once (RFC 8446 §C.4), and needs another


cdef bint _set_mac_key(EVP_MAC_CTX* mac, unsigned char* key) noexcept:
    cdef OSSL_PARAM parameters[3]
    parameters[0] = OSSL_PARAM_construct_octet_string(b"key", key, SECRET_SIZE)
    parameters[1] = OSSL_PARAM_construct_utf8_string(b"digest", <char*>b"SHA256", 0)
    parameters[2] = OSSL_PARAM_construct_end()
    return EVP_MAC_CTX_set_params(mac, parameters) == 1


cdef int _no_password(char* buffer, int size, int writing, void* arg) noexcept nogil:
    """OpenSSL's own callback would ask at the terminal."""
    return -1


# --------------------------------------------------------------------------------- ticket keys

cdef extern from *:
    """
    /* The ring as it lies in memory that the master and its workers share.  The master alone writes:
       an odd generation says that it is about to. */
    typedef struct {
        long long number, issue_from, issue_until, redeem_until;
        unsigned char id[8], secret[32];
        long long has_secret;
    } tp_ring_key;
    typedef struct {
        unsigned long long generation;
        long long count;
        tp_ring_key keys[32];
    } tp_ring;
    /* A key of the ring as one policy group uses it. */
    typedef struct {
        long long number, issue_from, issue_until, redeem_until, has_secret;
        unsigned char name[16], cipher_key[32], mac_key[32];
    } tp_group_key;
    """
    ctypedef struct tp_ring_key:
        long long number, issue_from, issue_until, redeem_until
        unsigned char id[8]
        unsigned char secret[32]
        long long has_secret
    ctypedef struct tp_ring:
        unsigned long long generation
        long long count
        tp_ring_key keys[32]
    ctypedef struct tp_group_key:
        long long number, issue_from, issue_until, redeem_until, has_secret
        unsigned char name[16]
        unsigned char cipher_key[32]
        unsigned char mac_key[32]
    void __sync_synchronize() nogil


RING_SIZE = sizeof(tp_ring)
"""Bytes of shared memory that a TicketRing needs."""

RING_TALLY = 2 * <int>KEYS_MAX
"""64-bit words that it counts into: for each key, at its number modulo KEYS_MAX, the number, and how
many tickets it has made."""


cdef class TicketRing:
    """The keys of session tickets, in `memory` (writable, RING_SIZE bytes): written by the master, read by
    all.  What they are and when is decided in tickets.py.
    """

    cdef Py_buffer view
    cdef tp_ring* shared
    cdef Py_buffer tally_view
    cdef long long* tally

    def __cinit__(self, memory not None):
        PyObject_GetBuffer(memory, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        if self.view.len < sizeof(tp_ring):
            raise ValueError(f"a ring needs {sizeof(tp_ring)} bytes, not {self.view.len}")
        self.shared = <tp_ring*>self.view.buf

    def __dealloc__(self):
        PyBuffer_Release(&self.view)  # nothing, when there is none
        PyBuffer_Release(&self.tally_view)

    def write(self, keys not None) -> None:
        """Put these in the place of all before: (number, id, secret, issue_from, issue_until, redeem_until),
        with an empty secret for a retired one.  ValueError for what is not that.
        """
        cdef tp_ring fresh
        cdef tp_ring_key* slot
        cdef int index
        keys = list(keys)
        if len(keys) > KEYS_MAX:
            raise ValueError(f"{len(keys)} keys; there is room for {KEYS_MAX}")
        memset(&fresh, 0, sizeof(fresh))
        for index, (number, key_id, secret, issue_from, issue_until, redeem_until) in enumerate(keys):
            if len(key_id) != ID_SIZE or len(secret) not in (0, SECRET_SIZE):
                raise ValueError("an id has 8 bytes, a secret 32")
            slot = &fresh.keys[index]
            slot.number = number
            slot.issue_from, slot.issue_until, slot.redeem_until = issue_from, issue_until, redeem_until
            memcpy(slot.id, <const char*>key_id, ID_SIZE)
            slot.has_secret = len(secret) == SECRET_SIZE
            memcpy(slot.secret, <const char*>secret, len(secret))
        # Nothing can be refused from here on: an odd generation would stay.
        self.shared.generation += 1
        __sync_synchronize()
        memcpy(self.shared.keys, fresh.keys, sizeof(fresh.keys))
        self.shared.count = len(keys)
        __sync_synchronize()
        self.shared.generation += 1
        OPENSSL_cleanse(&fresh, sizeof(fresh))

    def count_into(self, words not None) -> None:
        """Count tickets here from now on: RING_TALLY words of 64 bits, which are this process's alone."""
        cdef Py_buffer view
        PyObject_GetBuffer(words, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        if view.len < 2 * KEYS_MAX * 8:
            PyBuffer_Release(&view)
            raise ValueError(f"a tally needs {RING_TALLY} words")
        PyBuffer_Release(&self.tally_view)
        self.tally_view = view
        self.tally = <long long*>view.buf

    cdef void count(self, long long number) noexcept:
        cdef Py_ssize_t at = 2 * (number % KEYS_MAX)
        if self.tally == NULL:
            return
        if self.tally[at] != number:
            self.tally[at + 1] = 0
            self.tally[at] = number
        self.tally[at + 1] += 1

    cdef bint copy_to(self, tp_ring* copy) noexcept:
        """A copy as of one moment; False when the master stays in the middle of writing."""
        cdef int attempt
        cdef unsigned long long seen
        for attempt in range(10000):
            seen = self.shared.generation
            __sync_synchronize()
            if seen & 1:
                continue
            memcpy(copy, self.shared, sizeof(tp_ring))
            __sync_synchronize()
            if seen == self.shared.generation:
                copy.generation = seen
                return True
        return False


cdef class TicketKeys:
    """The ring as one policy group uses it.  A ticket names its key and its group, and both the cipher's and
    the MAC's key are derived from them: what one group has made, no other can open.
    """

    cdef object __weakref__
    cdef readonly TicketRing ring
    cdef bytes group
    cdef unsigned long long generation
    cdef int count
    cdef tp_group_key keys[32]

    def __cinit__(self, TicketRing ring not None, bytes group not None):
        if len(group) != GROUP_SIZE:
            raise ValueError(f"a group has {GROUP_SIZE} bytes")
        self.ring, self.group = ring, group

    def __dealloc__(self):
        OPENSSL_cleanse(self.keys, sizeof(self.keys))

    cdef void refresh(self) noexcept:
        """Derive anew when the master has written; while it is writing, what was known stays."""
        cdef tp_ring copy
        cdef int index
        if self.generation == self.ring.shared.generation or not self.ring.copy_to(&copy):
            return
        OPENSSL_cleanse(self.keys, sizeof(self.keys))
        self.count = <int>min(max(copy.count, 0), KEYS_MAX)
        for index in range(self.count):
            self._derive(&copy.keys[index], &self.keys[index])
        self.generation = copy.generation
        OPENSSL_cleanse(&copy, sizeof(copy))

    cdef void _derive(self, tp_ring_key* source, tp_group_key* key) noexcept:
        """HKDF-Expand (RFC 5869 §2.3) of the ring's secret, with the group as its info."""
        cdef unsigned char block[96]
        cdef unsigned char message[SECRET_SIZE + GROUP_SIZE + 1]
        cdef int number
        key.number, key.has_secret = source.number, source.has_secret
        key.issue_from, key.issue_until = source.issue_from, source.issue_until
        key.redeem_until = source.redeem_until
        memcpy(key.name, source.id, ID_SIZE)
        if not source.has_secret:
            return
        memcpy(message + SECRET_SIZE, <const char*>self.group, GROUP_SIZE)
        for number in range(3):
            message[SECRET_SIZE + GROUP_SIZE] = number + 1
            if number:
                memcpy(message, block + SECRET_SIZE * (number - 1), SECRET_SIZE)
                HMAC(EVP_sha256(), source.secret, SECRET_SIZE, message, sizeof(message),
                     block + SECRET_SIZE * number, NULL)
            else:  # the first block has no block before it
                HMAC(EVP_sha256(), source.secret, SECRET_SIZE, message + SECRET_SIZE, GROUP_SIZE + 1,
                     block, NULL)
        memcpy(key.cipher_key, block, SECRET_SIZE)
        memcpy(key.mac_key, block + SECRET_SIZE, SECRET_SIZE)
        memcpy(key.name + ID_SIZE, block + 2 * SECRET_SIZE, NAME_SIZE - ID_SIZE)
        OPENSSL_cleanse(block, sizeof(block))
        OPENSSL_cleanse(message, sizeof(message))

    cdef int issuing(self, long long now) noexcept:
        """The newest key whose time has come; were the clock set back before all of them, the oldest."""
        cdef int index, oldest = -1
        for index in range(self.count - 1, -1, -1):
            if self.keys[index].has_secret:
                if self.keys[index].issue_from <= now:
                    return index
                oldest = index
        return oldest

    cdef int find(self, const unsigned char* name, long long now) noexcept:
        """The key that a ticket names; else a negative Miss."""
        cdef int index
        for index in range(self.count):
            if memcmp(self.keys[index].name, name, ID_SIZE) == 0:
                if not self.keys[index].has_secret or now >= self.keys[index].redeem_until:
                    return -_RETIRED_KEY
                if memcmp(self.keys[index].name + ID_SIZE, name + ID_SIZE, NAME_SIZE - ID_SIZE) != 0:
                    return -_OTHER_GROUP
                return index
        return -_UNKNOWN_KEY


# ------------------------------------------------------------------------------- session cache

cdef extern from *:
    """
    /* A session in memory that all workers share.  Who writes makes `sequence` odd first, and even again
       when the slot is whole; readers look at it before and after.  So nobody ever waits, and a worker that
       is killed while it writes leaves a slot that is odd: not read, and written over after a while.  Should
       it only have been stopped, and write on, the checksum over key and data tells. */
    typedef struct {
        unsigned long long sequence, checksum;
        long long claimed, expires;   /* nanoseconds, monotonic; seconds since 1970 */
        unsigned int length, unused;
        unsigned char key[32];
        unsigned char data[];
    } tp_slot;
    static int tp_claim(tp_slot *slot, unsigned long long seen, unsigned long long odd) {
        return __atomic_compare_exchange_n(&slot->sequence, &seen, odd, 0,
                                           __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    static unsigned long long tp_checksum(
        const unsigned char *key, const unsigned char *data, unsigned int length)
    {
        unsigned long long sum = 14695981039346656037ULL;   /* FNV-1a */
        int rest = 32;
        while (rest--) sum = (sum ^ *key++) * 1099511628211ULL;
        while (length--) sum = (sum ^ *data++) * 1099511628211ULL;
        return sum;
    }
    """
    ctypedef struct tp_slot:
        unsigned long long sequence, checksum
        long long claimed, expires
        unsigned int length
        unsigned char key[32]
        unsigned char data[1]
    bint tp_claim(tp_slot*, unsigned long long, unsigned long long) nogil
    unsigned long long tp_checksum(const unsigned char*, const unsigned char*, unsigned int) nogil

cdef enum:
    # Slots that a session may be in.
    WAYS = 8
    # What a session takes, in bytes of DER: an ordinary one, and one with a client's certificate.
    SMALL_MAX = 400
    LARGE_MAX = 4000
    # Of these there are so many times fewer.
    LARGE_SHARE = 8
    # A slot that has been claimed for so long, in nanoseconds, was left by a worker that died.
    CLAIM_MAX = 1000000000


cdef class SessionCache:
    """Sessions by their ids, for clients that take no tickets: some `entries` of them, in `memory`
    (writable, all zero at first, session_cache_size() bytes), which all workers share.

    No session is found by another policy group than the one that made it.  When all slots that a session
    may be in are taken, the oldest gives way.
    """

    cdef Py_buffer view
    cdef unsigned char* small
    cdef unsigned char* large
    cdef unsigned char* used
    """For each bucket, the large ones last, whether it was ever written to: a look at the others would
    have the kernel give memory for them."""
    cdef long long small_buckets, large_buckets
    cdef readonly int entries

    def __cinit__(self, memory not None, int entries):
        if entries < 1:
            raise ValueError("a cache has entries")
        PyObject_GetBuffer(memory, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        if self.view.len < session_cache_size(entries):
            raise ValueError(f"{entries} entries need {session_cache_size(entries)} bytes")
        self.entries = entries
        self.small_buckets, self.large_buckets = _buckets(entries), _buckets(entries // LARGE_SHARE)
        self.small = <unsigned char*>self.view.buf
        self.large = self.small + self.small_buckets * WAYS * _slot_size(SMALL_MAX)
        self.used = self.large + self.large_buckets * WAYS * _slot_size(LARGE_MAX)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def sweep(self) -> int:
        """Wipe what has expired; how many sessions there are now."""
        return self._sweep_all(time(NULL))

    def clear(self) -> None:
        """Wipe every session."""
        self._sweep_all(LLONG_MAX)

    cdef long long _sweep_all(self, long long now) noexcept:
        cdef long long bucket, alive = 0
        for bucket in range(self.small_buckets):
            if self.used[bucket]:
                alive += self._sweep(self.small, bucket, SMALL_MAX, now)
        for bucket in range(self.large_buckets):
            if self.used[self.small_buckets + bucket]:
                alive += self._sweep(self.large, bucket, LARGE_MAX, now)
        return alive

    cdef int _sweep(
        self, unsigned char* slots, long long bucket, int data_max, long long now
    ) noexcept:
        cdef int way, alive = 0
        cdef tp_slot* slot
        cdef unsigned long long seen
        for way in range(WAYS):
            slot = <tp_slot*>(slots + (bucket * WAYS + way) * _slot_size(data_max))
            seen = slot.sequence
            __sync_synchronize()
            if not seen & 1:
                if not slot.length:
                    continue
                if slot.expires > now:
                    alive += 1
                    continue
            seen = _claim(slot, seen)
            if seen:
                OPENSSL_cleanse(slot.data, data_max)
                slot.length, slot.expires = 0, 0
                _give_up(slot, seen)
        return alive

    cdef void put(
        self, const unsigned char* key, const unsigned char* data, unsigned int length, long long expires
    ) noexcept:
        """Keep a session; if that cannot be, the client makes another."""
        cdef int data_max = SMALL_MAX if length <= SMALL_MAX else LARGE_MAX
        cdef long long now = time(NULL)
        cdef unsigned long long seen
        cdef tp_slot* slot
        if length > LARGE_MAX:
            return
        self.used[self._use(key, data_max)] = 1
        slot = self._slot_to_fill(key, data_max, now)
        seen = _claim(slot, slot.sequence)
        if not seen:
            return  # another worker is at it
        OPENSSL_cleanse(slot.data, data_max)
        memcpy(slot.key, key, 32)
        memcpy(slot.data, data, length)
        slot.length, slot.expires = length, expires
        slot.checksum = tp_checksum(key, data, length)
        _give_up(slot, seen)

    cdef tp_slot* _slot_to_fill(self, const unsigned char* key, int data_max, long long now) noexcept:
        """The session's own, else a free one, else the oldest."""
        cdef tp_slot* free_one = NULL
        cdef tp_slot* oldest = NULL
        cdef tp_slot* slot
        cdef int way
        for way in range(WAYS):
            slot = self._slot(key, data_max, way)
            if slot.length and memcmp(slot.key, key, 32) == 0:
                return slot
            if not slot.length or slot.expires <= now:
                free_one = slot
            elif oldest == NULL or slot.claimed < oldest.claimed:
                oldest = slot
        return free_one if free_one != NULL else oldest

    cdef unsigned int find(self, const unsigned char* key, unsigned char* data, long long now) noexcept:
        """Copy the session to `data` (LARGE_MAX bytes): its length, 0 when there is none."""
        cdef unsigned int length = self._find(key, data, now, SMALL_MAX)
        return length if length else self._find(key, data, now, LARGE_MAX)

    cdef unsigned int _find(
        self, const unsigned char* key, unsigned char* data, long long now, int data_max
    ) noexcept:
        cdef int way
        cdef tp_slot* slot
        cdef unsigned long long seen, checksum
        cdef unsigned int length
        if not self.used[self._use(key, data_max)]:
            return 0
        for way in range(WAYS):
            slot = self._slot(key, data_max, way)
            seen = slot.sequence
            __sync_synchronize()
            length, checksum = slot.length, slot.checksum
            if seen & 1 or not 0 < length <= <unsigned int>data_max or slot.expires <= now:
                continue
            if memcmp(slot.key, key, 32) != 0:
                continue
            memcpy(data, slot.data, length)
            __sync_synchronize()
            if slot.sequence == seen and tp_checksum(key, data, length) == checksum:
                return length
        return 0

    cdef long long _bucket(self, const unsigned char* key, int data_max) noexcept:
        cdef unsigned long long hash
        memcpy(&hash, key, sizeof(hash))
        return hash % <unsigned long long>(
            self.small_buckets if data_max == SMALL_MAX else self.large_buckets)

    cdef long long _use(self, const unsigned char* key, int data_max) noexcept:
        """Where in `used` a key's bucket is."""
        return self._bucket(key, data_max) + (0 if data_max == SMALL_MAX else self.small_buckets)

    cdef tp_slot* _slot(self, const unsigned char* key, int data_max, int way) noexcept:
        cdef unsigned char* slots = self.small if data_max == SMALL_MAX else self.large
        return <tp_slot*>(slots + (self._bucket(key, data_max) * WAYS + way) * _slot_size(data_max))


cdef unsigned long long _claim(tp_slot* slot, unsigned long long seen) noexcept nogil:
    """Begin to write to a slot that was at `seen`: its sequence meanwhile; 0 when another is at it."""
    cdef unsigned long long ours = seen + 1
    if seen & 1:
        if _monotonic() - slot.claimed < CLAIM_MAX:
            return 0
        # Whoever was at it has died: the sequence goes on as if it had finished, and we had begun.
        ours = seen + 2
    if not tp_claim(slot, seen, ours):
        return 0
    slot.claimed = _monotonic()
    __sync_synchronize()
    return ours


cdef void _give_up(tp_slot* slot, unsigned long long ours) noexcept nogil:
    """It is whole; unless we were taken for dead, and it is another's now."""
    __sync_synchronize()
    tp_claim(slot, ours, ours + 1)


cdef long long _slot_size(int data_max) noexcept:
    return (sizeof(tp_slot) + data_max + 7) // 8 * 8


cdef long long _buckets(long long entries) noexcept:
    """Half as many slots again as entries: they are not spread evenly."""
    return (entries * 3 // 2 + WAYS - 1) // WAYS + 1


def session_cache_size(int entries) -> int:
    """Bytes of memory for a SessionCache."""
    return (_buckets(entries) * (WAYS * _slot_size(SMALL_MAX) + 1)
            + _buckets(entries // LARGE_SHARE) * (WAYS * _slot_size(LARGE_MAX) + 1))


cdef bint _session_key(
    Connection connection, const unsigned char* id, unsigned int length, unsigned char* key
) noexcept:
    """What a session is kept under: its id and its policy group, hashed together."""
    cdef unsigned char text[64]
    cdef bytes group = connection.context.session_id_context
    if len(group) > 32 or length > 32:
        return False
    memset(text, 0, sizeof(text))
    memcpy(text, <const char*>group, len(group))
    memcpy(text + 32, id, length)
    return EVP_Digest(text, sizeof(text), key, NULL, EVP_sha256(), NULL) == 1


cdef int _on_new_session(SSL* ssl, SSL_SESSION* session) noexcept:
    """Keep a session that has an id: 0, we do not hold on to OpenSSL's object."""
    cdef void* pointer = SSL_get_ex_data(ssl, CONNECTION_INDEX)
    cdef unsigned int id_length
    cdef const unsigned char* id = SSL_SESSION_get_id(session, &id_length)
    cdef unsigned char key[32]
    cdef unsigned char data[LARGE_MAX]
    cdef unsigned char* end = data
    cdef int length
    cdef Context context
    if pointer == NULL or id_length == 0:
        return 0
    context = (<Connection>pointer).context
    if context is None or context.session_cache is None:
        return 0
    if SSL_version(ssl) == TLS1_3_VERSION and not SSL_get_options(ssl) & SSL_OP_NO_TICKET:
        return 0  # the ticket holds it all
    length = i2d_SSL_SESSION(session, NULL)
    if not 0 < length <= LARGE_MAX or not _session_key(<Connection>pointer, id, id_length, key):
        return 0
    i2d_SSL_SESSION(session, &end)
    context.session_cache.put(
        key, data, length, SSL_SESSION_get_time(session) + SSL_SESSION_get_timeout(session))
    OPENSSL_cleanse(data, length)
    return 0


cdef SSL_SESSION* _on_session_id(SSL* ssl, const unsigned char* id, int id_length, int* copy) noexcept:
    """The session that a client names, if we have it and it may be resumed."""
    cdef void* pointer = SSL_get_ex_data(ssl, CONNECTION_INDEX)
    cdef Connection connection
    cdef SSL_SESSION* session
    cdef unsigned char key[32]
    cdef unsigned char data[LARGE_MAX]
    cdef const unsigned char* end = data
    cdef const unsigned char* kept_id
    cdef unsigned int length
    copy[0] = 0  # the reference is OpenSSL's
    if pointer == NULL or id_length <= 0:
        return NULL
    connection = <Connection>pointer
    if connection.context is None or connection.context.session_cache is None:
        return NULL
    connection.miss = _EVICTED
    if not _session_key(connection, id, id_length, key):
        return NULL
    length = connection.context.session_cache.find(key, data, time(NULL))
    if length == 0:
        return NULL
    session = d2i_SSL_SESSION(NULL, &end, length)
    OPENSSL_cleanse(data, length)
    if session == NULL:
        ERR_clear_error()
        return NULL
    kept_id = SSL_SESSION_get_id(session, &length)
    if length != <unsigned int>id_length or memcmp(kept_id, id, length) != 0:
        SSL_SESSION_free(session)
        return NULL
    if not connection.may_resume(session):
        SSL_SESSION_free(session)
        return NULL
    connection.from_cache = True
    return session


# -------------------------------------------------------------------------------------- context

cdef long long _monotonic() noexcept nogil:
    """Nanoseconds."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1000000000LL + now.tv_nsec


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
    `ticket_keys` are what session tickets are made with; without them, tickets only name sessions, which
    `session_cache` keeps.  `lifetime` is how long a session may be resumed, in seconds; `tickets` how many
    are sent after a full TLS 1.3 handshake.
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
    cdef TicketKeys ticket_keys
    cdef SessionCache session_cache
    cdef bytes session_id_context
    cdef long long lifetime

    def __cinit__(self, *args, **kwargs):
        self.ctx = SSL_CTX_new(TLS_server_method())
        if self.ctx == NULL:
            raise _refused("SSL_CTX_new")

    def __init__(
        self, *, identities not None, int min_version=0x0303, int max_version=0,
        str ciphers=None, str ciphersuites=None, str groups not None, str signature_algorithms=None,
        alpn=(), int tickets=2, bytes session_id_context not None=b"termproxy",
        str client_auth not None="off", bytes client_ca=None, bytes client_crl=None,
        int client_depth=4, TicketKeys ticket_keys=None, SessionCache session_cache=None,
        long long lifetime=7200, dict staples=None, on_client_hello=None,
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
        self._set_resumption(ticket_keys, session_cache, session_id_context, lifetime)
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
        # Only matters when the cipher list has finite-field Diffie-Hellman.
        SSL_CTX_set_dh_auto(self.ctx, 1)
        SSL_CTX_set_info_callback(self.ctx, _note_alert)
        SSL_CTX_set_tlsext_servername_callback(self.ctx, _acknowledge_name)
        if self.on_client_hello is not None:
            SSL_CTX_set_client_hello_cb(self.ctx, _on_client_hello, NULL)

    cdef _set_resumption(
        self, TicketKeys keys, SessionCache cache, bytes session_id_context, long long lifetime
    ):
        if not 0 < lifetime <= LIFETIME_MAX:
            raise ValueError(f"lifetime: {lifetime} is not from 1 to {LIFETIME_MAX} seconds")
        self.session_id_context, self.lifetime = session_id_context, lifetime
        SSL_CTX_set_timeout(self.ctx, lifetime)
        if cache is not None:
            # OpenSSL's own cache is one process's, and holds 20,480 sessions for whoever asks.
            self.session_cache = cache
            SSL_CTX_set_session_cache_mode(
                self.ctx,
                SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR)
            SSL_CTX_sess_set_new_cb(self.ctx, _on_new_session)
            SSL_CTX_sess_set_get_cb(self.ctx, _on_session_id)
        else:
            SSL_CTX_set_session_cache_mode(self.ctx, SSL_SESS_CACHE_OFF)
        if keys is None:
            SSL_CTX_set_session_ticket_cb(self.ctx, _on_new_ticket, NULL, NULL)
            SSL_CTX_set_options(self.ctx, SSL_OP_NO_TICKET)
            if cache is None:
                self.tickets = 0  # what they would stand for is kept nowhere
                SSL_CTX_set_num_tickets(self.ctx, 0)
            return
        self.ticket_keys = keys
        SSL_CTX_set_tlsext_ticket_key_evp_cb(self.ctx, _on_ticket_key)
        SSL_CTX_set_session_ticket_cb(self.ctx, _on_new_ticket, _on_ticket, NULL)

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


cdef int _check_most(long long most) except _RAISED:
    if most <= 0:
        raise ValueError(f"{most} is no number of bytes to move")
    return 0


# ----------------------------------------------------------------------------------- connection

cdef long long _in_handshakes = 0


def nanoseconds_in_handshakes() -> int:
    """What all of this process's handshake() calls have taken, so far."""
    return _in_handshakes


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
    cdef readonly int miss
    """An outcome.Miss: why no session was resumed, when none was."""
    cdef readonly bint from_cache
    """Whether the session that was resumed came by its session id, and not from a ticket."""
    cdef readonly long long handshake_nanoseconds
    """Spent in OpenSSL's handshake so far."""
    cdef readonly long long ticket_age
    """Seconds since the session that the client showed was made; −1: it showed none that could be read."""
    cdef public bint stops_at_hello
    """Whether handshake() returns HELLO, once, when a whole ClientHello has come: before any crypto, and
    before on_client_hello.  The next handshake() goes on.  Only with on_client_hello."""
    cdef readonly bint offers_session
    """After HELLO: whether the client shows a session to resume, of whatever worth."""
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
        self.ticket_age = -1
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
        """Take the handshake as far as it goes: DONE, WANT_READ, WANT_WRITE or HELLO."""
        global _in_handshakes
        cdef int result
        cdef long long begun, spent
        self._check_usable()
        begun = _monotonic()
        result = SSL_do_handshake(self.ssl)
        spent = _monotonic() - begun
        self.handshake_nanoseconds += spent
        _in_handshakes += spent
        if result == 1:
            ERR_clear_error()  # OpenSSL may leave harmless entries of its search for algorithms
            self.offer = None  # it only explains failures
            return _DONE
        return self._outcome(result)

    def read_into(self, buffer not None) -> int:
        """Read at most one record's plaintext into a writable buffer: the count, or an outcome."""
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

    def write_all(self, buffer not None, Py_ssize_t start, Py_ssize_t end) -> int:
        """Encrypt and send what is from `start` to `end` in a buffer: how many bytes were taken, fewer
        than all when the socket is full.  What was not taken must come first in the next write.
        """
        cdef Py_buffer view
        cdef Py_ssize_t done = start
        cdef int count
        self._check_usable()
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if not 0 <= start <= end <= view.len:
                raise ValueError(f"{start} to {end} is not in a buffer of {view.len} bytes")
            while done < end:
                count = SSL_write(self.ssl, <const char*>view.buf + done, <int>min(end - done, INT_MAX))
                if count <= 0:
                    self._write_outcome(count)  # raises, or the socket is full
                    break
                done += count
                self.plaintext_written += count
        finally:
            PyBuffer_Release(&view)
        return done - start

    def decrypt_to(self, int fd, Scratch scratch not None, long long most=LLONG_MAX) -> int:
        """Read what the client sent, up to the scratch's size or `most`, and send it to the socket `fd`.

        The count when all was passed on and no more is at hand, else an outcome.  One call where
        reading, slicing and sending from Python would be four: a tenth of a small request's cost.
        Raises TlsError for the client's side, OSError for `fd`.
        """
        cdef int total = 0, count = 1, state, size = <int>min(scratch.size, most)
        cdef ssize_t sent
        self._check_usable()
        scratch.check_free()
        _check_most(most)
        if self._held_error is not None:
            error, self._held_error = self._held_error, None
            raise error
        if self._held_end:
            return self._held_end
        while total < size:
            count = SSL_read(self.ssl, scratch.memory + total, size - total)
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

    def encrypt_from(self, int fd, Scratch scratch not None, long long most=LLONG_MAX) -> int:
        """Receive from the socket `fd`, up to the scratch's size or `most`, and write it to the client.

        The count when all was passed on, WANT_READ when `fd` had nothing, else an outcome.
        Raises OSError for `fd`, TlsError for the client's side.
        """
        cdef int done = 0, count
        cdef ssize_t received
        self._check_usable()
        scratch.check_free()
        _check_most(most)
        received = c_recv(fd, scratch.memory, <size_t>min(scratch.size, most), 0)
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
        self._check_open()
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
        self._check_open()
        return SSL_get_version(self.ssl).decode()

    @property
    def cipher(self) -> str | None:
        self._check_open()
        cdef const SSL_CIPHER* cipher = SSL_get_current_cipher(self.ssl)
        return None if cipher == NULL else SSL_CIPHER_get_name(cipher).decode()

    @property
    def cipher_number(self) -> int:
        """IANA's; 0: none was agreed on."""
        self._check_open()
        cdef const SSL_CIPHER* cipher = SSL_get_current_cipher(self.ssl)
        return 0 if cipher == NULL else SSL_CIPHER_get_protocol_id(cipher)

    @property
    def group_number(self) -> int:
        """OpenSSL's for `group`, an NID or 0x1000000 and IANA's; 0: the key exchange has none."""
        self._check_open()
        if SSL_get_session(self.ssl) == NULL:
            return 0  # see group
        return SSL_get_negotiated_group(self.ssl)

    @property
    def group(self) -> str | None:
        """The key exchange's group, as in "x25519"; a resumed TLS 1.2 session keeps its first one."""
        self._check_open()
        if SSL_get_session(self.ssl) == NULL:
            return None  # OpenSSL 3.0 would look for it there all the same, and crash
        cdef int number = SSL_get_negotiated_group(self.ssl)
        cdef const char* name = NULL if number == 0 else SSL_group_to_name(self.ssl, number)
        return None if name == NULL else name.decode()

    @property
    def sni(self) -> bytes | None:
        """The name that the client asked for, as it sent it: any bytes but NUL."""
        self._check_open()
        cdef const char* name = SSL_get_servername(self.ssl, TLSEXT_NAMETYPE_host_name)
        return None if name == NULL else <bytes>name

    @property
    def alpn(self) -> bytes | None:
        """The protocol agreed on (RFC 7301)."""
        self._check_open()
        cdef const unsigned char* protocol
        cdef unsigned int length
        SSL_get0_alpn_selected(self.ssl, &protocol, &length)
        return None if length == 0 else PyBytes_FromStringAndSize(<const char*>protocol, length)

    @property
    def resumed(self) -> bool:
        self._check_open()
        return SSL_session_reused(self.ssl) == 1

    @property
    def own_certificate(self) -> bytes | None:
        """The certificate we showed, in DER."""
        self._check_open()
        cdef X509* certificate = SSL_get_certificate(self.ssl)
        return None if certificate == NULL else _der(certificate)

    @property
    def peer_certificate(self) -> bytes | None:
        """The client's certificate in DER; verified, or the handshake would have failed."""
        self._check_open()
        cdef X509* certificate = SSL_get1_peer_certificate(self.ssl)
        if certificate == NULL:
            return None
        try:
            return _der(certificate)
        finally:
            X509_free(certificate)

    # Inside.

    cdef bint may_resume(self, SSL_SESSION* session) noexcept:
        """Whether a session that the client has shown, and we have made, is good now and here.

        OpenSSL looks at some of this, too; but it does not say what it found.
        """
        cdef X509* peer = SSL_SESSION_get0_peer(session)
        cdef long long made = SSL_SESSION_get_time(session), now = time(NULL)
        cdef unsigned int length
        cdef const unsigned char* group = SSL_SESSION_get0_id_context(session, &length)
        self.miss = _NOT_ACCEPTED  # until OpenSSL has resumed it
        self.ticket_age = max(0, now - made)
        if self.context is None or length != len(self.context.session_id_context) or memcmp(
                group, <const char*>self.context.session_id_context, length) != 0:
            self.miss = _OTHER_GROUP
        elif SSL_SESSION_get_protocol_version(session) != SSL_version(self.ssl):
            self.miss = _OTHER_VERSION
        elif (now >= made + min(SSL_SESSION_get_timeout(session), self.context.lifetime)
                or made > now + SKEW_MAX):  # the clock has been set back
            self.miss = _EXPIRED
        elif peer != NULL and X509_cmp_current_time(X509_get0_notAfter(peer)) <= 0:
            self.miss = _CLIENT_CERTIFICATE_EXPIRED
        elif not self._offers_cipher_of(session):
            return False
        return self.miss == _NOT_ACCEPTED

    cdef bint _offers_cipher_of(self, SSL_SESSION* session) noexcept:
        """OpenSSL breaks a TLS 1.2 handshake off when the client resumes without offering the session's
        cipher suite.  In TLS 1.3 it is chosen anew."""
        cdef const SSL_CIPHER* cipher = SSL_SESSION_get0_cipher(session)
        cdef unsigned char* offered
        cdef long length, at
        cdef unsigned int number
        if SSL_version(self.ssl) == TLS1_3_VERSION:
            return True
        if cipher == NULL:
            return False
        number = SSL_CIPHER_get_protocol_id(cipher)
        # Of the ClientHello OpenSSL has read the list by now, and SSL_client_hello_get0_ciphers has none.
        length = SSL_get0_raw_cipherlist(self.ssl, &offered)
        for at in range(0, length - 1, 2):
            if (offered[at] << 8 | offered[at + 1]) == number:
                return True
        return False

    cdef int _check_open(self) except _RAISED:
        if self.ssl == NULL:
            raise ValueError("the connection is closed")
        if self.in_client_hello:
            raise RuntimeError("called inside the connection's own callback")
        return 0

    cdef int _check_usable(self) except _RAISED:
        """For what asks SSL_get_error() how it went."""
        self._check_open()
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
        if error == SSL_ERROR_WANT_CLIENT_HELLO_CB:
            return _HELLO
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

    cdef bint _has_session_to_offer(self) noexcept:
        """A PSK (RFC 8446 §4.2.11), a ticket (RFC 5077 §3.2), or, of a client without TLS 1.3, a session
        id: the others' ids mean nothing (RFC 8446 §4.1.2)."""
        cdef const unsigned char* body
        cdef size_t length
        if SSL_client_hello_get0_ext(self.ssl, PRE_SHARED_KEY, &body, &length) == 1:
            return True
        if SSL_client_hello_get0_ext(self.ssl, SESSION_TICKET, &body, &length) == 1 and length > 0:
            return True
        if SSL_client_hello_get0_ext(self.ssl, SUPPORTED_VERSIONS, &body, &length) == 1:
            return False
        return SSL_client_hello_get0_session_id(self.ssl, &body) > 0

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
