"""What tests of topics do: kill a worker, see that the numbers are right, talk to one worker."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness import processes
from tests.harness.instance import Instance, in_service
from tests.harness.raw import Raw, spread_clients
from tests.harness.topics_oracle import TopicsOracle
from wssup.scoreboard import RowView, Scoreboard

__all__ = [
    "Talk",
    "by_slot",
    "cut_off",
    "kill",
    "numbers",
    "on_time",
    "resident",
    "rests",
    "right",
    "rows",
]


class Talk:
    """A client that asks and is answered, whatever messages of topics come in between.

    :ivar messages: those that came, with their opcodes.
    """

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.messages: list[tuple[int, bytes]] = []

    def ask(self, line: str) -> str:
        """The answer to a command."""
        self.raw.say(line)
        return self.answer(line.partition(" ")[0])

    def answer(self, what: str) -> str:
        """The next answer, which must be to this command."""
        while True:
            opcode, payload = self.frame()
            if payload.startswith(b"= "):
                _, told, rest = payload.decode().split(" ", 2)
                assert told == what, payload
                return rest
            self.messages.append((opcode, payload))

    def subscribe(self, topic: str, **options: object) -> dict[str, Any]:
        """Subscribe; what the answer says."""
        found: dict[str, Any] = json.loads(self.ask(f"sub {topic} {json.dumps(options)}"))
        return found

    def hear(self) -> bytes:
        """The next message of a topic."""
        if not self.messages:
            self.messages.append(self.frame())
        _, payload = self.messages.pop(0)
        assert not payload.startswith(b"= "), payload
        return payload

    def hear_until(self, last: bytes) -> list[tuple[float, bytes]]:
        """The messages up to one that begins so, and when they came (monotonic)."""
        found = [(time.monotonic(), self.hear())]
        while not found[-1][1].startswith(last):
            found.append((time.monotonic(), self.hear()))
        return found

    def frame(self) -> tuple[int, bytes]:
        """The next frame with data.

        :raises AssertionError: the connection has ended.
        """
        opcode, payload = self.raw.frame()
        while opcode == 9:  # RFC 6455 section 5.5.2: a ping
            opcode, payload = self.raw.frame()
        assert opcode in (1, 2), (opcode, payload)
        return opcode, payload


def numbers(heard: list[tuple[float, bytes]]) -> list[int]:
    """The numbers of the texts of a flood; those of the clock are left out."""
    return [int(text.split()[0]) for _, text in heard if text.endswith(b"x")]


def on_time(heard: list[tuple[float, bytes]], seconds: float = 1) -> None:
    """The clock of no worker that is heard stands still for so long, and it loses no tick."""
    last: dict[int, tuple[float, int]] = {}
    for at, text in heard:
        if text.endswith(b"x"):
            continue
        pid, number = map(int, text.split())
        before, tick = last.get(pid, (at, number - 1))
        assert number == tick + 1, (pid, number, tick)
        assert at - before < seconds, f"{pid} was not heard for {at - before:.2f} s"
        last[pid] = at, number
    assert last, "no clock was heard"


@contextmanager
def by_slot(instance: Instance, slots: int) -> Iterator[dict[int, Talk]]:
    """A client in each worker, by slot."""
    with spread_clients(instance.address(), slots, 1) as found:
        yield {slot: Talk(clients[0]) for slot, clients in found.items()}


def rows(instance: Instance) -> list[RowView]:
    """The workers' counts, read from shared memory."""
    board = Scoreboard.attach(instance.segment().name)
    try:
        return [row for row in board.snapshot().rows if row.pid]
    finally:
        board.close()


def rests(instance: Instance, workers: int) -> None:
    """Wait until so many slots have one worker each, and nothing is under way."""
    instance.wait(
        lambda s: (
            s["state"] == "running"
            and s["reload"] is None
            and len(in_service(s)) == workers
            and all(
                [(w["role"], w["state"]) for w in x["workers"]] == [("current", "ready")]
                for x in in_service(s)
            )
        ),
        f"{workers} workers",
    )


@contextmanager
def cut_off(people: TopicsOracle) -> Iterator[None]:
    """Whose connection is cut off meanwhile comes again before the end."""
    people.may_end = True
    yield
    people.wait(lambda: all(c.ready or c.kind.passing for c in people.clients), "all to come again")
    people.may_end = False


def kill(instance: Instance, people: TopicsOracle, slot: int) -> None:
    """Kill -9 of a worker; its clients come again, and nobody else is cut off."""
    pid = instance.workers()[slot]
    workers = len(instance.workers())
    before = sum(people.codes.values())
    had = next(row for row in rows(instance) if row.pid == pid).counts.active
    with cut_off(people):
        people.killed.add(pid)
        os.kill(pid, signal.SIGKILL)
        people.wait(lambda: sum(people.codes.values()) - before == had, f"{had} to be cut off", 20)
    rests(instance, workers)


def right(instance: Instance, people: TopicsOracle, workers: int) -> None:
    """Each worker says the same of each topic: how many subscribe to it, and who."""
    expected = {
        topic: [str(count), [count, people.members(topic), True]]
        for topic, count in people.topics.items()
    }
    told: dict[int, dict[str, list[object]]] = {}

    def asked(talks: dict[int, Talk]) -> bool:
        for slot, talk in talks.items():
            told[slot] = {
                topic: [talk.ask(f"count {topic}"), json.loads(talk.ask(f"there {topic}"))]
                for topic in expected
            }
        return all(found == expected for found in told.values())

    with by_slot(instance, workers) as talks:
        try:
            processes.until(lambda: asked(talks), 20, "the numbers of subscribers to be right")
        except AssertionError as error:
            raise AssertionError(f"{error}: {told} instead of {expected}") from None


def resident(pid: int) -> int:
    """Bytes that a process has in memory (proc(5), statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
