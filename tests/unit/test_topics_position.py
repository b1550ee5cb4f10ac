"""Positions as text: known forms, and texts that are none."""

from __future__ import annotations

import pytest

from wssup.topics import position
from wssup.topics.position import PositionError, decode, encode

NODE, OTHER = "0a1b2c3d", "99887766"


def test_the_form() -> None:
    """A version, then by instance its workers and how far each was heard: clients keep it, so that
    a later version must read it.
    """
    marks = {f"{OTHER}.1": 3, f"{NODE}.4": 31, f"{NODE}.15": 160}
    assert encode(marks) == "1~0a1b2c3d.15.a0.4.1f~99887766.1.3"
    assert decode("1~0a1b2c3d.15.a0.4.1f~99887766.1.3") == marks


def test_the_beginning() -> None:
    """The empty text and a position without publishers both say that nothing was delivered."""
    assert decode("") == decode(encode({})) == {}


def test_a_position_of_the_most_publishers_is_short_enough() -> None:
    """150 publishers, each of an instance of its own, with serials and sequences that take years
    to reach, fit into 4 KiB; what does not fit is an error, and no token that nobody can read.
    """
    marks = {f"{n:08x}.99999": 16**9 - 1 for n in range(150)}
    assert len(encode(marks)) <= position.LONGEST
    assert decode(encode(marks)) == marks
    with pytest.raises(PositionError, match="longer than 4096"):
        encode({f"{n:08x}.99999": 16**9 - 1 for n in range(300)})


@pytest.mark.parametrize(
    "token",
    [
        None,
        b"1",
        3,
        "2",
        "1~",
        "1~0a1b2c3d",
        "1~0a1b2c3d.4",
        "1~0a1b2c3d.4.",
        "1~0A1B2C3D.4.1",
        "1~0a1b2c3d.04.1",
        "1~0a1b2c3d.4.01",
        "1~0a1b2c3d.4.-1",
        "1~0a1b2c3d.4.1_0",
        "1~0a1b2c3d.4.0x1",
        "1~0a1b2c3d.\u0664.1",
        "1~0a1b2c3d.4.1\n",
        " 1~0a1b2c3d.4.1",
        "1~0a1b2c3d.4.1.4.2",
        "1~0a1b2c3d.4.1~0a1b2c3d.4.1",
        "1~0a1b2c3d.4." + "f" * 16,
        "1" + "~0a1b2c3d.4.1" * 400,
        "\ud800",
    ],
)
def test_what_is_no_position(token: object) -> None:
    """Whatever a client gives that no encode makes is a PositionError, which is a ValueError."""
    with pytest.raises(PositionError) as caught:
        decode(token)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 100
