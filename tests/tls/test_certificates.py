"""Each refusal says what is wrong and what would be right, and none shows what a file holds."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from termproxy.tls.certificates import (
    FILE_MAX,
    Certificate,
    CertificateError,
    Finding,
    find_files,
    load_certificate,
    parse_certificate,
)
from termproxy.tls.context import Policy, build_context
from tests.support.tls import Pair, authority, client_context, site
from tests.tls.pki import Issued, an_authority, issue, loaded, write

CHAIN, KEY = site().chain, site().key
BROKEN_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAAc2VjcmV0\n-----END PRIVATE KEY-----\n"
BROKEN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def key_as(form: PrivateFormat, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return load_pem_private_key(KEY, None).private_bytes(Encoding.PEM, form, encryption)


def new_key(kind: type[ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey]) -> bytes:
    return kind.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


ENCRYPTED = [key_as(form, b"secret") for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)]


@pytest.fixture
def chain_file(tmp_path: Path) -> Path:
    return tmp_path / "site.crt"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "site.key"


def serves(certificate: Certificate) -> bool:
    """Whether a client that verifies is content with it."""
    with Pair(build_context([certificate], Policy())) as pair:
        return pair.handshake().client.handshaken


def refusal(chain_file: Path, key_file: Path | None = None) -> CertificateError:
    with pytest.raises(CertificateError) as error:
        load_certificate(chain_file, key_file)
    return error.value


# What serves.


def test_the_key_may_stand_beside_the_chain(chain_file: Path, key_file: Path) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(KEY)
    certificate = load_certificate(chain_file, key_file)
    assert (certificate.chain_file, certificate.key_file) == (chain_file, key_file)
    assert serves(certificate)


@pytest.mark.parametrize("content", [CHAIN + KEY, KEY + CHAIN])
def test_the_key_may_stand_in_the_chains_file(chain_file: Path, content: bytes) -> None:
    chain_file.write_bytes(content)
    certificate = load_certificate(chain_file)
    assert certificate.key_file == chain_file
    assert serves(certificate)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_the_key_may_be_of_either_form(chain_file: Path, key_file: Path, form: PrivateFormat) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(key_as(form))
    assert serves(load_certificate(chain_file, key_file))


def test_the_text_around_the_pem_is_passed_over(chain_file: Path) -> None:
    """As `openssl x509 -text` and Windows editors leave it."""
    chain_file.write_bytes(b"subject=CN = a.test\r\n" + (KEY + CHAIN).replace(b"\n", b"\r\n"))
    assert serves(load_certificate(chain_file))


def test_an_intermediate_is_shown_to_the_client(chain_file: Path) -> None:
    """The client knows the root only."""
    leaf = authority().create_child_ca().issue_cert("a.test", key_type=trustme.KeyType.ECDSA)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    assert chain.count(b"BEGIN CERTIFICATE") == 2
    chain_file.write_bytes(chain + leaf.private_key_pem.bytes())
    assert serves(load_certificate(chain_file))


# What does not.


@pytest.mark.parametrize("missing", ["site.crt", "site.key"])
def test_a_file_that_is_not_there(chain_file: Path, key_file: Path, missing: str) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(KEY)
    (chain_file.parent / missing).unlink()
    error = refusal(chain_file, key_file)
    assert str(error) == f"cannot read {chain_file.parent / missing}: No such file or directory"
    assert error.cure == "name a PEM file that the starting user may read"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert str(refusal(tmp_path)) == f"cannot read {tmp_path}: Is a directory"


def test_a_file_that_goes_on_and_on_is_not_read_to_its_end() -> None:
    error = refusal(Path("/dev/zero"))
    assert str(error) == f"/dev/zero is larger than {FILE_MAX} bytes"
    assert error.cure == "name a PEM file"


@pytest.mark.parametrize("content", [b"", b"hello", KEY, BROKEN_CERTIFICATE, CHAIN + BROKEN_CERTIFICATE])
def test_a_chain_without_a_whole_certificate(chain_file: Path, content: bytes) -> None:
    chain_file.write_bytes(content)
    error = refusal(chain_file)
    assert str(error) == f"{chain_file} holds no readable certificate"
    assert error.cure == 'expected PEM text with "-----BEGIN CERTIFICATE-----"'


def test_a_chain_without_a_key_beside_it(chain_file: Path) -> None:
    chain_file.write_bytes(CHAIN)
    error = refusal(chain_file)
    assert str(error) == f"{chain_file} holds no private key"
    assert error.cure.endswith("; name its key with --key, or { chain = …, key = … }")


def test_a_key_file_without_a_key(chain_file: Path, key_file: Path) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(CHAIN)
    error = refusal(chain_file, key_file)
    assert str(error) == f"{key_file} holds no private key"
    assert error.cure == 'expected PEM text with "-----BEGIN PRIVATE KEY-----"'


@pytest.mark.parametrize("content", ENCRYPTED)
def test_an_encrypted_key(chain_file: Path, key_file: Path, content: bytes) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(content)
    error = refusal(chain_file, key_file)
    assert str(error) == f"the key in {key_file} is encrypted"
    assert "openssl pkey" in error.cure


@pytest.mark.parametrize(
    "content",
    [BROKEN_KEY, KEY[:-40], KEY[:60] + b"-----END PRIVATE KEY-----\n"],
    ids=["no key inside", "no end", "cut short"],
)
def test_a_damaged_key(chain_file: Path, key_file: Path, content: bytes) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(content)
    error = refusal(chain_file, key_file)
    assert str(error) == f"the private key in {key_file} cannot be read"
    assert error.cure == "make it anew, or export it as PKCS#8 PEM"


@pytest.mark.parametrize(
    "other",
    [
        site("b.test").key,
        site("b.test", trustme.KeyType.RSA).key,
        new_key(ed25519.Ed25519PrivateKey),
        new_key(x25519.X25519PrivateKey),
    ],
)
def test_a_key_of_another_certificate(chain_file: Path, key_file: Path, other: bytes) -> None:
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(other)
    error = refusal(chain_file, key_file)
    assert str(error) == f"the key in {key_file} is not the key of the certificate in {chain_file}"
    assert error.cure == "name the key that the certificate was issued for"


# Where the key is.


@pytest.mark.parametrize("name", ["site.key", "site.key.pem"])
@pytest.mark.parametrize("chain", ["site.crt", "site.pem", "site.cer", "site"])
def test_a_key_beside_its_chain_is_found(tmp_path: Path, chain: str, name: str) -> None:
    write(tmp_path / chain, CHAIN)
    write(tmp_path / name, KEY)
    assert load_certificate(tmp_path / chain).key_file == tmp_path / name


def test_a_key_in_the_chains_file_comes_before_one_beside_it(tmp_path: Path) -> None:
    file = write(tmp_path / "site.pem", CHAIN, KEY)
    write(tmp_path / "site.key", site("b.test").key)
    assert load_certificate(file).key_file == file


def test_a_key_that_is_named_comes_before_all_others(tmp_path: Path) -> None:
    file = write(tmp_path / "site.pem", CHAIN, site("b.test").key)
    write(tmp_path / "site.key", site("b.test").key)
    named = write(tmp_path / "elsewhere", KEY)
    assert load_certificate(file, named).key_file == named


def test_a_key_beside_that_is_of_another_is_refused_and_named(tmp_path: Path) -> None:
    file = write(tmp_path / "site.crt", CHAIN)
    beside = write(tmp_path / "site.key", site("b.test").key)
    assert str(refusal(file)) == (f"the key in {beside} is not the key of the certificate in {file}")


def test_a_key_is_found_beside_a_chain_whose_name_is_a_domain(tmp_path: Path) -> None:
    """Not that of another domain: www.example.com's key is not www.example.key."""
    write(tmp_path / "www.example.com", CHAIN)
    write(tmp_path / "www.example.com.key", KEY)
    assert load_certificate(tmp_path / "www.example.com").key_file.name == "www.example.com.key"


