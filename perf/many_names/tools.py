"""What is measured without a load: how a server starts, and how much memory it has come to."""

from dataclasses import dataclass

from comparison.metering import proportional_bytes, read
from comparison.processes import Running


@dataclass(frozen=True, slots=True)
class Start:
    """For processes that have served nobody yet: what it took until the first answer."""

    def measure(self, subject: Running, seconds: float) -> dict[str, float]:
        del seconds  # it is over
        return {
            "until_serving": subject.ready_after,
            "cpu": read(subject.pid, subject.cores).cpu,
            "memory": proportional_bytes(subject.pid),
        }


@dataclass(frozen=True, slots=True)
class Memory:
    def measure(self, subject: Running, seconds: float) -> dict[str, float]:
        del seconds  # no time passes
        return {"memory": proportional_bytes(subject.pid)}
