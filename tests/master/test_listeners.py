"""The listening sockets: bound once, and kept while a configuration has them."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from termproxy.address import Address, parse_address, parse_listening_address
from termproxy.errors import StartError
from termproxy.master.handover import PassedListener
from termproxy.master.listeners import Listeners


def free(host: str = "127.0.0.1") -> Address:
    """A port that is free a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        return Address(family, (host, sock.getsockname()[1]))


def connect(address: Address) -> socket.socket:
    sock = socket.socket(address.family)
    sock.connect(address.sockaddr)
    return sock


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    listeners = Listeners()
    yield listeners
    listeners.close(listeners.addresses())


@pytest.fixture
def taken() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield Address(socket.AF_INET, sock.getsockname())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_has_a_socket_for_each_slot(host: str, listeners: Listeners) -> None:
    address = free(host)

    assert listeners.bind([address], 3) == [address]
    assert listeners.slots() == len(listeners.of(address)) == 3
    assert len({sock.fileno() for sock in listeners.of(address)}) == 3
    for sock in listeners.of(address):
        assert sock.getsockname()[:2] == address.sockaddr
        assert not sock.getblocking()
        assert not sock.get_inheritable()


def test_a_client_waits_in_one_slot_s_queue(listeners: Listeners) -> None:
    address = free()
    listeners.bind([address], 2)
    with connect(address) as client:
        client.send(b"hello")  # the kernel keeps silent clients back for a second
        accepted = []
        for sock in listeners.of(address):
            try:
                accepted.append(sock.accept()[0])
            except BlockingIOError:
                pass
        assert len(accepted) == 1
        assert accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted[0].close()


def test_an_address_that_is_listened_on_already_stays_as_it_is(listeners: Listeners) -> None:
    old, new = free(), free()
    listeners.bind([old], 2)
    before = list(listeners.of(old))

    assert listeners.bind([old, new], 2) == [new]
    assert listeners.of(old) == before


def test_more_slots_add_sockets_and_fewer_take_none_away(listeners: Listeners) -> None:
    """What waits in a queue outlives the number of workers."""
    address, other = free(), free()
    listeners.bind([address], 2)
    before = list(listeners.of(address))
    assert listeners.bind([address], 4) == []
    assert listeners.of(address)[:2] == before
    assert len(listeners.of(address)) == 4

    listeners.bind([address, other], 1)
    assert len(listeners.of(address)) == len(listeners.of(other)) == 4


def test_v4_and_v6_of_one_port_stand_beside_each_other(listeners: Listeners) -> None:
    four = free("0.0.0.0")
    six = Address(socket.AF_INET6, ("::", four.sockaddr[1]))  # type: ignore[arg-type]

    assert listeners.bind([four, six], 1) == [four, six]


def test_a_port_that_is_taken_is_refused(listeners: Listeners, taken: Address) -> None:
    expected = f"cannot listen on {taken}: the port is taken; stop what listens there, or choose another"
    with pytest.raises(StartError) as refused:
        listeners.bind([taken], 1)

    assert str(refused.value) == expected


def test_a_port_that_another_shares_gladly_is_refused_too(listeners: Listeners) -> None:
    """SO_REUSEPORT would let us join in silence, and take half of its clients."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(StartError, match="the port is taken"):
            listeners.bind([Address(socket.AF_INET, other.getsockname())], 1)


def test_a_port_just_left_with_connections_behind_is_free(listeners: Listeners) -> None:
    """TIME_WAIT: a restart must not wait for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(socket.AF_INET, server.getsockname())
        client = connect(address)
        accepted, _ = server.accept()
        accepted.close()
        client.close()

    assert listeners.bind([address], 2) == [address]


def test_when_one_address_cannot_be_had_none_is_added(listeners: Listeners, taken: Address) -> None:
    old, new = free(), free()
    listeners.bind([old], 1)
    with pytest.raises(StartError):
        listeners.bind([old, new, taken], 1)

    assert listeners.addresses() == [old]
    with socket.create_server(new.sockaddr):
        pass


def test_when_one_address_cannot_be_had_no_slot_is_added(listeners: Listeners, taken: Address) -> None:
    """A socket that no worker knows gets its share of the clients, and leaves them waiting for ever."""
    old = free()
    listeners.bind([old], 1)
    with pytest.raises(StartError):
        listeners.bind([old, taken], 2)

    assert len(listeners.of(old)) == 1


def test_an_address_of_another_machine_is_refused(listeners: Listeners) -> None:
    with pytest.raises(StartError, match="this machine does not have the address"):
        listeners.bind([parse_address("192.0.2.1:8443")], 1)