# Names.


def names(*given: str, common: str = "cn.test") -> tuple[str, ...]:
    return loaded(issue(common, *given)).names


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a.test", "a.test"),
        ("A.Test", "a.test"),
        ("a.test.", "a.test"),
        ("*.A.test.", "*.a.test"),
        ("*.a.test", "*.a.test"),
        ("xn--mnchen-3ya.test", "xn--mnchen-3ya.test"),
        ("XN--MNCHEN-3YA.test", "xn--mnchen-3ya.test"),
        ("_a.test", "_a.test"),
        ("localhost", "localhost"),
    ],
)
def test_a_name_is_as_clients_ask_for_it(given: str, name: str) -> None:
    assert names(given) == (name,)


@pytest.mark.parametrize(
    "given",
    [
        "*",
        "*.",
        "**.a.test",
        "a.*.test",
        "a*.test",
        "*.*.test",
        "a b",
        "192.0.2.1",
        "*.192.0.2.1",
        "::1",
        ".a.test",
        "a..test",
        "-a.test",
        "a" * 64 + ".test",
        "a.test\x00.b.test",
    ],
)
def test_a_name_that_no_client_can_ask_for_is_passed_over(given: str) -> None:
    assert names(given, "b.test") == ("b.test",)


def test_a_common_name_is_no_name() -> None:
    """RFC 9525 §6.2."""
    assert names() == ()
    assert names("a.test", common="b.test") == ("a.test",)


