"""One ``wssup reload``, watched: its phases and result, connections moved, memory meanwhile."""

from __future__ import annotations

import json
import select
import socket
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from benchmarks.engine.native import MeasureError
from tests.harness import processes
from tests.harness.instance import Instance
from wssup.scoreboard import Scoreboard

#: Seconds between two looks at the count of moved connections, and at the memory: that one walks
#: page tables and costs milliseconds.
_COUNT_EVERY, _LOOK_EVERY = 0.02, 0.25
#: Seconds that a reload may take.
_PATIENCE = 300.0


@dataclass(frozen=True)
class Watched:
    """A reload that was watched.

    :param began: when it was asked for, and ``ended`` when it was done (ns, wall clock).
    :param phases: when each began (ns, wall clock), in order.
    :param result: of the command.
    :param moved: the connections moved by it.
    :param moved_last: when the last of them was seen to have moved (ns, wall clock).
    :param most: bytes of memory at the most.
    """

    began: int
    ended: int
    phases: dict[str, int]
    result: dict[str, Any]
    moved: int
    moved_last: int
    most: int

    @property
    def moving(self) -> tuple[int, int]:
        """From the begin of moving to the last connection moved; both 0 if none was."""
        return (self.phases["moving"], self.moved_last) if self.moved else (0, 0)


class _Watch:
    """Looks again and again at an instance, from its making on."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._board = Scoreboard.attach(instance.segment().name)
        self._at_first = self._count()
        self._looked = 0.0
        self.moved = self.moved_last = self.most = 0

    def look(self) -> None:
        """Count, and if it is time look at the memory."""
        moved = self._count() - self._at_first
        if moved != self.moved:
            self.moved, self.moved_last = moved, time.time_ns()
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            self.most = max(self.most, memory(self._instance))
            self._looked = time.monotonic()

    def close(self) -> None:
        """The last look."""
        self.look()
        self._board.close()

    def _count(self) -> int:
        return self._board.snapshot().total.moved_in


def memory(instance: Instance) -> int:
    """Bytes of all processes of an instance, shared pages counted once (PSS)."""
    total = 0
    for pid in {instance.pid} | processes.descendants(instance.pid):
        try:
            total += processes.pss(pid)
        except (OSError, AssertionError):
            continue  # it has just ended
    return total


def reload(instance: Instance) -> Watched:
    """Reload an instance, as the command line does it, and wait until it is done.

    :raises MeasureError: if it was refused or rolled back, or does not end.
    """
    phases: dict[str, int] = {}
    text = b""
    watch = _Watch(instance)
    deadline = time.monotonic() + _PATIENCE
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, closing(watch):
        client.connect(str(instance.runtime_dir / instance.name / "control.sock"))
        began = time.time_ns()
        client.sendall(json.dumps({"v": 1, "command": "reload"}).encode() + b"\n")
        while True:
            while b"\n" not in text:
                if time.monotonic() > deadline:
                    raise MeasureError(f"the reload did not end; its last phase: {[*phases][-1:]}")
                if select.select([client], [], [], _COUNT_EVERY)[0]:
                    data = client.recv(65536)
                    if not data:
                        raise MeasureError("the reload was given up")
                    text += data
                watch.look()
            line, _, text = text.partition(b"\n")
            answer = json.loads(line)
            if answer.get("event") == "phase":
                phases.setdefault(answer["phase"], time.time_ns())
            elif "event" not in answer:
                break
        ended = time.time_ns()
    result = answer.get("result") or answer
    if result.get("outcome") != "done":
        raise MeasureError(f"the reload was not done: {result.get('reason') or result}")
    return Watched(began, ended, phases, result, watch.moved, watch.moved_last, watch.most)
