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


def copy(source: History, into: History, seen: dict[int, int], size: int = 65536) -> None:
    for chunk in source.snapshot(size):
        into.merge(chunk.messages, chunk.marks, seen, last=chunk.last)


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
        assert kept.covers({})
        kept.add(message(3, at=START + 61))
        assert numbers(kept.since_numbers({}, ["t"], 0)) == [2, 3]
        assert numbers(kept.since_numbers({}, ["t"], START + 31)) == [3]
        kept.expire(START + 100)
        assert numbers(kept.since_numbers({}, ["t"], 0)) == [3]
        assert not kept.covers({1: 1})
        assert kept.covers({1: 2})

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
        assert not kept.covers({1: 10_000 - len(found) - 1})
        assert kept.covers({1: 10_000 - len(found)})

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


class TestBounds:
    def test_memory(self) -> None:
        """When memory is short the oldest message goes, of whichever topic; at last its topic."""
        kept = history(1000, size=2 * retained.TOPIC_COST + 10 * (retained.COST + 2))
        fill(kept, range(10, 16), "a")
        fill(kept, range(16, 24), "b")
        assert numbers(kept.since_marks("a", {})[0]) == [14, 15]
        assert numbers(kept.since_marks("b", {})[0]) == list(range(16, 24))
        assert not kept.since_marks("a", {})[1]
        fill(kept, range(24, 40), "b")
        assert list(kept._retained.topics) == ["b"]
        assert kept.since_marks("a", {}) == ([], False)
        assert kept._retained.size <= kept._retained._most

    def test_one_message_larger_than_all(self) -> None:
        """A message larger than the memory for all is not kept, and known to be gone."""
        kept = history(10, size=10_000)
        position = kept.marks("t")
        kept.add(message(1, data=bytes(20_000)))
        assert kept.since_marks("t", position) == ([], False)
        fill(kept, [2])
        assert numbers(kept.since_marks("t", position)[0]) == [2]

    def test_ever_new_topics(self) -> None:
        """Topics without end take bounded memory: the longest idle is forgotten, and a position in
        it is told to be incomplete, but one made some time after its last message is good.
        """
        kept = history(10, topics=3)
        fill(kept, [1], "old")
        position = kept.marks("old")
        for n in range(2, 10_000):
            kept.add(message(n, f"t{n}", at=START + 1))
        assert len(kept._retained.topics) == 3
        assert kept.since_marks("old", position) == ([], False)
        wait(kept, 1 + retained.SLACK // 1000)
        later = kept.marks("old")
        assert kept.since_marks("old", later) == ([], True)
        kept.add(message(10_000, "old", at=START + 62))
        assert kept.since_marks("old", position) == (kept.since_marks("old", later)[0], False)
        assert kept.since_marks("old", later)[1]

    def test_a_busy_topic_among_quiet_ones(self) -> None:
        """The order over all topics does not grow with what one of them has dropped."""
        kept = history(2)
        fill(kept, [1], "quiet")
        fill(kept, range(2, 50_000), "busy")
        assert len(kept._retained._order) < 2000
        assert numbers(kept.since_marks("quiet", {})[0]) == [1]

    def test_ever_new_publishers(self) -> None:
        """After ever so many workers a topic's position names those of the last minutes, and one
        from before their time is told to be incomplete.
        """
        kept = history(5)
        for n in range(1, 1001):
            kept.add(message(1, carrier=n, at=START + n * 60))
        wait(kept, 1000 * 60 + 59)
        position = kept.marks("t")
        assert len(position) < 40
        assert not kept.since_marks("t", {f"{NODE}.1": 1, f"{NODE}.0": int(START * 1000)})[1]
        assert kept.since_marks("t", position) == ([], True)
        # Whoever forgot one more of them has it, though it does not say so.
        del position[f"{NODE}.999"]
        assert kept.since_marks("t", position) == ([], True)

    def test_very_many_publishers_at_a_time(self) -> None:
        """However many publish in a topic, a position has less than 4 KiB."""
        kept = history(1000)
        for n in range(1, 2001):
            kept.add(message(1, carrier=n))
        assert len(kept.marks("t")) <= retained.SOURCES + 1
        found, complete = kept.since_marks("t", {})
        assert {m.source for m in found} == set(kept.marks("t")) - {f"{NODE}.0"}
        assert not complete

    def test_nodes_are_forgotten(self) -> None:
        """What is remembered of each node that ever was is bounded."""
        kept = history(1, topics=1)
        for n in range(1, module._NODES + 1000):
            kept.add(message(1, f"t{n}", carrier=n))
        assert len(kept._low) == module._NODES


class TestTakingOver:
    def test_a_new_worker_knows_what_its_peer_knows(self) -> None:
        """A worker that takes over a peer's history answers as that one does, what came to it
        meanwhile included, and with each message once.
        """
        old, new = history(5), history(5)
        fill(old, range(1, 8))
        position = old.marks("t")
        fill(old, [8, 9])
        new.expire(START + 1)
        fill(new, [8, 9, 10], at=START)
        copy(old, new, {1: 9}, size=1)
        assert numbers(new.since_marks("t", {})[0]) == [6, 7, 8, 9, 10]
        assert new.since_marks("t", position) == (new.since_marks("t", {})[0][2:], True)
        assert not new.since_marks("t", {**position, f"{NODE}.1": 4})[1]

    def test_nothing_shows_before_the_last_part(self) -> None:
        """A part of a history is not taken for all of it; if the rest does not come, what came is
        given to clients and never called complete.
        """
        old, new = history(5), history(5)
        position = old.marks("t")
        fill(old, [1, 2, 3])
        parts = list(old.snapshot(1))
        assert len(parts) > 3
        new.merge(parts[0].messages, parts[0].marks, {1: 3}, last=False)
        assert new.since_marks("t", position)[0] == []
        new.blind()
        found, complete = new.since_marks("t", position)
        assert numbers(found) == [1]
        assert not complete

    def test_it_began_before(self) -> None:
        """A position from before a worker began is good there, if its peer knew that time; and not,
        if that one did not.
        """
        old = history(5)
        position = old.marks("t")
        new = History(messages=5, seconds=0, size=1 << 20, topics=10, node=NODE)
        new.expire(START + 100)
        assert not new.since_marks("t", position)[1]
        copy(old, new, {})
        assert new.since_marks("t", position) == ([], True)
        assert not new.since_marks("t", {f"{NODE}.0": int(START * 1000) - 1})[1]

    def test_a_hole_between_peer_and_link(self) -> None:
        """What a third worker sent after the peer's history was made and before it had a link to
        the new one came to neither: positions before it are not complete at the new one.
        """
        for known, complete in ((1, False), (2, True)):
            old, new = history(5), history(5)
            position = old.marks("t")
            fill(new, [3], carrier=7)
            copy(old, new, {7: known})
            assert new.since_marks("t", position)[1] is complete
        for known, complete in ((1, False), (2, True)):
            old, new = history(5), history(5)
            position = old.marks("t")
            copy(old, new, {7: known})
            fill(new, [3], carrier=7)
            assert new.since_marks("t", position)[1] is complete

    def test_what_was_said_before_the_link(self) -> None:
        """What a node published before it had a link to this one is missing here, though it says
        nothing more; its own history mends that, whatever else is known of it.
        """
        old, new, early = history(5), history(5), history(5)
        position = old.marks("t")
        fill(early, [1], carrier=9)
        old.linked(9, 1)
        assert not old.since_marks("t", position)[1]
        new.linked(9, 1)
        copy(old, new, {9: 1})
        assert not new.since_marks("t", position)[1]
        copy(early, new, {9: 1})
        found, complete = new.since_marks("t", position)
        assert numbers(found) == [1]
        assert complete

    def test_holes_of_those_that_are_gone(self) -> None:
        """What a peer never heard of a node that is gone is not known here either."""
        old, new = history(5), history(5)
        position = old.marks("t")
        old.linked(9, 1)
        wait(old, 1 + retained.SLACK // 1000)
        later = old.marks("t")
        copy(old, new, {9: 1})
        assert not new.since_marks("t", position)[1]
        assert new.since_marks("t", later)[1]

    def test_losses_come_along(self) -> None:
        """What a peer lost stays unknown at a worker that takes over its history; and what the
        worker lost itself, too, since that may have been lost by all.
        """
        for loser in (0, 1):
            both = history(5), history(5)
            position = both[0].marks("t")
            both[loser].lost(1, 3)
            copy(*both, {1: 3})
            assert not both[1].since_marks("t", position)[1]

    def test_what_the_peer_has_forgotten(self) -> None:
        """A topic that a peer has forgotten is not taken for one that never was."""
        old = history(5, topics=1)
        fill(old, [1])
        position = old.marks("t")
        fill(old, [2])
        fill(old, [3], "u")
        heard, new = history(5), history(5)
        fill(heard, [4])
        copy(old, heard, {1: 4})
        assert numbers(heard.since_marks("t", position)[0]) == [4]
        assert not heard.since_marks("t", position)[1]
        copy(old, new, {1: 4})
        assert new.since_marks("t", position) == ([], False)

    def test_a_history_that_says_nothing_of_itself(self) -> None:
        """A peer's history without its reach is taken over, and nothing of it called complete."""
        new = history(5)
        position = new.marks("t")
        new.merge([message(1)], [("t", {f"{NODE}.1": 1}, {})], {}, last=True)
        found, complete = new.since_marks("t", position)
        assert numbers(found) == [1]
        assert not complete

    def test_bounds_hold(self) -> None:
        """A history larger than a worker's bounds is cut to them."""
        old = history(1000, size=1 << 24)
        for n in range(1, 2001):
            kept = message(n, f"t{n % 7}")
            old.add(kept)
        new = history(20, topics=5, size=60 * retained.COST)
        copy(old, new, {1: 2000})
        assert len(new._retained.topics) <= 5
        assert new._retained.size <= 60 * retained.COST
        assert not new.since_marks("t1", {})[1]
