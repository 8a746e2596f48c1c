"""What a process may do beyond what its user may, and how to give that up for good.

Python has no words for capabilities(7) and prctl(2), so these go through the C library.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal

# prctl(2)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_CAPABILITY_VERSION_3 = 0x20080522  # capget(2): 64 of them, in two structs

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop_bounding_set() -> None:
    """No program that this process becomes gets a capability.  To be called while there still are some.

    Who may not do that (a unit that grants no CAP_SETPCAP) is held by forbid_new_ones() all the same.
    """
    for capability in itertools.count():
        try:
            if _prctl(_PR_CAPBSET_READ, capability):
                _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            return  # EPERM, see above; EINVAL: the kernel has no more of them


def drop_capabilities() -> None:
    """Have none, also as root, and prove it."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header, none = _Header(_CAPABILITY_VERSION_3, 0), (_Capabilities * 2)()
    _check(_libc.capset(ctypes.byref(header), none), "capset")
    left = (_Capabilities * 2)()
    _check(_libc.capget(ctypes.byref(header), left), "capget")
    if any(each.effective | each.permitted | each.inheritable for each in left):
        raise RuntimeError("this process still has capabilities")


def forbid_new_ones() -> None:
    """No program that this process becomes may do more than it: no set-user-ID, no file capabilities."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def close_to_others() -> None:
    """No other process of the same user may look into this one's memory, or trace it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def be_told_of_parents_death(signum: signal.Signals) -> None:
    """To be called after the last change of user, which clears it."""
    _prctl(_PR_SET_PDEATHSIG, signum)


def _prctl(option: int, value: int) -> int:
    return _check(_libc.prctl(option, value, 0, 0, 0), f"prctl({option})")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
