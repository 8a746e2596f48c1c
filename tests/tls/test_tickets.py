"""The ring of ticket keys over time: forward and back, by the clock and by hand, here and elsewhere."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from termproxy.config.schema import ROTATIONS_MAX
from termproxy.tls import tickets
from termproxy.tls.tickets import FOREVER, KEYS_MAX, RETIRED_MAX, Ring, TicketKey, TooOldError

BEGIN = 1_700_000_000
LIFETIME, ROTATE = 3600, 600
SEED, OTHER_SEED = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture
def ring() -> Ring:
    return tickets.new_ring(SEED, BEGIN, LIFETIME, ROTATE)


def redeems(ring: Ring, key: TicketKey, now: int) -> bool:
    """As the binding looks: by id, a key that has its secret and its time."""
    return any(
        each.id == key.id and each.secret == key.secret and now < each.redeem_until for each in ring.keys
    )


def roles(ring: Ring, now: int) -> list[str]:
    return [key.role(now) for key in ring.keys]


# By the clock.


def test_a_new_ring_has_a_key_that_issues_and_one_that_is_next(ring: Ring) -> None:
    assert roles(ring, BEGIN) == ["issuing", "next"]
    assert ring.issuing(BEGIN) == ring.keys[0]
    assert len({key.secret for key in ring.keys} | {key.id for key in ring.keys} | {ring.seed}) == 5


def test_the_next_key_was_there_before_it_issues(ring: Ring) -> None:
    following = ring.keys[1]
    later = tickets.advance(ring, BEGIN + ROTATE)
    assert later.issuing(BEGIN + ROTATE) == following
    assert roles(later, BEGIN + ROTATE) == ["redeeming", "issuing", "next"]


def test_a_key_changes_at_its_second_and_not_before(ring: Ring) -> None:
    first, second = ring.keys
    assert ring.issuing(BEGIN + ROTATE - 1) == first
    assert tickets.advance(ring, BEGIN + ROTATE - 1) == ring
    assert ring.issuing(BEGIN + ROTATE) == second, "workers need not wait for the master's tick"


def test_a_key_redeems_until_the_last_ticket_it_issued_has_expired(ring: Ring) -> None:
    first = ring.keys[0]
    last_ticket = BEGIN + ROTATE - 1
    expires = last_ticket + LIFETIME
    assert redeems(tickets.advance(ring, expires), first, expires)
    over = tickets.advance(ring, expires + 1)
    assert not redeems(over, first, expires + 1)
    assert over.keys[0] == dataclasses.replace(first, secret=b""), "its id tells why"


def test_retired_keys_are_forgotten_in_the_end(ring: Ring) -> None:
    now = BEGIN
    for _ in range(100):
        now += ROTATE
        ring = tickets.advance(ring, now)
    assert roles(ring, now).count("retired") == RETIRED_MAX
    assert len(ring.keys) == RETIRED_MAX + LIFETIME // ROTATE + 2


def test_nothing_that_redeems_is_forgotten_with_as_many_keys_as_the_settings_allow() -> None:
    ring = tickets.new_ring(SEED, BEGIN, ROTATIONS_MAX * 10, 10)
    issued: list[tuple[TicketKey, int]] = []
    for now in range(BEGIN, BEGIN + 1000):
        ring = tickets.advance(ring, now)
        assert len(ring.keys) <= KEYS_MAX
        issued.append((ring.issuing(now), now))
        issued = [(key, made) for key, made in issued if now < made + ring.lifetime]
        assert all(redeems(ring, key, now) for key, _ in issued)


def test_catching_up_gives_what_every_step_would_have_given(ring: Ring) -> None:
    walked = ring
    for now in range(BEGIN, BEGIN + 20 * ROTATE, 100):
        walked = tickets.advance(walked, now)
    assert tickets.advance(ring, BEGIN + 20 * ROTATE - 100) == walked


def test_a_ring_that_was_left_for_too_long_is_refused() -> None:
    ring = tickets.new_ring(SEED, BEGIN, 1, 1)
    with pytest.raises(TooOldError, match="was left"):
        tickets.advance(ring, BEGIN + 2 * tickets.STEPS_MAX)


def test_a_clock_that_is_set_back_still_finds_a_key_that_issues(ring: Ring) -> None:
    later = tickets.advance(ring, BEGIN + 10 * ROTATE)
    for now in (BEGIN + 9 * ROTATE, BEGIN, 0):
        again = tickets.advance(later, now)
        key = again.issuing(now)
        assert key.secret
        assert redeems(again, key, now + LIFETIME - 1)


def test_what_was_cannot_be_computed_from_what_is(ring: Ring) -> None:
    """Each seed is a hash of the one before: the ring holds none of the old ones."""
    later = tickets.advance(ring, BEGIN + LIFETIME + 2 * ROTATE)
    old = ring.keys[0].secret
    assert old not in [key.secret for key in later.keys]
    assert ring.seed != later.seed
    assert SEED not in (ring.seed, later.seed)


# By hand.


def test_rotating_issues_with_the_next_key_at_once(ring: Ring) -> None:
    first, second = ring.keys
    turned = tickets.rotate(ring, BEGIN + 10)
    assert turned.issuing(BEGIN + 10).id == second.id
    assert redeems(turned, first, BEGIN + 9 + LIFETIME)
    assert roles(turned, BEGIN + 10) == ["redeeming", "issuing", "next"]


def test_rotating_keeps_the_schedule_that_other_machines_follow(ring: Ring) -> None:
    turned = tickets.rotate(ring, BEGIN + 10)
    assert turned.keys[1].issue_until == ring.keys[1].issue_until
    assert turned.keys[2].id == tickets.advance(ring, BEGIN + ROTATE).keys[2].id


def test_rotating_twice_in_a_second_is_no_trouble(ring: Ring) -> None:
    turned = tickets.rotate(tickets.rotate(ring, BEGIN), BEGIN)
    assert turned.issuing(BEGIN).number == 3
    assert redeems(turned, ring.keys[0], BEGIN + LIFETIME - 1)


def test_rotating_often_does_not_make_a_key_issue_for_long(ring: Ring) -> None:
    for _ in range(10):
        ring = tickets.rotate(ring, BEGIN)
    key = ring.issuing(BEGIN)
    assert key.issue_until <= BEGIN + 2 * ROTATE
    assert redeems(ring, key, key.issue_until - 1 + LIFETIME)


def test_rotating_all_day_keeps_within_the_room(ring: Ring) -> None:
    for _ in range(100):
        ring = tickets.rotate(ring, BEGIN)
        assert len(ring.keys) <= KEYS_MAX
        assert ring.issuing(BEGIN).secret
    assert tickets.from_plain(tickets.as_plain(ring)) == ring


def test_revoking_leaves_nothing_that_redeems(ring: Ring) -> None:
    old = tickets.advance(ring, BEGIN + 3 * ROTATE)
    now = BEGIN + 3 * ROTATE + 1
    revoked = tickets.revoke(old, OTHER_SEED, now)
    assert not any(redeems(revoked, key, now) for key in old.keys)
    assert roles(revoked, now)[-2:] == ["issuing", "next"]
    assert {key.id for key in old.keys} <= {key.id for key in revoked.keys}, "they tell why"
    assert [key.number for key in revoked.keys] == list(range(1, len(revoked.keys) + 1))


def test_revoking_does_not_go_on_from_the_old_seed(ring: Ring) -> None:
    """Whoever has stolen the ring must not know the keys that come."""
    revoked = tickets.revoke(ring, OTHER_SEED, BEGIN)
    stolen = tickets.advance(ring, BEGIN + 10 * ROTATE)
    now = BEGIN + 10 * ROTATE
    known = {key.secret for key in stolen.keys}
    assert known.isdisjoint(key.secret for key in tickets.advance(revoked, now).keys if key.secret)


# Other settings.


def test_a_shorter_rotation_begins_with_the_key_that_issues(ring: Ring) -> None:
    changed = tickets.with_settings(ring, LIFETIME, 60, BEGIN + 30)
    assert changed.issuing(BEGIN + 59) == changed.keys[0]
    assert tickets.advance(changed, BEGIN + 60).issuing(BEGIN + 60).id == ring.keys[1].id


def test_a_longer_lifetime_lets_the_issuing_key_redeem_longer(ring: Ring) -> None:
    changed = tickets.with_settings(ring, 3 * LIFETIME, ROTATE, BEGIN + 1)
    last = BEGIN + ROTATE - 1 + 3 * LIFETIME
    assert redeems(tickets.advance(changed, last), ring.keys[0], last)


def test_a_shorter_lifetime_leaves_the_tickets_of_before_their_time(ring: Ring) -> None:
    changed = tickets.with_settings(ring, 60, ROTATE, BEGIN + 100)
    assert redeems(changed, ring.keys[0], BEGIN + 99 + LIFETIME)


def test_the_same_settings_change_nothing(ring: Ring) -> None:
    assert tickets.with_settings(ring, LIFETIME, ROTATE, BEGIN + 5) == ring


# Another machine's.


def test_two_machines_with_one_ring_turn_alike_without_talking(ring: Ring) -> None:
    here, there = ring, tickets.from_plain(orjson.loads(orjson.dumps(tickets.as_plain(ring))))
    chance = random.Random(7)
    now_here = now_there = BEGIN
    for _ in range(50):
        now_here += chance.randrange(0, 3 * ROTATE)
        while now_there < now_here:
            now_there = min(now_here, now_there + chance.randrange(1, ROTATE))
            there = tickets.advance(there, now_there)
        here = tickets.advance(here, now_here)
        assert here == there


def test_adopting_goes_on_with_the_others_keys_and_redeems_ours(ring: Ring) -> None:
    other = tickets.new_ring(OTHER_SEED, BEGIN - 100, LIFETIME, ROTATE)
    now = BEGIN + 30
    both = tickets.adopt(ring, other, now)
    assert both.issuing(now).id == other.keys[0].id
    assert redeems(both, ring.keys[0], now - 1 + LIFETIME)
    assert not redeems(both, ring.keys[1], now), "a key that never issued is not needed"
    assert [key.number for key in both.keys] == [1, 3, 4]


def test_adopting_ones_own_ring_changes_nothing_but_numbers(ring: Ring) -> None:
    now = BEGIN + 3 * ROTATE
    again = tickets.adopt(ring, ring, now)
    plain = [dataclasses.replace(key, number=0) for key in again.keys]
    assert plain == [dataclasses.replace(key, number=0) for key in tickets.advance(ring, now).keys]


def test_a_ring_with_other_settings_is_not_adopted(ring: Ring) -> None:
    other = tickets.new_ring(OTHER_SEED, BEGIN, LIFETIME, ROTATE + 1)
    with pytest.raises(ValueError, match="rotate = 601, here they are 3600 and 600"):
        tickets.adopt(ring, other, BEGIN)


def test_adopting_prefers_keys_that_redeem_to_retired_ones() -> None:
    lifetime, rotate = ROTATIONS_MAX * 10, 10
    ours, theirs = (tickets.new_ring(seed, BEGIN, lifetime, rotate) for seed in (SEED, OTHER_SEED))
    now = BEGIN + 2 * lifetime
    both = tickets.adopt(ours, theirs, now)
    assert len(both.keys) == KEYS_MAX
    assert "retired" not in roles(both, now)


# Keys that others make.


def test_a_fixed_ring_issues_with_the_one_that_is_named() -> None:
    secrets = [bytes([n]) * 80 for n in range(4)]
    numbers = {tickets.fixed_id(secret): n + 1 for n, secret in enumerate(secrets)}
    ring = tickets.fixed_ring(secrets, 2, LIFETIME, numbers)
    for now in (0, BEGIN, BEGIN * 2):
        assert ring.issuing(now).number == 3
        assert roles(ring, now) == ["redeeming", "redeeming", "issuing", "next"]
    assert len({key.secret for key in ring.keys}) == 4


def test_a_fixed_ring_makes_no_keys_of_its_own() -> None:
    """It has no seed: anybody could compute them."""
    secret = bytes(range(80))
    ring = tickets.fixed_ring([secret], 0, LIFETIME, {tickets.fixed_id(secret): 1})
    makers: list[Callable[[], Ring]] = [
        lambda: tickets.advance(ring, BEGIN),
        lambda: tickets.rotate(ring, BEGIN),
        lambda: tickets.with_settings(ring, 60, 60, BEGIN),
        lambda: tickets.new_ring(b"", BEGIN, LIFETIME, ROTATE),
    ]
    for make in makers:
        with pytest.raises(ValueError, match=r"fixed keys|was left"):
            make()


def test_a_fixed_key_does_not_tell_its_secret_in_its_name() -> None:
    secret = bytes(range(80))
    [key] = tickets.fixed_ring([secret], 0, LIFETIME, {tickets.fixed_id(secret): 1}).keys
    assert key.id not in secret
    assert key.secret not in secret
    assert key.id not in key.secret


# As plain values.


def test_no_secret_is_in_a_repr(ring: Ring) -> None:
    told = repr(ring) + repr(ring.keys) + str(ring)
    for secret in (ring.seed, *(key.secret for key in ring.keys)):
        assert secret.hex() not in told
        assert repr(secret)[2:-1] not in told


DAMAGE = [
    lambda plain: plain.pop("seed"),
    lambda plain: plain.update(seed="00"),
    lambda plain: plain.update(seed="zz"),
    lambda plain: plain.update(keys=None),
    lambda plain: plain.update(keys=[]),
    lambda plain: plain.update(keys=plain["keys"][:1]),
    lambda plain: plain.update(keys=plain["keys"] * 20),
    lambda plain: plain.update(keys=["text", "text"]),
    lambda plain: plain.update(lifetime=0),
    lambda plain: plain.update(lifetime=10**30),
    lambda plain: plain.update(rotate=-1),
    lambda plain: plain.update(rotate=float("inf")),
    lambda plain: plain["keys"][0].update(secret="00"),
    lambda plain: plain["keys"][0].update(id=""),
    lambda plain: plain["keys"][0].update(id=7),
    lambda plain: plain["keys"][0].update(number=10**30),
    lambda plain: plain["keys"][0].update(number=-1),
    lambda plain: plain["keys"][0].update(issue_from=plain["keys"][0]["issue_until"] + 1),
    lambda plain: plain["keys"][0].update(redeem_until=0),
    lambda plain: plain["keys"][1].update(redeem_until=10**30),
    lambda plain: plain["keys"][0].update(issue_from=-(10**30)),
    lambda plain: plain["keys"][1].update(secret=""),
    lambda plain: plain["keys"][1].pop("number"),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_ring_is_refused_with_a_value_error(ring: Ring, damage: Any) -> None:
    plain = tickets.as_plain(ring)
    damage(plain)
    with pytest.raises(ValueError, match=r"not a ring of ticket keys|hexadecimal"):
        tickets.from_plain(plain)


@pytest.mark.parametrize("plain", [None, 7, [], "text", {}])
def test_what_is_no_table_is_refused_too(plain: Any) -> None:
    with pytest.raises(ValueError, match="not a ring"):
        tickets.from_plain(plain)


# Everything, in any order.


class Life(RuleBasedStateMachine):
    """What a master does to its ring, beside a twin machine that only knows one export of it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.latest = BEGIN
        self.given: list[tuple[TicketKey, int, int]] = []  # tickets: the key, made when, good until when
        self.seeds = 0
        self.twins: tuple[Ring, Ring] | None = None

    @initialize(lifetime=st.integers(200, 2000), rotations=st.integers(1, ROTATIONS_MAX))
    def begin(self, lifetime: int, rotations: int) -> None:
        self.ring = tickets.new_ring(SEED, self.now, lifetime, -(-lifetime // rotations))

    def turn(self, seconds: int) -> None:
        self.now += seconds
        self.latest = max(self.now, self.latest)
        self.ring = tickets.advance(self.ring, self.now)
        if self.twins is not None:
            here, there = self.twins
            self.twins = tickets.advance(here, self.now), there

    def seed(self) -> bytes:
        """Never the same twice."""
        self.seeds += 1
        return self.seeds.to_bytes(32)

    @rule(seconds=st.integers(0, 5000))
    def forward(self, seconds: int) -> None:
        self.turn(seconds)

    @rule(seconds=st.integers(1, 3000))
    def back(self, seconds: int) -> None:
        """Tickets that are now of the future are refused in any case."""
        self.turn(-seconds)
        self.given = [ticket for ticket in self.given if ticket[1] <= self.now]

    @rule()
    def give_a_ticket(self) -> None:
        key = self.ring.issuing(self.now)
        self.given.append((key, self.now, self.now + self.ring.lifetime))

    @rule()
    def rotate(self) -> None:
        self.ring = tickets.rotate(self.ring, self.now)

    @rule()
    def revoke(self) -> None:
        revoked = self.ring.keys
        self.ring = tickets.revoke(self.ring, self.seed(), self.now)
        assert not any(redeems(self.ring, key, self.now) for key in revoked if key.secret)
        self.given.clear()

    @rule(lifetime=st.integers(200, 2000), rotations=st.integers(1, ROTATIONS_MAX))
    def change_the_settings(self, lifetime: int, rotations: int) -> None:
        """Of the lifetime of then and that of now, the binding takes the shorter."""
        rotate = -(-lifetime // rotations)
        self.ring = tickets.with_settings(self.ring, lifetime, rotate, self.now)
        assert (self.ring.lifetime, self.ring.rotate) == (lifetime, rotate)
        self.given = [(key, made, min(over, made + lifetime)) for key, made, over in self.given]

    @rule(age=st.integers(0, 3000))
    def adopt(self, age: int) -> None:
        other = tickets.new_ring(self.seed(), self.now - age, self.ring.lifetime, self.ring.rotate)
        self.ring = tickets.adopt(self.ring, other, self.now)
        following = tickets.advance(other, self.now).keys[-1]
        assert self.ring.keys[-1].id == following.id

    @rule()
    def export(self) -> None:
        plain = orjson.loads(orjson.dumps(tickets.as_plain(self.ring)))
        self.twins = self.ring, tickets.from_plain(plain)

    @precondition(lambda self: self.twins is not None)
    @rule()
    def compare_with_the_twin(self) -> None:
        assert self.twins is not None
        here, there = (tickets.advance(ring, self.latest) for ring in self.twins)
        assert here.keys[-2:] == there.keys[-2:]
        assert here.seed == there.seed
        self.twins = here, there

    @invariant()
    def there_is_a_key_that_issues_and_one_that_is_next(self) -> None:
        live = [key for key in self.ring.keys if key.secret]
        assert len(live) >= 2
        assert self.ring.issuing(self.now) in live
        assert self.ring.keys[-1].issue_from > self.now
        assert self.ring.keys[-1].secret

    @invariant()
    def it_fits_its_room(self) -> None:
        assert len(self.ring.keys) <= KEYS_MAX
        assert len({key.number for key in self.ring.keys}) == len(self.ring.keys)
        numbers = [key.number for key in self.ring.keys]
        assert numbers == sorted(numbers)

    @invariant()
    def what_issued_redeems_until_its_last_ticket_has_expired(self) -> None:
        self.given = [ticket for ticket in self.given if self.now < ticket[2]]
        redeemed = [ticket for ticket in self.given if redeems(self.ring, ticket[0], self.now)]
        if len(self.ring.keys) == KEYS_MAX and all(key.secret for key in self.ring.keys):
            self.given = redeemed  # there was no more room
        assert redeemed == self.given

    @invariant()
    def it_can_be_written_down(self) -> None:
        assert tickets.from_plain(orjson.loads(orjson.dumps(tickets.as_plain(self.ring)))) == self.ring

    @invariant()
    def no_time_is_beyond_all_bounds(self) -> None:
        assert all(key.redeem_until < FOREVER for key in self.ring.keys)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
