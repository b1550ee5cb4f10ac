"""What master and observer say to each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.observer.scenes import facts
from wssup.errors import MessageError
from wssup.status import lines

_TO_OBSERVER = st.one_of(
    st.builds(lines.Begin),
    st.builds(lambda n, reload: lines.News(facts(n, reload=reload)), st.integers(0, 5), st.none()),
    st.builds(lines.Happened, st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1))),
    st.builds(lines.Ping),
    st.builds(lines.Published),
)
_FROM_OBSERVER = st.one_of(
    st.builds(lines.Ready), st.builds(lines.Pong), st.builds(lines.Publish), st.builds(lines.Failed)
)


@given(st.lists(_TO_OBSERVER, max_size=5), st.integers(1, 50))
def test_lines_arrive_however_they_are_cut(said: list[lines.ToObserver], size: int) -> None:
    """Whatever the chunks, the same lines come out, and nothing is left."""
    stream = b"".join(map(lines.encode, said))
    buffer, heard = bytearray(), []
    for start in range(0, len(stream), size):
        buffer += stream[start : start + size]
        heard += [lines.to_observer(line) for line in lines.split(buffer)]
    assert heard == said
    assert buffer == b""


@given(_FROM_OBSERVER)
def test_the_way_back(said: lines.FromObserver) -> None:
    """The same for what the observer says; a line is one line."""
    line = lines.encode(said)
    assert line.count(b"\n") == 1
    assert lines.from_observer(line[:-1]) == said


@given(st.binary(max_size=200))
def test_anything_else_is_an_error(data: bytes) -> None:
    """What is no line is a MessageError, whatever it is."""
    for decode in (lines.to_observer, lines.from_observer):
        try:
            decode(data)
        except MessageError:
            continue


def test_lines_are_bounded() -> None:
    """A line that grows beyond its bound is an error, with or without its end."""
    with pytest.raises(MessageError, match="longer than 10 bytes"):
        lines.split(bytearray(b"x" * 11), 10)
    with pytest.raises(MessageError, match="longer than 10 bytes"):
        lines.split(bytearray(b"ok\n" + b"x" * 11 + b"\n"), 10)
    assert lines.split(bytearray(b"x" * 10 + b"\n"), 10) == [b"x" * 10]


def test_what_utf8_cannot_hold() -> None:
    """A file name that is no text (PEP 383) arrives with a backslash, and what JSON cannot say as
    text.
    """
    event = {"event": "x", "path": "caf\udce9", "list": ["\udcff"], "when": 1 + 2j}
    said = lines.to_observer(lines.encode(lines.Happened(event))[:-1])
    assert isinstance(said, lines.Happened)
    assert said.event == {"event": "x", "path": "caf\\udce9", "list": ["\\udcff"], "when": "(1+2j)"}
