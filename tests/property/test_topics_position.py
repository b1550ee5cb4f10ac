"""Any marks through a token, and any text as one."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from wssup.topics.position import LONGEST, PositionError, decode, encode

sources = st.builds("{:08x}.{}".format, st.integers(0, 2**32 - 1), st.integers(0, 10**10 - 1))
marks = st.dictionaries(sources, st.integers(0, 16**15 - 1), max_size=100)
#: Texts that look like tokens, and are or are not.
like_tokens = st.from_regex(r"\A1(~[0-9a-f]{8}(\.[0-9]{1,2}\.[0-9a-f]{1,3}){0,3}){0,4}\Z")


@settings(max_examples=75, deadline=None)
@given(marks)
def test_marks_come_back(given_marks: dict[str, int]) -> None:
    """Every position comes back from its token, which may stand in a URL as it is, is the same for
    equal marks, and has a bounded length.
    """
    token = encode(given_marks)
    assert decode(token) == given_marks
    assert encode(dict(reversed(given_marks.items()))) == token
    assert re.fullmatch(r"[0-9a-zA-Z.~]*", token)
    assert len(token) <= LONGEST


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), like_tokens, st.binary(), st.none(), st.text("01af.~", max_size=5000)))
@example("1" + "~00000000.1.1" * 315)
def test_any_text(token: object) -> None:
    """Anything at all is a position or a PositionError, nothing else is ever raised; and a position
    is one whichever way the client got it: its token is read as the same again.
    """
    try:
        found = decode(token)
    except PositionError:
        return
    assert decode(encode(found)) == found
