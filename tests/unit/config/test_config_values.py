from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.config.values import (
    MAX_DURATION,
    BadValueError,
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)

durations = st.floats(min_value=0, max_value=MAX_DURATION, allow_subnormal=False)


@pytest.mark.parametrize(
    ("given_value", "seconds"),
    [
        (30, 30.0),
        (0.5, 0.5),
        ("30", 30.0),
        ("500ms", 0.5),
        ("100ms", 0.1),
        ("30s", 30.0),
        (" 1.5 m ", 90.0),
        ("8h", 28800.0),
        ("1d", 86400.0),
        (-0.0, 0.0),
    ],
)
def test_durations_are_seconds_or_text_with_a_unit(given_value: object, seconds: float) -> None:
    """A duration may be a number of seconds or text with a unit, and becomes float seconds."""
    found = parse_duration(given_value)
    assert found == seconds
    assert isinstance(found, float)
    assert math.copysign(1, found) == 1


@pytest.mark.parametrize(
    "value",
    [
        *("", "s", "-1", "1 week", "1e3", "nan", "inf", "1s2", "٣s", "9" * 30, "366d"),
        *(-1, -0.5, math.nan, math.inf, 10**400, 366 * 86400.0, True, None, [], {}),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    """Negative, not finite, endless, and misspelt durations raise BadValueError with a remedy."""
    with pytest.raises(BadValueError) as caught:
        parse_duration(value)
    assert caught.value.problem
    assert caught.value.remedy


@given(durations)
def test_a_formatted_duration_is_read_back(seconds: float) -> None:
    """parse_duration reads back exactly what format_duration wrote."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(max_size=12) | st.floats() | st.integers() | st.booleans() | st.none())
def test_any_value_is_a_sound_duration_or_refused(value: object) -> None:
    """Whatever is given, the outcome is a finite duration in range or BadValueError."""
    try:
        seconds = parse_duration(value)
    except BadValueError:
        return
    assert 0 <= seconds <= MAX_DURATION


@pytest.mark.parametrize(
    ("given_value", "size"),
    [(65536, 65536), ("65536", 65536), ("64KiB", 65536), ("1 MiB", 1 << 20), ("1GiB", 1 << 30)],
)
def test_sizes_are_bytes_or_text_with_a_unit(given_value: object, size: int) -> None:
    """A size may be a number of bytes or text with a binary unit."""
    assert parse_size(given_value) == size


@pytest.mark.parametrize("value", ["", "1MB", "1.5MiB", "-1", "KiB", -1, 1.0, True, None])
def test_what_is_no_size_is_refused(value: object) -> None:
    """Fractions, decimal units, negative sizes and other types raise BadValueError."""
    with pytest.raises(BadValueError):
        parse_size(value)


@given(st.integers(min_value=0, max_value=10**17))
def test_a_formatted_size_is_read_back(size: int) -> None:
    """parse_size reads back exactly what format_size wrote."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("given_value", "share"),
    [
        *((0, 0.0), (1, 1.0), (0.01, 0.01), ("0.01", 0.01), ("1%", 0.01), (" 12.5 % ", 0.125)),
        *(("0.7%", 0.007), ("100%", 1.0), (-0.0, 0.0)),
    ],
)
def test_shares_are_fractions_or_percent(given_value: object, share: float) -> None:
    """A share may be a number from 0 to 1 or text in percent."""
    found = parse_share(given_value)
    assert found == share
    assert math.copysign(1, found) == 1


@pytest.mark.parametrize(
    "value",
    [
        *("", "%", "-1%", "101%", "1.01", "1e-2", "nan", "one", "1 percent"),
        *(-0.01, 1.01, 2, 10**400, math.nan, math.inf, True, None, []),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_share_is_refused(value: object) -> None:
    """What is not from 0 to 1, and other types, raise BadValueError with a remedy."""
    with pytest.raises(BadValueError) as caught:
        parse_share(value)
    assert caught.value.remedy


@given(st.floats(0, 1))
def test_a_formatted_share_is_read_back(share: float) -> None:
    """parse_share reads back exactly what format_share wrote."""
    assert parse_share(format_share(share)) == share
