"""The tables of a handoff, and the books kept by them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.errors import MessageError
from wssup.server.handoff import protocol
from wssup.server.handoff.answers import Answer, AnswerKind, Answers, ProtocolError, pack_answer
from wssup.server.handoff.protocol import (
    AT_RECEIVER,
    AT_SENDER,
    RECEIVER_LINK,
    SENDER_LINK,
    AtSender,
    LinkEvent,
    ReceiverLink,
    Receiving,
    SenderEvent,
    SenderLink,
    Sending,
)

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "handoff.md"
TAKEN, NO_ROOM, STOP = AnswerKind
answers = st.builds(Answer, st.sampled_from(AnswerKind), st.integers(1, 0xFFFF))


# The tables.


def test_an_unknown_pair_names_state_and_event() -> None:
    """What a table does not know is an error that names the thing, its state, the event and what
    the state knows.
    """
    assert AT_SENDER.after(AtSender.HELD, SenderEvent.SEND) is AtSender.SENT
    with pytest.raises(ProtocolError, match="at its sender in state held knows no event taken"):
        AT_SENDER.after(AtSender.HELD, SenderEvent.TAKEN)
    with pytest.raises(MessageError, match="it knows none"):
        AT_SENDER.after(AtSender.GONE, SenderEvent.OVER)
    with pytest.raises(ProtocolError, match="it knows answer, shut, end"):
        SENDER_LINK.after(SenderLink.SHUT, LinkEvent.SEND)


def test_every_state_is_reached_and_drawn() -> None:
    """Each state is the first one or follows from it, and stands in the diagram."""
    drawn = protocol.diagram()
    for table in (AT_SENDER, AT_RECEIVER, SENDER_LINK, RECEIVER_LINK):
        states = set(type(table.first))
        assert {table.first, *table.steps.values()} == states
        assert all(f"{state}: {state}" in drawn for state in states)
        assert f'"{table.name}"' in drawn


def test_the_page_shows_these_tables() -> None:
    """docs/explanation/handoff.md has the diagram as the code draws it."""
    (shown,) = re.findall(r"```mermaid\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown == protocol.diagram()


# The books.


def test_the_sender_strikes_off_the_oldest() -> None:
    """Answers go to the oldest connections that are out; end of file keeps the rest."""
    book: Sending[str] = Sending()
    book.send("ab")
    book.send("cdef")
    assert book.answered(Answer(TAKEN, 3)) == (["a", "b", "c"], [])
    assert book.answered(Answer(NO_ROOM, 1)) == ([], ["d"])
    assert (book.out, book.stopped) == (2, False)
    book.shut()
    assert book.answered(Answer(STOP, 1)) == ([], ["e"])
    assert book.stopped
    assert book.over() == ["f"]
    assert book.out == 0


def test_the_sender_sends_only_while_open() -> None:
    """Nothing is sent once the link is shut or over, and nothing is answered after its end; a
    recall may come at any time.
    """
    book: Sending[str] = Sending()
    book.send("a")
    book.shut()
    book.shut()
    with pytest.raises(ProtocolError):
        book.send("b")
    assert book.over() == ["a"]
    book.shut()
    assert book.link is SenderLink.OVER
    for wrong in (lambda: book.send("b"), lambda: book.answered(Answer(TAKEN, 1)), book.over):
        with pytest.raises(ProtocolError):
            wrong()


def test_more_answers_than_connections() -> None:
    """An answer to more than are out is an error and changes nothing."""
    book: Sending[str] = Sending()
    book.send("ab")
    with pytest.raises(ProtocolError, match="TAKEN to 3 connections of 2"):
        book.answered(Answer(TAKEN, 3))
    assert book.out == 2
    assert book.over() == ["a", "b"]


def test_the_receiver_answers_the_oldest() -> None:
    """What waits is answered in order; what fails drops the rest and ends the link."""
    book: Receiving[str] = Receiving()
    book.arrived("abcd")
    assert book.acknowledged(2) == ["a", "b"]
    assert book.declined(1) == ["c"]
    for count in (0, 2):
        with pytest.raises(ProtocolError):
            book.acknowledged(count)
    assert book.waiting == 1
    assert book.failed() == ["d"]
    assert book.link is ReceiverLink.OVER
    assert book.failed() == []
    for wrong in (lambda: book.arrived("e"), lambda: book.acknowledged(1)):
        with pytest.raises(ProtocolError):
            wrong()


@given(st.lists(answers, max_size=20), st.lists(st.integers(0, 80), max_size=8))
def test_answers_however_they_are_cut(sent: list[Answer], cuts: list[int]) -> None:
    """Answers come out as they went in, wherever the stream is cut."""
    data = b"".join(map(pack_answer, sent))
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parser = Answers()
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    assert [answer for piece in pieces for answer in parser.feed(piece)] == sent


@pytest.mark.parametrize("data", [b"\0\0\0\1", b"\0\4\0\1", b"\0\1\0\0", b"\xff\1\0\1"])
def test_an_answer_that_makes_no_sense(data: bytes) -> None:
    """An unknown kind or a count of 0 is an error; so is one that cannot be sent."""
    with pytest.raises(ProtocolError):
        Answers().feed(pack_answer(Answer(TAKEN, 1)) + data)
    for count in (0, 1 << 16):
        with pytest.raises(ProtocolError):
            pack_answer(Answer(TAKEN, count))
