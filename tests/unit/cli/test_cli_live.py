"""The live page as text: it fits, and its figures are right."""

from __future__ import annotations

import datetime as dt
import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from test_cli_render import numbers, slots

from wssup.cli.documents import Connections, LastReload, Reload, Slot, Status, Worker
from wssup.cli.live import Page

NOW = dt.datetime(2026, 11, 26, 12, 0, 0, tzinfo=dt.UTC)
#: No colours: what remains is what is shown.
CONSOLE = Console(file=io.StringIO(), markup=False, highlight=False, emoji=False)

connections = st.builds(
    Connections,
    open=numbers,
    active=numbers,
    accepted=numbers,
    closed=numbers,
    refused=numbers,
    messages_in=numbers,
)
statuses = st.builds(
    Status,
    name=st.text(min_size=1, max_size=30),
    state=st.sampled_from(["running", "reloading", "stopping"]),
    generation=st.integers(0, 9999),
    pid=st.none() | st.integers(1, 1 << 22),
    started_at=st.sampled_from([1e9, 1.5e9]),
    connections=connections,
    capacity=st.none() | st.integers(1, 10**7),
    slots=slots,
    bind=st.lists(st.text(max_size=40), max_size=3).map(tuple),
    reload=st.none() | st.builds(Reload, generation=st.integers(1, 99)),
    last_reload=st.none() | st.builds(LastReload, outcome=st.just("done"), reason=st.text()),
)
keys = st.lists(
    st.sampled_from(["up", "down", "page_up", "page_down", "home", "end", "resize"]), max_size=5
)


@settings(max_examples=80)
@given(
    found=st.lists(statuses, min_size=1, max_size=3),
    width=st.integers(24, 140),
    height=st.integers(1, 60),
    pressed=keys,
    fancy=st.booleans(),
    error=st.text(max_size=100),
)
def test_it_fits(
    *, found: list[Status], width: int, height: int, pressed: list[str], fancy: bool, error: str
) -> None:
    """Whatever there is to show, the page has as many lines as the terminal, none of them is wider,
    and only the last one is the foot; whatever keys were pressed.
    """
    page = Page(fancy=fancy)
    for number, status in enumerate(found):
        page.add(status, float(number), NOW)
    page.error = error
    for key in ["resize", *pressed]:
        page.scroll(key)
        lines = page.lines(CONSOLE, width, height)
        assert len(lines) == height
        assert max(map(cell_len, lines)) <= width
        assert [n for n, line in enumerate(lines) if line.startswith("q quit")] == [height - 1]


def instance(active: int = 0, accepted: int = 0, **changes: Any) -> Status:
    counts = {"active": active, "open": active, "accepted": accepted}
    counts |= {
        key: changes.pop(key) for key in list(changes) if key in Connections.__struct_fields__
    }
    worker = Worker(pid=7, generation=1, state="ready", active=active, accepted=accepted)
    fields: dict[str, Any] = {
        "started_at": 1e9,
        "capacity": 1000,
        "slots": (Slot(slot=0, state="ready", workers=(worker,)),),
    }
    return Status("shop", "running", 1, connections=Connections(**counts), **(fields | changes))


def shown(*found: tuple[Status, float], fancy: bool = True, width: int = 80) -> str:
    page = Page(fancy=fancy)
    for status, at in found:
        page.add(status, at, NOW)
    return "\n".join(page.lines(CONSOLE, width, 24))


def test_more_than_fits() -> None:
    """How many lines are left out is said within the narrowest terminal, too."""
    long = LastReload(outcome="done", reason="a reason of many words " * 20)
    lines = shown((instance(refused=1, last_reload=long), 0.0), width=24).splitlines()
    assert any("lines more" in line for line in lines)
    assert max(map(cell_len, lines)) <= 24


def test_rates() -> None:
    """What happened between two statuses is shown per second, whatever lay between them; small
    rates have a tenth, and refusals are shown only if there are any.
    """
    before = instance(5, 10, closed=5, messages_in=100, messages_out=0)
    after = instance(8, 30, closed=6, messages_in=4100, messages_out=1, refused=40)
    text = shown((before, 100.0), (after, 102.0))
    assert "per second  10 accepted, 0.5 closed, 20 refused, 2,000 messages in, 0.5 out\n" in text
    assert re.search(r"ready +8 +10 ", text), "the worker's own rate"
    assert "refused" not in shown((before, 100.0), (before, 101.0))


def test_one_status_says_nothing_of_rates() -> None:
    """At first, and of a worker that is new, there is nothing to compare with."""
    text = shown((instance(5, 10), 1.0))
    assert "per second" not in text
    assert re.search(r"ready +5 +- ", text)


def test_counters_that_begin_anew() -> None:
    """Another life of the instance has no rates and no history of the one before it."""
    text = shown((instance(5, 1000), 1.0), (instance(5, 3, started_at=2e9), 2.0))
    assert "per second" not in text
    assert "█" not in text


@pytest.mark.parametrize(
    ("active", "fancy", "bar"),
    [
        (0, True, "·" * 20 + " 0.0% of 1,000"),
        (500, True, "█" * 10 + "·" * 10 + " 50.0% of 1,000"),
        (2000, True, "█" * 20 + " 200.0% of 1,000"),
        (500, False, "#" * 10 + "." * 10 + " 50.0% of 1,000"),
    ],
)
def test_the_bar(*, active: int, fancy: bool, bar: str) -> None:
    """The bar is as full as the instance, and full when it is more than that."""
    text = shown((instance(active), 1.0), fancy=fancy)
    assert f"capacity  {bar}" in text


def test_the_curve() -> None:
    """The connections of the last minute, the highest block for the most of them."""
    found = [(instance(n), float(n)) for n in range(9)]
    assert "active   ▁▂▃▄▅▆▇█\n" in shown(*found)
    assert "▁" not in shown(*found, fancy=False)


def test_a_reload_under_way() -> None:
    """While a reload is under way that is said, and not how the last one ended."""
    last = LastReload(outcome="rolled_back", reason="no good")
    assert "last reload  rolled back: no good" in shown((instance(last_reload=last), 1.0))
    text = shown((instance(last_reload=last, reload=Reload(5)), 1.0))
    assert "reload  generation 5 comes" in text
    assert "rolled back" not in text
