"""Who is compared, and by what: termproxy with itself, by rows for `comparison`."""

from dataclasses import replace

from comparison.loads import CPU, KIB, Load, Quantity, Target
from comparison.servers import TERMPROXY, Setting
from comparison.wrk import Asked, Wrk
from many_names.certificates import FOLDER, NAMES
from many_names.certificates import ONE as ONE_NAME
from many_names.tools import Memory, Start

MANY = replace(
    TERMPROXY,
    name=f"{len(NAMES)}-certificates",
    config=TERMPROXY.config.replace("$pem", f"$directory/{FOLDER}"),
    names=NAMES,
)
ONE = replace(TERMPROXY, name="1-certificate", names=NAMES[:1])
SERVERS = (MANY, ONE)

# The master looks at all files every 30 s.  That is no part of an operation: it is in CPU, not here.
WORKER = Quantity(name="worker", title="worker's CPU", unit="µs/op", scale=1e6)
UNTIL_SERVING = Quantity(name="until_serving", title="until it serves", unit="s")
CPU_SECONDS = Quantity(name="cpu", title="CPU", unit="s")
MEMORY = Quantity(name="memory", title="PSS", unit="MiB", scale=1 / KIB**2)

TARGET = Target(ratio=1.03)
# MANY does not look at it.
SETTING = Setting(certificate=ONE_NAME)


def handshakes(which: Asked) -> Wrk:
    return Wrk(path="/small", connections=32, handshakes="full", asks_for=which)


LOADS = (
    Load(
        name="start",
        title="start",
        tool=Start(),
        setting=SETTING,
        shows=(UNTIL_SERVING, CPU_SECONDS, MEMORY),
        fresh_processes=True,
    ),
    Load(
        name="first-visit",
        title="handshake, each name for the first time",
        tool=handshakes("every"),
        setting=SETTING,
        shows=(WORKER,),
        fresh_processes=True,
    ),
    Load(
        name="no-name",
        title="handshake, no name",
        tool=handshakes("none"),
        setting=SETTING,
        shows=(WORKER, CPU),
        target=TARGET,
    ),
    Load(
        name="first-name",
        title="handshake, the first name",
        tool=handshakes("first"),
        setting=SETTING,
        shows=(WORKER, CPU),
        target=TARGET,
    ),
    Load(
        name="last-name",
        title="handshake, the last name",
        tool=handshakes("last"),
        setting=SETTING,
        shows=(WORKER, CPU),
        target=TARGET,
    ),
    Load(
        name="every-name",
        title="handshake, every name",
        tool=handshakes("every"),
        setting=SETTING,
        shows=(WORKER, CPU),
        target=TARGET,
    ),
    Load(
        name="memory",
        title="memory, all names served",
        tool=Memory(),
        setting=SETTING,
        shows=(MEMORY,),
    ),
)
