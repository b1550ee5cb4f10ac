"""RLIMIT_NPROC is of a user: what he runs besides the instance counts, too."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack

import pytest

from tests.harness import processes
from wssup.doctor import collect
from wssup.doctor.facts import Running

#: A user that nobody is.
NOBODY_ELSE = 1_054_321


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_processes_of_the_user() -> None:
    """His other processes are counted, the instance and its children are not."""
    with ExitStack() as stack:

        def start(*command: str) -> int:
            child = stack.enter_context(
                subprocess.Popen(
                    ["prlimit", "--nproc=500", *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    user=NOBODY_ELSE,
                )
            )
            assert child.stdout is not None
            child.stdout.readline()
            stack.callback(child.kill)
            return child.pid

        # The child ends with its standard input, as the others do.
        one = start("sh", "-c", "exec 3<&0; (echo; read x <&3) & wait")
        alone = collect.facts(cores=1, running=Running(name="x", pid=one, slots=1)).tasks
        start("sh", "-c", "echo; read x")
        start("sh", "-c", "echo; read x")
        found = collect.facts(cores=1, running=Running(name="x", pid=one, slots=1)).tasks
        family = collect.family(one)
    for pid in family:
        # The child notices the end of its input only now, and is ours since its parent has gone.
        processes.until(lambda pid=pid: not processes.alive(pid), 60, f"{pid} to end")
        processes.reap(pid)
    assert len(family) == 2
    assert (alone.nproc, alone.users) == (500, 0)
    assert (found.nproc, found.users) == (500, 2)
