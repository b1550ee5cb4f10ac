"""What the bridge says of a history is true: against a model that knows everything."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.bridge.chains import Chains
from wssup.bridge.hearing import Hearing
from wssup.bridge.packing import Parcel
from wssup.bridge.recovery import Recovery
from wssup.topics.retained import WALL


def parcel(source: str, sequence: int, after: int, at: float = 0.0) -> Parcel:
    return Parcel(source, sequence, after, sequence - 1, False, at, b"data")


def test_a_chain_says_what_was_not() -> None:
    """Of two topics of one publisher, each message names the one before it in its own topic, and
    the one before it altogether; a number that was never used is no loss.
    """
    chains = Chains(topics=10, sources=10)
    heard = [("a", 1), ("a", 2), ("b", 3), ("a", 5), ("b", 6)]
    assert [chains.hear("s", *x) for x in heard] == [(0, 0), (1, 1), (0, 2), (2, 3), (3, 5)]


def test_a_chain_does_not_know_what_it_did_not_hear() -> None:
    """After a loss, and at the beginning of a publisher that began before, the number just before
    is named: there might have been one.
    """
    chains = Chains(topics=10, sources=10)
    assert chains.hear("late", "a", 7) == (6, 6)
    assert chains.hear("late", "b", 8) == (6, 7)
    assert chains.hear("late", "a", 9) == (7, 8)
    chains.lost()
    assert chains.hear("late", "a", 12) == (11, 11)
    assert chains.hear("late", "b", 13) == (11, 12)


def test_a_chain_forgets_on_the_safe_side() -> None:
    """A topic that had to be forgotten, as there are many, may have had a message up to there."""
    chains = Chains(topics=2, sources=1)
    for number, topic in enumerate("abc", 1):
        chains.hear("s", topic, number)
    assert chains.hear("s", "a", 4) == (1, 3)
    chains.hear("other", "x", 1)
    assert chains.hear("s", "c", 5) == (4, 4)


@given(
    st.lists(st.tuples(st.sampled_from("pqrs"), st.sampled_from("abcdef")), max_size=60),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_chains_are_bounded_and_never_lie(
    heard: list[tuple[str, str]], topics: int, sources: int
) -> None:
    """However little is remembered: no number that is named is below that of the last message of
    the topic, nor of the publisher, and what is remembered stays within its bounds.
    """
    chains, numbers = Chains(topics, sources), dict.fromkeys("pqrs", 0)
    last: dict[tuple[str, str], int] = {}
    for source, topic in heard:
        number = numbers[source] + 1
        after, before = chains.hear(source, topic, number)
        assert last.get((source, topic), 0) <= after <= before == number - 1
        numbers[source] = last[source, topic] = number
        kept = [len(each.topics) for each in chains._sources.values()]
        assert sum(kept) == chains._count <= topics
        assert len(kept) <= sources


@pytest.mark.parametrize("everything", [False, True])
def test_a_loss_is_heard_of(*, everything: bool) -> None:
    """A publisher's next message shows that one before it is missing: of its topic, or of any if
    all are heard. What was published before a topic was subscribed to is not missed.
    """
    hearing = Hearing(most=100)
    hearing.begin_all(everything=everything)

    def missed(topic: str, *numbers: int) -> bool:
        return hearing.missed(topic, Parcel("p", *numbers, False, 0.0, b""))

    assert not missed("a", 4, 3, 3)
    assert not missed("a", 7, 4, 4 if everything else 6)
    assert missed("a", 9, 8, 8)
    assert not missed("b", 10, 5, 9)
    # Number 11 is of topic c.
    assert missed("a", 12, 9, 11) is everything
    hearing.begin("a")
    assert missed("a", 20, 19, 19) is everything
    # What was published between two connections is missed, unless those hear differently.
    hearing.begin_all(everything=everything)
    assert missed("a", 23, 22, 22)
    hearing.begin_all(everything=not everything)
    assert not missed("a", 26, 25, 25)


def test_hearing_is_bounded() -> None:
    """Of many publishers only the last ones are remembered."""
    hearing = Hearing(most=10)
    hearing.begin_all(everything=True)
    for number in range(100):
        assert not hearing.missed("a", Parcel(f"p{number}", 5, 0, 0, False, 0.0, b""))
        assert len(hearing._last) <= 10


@dataclass
class World:
    """Two publishers, a topic among others, and what became of each message."""

    published: dict[str, list[int]] = field(default_factory=lambda: {"p": [], "q": []})
    stream: list[Parcel] = field(default_factory=list)
    lasts: dict[str, int] = field(default_factory=dict)


#: What becomes of a message: it is kept; it is one of another topic; it never reached the bridge;
#: the bridge's queue dropped it; it was announced, and then the connection broke.
FATES = st.sampled_from(["kept"] * 5 + ["elsewhere"] * 2 + ["unheard", "dropped", "announced"])


@given(
    st.lists(st.tuples(st.sampled_from("pq"), FATES), max_size=40),
    st.integers(0, 45),
    st.lists(st.integers(0, 40), min_size=2, max_size=2),
    st.integers(1, 60),
    st.sampled_from([2, 5]),
    st.integers(1, 7),
)
def test_complete_means_complete(  # noqa: PLR0917 - as hypothesis gives them
    fates: list[tuple[str, str]],
    trimmed: int,
    seen: list[int],
    limit: int,
    topics: int,
    page: int,
) -> None:
    """Whatever was lost, trimmed or never heard: what is given was not seen before, is in order
    and not doubled; and if it is called complete, nothing of the topic above the marks is missing.
    """
    chains, world = Chains(topics=topics, sources=2), World()
    numbers = {"p": 0, "q": 0}
    for source, fate in fates:
        numbers[source] += 1
        number = numbers[source]
        if fate != "elsewhere":
            world.published[source].append(number)
        if fate == "unheard":
            chains.lost()
            continue
        topic = "t" if fate != "elsewhere" else f"other {number % 7}"
        after, _ = chains.hear(source, topic, number)
        if fate in {"kept", "announced"}:
            world.lasts[source] = number
        if fate == "kept":
            world.stream.append(parcel(source, number, after))
    kept = world.stream[min(trimmed, len(world.stream)) :]
    marks = {s: n for s, n in zip("pq", seen, strict=True) if n}
    recovery = Recovery(marks, world.lasts, limit=limit, size=1 << 20, oldest=0)
    back = kept[::-1]
    while not recovery.done and back:
        recovery.read(back[:page])
        del back[:page]
    found, complete = recovery.result()
    got = [(p.source, p.sequence) for p in found]
    assert len(got) == len(set(got)) <= limit
    assert all(number > marks.get(source, 0) for source, number in got)
    order = [(p.source, p.sequence) for p in kept]
    assert got == [x for x in order if x in set(got)]
    if complete:
        # What never reached the bridge after all else is the one thing that nobody can know.
        known = {s: [n for n in all_ if n <= world.lasts[s]] for s, all_ in _known(world)}
        missing = {(s, n) for s, all_ in known.items() for n in all_ if n > marks.get(s, 0)} - set(
            got
        )
        assert not missing


def _known(world: World) -> list[tuple[str, list[int]]]:
    return [(s, numbers) for s, numbers in world.published.items() if s in world.lasts]


@given(st.lists(st.sampled_from("pq"), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_what_is_all_there_is_called_complete(order: list[str], dice: random.Random) -> None:
    """Nothing was lost, and the stream reaches back to the marks: everything above them comes, and
    is called complete. The claim above would be kept by one who always says no, too.
    """
    chains = Chains(topics=5, sources=2)
    numbers = {"p": 0, "q": 0}
    stream = []
    for source in order:
        numbers[source] += 1
        stream.append(parcel(source, numbers[source], chains.hear(source, "t", numbers[source])[0]))
    marks = {s: dice.randint(0, n) for s, n in numbers.items() if n}
    lasts = {s: n for s, n in numbers.items() if n}
    recovery = Recovery(marks, lasts, limit=100, size=1 << 20, oldest=0)
    recovery.read(stream[::-1])
    found, complete = recovery.result()
    assert complete
    assert found == [p for p in stream if p.sequence > marks.get(p.source, 0)]


def test_a_server_that_lost_its_memory_is_not_believed() -> None:
    """A publisher that the marks name and the server does not know: something was forgotten."""
    recovery = Recovery({"gone": 3}, {"new": 1}, limit=10, size=1000, oldest=0)
    recovery.read([parcel("new", 1, 0)])
    assert recovery.result() == ([parcel("new", 1, 0)], False)
    assert Recovery({}, {}, limit=10, size=1000, oldest=0).result() == ([], False)


def test_a_server_that_went_back_is_not_believed() -> None:
    """A mark beyond what the server knows: it has lost what was published since it saved. Of this
    instance's own publishers a client may have what the server is still to get.
    """
    for source, complete in (("theirs.1", False), ("mine.1", True)):
        recovery = Recovery(
            {source: 150}, {source: 100}, limit=10, size=1000, oldest=0, mine="mine."
        )
        assert recovery.result() == ([], complete)


def test_publishers_that_the_server_may_have_forgotten() -> None:
    """A topic was silent for so long that the server knows nothing any more of who published after
    the position was made: nobody is told that this is all.
    """
    marks = {"b.1": 2, WALL: 1_000_000}
    for known, complete in ((979.0, True), (981.0, False)):
        recovery = Recovery(marks, {"b.1": 3}, limit=9, size=99, oldest=0, known=known)
        recovery.read([parcel("b.1", 3, 2, at=1001.0)])
        assert recovery.result() == ([parcel("b.1", 3, 2, at=1001.0)], complete)


def test_publishers_that_a_position_does_not_name() -> None:
    """What such a one had published before the position was made was given then, or was before the
    subscription: it is not given again, nor is it missed if it is not there any more.
    """
    made = 1000.0
    marks = {"b.1": 2, WALL: int(made * 1000)}
    old = [parcel("a.1", n, n - 1, at=made - 100 + n) for n in range(1, 41)]
    named = [parcel("b.1", n, n - 1, at=made - 10 + n) for n in range(1, 4)]
    new = [parcel("a.2", 1, 0, at=made + 1)]
    lasts = {"a.1": 40, "a.2": 1, "b.1": 3}
    for stream in ([*old, *named, *new], [*old[30:], *named, *new], [*old[-1:], *named, *new]):
        recovery = Recovery(marks, lasts, limit=100, size=10_000, oldest=0)
        recovery.read(stream[::-1])
        assert recovery.result() == ([named[2], *new], True)
    # Nothing shows what of the first publisher there was since.
    recovery = Recovery(marks, lasts, limit=100, size=10_000, oldest=0)
    recovery.read([*new, *named[::-1]][:2])
    assert recovery.result() == ([named[2], *new], False)
    # One who asks from the beginning has seen nothing.
    recovery = Recovery({}, lasts, limit=100, size=10_000, oldest=0)
    recovery.read([*old, *named, *new][::-1])
    assert recovery.result() == ([*old, *named, *new], True)


def test_what_is_too_old_is_not_given() -> None:
    """Messages beyond the age are left out, and then it is not complete, unless they were seen."""
    stream = [parcel("p", 1, 0, at=10), parcel("p", 2, 1, at=20)]
    for marks, complete in (({}, False), ({"p": 1}, True)):
        recovery = Recovery(marks, {"p": 2}, limit=10, size=1000, oldest=15)
        recovery.read(stream[::-1])
        assert recovery.result() == (stream[1:], complete)


def test_reading_ends_when_the_marks_are_reached() -> None:
    """Who missed little does not have the whole history read."""
    recovery = Recovery({"p": 8}, {"p": 10}, limit=100, size=1000, oldest=0)
    assert not recovery.done
    recovery.read([parcel("p", 10, 9)])
    assert not recovery.done
    recovery.read([parcel("p", 9, 8)])
    assert recovery.done
    assert Recovery({"p": 8}, {"p": 8}, limit=100, size=1000, oldest=0).done


def test_bytes_are_bounded() -> None:
    """The answer stops growing at its bound, and says that it is not all."""
    recovery = Recovery({}, {"p": 9}, limit=100, size=10, oldest=0)
    recovery.read(parcel("p", n, n - 1) for n in range(9, 0, -1))
    found, complete = recovery.result()
    assert ([p.sequence for p in found], complete) == ([7, 8, 9], False)
