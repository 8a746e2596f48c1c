"""From a new configuration to one that is in force, or to the reason why it is not.

What differs (changes.py) decides how: running workers follow by an order, so that their connections live
on; or a new generation comes up beside the old.  A reload is over when every worker has followed, or the
new generation has proved itself; those who ask meanwhile get one more, together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from termproxy import clock
from termproxy.config.load import Source
from termproxy.config.reach import may_connect
from termproxy.errors import ConfigError, StartError
from termproxy.master.changes import Change, Takes, changes, needs_new_workers
from termproxy.master.control import Request
from termproxy.master.generation import Checked, Generation, build, check
from termproxy.observability import logs
from termproxy.worker.orders import order, settings_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from termproxy.master.arbiter import Arbiter
    from termproxy.tls.certificates import Certificate

log = logging.getLogger("master")

WAITING_MAX = 16  # who may wait for an answer at a time
CHANGES_TOLD = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reload went."""

    at: str
    ok: bool
    detail: str
    changes: tuple[str, ...]


class Reloads:
    """`last` is how the latest went."""

    def __init__(self, arbiter: Arbiter, read_source: Callable[[], Source]) -> None:
        self.last: Outcome | None = None
        self.counts = {"done": 0, "refused": 0}
        self._arbiter = arbiter
        self._read_source = read_source
        self._changes: tuple[str, ...] = ()
        self._asked: list[Request] = []  # who waits for the reload that is under way
        self._ask_next: list[Request] = []  # and for the one after it, which reads what they wrote
        self._again: bool | None = None  # whether with new workers; None: not once more
        self._following: dict[
            int, int
        ] = {}  # workers under way, and the last order that each has to obey

    @property
    def is_under_way(self) -> bool:
        """Whether one is not decided yet, or was asked for and has not begun."""
        is_new = self._arbiter.supervisor.candidate is not None
        return is_new or bool(self._following) or self._again is not None

    def ask(self, request: Request | None = None, *, new_workers: bool = False) -> None:
        """Read the configuration anew; `new_workers` also when running ones could follow."""
        why = self._arbiter.succession.upgrade.why_no_change()
        if why is not None:
            log.error("not reloaded: %s", why)
            if request is not None:
                request.answer({"error": why})
            return
        if request is not None:
            if len(self._asked) + len(self._ask_next) >= WAITING_MAX:
                request.answer({"error": "too many wait for a reload already"})
                return
            self._ask_next.append(request)
        if self._arbiter.supervisor.stopping:
            self.give_up("termproxy is stopping")
        elif self._following or self._arbiter.supervisor.candidate is not None:
            self._again = new_workers or bool(self._again)
        else:
            self._begin(new_workers=new_workers)

    def tick(self) -> None:
        """See how the one under way is; begin another for those who asked meanwhile."""
        if self._following:
            self._see_who_has_followed()
        elif self._again is not None and self._arbiter.supervisor.candidate is None:
            new_workers, self._again = self._again, None
            self._begin(new_workers=new_workers)

    def _see_who_has_followed(self) -> None:
        """Or has gone: a replacement begins with the new settings."""
        children = self._arbiter.children
        self._following = {
            pid: number
            for pid, number in self._following.items()
            if pid in children and not children[pid].has_obeyed(number)
        }
        if not self._following:
            number = self._arbiter.supervisor.in_force
            self.ended(ok=True, detail=f"the workers of generation {number} follow")

    def ended(self, *, ok: bool, detail: str) -> None:
        at = clock.utc_now().isoformat(timespec="seconds")
        found, self._changes = self._changes, ()
        self.last = Outcome(at, ok, detail, found)
        self.counts["done" if ok else "refused"] += 1
        for line in found:
            log.info("%s %s", "changed:" if ok else "would change:", line)
        if ok:
            log.info("reloaded: %s", detail)
        else:
            log.error("not reloaded, the old configuration stays: %s", detail)
        self._arbiter.notifier.tell("READY=1")
        asked, self._asked = self._asked, []
        for request in asked:
            request.answer({"ok": ok, "detail": detail, "changes": found})

    def give_up(self, why: str) -> None:
        """There will be no reload any more."""
        for request in (*self._asked, *self._ask_next):
            request.answer({"error": why})
        self._asked, self._ask_next, self._again = [], [], None
        self._following.clear()

    def _begin(self, *, new_workers: bool) -> None:
        arbiter = self._arbiter
        self._asked, self._ask_next = self._ask_next, []
        arbiter.notifier.tell_reloading(clock.monotonic())
        try:
            source = self._read_source()
            checked = check(source, uid=os.getuid(), now=clock.utc_now(), stores=arbiter.stores)
            assert arbiter.supervisor.in_force is not None  # noqa: S101 - a reload follows a start
            old = arbiter.generations[arbiter.supervisor.in_force]
            found = changes(old.config, checked.config)
            certificates = list(_renewed_certificates(old, checked))
            self._changes = (*map(str, found), *certificates)[:CHANGES_TOLD]
            _warn_of_fixed(found)
            must_be_new = new_workers or arbiter.supervisor.resting or needs_new_workers(found)
            if must_be_new or not self._can_follow(old, checked):
                arbiter.begin(build(checked, arbiter.take_number()))
            elif self._changes:
                self._change(old, checked, source)
            else:
                self.ended(ok=True, detail="nothing has changed")
        except (ConfigError, StartError) as error:
            self.ended(ok=False, detail=str(error))

    def _can_follow(self, old: Generation, checked: Checked) -> bool:
        """Whether the running workers may connect where they would have to, and there is room on their
        board; then it has the new servers.
        """
        if not may_connect(old.ports, checked.config):
            return False
        return self._arbiter.backends.change(old.number, checked.config, clock.monotonic())

    def _change(self, old: Generation, checked: Checked, source: Source) -> None:
        """Have the running workers follow, and those that come after them begin so."""
        arbiter, config = self._arbiter, checked.config
        generation = replace(old, config=config, sites=checked.sites, warnings=checked.warnings)
        for warning in generation.warnings:
            log.warning("%s", warning)
        board, _ = arbiter.backends.boards(old.number)
        messages = [settings_order(source.values, source.base, board.keys)]
        for index, (before, after) in enumerate(zip(old.sites, checked.sites, strict=True)):
            shown, to_show = before.assembly.certificates, after.assembly.certificates
            messages.append(order(index, shown, to_show, after.store.pem))
        logs.set_up(config.log.level)
        arbiter.supervisor.set_drain(old.number, config.timeouts.drain)
        self._following = dict(arbiter.have_follow(generation, messages))


def _warn_of_fixed(found: Sequence[Change]) -> None:
    for change in found:
        if change.takes is Takes.RESTART:
            log.warning("%s", change)


def _renewed_certificates(old: Generation, checked: Checked) -> Iterator[str]:
    """What is shown by frontends that stay, and was not shown before."""
    before = {site.assembly.config.name: site for site in old.sites}
    for site in checked.sites:
        name = site.assembly.config.name
        if name in before:
            was = before[name]
            certificates = was.assembly.certificates, site.assembly.certificates
            if certificates[0] != certificates[1] or was.store.pem != site.store.pem:
                yield f"frontend {name}: renewed {renewed(*certificates)}"


def renewed(before: Sequence[Certificate], after: Sequence[Certificate]) -> str:
    """Which files, for the log."""
    known = {certificate.chain_sha256 for certificate in before}
    files = [str(each.chain_file) for each in after if each.chain_sha256 not in known]
    if not files:
        return "client CAs or CRLs" if list(before) == list(after) else "which files serve"
    return ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
