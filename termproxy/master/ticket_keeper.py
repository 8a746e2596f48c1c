"""Own the ring of ticket keys: start it, turn it as time goes, and write it where every worker reads it.

What the ring is at a time is decided in tls/tickets.py.  With `persist` it is also kept on disk, sealed;
with `ticket_keys` others make the keys, and files say what they are.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from termproxy.config.schema import Resumption
from termproxy.errors import StartError
from termproxy.master.state_dir import StateDir
from termproxy.tls import sealing, tickets
from termproxy.tls._openssl import TicketRing
from termproxy.tls.ticket_key_files import FileKeys, TicketKeyError, read_ticket_keys
from termproxy.tls.tickets import Ring, TooOldError

log = logging.getLogger("master")

RING_FILE = "tickets.sealed"
KEY_FILE = "tickets.key"  # what RING_FILE is sealed under
SEALED_MAX = 1 << 16  # bytes


class TicketKeyRefusedError(ValueError):
    """What the operator asked for cannot be done; the text says why."""


class TicketKeeper:
    """`now()` gives whole seconds since 1970, `random(n)` so many bytes."""

    def __init__(
        self,
        memory: TicketRing,
        now: Callable[[], int],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._memory = memory
        self._now = now
        self._random = random
        self._ring: Ring | None = None
        self._next_turn = tickets.FOREVER
        self._kept_in: StateDir | None = None  # None: not kept
        self._files: tuple[Path, ...] = ()
        self._file_keys: FileKeys | None = None
        self._numbers: dict[bytes, int] = {}  # of the files' keys, by id

    def use(self, settings: Resumption, state_dir: StateDir | None) -> None:
        """Live by these settings from now on; a ring that there is stays, with all its keys.

        StartError when the keys on disk cannot be read or written; then all stays as it was.
        """
        if settings.ticket_keys:
            self._use_files(settings.ticket_keys, settings.lifetime)
            self._kept_in = None
            if state_dir is not None:
                self._forget(state_dir)
            return
        keep_in = state_dir if settings.persist else None
        now = self._now()
        ring = None if self._files else self._ring
        if ring is None and keep_in is not None:
            ring = self._recall(keep_in, now)
        if ring is None:
            ring = self._new(settings.lifetime, settings.rotate)
        if keep_in is None and state_dir is not None:
            self._forget(state_dir)
        begins_to_keep = self._kept_in is None and keep_in is not None
        self._files, self._file_keys, self._kept_in = (), None, keep_in
        ring = tickets.with_settings(ring, settings.lifetime, settings.rotate, now)
        self._put(ring, is_new=begins_to_keep)

    def as_plain(self) -> dict[str, Any] | None:
        """The ring, secrets and all, for the master after us; None when it has to begin otherwise."""
        return None if self._ring is None or self._files else tickets.as_plain(self._ring)

    def go_on_with(self, plain: dict[str, Any]) -> None:
        """Go on with the ring of the master before us, under its settings until use() brings others.
        ValueError when it is not one.
        """
        self._put(self._turned(tickets.from_plain(plain), self._now()), is_new=True)

    def tick(self) -> None:
        """Turn the ring when it is time."""
        now = self._now()
        if self._ring is not None and now >= self._next_turn:
            self._put(self._turned(self._ring, now))

    def files(self) -> Sequence[Path]:
        """To be watched."""
        return self._files

    def look_at_files(self) -> None:
        """They may have changed.  What cannot be used leaves the keys as they were."""
        if self._ring is None or not self._files:
            return
        try:
            self._use_files(self._files, self._ring.lifetime)
        except StartError as error:
            log.error("the ticket keys of before stay: %s", error)

    # The operator's verbs.

    def rotate(self) -> None:
        """Issue with the next key from now on; what was issued is redeemed."""
        self._put(tickets.rotate(self._own_ring(), self._now()))

    def revoke(self) -> None:
        """Redeem no ticket that was made before now."""
        ring = self._own_ring()
        self._put(tickets.revoke(ring, self._random(tickets.SEED_SIZE), self._now()))

    def export(self, key: bytes, salt: bytes) -> bytes:
        """The ring and its schedule, sealed under `key`, for another machine."""
        return self._sealed(self._own_ring(), key, salt)

    def take_over(self, sealed: bytes, key: bytes) -> None:
        """Go on with another machine's ring, as export() gave it."""
        ours, now = self._own_ring(), self._now()
        try:
            other = tickets.from_plain(orjson.loads(sealing.unseal(sealed, key)))
            self._put(tickets.adopt(ours, other, now))
        except ValueError as error:  # SealError, TooOldError and JSON's among them
            raise TicketKeyRefusedError(str(error)) from None

    def numbers(self) -> list[int]:
        """Of the keys that there are."""
        return [] if self._ring is None else [key.number for key in self._ring.keys]

    def status(self, issued: Mapping[int, int]) -> dict[str, Any]:
        """For the operator's eyes: nothing secret.  `issued` tells the tickets made with each key."""
        ring, now = self._ring, self._now()
        if ring is None:
            return {"keys": []}
        issuing = ring.issuing(now)
        keys = [
            {
                "number": key.number,
                "id": key.id.hex(),
                "role": "issuing" if key is issuing else key.role(now),
                "age_seconds": max(0, now - key.issue_from) if key.issue_from else None,
                "issue_from": _moment(key.issue_from),
                "issue_until": _moment(key.issue_until),
                "redeem_until": _moment(key.redeem_until),
                "tickets_issued": issued.get(key.number, 0),
            }
            for key in ring.keys
        ]
        return {
            "lifetime": ring.lifetime,
            "rotate": None if self._files else ring.rotate,
            "from_files": [str(file) for file in self._files],
            "persisted": self._kept_in is not None,
            "keys": keys,
        }

    # The ring.

    def _own_ring(self) -> Ring:
        if self._ring is None:
            raise TicketKeyRefusedError("there are no ticket keys yet")
        if self._files:
            names = ", ".join(map(str, self._files))
            raise TicketKeyRefusedError(f"the ticket keys come from {names}: change them there")
        return self._ring

    def _new(self, lifetime: int, rotate: int) -> Ring:
        return tickets.new_ring(self._random(tickets.SEED_SIZE), self._now(), lifetime, rotate)

    def _turned(self, ring: Ring, now: int) -> Ring:
        try:
            return tickets.advance(ring, now)
        except TooOldError as error:
            log.warning("%s: a new one starts", error)
            return self._new(ring.lifetime, ring.rotate)

    def _put(self, ring: Ring, *, is_new: bool = False) -> None:
        is_new = is_new or ring != self._ring
        self._ring = ring
        retiring = (key.redeem_until for key in ring.keys if key.secret)
        self._next_turn = tickets.FOREVER if self._files else min(ring.keys[-1].issue_from, *retiring)
        if not is_new:
            return
        self._memory.write(
            (key.number, key.id, key.secret, key.issue_from, key.issue_until, key.redeem_until)
            for key in ring.keys
        )
        if self._kept_in is not None:
            self._keep(self._kept_in, ring)

    # In files of others.

    def _use_files(self, files: tuple[Path, ...], lifetime: int) -> None:
        try:
            keys = read_ticket_keys(files)
        except TicketKeyError as error:
            raise StartError(f"{error}; {error.cure}") from None
        self._files = files
        if keys == self._file_keys and self._ring is not None and self._ring.lifetime == lifetime:
            return
        self._warn_of_readers()
        for secret in keys.secrets:
            self._numbers.setdefault(tickets.fixed_id(secret), len(self._numbers) + 1)
        self._file_keys = keys
        self._put(tickets.fixed_ring(keys.secrets, keys.issuing, lifetime, self._numbers))

    def _warn_of_readers(self) -> None:
        for file in self._files:
            try:
                mode = file.stat().st_mode
            except OSError:
                continue  # gone since it was read
            if mode & (stat.S_IRGRP | stat.S_IROTH):
                log.warning("the ticket keys in %s can be read by others; chmod 600 it", file)

    # On disk.

    def _keep(self, state_dir: StateDir, ring: Ring) -> None:
        try:
            key = self._sealing_key(state_dir)
            state_dir.write(RING_FILE, self._sealed(ring, key, self._random(sealing.SALT_SIZE)))
        except OSError as error:
            log.error("cannot keep the ticket keys in %s: %s", state_dir.path, error)
            self._forget(state_dir)

    def _forget(self, state_dir: StateDir) -> None:
        """What is on disk must not come back later: keys in it may be revoked by then."""
        try:
            state_dir.remove(RING_FILE)
        except OSError as error:
            log.error("cannot remove %s: %s; remove it", state_dir.path / RING_FILE, error)

    def _sealing_key(self, state_dir: StateDir) -> bytes:
        """The one on disk, or else a new one, which takes the place of what is there."""
        try:
            key = state_dir.read(KEY_FILE, sealing.KEY_SIZE)
        except OSError as error:
            log.error("%s cannot be used, and is replaced: %s", state_dir.path / KEY_FILE, error)
            key = None
        if key is None or len(key) != sealing.KEY_SIZE:
            key = self._random(sealing.KEY_SIZE)
            state_dir.write(KEY_FILE, key)
        return key

    def _recall(self, state_dir: StateDir, now: int) -> Ring | None:
        """The ring of before; one that is of no use is set aside, and a new one starts."""
        try:
            key = state_dir.read(KEY_FILE, sealing.KEY_SIZE)
            sealed = state_dir.read(RING_FILE, SEALED_MAX)
            if sealed is None:
                return None
            if key is None:
                raise ValueError(f"its key, {KEY_FILE}, is gone")  # noqa: TRY301 - as other damage
            ring = tickets.from_plain(orjson.loads(sealing.unseal(sealed, key)))
            return tickets.advance(ring, now)
        except (OSError, ValueError) as error:
            self._set_aside(state_dir, error)
            return None

    def _set_aside(self, state_dir: StateDir, error: Exception) -> None:
        file = state_dir.path / RING_FILE
        try:
            aside = state_dir.set_aside(RING_FILE)
        except FileNotFoundError:
            log.error("%s is not there, or its key is not to be read: %s", file, error)
            return
        except OSError as reason:
            raise StartError(f"{file}: {error}; it cannot be set aside: {reason.strerror}") from None
        log.error("%s cannot be used: %s; it is now %s, and new ticket keys start", file, error, aside)

    def _sealed(self, ring: Ring, key: bytes, salt: bytes) -> bytes:
        plain = orjson.dumps(tickets.as_plain(ring))
        return sealing.seal(plain, key, salt, self._random(sealing.NONCE_SIZE))


def _moment(seconds: int) -> int | None:
    """None for a time that is not set."""
    return seconds if 0 < seconds < tickets.FOREVER else None
