"""OCSP stapling with real processes: `openssl ocsp` answers, clients ask, and things go wrong."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from termproxy import clock
from tests.scenarios.names.parties import handshakes, is_root
from tests.support.command import termproxy
from tests.support.ocsp import (
    HttpServer,
    Issuer,
    OpensslResponder,
    respond,
    s_client,
    saying,
    staple_at,
)
from tests.support.pki import Issued, rsa_key
from tests.support.processes import session_members, status
from tests.support.server import Server, Settings, settings
from tests.support.waiting import PATIENCE, wait_until

NOWHERE = "127.0.0.1:9"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

# Whatever the machine has: the tests' responders are on 127.0.0.1.
NO_PROXY = {"http_proxy": "", "HTTP_PROXY": "", "no_proxy": "127.0.0.1"}


class Case:
    """A folder with a configuration, an issuer and its responder, which does not run yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.issuer = Issuer("the issuer")
        self.responder = OpensslResponder(folder, self.issuer)
        self.certificates: list[Any] = []
        self.tls: dict[str, Any] = {}

    def site(self, file: str = "site.pem", name: str = "site.test", **options: Any) -> Issued:
        """A certificate that names the responder, or another `responder`, or None; known as good."""
        issued = self.issuer.issue(name, **{"responder": self.responder.url} | options)
        issued.write(self.folder / file)
        if file not in self.certificates:
            self.certificates.append(file)
        self.responder.know(issued)
        return issued

    def settings(self, **changes: Any) -> Settings:
        defaults: dict[str, Any] = {"workers": 2, "state_dir": "state"}
        if is_root():
            defaults["user"] = "nobody"
        values = settings(self.folder / "unused", [NOWHERE], **defaults | changes)
        values["frontend"][0]["certificates"] = self.certificates
        if self.tls:
            values["frontend"][0]["tls"] = self.tls
        return values

    def server(self, **changes: Any) -> Server:
        return Server(self.folder, self.settings(**changes), environment=NO_PROXY)

    def state_file(self, issued: Issued) -> Path:
        return self.folder / "state" / f"{issued.sha256}.ocsp"


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    case = Case(tmp_path)
    yield case
    case.responder.stop()


def shows(server: Server, issued: Issued, version: ssl.TLSVersion | None = None) -> bool:
    """Whether a new client is shown the certificate with a good response about it.  With none: False."""
    staple, der = staple_at(server.port, version=version)
    assert x509.load_der_x509_certificate(der).serial_number == issued.certificate.serial_number
    if staple is None:
        return False
    response = ocsp.load_der_ocsp_response(staple)
    assert response.serial_number == issued.certificate.serial_number
    assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
    return True


def every_worker(server: Server, is_so: Callable[[], bool]) -> bool:
    """Whether it is so for clients of every worker; they are asked until each had one."""
    workers, before = server.workers(), handshakes(server)
    deadline = clock.monotonic() + PATIENCE
    while clock.monotonic() < deadline:
        if not all(is_so() for _ in range(4 * len(workers))):
            return False
        after = handshakes(server)
        if all(after.get(pid, 0) > before[pid] for pid in workers):
            return True
    raise AssertionError(f"of {workers} not all had a client")


def all_staple(server: Server, issued: Issued) -> bool:
    return every_worker(server, lambda: all(shows(server, issued, version) for version in VERSIONS))


def none_staple(server: Server, issued: Issued) -> bool:
    return every_worker(server, lambda: not shows(server, issued))


def wait_until_all_staple(server: Server, issued: Issued) -> None:
    wait_until(lambda: all_staple(server, issued), "every worker staples")


def ocsp_states(server: Server) -> dict[str, str | None]:
    """What `termproxy certs --json` says, by file."""
    result = termproxy("certs", "--json", "--control", str(server.control))
    assert result.returncode == 0, result
    return {Path(each["file"]).name: each["ocsp"] for each in json.loads(result.stdout)}


def lines_about_ocsp(server: Server) -> list[str]:
    return [line for line in server.said().splitlines() if "ocsp" in line.lower()]


# It works.


def test_every_worker_staples_within_seconds(case: Case) -> None:
    issued = case.site()
    with case.responder, case.server() as server:
        wait_until_all_staple(server, issued)
        assert str(ocsp_states(server)["site.pem"]).startswith("good until ")
        assert lines_about_ocsp(server) == []
    assert case.state_file(issued).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssls_client_finds_the_response_good(case: Case, version: str) -> None:
    issued = case.site()
    with case.responder, case.server() as server:
        wait_until(lambda: shows(server, issued), "it staples")
        wait_until_all_staple(server, issued)
        said = s_client(server.port, version)
    assert "OCSP Response Status: successful" in said
    assert "Cert Status: good" in said
    assert f"Serial Number: {issued.serial}" in said


