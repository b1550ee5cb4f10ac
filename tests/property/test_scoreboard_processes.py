"""The scoreboard between real processes: one writes or is killed, the other reads."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.property.scoreboard_writer import SIZE
from wssup.scoreboard import (
    RowView,
    Scoreboard,
    WorkerState,
)

ROWS = 4


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Scoreboard]:
    board = Scoreboard.create(f"property.{secrets.token_hex(6)}", tmp_path, rows=ROWS, slots=1)
    yield board
    board.close()
    board.unlink()


class Nursery:
    """A process that forks writers when asked to."""

    def __init__(self, board: Scoreboard) -> None:
        script = Path(__file__).with_name("scoreboard_writer.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), board.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture
def nursery(board: Scoreboard) -> Iterator[Nursery]:
    nursery = Nursery(board)
    with nursery.process as process:
        yield nursery
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def agrees_with_itself(view: RowView) -> bool:
    """Whether the cells that the test's writer changes together are those of one moment."""
    counts = view.counts
    return (
        len({counts.messages_in, counts.messages_out, counts.bytes_in, counts.bytes_out}) == 1
        and len({view.heartbeat_ns, view.lag_last_ns, view.lag_max_ns}) == 1
        and counts.closed == sum(counts.lifetimes)
        and counts.moved_in == sum(counts.pauses)
        and counts.moved_out * SIZE == counts.handoff_bytes
        and 0 <= counts.active <= counts.open <= 1
    )


def test_a_real_writer_is_never_seen_torn(board: Scoreboard, nursery: Nursery) -> None:
    """Beside a busy worker every good copy is of one moment, and no counter goes back."""
    row = board.allocate(1, 0, 1)
    nursery.ask(f"fork {row}")
    reader = Scoreboard.attach(board.name)
    good: set[int] = set()
    before = 0
    end = time.monotonic() + 2
    patience = end + 20
    while time.monotonic() < end or (len(good) < 100 and time.monotonic() < patience):
        view = reader.read(row)
        assert view is not None
        assert view.counts.accepted >= before
        before = view.counts.accepted
        if not view.stale:
            assert agrees_with_itself(view)
            good.add(before)
    reader.close()
    assert len(good) >= 100


def test_a_real_writer_killed_hangs_nobody(board: Scoreboard, nursery: Nursery) -> None:
    """After SIGKILL at any moment a reader returns at once, and the fold leaves nothing open."""
    moments = random.Random(2)
    accepted = 0
    for serial in range(1, 31):
        row = board.allocate(serial, 0, 1)
        pid = nursery.ask(f"fork {row}")
        wanted = moments.randrange(1, 200)
        deadline = time.monotonic() + 20
        while (view := board.read(row)) and view.counts.accepted < wanted:
            assert time.monotonic() < deadline
        os.kill(pid, signal.SIGKILL)
        assert nursery.ask("wait") == -signal.SIGKILL
        board.identify(row, state=WorkerState.STOPPING)
        newcomer = Scoreboard.attach(board.name)
        for reader in (board, newcomer):
            began = time.monotonic()
            view = reader.read(row)
            assert time.monotonic() - began < 8
            assert view is not None
            assert 0 <= view.counts.active <= view.counts.open <= 1
            assert view.stale or agrees_with_itself(view)
            assert view.counts.accepted >= wanted
        newcomer.close()
        # What it had handed over when it was killed was acknowledged, by itself.
        final = board.fold(row, moved_in=board.counted(row).moved_out)
        assert final.moved_in == final.moved_out
        assert (final.open, final.active) == (0, 0)
        assert final.accepted >= wanted
        accepted += final.accepted
    total = board.snapshot().total
    assert (total.open, total.active, total.accepted) == (0, 0, accepted)
