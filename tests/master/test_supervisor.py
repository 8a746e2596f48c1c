"""Which workers live: no fork, no clock, no signal; events in, actions out."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from termproxy.master.supervisor import (
    ABORT_GRACE,
    BACK_OFF_FIRST,
    BACK_OFF_MAX,
    DRAIN_GRACE,
    HEARTBEAT_TIMEOUT,
    START_TIMEOUT,
    YOUNG,
    Abort,
    Action,
    AskToDrain,
    Dropped,
    EndNow,
    InForce,
    Kill,
    Phase,
    Prove,
    Spawn,
    Stopped,
    Supervisor,
)

DRAIN = 30.0


def started(workers: int = 2, *, now: float = 0.0) -> Supervisor:
    """A supervisor whose generation 1 is in force; worker of slot 0 is process 100, and so on."""
    supervisor = Supervisor()
    bring_up(supervisor, 1, range(100, 100 + workers), now=now)
    return supervisor


def bring_up(supervisor: Supervisor, generation: int, pids: range, *, now: float = 0.0) -> list[Action]:
    """Begin a generation, have all its workers become ready and be proved: what that led to."""
    spawn_all(supervisor, generation, pids, now=now)
    actions: list[Action] = []
    for pid in pids:
        actions = [*supervisor.on_ready(pid, now)]
    assert actions == [Prove(generation)]
    return [*supervisor.on_proved(generation, now)]


def spawn_all(supervisor: Supervisor, generation: int, pids: range, *, now: float = 0.0) -> None:
    for action, pid in zip(supervisor.begin(generation, len(pids), DRAIN), pids, strict=True):
        assert isinstance(action, Spawn)
        supervisor.on_spawned(action, pid, now)


def beats(supervisor: Supervisor, now: float) -> dict[int, float]:
    """Everyone has just shown life."""
    return dict.fromkeys(supervisor.workers, now)


def generations(supervisor: Supervisor) -> tuple[int | None, int | None]:
    """In force, and to come."""
    return supervisor.in_force, supervisor.candidate


# The first start.


def test_a_generation_begins_with_a_worker_for_each_slot() -> None:
    assert [*Supervisor().begin(1, 3, DRAIN)] == [Spawn(0, 1), Spawn(1, 1), Spawn(2, 1)]


def test_a_generation_is_in_force_once_all_its_workers_are_ready_and_proved() -> None:
    supervisor = Supervisor()
    spawn_all(supervisor, 1, range(100, 102))

    assert [*supervisor.on_ready(100, 0.5)] == []
    assert generations(supervisor) == (None, 1)
    assert [*supervisor.on_ready(101, 0.5)] == [Prove(1)]
    assert generations(supervisor) == (None, 1)
    assert [*supervisor.on_proved(1, 0.6)] == [InForce(1)]
    assert generations(supervisor) == (1, None)


def test_a_generation_that_proves_unable_to_serve_is_dropped_with_the_reason() -> None:
    supervisor = started(workers=1)
    spawn_all(supervisor, 2, range(200, 201), now=5.0)
    assert [*supervisor.on_ready(200, 5.1)] == [Prove(2)]

    assert [*supervisor.on_refuted(2, "no handshake", 5.2)] == [EndNow(200), Dropped(2, "no handshake")]
    assert generations(supervisor) == (1, None)
    assert supervisor.workers[100].phase is Phase.READY


def test_a_proof_of_what_is_gone_changes_nothing() -> None:
    supervisor = started(workers=1)
    spawn_all(supervisor, 2, range(200, 201), now=5.0)
    assert [*supervisor.on_ready(200, 5.1)] == [Prove(2)]
    assert [*supervisor.on_exit(200, "crashed", 5.2)] == [Dropped(2, "crashed")]

    assert [*supervisor.on_proved(2, 5.3)] == []
    assert [*supervisor.on_refuted(2, "no handshake", 5.3)] == []
    assert generations(supervisor) == (1, None)


def test_a_proof_that_comes_after_a_stop_changes_nothing() -> None:
    supervisor = started(workers=1)
    spawn_all(supervisor, 2, range(200, 201), now=5.0)
    assert [*supervisor.on_ready(200, 5.1)] == [Prove(2)]
    assert [*supervisor.stop(5.2)] == [AskToDrain(100), AskToDrain(200)]

    assert [*supervisor.on_proved(2, 5.3)] == []
    assert [*supervisor.on_refuted(2, "no handshake", 5.3)] == []


def test_being_ready_counts_once() -> None:
    supervisor = Supervisor()
    spawn_all(supervisor, 1, range(100, 102))

    assert [*supervisor.on_ready(100, 0.5)] == []
    assert [*supervisor.on_ready(100, 0.6)] == []
    assert supervisor.in_force is None


def test_a_word_from_an_unknown_process_changes_nothing() -> None:
    supervisor = started()

    assert [*supervisor.on_ready(4711, 1.0)] == []
    assert [*supervisor.on_exit(4711, "exited", 1.0)] == []


def test_a_first_start_that_fails_is_dropped_with_the_reason() -> None:
    supervisor = Supervisor()
    spawn_all(supervisor, 1, range(100, 102))

    assert [*supervisor.on_exit(100, "exited with status 3: no rights", 0.5)] == [
        EndNow(101),
        Dropped(1, "exited with status 3: no rights"),
    ]
    assert supervisor.in_force is None
    assert supervisor.candidate is None
    assert [*supervisor.on_tick(1.0, {})] == []


def test_a_worker_that_never_becomes_ready_is_killed_and_its_generation_dropped() -> None:
    supervisor = Supervisor()
    spawn_all(supervisor, 1, range(100, 101))

    assert [*supervisor.on_tick(START_TIMEOUT - 0.1, {})] == []
    assert [*supervisor.on_tick(START_TIMEOUT, {})] == [Kill(100)]
    assert [*supervisor.on_tick(START_TIMEOUT + 100, {})] == []
    assert [*supervisor.on_exit(100, "was killed by SIGKILL", 31.0)] == [
        Dropped(1, "was killed by SIGKILL")
    ]


def test_a_first_spawn_that_fails_drops_the_generation() -> None:
    supervisor = Supervisor()
    spawns = [*supervisor.begin(1, 2, DRAIN)]
    assert isinstance(spawns[0], Spawn)
    supervisor.on_spawned(spawns[0], 100, 0.0)
    assert isinstance(spawns[1], Spawn)

    assert [*supervisor.on_spawn_failed(spawns[1], "fork: no memory", 0.0)] == [
        EndNow(100),
        Dropped(1, "fork: no memory"),
    ]


# Reload.


def test_a_reload_drains_the_old_workers_only_when_all_new_ones_are_proved() -> None:
    supervisor = started()
    spawn_all(supervisor, 2, range(200, 202), now=5.0)

    assert [*supervisor.on_ready(200, 5.1)] == []
    assert [*supervisor.on_ready(201, 5.2)] == [Prove(2)]
    assert generations(supervisor) == (1, 2)
    assert [*supervisor.on_proved(2, 5.3)] == [InForce(2), AskToDrain(100), AskToDrain(101)]
    assert supervisor.workers[100].phase is Phase.DRAINING


def test_a_reload_that_fails_leaves_the_old_generation_alone() -> None:
    supervisor = started()
    spawn_all(supervisor, 2, range(200, 202), now=5.0)
    assert [*supervisor.on_ready(200, 5.1)] == []

    assert [*supervisor.on_exit(201, "exited with status 3", 5.2)] == [
        EndNow(200),
        Dropped(2, "exited with status 3"),
    ]
    assert supervisor.in_force == 1
    assert supervisor.workers[100].phase is Phase.READY
    assert [*supervisor.on_exit(200, "exited with status 0", 5.3)] == []


def test_a_dropped_generation_s_worker_that_ignores_the_end_is_killed() -> None:
    supervisor = started()
    spawn_all(supervisor, 2, range(200, 202), now=5.0)
    assert [*supervisor.on_exit(201, "crashed", 5.0)] == [EndNow(200), Dropped(2, "crashed")]

    assert [*supervisor.on_tick(5.0 + ABORT_GRACE - 0.1, beats(supervisor, 5.9))] == []
    assert [*supervisor.on_tick(5.0 + ABORT_GRACE, beats(supervisor, 6.0))] == [Kill(200)]


def test_an_old_worker_that_dies_while_it_drains_is_not_replaced() -> None:
    supervisor = started()
    bring_up(supervisor, 2, range(200, 202), now=5.0)

    assert [*supervisor.on_exit(100, "exited with status 0", 6.0)] == []
    assert [*supervisor.on_tick(60.0, beats(supervisor, 60.0))] == [Kill(101)]


def test_a_worker_in_force_that_dies_during_a_reload_is_replaced_all_the_same() -> None:
    supervisor = started(now=0.0)
    spawn_all(supervisor, 2, range(200, 202), now=20.0)

    assert [*supervisor.on_exit(100, "crashed", 20.1)] == [Spawn(0, 1)]


def test_a_replacement_that_is_still_starting_drains_with_its_generation() -> None:
    supervisor = started(now=0.0)
    assert [*supervisor.on_exit(100, "crashed", 20.0)] == [Spawn(0, 1)]
    supervisor.on_spawned(Spawn(0, 1), 102, 20.0)

    actions = bring_up(supervisor, 2, range(200, 202), now=20.1)

    assert actions == [InForce(2), AskToDrain(101), AskToDrain(102)]
    assert [*supervisor.on_ready(102, 20.2)] == []


def test_a_reload_may_change_the_number_of_workers() -> None:
    supervisor = started(workers=3)

    assert bring_up(supervisor, 2, range(200, 201), now=20.0) == [
        InForce(2),
        AskToDrain(100),
        AskToDrain(101),
        AskToDrain(102),
    ]
    assert [*supervisor.on_exit(102, "exited with status 0", 21.0)] == []
    assert [*supervisor.on_exit(200, "crashed", 40.0)] == [Spawn(0, 2)]


def test_drain_time_is_that_of_the_workers_own_generation() -> None:
    supervisor = Supervisor()
    (spawn,) = supervisor.begin(1, 1, 5.0)
    assert isinstance(spawn, Spawn)
    supervisor.on_spawned(spawn, 100, 0.0)
    assert [*supervisor.on_ready(100, 0.0)] == [Prove(1)]
    assert [*supervisor.on_proved(1, 0.0)] == [InForce(1)]
    bring_up(supervisor, 2, range(200, 201), now=10.0)

    almost = 10.0 + 5.0 + DRAIN_GRACE - 0.1
    assert [*supervisor.on_tick(almost, beats(supervisor, almost))] == []
    assert [*supervisor.on_tick(almost + 0.1, beats(supervisor, almost))] == [Kill(100)]


# A worker in force that dies.


def test_a_worker_that_lived_long_is_replaced_at_once() -> None:
    supervisor = started(now=0.0)

    assert [*supervisor.on_exit(101, "crashed", YOUNG)] == [Spawn(1, 1)]


def test_a_worker_that_dies_young_is_replaced_after_a_pause_that_doubles_up_to_a_cap() -> None:
    """A crash loop must cost nearly nothing, and end soon after its cause has."""
    supervisor = started(workers=1, now=0.0)
    now, pid, pauses = 0.0, 100, []
    for _ in range(12):
        assert [*supervisor.on_exit(pid, "crashed", now)] == []
        due = next(
            now + tick / 1000
            for tick in range(1, 60_000)
            if [*supervisor.on_tick(now + tick / 1000, {})] == [Spawn(0, 1)]
        )
        pauses.append(due - now)
        now, pid = due, pid + 1
        supervisor.on_spawned(Spawn(0, 1), pid, now)

    expected = [min(BACK_OFF_FIRST * 2**n, BACK_OFF_MAX) for n in range(12)]
    assert pauses == pytest.approx(expected, abs=0.002)


def test_a_long_life_ends_the_back_off() -> None:
    supervisor = started(workers=1, now=0.0)
    assert [*supervisor.on_exit(100, "crashed", 1.0)] == []
    assert [*supervisor.on_tick(1.2, {})] == [Spawn(0, 1)]
    supervisor.on_spawned(Spawn(0, 1), 101, 1.2)
    assert [*supervisor.on_exit(101, "crashed", 1.2 + YOUNG)] == [Spawn(0, 1)]
    supervisor.on_spawned(Spawn(0, 1), 102, 20.0)

    assert [*supervisor.on_exit(102, "crashed", 20.0)] == []
    assert [*supervisor.on_tick(20.0 + BACK_OFF_FIRST, {})] == [Spawn(0, 1)]


def test_slots_back_off_by_themselves() -> None:
    supervisor = started(workers=2, now=0.0)

    assert [*supervisor.on_exit(100, "crashed", 1.0)] == []
    assert [*supervisor.on_exit(101, "crashed", 15.0)] == [Spawn(0, 1), Spawn(1, 1)]


def test_a_replacement_that_cannot_be_forked_is_tried_again_later() -> None:
    supervisor = started(workers=1, now=0.0)
    assert [*supervisor.on_exit(100, "crashed", 20.0)] == [Spawn(0, 1)]

    assert [*supervisor.on_spawn_failed(Spawn(0, 1), "fork: no memory", 20.0)] == []
    assert [*supervisor.on_tick(20.05, {})] == []
    assert [*supervisor.on_tick(20.0 + BACK_OFF_FIRST, {})] == [Spawn(0, 1)]


def test_a_failed_spawn_of_a_generation_that_is_gone_changes_nothing() -> None:
    supervisor = started(workers=1)
    bring_up(supervisor, 2, range(200, 201), now=5.0)

    assert [*supervisor.on_spawn_failed(Spawn(0, 1), "fork: no memory", 6.0)] == []
    assert supervisor.in_force == 2


def test_nothing_is_spawned_before_a_generation_is_in_force() -> None:
    supervisor = Supervisor()
    spawn_all(supervisor, 1, range(100, 102))

    assert [*supervisor.on_tick(1.0, {})] == []


# One more, one fewer.


def ready(supervisor: Supervisor, spawn: Action, pid: int, now: float) -> list[Action]:
    """Spawn a worker and have it become ready: what that led to."""
    assert isinstance(spawn, Spawn)
    supervisor.on_spawned(spawn, pid, now)
    return [*supervisor.on_ready(pid, now)]


def test_one_more_gets_a_slot_of_its_own() -> None:
    supervisor = started(workers=2)

    assert [*supervisor.grow(5.0)] == [Spawn(2, 1)]
    assert supervisor.slots == 3
    assert ready(supervisor, Spawn(2, 1), 102, 5.0) == []
    assert [*supervisor.on_exit(102, "crashed", 20.0)] == [Spawn(2, 1)]


def test_one_fewer_drains_the_last_slot_s_worker_which_is_not_replaced() -> None:
    supervisor = started(workers=3)

    assert [*supervisor.shrink(5.0)] == [AskToDrain(102)]
    assert supervisor.slots == 2
    assert [*supervisor.on_exit(102, "exited with status 0", 6.0)] == []
    assert [*supervisor.on_tick(60.0, beats(supervisor, 60.0))] == []


def test_the_only_worker_stays() -> None:
    supervisor = started(workers=1)

    assert [*supervisor.shrink(5.0)] == []
    assert supervisor.slots == 1


def test_one_fewer_while_its_slot_waits_for_a_replacement() -> None:
    supervisor = started(workers=2)
    assert [*supervisor.on_exit(101, "crashed", 0.5)] == []

    assert [*supervisor.shrink(0.5)] == []
    assert [*supervisor.on_tick(60.0, beats(supervisor, 60.0))] == []


def test_one_fewer_and_one_more_begins_anew_beside_the_one_that_drains() -> None:
    supervisor = started(workers=2)
    assert [*supervisor.shrink(5.0)] == [AskToDrain(101)]

    assert [*supervisor.grow(5.1)] == [Spawn(1, 1)]
    assert ready(supervisor, Spawn(1, 1), 102, 5.2) == []
    assert [*supervisor.on_exit(101, "exited with status 0", 6.0)] == []
    assert [*supervisor.on_exit(102, "crashed", 20.0)] == [Spawn(1, 1)]


def test_one_more_does_not_end_another_slot_s_back_off() -> None:
    supervisor = started(workers=1)
    assert [*supervisor.on_exit(100, "crashed", 0.0)] == []

    assert [*supervisor.grow(0.0)] == [Spawn(1, 1)]


def test_a_new_generation_has_as_many_as_are_configured() -> None:
    supervisor = started(workers=2)
    assert ready(supervisor, next(supervisor.grow(5.0)), 102, 5.0) == []
    bring_up(supervisor, 2, range(200, 202), now=6.0)

    assert supervisor.slots == 2


def test_nothing_grows_or_shrinks_or_rests_before_it_serves_or_once_it_stops() -> None:
    for supervisor in (Supervisor(), started()):
        stopped = [*supervisor.stop(1.0)]
        for change in (supervisor.grow, supervisor.shrink, supervisor.rest):
            assert [*change(2.0)] == []
        assert stopped


# Rest.


def test_at_rest_every_worker_drains_and_none_is_replaced() -> None:
    supervisor = started()

    assert [*supervisor.rest(5.0)] == [AskToDrain(100), AskToDrain(101)]
    assert [*supervisor.on_exit(100, "exited with status 0", 6.0)] == []
    assert [*supervisor.on_exit(101, "was killed by SIGKILL", 6.0)] == []
    assert [*supervisor.on_tick(60.0, {})] == []
    assert not supervisor.stopping


def test_at_rest_a_planned_replacement_is_not_made() -> None:
    supervisor = started(workers=1)
    assert [*supervisor.on_exit(100, "crashed", 0.0)] == []

    assert [*supervisor.rest(0.05)] == []
    assert [*supervisor.on_tick(60.0, {})] == []


def test_one_more_ends_the_rest_with_the_workers_of_before() -> None:
    supervisor = started()
    assert [*supervisor.rest(5.0)] == [AskToDrain(100), AskToDrain(101)]

    assert [*supervisor.grow(5.1)] == [Spawn(0, 1), Spawn(1, 1)]
    assert supervisor.slots == 2
    assert ready(supervisor, Spawn(0, 1), 102, 5.2) == []
    assert [*supervisor.on_exit(100, "exited with status 0", 6.0)] == []


def test_a_new_generation_ends_the_rest() -> None:
    supervisor = started()
    assert [*supervisor.rest(5.0)] != []
    bring_up(supervisor, 2, range(200, 202), now=6.0)

    assert [*supervisor.on_exit(200, "crashed", 20.0)] == [Spawn(0, 2)]


def test_a_generation_on_its_way_is_dropped_when_workers_are_to_rest() -> None:
    supervisor = started(workers=1)
    spawn_all(supervisor, 2, range(200, 201), now=5.0)

    assert [*supervisor.rest(5.1)] == [
        AskToDrain(100),
        EndNow(200),
        Dropped(2, "the workers were told to rest"),
    ]


# A worn-out worker.


def test_a_worn_out_worker_drains_when_its_successor_is_ready() -> None:
    supervisor = started(workers=2)

    assert [*supervisor.replace(100, 50.0)] == [Spawn(0, 1)]
    supervisor.on_spawned(Spawn(0, 1), 102, 50.0)
    assert [*supervisor.replace(100, 50.2)] == [], "one successor is enough"
    assert [*supervisor.on_ready(102, 50.5)] == [AskToDrain(100)]
    assert [*supervisor.replace(100, 50.7)] == []
    assert [*supervisor.on_exit(100, "exited with status 0", 51.0)] == []
    assert [*supervisor.on_exit(102, "crashed", 60.0)] == [Spawn(0, 1)]


def test_a_successor_that_dies_young_harms_nobody_and_the_next_waits_longer() -> None:
    supervisor = started(workers=1)
    now, pid, pauses = 50.0, 200, []
    for _ in range(4):
        assert [*supervisor.replace(100, now)] == [Spawn(0, 1)]
        supervisor.on_spawned(Spawn(0, 1), pid, now)
        assert [*supervisor.on_exit(pid, "crashed", now)] == []
        due = next(t for t in (now + n / 1000 for n in range(1, 9000)) if [*supervisor.replace(100, t)])
        pauses.append(due - now)
        now, pid = due, pid + 1

    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=0.002)
    assert supervisor.workers[100].phase is Phase.READY


def test_a_worn_out_worker_that_dies_leaves_its_slot_to_the_successor_that_starts() -> None:
    supervisor = started(workers=1)
    assert [*supervisor.replace(100, 50.0)] == [Spawn(0, 1)]
    supervisor.on_spawned(Spawn(0, 1), 101, 50.0)

    assert [*supervisor.on_exit(100, "crashed", 50.1)] == []
    assert [*supervisor.on_ready(101, 50.2)] == []
    assert [*supervisor.on_tick(52.0, beats(supervisor, 52.0))] == []


def test_a_successor_that_cannot_be_forked_is_tried_again_later() -> None:
    supervisor = started(workers=1)
    assert [*supervisor.replace(100, 50.0)] == [Spawn(0, 1)]
    assert [*supervisor.on_spawn_failed(Spawn(0, 1), "fork", 50.0)] == []

    assert [*supervisor.replace(100, 50.05)] == []
    assert [*supervisor.replace(100, 50.0 + BACK_OFF_FIRST)] == [Spawn(0, 1)]


def test_a_successor_that_dies_while_the_old_one_drains_is_replaced_in_its_time() -> None:
    supervisor = started(workers=1)
    assert [*supervisor.replace(100, 50.0)] == [Spawn(0, 1)]
    assert ready(supervisor, Spawn(0, 1), 101, 50.0) == [AskToDrain(100)]

    assert [*supervisor.on_exit(101, "crashed", 50.1)] == []
    assert [*supervisor.on_exit(100, "exited with status 0", 50.11)] == [], "its end hurries nothing"
    assert [*supervisor.on_tick(50.1 + BACK_OFF_FIRST, {})] == [Spawn(0, 1)]


def test_nobody_is_replaced_for_its_age_while_all_are_about_to_be() -> None:
    supervisor = started(workers=1)
    spawn_all(supervisor, 2, range(200, 201), now=5.0)
    assert [*supervisor.replace(100, 5.1)] == []

    supervisor = started(workers=1)
    assert [*supervisor.rest(5.0)] == [AskToDrain(100)]
    assert [*supervisor.replace(100, 5.1)] == []
    assert [*supervisor.replace(4711, 5.1)] == []


# A worker that hangs.


def test_a_silent_worker_is_aborted_and_then_killed() -> None:
    supervisor = started(workers=1)

    assert [*supervisor.on_tick(HEARTBEAT_TIMEOUT, {100: 0.0})] == []
    assert [*supervisor.on_tick(HEARTBEAT_TIMEOUT + 0.1, {100: 0.0})] == [Abort(100)]
    assert [*supervisor.on_tick(HEARTBEAT_TIMEOUT + 0.2, {100: 0.0})] == []
    assert [*supervisor.on_tick(HEARTBEAT_TIMEOUT + 0.1 + ABORT_GRACE, {100: 0.0})] == [Kill(100)]
    assert [*supervisor.on_tick(1000.0, {100: 0.0})] == []


def test_an_aborted_worker_is_replaced_when_it_has_gone() -> None:
    supervisor = started(workers=1, now=0.0)
    assert [*supervisor.on_tick(20.0, {100: 1.0})] == [Abort(100)]

    assert [*supervisor.on_exit(100, "was killed by SIGABRT", 20.2)] == [Spawn(0, 1)]


def test_a_worker_that_shows_life_is_left_alone() -> None:
    supervisor = started(workers=2)

    for tick in range(1000):
        assert [*supervisor.on_tick(tick * 1.0, beats(supervisor, tick - HEARTBEAT_TIMEOUT + 0.1))] == []


def test_a_draining_worker_that_hangs_is_aborted_before_its_cap() -> None:
    supervisor = started(workers=1)
    bring_up(supervisor, 2, range(200, 201), now=10.0)

    assert [*supervisor.on_tick(16.0, {100: 10.0, 200: 16.0})] == [Abort(100)]


def test_one_worker_s_silence_is_not_another_s() -> None:
    supervisor = started(workers=2)

    assert [*supervisor.on_tick(10.0, {100: 10.0, 101: 1.0})] == [Abort(101)]


def test_a_worker_asked_to_drain_while_it_starts_is_given_time_to() -> None:
    """It has shown no life yet because it is young, not because it hangs."""
    supervisor = Supervisor()
    spawn_all(supervisor, 1, range(100, 101), now=1000.0)
    assert [*supervisor.stop(1000.1)] == [AskToDrain(100)]

    assert [*supervisor.on_tick(1000.25, {100: 0.0})] == []


# Stop.


def test_a_stop_drains_everyone_and_ends_with_the_last() -> None:
    supervisor = started()

    assert [*supervisor.stop(50.0)] == [AskToDrain(100), AskToDrain(101)]
    assert [*supervisor.on_exit(100, "exited with status 0", 51.0)] == []
    assert [*supervisor.on_exit(101, "exited with status 0", 52.0)] == [Stopped()]


def test_a_worker_that_dies_during_a_stop_is_not_replaced() -> None:
    supervisor = started()
    assert [*supervisor.stop(50.0)] == [AskToDrain(100), AskToDrain(101)]

    assert [*supervisor.on_exit(100, "was killed by SIGSEGV", 50.1)] == []
    assert [*supervisor.on_tick(60.0, beats(supervisor, 60.0))] == []


def test_a_worker_that_outlives_its_drain_is_killed() -> None:
    supervisor = started(workers=1)
    assert [*supervisor.stop(50.0)] == [AskToDrain(100)]

    cap = 50.0 + DRAIN + DRAIN_GRACE
    assert [*supervisor.on_tick(cap - 0.1, beats(supervisor, cap))] == []
    assert [*supervisor.on_tick(cap, beats(supervisor, cap))] == [Kill(100)]


def test_a_stop_without_workers_is_done() -> None:
    assert [*Supervisor().stop(0.0)] == [Stopped()]
    assert [*Supervisor().stop_now(0.0)] == [Stopped()]


def test_a_stop_at_once_ends_everyone_also_those_that_drain() -> None:
    supervisor = started()
    bring_up(supervisor, 2, range(200, 202), now=10.0)

    assert [*supervisor.stop_now(11.0)] == [EndNow(pid) for pid in (100, 101, 200, 201)]


def test_a_second_stop_at_once_says_nothing_new() -> None:
    supervisor = started(workers=1)
    assert [*supervisor.stop(10.0)] == [AskToDrain(100)]
    assert [*supervisor.stop_now(11.0)] == [EndNow(100)]

    assert [*supervisor.stop_now(11.5)] == []
    assert [*supervisor.on_tick(11.0 + ABORT_GRACE, beats(supervisor, 12.0))] == [Kill(100)]
    assert [*supervisor.on_exit(100, "was killed by SIGKILL", 12.1)] == [Stopped()]


def test_a_stop_during_a_start_ends_the_candidate_too() -> None:
    supervisor = started(workers=1)
    spawn_all(supervisor, 2, range(200, 201), now=10.0)

    assert [*supervisor.stop(10.0)] == [AskToDrain(100), AskToDrain(200)]
    assert [*supervisor.on_ready(200, 10.1)] == []
    assert [*supervisor.on_exit(200, "was killed by SIGTERM", 10.2)] == []
    assert [*supervisor.on_exit(100, "exited with status 0", 10.3)] == [Stopped()]


# Whatever happens, in whatever order.


class Life(RuleBasedStateMachine):
    """Plays the kernel and the arbiter: processes start, get ready, hang, die; operators ask."""

    def __init__(self) -> None:
        super().__init__()
        self.supervisor = Supervisor()
        self.now = 1000.0
        self.next_pid = 1
        self.next_generation = 1
        self.alive: dict[int, Spawn] = {}
        self.hung: set[int] = set()
        self.fork_fails = False
        self.stopped = 0
        self.dropped: set[int] = set()
        self.proofs: list[int] = []  # under way, or given up

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Spawn():
                    self.spawn(action)
                case AskToDrain(pid) | EndNow(pid) | Abort(pid) | Kill(pid):
                    assert pid in self.alive, "a signal to a process that is gone may hit another"
                    if isinstance(action, Kill):
                        self.hung.discard(pid)
                case Prove(generation):
                    assert generation == self.supervisor.candidate
                    assert generation not in self.proofs
                    self.proofs.append(generation)
                case InForce(generation):
                    assert generation == self.supervisor.in_force
                    assert generation not in self.dropped
                case Dropped(generation, _):
                    assert generation != self.supervisor.in_force
                    self.dropped.add(generation)
                case Stopped():
                    assert not self.alive
                    self.stopped += 1

    def spawn(self, action: Spawn) -> None:
        supervisor = self.supervisor
        if action.generation in self.dropped:
            return  # as the arbiter does, with the spawns that follow one that failed
        assert action.generation in (supervisor.candidate, supervisor.in_force)
        assert not supervisor.stopping
        if self.fork_fails:
            self.act([*supervisor.on_spawn_failed(action, "fork", self.now)])
            return
        pid, self.next_pid = self.next_pid, self.next_pid + 1
        self.alive[pid] = action
        supervisor.on_spawned(action, pid, self.now)

    @initialize(workers=st.integers(1, 3))
    def start(self, workers: int) -> None:
        self.reload(workers)

    @precondition(lambda self: self.supervisor.candidate is None and not self.supervisor.stopping)
    @rule(workers=st.integers(1, 3))
    def reload(self, workers: int) -> None:
        generation, self.next_generation = self.next_generation, self.next_generation + 1
        self.act([*self.supervisor.begin(generation, workers, 10.0)])

    @rule(fails=st.booleans())
    def forking(self, fails: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        self.fork_fails = fails

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        pid = data.draw(st.sampled_from(sorted(self.alive)))
        self.act([*self.supervisor.on_ready(pid, self.now)])

    @rule()
    def all_ready(self) -> None:
        for pid in sorted(self.alive):
            self.act([*self.supervisor.on_ready(pid, self.now)])

    @precondition(lambda self: self.proofs)
    @rule(passes=st.booleans())
    def proved(self, passes: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        generation = self.proofs.pop()
        if passes:
            self.act([*self.supervisor.on_proved(generation, self.now)])
        else:
            self.act([*self.supervisor.on_refuted(generation, "no handshake", self.now)])

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def exit(self, data: st.DataObject) -> None:
        self.go(data.draw(st.sampled_from(sorted(self.alive))))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def hang(self, data: st.DataObject) -> None:
        self.hung.add(data.draw(st.sampled_from(sorted(self.alive))))

    @rule(seconds=st.sampled_from([0.05, 0.25, 1.0, 3.0, 8.0, 40.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        alive = {pid: -math.inf if pid in self.hung else self.now for pid in self.alive}
        self.act([*self.supervisor.on_tick(self.now, alive)])

    @rule(change=st.sampled_from(["grow", "shrink", "rest"]))
    def operate(self, change: str) -> None:
        self.act([*getattr(self.supervisor, change)(self.now)])

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def wear_out(self, data: st.DataObject) -> None:
        pid = data.draw(st.sampled_from(sorted(self.alive)))
        self.act([*self.supervisor.replace(pid, self.now)])

    @precondition(lambda self: not self.supervisor.stopping)
    @rule()
    def calm(self) -> None:
        """Given time and luck every slot has its worker again, and no other is left."""
        self.fork_fails = False
        for _ in range(6):
            self.now += 40.0
            for pid in sorted(self.hung):
                if self.supervisor.workers[pid].phase is Phase.KILLED:
                    self.go(pid)
            self.hung &= set(self.alive)
            self.tick(40.0)
            self.all_ready()
            while self.proofs:
                self.act([*self.supervisor.on_proved(self.proofs.pop(), self.now)])
            for pid, worker in list(self.supervisor.workers.items()):
                if worker.phase not in (Phase.STARTING, Phase.READY):
                    self.go(pid)
        supervisor = self.supervisor
        served = sorted(worker.slot for worker in supervisor.workers.values())
        assert supervisor.candidate is None
        if supervisor.in_force is not None:
            assert served == ([] if supervisor.resting else [*range(supervisor.slots)])

    def go(self, pid: int) -> None:
        del self.alive[pid]
        self.hung.discard(pid)
        self.act([*self.supervisor.on_exit(pid, "exited", self.now)])

    @precondition(lambda self: not self.supervisor.stopping)
    @rule()
    def stop(self) -> None:
        self.act([*self.supervisor.stop(self.now)])

    @precondition(lambda self: self.alive)
    @rule()
    def stop_now(self) -> None:
        self.act([*self.supervisor.stop_now(self.now)])

    @invariant()
    def nobody_is_forgotten(self) -> None:
        assert set(self.supervisor.workers) == set(self.alive)

    @invariant()
    def a_slot_in_force_has_one_worker_and_perhaps_its_successor(self) -> None:
        staying: dict[int, list[Phase]] = {}
        for worker in self.supervisor.workers.values():
            is_staying = worker.phase in (Phase.STARTING, Phase.READY)
            if worker.generation == self.supervisor.in_force and is_staying:
                staying.setdefault(worker.slot, []).append(worker.phase)
        assert all(slot < self.supervisor.slots for slot in staying)
        for phases in staying.values():
            assert len(phases) == len(set(phases))

    @invariant()
    def a_generation_is_in_force_or_to_come_or_gone(self) -> None:
        for worker in self.supervisor.workers.values():
            if worker.generation in self.dropped:
                assert worker.phase in (Phase.ENDING, Phase.KILLED, Phase.ABORTED)

    @invariant()
    def stopped_is_said_once_and_only_when_all_have_gone(self) -> None:
        assert self.stopped <= 1
        if self.supervisor.stopping:
            assert bool(self.alive) == (self.stopped == 0)

    def teardown(self) -> None:
        """However it went: a stop ends, even when nobody listens; silence is killed in bounded time."""
        if not self.supervisor.stopping:
            self.act([*self.supervisor.stop(self.now)])
        killed: set[int] = set()
        for _ in range(200):
            self.now += 0.25
            for action in self.supervisor.on_tick(self.now, dict.fromkeys(self.alive, self.now)):
                assert isinstance(action, Abort | Kill), action
                if isinstance(action, Kill):
                    killed.add(action.pid)
        killed |= {p for p, w in self.supervisor.workers.items() if w.phase is Phase.KILLED}
        assert killed == set(self.alive)
        for pid in sorted(killed):
            del self.alive[pid]
            self.act([*self.supervisor.on_exit(pid, "was killed by SIGKILL", self.now)])
        assert self.stopped == 1


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
