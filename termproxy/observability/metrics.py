"""THE table of what is counted and told: names, words of help, and where a worker's counters stand.

A worker counts in words of 64 bits; for each frontend it has those of FRONTEND, in its order.  What the
master knows besides is measured when somebody asks (master/measuring.py).  All of it is told under the
names in METRICS (observability/prometheus.py), and most of it in `status`.

Words in here are stable: they stand in logs, in `status` and in metrics, in people's alerts and
dashboards.  To count something more, add a line; the values of a label are few, and known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from termproxy.observability._tally import Histogram, Tally
from termproxy.outcome import Miss

PREFIX = "termproxy_"

# Why a handshake failed; tls/failures.py finds out which, and says what it means.
FAILURES = (
    "scanner",
    "not_tls",
    "plain_http",
    "old_client",
    "no_shared_version",
    "no_shared_cipher",
    "no_shared_group",
    "no_shared_signature_algorithm",
    "no_shared_protocol",
    "unknown_name",
    "malformed_name",
    "no_client_certificate",
    "client_certificate_refused",
    "certificate_rejected",
    "client_alert",
    "client_closed",
    "client_reset",
    "handshake_timeout",
    "inappropriate_fallback",
    "protocol_error",
    "socket_error",
    "internal_error",
    "drain_timeout",
    "no_proxy_header",
    "bad_proxy_header",
)

# Limits that refuse a client before any crypto, or (the first, in mode "http") with a 429.
DROPS = (
    "connections_per_client",
    "handshakes_per_client",
    "handshakes_per_second",
    "handshake_queue",
)

# How a handshake that was finished went.
HANDSHAKES = ("full", "ticket", "session_id")

# Why it was full, in the order of outcome.Miss.
MISSES = tuple(miss.name.lower() for miss in Miss)

OTHER = "other"

# The cipher suites that servers use, by IANA's number, with OpenSSL's names.
CIPHERS: Mapping[int, str] = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0x1304: "TLS_AES_128_CCM_SHA256",
    0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
    0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305",
    0xC02F: "ECDHE-RSA-AES128-GCM-SHA256",
    0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
    0xCCA8: "ECDHE-RSA-CHACHA20-POLY1305",
    0xC023: "ECDHE-ECDSA-AES128-SHA256",
    0xC024: "ECDHE-ECDSA-AES256-SHA384",
    0xC027: "ECDHE-RSA-AES128-SHA256",
    0xC028: "ECDHE-RSA-AES256-SHA384",
    0xC009: "ECDHE-ECDSA-AES128-SHA",
    0xC00A: "ECDHE-ECDSA-AES256-SHA",
    0xC013: "ECDHE-RSA-AES128-SHA",
    0xC014: "ECDHE-RSA-AES256-SHA",
    0x009E: "DHE-RSA-AES128-GCM-SHA256",
    0x009F: "DHE-RSA-AES256-GCM-SHA384",
    0xCCAA: "DHE-RSA-CHACHA20-POLY1305",
    0x009C: "AES128-GCM-SHA256",
    0x009D: "AES256-GCM-SHA384",
    0x003C: "AES128-SHA256",
    0x003D: "AES256-SHA256",
    0x002F: "AES128-SHA",
    0x0035: "AES256-SHA",
}

_BY_IANA = 0x1000000  # OpenSSL's TLSEXT_nid_unknown, and IANA's number with it

# Groups of the key exchange, by OpenSSL's numbers: an NID, or one of IANA's.
GROUPS: Mapping[int, str] = {
    0: "none",  # a key exchange without one
    1034: "X25519",
    415: "P-256",
    715: "P-384",
    716: "P-521",
    1035: "X448",
    1126: "ffdhe2048",
    1127: "ffdhe3072",
    1128: "ffdhe4096",
    _BY_IANA | 0x11EB: "SecP256r1MLKEM768",
    _BY_IANA | 0x11EC: "X25519MLKEM768",
    _BY_IANA | 0x11ED: "SecP384r1MLKEM1024",
}

# Upper bounds of histograms.  A bucket counts what is at most its bound, and above the one before.
TICKET_AGE_BOUNDS = (1, 10, 60, 300, 900, 3600, 14_400, 43_200, 86_400, 604_800)  # seconds
HANDSHAKE_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds
BACKEND_BOUNDS = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)  # seconds


@dataclass(frozen=True, slots=True)
class Metric:
    """What is told under a name; a counter's gets `_total`, a histogram's `_bucket` and so on."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, told: str, *labels: str) -> Metric:
    return Metric(PREFIX + name, "counter", told, labels)


def _gauge(name: str, told: str, *labels: str) -> Metric:
    return Metric(PREFIX + name, "gauge", told, labels)