def test_a_client_that_does_not_ask_is_served_as_ever(case: Case) -> None:
    issued = case.site()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=case.issuer.pem.decode())
    with case.responder, case.server() as server:
        wait_until_all_staple(server, issued)
        with (
            socket.create_connection(("127.0.0.1", server.port)) as sock,
            context.wrap_socket(sock, server_hostname="site.test") as client,
        ):
            assert client.version() == "TLSv1.3"


@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
def test_of_rsa_and_ecdsa_for_one_name_each_has_its_own_response(case: Case, kind: str) -> None:
    issued = {"ECDSA": case.site("ecdsa.pem"), "RSA": case.site("rsa.pem", key=rsa_key())}[kind]
    ciphers = f"ECDHE-{kind}-AES128-GCM-SHA256"
    with case.responder, case.server() as server:

        def is_stapled() -> bool:
            staple, der = staple_at(server.port, version=ssl.TLSVersion.TLSv1_2, ciphers=ciphers)
            assert der == issued.certificate.public_bytes(Encoding.DER)
            if staple is None:
                return False
            serial = ocsp.load_der_ocsp_response(staple).serial_number
            assert serial == issued.certificate.serial_number, "of the other one"
            return True

        wait_until(lambda: every_worker(server, is_stapled), f"{kind} is stapled")


def test_names_with_certificates_of_their_own_have_responses_of_their_own(case: Case) -> None:
    case.site()
    other = case.site("other.pem", "other.test")
    with case.responder, case.server() as server:

        def about() -> int | None:
            staple, _ = staple_at(server.port, name="other.test")
            return None if staple is None else ocsp.load_der_ocsp_response(staple).serial_number

        wait_until(lambda: about() == other.certificate.serial_number, "the other name is stapled")


# The responder goes, workers come, the server comes back.


def test_without_an_answer_it_serves_without_a_staple_and_says_so_once(case: Case) -> None:
    issued = case.site()
    with case.server() as server:
        server.wait_for_words("no OCSP response from")
        assert none_staple(server, issued)
        assert len(lines_about_ocsp(server)) == 1
        assert "refused" in str(ocsp_states(server)["site.pem"])


def test_when_the_responder_goes_the_staple_stays(case: Case) -> None:
    issued = case.site()
    with case.responder, case.server() as server:
        wait_until_all_staple(server, issued)
        case.responder.stop()
        assert all_staple(server, issued)


def test_a_worker_that_takes_a_dead_ones_place_staples_at_once(case: Case) -> None:
    issued = case.site()
    with case.responder, case.server() as server:
        wait_until_all_staple(server, issued)
        case.responder.stop()
        before = server.workers()
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(set(server.workers()) - set(before)) == 1, "another takes its place")
        assert all_staple(server, issued)


@pytest.mark.parametrize("changes", [{}, {"workers": 1}])
def test_a_reload_keeps_the_staples(case: Case, changes: dict[str, Any]) -> None:
    issued = case.site()
    with case.responder, case.server() as server:
        wait_until_all_staple(server, issued)
        case.responder.stop()
        server.values |= changes
        assert server.reload()["ok"]
        assert all_staple(server, issued)
        assert lines_about_ocsp(server) == [], "and asks nobody"


def test_after_a_restart_it_staples_at_once_from_the_disk(case: Case) -> None:
    issued = case.site()
    with case.responder, case.server() as server:
        wait_until_all_staple(server, issued)
    case.responder.stop()
    with case.server() as server:
        assert all_staple(server, issued)
        assert lines_about_ocsp(server) == [], "and asks nobody"


def test_without_a_state_dir_a_restart_asks_anew(case: Case) -> None:
    issued = case.site()
    with case.responder:
        for _ in range(2):
            with case.server(state_dir="") as server:
                wait_until_all_staple(server, issued)
    assert not (case.folder / "state").exists()


# What is on disk.


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def writable_by_all(file: Path) -> None:
    file.chmod(0o666)