def test_a_certificate_without_names_serves(tmp_path: Path) -> None:
    issued = issue("a.test")
    assert load_certificate(write(tmp_path / "site.pem", issued.pem, issued.key_pem)).names == ()


def test_what_is_known_of_a_certificate_is_read_from_it() -> None:
    issued = issue("leaf", "a.test", by=an_authority(), key="rsa")
    certificate = loaded(issued)
    assert (certificate.issuer, certificate.key_type) == ("Tests' root", "rsa")
    assert certificate.leaf_der == issued.der
    assert certificate.not_after == issued.certificate.not_valid_after_utc


@pytest.mark.parametrize("key", ["ecdsa", "rsa", "ed25519"])
def test_the_type_of_the_key_is_told(key: str) -> None:
    assert loaded(issue("a", "a.test", key=key)).key_type == key


@pytest.mark.parametrize(
    ("key", "curve"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "secp256r1"),
        (ec.generate_private_key(ec.SECP384R1()), "secp384r1"),
        ("rsa", None),
        ("ed25519", None),
    ],
)
def test_the_curve_of_an_ecdsa_key_is_told(
    key: str | ec.EllipticCurvePrivateKey, curve: str | None
) -> None:
    assert loaded(issue("a", "a.test", key=key)).curve == curve


def test_an_issuer_without_a_common_name_is_told_whole() -> None:
    assert loaded(issue("", "a.test")).issuer == ""


# The chain.

ROOT = an_authority()
UPPER = issue("upper", by=ROOT, is_authority=True)
LOWER = issue("lower", by=UPPER, is_authority=True)
LEAF = issue("leaf", "a.test", by=LOWER)
IN_ORDER = [LEAF.pem, LOWER.pem, UPPER.pem]
STRANGER = issue("stranger", "b.test")


def parsed(*pems: bytes, key: bytes = LEAF.key_pem) -> Certificate:
    return parse_certificate(Path("chain"), Path("key"), b"".join(pems), key)


def told(certificate: Certificate) -> list[str]:
    return [finding.what for finding in certificate.findings]


def test_a_chain_in_order_is_sent_as_it_is() -> None:
    certificate = parsed(*IN_ORDER)
    assert certificate.chain == b"".join(IN_ORDER)
    assert certificate.findings == ()


def test_a_root_at_the_end_is_sent_too() -> None:
    assert parsed(*IN_ORDER, ROOT.pem).chain == b"".join([*IN_ORDER, ROOT.pem])
    assert parsed(*IN_ORDER, ROOT.pem).findings == ()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[1:])
def test_a_shuffled_chain_is_repaired_and_told(order: tuple[int, ...]) -> None:
    certificate = parsed(*(IN_ORDER[index] for index in order))
    assert certificate.chain == b"".join(IN_ORDER)
    assert told(certificate) == ["the certificates are not in the order of the chain"]


def test_a_shuffled_chain_satisfies_a_client(tmp_path: Path) -> None:
    leaf = authority().create_child_ca().issue_cert("a.test", key_type=trustme.KeyType.ECDSA)
    first, second = (pem.bytes() for pem in leaf.cert_chain_pems)
    assert serves(parsed(second, first, key=leaf.private_key_pem.bytes()))


@pytest.mark.parametrize("place", range(4))
def test_a_strangers_certificate_is_left_out_and_told(place: int) -> None:
    given = [*IN_ORDER]
    given.insert(place, STRANGER.pem)
    certificate = parsed(*given)
    assert certificate.chain == b"".join(IN_ORDER)
    assert "1 certificate(s) that are not of this chain" in told(certificate)


