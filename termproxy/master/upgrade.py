"""Give a running server to a new executable (USR2, `termproxy upgrade`), and take one over.

    the old master                                  the new master
    starts it, with its sockets and memory  ───▶    checks the configuration, brings its workers up
                                            ◀───    "ready"
    "go", with all counts until now         ───▶    takes the pidfile's place and the control socket's
                                            ◀───    "in_force"
    "noted", having told systemd            ───▶    tells systemd that it is ready
    drains its workers, reports counts      ───▶    adds them to its own, until the old one has gone

Whatever happens to the new one before its "in_force", the old one goes on as it was.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from termproxy import __version__, clock
from termproxy.errors import StartError
from termproxy.master.control import Request
from termproxy.master.handover import Handover, decode, encode
from termproxy.messages import MessageReader, message
from termproxy.shm import memory_file

log = logging.getLogger("master")

VARIABLE = "TERMPROXY_HANDOVER"  # the number of a descriptor, and nothing else

IN_FORCE_WITHIN = 60.0  # seconds from its start until the new master serves
TAKE_PLACE_WITHIN = 15.0  # seconds from "go" to "in_force"
KILL_AFTER = 10.0  # seconds that one which did not come up has to go by itself
ANSWER_WITHIN = 10.0  # seconds that the new master waits for a word of the old one
REPORT_EVERY = 0.5  # seconds
MESSAGE_MAX = 64 << 20  # bytes: the counters of many thousand frontends
READ = 1 << 20  # bytes at a time

Report = dict[str, Any]
"""What the old master's workers have counted until now, and what they have open."""


