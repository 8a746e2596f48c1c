"""Certificates that name an OCSP responder, responses of every kind, and clients that ask for one."""

from __future__ import annotations

import _ssl
import ctypes
import http.server
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from termproxy.tls.certificates import Certificate, parse_certificate
from tests.support.pki import LONG, SKEW, Issued, now
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, wait_until

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

OCSP_SIGNING = ExtendedKeyUsageOID.OCSP_SIGNING
GOOD, REVOKED, UNKNOWN = (
    ocsp.OCSPCertStatus.GOOD,
    ocsp.OCSPCertStatus.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN,
)

DAY = timedelta(days=1)


def this_second() -> datetime:
    """Now, as precisely as a certificate or a response can tell it."""
    return now().replace(microsecond=0)


def a_key(kind: str) -> SigningKey:
    match kind:
        case "rsa":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ecdsa":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def digest_for(key: SigningKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


class Issuer:
    """A root that issues what names a responder, and may answer for it."""

    def __init__(
        self, name: str = "an issuer", *, kind: str = "ecdsa", key: SigningKey | None = None
    ) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = key or a_key(kind)
        builder = x509.CertificateBuilder(
            self.name, self.name, self.key.public_key(), 1, now() - LONG, now() + LONG
        ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self.key, digest_for(self.key))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def issue(
        self,
        name: str = "site.test",
        *,
        responder: str | Sequence[x509.AccessDescription] | None = "http://ocsp.test/",
        usage: x509.ObjectIdentifier | None = None,
        serial: int | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
        more: Sequence[x509.ExtensionType] = (),
    ) -> Issued:
        """A leaf, with our certificate behind it."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateBuilder(
            issuer_name=self.name,
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            public_key=key.public_key(),
            serial_number=serial or x509.random_serial_number(),
            not_valid_before=not_before or now() - SKEW,
            not_valid_after=not_after or now() + LONG,
        ).add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        if isinstance(responder, str):
            responder = [ocsp_at(responder)]
        if responder is not None:
            access = x509.AuthorityInformationAccess(responder)
            builder = builder.add_extension(access, critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return Issued(builder.sign(self.key, digest_for(self.key)), key, (self.certificate,))


def ocsp_at(url: str) -> x509.AccessDescription:
    return x509.AccessDescription(
        AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
    )


def as_certificate(issued: Issued, file: str = "site.pem") -> Certificate:
    """As from a file, without one."""
    return parse_certificate(Path(file), Path(file), issued.chain, issued.key)


def respond(
    leaf: Issued,
    issuer: Issuer,
    *,
    status: ocsp.OCSPCertStatus = GOOD,
    this_update: datetime | None = None,
    next_update: datetime | None = None,
    has_end: bool = True,
    signer: Issued | Issuer | None = None,
    shows: Sequence[x509.Certificate] = (),
    algorithm: hashes.HashAlgorithm | None = None,
) -> bytes:
    """A response about `leaf`, in DER: signed by `signer`, with the certificates that it `shows`."""
    this_update = this_update or this_second() - SKEW
    end = (next_update or this_update + DAY) if has_end else None
    signer = signer or issuer
    key = signer.private_key if isinstance(signer, Issued) else signer.key
    is_revoked = status is REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf.certificate,
        issuer=issuer.certificate,
        algorithm=algorithm or hashes.SHA1(),  # noqa: S303 - what everybody names certificates with
        cert_status=status,
        this_update=this_update,
        next_update=end,
        revocation_time=this_update if is_revoked else None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if shows:
        builder = builder.certificates(list(shows))
    return builder.sign(key, digest_for(key)).public_bytes(Encoding.DER)


# Responders.


class HttpServer:
    """Answers on 127.0.0.1 with what `behave` does to the handler of each request; keeps them all."""

    def __init__(self, behave: Callable[[http.server.BaseHTTPRequestHandler, bytes], None]) -> None:
        self.requests: list[bytes] = []
        self.paths: list[str] = []
        self.over = threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.paths.append(self.path)
                owner.requests.append(body)
                try:
                    behave(self, body)
                except ConnectionError:
                    pass  # whoever asked has had enough

            do_GET = do_POST  # noqa: N815 - http.server's way

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


def saying(
    body: bytes, status: int = 200
) -> Callable[[http.server.BaseHTTPRequestHandler, bytes], None]:
    """The same answer for everybody."""

    def behave(handler: http.server.BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/ocsp-response")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


class OpensslResponder:
    """`openssl ocsp`, answering for an issuer; `revoke` and `restart` as an authority would."""

    def __init__(self, folder: Path, issuer: Issuer) -> None:
        self.folder = folder / "responder"
        self.folder.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._index = self.folder / "index.txt"
        self._index.touch()
        (self.folder / "ca.pem").write_bytes(issuer.pem)
        (self.folder / "ca.key").write_bytes(issuer.key_pem)
        self._said = self.folder / "said"
        self._process: subprocess.Popen[bytes] | None = None

    def know(self, issued: Issued, *, revoked: bool = False) -> None:
        """Say from the next start on that a certificate is good, or revoked."""
        serial = f"{issued.certificate.serial_number:X}"
        serial = serial.zfill(len(serial) + len(serial) % 2)
        lines = [line for line in self._index.read_text().splitlines() if serial not in line]
        end = "491231235959Z"
        when = f"{now() - SKEW:%y%m%d%H%M%SZ}" if revoked else ""
        lines.append(f"{'R' if revoked else 'V'}\t{end}\t{when}\t{serial}\tunknown\t/CN={serial}")
        self._index.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        command = ["openssl", "ocsp", "-port", str(self.port), "-index", str(self._index), "-ndays", "3"]
        command += ["-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key"]
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        wait_until(self._listens, "openssl ocsp listens")

    def _listens(self) -> bool:
        """Without connecting: it would take that for a question."""
        tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
        return re.search(rf":{self.port:04X} [0-9A-F:]+ 0A ", tables) is not None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


# Clients.  Python's ssl can neither ask for a status nor tell what came; the OpenSSL below it can.

_SET_STATUS_TYPE, _GET_RESPONSE = 65, 70  # SSL_CTRL_…
_TYPE_OCSP = 1

_libssl = ctypes.CDLL(getattr(_ssl, "__file__", None))
_libssl.SSL_ctrl.restype = _libssl.SSL_CTX_callback_ctrl.restype = ctypes.c_long
_libssl.SSL_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]


def asking(tls: ssl.SSLObject | ssl.SSLSocket) -> None:
    """Have it ask for a status; before its handshake."""
    assert _libssl.SSL_ctrl(_ssl_of(tls), _SET_STATUS_TYPE, _TYPE_OCSP, None) == 1


def staple_shown_to(tls: ssl.SSLObject | ssl.SSLSocket) -> bytes | None:
    """What the server stapled, in DER; after the handshake."""
    response = ctypes.c_void_p()
    length = _libssl.SSL_ctrl(_ssl_of(tls), _GET_RESPONSE, 0, ctypes.byref(response))
    return None if length < 0 or not response else ctypes.string_at(response, length)


def _ssl_of(tls: Any) -> ctypes.c_void_p:
    """The SSL* in CPython's PySSLSocket: a weak reference to the socket, and then this."""
    header = object.__basicsize__
    return ctypes.c_void_p.from_address(id(tls._sslobj) + header + ctypes.sizeof(ctypes.c_void_p))


def staple_at(
    port: int,
    *,
    name: str = "site.test",
    version: ssl.TLSVersion | None = None,
    ciphers: str | None = None,
) -> tuple[bytes | None, bytes]:
    """Ask a server: the staple, in DER, and the certificate that it shows, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if ciphers is not None:
        context.set_ciphers(ciphers)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False) as tls,
    ):
        asking(tls)
        tls.do_handshake()
        certificate = tls.getpeercert(binary_form=True)
        assert certificate is not None
        return staple_shown_to(tls), certificate


def s_client(port: int, *options: str, name: str = "site.test") -> str:
    """What `openssl s_client -status` finds."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, "-status"]
    done = subprocess.run(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout.decode(errors="replace")
