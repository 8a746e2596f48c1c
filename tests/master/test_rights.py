"""Giving rights up, in processes of their own: there is no way back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

PRELUDE = """
import json, os, pwd, signal, sys
from pathlib import Path
from termproxy.master import rights

def status():
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)

def capabilities():
    return [int(status()[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")]
"""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root has capabilities to give up")


def run(code: str) -> Any:
    """What the code prints, from JSON."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@as_root
def test_root_without_capabilities_has_none_of_any_kind() -> None:
    assert run("""
        before = capabilities()
        assert before[0] and before[4]
        rights.drop_bounding_set()
        assert capabilities()[0] == before[0]  # so far only those of programs to come
        rights.drop_capabilities()
        try:
            os.setuid(1)
            left = "changes its user"
        except PermissionError:
            left = ""
        print(json.dumps([capabilities(), left]))
    """) == [[0] * 5, ""]


@as_root
def test_a_program_that_root_becomes_gets_none_back() -> None:
    """Root's programs get all that the bounding set holds, if nothing else forbids it."""
    assert run("""
        rights.drop_bounding_set()
        rights.drop_capabilities()
        rights.forbid_new_ones()
        status = "open('/proc/self/status').read()"
        code = f"import json, re; print(json.dumps(re.findall('Cap.*', {status})))"
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-c", code])
    """) == [f"Cap{name}:\t{0:016x}" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]


@as_root
def test_who_may_not_drop_the_bounding_set_drops_the_others() -> None:
    """As under a unit that grants no CAP_SETPCAP, or when somebody starts us who is not root."""
    assert (
        run("""
        nobody = pwd.getpwnam("nobody")
        os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
        rights.drop_bounding_set()
        rights.drop_capabilities()
        print(json.dumps(capabilities()[:4]))
    """)
        == [0] * 4
    )


def test_no_program_may_gain_rights() -> None:
    assert (
        run("""
        rights.forbid_new_ones()
        print(json.dumps(status()["NoNewPrivs"]))
    """)
        == "1"
    )


@as_root
def test_no_other_process_of_the_same_user_looks_in() -> None:
    assert run("""
        def may_look(close):
            nobody = pwd.getpwnam("nobody").pw_uid
            ours, theirs = os.pipe()
            if (child := os.fork()) == 0:
                os.setresuid(nobody, nobody, nobody)
                rights._prctl(4, 1)  # as after any program's start
                if close:
                    rights.close_to_others()
                os.write(theirs, b"x")
                signal.pause()
            os.read(ours, 1)
            if (other := os.fork()) == 0:
                os.setresuid(nobody, nobody, nobody)
                try:
                    os.close(os.open(f"/proc/{child}/mem", os.O_RDONLY))
                except PermissionError:
                    os._exit(1)
                os._exit(0)
            outcome = os.waitpid(other, 0)[1] == 0
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return outcome
        print(json.dumps([may_look(False), may_look(True)]))
    """) == [True, False]


def test_a_child_is_told_when_its_parent_dies() -> None:
    assert (
        run("""
        ours, theirs = os.pipe()
        if (parent := os.fork()) == 0:
            if os.fork() == 0:
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
                rights.be_told_of_parents_death(signal.SIGUSR1)
                os.write(theirs, b"set")
                told = signal.sigtimedwait([signal.SIGUSR1], 20)
                os.write(theirs, b"told" if told else b"not told")
                os._exit(0)
            os.close(theirs)
            os.read(ours, 3)
            os._exit(0)
        os.close(theirs)
        os.waitpid(parent, 0)
        print(json.dumps(os.read(ours, 10).decode()))
    """)
        == "told"
    )


def test_what_the_kernel_does_not_know_is_an_error() -> None:
    assert (
        run("""
        try:
            rights._prctl(99999, 0)
        except OSError as error:
            print(json.dumps(str(error)))
    """)
        == "[Errno 22] prctl(99999): Invalid argument"
    )
