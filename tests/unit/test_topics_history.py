"""What a worker remembers: known cases; any order of events is in tests/property."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from wssup.topics import history as module
from wssup.topics import recent, retained
from wssup.topics.history import History
from wssup.topics.message import Message

NODE = "0a1b2c3d"
START = 1000.0


def history(messages: int = 0, seconds: float = 0.0, **more: Any) -> History:
    made = History(
        messages=messages,
        seconds=seconds,
        size=more.pop("size", 1 << 20),
        topics=more.pop("topics", 100),
        node=more.pop("node", NODE),
    )
    assert not more
    made.expire(START)
    return made


def message(number: int, topic: str = "t", *, carrier: int = 1, **more: Any) -> Message:
    given: dict[str, Any] = {
        "text": True,
        "data": b"%d" % number,
        "source": f"{NODE}.{carrier}",
        "sequence": number,
        "at": START,
    }
    return Message(topic=topic, carrier=carrier, number=number, **{**given, **more})


def fill(kept: History, numbers: Iterable[int], topic: str = "t", **more: Any) -> None:
    for number in numbers:
        kept.add(message(number, topic, **more))


def wait(kept: History, seconds: int) -> None:
    """A worker looks at its clock each second."""
    for second in range(1, seconds + 1):
        kept.expire(START + second)


def numbers(messages: Iterable[Message]) -> list[int]:
    return [m.number for m in messages]


class TestForHandoffs:
    def test_nothing_is_kept_without_a_handoff(self) -> None:
        """With history off and no handoff under way a message costs no memory."""
        kept = history()
        assert not kept.active
        fill(kept, [1, 2])
        kept.keep()
        assert kept.active
        assert kept.since_numbers({}, ["t"], 0) == []
        assert kept.marks("t") == {}
        assert kept.since_marks("t", {}) == ([], False)

    def test_above_the_position(self) -> None:
        """A connection gets what is above its position of each node, of its topics only, and in
        the order in which it came; a node that the position does not name was not heard at all.
        """
        kept = history()
        kept.keep()
        fill(kept, [1], "other")
        fill(kept, [1, 2], carrier=2)
        fill(kept, [2, 3])
        fill(kept, [3], carrier=2)
        fill(kept, [4], "u")
        found = kept.since_numbers({1: 2}, ["t", "u"], 0)
        assert [(m.carrier, m.number) for m in found] == [(2, 1), (2, 2), (1, 3), (2, 3), (1, 4)]
        assert numbers(kept.since_numbers({1: 4, 2: 2}, ["t", "u", "none"], 0)) == [3]
        assert kept.since_numbers({1: 4, 2: 3}, ["t", "u"], 0) == []

    def test_two_handoffs_at_a_time(self) -> None:
        """What is kept stays until the last of several handoffs is over, and then takes no room."""
        kept = history()
        kept.keep()
        kept.keep()
        fill(kept, [1])
        kept.release()
        assert numbers(kept.since_numbers({}, ["t"], 0)) == [1]
        kept.release()
        assert not kept.active
        assert len(kept._recent) == 0
        with pytest.raises(RuntimeError):
            kept.release()

    def test_for_a_minute(self) -> None:
        """What is older than a minute goes, as messages come and as time passes; and older ones
        than asked for are not given.
        """
        kept = history()
        kept.keep()
        fill(kept, [1])
        kept.add(message(2, at=START + 30))
        assert kept.covers({}, ["t"], {})
        kept.add(message(3, at=START + 61))
        assert numbers(kept.since_numbers({}, ["t"], 0)) == [2, 3]
        assert numbers(kept.since_numbers({}, ["t"], START + 31)) == [3]
        kept.expire(START + 100)
        assert numbers(kept.since_numbers({}, ["t"], 0)) == [3]
        assert not kept.covers({1: 1}, ["t"], {})
        assert kept.covers({1: 2}, ["t"], {})
        assert not kept.covers({}, ["t"], {"t": START + 30})
        assert kept.covers({}, ["t"], {"t": START + 31})
        kept.forget(1)
        assert kept.covers({}, ["t"], {})

    def test_a_flood(self) -> None:
        """A flood during a handoff takes the memory that it may take and no more: the oldest go,
        and a position below them is told not to be covered.
        """
        kept = history(size=100 * recent.COST)
        kept.keep()
        for n in range(1, 10_001):
            kept.add(message(n, f"t{n}"))
        assert len(kept._recent) < 100
        assert len(kept._recent._lanes) < 100
        found = kept.since_numbers({}, [f"t{n}" for n in range(1, 10_001)], 0)
        assert numbers(found) == list(range(10_001 - len(found), 10_001))
        gone = 10_000 - len(found)
        assert not kept.covers({1: gone - 1}, [f"t{gone}"], {})
        assert kept.covers({1: gone}, [f"t{gone}"], {})

    def test_a_flood_of_other_topics(self) -> None:
        """What had to go of one topic is nothing to those who subscribe to others, unless more
        topics lost something than are told apart; and the next handoff begins anew.
        """
        kept = history(size=recent.COST + recent.LANE_COST + 100)
        kept.keep()
        fill(kept, [1, 3], "a")
        fill(kept, [2, 4], "b", carrier=2)
        assert not kept.covers({}, ["b", "a"], {})
        assert not kept.covers({2: 9}, ["a"], {})
        assert kept.covers({1: 3}, ["a"], {})
        assert kept.covers({}, ["c"], {})
        for n in range(5, recent._TOPICS + 5):
            kept.add(message(n, f"t{n}"))
        assert kept.covers({1: 3, 2: 3}, ["c"], {})
        assert not kept.covers({1: 2, 2: 3}, ["c"], {})
        kept.forget(1)
        assert kept.covers({2: 4}, ["a", "b", "c"], {})
        assert len(kept._recent._short) <= recent._TOPICS
        kept.release()
        kept.keep()
        assert kept.covers({}, ["a", "b", "c"], {})

    def test_also_with_history(self) -> None:
        """A handoff finds more than the few kept for clients, and afterwards those stay."""
        kept = history(1)
        kept.keep()
        fill(kept, [1, 2, 3])
        assert numbers(kept.since_numbers({}, ["t"], 0)) == [1, 2, 3]
        kept.release()
        assert kept.active
        assert numbers(kept.since_marks("t", {})[0]) == [3]


class TestForClients:
    def test_what_was_missed(self) -> None:
        """A client that comes back gets what came since its position, once, and hears that this is
        all; whatever it gives back later says so as well.
        """
        kept = history(10)
        fill(kept, [1, 2])
        position = kept.marks("t")
        fill(kept, [3], carrier=2, at=START + 1)
        fill(kept, [3, 5], at=START + 1)
        found, complete = kept.since_marks("t", position)
        assert [(m.carrier, m.number) for m in found] == [(2, 3), (1, 3), (1, 5)]
        assert not complete, "node 2 was first heard with its third message"
        position = kept.marks("t")
        kept.add(message(6))
        assert kept.since_marks("t", kept.marks("t")) == ([], True)
        found, _ = kept.since_marks("t", position)
        assert numbers(found) == [6]

    def test_too_many_were_missed(self) -> None:
        """If one that was missed is not kept any more, the rest is given and said not to be all."""
        kept = history(2)
        fill(kept, [1])
        position = kept.marks("t")
        fill(kept, [2, 3])
        assert kept.since_marks("t", position)[1]
        fill(kept, [4])
        found, complete = kept.since_marks("t", position)
        assert numbers(found) == [3, 4]
        assert not complete

    def test_by_age(self) -> None:
        """A topic's messages go when they are old, without any message that comes."""
        kept = history(seconds=10)
        fill(kept, [1])
        position = kept.marks("t")
        fill(kept, [2, 3], at=START + 5)
        kept.expire(START + 10)
        found, complete = kept.since_marks("t", position)
        assert numbers(found) == [2, 3]
        assert complete
        kept.expire(START + 15)
        assert kept.since_marks("t", position) == ([], False)
        assert kept.since_marks("t", kept.marks("t")) == ([], True)

    def test_the_beginning(self) -> None:
        """With no marks a newcomer gets all that is kept; it is all if nothing of it ever went."""
        kept = history(2)
        assert kept.since_marks("t", {}) == ([], True)
        fill(kept, [1, 2])
        found, complete = kept.since_marks("t", {})
        assert numbers(found) == [1, 2]
        assert complete
        fill(kept, [3])
        assert not kept.since_marks("t", {})[1]

    def test_all_workers_died(self) -> None:
        """A position from before this history began, or of another instance, never counts as
        complete, not even in a topic without a message: nobody knows what came meanwhile.
        """
        before = history(10)
        position = before.marks("t")
        assert before.since_marks("t", position) == ([], True)
        after = History(messages=10, seconds=0, size=1 << 20, topics=10, node=NODE)
        after.expire(START + 0.5)
        assert after.since_marks("t", position) == ([], False)
        other = history(10, node="99887766")
        assert other.since_marks("t", position) == ([], False)
        assert after.since_marks("t", after.marks("t")) == ([], True)

    def test_without_the_instances_name(self) -> None:
        """A history without a name for its instance denies what names a publisher unknown to it."""
        kept = history(10, node="")
        fill(kept, [1])
        assert kept.since_marks("t", kept.marks("t")) == ([], True)
        assert not kept.since_marks("t", {"99887766.1": 1})[1]

    def test_lost_on_the_way(self) -> None:
        """After a loss positions from before it are not complete, in any topic; those that prove to
        have what was lost are, and those that were made some time later.
        """
        kept = history(10)
        fill(kept, [1], "quiet")
        fill(kept, [2])
        quiet, position = kept.marks("quiet"), kept.marks("t")
        kept.lost(1, 9)
        fill(kept, [10])
        assert not kept.since_marks("quiet", quiet)[1]
        assert not kept.since_marks("t", position)[1]
        assert kept.since_marks("t", kept.marks("t"))[1]
        wait(kept, 1 + retained.SLACK // 1000)
        assert kept.since_marks("quiet", kept.marks("quiet"))[1]
        assert not kept.since_marks("quiet", quiet)[1]

    def test_after_a_standstill(self) -> None:
        """A worker that stood still may have much to read yet: positions that it gives out then
        count from before, for as long as that may take.
        """
        kept, other = history(10), history(10)
        kept.expire(START + 25)
        other.lost(1, 1)
        position = kept.marks("t")
        assert not other.since_marks("t", position)[1]
        wait(kept, 60)
        assert other.since_marks("t", kept.marks("t"))[1]

    def test_many_losses(self) -> None:
        """Losses of ever more nodes take bounded memory, and none is taken back."""
        kept = history(10)
        position = kept.marks("t")
        for carrier in range(1, 2 * module._LOSSES):
            kept.lost(carrier, 1)
        assert len(kept._losses) <= module._LOSSES
        assert not kept.since_marks("t", {**position, f"{NODE}.1": 5})[1]

    def test_the_client_is_ahead(self) -> None:
        """A client may have messages that are still on their way to the worker to which it comes:
        that worker must skip them.
        """
        kept = history(10)
        fill(kept, [1, 2])
        marks = {f"{NODE}.1": 4, f"{NODE}.2": 1, f"{NODE}.0": 10**9}
        assert kept.ahead("t", marks) == {f"{NODE}.1": 4, f"{NODE}.2": 1}
        assert kept.ahead("t", kept.marks("t")) == {}

    def test_twice_and_late(self) -> None:
        """A message that comes twice is kept once; one that comes after a later one of its source
        stands before it, and one that is gone already stays gone.
        """
        kept = history(4)
        for n, sequence in enumerate([5, 7, 7, 6, 5, 9, 10], 1):
            kept.add(message(n, sequence=sequence, source="99887766.3"))
        assert [m.sequence for m in kept.since_marks("t", {})[0]] == [6, 7, 9, 10]
        kept.add(message(8, sequence=5, source="99887766.3"))
        assert [m.sequence for m in kept.since_marks("t", {})[0]] == [6, 7, 9, 10]