def _histogram(name: str, told: str, *labels: str) -> Metric:
    return Metric(PREFIX + name, "histogram", told, labels)


@dataclass(frozen=True, slots=True)
class Family:
    """Words of a frontend's, one for each label.

    A metric's labels are `frontend` and then what `values` gives for each of ours.  `unit` is what one
    of the counter is.  For a histogram the labels are upper bounds, and `sum` names the family, and its
    label, in which the sum is counted, in `unit`; without a metric it is counted for another family.
    """

    labels: tuple[str, ...]
    metric: Metric | None = None
    values: Mapping[str, tuple[str, ...]] | None = None
    unit: float = 1
    sum: tuple[str, str] | None = None
    fixed: tuple[str, ...] = ()  # a histogram's value of its label

    def values_of(self, label: str) -> tuple[str, ...]:
        return (label,) if self.values is None else self.values[label]


def _buckets(bounds: Sequence[float]) -> tuple[str, ...]:
    return (*map(str, bounds), "+Inf")


MICROSECOND = 1e-6

_HANDSHAKE_SECONDS = _histogram(
    "handshake_duration_seconds",
    "From accept to a finished handshake, with the network's and the client's share.",
    "frontend",
    "kind",
)

FRONTEND: Mapping[str, Family] = {
    "handshakes_failed": Family(
        FAILURES,
        _counter("handshake_failures", "Handshakes that failed, by reason.", "frontend", "reason"),
    ),
    "handshakes": Family(
        HANDSHAKES,
        _counter(
            "handshakes",
            "Handshakes that were finished: full, or resumed from a ticket or by a session id.",
            "frontend",
            "how",
        ),
    ),
    "resumption_misses": Family(
        MISSES,
        _counter(
            "resumption_misses", "Full handshakes, by why no session was resumed.", "frontend", "reason"
        ),
    ),
    "handshake_cpu_microseconds": Family(
        HANDSHAKES,
        _counter(
            "handshake_cpu_seconds",
            "Time inside OpenSSL, and so CPU, of finished handshakes.",
            "frontend",
            "how",
        ),
        unit=MICROSECOND,
    ),
    "handshake_seconds_full": Family(
        _buckets(HANDSHAKE_BOUNDS),
        _HANDSHAKE_SECONDS,
        unit=MICROSECOND,
        sum=("microseconds", "handshake_full"),
        fixed=("full",),
    ),
    "handshake_seconds_resumed": Family(
        _buckets(HANDSHAKE_BOUNDS),
        _HANDSHAKE_SECONDS,
        unit=MICROSECOND,
        sum=("microseconds", "handshake_resumed"),
        fixed=("resumed",),
    ),
    "ticket_age_seconds": Family(
        _buckets(TICKET_AGE_BOUNDS),
        _histogram("resumed_session_age_seconds", "How old resumed sessions were.", "frontend"),
        sum=("seconds", "ticket_age"),
    ),
    "ciphers": Family(
        (*CIPHERS.values(), OTHER),
        _counter(
            "handshake_ciphers",
            "Finished handshakes, by the version and the cipher suite that were agreed on.",
            "frontend",
            "version",
            "cipher",
        ),
        values={
            name: ("TLSv1.3" if number >> 8 == 0x13 else "TLSv1.2", name)
            for number, name in CIPHERS.items()
        }
        | {OTHER: (OTHER, OTHER)},
    ),
    "groups": Family(
        (*GROUPS.values(), OTHER),
        _counter(
            "handshake_groups",
            "Finished handshakes, by the group of the key exchange; a session of TLS 1.2 that is "
            "resumed has that of its first handshake.",
            "frontend",
            "group",
        ),
    ),
    "responses": Family(
        ("1xx", "2xx", "3xx", "4xx", "5xx"),
        _counter(
            "http_responses", "Answers to clients, by the class of the status.", "frontend", "class"
        ),
    ),
    "dropped": Family(
        DROPS,
        _counter("dropped", "Clients that a limit has turned away, by its name.", "frontend", "limit"),
    ),
    "backend_connections": Family(
        ("new", "kept"),
        _counter(
            "http_backend_uses",
            "Requests that were sent to a backend, on a new connection or on one that was kept.",
            "frontend",
            "connection",
        ),
    ),
    "backend_connect_seconds": Family(
        _buckets(BACKEND_BOUNDS),
        _histogram(
            "backend_connect_seconds",
            "From needing a backend to a connection, with failed attempts and waits for a free one.",
            "frontend",
        ),
        unit=MICROSECOND,
        sum=("microseconds", "backend_connect"),
    ),
    "backend_response_seconds": Family(
        _buckets(BACKEND_BOUNDS),
        _histogram(
            "backend_response_seconds",
            "From a request's head to the head of its answer, with the time to connect.",
            "frontend",
        ),
        unit=MICROSECOND,
        sum=("microseconds", "backend_response"),
    ),
    # Sums of the histograms.
    "microseconds": Family(
        ("handshake_full", "handshake_resumed", "backend_connect", "backend_response")
    ),
    "seconds": Family(("ticket_age",)),
}

