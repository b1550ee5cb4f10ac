"""Who does not go on in time is shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from tests.harness import processes

_HANGS = """
import sys, time
from wssup.supervisor.overdue import Overdue
overdue = Overdue()
overdue.expect(20)
overdue.cancel()
overdue.expect(60)
overdue.expect(0.1)
def where_it_hangs():
    sys.stdin.read()
where_it_hangs()
overdue.expect(60)
"""
#: Goes on all the time, and is shown all the time. (With faulthandler it ends in a second.)
_RUNS = """
import trio
from wssup.supervisor.overdue import Overdue
overdue = Overdue()
async def deeper(n):
    if n:
        await deeper(n - 1)
    else:
        await trio.lowlevel.checkpoint()
async def main():
    print("runs", flush=True)
    while True:
        overdue.expect(0.0005)
        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(deeper, n)
trio.run(main)
"""


def test_a_hang_is_shown() -> None:
    """The stack is written once, with the line that does not end; who goes on in time, or expects
    nothing any more, is not shown; and no thread keeps a process from its end.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _HANGS],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as hanging:
        assert hanging.stdin is not None
        assert hanging.stderr is not None
        assert hanging.stderr.readline() == "the loop has not turned for 0.1 s:\n"
        hanging.stdin.close()
        stack = hanging.stderr.read()
        assert hanging.wait(30) == 0
    assert "where_it_hangs" in stack
    assert "has not turned" not in stack


def test_who_goes_on_meanwhile_lives_on() -> None:
    """A process that is stopped and continued, and goes on while its stack is read, is none the
    worse for it.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _RUNS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        try:
            assert running.stdout.readline() == b"runs\n"
            shown = threading.Event()

            def read() -> None:
                assert running.stderr is not None
                for line in running.stderr:
                    if b"has not turned" in line:
                        shown.set()

            reader = threading.Thread(target=read)
            reader.start()
            for _ in range(5):
                os.kill(running.pid, signal.SIGSTOP)
                processes.until(lambda: processes.state(running.pid) == "T", 10, "it to stop")
                shown.clear()
                os.kill(running.pid, signal.SIGCONT)
                assert shown.wait(30)
            assert running.poll() is None
        finally:
            running.kill()
            reader.join(30)