class Talk:
    """One master's end of what two of them say to each other."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader = MessageReader(MESSAGE_MAX)
        self._unsent = bytearray()
        self._heard: list[dict[str, Any]] = []  # that nobody was told of yet

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def say(self, body: dict[str, Any]) -> None:
        self._unsent += message(body)
        self.send()

    def send(self) -> None:
        """Send what the other one takes now."""
        try:
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # it has gone

    def hear(self) -> list[dict[str, Any]] | None:
        """What the other one has said since; None when it has gone."""
        heard, self._heard = self._heard, []
        try:
            data = self.sock.recv(READ)
        except (BlockingIOError, TimeoutError):
            return heard
        except OSError:
            data = b""
        if not data and not heard:
            return None
        return [*heard, *self._reader.feed(data)]

    def say_last(self, body: dict[str, Any]) -> None:
        """Wait until it is taken, but not for long."""
        self.sock.settimeout(1.0)
        try:
            self.sock.sendall(self._unsent + message(body))
        except OSError:
            pass  # it hangs, or has gone
        self._unsent.clear()

    def wait_for(self, *words: str) -> dict[str, Any] | None:
        """The next message with one of these; None when the other one has gone, or says nothing."""
        until = clock.monotonic() + ANSWER_WITHIN
        while (left := until - clock.monotonic()) > 0:
            self.sock.settimeout(left)
            said = self.hear()
            self.sock.setblocking(False)
            if said is None:
                return None
            for at, each in enumerate(said):
                if each.keys() & set(words):
                    self._heard = said[at + 1 :]
                    return each
        raise StartError(f"the old master has not answered within {ANSWER_WITHIN:g} s")


class Upgrade:
    """The old master's side.

    `make_handover(talk)` tells all that the new one gets, `make_report()` what was counted until now.
    `may_not()` says why there can be no upgrade now, or nothing.  `on_in_force(pid)` is called when the
    new one serves, `on_failed(reason)` when it does not come up.
    """

    def __init__(  # noqa: PLR0913 - what the arbiter does in it
        self,
        selector: selectors.BaseSelector,
        *,
        may_not: Callable[[], str | None],
        make_handover: Callable[[int], Handover],
        environment: Callable[[], Mapping[str, str]],
        make_report: Callable[[], Report],
        on_in_force: Callable[[int], None],
        on_failed: Callable[[str], None],
        on_told_to_end: Callable[[], None],
        on_told_to_reopen: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._may_not = may_not
        self._make_handover = make_handover
        self._environment = environment
        self._make_report = make_report
        self._on_in_force = on_in_force
        self._on_failed = on_failed
        self._on_told_to_end = on_told_to_end
        self._on_told_to_reopen = on_told_to_reopen
        self._talk: Talk | None = None
        self._pid: int | None = None  # until it has been reaped
        self._asker: Request | None = None
        self._deadline = 0.0
        self._reason = ""  # why it does not come up
        self._is_sentenced = False
        self._next_report = 0.0
        self._version = ""
        self.is_done = False
        """Whether the new master serves: we only drain."""

    @property
    def is_under_way(self) -> bool:
        return self._pid is not None and not self.is_done

    def why_no_change(self) -> str | None:
        """Why what an operator changes now would be lost, as the next master is not told; or None."""
        if self.is_done:
            return f"process {self._pid} has just taken over; ask again, and it answers"
        return "an upgrade is under way; try again when it is over" if self.is_under_way else None

    def begin(self, asker: Request | None = None) -> None:
        """Start the new executable; `asker` is answered when it serves, or when it will not."""
        reason = self._why_not()
        if reason is None:
            try:
                self._start()
            except OSError as error:
                reason = f"cannot execute {error.filename or sys.executable}: {error.strerror}"
        if reason is not None:
            self._fail(reason, asker)
            return
        self._asker = asker
        log.info("upgrading: process %d is to take over", self._pid)

    def _why_not(self) -> str | None:
        if self.is_done:
            return f"process {self._pid} has taken over already, this one only drains"
        if self.is_under_way:
            return "an upgrade is under way already"
        if os.getpid() == 1:
            return "this is process 1, with which its container ends: start a new container instead"
        return self._may_not()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            handover = self._make_handover(theirs.fileno())
            self._pid = _execute(handover, self._environment())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._reason, self._is_sentenced, self._version = "", False, ""
        self._deadline = clock.monotonic() + IN_FORCE_WITHIN
        self._talk = Talk(ours)
        self._selector.register(ours, selectors.EVENT_READ, self._on_talk)

    def tick(self, now: float) -> None:
        if self.is_done:
            self._report(now)
        elif self._pid is not None and now >= self._deadline:
            if not self._is_sentenced:
                self._is_sentenced, self._deadline = True, now + KILL_AFTER
                self._refuse(f"it does not serve within {IN_FORCE_WITHIN:g} s")
                os.kill(self._pid, signal.SIGTERM)
            else:
                self._deadline = now + KILL_AFTER
                os.kill(self._pid, signal.SIGKILL)  # not reaped yet: it cannot have become another's

    def call_off(self, reason: str) -> None:
        """We are to stop: there is nothing that could be taken over."""
        if self.is_under_way:
            self._refuse(reason)

    def on_exit(self, pid: int, how: str) -> bool:
        """A process has been reaped; whether it was the new master."""
        if pid != self._pid:
            return False
        if self.is_done:
            log.error("process %d, which had taken over, %s", pid, how)
            self.close()
            return True
        while self._talk is not None and (said := self._talk.hear()):
            for each in said:  # its last words; it can no longer serve, whatever it says
                self._reason = self._reason or str(each.get("failed", ""))
        self._pid = None
        self.close()
        asker, self._asker = self._asker, None
        reason = self._reason or f"the new executable {how}; what it said is in the log"
        self._fail(reason, asker)
        return True

    def say_last(self) -> None:
        """At our end: our workers have gone, and count no more."""
        if self.is_done and self._talk is not None:
            self._talk.say_last({"report": self._make_report()})
        self.close()

    def close(self) -> None:
        """Let go of the talk; in a process just forked, too."""
        if self._talk is not None:
            if self._talk.sock.fileno() in self._selector.get_map():
                self._selector.unregister(self._talk.sock)
            self._talk.sock.close()
            self._talk = None

    def leave(self) -> None:
        """In a process just forked: this is the master's."""
        if self._talk is not None:
            self._talk.sock.close()

    # What the new master says.

    def _on_talk(self, now: float) -> None:
        talk = self._talk
        if talk is None:
            return
        talk.send()
        said = talk.hear()
        if said is None:
            self.close()  # when it has been reaped, it is told how it ended
            return
        for each in said:
            match each:
                case {"failed": str(reason)}:
                    self._reason = self._reason or reason
                case {"ready": str(version)} if not self._reason:
                    self._version = version
                    self._deadline = max(self._deadline, now + TAKE_PLACE_WITHIN)
                    talk.say({"go": self._make_report()})
                case {"in_force": True} if not self._reason and not self.is_done:
                    self._hand_over()
                    talk.say({"noted": True})
                case {"end": True} if self.is_done:
                    self._on_told_to_end()
                case {"reopen": True} if self.is_done:
                    self._on_told_to_reopen()

    def _hand_over(self) -> None:
        assert self._pid is not None  # noqa: S101 - it has just spoken
        self.is_done = True
        log.info("upgraded: process %d, termproxy %s, serves from now on", self._pid, self._version)
        asker, self._asker = self._asker, None
        self._on_in_force(self._pid)
        if asker is not None:
            asker.answer(
                {
                    "old": {"pid": os.getpid(), "version": __version__},
                    "new": {"pid": self._pid, "version": self._version},
                }
            )

    def _report(self, now: float) -> None:
        if self._talk is not None and now >= self._next_report:
            self._next_report = now + REPORT_EVERY
            if self._talk.has_unsent:
                self._talk.send()
            else:
                self._talk.say({"report": self._make_report()})

    def _refuse(self, reason: str) -> None:
        self._reason = self._reason or reason
        if self._talk is not None:
            self._talk.say({"refused": reason})

    def _fail(self, reason: str, asker: Request | None) -> None:
        log.error("not upgraded, this master goes on: %s", reason)
        self._on_failed(reason)
        if asker is not None:
            asker.answer({"error": f"not upgraded: {reason}"})