_RELAYED = _counter("relayed_bytes", "Plaintext, of connections that have ended.", "source")

# A worker's other counters, by the names of scoreboard.Column; each with the values of its labels.
# Its handshakes are told by frontend, above.
TOTALS: Mapping[str, tuple[Metric, tuple[str, ...]]] = {
    "accepted": (_counter("connections_accepted", "Connections that clients have made."), ()),
    "backend_failures": (
        _counter("backend_attempts_failed", "Attempts to connect to a backend that failed."),
        (),
    ),
    "bytes_from_clients": (_RELAYED, ("clients",)),
    "bytes_from_backends": (_RELAYED, ("backends",)),
    "access_lines_lost": (
        _counter("access_log_lines_lost", "Lines that the access log did not take in time."),
        (),
    ),
    "log_lines_lost": (
        _counter("log_lines_lost", "Lines that standard error did not take in time."),
        (),
    ),
    "orders": (_counter("worker_orders", "Orders of the master that workers have carried out."), ()),
    "requests": (_counter("http_requests", "Requests, answered or not."), ()),
}

# What the master measures when it is asked, by short names.
MEASURED: Mapping[str, Metric] = {
    "build": _gauge("build_info", "Always 1; the labels tell.", "version", "python", "openssl"),
    "start": _gauge("start_time_seconds", "When the master started, since 1970."),
    "open": _gauge("connections_open", "Clients' connections, by the worker's slot.", "slot"),
    "limit": _gauge("connections_limit", "How many connections all ready workers may hold."),
    "workers": _gauge("workers", "Workers, by state.", "state"),
    "restarts": _counter("worker_restarts", "Workers that died without being asked to."),
    "generation": _gauge("generation", "The number of the generation in force; 0: none yet."),
    "generations": _gauge("generations", "Generations that have workers; more than one: some drain."),
    "ready": _gauge("ready", "1 when clients are served, 0 before that and while stopping."),
    "reloads": _counter("reloads", "Reloads, by outcome: done, or refused.", "outcome"),
    "reload_ok": _gauge("last_reload_success", "1 when the last reload was done; 1 before any."),
    "reload_at": _gauge("last_reload_timestamp_seconds", "When the last reload ended, since 1970."),
    "certificates": _gauge("certificates", "Certificates that are served.", "frontend"),
    "certificate_expiry": _gauge(
        "certificate_expiry_seconds",
        "Time left of certificates; of the 100 that have least.",
        "frontend",
        "file",
    ),
    "ocsp_age": _gauge(
        "ocsp_response_age_seconds",
        "How old OCSP responses are; of the certificates above.",
        "frontend",
        "file",
    ),
    "ocsp_expiry": _gauge(
        "ocsp_response_expiry_seconds",
        "Time left of OCSP responses; of the certificates above.",
        "frontend",
        "file",
    ),
    "ticket_keys": _gauge("ticket_keys", "Keys of tickets, by role.", "role"),
    "ticket_key_age": _gauge("ticket_key_age_seconds", "How long the issuing key has been issuing."),
    "backend_up": _gauge(
        "backend_up", "1 when a server of a cluster gets connections.", "cluster", "server"
    ),
    "backend_active": _gauge(
        "backend_active", "Connections, or exchanges, with a server.", "cluster", "server"
    ),
    "backend_used": _counter(
        "backend_used", "Connections, or exchanges, with a server.", "cluster", "server"
    ),
    "backend_failures": _counter(
        "backend_failures",
        "Refused, too slow, reset before an answer, or answered with garbage.",
        "cluster",
        "server",
    ),
    "backend_servers": _gauge(
        "backend_servers", "Servers of a cluster, by state; a name's addresses each.", "cluster", "state"
    ),
    "cpu": _counter(
        "process_cpu_seconds",
        "User and system time; of those that died, as last seen.",
        "process",
        "slot",
    ),
    "rss": _gauge("process_resident_memory_bytes", "Resident memory.", "process", "slot"),
    "fds": _gauge("process_open_fds", "Open descriptors.", "process", "slot"),
    "fds_max": _gauge("process_max_fds", "How many there may be in each process."),
}


