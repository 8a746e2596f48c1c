"""Landlock: what a process may still open, and where it may still connect (landlock(7)).

    a rule set: all that the kernel can deny is denied  ──▶  rules allow what is needed  ──▶  laid on

It can never be taken off or widened, so what a process needs later is known before its first client.
Kernels learn: each ABI denies more, and what this one does not know is left out.  Not denied by any
ABI up to 7: UDP, Unix sockets with a path, and files that are open already.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Numbers of system calls: the same on every architecture but alpha.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_RULE_NET_PORT = 2

# <linux/landlock.h>: what there is to deny, by the ABI that brought it.
_FILES = {
    1: (1 << 13) - 1,  # execute, write, read, list, remove and make of every kind
    2: 1 << 13,  # link or rename into another folder
    3: 1 << 14,  # truncate
    5: 1 << 15,  # ioctl on devices
}
_TCP = {4: 0b11}  # bind, connect
_SCOPED = {6: 0b11}  # abstract Unix sockets and signals of processes outside

_READ = (1 << 2) | (1 << 3)  # a file, and a folder's list
_CONNECT = 1 << 1

_PORTS_SINCE = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _NetPortAttr(ctypes.Structure):
    _fields_ = (("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64))


@dataclass(frozen=True, slots=True)
class Reach:
    """What a process still has to reach.  Nothing else is allowed, as far as the kernel can deny it."""

    ports: frozenset[int] | None  # to connect to over TCP; None: any
    folders: tuple[Path, ...] = ()  # to read in, with all that is beneath; those that are there


@cache
def abi() -> int:
    """What this kernel's Landlock knows; 0: there is none, or it is switched off."""
    version = _libc.syscall(_long(_CREATE_RULESET), None, _long(0), _long(_CREATE_RULESET_VERSION))
    return max(int(version), 0)  # ENOSYS, EOPNOTSUPP, or EPERM in a container that forbids to ask


def restricts_ports() -> bool:
    return abi() >= _PORTS_SINCE


def shortfall() -> str | None:
    """What this kernel cannot keep a worker from, for the operator; None: all of it is denied."""
    if abi() == 0:
        return "this kernel has no Landlock: a worker may open what its user may, and connect anywhere"
    if not restricts_ports():
        return f"this kernel's Landlock (ABI {abi()}) knows no ports: a worker may connect anywhere"
    return None


def confine(reach: Reach, version: int | None = None) -> None:
    """Leave this thread, and all that it starts, this reach and no more.  Takes no_new_privs.

    OSError when the kernel has Landlock and refuses.  `version`: as if the kernel knew no later ABI.
    """
    version = abi() if version is None else version
    if version == 0:
        return
    tcp = 0 if reach.ports is None else _known(_TCP, version)
    attr = _RulesetAttr(_known(_FILES, version), tcp, _known(_SCOPED, version))
    # Zeros at its end are fine for a kernel that knows a shorter one.
    rules = _call(_CREATE_RULESET, ctypes.byref(attr), _long(ctypes.sizeof(attr)), _long(0))
    try:
        for folder in reach.folders:
            _allow_reading(rules, folder)
        for port in reach.ports or () if tcp else ():
            rule = _NetPortAttr(_CONNECT, port)
            _call(_ADD_RULE, _long(rules), _long(_RULE_NET_PORT), ctypes.byref(rule), _long(0))
        _call(_RESTRICT_SELF, _long(rules), _long(0))
    finally:
        os.close(rules)


def _allow_reading(rules: int, folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # it is not there, or not for us: then there is nothing to allow
    try:
        rule = _PathBeneathAttr(_READ, fd)
        _call(_ADD_RULE, _long(rules), _long(_RULE_PATH_BENEATH), ctypes.byref(rule), _long(0))
    finally:
        os.close(fd)


def _known(rights: dict[int, int], version: int) -> int:
    return sum(bits for since, bits in rights.items() if since <= version)


_long = ctypes.c_long  # an argument of syscall() must be as wide as a register


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result