@pytest.mark.skipif(os.getuid() == 0, reason="root may")
def test_a_low_port_takes_rights(listeners: Listeners) -> None:
    with pytest.raises(StartError, match="not permitted; ports below 1024 need root"):
        listeners.bind([parse_address("127.0.0.1:1")], 1)


def test_other_reasons_are_the_kernel_s_words(listeners: Listeners) -> None:
    with pytest.raises(StartError, match="Invalid argument"):
        listeners.bind([parse_address("[::ffff:127.0.0.1]:8443")], 1)


def test_a_closed_address_is_free_again(listeners: Listeners) -> None:
    address = free()
    listeners.bind([address], 2)
    listeners.close([address])

    assert listeners.addresses() == []
    assert listeners.slots() == 0
    with socket.create_server(address.sockaddr):
        pass


def test_a_lack_of_descriptors_is_a_start_error() -> None:
    code = """
import resource, socket
from termproxy.address import parse_address
from termproxy.errors import StartError
from termproxy.master.listeners import Listeners
listeners = Listeners()
resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
try:
    listeners.bind([parse_address("127.0.0.1:18443")], 20)
except StartError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "Too many open files" in done.stdout
    assert done.returncode == 0


def unix(path: Path) -> Address:
    return parse_address(f"unix:{path}")


def test_a_unix_socket_is_one_for_all_slots(listeners: Listeners, tmp_path: Path) -> None:
    address, other = unix(tmp_path / "s"), free()
    assert listeners.bind([address, other], 3) == [address, other]
    [sock] = listeners.of(address)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    with connect(address):
        sock.accept()[0].close()
    assert listeners.slots() == 3
    assert (len(listeners.of(address)), len(listeners.of(other))) == (1, 3)
    listeners.close([address])
    assert not (tmp_path / "s").exists()


def test_a_unix_socket_s_path_that_is_another_s_is_refused(listeners: Listeners, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(StartError, match=r"cannot listen on unix:.*: something that is not a socket"):
        listeners.bind([unix(tmp_path / "s")], 1)
    assert (tmp_path / "s").read_text() == "precious"


def test_what_systemd_passes_is_found_by_its_name(listeners: Listeners) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        listeners.activate({"web": [one.fileno(), two.fileno()], "spare": [9]})
        web = parse_listening_address("systemd:web")
        listeners.bind([web], 4)
        assert [sock.getsockname() for sock in listeners.of(web)] == [
            one.getsockname(),
            two.getsockname(),
        ]
        assert listeners.of(web)[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert listeners.slots() == 0
        assert listeners.unused() == ["spare"]
        listeners.close([web])
        with connect(Address(socket.AF_INET, one.getsockname())):
            pass  # it is still systemd's


def test_a_name_that_is_not_passed_is_refused_with_those_that_are(listeners: Listeners) -> None:
    web = parse_listening_address("systemd:web")
    with pytest.raises(StartError, match="systemd:web: systemd passes no sockets; start us by a socket"):
        listeners.bind([web], 1)
    listeners.activate({"wbe": [9], "api": [8]})
    with pytest.raises(StartError, match="no socket of that name; it passes api, wbe"):
        listeners.bind([web], 1)


def test_another_master_goes_on_with_the_same_sockets(listeners: Listeners, tmp_path: Path) -> None:
    tcp, path = free(), unix(tmp_path / "s")
    listeners.bind([tcp, path], 2)
    passed = [
        PassedListener(each.address, [os.dup(fd) for fd in each.fds], each.inode)
        for each in listeners.passed()
    ]
    new = Listeners()
    new.go_on_with(passed, {"spare": [9]})
    assert new.addresses() == [tcp, path]
    assert new.slots() == 2
    assert new.bind([tcp, path], 2) == []
    assert new.activated() == {"spare": [9]}

    new.own_paths(passed)
    listeners.leave_paths()
    listeners.close([tcp, path])
    with connect(path), connect(tcp):
        pass
    new.close([path, tcp])
    assert not (tmp_path / "s").exists()


def test_one_that_is_not_in_force_yet_leaves_the_paths_alone(
    listeners: Listeners, tmp_path: Path
) -> None:
    path = unix(tmp_path / "s")
    listeners.bind([path], 1)
    new = Listeners()
    [passed] = listeners.passed()
    new.go_on_with([PassedListener(passed.address, [os.dup(passed.fds[0])], passed.inode)], {})
    new.close([path])

    with connect(path):
        pass