def test_a_certificate_that_stands_there_twice_is_sent_once() -> None:
    certificate = parsed(LEAF.pem, LEAF.pem, LOWER.pem, UPPER.pem)
    assert certificate.chain == b"".join(IN_ORDER)
    assert certificate.findings


def test_a_missing_intermediate_is_told() -> None:
    assert told(parsed(LEAF.pem)) == [
        "no intermediate certificate, though it was issued by one or by a root"
    ]
    assert parsed(LEAF.pem).chain == LEAF.pem


def test_a_gap_in_the_chain_is_told() -> None:
    assert told(parsed(LEAF.pem, LOWER.pem)) == []  # the root may have issued the last one
    assert len(told(parsed(LEAF.pem, UPPER.pem))) == 2
    assert parsed(LEAF.pem, UPPER.pem).chain == LEAF.pem


def test_a_self_signed_certificate_misses_nothing() -> None:
    assert loaded(STRANGER).findings == ()


def test_an_authoritys_namesake_is_not_taken_for_it() -> None:
    namesake = issue("lower", by=UPPER, is_authority=True)
    certificate = parsed(LEAF.pem, namesake.pem, LOWER.pem, UPPER.pem)
    assert certificate.chain == b"".join(IN_ORDER)


def test_two_that_issued_each_other_end_somewhere() -> None:
    one = issue("one", is_authority=True)
    other = issue("other", by=one, is_authority=True)
    crossed = issue("one", by=other, key=one.key, is_authority=True)
    leaf = issue("leaf", "a.test", by=one)
    certificate = parsed(leaf.pem, crossed.pem, other.pem, key=leaf.key_pem)
    assert certificate.chain.count(b"BEGIN") == 3


@pytest.mark.parametrize("damage", [b"AAAA", b"!!!!", b"", b"MIIB"])
@pytest.mark.parametrize("place", range(3))
def test_a_damaged_certificate_anywhere_refuses_the_file(place: int, damage: bytes) -> None:
    """Left out in silence, only clients would have noticed."""
    given = [*IN_ORDER]
    given[place] = b"-----BEGIN CERTIFICATE-----\n" + damage + b"\n-----END CERTIFICATE-----\n"
    with pytest.raises(CertificateError) as error:
        parsed(*given)
    assert error.value.cure


def test_another_intermediate_makes_another_certificate() -> None:
    """Workers are sent what has changed, by this digest."""
    with_root, without = parsed(*IN_ORDER, ROOT.pem), parsed(*IN_ORDER)
    assert with_root.sha256 == without.sha256
    assert with_root.chain_sha256 != without.chain_sha256
    assert parsed(*reversed(IN_ORDER)).chain_sha256 == without.chain_sha256


# What should not stay as it is.


def weaknesses(issued: Issued) -> list[str]:
    return [str(finding) for finding in loaded(issued, root=[ROOT]).findings]


def signed_by_openssl(folder: Path, digest: str, by: Issued | None = None) -> Certificate:
    """With a digest that cryptography signs nothing with any more; the issuer's stands behind it."""
    own = issue("old", "a.test")
    key = write(folder / "key", own.key_pem)
    request = ["openssl", "req", "-new", "-subj", "/CN=old", "-key", str(key)]
    sign = ["openssl", "x509", "-req", f"-{digest}", "-days", "9"]
    if by is None:
        sign += ["-signkey", str(key)]
    else:
        sign += [
            "-CA",
            str(write(folder / "ca", by.pem)),
            "-CAkey",
            str(write(folder / "k", by.key_pem)),
        ]
    asked = subprocess.run(request, capture_output=True, check=True).stdout
    issued = subprocess.run(sign, input=asked, capture_output=True, check=True).stdout
    return parsed(issued, by.pem if by is not None else b"", key=own.key_pem)


def test_a_weak_digest_is_told(tmp_path: Path) -> None:
    findings = map(str, signed_by_openssl(tmp_path, "sha1", ROOT).findings)
    assert "CN=old is signed with SHA1; have it issued anew" in findings