def a_link(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize("harm", [damaged, emptied, writable_by_all, a_link, a_fifo])
def test_a_file_that_is_not_to_be_trusted_is_told_and_the_start_goes_on(
    case: Case, harm: Callable[[Path], None]
) -> None:
    issued = case.site()
    with case.responder, case.server() as server:
        wait_until_all_staple(server, issued)
    harm(case.state_file(issued))
    with case.responder, case.server() as server:
        lines = [line for line in lines_about_ocsp(server) if str(case.state_file(issued)) in line]
        assert len(lines) == 1, server.said()
        wait_until_all_staple(server, issued)
    assert case.state_file(issued).is_file(), "the new response has taken its place"
    assert not case.state_file(issued).is_symlink()
    assert case.state_file(issued).stat().st_mode & 0o777 == 0o600


def test_a_forged_response_on_disk_is_not_shown(case: Case) -> None:
    """Signed by a stranger, for our certificate: whoever could write there."""
    issued = case.site()
    (case.folder / "state").mkdir(mode=0o700)
    case.state_file(issued).write_bytes(respond(issued, case.issuer, signer=Issuer("the issuer")))
    case.state_file(issued).chmod(0o600)
    with case.server() as server:
        assert none_staple(server, issued)
        assert f"{case.state_file(issued)} is removed: the response is not signed" in server.said()


def test_a_state_dir_that_others_can_write_in_refuses_the_start(case: Case) -> None:
    case.site()
    (case.folder / "state").mkdir()
    (case.folder / "state").chmod(0o777)
    server = case.server()
    server.start()
    assert server.wait_until_gone() == 1
    assert "others can write there; chmod go-w" in server.said()
    assert "Traceback" not in server.said()


def test_a_check_makes_no_state_dir(case: Case) -> None:
    case.site()
    server = case.server()
    server.write_config()
    assert termproxy("check", "-c", str(server.file)).returncode == 0
    assert not (case.folder / "state").exists()


def test_another_state_dir_takes_a_restart(case: Case) -> None:
    case.site()
    with case.server() as server:
        server.values["state_dir"] = "elsewhere"
        assert server.reload()["ok"]
        server.wait_for_words("it takes a restart; the old one stays")
    assert not (case.folder / "elsewhere").exists()


# What is not good, not asked for, or not wanted.


def test_a_revoked_certificate_is_served_without_a_staple_and_one_loud_line(case: Case) -> None:
    issued = case.site()
    case.responder.know(issued, revoked=True)
    with case.responder, case.server() as server:
        server.wait_for_words("revoked")
        assert none_staple(server, issued)
        [line] = lines_about_ocsp(server)
        assert " WARNING " in line
        assert line.endswith("the issuer says that the certificate is revoked")
        assert str(case.folder / "site.pem") in line
        assert "revoked" in str(ocsp_states(server)["site.pem"])
    assert not case.state_file(issued).exists()


def test_a_certificate_that_the_responder_does_not_know_is_not_stapled(case: Case) -> None:
    issued = case.issuer.issue(responder=case.responder.url)
    issued.write(case.folder / "site.pem")
    case.certificates.append("site.pem")
    with case.responder, case.server() as server:
        server.wait_for_words("the issuer says that the certificate is unknown")
        assert none_staple(server, issued)


def test_a_certificate_without_a_responder_is_left_alone_in_silence(case: Case) -> None:
    plain = case.site("plain.pem", responder=None)
    beside = case.site("beside.pem", "beside.test")
    with case.responder, case.server() as server:
        wait_until(lambda: case.state_file(beside).exists(), "the other one has its response")
        assert none_staple(server, plain)
        assert lines_about_ocsp(server) == []
        assert ocsp_states(server)["plain.pem"] is None


def test_with_stapling_off_nobody_is_asked(case: Case) -> None:
    """Another frontend staples: when its question has come, this one's would have, too."""
    certificates: list[Issued] = []

    def behave(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        serial = ocsp.load_der_ocsp_request(body).serial_number
        [issued] = [each for each in certificates if each.certificate.serial_number == serial]
        saying(respond(issued, case.issuer))(handler, body)

    with HttpServer(behave) as http:
        off = case.site("off.pem", responder=http.url)
        on = case.issuer.issue(responder=http.url)
        on.write(case.folder / "on.pem")
        certificates += [off, on]
        case.tls = {"stapling": False}
        values = case.settings()
        [beside] = case.settings()["frontend"]
        values["frontend"].append(beside | {"name": "beside", "certificates": ["on.pem"], "tls": {}})
        with Server(case.folder, values, environment=NO_PROXY) as server:
            wait_until(lambda: case.state_file(on).exists(), "the other frontend has its response")
            asked = [ocsp.load_der_ocsp_request(each).serial_number for each in http.requests]
            assert asked == [on.certificate.serial_number]
            assert none_staple(server, off)
            states = ocsp_states(server)
            assert states["off.pem"] is None
            assert str(states["on.pem"]).startswith("good until ")


def test_stapling_can_be_turned_off_and_on_again(case: Case) -> None:
    issued = case.site()
    with case.responder, case.server() as server:
        wait_until_all_staple(server, issued)
        server.values["frontend"][0]["tls"] = {"stapling": False}
        assert server.reload()["ok"]
        assert none_staple(server, issued)
        wait_until(lambda: not case.state_file(issued).exists(), "the file is removed")
        server.values["frontend"][0]["tls"] = {"stapling": True}
        assert server.reload()["ok"]
        wait_until_all_staple(server, issued)


def test_a_renewed_certificate_gets_its_own_response(case: Case) -> None:
    old = case.site()
    with case.responder, case.server() as server:
        wait_until_all_staple(server, old)
        workers = server.workers()
        case.responder.stop()
        new = case.issuer.issue(responder=case.responder.url)
        case.responder.know(new)
        case.responder.start()
        new.write(case.folder / "site.pem")
        server.wait_for_words("renewed")

        def is_stapled() -> bool:
            staple, der = staple_at(server.port)
            shown = x509.load_der_x509_certificate(der).serial_number
            if staple is not None:
                assert ocsp.load_der_ocsp_response(staple).serial_number == shown, "of another one"
            return staple is not None and shown == new.certificate.serial_number

        wait_until(lambda: every_worker(server, is_stapled), "every worker staples the new one")
        assert server.workers() == workers
        assert case.state_file(new).exists()
        assert not case.state_file(old).exists()


# Responders that mean no good.


def silence(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.rfile.read(1)  # until whoever asks goes


def endless(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(bytes(1 << 16))


def escapes(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.wfile.write(b"HTTP/1.0 404 \x1b[2J[/evil]\x9b31m\r\n\r\n")


BAD = {
    "garbage": saying(b"<html>"),
    "zeros": saying(bytes(16_000)),
    "controls": saying(b"\x1f" * 16_000),
    "nothing": saying(b""),
    "error": saying(b"", 500),
    "endless": endless,
    "escapes": escapes,
}


@pytest.mark.parametrize("behave", BAD.values(), ids=BAD)
def test_a_bad_responder_costs_one_line_and_no_other_certificate(
    case: Case, behave: Callable[[BaseHTTPRequestHandler, bytes], None]
) -> None:
    with HttpServer(behave) as http, case.responder:
        bad = case.site("a.pem", responder=http.url)
        good = case.site("b.pem", "b.test")
        case.responder.stop()
        case.responder.start()
        with case.server() as server:
            server.wait_for_words("no OCSP response from")
            wait_until(lambda: case.state_file(good).exists(), "the other one has its response")
            assert none_staple(server, bad)
            [line] = lines_about_ocsp(server)
            assert line.isprintable()
            assert line.isascii()
            assert str(ocsp_states(server)["b.pem"]).startswith("good until ")
            table = termproxy("certs", "--control", str(server.control))
            assert (table.returncode, table.stderr) == (0, "")


@pytest.fixture
def waiting(case: Case) -> Iterator[tuple[Server, int]]:
    """A server, and its helper that waits for an answer which does not come."""
    with HttpServer(silence) as http:
        case.site(responder=http.url)
        with case.server() as server:
            wait_until(lambda: http.requests, "the responder is asked")
            known = {*server.status()["processes"].values(), *server.workers()}
            [helper] = set(session_members(server.pid)) - known
            yield server, helper


Waiting = tuple[Server, int]


@pytest.mark.skipif(not is_root(), reason="only root can become another user")
def test_the_helper_has_no_rights(waiting: Waiting) -> None:
    server, helper = waiting
    user, lines = pwd.getpwnam("nobody"), status(helper)
    assert lines["PPid"] == str(server.pid)
    assert lines["Uid"].split() == [str(user.pw_uid)] * 4
    assert lines["Gid"].split() == [str(user.pw_gid)] * 4
    assert lines["Groups"] == ""
    assert {int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert lines["NoNewPrivs"] == "1"
    found = [link.readlink().name for link in Path(f"/proc/{helper}/fd").iterdir() if int(link.name) > 2]
    assert sorted(each.partition(":")[0] for each in found) == ["pipe", "socket"]


def test_while_the_helper_waits_everything_goes_on(waiting: Waiting, case: Case) -> None:
    server, helper = waiting
    assert staple_at(server.port)[0] is None
    assert server.reload()["ok"]
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(server.workers()) == 2 and before[0] not in server.workers(), "a new worker")
    assert staple_at(server.port)[0] is None
    assert ocsp_states(server) == {"site.pem": "not asked yet"}
    assert Path(f"/proc/{helper}").exists()


def test_a_helper_that_is_killed_is_told_of_and_the_server_goes_on(waiting: Waiting) -> None:
    server, helper = waiting
    os.kill(helper, signal.SIGKILL)
    server.wait_for_words("the helper ended before the answer")
    wait_until(lambda: not Path(f"/proc/{helper}").exists(), "it is reaped")
    assert len(server.workers()) == 2
    assert staple_at(server.port)[0] is None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_stops_does_not_wait_for_its_helper(
    waiting: Waiting, signum: signal.Signals
) -> None:
    server, _ = waiting
    server.signal(signum)
    assert server.wait_until_gone(seconds=8) == 0, "the helper would wait for ten seconds"


def test_when_the_master_dies_its_helper_does(waiting: Waiting) -> None:
    server, helper = waiting
    server.signal(signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: helper not in session_members(server.pid), "the helper has gone", seconds=8)
    server.wait_until_gone()
