"""Read what callgrind wrote: which of the instructions are ours to save.

Ours are those of Python, gevent, and our own modules, and what libc does when
these call it.  OpenSSL's are not, nor libc's for OpenSSL: they are many, and change
with the key that a handshake draws.

The format: https://valgrind.org/docs/manual/cl-format.html
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

LIBC = re.compile(r"/libc[.-]")
# "???" is code without a file: the stubs of the dynamic linker.
FOREIGN = re.compile(r"/lib(ssl|crypto|c)[.-]|/ld[.-]|/vg|\?\?\?")
# Called by the first instructions of a program, and returns when it ends.
MAIN = "libc_start"
NAME = re.compile(r"\((\d+)\)(?: (.*))?")


@dataclass(slots=True)
class Costs:
    """Instructions by the file that they are in, and those spent in calls from one file to another."""

    own: Counter[str] = field(default_factory=Counter)
    lent: Counter[tuple[str, str]] = field(default_factory=Counter)


def instructions_of_ours(lines: Iterable[str]) -> int:
    costs = read_costs(lines)
    own = sum(cost for file, cost in costs.own.items() if not FOREIGN.search(file))
    lent = sum(
        cost
        for (caller, called), cost in costs.lent.items()
        if LIBC.search(called) and not FOREIGN.search(caller)
    )
    return own + lent


def read_costs(lines: Iterable[str]) -> Costs:
    """A line of numbers is the cost of what was named last; after `calls=`, that of the call."""
    costs = Costs()
    files: dict[str, str] = {}
    functions: dict[str, str] = {}
    here = called = "???"
    is_call = is_main = False
    for line in lines:
        if line[:1].isdigit() or line[:1] in {"+", "-", "*"}:
            cost = int(line.split()[-1])
            if is_call:
                costs.lent[here, called] += 0 if is_main else cost
                is_call, called = False, here
            else:
                costs.own[here] += cost
        elif line.startswith("ob="):
            here = called = full_name(line[3:], files)
        elif line.startswith("cob="):
            called = full_name(line[4:], files)
        elif line.startswith("cfn="):
            is_main = MAIN in full_name(line[4:], functions)
        elif line.startswith("fn="):
            full_name(line[3:], functions)
        elif line.startswith("calls="):
            is_call = True
    return costs


def full_name(text: str, names: dict[str, str]) -> str:
    """Return the name that a number was given the first time: "(3) /lib/libc.so", then "(3)"."""
    read = NAME.match(text)
    if read is None:
        return text.strip()
    number, name = read.groups()
    if name:
        names[number] = name.strip()
    return names[number]
