"""What all servers serve: throw-away certificates, and files."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

KEYS = {
    "ecdsa": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("rsa:2048",),
}
FILES = {"10k": 10 * 1024, "100k": 100 * 1024, "1m": 1024 * 1024}


@dataclass(frozen=True, slots=True)
class Certificate:
    """For 127.0.0.1; `pem` holds chain and key together, or is a folder of such files."""

    chain: Path
    key: Path
    pem: Path
    # Who signed it, if not itself.
    authority: Path | None = None
    # What clients ask for.
    names: tuple[str, ...] = ()

    @property
    def trust(self) -> Path:
        """What a client verifies it with."""
        return self.authority or self.chain


@dataclass(frozen=True, slots=True)
class Site:
    directory: Path
    certificates: dict[str, Certificate]


def make_site(directory: Path) -> Site:
    # Peers give up root before they serve, so they must be able to look inside.
    directory.chmod(0o755)
    www = directory / "www"
    www.mkdir()
    for name, size in FILES.items():
        (www / name).write_bytes(b"x" * size)
    return Site(directory, {kind: make_certificate(directory, kind) for kind in KEYS})


def make_certificate(directory: Path, kind: str) -> Certificate:
    chain, key, pem = (directory / f"{kind}.{suffix}" for suffix in ("crt", "key", "pem"))
    made = Certificate(chain, key, pem)
    request = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", *KEYS[kind]]
    # hitch 1.7 ends its worker when a client names a host and no certificate has a DNS name.
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.chain)]
    subprocess.run([*request, *names, *files], check=True, capture_output=True)
    made.pem.touch(mode=0o600)
    made.pem.write_text(made.chain.read_text() + made.key.read_text())
    return made
