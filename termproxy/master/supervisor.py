"""Decide which workers should live.  Forks nothing, kills nothing, reads no clock.

The arbiter tells what happened and when; what comes back is what to do about it.

    a generation:  STARTING in all its workers ──▶ every one READY: it is in force, older ones drain
                                               └─▶ one failed: it is dropped, the old one stays
    a worker:      STARTING ──▶ READY ──▶ DRAINING ──▶ gone
                        └─────────┴──────────┴───────▶ ABORTED ──▶ KILLED ──▶ gone

A worker that dies is replaced at once; one that dies young waits longer each time, so that a crash
loop costs nearly nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

YOUNG = 10.0  # seconds; a worker that lived longer was fine, and its death starts no back-off
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
class InForce:
    """All workers of the generation are ready; those before it drain."""

    generation: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The generation did not come up, and why; the one before it stays in force."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """No worker is left, as was asked for."""


Action = Spawn | AskToDrain | EndNow | Abort | Kill | InForce | Dropped | Stopped


@dataclass(slots=True)
class _Slot:
    """A place for one worker of the generation in force."""

    spawn_at: float | None = None  # None: it has a worker
    young_deaths: int = 0


class Supervisor:
    def __init__(self) -> None:
        self.in_force: int | None = None
        self.candidate: int | None = None
        self.workers: dict[int, WorkerProcess] = {}
        self.stopping = False
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
            self._plan_replacement(spawn.slot, spawned_at=now, now=now)

    def on_ready(self, pid: int, now: float) -> Iterator[Action]:
        worker = self.workers.get(pid)
        if worker is None or worker.phase is not Phase.STARTING:
            return
        worker.phase = Phase.READY
        if worker.generation == self.candidate:
            ready = sum(w.phase is Phase.READY for w in self._of(self.candidate))
            if ready == self._candidate_slots:
                yield from self._put_in_force(now)

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
            self._plan_replacement(worker.slot, worker.spawned_at, now)
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

    def _plan_replacement(self, number: int, spawned_at: float, now: float) -> None:
        slot = self._slots[number]
        if now - spawned_at >= YOUNG:
            slot.young_deaths = 0
            slot.spawn_at = now
        else:
            slot.spawn_at = now + min(BACK_OFF_FIRST * 2**slot.young_deaths, BACK_OFF_MAX)
            slot.young_deaths = min(slot.young_deaths + 1, 16)

    def _spawn_what_is_due(self, now: float) -> Iterator[Action]:
        if self.in_force is None:
            return
        for number, slot in enumerate(self._slots):
            if slot.spawn_at is not None and now >= slot.spawn_at:
                slot.spawn_at = None
                yield Spawn(number, self.in_force)
