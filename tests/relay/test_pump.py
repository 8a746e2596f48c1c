"""One direction of a relay: what it does with each outcome, and that two of them are a relay."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from termproxy.errors import TlsError, TruncatedError
from termproxy.outcome import CLOSED, DONE, MORE, SINK_FULL, TRUNCATED, WANT_READ, WANT_WRITE
from termproxy.relay.pump import Pump, Ready
from tests.relay.fakes import BACKEND_FD, CLIENT_FD, Play

READ_CLIENT = (CLIENT_FD, Ready.READABLE)
READ_BACKEND = (BACKEND_FD, Ready.READABLE)
WRITE_CLIENT = (CLIENT_FD, Ready.WRITABLE)
WRITE_BACKEND = (BACKEND_FD, Ready.WRITABLE)

OURS = RuntimeError("a bug")
TLS = TlsError("bad record mac", 281, 0, 20, "client")
RESET = ConnectionResetError(104, "Connection reset by peer")


# Each outcome.


def test_bytes_that_went_through_change_nothing() -> None:
    play = Play()
    play.client_sends(100)
    play.backend_sends(65536)

    assert play.loop.waits_for == {READ_CLIENT, READ_BACKEND}
    assert play.loop.callbacks == []
    assert (play.ended, play.failed) == ([], [])


def test_an_event_that_brought_nothing_changes_nothing() -> None:
    play = Play()
    play.client_sends(WANT_READ)
    play.backend_sends(WANT_READ)

    assert play.loop.waits_for == {READ_CLIENT, READ_BACKEND}
    assert (play.ended, play.failed) == ([], [])


def test_more_is_read_in_the_loop_s_next_turn_and_not_in_this_one() -> None:
    """A client that sends without end must not keep the others waiting."""
    play = Play()
    play.client_sends(MORE, MORE, 10)

    assert play.end.log == ["decrypt"]
    assert play.loop.turn() == 1
    assert play.end.log == ["decrypt"] * 2
    assert play.loop.turn() == 1
    assert play.loop.turn() == 0
    assert play.end.log == ["decrypt"] * 3


def test_a_full_backend_stops_the_reading_of_the_client() -> None:
    play = Play()
    play.client_sends(b"what did not fit")

    assert play.loop.waits_for == {WRITE_BACKEND, READ_BACKEND}

    play.backend_takes(16)

    assert play.end.to_backend == b"what did not fit"
    assert play.loop.waits_for == {READ_CLIENT, READ_BACKEND}


def test_a_full_client_stops_the_reading_of_the_backend() -> None:
    play = Play()
    play.backend_sends(b"what did not fit")

    assert play.loop.waits_for == {READ_CLIENT, WRITE_CLIENT}

    play.client_takes(16)

    assert play.end.to_client == b"what did not fit"
    assert play.loop.waits_for == {READ_CLIENT, READ_BACKEND}


def test_what_was_kept_goes_in_as_many_pieces_as_the_backend_likes() -> None:
    play = Play()
    play.client_sends(b"0123456789")
    play.backend_takes(3, BlockingIOError())

    assert play.loop.waits_for == {WRITE_BACKEND, READ_BACKEND}

    play.backend_takes(BlockingIOError())
    play.backend_takes(1, 6)

    assert play.end.to_backend == b"0123456789"
    assert play.loop.waits_for == {READ_CLIENT, READ_BACKEND}


def test_what_was_kept_goes_in_as_many_pieces_as_the_client_likes() -> None:
    play = Play()
    play.backend_sends(b"0123456789")
    play.client_takes(3, WANT_WRITE)

    assert play.loop.waits_for == {READ_CLIENT, WRITE_CLIENT}

    play.client_takes(7)

    assert play.end.to_client == b"0123456789"
    assert play.loop.waits_for == {READ_CLIENT, READ_BACKEND}


def test_after_the_rest_has_gone_the_source_is_read_at_once() -> None:
    """OpenSSL may hold bytes that no event announces."""
    play = Play()
    play.client_sends(b"rest", 5)
    play.backend_takes(4)

    assert play.end.log == ["decrypt", "decrypt"]


def test_a_sink_may_be_full_again_and_again() -> None:
    play = Play()
    play.client_sends(b"one", b"two", b"three")
    play.backend_takes(3)
    play.backend_takes(3)
    play.backend_takes(5)

    assert play.end.to_backend == b"onetwothree"
    assert play.loop.waits_for == {READ_CLIENT, READ_BACKEND}
    assert sum(watcher.closed for watcher in play.loop.watchers) == 3


def test_a_read_that_must_write_first_waits_for_the_client_to_take_it() -> None:
    """The answer to a key update: the client's socket is full, not the backend's."""
    play = Play()
    play.client_sends(WANT_WRITE, 8)

    assert play.loop.waits_for == {WRITE_CLIENT, READ_BACKEND}

    play.client_takes()

    assert play.end.log == ["decrypt", "decrypt"]
    assert play.loop.waits_for == {READ_CLIENT, READ_BACKEND}


# Ends.


def test_the_client_s_end_is_passed_on_as_a_half_close() -> None:
    play = Play()
    play.client_sends(CLOSED)

    assert play.end.log == ["decrypt", "encrypt", "half-close"]
    assert play.ended == [play.to_backend]
    assert play.to_backend.ended
    assert not play.to_client.ended
    assert play.loop.waits_for == {READ_BACKEND}


def test_the_backend_s_end_is_passed_on_as_a_close_notify() -> None:
    play = Play()
    play.backend_sends(CLOSED)

    assert play.end.log == ["encrypt", "close_notify"]
    assert play.ended == [play.to_client]
    assert play.loop.waits_for == {READ_CLIENT}


def test_a_request_then_its_answer_end_in_this_order() -> None:
    play = Play()
    play.client_sends(CLOSED)
    play.backend_sends(5)
    play.backend_sends(CLOSED)

    assert play.ended == [play.to_backend, play.to_client]
    assert play.end.log[-1] == "close_notify"
    assert play.nothing_is_left()


def test_a_backend_that_ends_first_still_hears_the_client() -> None:
    play = Play()
    play.backend_sends(CLOSED)
    play.client_sends(5)
    play.client_sends(CLOSED)

    assert play.ended == [play.to_client, play.to_backend]
    assert play.nothing_is_left()


def test_the_second_end_needs_no_half_close() -> None:
    """Both sockets are closed next, which says it, too."""
    play = Play()
    play.backend_sends(CLOSED)
    play.client_sends(CLOSED)

    assert "half-close" not in play.end.log


def test_a_backend_that_has_ended_unseen_needs_no_half_close() -> None:
    """The loop would have come to it next."""
    play = Play()
    play.end.encrypts = [CLOSED]
    play.client_sends(CLOSED)

    assert play.end.log == ["decrypt", "encrypt", "close_notify"]
    assert play.ended == [play.to_client, play.to_backend]
    assert play.nothing_is_left()


def test_the_client_s_end_lets_nothing_overtake_what_it_has_not_taken() -> None:
    play = Play()
    play.backend_sends(b"kept")
    play.client_sends(CLOSED)

    assert play.end.log == ["encrypt", "decrypt", "half-close"]


def test_a_relay_that_is_over_when_the_client_s_end_is_passed_on_is_told_once() -> None:
    play = Play()
    play.to_client._on_failure = lambda *_: close(play)
    play.end.encrypts = [RESET]
    play.client_sends(CLOSED)

    assert play.end.log == ["decrypt", "encrypt"]
    assert play.ended == []
    assert play.nothing_is_left()


def test_an_end_behind_bytes_that_did_not_fit_waits_for_them() -> None:
    play = Play()
    play.client_sends(b"last words", CLOSED)

    assert play.end.log == ["decrypt"]

    play.backend_takes(10)

    assert play.end.to_backend == b"last words"
    assert play.end.log == ["decrypt", "decrypt", "encrypt", "half-close"]
    assert play.ended == [play.to_backend]


def test_a_close_notify_that_does_not_fit_goes_later_and_counts_once() -> None:
    play = Play()
    play.end.shutdowns = [WANT_WRITE, DONE]
    play.backend_sends(CLOSED)

    assert play.ended == []
    assert play.loop.waits_for == {READ_CLIENT, WRITE_CLIENT}

    play.end.encrypts = [CLOSED]  # an end of stream is told as often as one asks
    play.client_takes()

    assert play.ended == [play.to_client]
    assert play.loop.waits_for == {READ_CLIENT}


def test_a_client_that_leaves_without_close_notify_is_a_failure() -> None:
    play = Play()
    play.client_sends(TRUNCATED)

    ((pump, error),) = play.failed
    assert pump is play.to_backend
    assert isinstance(error, TruncatedError)
    assert "half-close" not in play.end.log
    assert play.ended == []


def test_a_client_that_leaves_without_close_notify_after_ours_has_lost_nothing() -> None:
    play = Play()
    play.backend_sends(CLOSED)
    play.client_sends(TRUNCATED)

    assert play.failed == []
    assert play.ended == [play.to_client, play.to_backend]
    assert play.nothing_is_left()


# Failures.


@pytest.mark.parametrize("error", [OURS, TLS, RESET])
def test_what_reading_the_client_raises_is_told_and_stops_in_no_loop(error: Exception) -> None:
    play = Play()
    play.client_sends(error)

    assert play.failed == [(play.to_backend, error)]


@pytest.mark.parametrize("error", [OURS, TLS, RESET])
def test_what_reading_the_backend_raises_is_told(error: Exception) -> None:
    play = Play()
    play.backend_sends(error)

    assert play.failed == [(play.to_client, error)]


def test_what_writing_the_rest_raises_is_told() -> None:
    play = Play()
    play.client_sends(b"rest")
    play.backend_takes(RESET)
    play.backend_sends(b"rest")
    play.client_takes(TLS)

    assert play.failed == [(play.to_backend, RESET), (play.to_client, TLS)]


def test_a_half_close_that_fails_is_the_backend_s_failure() -> None:
    """ENOTCONN: it has reset the connection meanwhile."""
    play = Play()
    play.end.shutdowns = [RESET]
    play.client_sends(CLOSED)

    assert play.failed == [(play.to_backend, RESET)]
    assert play.ended == []


def test_a_close_notify_that_fails_is_the_client_s_failure() -> None:
    play = Play()
    play.end.shutdowns = [TLS]
    play.backend_sends(CLOSED)

    assert play.failed == [(play.to_client, TLS)]
    assert play.ended == []


# After close().


def close(play: Play) -> None:
    play.to_backend.close()
    play.to_client.close()


@pytest.mark.parametrize("step", [WANT_READ, MORE, b"rest", WANT_WRITE])
def test_a_close_leaves_no_watcher_whatever_was_awaited(step: int | bytes) -> None:
    play = Play()
    play.client_sends(step)
    play.backend_sends(b"rest" if step == b"rest" else WANT_READ)
    close(play)
    close(play)

    assert play.nothing_is_left()
    assert (play.ended, play.failed) == ([], [])


def test_more_that_was_put_off_is_not_read_after_a_close() -> None:
    play = Play()
    play.client_sends(MORE)
    close(play)
    play.loop.turn()

    assert play.end.log == ["decrypt"]
    assert (play.ended, play.failed) == ([], [])


def test_more_that_was_put_off_is_not_read_while_the_sink_is_full() -> None:
    """An event came first and filled the sink: reading on would lose what is kept."""
    play = Play()
    play.client_sends(MORE)
    play.client_sends(b"kept")
    play.loop.turn()

    assert play.end.log == ["decrypt", "decrypt"]
    play.backend_takes(4)
    assert play.end.to_backend == b"kept"


def test_a_failure_s_listener_may_close_the_pumps() -> None:
    play = Play()
    play.to_backend._on_failure = lambda *_: close(play)
    play.client_sends(OURS)

    assert play.nothing_is_left()


def test_an_end_s_listener_may_close_the_pumps() -> None:
    play = Play()
    play.to_client._on_end = lambda *_: close(play)
    play.backend_sends(CLOSED)

    assert play.nothing_is_left()


def test_a_close_gives_back_what_was_kept() -> None:
    play = Play()
    play.client_sends(b"kept")
    play.to_backend.close()

    assert play.to_backend._rest is None


def test_only_its_two_directions_are_pumps() -> None:
    play = Play()
    pump = Pump(play.loop, play.end.scratch, (play.end, 0), play.end, (print, print))  # type: ignore[arg-type]
    for unknown in (pump._sink_fd, pump._end_sink, lambda: pump._push(memoryview(b""))):
        with pytest.raises(NotImplementedError):
            unknown()


# Any order of events.


class Relay(RuleBasedStateMachine):
    """Whatever the two ends say, and in whatever order: nothing is lost, doubled or left over."""

    @initialize()
    def start(self) -> None:
        self.play = Play()
        self.kept: dict[str, bytes] = {"client": b"", "backend": b""}
        self.sent: dict[str, bytes] = {"client": b"", "backend": b""}
        self.count = 0

    def waiting(self, *wait: tuple[int, int]) -> bool:
        return set(wait) <= self.play.loop.waits_for

    @precondition(lambda self: self.waiting(READ_CLIENT))
    @rule(step=st.sampled_from([5, WANT_READ, MORE, SINK_FULL]))
    def client_sends(self, step: int) -> None:
        self.play.client_sends(self.kept_for("backend") if step == SINK_FULL else step)

    @precondition(lambda self: self.waiting(READ_CLIENT))
    @rule(unseen=st.sampled_from([5, WANT_READ, SINK_FULL, CLOSED]))
    def client_ends(self, unseen: int) -> None:
        """While the backend has done something that no event has told of yet."""
        if self.waiting(READ_BACKEND):
            self.play.end.encrypts += [self.kept_for("client") if unseen == SINK_FULL else unseen]
        self.play.client_sends(CLOSED)

    @precondition(lambda self: self.waiting(READ_BACKEND))
    @rule(step=st.sampled_from([5, WANT_READ, SINK_FULL, CLOSED]))
    def backend_sends(self, step: int) -> None:
        self.play.backend_sends(self.kept_for("client") if step == SINK_FULL else step)

    def kept_for(self, side: str) -> bytes:
        self.count += 1
        piece = f"<{self.count}>".encode()
        self.sent[side] += piece
        return piece

    @precondition(lambda self: self.waiting(WRITE_BACKEND))
    @rule(count=st.integers(1, 9))
    def backend_takes(self, count: int) -> None:
        left = len(self.play.to_backend._rest or b"")
        if count >= left:
            self.play.backend_takes(left)
        else:
            self.play.backend_takes(count, BlockingIOError())

    @precondition(lambda self: self.waiting(WRITE_CLIENT))
    @rule(count=st.integers(1, 9))
    def client_takes(self, count: int) -> None:
        left = len(self.play.to_client._rest or b"")
        if count >= left:
            self.play.client_takes(left)
        else:
            self.play.client_takes(count, WANT_WRITE)

    @rule()
    def turn(self) -> None:
        self.play.loop.turn()

    @invariant()
    def each_direction_reads_or_writes_or_has_ended(self) -> None:
        for pump, read, write in (
            (self.play.to_backend, READ_CLIENT, WRITE_BACKEND),
            (self.play.to_client, READ_BACKEND, WRITE_CLIENT),
        ):
            assert self.waiting(read) + self.waiting(write) == (not pump.ended)

    @invariant()
    def what_was_kept_arrives_in_order_and_once(self) -> None:
        end, play = self.play.end, self.play
        rests = bytes(play.to_backend._rest or b""), bytes(play.to_client._rest or b"")
        assert end.to_backend + rests[0] == self.sent["backend"]
        assert end.to_client + rests[1] == self.sent["client"]

    @invariant()
    def nobody_failed(self) -> None:
        assert self.play.failed == []

    def teardown(self) -> None:
        if hasattr(self, "play"):
            close(self.play)
            self.play.loop.turn()
            assert self.play.nothing_is_left()


TestRelay = Relay.TestCase
TestRelay.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
