"""Slow clients for the most part.  Who is not slow must not notice them: look at `GET to 1 KiB`."""

from loading.habits import Habits
from loading.people import SlowReader, SlowSender, Visitor


class BadLine(SlowReader):
    weight = 4


class TypesByHand(SlowSender):
    weight = 4


class Browser(Visitor):
    weight = 2
    habits = Habits(download=(64, 16384))