def test_a_weak_digest_does_not_break_the_chain(tmp_path: Path) -> None:
    """It served before, with its intermediate, and must go on until it is issued anew."""
    certificate = signed_by_openssl(tmp_path, "sha1", ROOT)
    assert certificate.chain.count(b"BEGIN CERTIFICATE") == 2
    assert len(certificate.findings) == 1


def test_a_weak_digest_on_a_root_proves_nothing_and_is_not_told(tmp_path: Path) -> None:
    assert signed_by_openssl(tmp_path, "sha1").findings == ()


def test_a_short_rsa_key_is_told() -> None:
    (what,) = weaknesses(issue("short", "a.test", by=ROOT, key="rsa1024"))
    assert what == "an RSA key of 1024 bits; use 2048 bits, or ECDSA P-256"
    assert weaknesses(issue("long", "a.test", by=ROOT, key="rsa2048")) == []


@pytest.mark.parametrize(
    ("mode", "who"),
    [(0o640, "its group"), (0o644, "everyone"), (0o604, "everyone"), (0o600, None), (0o400, None)],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_key_that_others_may_read_is_told(
    tmp_path: Path, mode: int, who: str | None, *, beside: bool
) -> None:
    chain = write(tmp_path / "site.crt", LEAF.chain, b"" if beside else LEAF.key_pem)
    key = write(tmp_path / "site.key", LEAF.key_pem) if beside else chain
    key.chmod(mode)
    findings = load_certificate(chain).findings
    if who is None:
        assert findings == ()
    else:
        assert findings == (Finding(f"the key file {key} can be read by {who}", f"chmod 600 {key}"),)


# Certificates that only just can be read.


def altered(issued: Issued, old: bytes, new: bytes) -> bytes:
    der = issued.der
    assert old in der
    return pem_of_der(der.replace(old, new))


def pem_of_der(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


ECDSA_WITH_SHA256 = bytes.fromhex("06082a8648ce3d040302")
AN_UNKNOWN_ALGORITHM = bytes.fromhex("06082a8648ce3d04037f")
P256 = bytes.fromhex("06082a8648ce3d030107")
AN_UNKNOWN_CURVE = bytes.fromhex("06082a8648ce3d03017f")
BASIC_CONSTRAINTS, ALTERNATIVE_NAMES = bytes.fromhex("0603551d13"), bytes.fromhex("0603551d11")

ODD = {
    "an unknown signature": altered(STRANGER, ECDSA_WITH_SHA256, AN_UNKNOWN_ALGORITHM),
    "an extension twice": altered(STRANGER, BASIC_CONSTRAINTS, ALTERNATIVE_NAMES),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_certificate_serves_or_is_refused(odd: str) -> None:
    with contextlib.suppress(CertificateError):
        parsed(ODD[odd], key=STRANGER.key_pem)


def test_an_odd_intermediate_is_left_out_or_refused() -> None:
    """As the cross-certificates of post-quantum roots will be for a while."""
    odd = altered(LOWER, ECDSA_WITH_SHA256, AN_UNKNOWN_ALGORITHM)
    with contextlib.suppress(CertificateError):
        parsed(LEAF.pem, odd)


def test_a_key_of_an_unknown_kind_beside_ours_is_left_out_or_refused() -> None:
    odd = altered(STRANGER, P256, AN_UNKNOWN_CURVE)
    with contextlib.suppress(CertificateError):
        parsed(odd, *IN_ORDER)


# Files.


def found(pattern: Path) -> list[str]:
    return [file.name for file in find_files(pattern)]


def fill(folder: Path, *file_names: str) -> None:
    for name in file_names:
        (folder / name).touch()


def test_a_file_is_itself_whether_it_exists_or_not(tmp_path: Path) -> None:
    assert find_files(tmp_path / "none.pem") == [tmp_path / "none.pem"]


def test_of_a_folder_the_chains_are_taken_in_order(tmp_path: Path) -> None:
    fill(tmp_path, "b.pem", "a.crt", "c.cer", "a.key", "b.key.pem", "README", "d.pem~", "e.csr")
    (tmp_path / "folder.pem").mkdir()
    assert found(tmp_path) == ["a.crt", "b.pem", "c.cer"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.pem", ["a.pem", "b.pem"]),
        ("?.pem", ["a.pem", "b.pem"]),
        ("[ab].crt", ["a.crt"]),
        ("*", ["a.crt", "a.pem", "b.pem"]),
        ("a.*", ["a.crt", "a.pem"]),
    ],
)
def test_of_a_glob_all_but_keys_are_taken_in_order(
    tmp_path: Path, pattern: str, names: list[str]
) -> None:
    fill(tmp_path, "b.pem", "a.pem", "a.crt", "a.key", "c.key.pem")
    assert found(tmp_path / pattern) == names


def test_of_a_glob_a_folder_is_no_chain(tmp_path: Path) -> None:
    """Kubernetes keeps `..data` beside the files."""
    fill(tmp_path, "a.pem")
    (tmp_path / "..data").mkdir()
    assert found(tmp_path / "*") == ["a.pem"]


@pytest.mark.parametrize(
    ("pattern", "cure"),
    [("", "put files that end in .pem, .crt, .cer there"), ("*.pem", "name files that exist")],
)
def test_where_there_is_no_chain_it_is_told(tmp_path: Path, pattern: str, cure: str) -> None:
    fill(tmp_path, "a.key")
    with pytest.raises(CertificateError) as error:
        find_files(tmp_path / pattern)
    assert str(error.value) == f"no certificate in {tmp_path / pattern}"
    assert error.value.cure == cure


def test_a_glob_in_a_folder_that_is_not_there_finds_nothing(tmp_path: Path) -> None:
    with pytest.raises(CertificateError):
        find_files(tmp_path / "none" / "*.pem")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    with pytest.raises(CertificateError):
        find_files(tmp_path)


def test_a_folder_that_goes_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Path) -> list[Path]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "iterdir", gone)
    with pytest.raises(CertificateError):
        find_files(tmp_path)


