"""What a worker remembers: how much that may be, and how a new one takes it over."""

from __future__ import annotations

import tracemalloc

from tests.unit.test_topics_history import NODE, START, fill, history, message, numbers, wait
from wssup.topics import history as module
from wssup.topics import retained
from wssup.topics.history import History


def copy(source: History, into: History, seen: dict[int, int], size: int = 65536) -> None:
    for chunk in source.snapshot(size):
        into.merge(chunk.messages, chunk.marks, seen, last=chunk.last)


class TestBounds:
    def test_memory(self) -> None:
        """When memory is short the oldest message goes, of whichever topic; at last its topic."""
        topic = retained.TOPIC_COST + retained.SOURCE_COST
        kept = history(1000, size=2 * topic + 10 * (retained.COST + 2))
        fill(kept, range(10, 16), "a")
        fill(kept, range(16, 24), "b")
        assert numbers(kept.since_marks("a", {})[0]) == [14, 15]
        assert numbers(kept.since_marks("b", {})[0]) == list(range(16, 24))
        assert not kept.since_marks("a", {})[1]
        fill(kept, range(24, 40), "b")
        assert list(kept._retained.topics) == ["b"]
        assert kept.since_marks("a", {}) == ([], False)
        assert kept._retained.size <= kept._retained._most

    def test_memory_of_many_publishers(self) -> None:
        """What many publishers in many topics take is within the bound, too, as far as Python tells
        what its objects take.
        """
        size = 4 << 20
        for handoff in (False, True):
            kept = history(0 if handoff else 1, size=size, topics=20_000)
            if handoff:
                kept.keep()
            tracemalloc.start()
            try:
                for number in range(1, 401):
                    for carrier in range(1, 65):
                        kept.add(message(number, f"t{number}", carrier=carrier))
                grown, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert grown < 1.5 * size

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
