"""Which route a request takes: the first that has its host and its path's beginning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

To = TypeVar("To")


@dataclass(frozen=True, slots=True)
class Route(Generic[To]):
    host: str
    """A name, *.example.com for one label more, or "" for any."""
    path_prefix: bytes
    to: To

    def takes(self, host: str, path: bytes) -> bool:
        return self._takes_host(host) and path.startswith(self.path_prefix)

    def _takes_host(self, host: str) -> bool:
        if self.host.startswith("*."):
            return host.partition(".")[2] == self.host[2:]
        return not self.host or host == self.host


class Routes(Generic[To]):
    def __init__(self, routes: Sequence[Route[To]] = ()) -> None:
        self._routes = tuple(routes)

    def __bool__(self) -> bool:
        return bool(self._routes)

    def find(self, host: str, target: bytes) -> To | None:
        """Where the first route that takes the request leads; None: no route does."""
        if not self._routes:
            return None
        path = plain_path(target)
        return next((route.to for route in self._routes if route.takes(host, path)), None)


def plain_path(target: bytes) -> bytes:
    """The path of an origin-form target as servers understand it: decoded, without "." and "..".

    What is forwarded is the target as it came; but /static/../admin and /%61dmin are /admin, and must
    not take another's route.
    """
    path = target.partition(b"?")[0]
    if _PLAIN.search(path) is None:
        return path
    segments: list[bytes] = []
    last = b""
    for last in unquote_to_bytes(path).split(b"/"):
        if last == b"..":
            del segments[-1:]
        elif last not in _NO_SEGMENTS:
            segments.append(last)
    end = b"/" if segments and (last in _NO_SEGMENTS or last == b"..") else b""
    return b"/%b%b" % (b"/".join(segments), end)


# Slashes count once, before ".." is looked at: so do nginx, Tomcat and Python's normpath.
_NO_SEGMENTS = frozenset({b"", b"."})

_PLAIN = re.compile(rb"%|//|/\.")
