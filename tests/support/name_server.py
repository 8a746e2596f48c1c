"""A small name server: what it says of a name can be changed while it runs."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.support.waiting import PATIENCE, wait_until


class NameServer:
    """`addresses` by name; a name that is not there does not exist.  `is_silent` and `fails` say how it
    behaves otherwise.
    """

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {name.replace("_", "."): each for name, each in addresses.items()}
        self.ttl = 1
        self.is_silent = False
        self.fails = False
        self.asked: list[tuple[str, str]] = []
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._sock.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_over = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self._sock.getsockname())
        self._thread.join(PATIENCE)
        self._sock.close()

    def wait_for_question(self, times: int = 1) -> None:
        """Until it has been asked so many times more."""
        target = len(self.asked) + times
        wait_until(lambda: len(self.asked) >= target, "a question")

    def _run(self) -> None:
        while True:
            data, client = self._sock.recvfrom(4096)
            if self._is_over:
                return
            query = dns.message.from_wire(data)
            name = query.question[0].name.to_text(omit_final_dot=True).lower()
            self.asked.append((name, dns.rdatatype.to_text(query.question[0].rdtype)))
            if not self.is_silent:
                self._sock.sendto(self._answer(query, name).to_wire(), client)

    def _answer(self, query: dns.message.Message, name: str) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if self.fails:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.addresses:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            kind = query.question[0].rdtype
            is_v6 = kind == dns.rdatatype.AAAA
            texts = [ip for ip in self.addresses[name] if (":" in ip) is is_v6]
            if texts:
                rrset = dns.rrset.from_text(query.question[0].name, self.ttl, "IN", kind, *texts)
                answer.answer.append(rrset)
        return answer