# What is never shown.


@pytest.mark.parametrize("content", [*ENCRYPTED, BROKEN_KEY, KEY[:-40], site("b.test").key])
def test_no_error_shows_what_a_key_file_holds(chain_file: Path, key_file: Path, content: bytes) -> None:
    """Nor does a traceback: the library's own exception is not chained."""
    chain_file.write_bytes(CHAIN)
    key_file.write_bytes(content)
    error = refusal(chain_file, key_file)
    told = f"{error} {error.cure} {error!r} {error.__dict__}"
    secrets = [line for line in content.decode().splitlines() if line and not line.startswith("-----")]
    assert not any(secret in told for secret in secrets)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


def test_the_repr_shows_the_files_and_not_what_they_hold(chain_file: Path) -> None:
    chain_file.write_bytes(CHAIN + KEY)
    shown = repr(load_certificate(chain_file))
    assert str(chain_file) in shown
    assert "BEGIN" not in shown


# Validity.

YEAR_2030 = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def of_january_2030(chain_file: Path) -> Certificate:
    leaf = authority().issue_cert(
        "a.test",
        key_type=trustme.KeyType.ECDSA,
        not_before=YEAR_2030,
        not_after=datetime(2030, 2, 1, tzinfo=UTC),
    )
    leaf.private_key_and_cert_chain_pem.write_to_path(chain_file)
    return load_certificate(chain_file)


def test_a_certificate_inside_its_time_gives_no_warning(of_january_2030: Certificate) -> None:
    assert of_january_2030.validity_warning(YEAR_2030) is None
    assert of_january_2030.validity_warning(datetime(2030, 1, 31, 23, 59, tzinfo=UTC)) is None


def test_an_expired_certificate_is_warned_of_and_not_refused(of_january_2030: Certificate) -> None:
    warning = of_january_2030.validity_warning(datetime(2030, 2, 1, tzinfo=UTC))
    file = of_january_2030.chain_file
    assert warning == f"{file}: the certificate expired on 2030-02-01 00:00 UTC"


def test_a_certificate_not_yet_valid_is_warned_of(of_january_2030: Certificate) -> None:
    warning = of_january_2030.validity_warning(YEAR_2030 - timedelta(seconds=1))
    file = of_january_2030.chain_file
    assert warning == f"{file}: the certificate is not valid before 2030-01-01 00:00 UTC"


def test_a_client_refuses_what_is_warned_of(of_january_2030: Certificate) -> None:
    with Pair(build_context([of_january_2030], Policy()), client_context()) as pair:
        pair.greet()
        pair.server.handshake()
        pair.client.advance()
        assert "not yet valid" in str(pair.client.error)
