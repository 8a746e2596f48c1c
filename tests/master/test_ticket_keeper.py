"""The master's ring: turned, written for the workers, kept on disk, taken over."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from termproxy.config.schema import Resumption
from termproxy.errors import StartError
from termproxy.master.state_dir import StateDir
from termproxy.master.ticket_keeper import KEY_FILE, RING_FILE, TicketKeeper, TicketKeyRefusedError
from termproxy.shm import shared_memory
from termproxy.tls import sealing
from termproxy.tls._openssl import RING_SIZE, TicketRing

BEGIN = 1_700_000_000
LIFETIME, ROTATE = 3600, 600
SETTINGS = Resumption(lifetime=LIFETIME, rotate=ROTATE)
KEPT = Resumption(lifetime=LIFETIME, rotate=ROTATE, persist=True)
KEY, SALT = bytes(range(32)), b"s" * 16


class Master:
    """A keeper, and what it is given: a clock to set, and chance that is the same every time."""

    def __init__(self, name: str = "here") -> None:
        self.memory = shared_memory(RING_SIZE)
        self.now = BEGIN
        self._asked = 0
        self._name = name
        self.keeper = TicketKeeper(TicketRing(self.memory), lambda: self.now, self._random)

    def _random(self, size: int) -> bytes:
        self._asked += 1
        return hashlib.shake_128(f"{self._name} {self._asked}".encode()).digest(size)

    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.keeper.tick()

    def keys(self) -> list[tuple[str, str]]:
        return [(key["role"], key["id"]) for key in self.keeper.status({})["keys"]]

    def roles(self) -> list[str]:
        return [role for role, _ in self.keys()]

    def issuing(self) -> str:
        [name] = [name for role, name in self.keys() if role == "issuing"]
        return name

    def written(self) -> bytes:
        """What workers see."""
        return self.memory[:]


@pytest.fixture
def master() -> Master:
    master = Master()
    master.keeper.use(SETTINGS, None)
    return master


@pytest.fixture
def state_dir(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


# Time.


def test_before_it_is_told_how_it_has_no_keys() -> None:
    master = Master()
    assert master.keeper.status({}) == {"keys": []}
    assert master.keeper.numbers() == []
    master.keeper.tick()
    with pytest.raises(TicketKeyRefusedError, match="no ticket keys yet"):
        master.keeper.rotate()


def test_it_turns_the_ring_when_it_is_time(master: Master) -> None:
    first, written = master.issuing(), master.written()
    assert master.roles() == ["issuing", "next"]
    master.wait(ROTATE - 1)
    assert (master.issuing(), master.written()) == (first, written)
    master.wait(1)
    assert master.roles() == ["redeeming", "issuing", "next"]
    assert master.written() != written
    assert master.keeper.numbers() == [1, 2, 3]


def test_a_retired_secret_leaves_the_memory_of_the_workers(master: Master) -> None:
    secret = master.written()[16 + 40 : 16 + 72]
    assert len(set(secret)) > 8
    for _ in range(LIFETIME // ROTATE):
        master.wait(ROTATE)
        assert secret in master.written()
    master.wait(ROTATE)
    assert secret not in master.written()
    assert master.roles()[0] == "retired"


def test_a_clock_that_leaps_is_followed(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    master.wait(10**6)
    assert master.roles().count("retired") == 8
    master.wait(-(10**5))
    assert "issuing" in master.roles()
    master.wait(10**11)
    assert master.roles() == ["issuing", "next"]
    assert "a new one starts" in caplog.text


def test_nothing_is_written_without_need(master: Master) -> None:
    written = master.written()
    for _ in range(10):
        master.wait(1)
        master.keeper.use(SETTINGS, None)
    assert master.written() == written


def test_what_it_tells_is_not_secret(master: Master) -> None:
    master.wait(ROTATE)
    told = master.keeper.status({1: 5})
    assert (told["lifetime"], told["rotate"]) == (LIFETIME, ROTATE)
    assert (told["from_files"], told["persisted"]) == ([], False)
    first, second, _ = told["keys"]
    assert (first["tickets_issued"], second["tickets_issued"]) == (5, 0)
    assert first["age_seconds"] == ROTATE
    assert first["redeem_until"] == BEGIN + ROTATE + LIFETIME
    assert second["issue_from"] == BEGIN + ROTATE
    shared = master.written()
    for at in range(16, 16 + 2 * 80, 80):
        assert shared[at + 40 : at + 72].hex() not in repr(told)


# The operator's verbs.


def test_rotating_is_at_once(master: Master) -> None:
    first = master.issuing()
    master.keeper.rotate()
    assert master.issuing() != first
    assert master.keys()[0] == ("redeeming", first)


def test_revoking_leaves_nothing_in_the_memory_of_the_workers(master: Master) -> None:
    master.wait(ROTATE)
    shared = master.written()
    secrets = [shared[at + 40 : at + 72] for at in range(16, 16 + 3 * 80, 80)]
    master.keeper.revoke()
    assert master.roles() == ["retired"] * 3 + ["issuing", "next"]
    assert not any(secret in master.written() for secret in secrets)


def test_other_settings_keep_the_keys(master: Master) -> None:
    first = master.issuing()
    master.keeper.use(Resumption(lifetime=2 * LIFETIME, rotate=2 * ROTATE), None)
    assert master.issuing() == first
    master.wait(ROTATE)
    assert master.issuing() == first
    master.wait(ROTATE)
    assert master.issuing() != first


# Another machine.


def test_an_export_and_an_import_make_two_machines_alike(master: Master) -> None:
    there = Master("there")
    there.keeper.use(SETTINGS, None)
    own = there.issuing()
    there.keeper.take_over(master.keeper.export(KEY, SALT), KEY)
    assert there.keys()[0] == ("redeeming", own)
    for _ in range(30):
        assert there.issuing() == master.issuing()
        assert there.keys()[-1] == master.keys()[-1]
        master.wait(ROTATE)
        there.wait(ROTATE)


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        (bytes(32), lambda sealed: sealed, "another key"),
        (KEY, lambda sealed: sealed[:-1], "damaged"),
        (KEY, lambda sealed: b"", "not a file that termproxy has sealed"),
        (KEY, lambda sealed: sealing.seal(b"no JSON", KEY, SALT, b"n" * 12), "invalid literal"),
        (KEY, lambda sealed: sealing.seal(b"{}", KEY, SALT, b"n" * 12), "not a ring"),
        (b"short", lambda sealed: sealed, "another key"),
    ],
)
def test_what_cannot_be_imported_changes_nothing(
    master: Master, key: bytes, change: Callable[[bytes], bytes], words: str
) -> None:
    written = master.written()
    with pytest.raises(TicketKeyRefusedError, match=words):
        master.keeper.take_over(change(master.keeper.export(KEY, SALT)), key)
    assert master.written() == written


def test_a_ring_whose_numbers_have_no_room_is_refused(master: Master) -> None:
    """It would be half written, and workers would wait for the other half."""
    written = master.written()
    plain = sealing.unseal(master.keeper.export(KEY, SALT), KEY)
    for old, new in (
        (b'"number":1', b'"number":9999999999999999999999'),
        (
            f'"redeem_until":{BEGIN + 2 * ROTATE + LIFETIME}'.encode(),
            b'"redeem_until":9223372036854775808',
        ),
    ):
        assert old in plain
        sealed = sealing.seal(plain.replace(old, new), KEY, SALT, b"n" * 12)
        with pytest.raises(TicketKeyRefusedError, match=r"not a ring|JSON|number"):
            master.keeper.take_over(sealed, KEY)
        assert master.written() == written
    master.wait(ROTATE)
    assert master.roles() == ["redeeming", "issuing", "next"]


def test_a_ring_of_a_machine_with_other_settings_is_refused(master: Master) -> None:
    there = Master("there")
    there.keeper.use(Resumption(lifetime=LIFETIME, rotate=ROTATE // 2), None)
    with pytest.raises(TicketKeyRefusedError, match="set both machines alike"):
        master.keeper.take_over(there.keeper.export(KEY, SALT), KEY)


# On disk.


def started(state_dir: StateDir, now: int = BEGIN, name: str = "again") -> Master:
    master = Master(name)
    master.now = now
    master.keeper.use(KEPT, state_dir)
    return master


def test_a_restart_goes_on_with_the_same_keys(state_dir: StateDir) -> None:
    before = started(state_dir, name="before")
    before.wait(2 * ROTATE)
    after = started(state_dir, before.now)
    assert after.keys() == before.keys()
    assert after.keeper.status({})["persisted"]
    before.wait(ROTATE)
    after.wait(ROTATE)
    assert after.keys() == before.keys()


def test_a_restart_after_a_while_has_turned_the_ring(state_dir: StateDir) -> None:
    first = started(state_dir, name="before").issuing()
    after = started(state_dir, BEGIN + ROTATE + 5)
    assert after.keys()[0] == ("redeeming", first)


def test_a_restart_after_years_starts_anew(
    state_dir: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    started(state_dir, name="before")
    after = started(state_dir, BEGIN + 10**9)
    assert after.roles() == ["issuing", "next"]
    assert "was left" in caplog.text


def test_a_restart_follows_the_settings_of_now(state_dir: StateDir) -> None:
    first = started(state_dir, name="before").issuing()
    after = Master("again")
    after.keeper.use(Resumption(lifetime=60, rotate=10, persist=True), state_dir)
    assert after.issuing() == first
    assert after.keeper.status({})["lifetime"] == 60


def test_what_was_revoked_stays_so(state_dir: StateDir) -> None:
    before = started(state_dir, name="before")
    old = before.issuing()
    before.keeper.revoke()
    assert started(state_dir).keys()[0] == ("retired", old)


def test_nothing_on_disk_tells_a_key_without_the_other_file(state_dir: StateDir) -> None:
    master = started(state_dir)
    secret = master.written()[16 + 40 : 16 + 72]
    for file in state_dir.path.iterdir():
        assert secret not in file.read_bytes()
        assert secret.hex().encode() not in file.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600
    assert {file.name for file in state_dir.path.iterdir()} == {KEY_FILE, RING_FILE}


def test_without_persist_nothing_is_on_disk(state_dir: StateDir) -> None:
    master = Master()
    master.keeper.use(SETTINGS, state_dir)
    master.wait(ROTATE)
    assert list(state_dir.path.iterdir()) == []


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[100] ^= 4
    file.write_bytes(content)


def fill_with_rubbish(file: Path) -> None:
    file.write_bytes(os.urandom(5000))


def make_too_large(file: Path) -> None:
    file.write_bytes(bytes(1 << 17))


def seal_with_another_key(file: Path) -> None:
    content = sealing.unseal(file.read_bytes(), file.with_name(KEY_FILE).read_bytes())
    file.write_bytes(sealing.seal(content, bytes(32), SALT, bytes(12)))


def seal_something_else(file: Path) -> None:
    file.write_bytes(sealing.seal(b"[1]", file.with_name(KEY_FILE).read_bytes(), SALT, bytes(12)))


def link_elsewhere(file: Path) -> None:
    other = file.parent.parent / "elsewhere"
    file.rename(other)
    file.symlink_to(other)


def let_others_write(file: Path) -> None:
    file.chmod(0o666)


def make_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def make_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def lose_the_key(file: Path) -> None:
    file.with_name(KEY_FILE).unlink()


def change_the_key(file: Path) -> None:
    file.with_name(KEY_FILE).write_bytes(bytes(32))


def shorten_the_key(file: Path) -> None:
    file.with_name(KEY_FILE).write_bytes(bytes(5))


def give_to_another(file: Path) -> None:
    os.chown(file, 65534, 65534)


DAMAGES = [
    truncate,
    empty,
    flip_a_bit,
    fill_with_rubbish,
    make_too_large,
    seal_with_another_key,
    seal_something_else,
    link_elsewhere,
    let_others_write,
    make_a_pipe,
    make_a_folder,
    lose_the_key,
    change_the_key,
    shorten_the_key,
    pytest.param(
        give_to_another, marks=pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
    ),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_of_no_use_is_set_aside_and_a_new_ring_starts(
    state_dir: StateDir, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    old = started(state_dir, name="before").keys()
    file = state_dir.path / RING_FILE
    damage(file)
    found = file.lstat().st_ino
    after = started(state_dir)
    assert after.roles() == ["issuing", "next"]
    assert not set(after.keys()) & set(old)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert str(file) in record.getMessage()
    assert "new ticket keys start" in record.getMessage()
    aside = file.with_name(f"{RING_FILE}.unusable")
    assert str(aside) in record.getMessage()
    assert aside.lstat().st_ino == found, "it is kept, for whoever wants to know"
    caplog.clear()
    assert started(state_dir, name="third").keys() == after.keys(), "and what is new is kept"
    assert caplog.records == []


def link_the_key(file: Path) -> None:
    link_elsewhere(file.with_name(KEY_FILE))


def let_others_write_the_key(file: Path) -> None:
    file.with_name(KEY_FILE).chmod(0o622)


@pytest.mark.parametrize("damage", [link_the_key, let_others_write_the_key])
def test_a_key_that_may_be_anothers_is_replaced(
    state_dir: StateDir, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    started(state_dir, name="before")
    damage(state_dir.path / RING_FILE)
    after = started(state_dir)
    assert KEY_FILE in caplog.text
    caplog.clear()
    assert started(state_dir, name="third").keys() == after.keys()
    assert caplog.records == []


def test_a_link_is_not_followed_when_writing(state_dir: StateDir, tmp_path: Path) -> None:
    started(state_dir, name="before")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for name in (RING_FILE, f".{RING_FILE}.new"):
        (state_dir.path / name).unlink(missing_ok=True)
        (state_dir.path / name).symlink_to(precious)
    started(state_dir).wait(ROTATE)
    assert precious.read_text() == "precious"


def test_a_disk_that_cannot_be_written_does_not_stop_the_ring(
    state_dir: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    master = started(state_dir)
    (state_dir.path / f".{RING_FILE}.new").mkdir()
    master.wait(ROTATE)
    assert master.roles() == ["redeeming", "issuing", "next"]
    assert "cannot keep the ticket keys in" in caplog.text


# Keys that others make.


def key(number: int) -> bytes:
    return hashlib.shake_128(bytes([number])).digest(80)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "new.key", tmp_path / "old.key"]
    for number, file in enumerate(made):
        file.write_bytes(key(number))
        file.chmod(0o600)
    return made


def with_files(files: list[Path]) -> Resumption:
    return Resumption(lifetime=LIFETIME, rotate=ROTATE, ticket_keys=tuple(files))


def test_the_first_file_issues(files: list[Path]) -> None:
    master = Master()
    master.keeper.use(with_files(files), None)
    assert master.roles() == ["redeeming", "issuing"]
    told = master.keeper.status({})
    assert told["from_files"] == [str(file) for file in files]
    assert told["rotate"] is None
    assert [told["keys"][1][when] for when in ("issue_from", "issue_until", "redeem_until")] == [
        None
    ] * 3
    master.wait(10**9)
    assert master.roles() == ["redeeming", "issuing"], "others turn them"


def test_the_same_files_give_the_same_keys_elsewhere(files: list[Path]) -> None:
    here, there = Master("here"), Master("there")
    for master in (here, there):
        master.keeper.use(with_files(files), None)
    assert here.keys() == there.keys()


def test_files_that_change_are_followed(files: list[Path]) -> None:
    master = Master()
    master.keeper.use(with_files(files), None)
    assert list(master.keeper.files()) == files
    old = master.issuing()
    files[1].write_bytes(key(0))
    files[0].write_bytes(key(7))
    master.keeper.look_at_files()
    assert master.keys()[0] == ("redeeming", old)
    assert master.issuing() != old
    assert master.keeper.numbers() == [1, 3] or master.keeper.numbers() == [2, 3]


def test_files_that_cannot_be_used_leave_the_keys_of_before(
    files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    master = Master()
    master.keeper.use(with_files(files), None)
    keys = master.keys()
    for damage in (lambda: files[0].write_bytes(b"short"), files[0].unlink):
        damage()
        master.keeper.look_at_files()
        assert master.keys() == keys
        assert "the ticket keys of before stay" in caplog.text
        caplog.clear()


def test_files_that_cannot_be_used_refuse_the_start(files: list[Path]) -> None:
    files[1].unlink()
    with pytest.raises(StartError, match=r"old\.key: No such file"):
        Master().keeper.use(with_files(files), None)


def test_files_that_others_can_read_are_told_once(
    files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    files[0].chmod(0o644)
    master = Master()
    master.keeper.use(with_files(files), None)
    master.keeper.look_at_files()
    assert caplog.text.count("can be read by others") == 1


@pytest.mark.parametrize("verb", ["rotate", "revoke"])
def test_keys_of_files_are_not_turned_by_hand(files: list[Path], verb: str) -> None:
    master = Master()
    master.keeper.use(with_files(files), None)
    with pytest.raises(TicketKeyRefusedError, match="change them there"):
        getattr(master.keeper, verb)()
    with pytest.raises(TicketKeyRefusedError, match="come from"):
        master.keeper.export(KEY, SALT)
    with pytest.raises(TicketKeyRefusedError, match="come from"):
        master.keeper.take_over(b"", KEY)


def test_what_cannot_be_used_changes_nothing(files: list[Path], state_dir: StateDir) -> None:
    """Neither keys that are to be kept, nor other files, nor what is tried again after it."""
    master = Master()
    master.keeper.use(with_files(files), None)
    told, written = master.keeper.status({}), master.written()
    (state_dir.path / RING_FILE).write_bytes(b"rubbish")
    (state_dir.path / KEY_FILE).write_bytes(bytes(32))
    (state_dir.path / f"{RING_FILE}.unusable").mkdir()
    for _ in range(2):
        with pytest.raises(StartError, match="it cannot be set aside"):
            master.keeper.use(KEPT, state_dir)
        with pytest.raises(StartError, match="No such file"):
            master.keeper.use(with_files([state_dir.path / "absent"]), None)
        assert (master.keeper.status({}), master.written()) == (told, written)
        master.keeper.look_at_files()
        master.wait(10**6)
    master.keeper.use(SETTINGS, None)
    assert master.roles() == ["issuing", "next"]


@pytest.mark.parametrize("others", [False, True])
def test_what_is_no_longer_kept_is_removed(
    files: list[Path], state_dir: StateDir, *, others: bool
) -> None:
    """Or a later start would bring back what has been revoked meanwhile."""
    master = Master()
    master.keeper.use(KEPT, state_dir)
    assert (state_dir.path / RING_FILE).exists()
    master.keeper.use(Resumption(ticket_keys=tuple(files)) if others else SETTINGS, state_dir)
    assert not (state_dir.path / RING_FILE).exists()


def test_what_is_to_be_kept_from_now_on_is_kept_at_once(master: Master, state_dir: StateDir) -> None:
    master.keeper.use(KEPT, state_dir)
    assert started(state_dir).keys() == master.keys()


def test_from_files_and_back(files: list[Path], master: Master, state_dir: StateDir) -> None:
    own = master.keys()
    master.keeper.use(with_files(files), state_dir)
    assert not set(own) & set(master.keys())
    assert list(state_dir.path.iterdir()) == [], "keys of others are not kept"
    master.keeper.use(SETTINGS, None)
    assert master.roles() == ["issuing", "next"]
    assert master.keeper.files() == ()


def test_the_next_master_goes_on_with_the_ring(master: Master) -> None:
    """At once in its own memory; what its settings change is written when it is in force."""
    master.keeper.rotate()
    plain = orjson.loads(orjson.dumps(master.keeper.as_plain()))
    new = Master("new")
    new.now = master.now
    new.keeper.go_on_with(plain)
    assert new.keys() == master.keys()
    assert new.written()[8:] == master.written()[8:]  # but for how often it was written

    new.keeper.use(SETTINGS, None)
    assert new.keys() == master.keys()
    new.wait(SETTINGS.rotate)
    master.wait(SETTINGS.rotate)
    assert new.keys() == master.keys()


def test_keys_of_files_are_not_left_to_it(state_dir: StateDir, tmp_path: Path) -> None:
    assert Master().keeper.as_plain() is None
    file = tmp_path / "key"
    file.write_bytes(os.urandom(80))
    file.chmod(0o600)
    master = Master()
    master.keeper.use(replace(SETTINGS, ticket_keys=(file,)), state_dir)
    assert master.keeper.as_plain() is None


def test_what_is_no_ring_is_not_gone_on_with() -> None:
    with pytest.raises(ValueError, match="not a ring"):
        Master().keeper.go_on_with({"keys": "none"})