def _metrics() -> Iterator[Metric]:
    yield from (family.metric for family in FRONTEND.values() if family.metric is not None)
    yield from (metric for metric, _ in TOTALS.values())
    yield from MEASURED.values()


METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _metrics()}


# Where the words stand.


def _numbered() -> Iterator[tuple[str, dict[str, int]]]:
    """Every family, with the index of each label's word."""
    index = 0
    for name, family in FRONTEND.items():
        yield name, {label: index + at for at, label in enumerate(family.labels)}
        index += len(family.labels)


FAMILIES: Mapping[str, Mapping[str, int]] = dict(_numbered())

FAILED = FAMILIES["handshakes_failed"]

DROPPED = FAMILIES["dropped"]

RESPONSES = (0, *FAMILIES["responses"].values())
"""By the first digit of the status."""

FRONTEND_WORDS = sum(map(len, FAMILIES.values()))


def as_plain(words: Sequence[int] | Tally) -> dict[str, dict[str, int]]:
    """A frontend's counters by family and label; those at zero are left out."""
    return {
        family: {label: words[index] for label, index in labels.items() if words[index]}
        for family, labels in FAMILIES.items()
    }


def from_plain(plain: Mapping[str, Mapping[str, int]]) -> list[int]:
    """A frontend's words, of what as_plain() gave; what it told that is not counted here is left out."""
    words = [0] * FRONTEND_WORDS
    for family, labels in FAMILIES.items():
        told = plain.get(family, {})
        for label, index in labels.items():
            words[index] = int(told.get(label, 0))
    return words


# Counting, in a frontend's words.


def _histogram_at(family: str, bounds: tuple[float, ...]) -> Histogram:
    of, label = FRONTEND[family].sum or ("", "")
    places = FAMILIES[family]
    return Histogram(
        places[str(bounds[0])], bounds, FAMILIES[of][label], round(1 / FRONTEND[family].unit)
    )


_HANDSHAKES = tuple(FAMILIES["handshakes"].values())
_CPU = tuple(FAMILIES["handshake_cpu_microseconds"].values())
_MISSES = tuple(FAMILIES["resumption_misses"].values())
_FULL = _histogram_at("handshake_seconds_full", HANDSHAKE_BOUNDS)
_RESUMED = _histogram_at("handshake_seconds_resumed", HANDSHAKE_BOUNDS)
_AGE = _histogram_at("ticket_age_seconds", TICKET_AGE_BOUNDS)
_CONNECT = _histogram_at("backend_connect_seconds", BACKEND_BOUNDS)
RESPONSE_SECONDS = _histogram_at("backend_response_seconds", BACKEND_BOUNDS)
_NEW, KEPT = FAMILIES["backend_connections"].values()
_CIPHERS = {number: FAMILIES["ciphers"][name] for number, name in CIPHERS.items()}
_OTHER_CIPHER = FAMILIES["ciphers"][OTHER]
_GROUPS = {number: FAMILIES["groups"][name] for number, name in GROUPS.items()}
_OTHER_GROUP = FAMILIES["groups"][OTHER]


def new_tally() -> Tally:
    """One that nobody else reads."""
    return Tally(memoryview(bytearray(FRONTEND_WORDS * 8)).cast("q"))


def count_full(tally: Tally, seconds: float, cpu_nanoseconds: int, miss: int) -> None:
    """A full handshake that is done; `miss` is an outcome.Miss."""
    tally.add(_HANDSHAKES[0])
    tally.add(_CPU[0], cpu_nanoseconds // 1000)
    tally.observe(_FULL, seconds)
    tally.add(_MISSES[miss])


def count_resumed(
    tally: Tally, seconds: float, cpu_nanoseconds: int, age: int, *, from_cache: bool
) -> None:
    """One that resumed a session of `age` seconds, from a ticket or else from the cache."""
    how = 2 if from_cache else 1
    tally.add(_HANDSHAKES[how])
    tally.add(_CPU[how], cpu_nanoseconds // 1000)
    tally.observe(_RESUMED, seconds)
    tally.observe(_AGE, age)


def count_agreed(tally: Tally, cipher: int, group: int) -> None:
    """What a finished handshake has agreed on, by OpenSSL's numbers (CIPHERS, GROUPS)."""
    tally.add(_CIPHERS.get(cipher, _OTHER_CIPHER))
    tally.add(_GROUPS.get(group, _OTHER_GROUP))


def count_connect(tally: Tally, seconds: float) -> None:
    """A connection to a backend that has been made."""
    tally.observe(_CONNECT, seconds)


def count_use(tally: Tally, *, kept: bool) -> None:
    """A request that was sent to a backend."""
    tally.add(KEPT if kept else _NEW)
