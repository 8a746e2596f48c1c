"""When reloads and kills are due, and whose connections a process has."""

import os
import socket

import psutil

from loading.storm import Timetable, clients_of


def test_something_is_due_after_each_interval() -> None:
    timetable = Timetable(2.0, start=100.0)
    asked = (100.0, 101.9, 102.0, 102.1, 103.9, 104.0)
    assert [timetable.is_due(now) for now in asked] == [False, False, True, False, False, True]


def test_what_was_missed_is_not_caught_up_with() -> None:
    timetable = Timetable(2.0, start=0.0)
    assert [timetable.is_due(now) for now in (7.5, 7.6, 7.9, 8.0)] == [True, False, False, True]


def test_with_no_interval_nothing_is_ever_due() -> None:
    assert not Timetable(0.0, start=0.0).is_due(1e9)


def test_the_kernel_tells_whose_connections_a_process_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as waiting, listener.accept()[0]:
            name = f"127.0.0.1:{waiting.getsockname()[1]}"
            assert clients_of(psutil.Process(os.getpid()), port) == {name}
