"""People as they come to a site: most look, some send, some talk, and a few have a bad line.

By hand:  TERMPROXY_LOAD_CA=ca.pem PYTHONPATH=perf locust -f perf/locustfiles/steady.py --host https://localhost:8443
"""

from loading.habits import Habits
from loading.people import SlowReader, SlowSender, Talker, Uploader, Visitor


class Browser(Visitor):
    weight = 10


class Script(Visitor):
    """A program that asks once and goes, most often with nothing to resume."""

    weight = 4
    habits = Habits(requests=1, resumed=0.3, rude=0.5, download=(64, 4096))


class Sender(Uploader):
    weight = 3


class Chat(Talker):
    weight = 2


class BadLine(SlowReader):
    weight = 1


class TypesByHand(SlowSender):
    weight = 1
