"""Forks writers of a scoreboard for the tests, one at a time.

Usage: ``scoreboard_writer.py NAME``. Each line on stdin is ``fork ROW`` (answered with the pid of a
child that writes to the row until it is killed) or ``wait`` (answered with the child's exit code
once it has been reaped). The end of stdin ends the child and this process, which has no threads, so
that fork is sound.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from wssup.scoreboard import ClosedReason, RowWriter, Scoreboard

PR_SET_PDEATHSIG = 1
SIZE = 100  # bytes of a record


def write_for_ever(writer: RowWriter) -> None:
    """Whole transactions whose cells agree with each other, with pauses of changing length."""
    count = 0
    while True:
        count += 1
        writer.accepted()
        writer.upgraded()
        writer.traffic(1, 1, 1, 1)
        writer.heartbeat(count, count)
        writer.moved_out(SIZE)  # to itself: no test needs another worker for it
        writer.moved_in(0.001)
        writer.closed(ClosedReason.CLIENT, count % 1000)
        for _ in range(count % 400):
            pass


def fork(board: Scoreboard, row: int) -> int:
    """Start a writer; returns its pid."""
    pid = os.fork()
    if pid == 0:
        # The kernel ends this loop with its parent, however that ends (PR_SET_PDEATHSIG(2const)).
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            write_for_ever(board.writer(row))
        finally:
            os._exit(1)
    return pid


def main() -> None:
    """Obey stdin."""
    board = Scoreboard.attach(sys.argv[1])
    child = 0
    for line in sys.stdin:
        match line.split():
            case ["fork", row]:
                child = fork(board, int(row))
                print(child, flush=True)  # noqa: T201 - the answer
            case ["wait"]:
                _, status = os.waitpid(child, 0)
                child = 0
                print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer
    if child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
