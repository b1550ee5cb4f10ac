"""The book of who wants what, against a model that knows no shortcut."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wssup.topics.interest import Book

OWN = 100
TOPICS = ("a", "b", "c")
SERIALS = range(1, 6)


class Known:
    """A node of the model; it is never forgotten."""

    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.fresh: set[str] = set()
        self.complete = self.everything = False
        #: By session: whom it mirrors, what is kept of that one, whether it was said again.
        self.mirrors: dict[int, tuple[Known, set[str], list[bool]]] = {}

    def wants(self, topic: str, looked: frozenset[Known] = frozenset()) -> bool:
        if self.everything or not self.complete or topic in self.topics:
            return True
        return any(
            topic in kept or (of not in looked and of.wants(topic, looked | {self}))
            for of, kept, _ in self.mirrors.values()
        )


class Books(RuleBasedStateMachine):
    """Nodes come, say what they want, mirror one another, and go."""

    def __init__(self) -> None:
        super().__init__()
        self.topics: set[str] = set()
        self.me = Known()
        self.me.complete = True
        self.live: dict[int, Known] = {}
        self.all: list[Known] = [self.me]
        #: The latest node of each number, for mirrors of nodes that are not here (yet).
        self.by: dict[int, Known] = {}
        self.session = 0
        self.told: dict[str, bool] = dict.fromkeys(TOPICS, False)

    @initialize(everything=st.booleans())
    def begin(self, everything: bool) -> None:  # noqa: FBT001
        self.book: Book[int] = Book(OWN, self.topics, everything=everything)
        self.me.everything = everything
        self.me.topics = self.topics

    def note(self, topics: list[str], *, on: bool) -> None:
        """The first reason comes when there was none, the last one goes when there is one."""
        for topic in topics:
            assert self.told[topic] is not on
            self.told[topic] = on

    def off(self, node: Known, topic: str) -> None:
        if topic in node.topics:
            node.topics.discard(topic)
            for other in self.all:
                for of, kept, _ in other.mirrors.values():
                    if of is node:
                        kept.add(topic)

    @rule(serial=st.sampled_from(SERIALS))
    def join(self, serial: int) -> None:
        if serial in self.live:
            return
        node = self.by.get(serial)
        if node is None:
            node = Known()
            self.all.append(node)
        self.live[serial] = self.by[serial] = node
        self.book.joined(serial, serial)

    @rule(serial=st.sampled_from(SERIALS), everything=st.booleans())
    def greet(self, serial: int, everything: bool) -> None:  # noqa: FBT001
        node = self.live.get(serial)
        if node is None:
            return
        node.everything, node.complete, node.fresh = everything, False, set()
        for _, _, said in node.mirrors.values():
            said[0] = False
        self.book.greeted(serial, everything=everything)

    @rule(serial=st.sampled_from(SERIALS))
    def complete(self, serial: int) -> None:
        node = self.live.get(serial)
        if node is None or node.complete:
            return
        for topic in node.topics - node.fresh:
            self.off(node, topic)
        node.complete = True
        node.mirrors = {s: mirror for s, mirror in node.mirrors.items() if mirror[2][0]}
        self.note(self.book.completed(serial), on=False)

    @rule(serial=st.sampled_from(SERIALS), topics=st.sets(st.sampled_from(TOPICS)))
    def on(self, serial: int, topics: set[str]) -> None:
        node = self.live.get(serial)
        if node is not None:
            node.topics |= topics
            node.fresh |= topics
            self.note(self.book.on(serial, topics), on=True)

    @rule(serial=st.sampled_from(SERIALS), topics=st.sets(st.sampled_from(TOPICS)))
    def no_more(self, serial: int, topics: set[str]) -> None:
        node = self.live.get(serial)
        if node is not None:
            node.fresh -= topics
            for topic in topics:
                self.off(node, topic)
            self.note(self.book.off(serial, topics), on=False)

    @rule(serial=st.sampled_from(SERIALS), of=st.sampled_from([*SERIALS, OWN]), again=st.booleans())
    def mirror(self, serial: int, of: int, again: bool) -> None:  # noqa: FBT001
        node = self.live.get(serial)
        if node is None or serial == of:
            return
        if again and node.mirrors:
            session = max(node.mirrors)
            node.mirrors[session][2][0] = True
            self.book.mirror(serial, session, of)
            return
        self.session += 1
        other = self.me if of == OWN else self.by.get(of)
        if other is None:
            other = self.by[of] = Known()
            self.all.append(other)
        node.mirrors[self.session] = (other, set(), [True])
        self.book.mirror(serial, self.session, of)

    @rule(serial=st.sampled_from(SERIALS), which=st.integers(0, 50))
    def unmirror(self, serial: int, which: int) -> None:
        node = self.live.get(serial)
        if node is not None and node.mirrors:
            session = sorted(node.mirrors)[which % len(node.mirrors)]
            del node.mirrors[session]
            self.book.unmirror(serial, session)

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 50))
    def leave(self, which: int) -> None:
        serial = sorted(self.live)[which % len(self.live)]
        del self.live[serial], self.by[serial]
        self.note(self.book.left(serial), on=False)

    @rule(topic=st.sampled_from(TOPICS))
    def subscribe(self, topic: str) -> None:
        self.topics.add(topic)
        self.book.changed(topic)

    @rule(topic=st.sampled_from(TOPICS))
    def forget(self, topic: str) -> None:
        # The owner of the book only forgets what it wanted.
        if topic in self.topics:
            self.off(self.me, topic)
            self.book.forgot(topic)

    @invariant()
    def same(self) -> None:
        for topic in TOPICS:
            wanted = {serial for serial, node in self.live.items() if node.wants(topic)}
            assert set(self.book.wanting(topic)) == wanted
            assert self.told[topic] == any(topic in n.topics for n in self.live.values())
            for serial, node in self.live.items():
                assert self.book.says(serial, topic) == (topic in node.topics)

    @invariant()
    def nothing_is_left(self) -> None:
        """What is not live, or mirrored by what is, is forgotten."""
        if not any(node.mirrors for node in self.live.values()):
            assert set(self.book._nodes) == {OWN, *self.live}
            assert not self.book._ghosts


Books.TestCase.settings = settings(max_examples=75, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
