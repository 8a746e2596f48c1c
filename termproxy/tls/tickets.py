"""The ring of session-ticket keys: which key issues, which ones still redeem, and which comes next.

    next        known to every worker, so that none of them lags when its time comes
    issuing     makes the tickets now
    redeeming   makes none any more; tickets it has made are good until the last of them has expired
    retired     its secret has been wiped; its id stays for a while, to tell why a ticket is not redeemed

Keys come from a seed that is hashed onwards with each: what was before cannot be computed from what is
now.  Machines that share a ring so rotate to the same keys at the same times, without talking.  Times
are whole seconds since 1970, UTC.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

SEED_SIZE = 32  # bytes
FOREVER = 2**62
SECRET_SIZE = 32
ID_SIZE = 8

KEYS_MAX = 32  # room in shared memory: for what redeems in a lifetime, issues, is next, and has retired
RETIRED_MAX = 8
# A ring that was kept for long catches up key by key; beyond so many steps a new one is as good.
STEPS_MAX = 20_000


class TooOldError(ValueError):
    """The ring was left for so long that catching up is not worth it."""


@dataclass(frozen=True, slots=True)
class TicketKey:
    number: int  # counts up over the ring's life
    id: bytes  # the first half of the key name in a ticket (RFC 5077 §4)
    secret: bytes = field(repr=False)  # empty: retired
    issue_from: int
    issue_until: int
    redeem_until: int

    def role(self, now: int) -> str:
        """One of the words above; of two that could issue the newer does, see Ring.issuing."""
        if not self.secret or now >= self.redeem_until:
            return "retired"
        if now >= self.issue_until:
            return "redeeming"
        return "issuing" if now >= self.issue_from else "next"


@dataclass(frozen=True, slots=True)
class Ring:
    """Keys, oldest first; the last one is next."""

    lifetime: int  # seconds that a ticket may be redeemed
    rotate: int  # seconds that a key issues
    seed: bytes = field(repr=False)  # of the key after the last one
    keys: tuple[TicketKey, ...]

    def issuing(self, now: int) -> TicketKey:
        """The newest key whose time has come; were the clock set back before all of them, the oldest."""
        live = [key for key in self.keys if key.secret]
        return next((key for key in reversed(live) if key.issue_from <= now), live[0])


def new_ring(seed: bytes, now: int, lifetime: int, rotate: int) -> Ring:
    """A ring whose first key issues from `now` on.  `seed` is SEED_SIZE random bytes."""
    return advance(_with_another_key(Ring(lifetime, rotate, seed, ()), now), now)


def advance(ring: Ring, now: int) -> Ring:
    """The ring as it is at `now`: there is a next key, and what is over is retired.

    TooOldError when the ring was left alone for longer than STEPS_MAX rotations.
    """
    if now - ring.keys[-1].issue_from > STEPS_MAX * ring.rotate:
        raise TooOldError(f"the ring of ticket keys was left {now - ring.keys[-1].issue_from} s ago")
    while ring.keys[-1].issue_from <= now:
        ring = _with_another_key(ring, ring.keys[-1].issue_until)
        ring = replace(ring, keys=_retired(ring.keys, now))
    return replace(ring, keys=_retired(ring.keys, now))


def rotate(ring: Ring, now: int) -> Ring:
    """Issue with the next key from now on; the one before still redeems.

    The schedule stays, so that other machines with this ring, who know the key, follow at its time; but
    no key issues for longer than two rotations.
    """
    ring = advance(ring, now)
    *older, current, following = ring.keys
    current = replace(
        current,
        issue_from=min(current.issue_from, now),
        issue_until=now,
        redeem_until=now + ring.lifetime,
    )
    issue_until = min(following.issue_until, now + 2 * ring.rotate)
    following = replace(
        following,
        issue_from=now,
        issue_until=issue_until,
        redeem_until=max(issue_until + ring.lifetime, following.redeem_until),
    )
    return advance(replace(ring, keys=(*older, current, following)), now)


def revoke(ring: Ring, seed: bytes, now: int) -> Ring:
    """Start anew from `seed`: no ticket that was made before is redeemed."""
    number = ring.keys[-1].number + 1
    begun = _with_another_key(replace(ring, seed=seed, keys=()), now, number)
    old = tuple(_wiped(key) for key in ring.keys)[-RETIRED_MAX:]
    return advance(replace(begun, keys=(*old, *begun.keys)), now)


def with_settings(ring: Ring, lifetime: int, rotate: int, now: int) -> Ring:
    """The ring under other settings.  Keys go on redeeming what they have issued."""
    ring = advance(ring, now)
    if (ring.lifetime, ring.rotate) == (lifetime, rotate):
        return ring
    *older, current, following = ring.keys
    issue_until = max(now, current.issue_from + rotate)
    current = replace(
        current,
        issue_until=issue_until,
        redeem_until=max(now + ring.lifetime, issue_until + lifetime),
    )
    following = replace(
        following,
        issue_from=issue_until,
        issue_until=issue_until + rotate,
        redeem_until=issue_until + rotate + lifetime,
    )
    keys = (*older, current, following)
    return advance(replace(ring, lifetime=lifetime, rotate=rotate, keys=keys), now)


def adopt(ring: Ring, other: Ring, now: int) -> Ring:
    """Go on with another machine's ring; what ours has issued is redeemed.  ValueError when it lives by
    other settings.
    """
    if (ring.lifetime, ring.rotate) != (other.lifetime, other.rotate):
        raise ValueError(
            f"that ring has lifetime = {other.lifetime} and rotate = {other.rotate}, "
            f"here they are {ring.lifetime} and {ring.rotate}; set both machines alike"
        )
    other = advance(other, now)
    known = {key.id for key in other.keys}
    # All but the next one may have issued: the clock may have been set back since.
    ours = [
        replace(
            key,
            issue_from=min(key.issue_from, now),
            issue_until=min(key.issue_until, now),
            redeem_until=min(key.redeem_until, now + ring.lifetime),
        )
        for key in advance(ring, now).keys[:-1]
        if key.id not in known
    ]
    # Numbers are this machine's own; what identifies a key everywhere is its id.
    first = ring.keys[-1].number + 1
    theirs = (replace(key, number=first + at) for at, key in enumerate(other.keys))
    return replace(other, keys=_retired((*ours, *theirs), now))


def fixed_ring(
    secrets: Sequence[bytes], issuing: int, lifetime: int, numbers: Mapping[bytes, int]
) -> Ring:
    """A ring of keys that others make and turn: the one at `issuing` issues, those after it are next,
    those before redeem.  `numbers` names them, by id.
    """
    keys = []
    for at, secret in enumerate(secrets):
        key_id = fixed_id(secret)
        begin = 0 if at <= issuing else FOREVER
        end = FOREVER if at >= issuing else 0
        keys.append(TicketKey(numbers[key_id], key_id, _hash(secret, b"secret"), begin, end, FOREVER))
    return Ring(lifetime, FOREVER, b"", tuple(keys))


def fixed_id(secret: bytes) -> bytes:
    return _hash(secret, b"id")[:ID_SIZE]


def as_plain(ring: Ring) -> dict[str, Any]:
    """For a sealed file, secrets and all."""
    return {
        "lifetime": ring.lifetime,
        "rotate": ring.rotate,
        "seed": ring.seed.hex(),
        "keys": [
            {
                "number": key.number,
                "id": key.id.hex(),
                "secret": key.secret.hex(),
                "issue_from": key.issue_from,
                "issue_until": key.issue_until,
                "redeem_until": key.redeem_until,
            }
            for key in ring.keys
        ],
    }


def from_plain(plain: dict[str, Any]) -> Ring:
    """What as_plain() gave.  ValueError for anything else."""
    try:
        ring = Ring(
            int(plain["lifetime"]),
            int(plain["rotate"]),
            bytes.fromhex(plain["seed"]),
            tuple(
                TicketKey(
                    number=int(each["number"]),
                    id=bytes.fromhex(each["id"]),
                    secret=bytes.fromhex(each["secret"]),
                    issue_from=int(each["issue_from"]),
                    issue_until=int(each["issue_until"]),
                    redeem_until=int(each["redeem_until"]),
                )
                for each in plain["keys"]
            ),
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a ring of ticket keys: {error}") from None
    for problem in _problems(ring):
        raise ValueError(f"not a ring of ticket keys: {problem}")
    return ring


def _problems(ring: Ring) -> Iterator[str]:
    if not 0 < ring.lifetime < FOREVER or not 0 < ring.rotate < FOREVER or len(ring.seed) != SEED_SIZE:
        yield "lifetime, rotate or seed"
    if not 2 <= len(ring.keys) <= KEYS_MAX:
        yield f"{len(ring.keys)} keys"
    for key in ring.keys:
        if not 0 < key.number < FOREVER:
            yield f"the number {key.number}"
        if len(key.id) != ID_SIZE or len(key.secret) not in {0, SECRET_SIZE}:
            yield f"the size of key {key.number}"
        if not 0 <= key.issue_from <= key.issue_until <= key.redeem_until < FOREVER:
            yield f"the times of key {key.number}"
    if ring.keys and not ring.keys[-1].secret:
        yield "no key is next"


def _with_another_key(ring: Ring, issue_from: int, number: int | None = None) -> Ring:
    if len(ring.seed) != SEED_SIZE:
        raise ValueError("a ring of fixed keys makes no others")  # anybody could compute them
    if number is None:
        number = ring.keys[-1].number + 1 if ring.keys else 1
    key = TicketKey(
        number=number,
        id=_hash(ring.seed, b"id")[:ID_SIZE],
        secret=_hash(ring.seed, b"secret"),
        issue_from=issue_from,
        issue_until=issue_from + ring.rotate,
        redeem_until=issue_from + ring.rotate + ring.lifetime,
    )
    return replace(ring, seed=_hash(ring.seed, b"seed"), keys=(*ring.keys, key))


def _retired(keys: tuple[TicketKey, ...], now: int) -> tuple[TicketKey, ...]:
    """Those whose last ticket has expired lose their secrets, and in the end are forgotten.

    So are the oldest, should there be more than there is room for: someone rotates by hand, and often.
    """
    marked = [_wiped(key) if now >= key.redeem_until else key for key in keys]
    retired = [key for key in marked if not key.secret]
    forgotten = retired[: max(0, len(retired) - RETIRED_MAX, len(marked) - KEYS_MAX)]
    kept = [key for key in marked if key not in forgotten]
    return tuple(kept[-KEYS_MAX:])


def _wiped(key: TicketKey) -> TicketKey:
    return replace(key, secret=b"")


def _hash(seed: bytes, what: bytes) -> bytes:
    return hmac.digest(seed, b"termproxy ticket key: " + what, "sha256")
