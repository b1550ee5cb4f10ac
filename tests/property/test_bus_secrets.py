"""A password in the setting of the bus is never shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.config.bus import HIDDEN, Bus, without_secrets
from wssup.config.kinds import Given
from wssup.config.values import BadValueError

_GIVEN = Given(text=True, base="/")
#: A word that stands nowhere else.
_MARK = "Zq7Zq7Zq7"
_pieces = st.sampled_from(
    [
        "redis",
        "rediss+cluster",
        "://",
        ":",
        "@",
        "/",
        "?",
        "#",
        "h",
        "user",
        "6379",
        "%40",
        " ",
        "é",
    ]
) | st.text(max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.lists(_pieces, max_size=6), st.lists(_pieces, max_size=6))
def test_a_password_is_never_shown(before: list[str], after: list[str]) -> None:
    """Whatever stands around it: a word before an @ is not shown, and a URL whose password is
    hidden is not taken for one.
    """
    value = "".join(["redis://", *before, _MARK, *after, "@host"])
    shown = Bus().public(value)
    match = re.fullmatch(r"[^/]*//([^:@]*):([^@]+)@.*", value, re.DOTALL)
    if match is None or _MARK in match[2]:
        # Otherwise it is the user's name, and a password follows.
        assert _MARK not in str(shown)
    if "://" in value and not any(char.isspace() for char in value):
        assert _MARK not in str(without_secrets(value))
    if shown != value and "***@" in str(shown):
        with pytest.raises(BadValueError, match="hidden"):
            Bus().read(shown, _GIVEN)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_what_is_shown_is_the_value_or_hides(value: str) -> None:
    """Any text is shown as it is, or hides something; what can be read has no password then."""
    shown = Bus().public(value)
    assert shown == value or HIDDEN in str(shown)
    try:
        Bus().read(value, _GIVEN)
    except BadValueError:
        return
    assert shown == value or "@" in value
