"""Ask OCSP responders, in a process of its own: their answers may be slow, endless or evil.

It has given up its rights and can do nothing but tell the master what was answered; the master
believes only what is signed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from termproxy.master.landlock import Reach
from termproxy.master.staple_book import Question
from termproxy.messages import message
from termproxy.observability.record import printable
from termproxy.tls.ocsp import RESPONSE_MAX

TIMEOUT = 10.0  # seconds for one question, from the look-up of the host to the answer's last byte
PROBLEM_MAX = 200  # characters

# What the C library and OpenSSL read when a host is looked up and its certificate is checked: their
# configuration, modules and CAs.
SYSTEM_FOLDERS = tuple(map(Path, ("/etc", "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share")))
RESOLV_CONF = Path("/etc/resolv.conf")
USUAL_PORTS = {53, 80, 443}  # of name servers that are asked over TCP, and of URLs that name none


def reach_of(questions: Sequence[Question]) -> Reach:
    """Where the helper has to connect, and what it reads there."""
    ports = USUAL_PORTS | {port for url in (q.url for q in questions) for port in _port(url)}
    for name, proxy in os.environ.items():
        if name.lower() in {"http_proxy", "https_proxy"}:
            ports.update(_port(proxy if "//" in proxy else f"//{proxy}"))
    resolv_conf = Path(os.path.realpath(RESOLV_CONF))  # often a link into /run
    return Reach(frozenset(ports), (*SYSTEM_FOLDERS, resolv_conf.parent))


def _port(url: str) -> Iterator[int]:
    try:
        port = urlsplit(url).port
    except ValueError:
        return  # the helper will say so
    if port:
        yield port


def prepare(questions: Sequence[Question]) -> Callable[[int], None]:
    """What to do with the descriptor that the master reads; imports now what it needs.

    A message for each question: {"sha256": …, "response": …} (bytes as Latin-1), or a "problem".
    """
    import encodings.idna  # noqa: F401, PLC0415 - looked up by name, when a host is
    import http.client  # noqa: PLC0415 - the master has no use for it
    import urllib.request as web  # noqa: PLC0415

    opener = web.OpenerDirector()  # no redirects, no other schemes than these
    for handler in (
        web.ProxyHandler(),
        web.UnknownHandler(),
        web.HTTPHandler(),
        web.HTTPSHandler(),
        web.HTTPDefaultErrorHandler(),
        web.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)

    def ask(question: Question) -> dict[str, str]:
        headers = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
        try:
            request = web.Request(question.url, question.request, headers)  # noqa: S310 - http(s) only, see above
            # A socket's timeout begins anew with every byte that drips in.
            signal.setitimer(signal.ITIMER_REAL, TIMEOUT, 1.0)
            try:
                with opener.open(request, timeout=TIMEOUT) as answer:
                    response = answer.read(RESPONSE_MAX + 1)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except (OSError, ValueError, http.client.HTTPException) as error:
            return {"problem": plain_problem(f"{type(error).__name__}: {error}")}
        if len(response) > RESPONSE_MAX:
            return {"problem": f"an answer of more than {RESPONSE_MAX} bytes"}
        return {"response": response.decode("latin-1")}

    def work(fd: int) -> None:
        signal.signal(signal.SIGALRM, _out_of_time)
        for question in questions:
            _write_all(fd, message({"sha256": question.sha256} | ask(question)))

    return work


def plain_problem(text: str) -> str:
    """For logs and terminals: some of it is what the responder said."""
    return printable(text.encode("utf-8", "replace"))[:PROBLEM_MAX]


def _out_of_time(*_: object) -> None:
    raise TimeoutError(f"no whole answer within {TIMEOUT:g} s")


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
