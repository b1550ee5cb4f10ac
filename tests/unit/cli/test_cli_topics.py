"""Topics and the bridge on the status page."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from wssup.cli.documents import Status, Topics, read
from wssup.cli.render import page
from wssup.cli.topics import topics

NOW = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)

BRIDGE: dict[str, Any] = {
    "url": "redis://:***@cache:6379/0",
    "state": "connected",
    "fault": "none",
    "connected_for": 7500.0,
    "sent": 12000,
    "received": 900,
    "lost": 0,
    "missed": 0,
    "reconnects": 0,
}


def lines(**found: Any) -> list[str]:
    return [line.plain for line in topics(read(found, Topics))]


def style(**bridge: Any) -> str:
    (line,) = topics(read({"bridge": BRIDGE | bridge}, Topics))
    return str(line.style)


def test_nothing_is_told_of_what_is_not_used() -> None:
    """An instance without topics has no line about them."""
    assert lines() == []
    assert lines(recovered=0, bus={"lost": 0}, bridge=None) == []


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({"subscriptions": 1}, "topics  1 subscription; 0 published, 0 delivered"),
        (
            {"subscriptions": 0, "published": 1234, "delivered": 5678901},
            "topics  0 subscriptions; 1,234 published, 5,678,901 delivered",
        ),
        (
            {"subscriptions": 2, "recovered": 30, "not_recovered": 2},
            "topics  2 subscriptions; 0 published, 0 delivered; recovered 30 of 32",
        ),
        (
            {"subscriptions": 2, "dropped": 3, "bus": {"lost": 4000}},
            (
                "topics  2 subscriptions; 0 published, 0 delivered; "
                "3 not delivered to slow clients; 4,000 lost to slow workers"
            ),
        ),
    ],
)
def test_topics(found: dict[str, Any], line: str) -> None:
    """What there is, what was done, and what was lost, if anything was."""
    assert lines(**found) == [line]


@pytest.mark.parametrize(
    ("bridge", "line"),
    [
        ({}, "connected for 2h 05m; 12,000 sent, 900 received"),
        (
            {"lost": 5, "missed": 6, "reconnects": 1},
            "connected for 2h 05m; 12,000 sent, 900 received, 5 lost, 6 missed, 1 reconnect",
        ),
        ({"reconnects": 2}, "connected for 2h 05m; 12,000 sent, 900 received, 2 reconnects"),
        ({"state": "connecting"}, "connecting; 12,000 sent, 900 received"),
        (
            {"state": "connecting", "fault": "refused"},
            "connecting (last: refused); 12,000 sent, 900 received",
        ),
        ({"stalled": True}, "stalled; 12,000 sent, 900 received"),
        (
            {"state": "lost", "error": "killed by SIGKILL", "fault": None},
            "lost; 12,000 sent, 900 received: killed by SIGKILL",
        ),
        ({"state": "starting", "sent": 0, "received": 0}, "starting; 0 sent, 0 received"),
    ],
)
def test_the_bridge(bridge: dict[str, Any], line: str) -> None:
    """Whether it is connected and since when, and what went over it; else why not."""
    assert lines(bridge=BRIDGE | bridge) == [f"bridge  redis://:***@cache:6379/0  {line}"]


def test_what_is_wrong_is_coloured() -> None:
    """A bridge that is well has no colour, one that looks for its server is yellow, and one that is
    dead or hangs red.
    """
    assert style() == ""
    assert style(state="connecting", fault="auth") == "yellow"
    assert style(state="lost") == style(stalled=True) == "red"


def test_its_text_cannot_act_on_the_terminal() -> None:
    """What the document holds is shown, and never sent as it is."""
    hostile = "\x1b[2J\n"
    for line in lines(bridge=BRIDGE | {"url": hostile, "state": hostile, "error": hostile}):
        assert line.isprintable()


documents = st.fixed_dictionaries(
    {
        "subscriptions": st.integers(0, 10**7),
        "published": st.integers(0, 10**12),
        "delivered": st.integers(0, 10**12),
        "bridge": st.none()
        | st.fixed_dictionaries(
            {
                "url": st.just("rediss+cluster://user:***@cache.production.example:6379/0"),
                "state": st.sampled_from(["connected", "connecting", "lost"]),
                "fault": st.sampled_from(["none", "auth"]),
                "connected_for": st.none() | st.floats(0, 1e8),
                "sent": st.integers(0, 10**12),
                "lost": st.integers(0, 10**12),
            }
        ),
    }
)


@settings(max_examples=60, deadline=None)
@given(documents)
def test_eighty_columns_are_enough(found: dict[str, Any]) -> None:
    """At 80 columns no line is longer, and no number is cut in two."""
    status = msgspec.convert(
        {"name": "x", "state": "running", "generation": 1, "topics": found}, Status
    )
    file = io.StringIO()
    Console(file=file, width=80, markup=False, highlight=False).print(
        page(status, width=80, now=NOW)
    )
    text = file.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    words = [word.strip(";,") for word in text.split()]
    for line in topics(status.topics):
        assert all(word.strip(";,") in words for word in line.plain.split() if word[0].isdigit())
