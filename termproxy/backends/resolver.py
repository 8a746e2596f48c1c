"""Ask what a host's name stands for: the hosts file first, and then name servers.

Waits for answers: the prober calls it in threads.  dnspython, because it tells how long an answer holds.
"""

from __future__ import annotations

from typing import Any

from termproxy.backends.names import Found, in_hosts_file, is_ip
from termproxy.config import schema
from termproxy.observability.record import printable

LOOK_UP_MAX = 5.0  # seconds for a question, whoever is asked how often
HOSTS_MAX = 1 << 20  # bytes
PROBLEM_MAX = 200  # characters


class Resolver:
    def __init__(self, settings: schema.Dns) -> None:
        # Here, and all at once: the master has no use for it, and later there may be no right to read.
        import dns.nameserver  # noqa: PLC0415
        import dns.rdata  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415

        self._dns: Any = dns
        self._dns.rdata.load_all_types()  # or it would when an answer holds one
        self._settings = settings

    def look_up(self, host: str) -> Found:
        """What there is now.  Raises nothing."""
        in_file = in_hosts_file(self._hosts(), host)
        if in_file is not None:
            return in_file
        try:
            resolver = self._resolver()
        except self._dns.exception.DNSException as error:  # no resolv.conf
            return Found(None, None, problem=_plain(error))
        (v4, v4_ttl, v4_problem), (v6, v6_ttl, v6_problem) = (
            self._ask(resolver, host, kind) for kind in ("A", "AAAA")
        )
        problem = "" if v4 or v6 else v4_problem or v6_problem or "it has no address"
        return Found(v4, v6, min(v4_ttl, v6_ttl), problem)

    def _hosts(self) -> str:
        if self._settings.hosts is None:
            return ""
        try:
            with self._settings.hosts.open(encoding="utf-8", errors="replace") as stream:
                return stream.read(HOSTS_MAX)
        except OSError:
            return ""  # it need not be there

    def _resolver(self) -> Any:
        """Reads resolv.conf anew: it changes with the network."""
        resolver = self._dns.resolver.Resolver(configure=not self._settings.servers)
        if self._settings.servers:
            resolver.nameservers = [
                self._dns.nameserver.Do53Nameserver(*each.sockaddr) for each in self._settings.servers
            ]
        resolver.lifetime = LOOK_UP_MAX
        return resolver

    def _ask(self, resolver: Any, host: str, kind: str) -> tuple[list[str] | None, float, str]:
        """The addresses of a family, for how long, and why there are none."""
        try:
            answer = resolver.resolve(host, kind, search=True)
        except self._dns.resolver.NXDOMAIN:
            return [], float("inf"), "there is no such name"
        except self._dns.resolver.NoAnswer:
            return [], float("inf"), ""
        except (self._dns.exception.DNSException, OSError) as error:
            return None, float("inf"), _plain(error)
        addresses = [each.address for each in answer if is_ip(each.address)]
        return addresses, float(answer.chaining_result.minimum_ttl), ""


def _plain(error: Exception) -> str:
    """For logs and terminals: some of it is what a name server said."""
    return printable(str(error).encode("utf-8", "replace"))[:PROBLEM_MAX]
