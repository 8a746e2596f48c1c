"""One configuration with all it names: refused whole, or ready for workers."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from termproxy.config.load import FlagSource
from termproxy.errors import ConfigError, StartError
from termproxy.master.generation import Checked, Generation, Site, User, build, check
from termproxy.tls.context import Stores
from tests.tls.pki import Issued, an_authority, issue, write

NOW = datetime.now(UTC)
UNPRIVILEGED = 4711

# A user that every machine has, and that is not root.
NOBODY = pwd.getpwnam("nobody")


def source(site: Path | str, **changes: Any) -> FlagSource:
    frontend = {
        "name": "web",
        "listen": ["127.0.0.1:8443", "[::1]:8443"],
        "cluster": "app",
        "certificates": [str(site)],
    }
    values = {
        "log": {"access": "off"},
        "frontend": [frontend],
        "cluster": {"app": {"servers": ["127.0.0.1:8080", "127.0.0.1:8081"]}},
        **changes,
    }
    flags: dict[tuple[str | int, ...], str] = {
        ("frontend", 0, "certificates"): "--cert",
        ("user",): "--user",
    }
    return FlagSource(values, flags)


def checked(source: FlagSource, *, uid: int = UNPRIVILEGED, now: datetime = NOW) -> Checked:
    return check(source, uid=uid, now=now, stores=Stores())


def problems(source: FlagSource, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        checked(source, **options)
    return [str(problem) for problem in refused.value.problems]


# What can serve.


def test_what_workers_inherit_is_made(site: Path) -> None:
    generation = build(checked(source(site)), 7)

    assert generation.number == 7
    (served,) = generation.sites
    frontend = served.assembly.frontend
    assert frontend.name == "web"
    assert frontend.default.cluster.name == "app"
    assert list(map(str, frontend.default.cluster.servers)) == ["127.0.0.1:8080", "127.0.0.1:8081"]
    assert [(f.name, str(address)) for f, address in generation.addresses()] == [
        ("web", "127.0.0.1:8443"),
        ("web", "[::1]:8443"),
    ]
    assert generation.access_log is None
    generation.close()


def test_two_frontends_of_one_cluster_share_its_turns(site: Path) -> None:
    values = source(site).values
    second = {**values["frontend"][0], "name": "b", "listen": ["127.0.0.1:9"]}
    one, other = checked(FlagSource({**values, "frontend": [values["frontend"][0], second]}, {})).sites

    assert one.assembly.frontend.default.cluster is other.assembly.frontend.default.cluster
    assert one.assembly.frontend.entry is not other.assembly.frontend.entry


def test_a_generation_owns_its_log(site: Path, tmp_path: Path) -> None:
    generation = build(checked(source(site, log={"access": str(tmp_path / "log")})), 1)
    assert generation.access_log is not None
    generation.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(generation.access_log.fd)


def test_a_log_that_cannot_be_opened_is_told_before_anything_is_forked(
    site: Path, tmp_path: Path
) -> None:
    ready = checked(source(site, log={"access": str(tmp_path / "none" / "log")}))
    with pytest.raises(StartError, match=r"log\.access"):
        build(ready, 1)


def test_checking_opens_no_log(site: Path, tmp_path: Path) -> None:
    """`termproxy check` changes nothing."""
    checked(source(site, log={"access": str(tmp_path / "log")}))

    assert not (tmp_path / "log").exists()


def test_a_generation_says_nothing_of_keys(site: Path) -> None:
    generation: Generation = build(checked(source(site)), 1)

    assert "PRIVATE KEY" not in repr(generation)


# Certificates.


def test_a_certificate_s_problem_has_where_and_cure(tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"

    (problem,) = problems(source(missing))
    assert problem == (
        f"--cert: cannot read {missing}: No such file or directory; "
        "name a PEM file that the starting user may read"
    )


def test_every_frontend_s_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    values = source(tmp_path / "none.pem").values
    second = {
        **values["frontend"][0],
        "name": "b",
        "listen": ["127.0.0.1:9"],
        "certificates": [str(tmp_path / "empty.pem")],
    }
    found = problems(FlagSource({**values, "frontend": [values["frontend"][0], second]}, {}))

    assert [problem.partition(":")[0] for problem in found] == [
        "frontend[0].certificates",
        "frontend[1].certificates",
    ]


def test_a_certificate_s_problem_is_told_beside_the_configuration_s(tmp_path: Path) -> None:
    found = problems(source(tmp_path / "none.pem", workers=0))

    assert len(found) == 2
    assert found[0].startswith("workers: ")
    assert found[1].startswith("--cert: cannot read")


def test_a_key_that_belongs_to_another_certificate_is_refused(site: Path, tmp_path: Path) -> None:
    other = trustme.CA().issue_cert("other.test")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    values = source(site).values
    frontend = {
        **values["frontend"][0],
        "certificates": [{"chain": str(site), "key": str(tmp_path / "other.key")}],
    }

    (problem,) = problems(FlagSource({**values, "frontend": [frontend]}, {}))
    assert "is not the key of the certificate" in problem


def test_a_certificate_outside_its_time_is_a_warning(site: Path) -> None:
    """Refusing to start would only make it worse."""
    late = checked(source(site), now=NOW + timedelta(days=365 * 1000))
    early = checked(source(site), now=NOW - timedelta(days=365 * 1000))

    assert "the certificate expired on" in late.warnings[0]
    assert "is not valid before" in early.warnings[0]
    assert checked(source(site)).warnings == ()


# Users.


def test_root_s_workers_become_the_user(site: Path) -> None:
    ready = checked(source(site, user="nobody"), uid=0)

    assert ready.user == User("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    assert ready.warnings == ()


def test_root_without_a_user_is_warned(site: Path) -> None:
    ready = checked(source(site), uid=0)

    assert ready.user is None
    assert ready.warnings == ("workers run as root: set `user` to a name without rights of its own",)


def test_a_user_who_does_not_exist_is_refused(site: Path) -> None:
    for uid in (0, UNPRIVILEGED):
        (problem,) = problems(source(site, user="no-such-user"), uid=uid)
        assert problem == (
            "--user: there is no user 'no-such-user'; "
            "name an existing user, or create it with `useradd --system`"
        )


def test_root_by_any_name_is_refused(site: Path) -> None:
    assert problems(source(site, user="root"), uid=0) == [
        "--user: 'root' is root again; name a user without rights"
    ]


def test_others_cannot_become_anyone_and_are_told(site: Path) -> None:
    ready = checked(source(site, user="nobody"), uid=UNPRIVILEGED)

    assert ready.user is None
    assert ready.warnings == ("user = 'nobody' has no effect: only root can become another user",)


def test_who_is_the_user_already_needs_no_warning(site: Path) -> None:
    ready = checked(source(site, user="nobody"), uid=NOBODY.pw_uid)

    assert (ready.user, ready.warnings) == (None, ())


def test_a_user_s_name_with_a_nul_is_refused(site: Path) -> None:
    assert problems(source(site, user="a\0b"))


# Renewal.


def made_site(folder: Path, **tls: Any) -> Site:
    values = source(folder).values
    values["frontend"][0]["tls"] = tls
    (made,) = checked(FlagSource(values, {})).sites
    return made


def written(file: Path, issued: Issued) -> None:
    write(file.with_name(f"{file.name}~"), issued.chain, issued.key_pem).replace(file)


def shown(made: Site) -> list[bytes]:
    return [certificate.leaf_der for certificate in made.assembly.certificates]


A, NEXT_A, CA = issue("a", "a.test"), issue("next", "a.test"), an_authority()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    certs = tmp_path / "certs"
    certs.mkdir()
    written(certs / "a.pem", A)
    return certs


def test_what_has_not_changed_is_not_shown_anew(folder: Path) -> None:
    made = made_site(folder)
    entry = made.assembly.frontend.entry
    for _ in range(3):
        assert made.renew(NOW) == ([], False)
    assert made.assembly.frontend.entry is entry


def test_a_renewed_certificate_is_shown(folder: Path) -> None:
    made = made_site(folder)
    written(folder / "a.pem", NEXT_A)

    assert made.renew(NOW) == ([], True)
    assert shown(made) == [NEXT_A.der]
    assert made.renew(NOW) == ([], False)


def test_a_bad_file_leaves_what_is_shown_and_is_told_once(folder: Path) -> None:
    made = made_site(folder)
    (folder / "a.pem").write_bytes(b"bad")
    problems, changed = made.renew(NOW)

    assert (len(problems), changed) == (1, False)
    assert shown(made) == [A.der]
    assert made.renew(NOW) == ([], False)


def test_what_openssl_refuses_leaves_what_is_shown_and_is_told_once(folder: Path) -> None:
    ca = write(folder.parent / "ca", CA.pem)
    made = made_site(folder, client_auth="required", client_ca=str(ca))
    entry = made.assembly.frontend.entry
    ca.write_bytes(b"-----BEGIN CERTIFICATE-----\ngarbage")
    problems, changed = made.renew(NOW)

    assert ("client CA" in problems[0][1], changed) == (True, False)
    assert made.assembly.frontend.entry is entry
    assert made.renew(NOW) == ([], False)
    ca.write_bytes(CA.pem + b"\n")
    assert made.renew(NOW) == ([], True)


def test_a_refused_ca_at_the_start_is_told_with_its_place(folder: Path) -> None:
    ca = write(folder.parent / "ca", b"-----BEGIN CERTIFICATE-----\ngarbage")
    values = source(folder).values
    values["frontend"][0]["tls"] = {"client_auth": "required", "client_ca": str(ca)}

    assert any("client CA" in problem for problem in problems(FlagSource(values, {})))


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"-----BEGIN garbage"])
@pytest.mark.parametrize("kind", ["client_ca", "client_crl"])
@pytest.mark.parametrize("block", ["tls", "host"])
def test_a_start_without_usable_client_files_is_refused(
    folder: Path, content: bytes | None, kind: str, block: str
) -> None:
    """CVE-2026-27586: Caddy asked nobody for a certificate then."""
    file = folder.parent / "file"
    if content is not None:
        write(file, content)
    good = write(folder.parent / "ca", CA.pem)
    demand = {"client_auth": "required", "client_ca": str(good)} | {kind: str(file)}
    values = source(folder).values
    values["frontend"][0][block] = demand if block == "tls" else [demand | {"names": ["a.test"]}]

    assert problems(FlagSource(values, {}))


def test_a_certificate_that_becomes_valid_takes_over_without_a_change_of_files(folder: Path) -> None:
    """Both were put there in time; the first expires, and would be shown for ever."""
    written(folder / "a.pem", issue("first", "a.test", not_after=NOW + timedelta(days=1)))
    later = issue("later", "a.test", not_before=NOW + timedelta(hours=12))
    written(folder / "later.pem", later)
    made = made_site(folder)
    _, changed = made.renew(NOW + timedelta(days=2))
    found = made.assembly.by_name.find("a.test")

    assert changed
    assert found is not None
    assert found[0].leaf_der == later.der
