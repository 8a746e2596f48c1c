"""Which instructions are counted as ours."""

from guard.callgrind import instructions_of_ours, read_costs
from guard.loads import LOADS
from guard.server import Life, per_operation

# A call's own line of numbers is not the caller's cost.  Names are told once, then their numbers.
REPORT = """\
version: 1
events: Ir

ob=(1) /usr/bin/python3.11
fl=(1) ???
fn=(1) _start
0 3
cob=(2) /usr/lib/libc.so.6
cfi=(1)
cfn=(2) __libc_start_main@@GLIBC_2.34
calls=1 0
0 900000

fn=(3) evaluate
0 100
+4 20
cob=(2)
cfn=(4) malloc
calls=5 0
* 50
cob=(2)
cfn=(6) free
calls=2 0
0 11
cob=(3) /usr/lib/libssl.so.3
cfn=(5) SSL_read
calls=1 0
0 5000

ob=(3)
fn=(5)
0 4000
cob=(2)
cfn=(4)
calls=9 0
0 1000

ob=(2)
fn=(4)
0 1061

totals: 5184
"""


def test_what_is_ours_is_python_and_the_libc_that_python_calls() -> None:
    assert instructions_of_ours(REPORT.splitlines()) == 3 + 100 + 20 + 50 + 11


def test_a_file_is_charged_with_its_own_lines_only() -> None:
    costs = read_costs(REPORT.splitlines())
    assert costs.own["/usr/lib/libssl.so.3"] == 4000
    assert costs.lent["/usr/lib/libssl.so.3", "/usr/lib/libc.so.6"] == 1000
    assert costs.lent["/usr/bin/python3.11", "/usr/lib/libssl.so.3"] == 5000


def test_a_call_without_a_file_stays_in_the_file() -> None:
    costs = read_costs(["ob=(1) /a.so", "fn=(1) f", "0 1", "cfn=(2) g", "calls=1 0", "0 7"])
    assert costs.lent == {("/a.so", "/a.so"): 7}


def test_a_load_costs_what_its_worker_has_more_than_those_beside_it() -> None:
    """The master has 1,000 more for each worker, and a second costs 60, but once when it waits."""
    first, second = LOADS[:2]
    lives = [
        Life(10_000, seconds=1.0),
        Life(11_000 + 5 * 60, seconds=6.0),
        Life(12_000, seconds=1.0),
        Life(13_000 + 5 * 60 + 999, seconds=6.0),
        Life(14_000, seconds=1.0),
        Life(15_000 + 5 * 60, seconds=6.0),
        Life(16_000, seconds=1.0),
        Life(17_000 + 50 * first.times + 20 * 60, seconds=21.0),
        Life(18_000, seconds=1.0),
        Life(19_000 + 70 * second.times + 40 * 60, seconds=41.0),
        Life(20_000, seconds=1.0),
    ]
    assert per_operation(lives, [first, second]) == [50, 70]
