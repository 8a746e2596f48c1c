"""A backend that answers with vectors, each at a target of its own; and well at all others."""

from __future__ import annotations

from collections.abc import Iterable

from tests.http.vectors import AcceptedResponse, RefusedResponse, Then
from tests.support.recording_backend import Script, Visit

Answer = AcceptedResponse | RefusedResponse


def target_of(vector: Answer) -> bytes:
    return b"/vector/" + vector.name.encode()


def question(vector: Answer, version: bytes = b"HTTP/1.1") -> bytes:
    """The request that is answered with this vector."""
    line = b" ".join([vector.method, target_of(vector), version])
    length = b"Content-Length: 0\r\n" if vector.method == b"POST" else b""
    return line + b"\r\nHost: site.test\r\n" + length + b"\r\n"


def answer_with(vectors: Iterable[Answer]) -> Script:
    by_target = {target_of(vector): vector for vector in vectors}

    def script(visit: Visit) -> None:
        while True:
            request = visit.request()
            vector = by_target.get(request.target)
            if vector is None:
                visit.answer(request)
                continue
            visit.send(vector.data)
            match vector.then:
                case Then.ENDS:
                    visit.end()
                    return
                case Then.RESETS:
                    visit.reset()
                    return

    return script