def _execute(handover: Handover, environment: Mapping[str, str]) -> int:
    """Start what is on disk now, as we were started: its process.  OSError when nothing is there."""
    encoded = encode(handover)
    memory = memory_file("termproxy-handover", len(encoded))
    try:
        os.pwrite(memory, encoded, 0)
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            dict(environment) | {VARIABLE: str(memory)},
            # To itself: that is how a descriptor is inherited (posix_spawn(3)).
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, fd) for fd in (memory, *handover.descriptors())],
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )
    finally:
        os.close(memory)


class Predecessor:
    """The new master's side: what the old one leaves, and how it gives its place up."""

    def __init__(self, handover: Handover) -> None:
        self.handover = handover
        self._talk = Talk(socket.socket(fileno=handover.talk))
        self.has_given_way = False
        self.open_connections = 0
        for fd in handover.descriptors():
            os.set_inheritable(fd, False)

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Predecessor | None:
        """The old master, if there is one.  StartError when what it leaves cannot be read."""
        number = environ.pop(VARIABLE, None)
        if number is None:
            return None
        try:
            return cls(decode(_read_and_wipe(int(number))))
        except (OSError, ValueError) as error:
            raise StartError(f"{VARIABLE}={number}: {error}") from None

    def say_failed(self, reason: str) -> None:
        if not self.has_given_way:
            self._talk.say({"failed": reason})

    def ask_for_place(self) -> Report | None:
        """We could serve: what was counted until now; None when the old master has died meanwhile.
        StartError when it does not give its place up.
        """
        self._talk.say({"ready": __version__})
        answer = self._talk.wait_for("go", "refused")
        self.has_given_way = True
        if answer is None:
            log.warning("the old master, process %d, has gone", self.handover.pid)
            return None
        if "refused" in answer:
            raise StartError(f"the old master goes on: {answer['refused']}")
        report: Report = answer["go"]
        return report

    def take_place(self) -> None:
        """We serve.  Returns when the old master has told systemd so; it drains from now on.  StartError
        when it has called the upgrade off in the last moment.
        """
        self._talk.say({"in_force": True})
        try:
            answer = self._talk.wait_for("noted", "refused")
        except StartError as error:
            log.warning("%s", error)
            return
        if answer is not None and "refused" in answer:
            raise StartError(f"the old master goes on: {answer['refused']}")

    def listen(
        self,
        selector: selectors.BaseSelector,
        on_report: Callable[[Report], None],
        on_gone: Callable[[], None],
    ) -> None:
        """Hear what it reports from now on, and that it has gone."""

        def on_talk(_: float) -> None:
            self._talk.send()
            said = self._talk.hear()
            for each in said or ():
                if "report" in each:
                    on_report(each["report"])
            if said is None:
                selector.unregister(self._talk.sock)
                self._talk.sock.close()
                on_gone()

        selector.register(self._talk.sock, selectors.EVENT_READ, on_talk)

    def end(self) -> None:
        """It need not drain any longer."""
        self._talk.say({"end": True})

    def reopen_logs(self) -> None:
        """Its workers write to logs that are to be opened anew."""
        self._talk.say({"reopen": True})

    def close(self) -> None:
        """In a process just forked, and at our end."""
        self._talk.sock.close()


def _read_and_wipe(fd: int) -> bytes:
    """What the old master has written; nothing of it stays there."""
    try:
        size = os.fstat(fd).st_size
        encoded = os.pread(fd, size, 0)
        os.pwrite(fd, bytes(size), 0)
    finally:
        os.close(fd)
    return encoded
