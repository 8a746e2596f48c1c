"""How losses are told apart, which are excused, and how processes' ledgers are added up."""

import json
import ssl

import pytest

from loading import ledger as module
from loading.ledger import Kill, Ledger, Loss, Trouble, WrongError, classify, judge
from tests.support.http_messages import CutError, MalformedError, Response


def alert() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error")
    error.reason = "TLSV1_ALERT_INTERNAL_ERROR"
    return error


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (ConnectionRefusedError(111, "refused"), Loss.REFUSED),
        (ConnectionResetError(104, "reset"), Loss.RESET),
        (BrokenPipeError(32, "broken pipe"), Loss.RESET),
        (TimeoutError("timed out"), Loss.TIMEOUT),
        (alert(), Loss.ALERT),
        (ssl.SSLCertVerificationError(1, "unable to get local issuer"), Loss.CERTIFICATE),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), Loss.CLOSED),
        (CutError("in the first line"), Loss.CLOSED),
        (CutError("in the body", Response([], status=200)), Loss.SHORT),
        (MalformedError("no status line"), Loss.MALFORMED),
        (WrongError(Loss.STATUS, "502"), Loss.STATUS),
        (WrongError(Loss.HASH, "of 10 bytes"), Loss.HASH),
    ],
)
def test_every_way_to_lose_a_request_has_its_class(error: Exception, loss: Loss) -> None:
    assert classify(error) is loss


def test_what_is_not_known_is_a_bug_of_the_load_and_no_loss() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        classify(OSError(9, "Bad file descriptor"))


def trouble(client: str = "127.0.0.1:40000", *, asked_again: bool = False) -> Trouble:
    return Trouble(
        operation="GET small",
        loss=Loss.RESET,
        detail="",
        client=client,
        opened=10.0,
        ended=12.0,
        asked_again=asked_again,
    )


def kill(at: float, *clients: str) -> Kill:
    return Kill(at=at, pid=1, clients=frozenset(clients))


def test_a_loss_on_a_connection_that_was_open_when_its_worker_was_killed_is_excused() -> None:
    judged = judge([trouble()], [kill(11.0, "127.0.0.1:40000")])
    assert (judged.lost, judged.killed) == ([], [trouble()])


@pytest.mark.parametrize(
    "other",
    [
        kill(11.0, "127.0.0.1:40001"),
        # The port was another connection's then.
        kill(9.9, "127.0.0.1:40000"),
        kill(12.1, "127.0.0.1:40000"),
    ],
)
def test_another_connection_s_kill_excuses_nothing(other: Kill) -> None:
    assert judge([trouble()], [other]).lost == [trouble()]


def test_one_without_a_connection_is_never_excused() -> None:
    assert judge([trouble("")], [kill(11.0, "127.0.0.1:40000")]).lost == [trouble("")]


def test_requests_that_were_asked_again_are_told_apart_and_not_lost() -> None:
    crossed = trouble(asked_again=True)
    assert judge([crossed], []).again == [crossed]
    assert judge([crossed], [kill(11.0, "127.0.0.1:40000")]).again_killed == [crossed]
    assert judge([crossed], []).lost == []


def test_ledgers_of_processes_add_up_and_come_through_json() -> None:
    total = Ledger()
    for _ in range(2):
        ledger = Ledger()
        ledger.shook_hands("1.3", offered=True, resumed=True)
        ledger.shook_hands("1.3", offered=True, resumed=False)
        ledger.shook_hands("1.2", offered=False, resumed=False)
        ledger.note(trouble())
        ledger.ended_idle = 3
        total.add(json.loads(json.dumps(ledger.take())))
        assert ledger.take() == Ledger().take()
    counted = {("1.3", "resumed"): 2, ("1.3", "refused"): 2, ("1.2", "full"): 2}
    assert dict(total.handshakes) == counted
    assert total.troubles == [trouble(), trouble()]
    assert total.ended_idle == 6


def test_losses_beyond_what_is_remembered_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOLD_MAX", 2)
    ledger = Ledger()
    for _ in range(5):
        ledger.note(trouble())
    ledger.note(trouble(asked_again=True))
    assert (len(ledger.troubles), ledger.untold) == (2, 3)
