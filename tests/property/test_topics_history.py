"""Histories of several workers in any order of events, against what was really published."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from wssup.topics import retained
from wssup.topics.history import Chunk, History
from wssup.topics.message import Message
from wssup.topics.position import decode, encode
from wssup.topics.retained import SLACK

NODE, FAR = "0a1b2c3d", "99887766"
TOPICS = st.sampled_from(["t", "u", "v", "w"])
WHICH = st.integers(0, 7)


@dataclass
class Lost:
    """Up to this number; and what it was in truth."""

    number: int
    names: set[tuple[str, int]]


@dataclass
class Part:
    chunk: Chunk
    seen: dict[int, int]


@dataclass
class Worker:
    serial: int
    history: History
    source: str
    number: int = 0
    sequence: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    links: dict[int, deque[Message | Lost | Part]] = field(default_factory=dict)
    asked: int = 0
    #: Who asked for its history, and how far the others were when that one got its links.
    asking: dict[int, dict[int, int]] = field(default_factory=dict)
    serving: dict[int, tuple[Iterator[Chunk], dict[int, int]]] = field(default_factory=dict)
    #: What came here, and what it was told to be lost.
    processed: set[tuple[str, int]] = field(default_factory=set)
    told: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True)
class Token:
    topic: str
    text: str
    at: float
    processed: frozenset[tuple[str, int]]
    gone: frozenset[tuple[str, int]]
    forgetful: bool


class Workers(RuleBasedStateMachine):
    """Each worker has a history and a queue from each other one, and gets everything.

    Clients are positions: taken at one worker, given back at another. Every other worker is a
    bridge: what it carries was published on another machine, under a source of there.
    """

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        for name, value in {"SOURCES": 4, "_FEW": 2, "_IDLE": 90.0}.items():
            self.stack.enter_context(mock.patch.object(retained, name, value))
        self.now = self.read_until = 1000.0
        self.workers: dict[int, Worker] = {}
        self.started = 0
        self.published: list[Message] = []

    def teardown(self) -> None:
        self.stack.close()

    @initialize(
        messages=st.sampled_from([0, 2, 5]),
        seconds=st.sampled_from([0, 20, 200]),
        size=st.sampled_from([8_000, 1 << 20]),
        topics=st.sampled_from([2, 100]),
        together=st.booleans(),
    )
    def configure(
        self, messages: int, seconds: float, size: int, topics: int, *, together: bool
    ) -> None:
        self.bounds = {
            "messages": messages or (0 if seconds else 3),
            "seconds": seconds,
            "size": size,
            "topics": topics,
        }
        self.start()
        if together:
            self.start()

    def pick(self, which: int) -> Worker:
        alive = list(self.workers.values())
        return alive[which % len(alive)]

    # What workers do.

    @precondition(lambda self: len(self.workers) < 4)
    @rule(early=st.booleans())
    def start(self, *, early: bool = False) -> None:
        """One more, linked with all; it takes over the history of the oldest. It may publish before
        it has links.
        """
        self.started += 1
        history = History(**self.bounds, node=NODE)  # type: ignore[arg-type]
        source = f"{NODE if self.started % 2 else FAR}.{self.started}"
        new = Worker(self.started, history, source)
        new.history.expire(self.now)
        if early and self.workers:
            self.said(new, "t")
        for other in self.workers.values():
            other.links[new.serial] = deque()
            other.history.linked(new.serial, new.number)
            new.links[other.serial] = deque()
            new.history.linked(other.serial, other.number)
        if self.workers:
            self.ask(new, self.workers[min(self.workers)])
        self.workers[new.serial] = new

    def ask(self, worker: Worker, other: Worker) -> None:
        worker.asked = other.serial
        others = [w for w in self.workers.values() if w is not worker]
        other.asking[worker.serial] = {w.serial: w.number for w in others}

    @rule(which=WHICH, whom=WHICH)
    def ask_again(self, which: int, whom: int) -> None:
        """One takes over another one's history, too."""
        worker, other = self.pick(which), self.pick(whom)
        if worker is not other and not worker.asked:
            self.ask(worker, other)

    def said(self, worker: Worker, topic: str) -> None:
        worker.number += 1
        worker.sequence += 1
        message = Message(
            topic,
            True,
            b"x",
            worker.serial,
            worker.number,
            worker.source,
            worker.sequence,
            self.now,
        )
        self.published.append(message)
        self.process(worker, message)

    @rule(which=WHICH, topic=TOPICS)
    def publish(self, which: int, topic: str) -> None:
        worker = self.pick(which)
        self.said(worker, topic)
        message = self.published[-1]
        for other in self.workers.values():
            if other is not worker:
                other.links[worker.serial].append(message)

    @rule(which=WHICH, topic=TOPICS)
    def away(self, which: int, topic: str) -> None:
        """Another machine published, and nothing of it came here; the carrier says so."""
        worker = self.pick(which)
        if not worker.source.startswith(FAR):
            return
        worker.sequence += 1
        # A number that no message has (Bus.gap).
        worker.number += 1
        worker.seen[worker.serial] = worker.number
        gone = Message(topic, True, b"x", 0, 0, worker.source, worker.sequence, self.now)
        self.published.append(gone)
        worker.told.add((gone.source, gone.sequence))
        worker.history.lost(worker.serial, worker.number)
        for other in self.workers.values():
            if other is not worker:
                other.links[worker.serial].append(
                    Lost(worker.number, {(gone.source, gone.sequence)})
                )

    def process(self, worker: Worker, message: Message) -> None:
        worker.seen[message.carrier] = message.number
        worker.processed.add((message.source, message.sequence))
        worker.history.add(message)

    def read(self, worker: Worker, serial: int, count: int = 1 << 30) -> None:
        link = worker.links.get(serial, ())
        while link and count:
            count -= 1
            entry = link.popleft()
            if isinstance(entry, Message):
                self.process(worker, entry)
            elif isinstance(entry, Lost):
                worker.seen[serial] = max(worker.seen.get(serial, 0), entry.number)
                worker.told |= entry.names
                worker.history.lost(serial, entry.number)
            else:
                worker.history.merge(
                    entry.chunk.messages, entry.chunk.marks, entry.seen, last=entry.chunk.last
                )
                if entry.chunk.last:
                    worker.asked = 0
        if serial not in self.workers and not link:
            worker.links.pop(serial, None)
            if worker.asked == serial:
                worker.asked = 0
                worker.history.blind()

    @rule(which=WHICH, link=WHICH, count=st.integers(1, 5))
    def hear(self, which: int, link: int, count: int) -> None:
        worker = self.pick(which)
        if worker.links:
            self.read(worker, list(worker.links)[link % len(worker.links)], count)

    @rule(which=WHICH, link=WHICH, count=st.integers(1, 3))
    def lose(self, which: int, link: int, count: int) -> None:
        """A slow worker: the oldest that wait for it are dropped."""
        worker = self.pick(which)
        if not worker.links:
            return
        serial = list(worker.links)[link % len(worker.links)]
        queue = list(worker.links[serial])
        places = [n for n, entry in enumerate(queue) if isinstance(entry, Message)][:count]
        if places:
            last = queue[places[-1]]
            assert isinstance(last, Message)
            kept = [entry for n, entry in enumerate(queue) if n not in places]
            lost = [entry for n, entry in enumerate(queue) if n in places]
            names = {(m.source, m.sequence) for m in lost if isinstance(m, Message)}
            kept.insert(places[0], Lost(last.number, names))
            worker.links[serial] = deque(kept)

    @rule(which=WHICH, count=st.integers(1, 4))
    def answer(self, which: int, count: int) -> None:
        """A worker goes on with sending its history to a new one."""
        worker = self.pick(which)
        for serial, upto in list(worker.asking.items()):
            # It has what was said before the new one had its links, by those that died since, too.
            behind = (w for w, n in upto.items() if w in self.workers and worker.seen.get(w, 0) < n)
            if not any(behind) and not worker.links.keys() - self.workers.keys():
                del worker.asking[serial]
                worker.serving[serial] = (worker.history.snapshot(30), dict(worker.seen))
        for serial, (parts, seen) in list(worker.serving.items()):
            for _ in range(count):
                chunk = next(parts, None)
                if chunk is None:
                    del worker.serving[serial]
                    break
                if serial in self.workers:
                    self.workers[serial].links[worker.serial].append(Part(chunk, seen))

    @precondition(lambda self: self.workers)
    @rule(which=WHICH)
    def kill(self, which: int) -> None:
        """A worker dies; what it sent can still be read. There is always another one after it."""
        worker = self.pick(which)
        # No process begins in the millisecond in which another one ends.
        self.now += 0.002
        del self.workers[worker.serial]
        if not self.workers:
            self.start()
        for other in self.workers.values():
            other.asking.pop(worker.serial, None)
            other.serving.pop(worker.serial, None)

    @rule(seconds=st.sampled_from([0.01, 0.4, 2.0, 15.0, 30.0, 130.0]))
    def advance(self, seconds: float) -> None:
        """Time passes, and nothing is on its way for more than a few seconds of it."""
        end = self.now + seconds
        if end > self.read_until + 5:
            self.read_until = end
            for _ in range(3):
                for which in range(len(self.workers)):
                    self.answer(which, 1 << 30)
                for worker in self.workers.values():
                    for serial in list(worker.links):
                        self.read(worker, serial)
        while self.now < end:
            # In these steps a worker looks at its clock.
            self.now = min(end, self.now + 1.5)
            if seconds > 0.1:
                for worker in self.workers.values():
                    worker.history.expire(self.now)

    # What clients see.

    @rule(target=tokens, which=WHICH, topic=TOPICS)
    def leave(self, which: int, topic: str) -> Token:
        """A client has all that this worker has processed, takes its position and goes."""
        worker = self.pick(which)
        marks = worker.history.marks(topic)
        known = worker.history._retained.topics.get(topic)
        floor = known.evicted.get(f"{NODE}.0", 0) if known else worker.history._retained.forgotten
        all_of = self.workers.values()
        had = set().union(*(w.processed | w.told | self.to_come(w) for w in all_of))
        # What died with all that had it or knew of it is nobody's any more.
        gone = {(m.source, m.sequence) for m in self.published} - had
        return Token(
            topic,
            encode(marks),
            self.now,
            frozenset(worker.processed),
            frozenset(gone),
            forgetful=floor > marks[f"{NODE}.0"],
        )

    @rule(token=tokens, which=WHICH)
    def come_back(self, token: Token, which: int) -> None:
        """It gets nothing twice, each publisher's in order, and if it is told that this is all,
        then what it gets and what is on its way here is all that it does not have.
        """
        worker = self.pick(which)
        if worker.asked:
            # It takes no connections before it has its history.
            return
        marks = decode(token.text)
        found, complete = worker.history.since_marks(token.topic, marks)
        names = [(m.source, m.sequence) for m in found]
        assert all(m.topic == token.topic for m in found)
        assert len(set(names)) == len(names)
        for source in {m.source for m in found}:
            sequences = [m.sequence for m in found if m.source == source]
            assert sequences == sorted(sequences)
            assert sequences[0] > marks.get(source, 0)
        assert token.forgetful or not token.processed & set(names)
        if complete:
            self.nothing_missing(worker, token, {*names, *self.to_come(worker)})

    def nothing_missing(self, worker: Worker, token: Token, had: set[tuple[str, int]]) -> None:
        marks = decode(token.text)
        for m in self.published:
            if m.topic == token.topic and m.sequence > marks.get(m.source, 0):
                name = (m.source, m.sequence)
                if name not in token.processed | token.gone and m.at > token.at - SLACK / 1000:
                    assert name in had, m
        ahead = worker.history.ahead(token.topic, marks)
        in_topic = {(m.source, m.sequence) for m in self.published if m.topic == token.topic}
        for source, sequence in in_topic & self.to_come(worker) & token.processed:
            assert token.forgetful or ahead.get(source, 0) >= sequence

    def to_come(self, worker: Worker) -> set[tuple[str, int]]:
        """What is on its way here. What will be lost of it counts: the client is here then."""
        entries = [entry for link in worker.links.values() for entry in link]
        return {(m.source, m.sequence) for m in entries if isinstance(m, Message)}.union(
            *(entry.names for entry in entries if isinstance(entry, Lost))
        )

    @invariant()
    def bounded(self) -> None:
        """The books are right, and memory is bounded, whatever came."""
        for worker in self.workers.values():
            kept = worker.history._retained
            topics = kept.topics.values()
            messages = [m for topic in topics for m in topic.kept]
            assert kept.count == len(messages)
            cost = sum(retained.COST + len(m.data) for m in messages)
            beside = [retained.TOPIC_COST + retained.SOURCE_COST * len(t.sources) for t in topics]
            assert kept.size == cost + sum(beside)
            assert kept.size <= max(self.bounds["size"], *beside, retained.TOPIC_COST)
            assert len(topics) <= self.bounds["topics"]
            assert len(kept._order) <= 2 * kept.count + 1024 + 1
            assert len(kept._order) == kept.count + sum(
                kept._order.count(t) and t.skip for t in {id(t): t for t in kept._order}.values()
            )
            for topic in topics:
                assert len(topic.kept) <= (self.bounds["messages"] or 1 << 30)
                assert len(topic.sources) <= 4
                assert set(topic.evicted) <= {*topic.sources, f"{NODE}.0"}
                assert {m.source for m in topic.kept} <= set(topic.sources)


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
