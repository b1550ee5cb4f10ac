"""Who can publish, from where, and what: handlers, tasks, threads and commands; text and bytes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.topics_apps import EVENT, STYLES
from tests.harness.topics_run import Talk, by_slot

Start = Callable[..., Instance]

_TEXT, _BINARY = 1, 2


def _subscribed(talks: dict[int, Talk], topic: str) -> None:
    """Subscribe all, and wait until each worker knows of all."""
    for talk in talks.values():
        talk.subscribe(topic)
    processes.until(
        lambda: all(int(t.ask(f"count {topic}")) == len(talks) for t in talks.values()),
        10,
        "subscribers to be known",
    )


@pytest.mark.parametrize("style", STYLES)
def test_text_and_bytes(start: Start, style: str) -> None:
    """What is published as text is heard as text in every worker, bytes as bytes, in the order of
    publishing; who is excluded does not hear it.
    """
    instance = start(STYLES[style])
    instance.running()
    with by_slot(instance, 2) as talks:
        _subscribed(talks, "red")
        pid = talks[0].ask("pub red text \N{SNOWMAN} one")
        talks[0].ask("pub red bytes \N{SNOWMAN} two")
        talks[0].ask("pub red others not for me")
        talks[0].ask("pub red text ")
        said = [(_TEXT, "\N{SNOWMAN} one"), (_BINARY, "\N{SNOWMAN} two"), (_TEXT, "not for me")]
        said.append((_TEXT, ""))
        expected = [(opcode, f"{pid} {text}".encode()) for opcode, text in said]
        while len(talks[1].messages) < 4:
            talks[1].messages.append(talks[1].frame())
        assert talks[1].messages == expected
        assert talks[0].messages == [
            message for message in expected if b"not for" not in message[1]
        ]


def test_from_everywhere(start: Start) -> None:
    """A thread publishes as a handler does, whether trio knows the thread or not; a task of the
    lifespan, to the subscribers of all workers, and nothing is missing of what comes after the
    first; and ``wssup publish``, which says how many the subscribers are.
    """
    instance = start(EVENT)
    instance.running()
    with by_slot(instance, 2) as talks:
        _subscribed(talks, "red")
        _from_threads(talks)
        _by_command(instance, talks)
        _from_the_lifespan(talks, set(instance.workers().values()))


def _from_threads(talks: dict[int, Talk]) -> None:
    loop = talks[0].ask("thread red hello")
    for talk in talks.values():
        heard = [talk.hear().decode().split() for _ in range(2)]
        assert [text for _, text in heard] == ["hello", "hello"]
        assert len({thread for thread, _ in heard} - {loop}) == 2


def _from_the_lifespan(talks: dict[int, Talk], pids: set[int]) -> None:
    for talk in talks.values():
        talk.subscribe("ticks")
        heard: dict[int, list[int]] = {pid: [] for pid in pids}
        while min(map(len, heard.values())) < 20:
            pid, number = map(int, talk.hear().split())
            heard[pid].append(number)
        for ticks in heard.values():
            assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))


def _by_command(instance: Instance, talks: dict[int, Talk]) -> None:
    done = instance.run("publish", "red", "Maintenance at noon \N{SNOWMAN}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 subscribers" in done.stdout
    binary = bytes(range(256))
    piped = subprocess.run(
        instance.command("publish", "red", "-", "--binary", "--json"),
        input=binary,
        cwd=instance.home,
        env=instance.environ,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert json.loads(piped.stdout)["subscribers"] == 2
    for talk in talks.values():
        assert talk.frame() == (_TEXT, "Maintenance at noon \N{SNOWMAN}".encode())
        assert talk.frame() == (_BINARY, binary)
    nobody = instance.run("publish", "nobody", "hears this")
    assert nobody.returncode == 0
    assert "0 subscribers" in nobody.stdout
    assert instance.run("publish", "a\x07b", "x").returncode == 2


def test_what_was_missed(start: Start) -> None:
    """Who comes again with the position of the last message hears what was published meanwhile, in
    any worker; with a position that is too old, or none, it is told that it cannot have all.
    """
    instance = start(EVENT, topics={"history": 10})
    instance.running()
    with by_slot(instance, 2) as talks:
        here, there = talks[0], talks[1]
        here.subscribe("red", positions=True)
        there.ask("pub red text first")
        first = json.loads(here.hear())
        assert first["topic"] == "red"
        assert first["data"].endswith(" first")
        assert json.loads(here.ask("unsub red"))["was"]
        for number in range(10):
            talks[number % 2].ask(f"pub red {'text' if number else 'bytes'} {number}")
        processes.until(lambda: _kept(there, first["position"]) == 10, 10, "the last message")
        found = there.subscribe("red", positions=True, since=first["position"])
        assert (found["recovered"], found["missed"]) == (True, 10)
        missed = [json.loads(payload) for _, payload in there.messages[-10:]]
        assert sorted("base64" in message for message in missed) == [False] * 9 + [True]
        here.ask("pub red text one too many")
        processes.until(lambda: not _complete(there, first["position"]), 10, "a message to go")
        again = there.subscribe("red", since=missed[-1]["position"])
        assert (again["recovered"], again["missed"]) == (True, 1)
        for nonsense in ("nonsense", "1~", "\N{SNOWMAN}", "9" * 5000):
            assert there.subscribe("red", since=nonsense)["recovered"] is False


def _kept(talk: Talk, since: str) -> int:
    found: int = talk.subscribe("red", since=since)["missed"]
    return found


def _complete(talk: Talk, since: str) -> bool:
    found: bool = talk.subscribe("red", since=since)["recovered"]
    return found
