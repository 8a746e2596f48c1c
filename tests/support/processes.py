"""What the kernel tells of a process, in /proc."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def session_members(session: int) -> list[int]:
    """The living processes of a session; zombies have ended."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # The command's name stands in brackets and may hold anything: split behind it.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                members.append(int(entry.name))
    return members


def status(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status, by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def state(pid: int) -> str:
    """One letter: R, S, T (stopped), Z …"""
    return status(pid)["State"][0]


def zombies(parent: int) -> list[int]:
    """The children of a process that have ended and were not waited for."""
    children = psutil.Process(parent).children()
    return [child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE]


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor of a process leads to."""
    folder = Path(f"/proc/{pid}/fd")
    found = {}
    for entry in folder.iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue  # closed while we looked
    return found


def may_look_inside_workers() -> bool:
    """Workers are not dumpable: only root sees their descriptors."""
    return os.getuid() == 0


def unread_bytes(local_port: int, remote_port: int) -> int:
    """What waits in the kernel for the owner of a TCP connection over IPv4 to read it."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if (_port(local), _port(remote)) == (local_port, remote_port):
            return int(queues.partition(":")[2], 16)
    raise AssertionError(f"no connection between ports {local_port} and {remote_port}")


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
