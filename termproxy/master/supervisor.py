"""Decide which workers should live.  Forks nothing, kills nothing, reads no clock.

The arbiter tells what happened and when; what comes back is what to do about it.

    a generation:  all its workers READY ──▶ proved ──▶ it is in force, older ones drain
                       └─ one failed ──────────┴─▶ it is dropped, the old one stays
    a worker:      STARTING ──▶ READY ──▶ DRAINING ──▶ gone
                        └─────────┴──────────┴───────▶ ABORTED ──▶ KILLED ──▶ gone

A worker that dies is replaced at once; one that dies young waits longer each time, so that a crash
loop costs nearly nothing.  One that is worn out drains when its successor, in the same slot, is ready.

    a generation's slots: as many as configured, one more or fewer when an operator says so; at rest none
    has a worker.  The next generation begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf

YOUNG = 2.0  # seconds; a worker that lived longer was fine, and its death starts no back-off
BACK_OFF_FIRST = 0.1  # seconds, doubled with each young death
BACK_OFF_MAX = 30.0  # seconds

START_TIMEOUT = 30.0  # seconds for a worker to become ready
HEARTBEAT_TIMEOUT = 5.0  # seconds of silence, twenty ticks, until a worker counts as hung
SLEPT = 1.0  # seconds between two ticks, four missed, tell that the master itself was stopped
ABORT_GRACE = 1.0  # seconds from SIGABRT to SIGKILL: to write where it hung
DRAIN_GRACE = 2.0  # seconds past its own cap until a draining worker is killed


class Phase(Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ENDING = "ending"
    ABORTED = "aborted"
    KILLED = "killed"


@dataclass(slots=True)
class WorkerProcess:
    pid: int
    slot: int
    generation: int
    spawned_at: float
    drain: float  # seconds it has to drain
    phase: Phase = Phase.STARTING
    deadline: float = field(default=0.0)  # when the phase has lasted too long; READY has none


# What to do.


@dataclass(frozen=True, slots=True)
class Spawn:
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class AskToDrain:
    pid: int


@dataclass(frozen=True, slots=True)
class EndNow:
    pid: int


@dataclass(frozen=True, slots=True)
class Abort:
    """The worker hangs: have it say where, and die."""

    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    pid: int


@dataclass(frozen=True, slots=True)
class Prove:
    """All workers of the generation are ready: find out whether they can serve."""

    generation: int


@dataclass(frozen=True, slots=True)
class InForce:
    """The generation's workers can serve; those before it drain."""

    generation: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The generation did not come up, and why; the one before it stays in force."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """No worker is left, as was asked for."""


Action = Spawn | AskToDrain | EndNow | Abort | Kill | Prove | InForce | Dropped | Stopped


@dataclass(slots=True)
class _Slot:
    """A place for one worker of the generation in force."""

    spawn_at: float | None = None  # None: it has a worker
    successor_not_before: float = 0.0
    young_deaths: int = 0

    def pause(self, lived: float) -> float:
        """Seconds to wait after the death of one that lived for so long."""
        if lived >= YOUNG:
            self.young_deaths = 0
            return 0.0
        pause: float = min(BACK_OFF_FIRST * 2**self.young_deaths, BACK_OFF_MAX)
        self.young_deaths = min(self.young_deaths + 1, 16)
        return pause


class Supervisor:
    def __init__(self) -> None:
        self.in_force: int | None = None
        self.candidate: int | None = None
        self.workers: dict[int, WorkerProcess] = {}
        self.stopping = False
        self.resting = False
        self._last_tick: float | None = None
        self._awake_since = 0.0
        self._slots: list[_Slot] = []
        self._candidate_slots = 0
        self._drain: dict[int, float] = {}

    def begin(self, generation: int, slots: int, drain: float) -> Iterator[Action]:
        """Bring up a generation of `slots` workers; `drain` is what they will have to drain."""
        self.candidate = generation
        self._candidate_slots = slots
        self._drain[generation] = drain
        for slot in range(slots):
            yield Spawn(slot, generation)

    def set_drain(self, generation: int, drain: float) -> None:
        """What workers of a generation will have to drain, from now on."""
        self._drain[generation] = drain
        for worker in self._of(generation):
            worker.drain = drain

    def on_spawned(self, spawned: Spawn, pid: int, now: float) -> None:
        self.workers[pid] = WorkerProcess(
            pid,
            spawned.slot,
            spawned.generation,
            spawned_at=now,
            drain=self._drain[spawned.generation],
            deadline=now + START_TIMEOUT,
        )

    def on_spawn_failed(self, spawn: Spawn, reason: str, now: float) -> Iterator[Action]:
        """There could be no process: no memory, or too many."""
        if spawn.generation == self.candidate:
            yield from self._drop_candidate(reason, now)
        elif spawn.generation == self.in_force:
            self._plan_worker(spawn.slot, lived=0.0, now=now)

    def on_ready(self, pid: int, now: float) -> Iterator[Action]:
        worker = self.workers.get(pid)
        if worker is None or worker.phase is not Phase.STARTING:
            return
        worker.phase = Phase.READY
        if worker.generation == self.candidate:
            ready = sum(w.phase is Phase.READY for w in self._of(self.candidate))
            if ready == self._candidate_slots:
                yield Prove(worker.generation)
        else:
            for other in self._of(worker.generation):
                if other.slot == worker.slot and other is not worker:
                    yield from self._drain_worker(other, now)  # it was worn out

    def on_proved(self, generation: int, now: float) -> Iterator[Action]:
        if generation == self.candidate and not self.stopping:
            yield from self._put_in_force(now)

    def on_refuted(self, generation: int, reason: str, now: float) -> Iterator[Action]:
        """Its workers cannot serve."""
        if generation == self.candidate and not self.stopping:
            yield from self._drop_candidate(reason, now)

    def on_exit(self, pid: int, reason: str, now: float) -> Iterator[Action]:
        """A worker has gone; `reason` says how, for the log and for who asked for a reload."""
        worker = self.workers.pop(pid, None)
        if worker is None:
            return
        if self.stopping:
            if not self.workers:
                yield Stopped()
        elif worker.generation == self.candidate:
            yield from self._drop_candidate(reason, now)
        elif worker.generation == self.in_force:
            lived = inf if worker.phase is Phase.DRAINING else now - worker.spawned_at
            self._plan_worker(worker.slot, lived, now)
            yield from self._spawn_what_is_due(now)

    def on_tick(self, now: float, beats: Mapping[int, float]) -> Iterator[Action]:
        """Time has passed.  `beats` tells when each worker last showed life."""
        if self._last_tick is not None and now - self._last_tick > SLEPT:
            self._awake_since = now  # we were stopped, and the workers perhaps with us
        self._last_tick = now
        for worker in list(self.workers.values()):
            yield from self._look_after(worker, now, beats.get(worker.pid, 0.0))
        if not self.stopping:
            yield from self._spawn_what_is_due(now)

    # What an operator, or a worker's age, asks for.

    @property
    def slots(self) -> int:
        """How many workers there should be, when they do not rest."""
        return len(self._slots)

    def grow(self, now: float) -> Iterator[Action]:
        """One slot more; or, at rest, the workers of before."""
        if self.in_force is None or self.stopping:
            return
        if self.resting:
            self.resting = False
            for slot in self._slots:
                slot.spawn_at = now
        else:
            self._slots.append(_Slot(spawn_at=now))
        yield from self._spawn_what_is_due(now)

    def shrink(self, now: float) -> Iterator[Action]:
        """One slot fewer, if it is not the only one: its worker drains."""
        if self.slots <= 1 or self.stopping:
            return
        self._slots.pop()
        for worker in self._of(self.in_force):
            if worker.slot == self.slots:
                yield from self._drain_worker(worker, now)

    def rest(self, now: float) -> Iterator[Action]:
        """Drain every worker, and have none until grow(), or a new generation."""
        if self.in_force is None or self.stopping:
            return
        self.resting = True
        for slot in self._slots:
            slot.spawn_at = None
        for worker in self._of(self.in_force):
            yield from self._drain_worker(worker, now)
        if self.candidate is not None:
            yield from self._drop_candidate("the workers were told to rest", now)

    def replace(self, pid: int, now: float) -> Iterator[Action]:
        """A worker is worn out: spawn its successor, if none is on its way and it is time for it."""
        worker = self.workers.get(pid)
        if worker is None or worker.phase is not Phase.READY or worker.generation != self.in_force:
            return
        if self.stopping or self.candidate is not None:
            return
        slot = self._slots[worker.slot]
        if now >= slot.successor_not_before and len(self._staying(worker.slot)) == 1:
            yield Spawn(worker.slot, worker.generation)

    # The end.

    def stop(self, now: float) -> Iterator[Action]:
        """Drain every worker; Stopped follows when the last has gone."""
        self.stopping = True
        for worker in self.workers.values():
            yield from self._drain_worker(worker, now)
        if not self.workers:
            yield Stopped()

    def stop_now(self, now: float) -> Iterator[Action]:
        self.stopping = True
        for worker in self.workers.values():
            yield from self._end_worker(worker, now)
        if not self.workers:
            yield Stopped()

    # A generation's changes.

    def _of(self, generation: int | None) -> list[WorkerProcess]:
        return [worker for worker in self.workers.values() if worker.generation == generation]

    def _put_in_force(self, now: float) -> Iterator[Action]:
        assert self.candidate is not None  # noqa: S101 - the caller looked
        self.in_force, self.candidate = self.candidate, None
        self.resting = False
        self._slots = [_Slot() for _ in range(self._candidate_slots)]
        yield InForce(self.in_force)
        for worker in self.workers.values():
            if worker.generation != self.in_force:
                yield from self._drain_worker(worker, now)

    def _drop_candidate(self, reason: str, now: float) -> Iterator[Action]:
        assert self.candidate is not None  # noqa: S101 - the caller looked
        dropped, self.candidate = self.candidate, None
        for worker in self._of(dropped):
            yield from self._end_worker(worker, now)
        yield Dropped(dropped, reason)

    # A worker's changes.

    def _drain_worker(self, worker: WorkerProcess, now: float) -> Iterator[Action]:
        if worker.phase in (Phase.STARTING, Phase.READY):
            worker.phase = Phase.DRAINING
            worker.deadline = now + worker.drain + DRAIN_GRACE
            yield AskToDrain(worker.pid)

    def _end_worker(self, worker: WorkerProcess, now: float) -> Iterator[Action]:
        if worker.phase in (Phase.STARTING, Phase.READY, Phase.DRAINING):
            worker.phase = Phase.ENDING
            worker.deadline = now + ABORT_GRACE
            yield EndNow(worker.pid)

    def _look_after(self, worker: WorkerProcess, now: float, beat: float) -> Iterator[Action]:
        match worker.phase:
            case Phase.KILLED:
                return
            case Phase.READY | Phase.DRAINING if self._is_silent(worker, now, beat):
                worker.phase = Phase.ABORTED
                worker.deadline = now + ABORT_GRACE
                yield Abort(worker.pid)
            case Phase.READY:
                return
            case _ if now >= worker.deadline:
                worker.phase = Phase.KILLED
                yield Kill(worker.pid)

    def _is_silent(self, worker: WorkerProcess, now: float, beat: float) -> bool:
        return now - max(beat, worker.spawned_at, self._awake_since) > HEARTBEAT_TIMEOUT

    def _staying(self, slot: int) -> list[WorkerProcess]:
        """Those of a slot of the generation in force that serve, or will."""
        phases = (Phase.STARTING, Phase.READY)
        return [w for w in self._of(self.in_force) if w.slot == slot and w.phase in phases]

    def _plan_worker(self, number: int, lived: float, now: float) -> None:
        """Have a worker in this slot again, if it should have one; the last lived for so long."""
        if self.resting or number >= self.slots:
            return
        slot = self._slots[number]
        if self._staying(number):
            # The worn-out one has gone, which matters no more, or its successor, which is not urgent.
            slot.successor_not_before = now + slot.pause(lived)
        elif slot.spawn_at is None:
            slot.spawn_at = now + slot.pause(lived)

    def _spawn_what_is_due(self, now: float) -> Iterator[Action]:
        if self.in_force is None:
            return
        for number, slot in enumerate(self._slots):
            if slot.spawn_at is not None and now >= slot.spawn_at:
                slot.spawn_at = None
                yield Spawn(number, self.in_force)
