"""What is read from the report of a load with a fixed rate, and that it does not wait for answers."""

import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from comparison.metering import MeasurementError
from comparison.open_loop import OpenLoop, build, parse
from comparison.site import make_certificate

REPORT = """\
ready
asked: 3000 answered: 3000 seconds: 3.001
latency: 50%=81.2 90%=110.0 99%=202.1 99.9%=410.7 max=811.0
late: 50%=8.1 99%=60.3
"""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n"
STALL = 0.3


def test_latencies_are_read_in_seconds() -> None:
    report = parse(REPORT)
    assert (report.requests, report.seconds) == (3000, 3.001)
    assert report.latency["99%"] == pytest.approx(202.1e-6)
    assert report.latency["99.9%"] == pytest.approx(410.7e-6)
    assert report.late["99%"] == pytest.approx(60.3e-6)


def test_a_request_without_an_answer_makes_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="1 of 3000 requests were not answered"):
        parse(REPORT.replace("answered: 3000", "answered: 2999"))


def test_silence_makes_the_measurement_invalid() -> None:
    with pytest.raises(MeasurementError, match="told nothing"):
        parse("ready\n")


def test_the_rate_is_half_of_what_the_slowest_can() -> None:
    assert OpenLoop(path="/", connections=64).at_half_of(50_000.0).rate == 25_000.0


def test_a_server_that_stalls_is_charged_for_all_that_came_meanwhile(tmp_path: Path) -> None:
    """A load that waits for answers would count one slow request of a hundred; here they all wait."""
    certificate = make_certificate(tmp_path, "ecdsa")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=stall_once, args=(listener, context))
        server.start()
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [build(tmp_path), port, "/", "1", "200", "0.5", str(certificate.chain)],
            input="go\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        server.join()
    report = parse(done.stdout)
    assert 50 < report.requests < 200
    assert report.latency["50%"] > STALL / 10
    assert STALL < report.latency["max"] < 2 * STALL + 1


def stall_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Answer at once, but the first request late; in two pieces."""
    stall = threading.Event()
    plain, _ = listener.accept()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_side=True) as client:
        stall_for = STALL
        while client.recv(4096):
            stall.wait(stall_for)
            stall_for = 0.0
            client.sendall(HEAD)
            client.sendall(b"\r\nhello, world\n")
