from __future__ import annotations

import datetime as dt
import io
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from wssup.cli.documents import Connections, Slot, Status, Worker
from wssup.cli.progress import sentence
from wssup.cli.render import page
from wssup.cli.text import ago, count, one_line, safe

NOW = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)

numbers = st.integers(0, 10**9)
workers = st.builds(
    Worker,
    pid=st.integers(1, 1 << 22),
    generation=st.integers(1, 9999),
    state=st.sampled_from(["ready", "draining", "starting"]),
    active=numbers,
    accepted=numbers,
    lag_ms=st.none() | st.floats(0, 1e6),
    age=st.none() | st.floats(0, 1e9),
    stalled=st.booleans(),
)
slots = st.lists(
    st.builds(
        Slot,
        slot=st.integers(0, 999),
        state=st.sampled_from(["ready", "failed", "parked"]),
        workers=st.lists(workers, max_size=3).map(tuple),
    ),
    max_size=4,
).map(tuple)


def drawn(status: Status, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, markup=False, highlight=False).print(
        page(status, width=width, now=NOW)
    )
    return file.getvalue()


@settings(deadline=None, max_examples=60)
@given(slots, st.integers(24, 140))
def test_no_number_is_cut_or_wrapped(rows: tuple[Slot, ...], width: int) -> None:
    """At any width each worker's count of connections stands whole, on a line that fits."""
    lines = drawn(Status(name="x", state="running", generation=1, slots=rows), width).splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("slot"))
    kept = lines[heading].split()
    assert {"slot", "active"} <= set(kept)
    if width >= 120:
        assert kept == ["slot", "pid", "gen", "state", "active", "accepted", "lag", "age"]
    expected = [worker for slot in rows for worker in (slot.workers or (None,))]
    table = lines[heading + 1 : heading + 1 + len(expected)]
    for line, worker in zip(table, expected, strict=True):
        assert len(line.rstrip()) <= width
        if worker is not None:
            assert count(worker.active) in line.split()
            assert "accepted" not in kept or count(worker.accepted) in line.split()


def test_numbers_are_aligned_by_their_last_digit() -> None:
    """The counts of a column end below one another, and below its heading."""
    rows = tuple(
        Slot(slot=n, state="ready", workers=(Worker(pid=n, generation=1, state="ready", active=a),))
        for n, a in enumerate((7, 123456, 42))
    )
    lines = drawn(Status(name="x", state="running", generation=1, slots=rows), 100).splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("slot"))
    table = lines[heading : heading + 4]
    place = table[2].index("123,456") + len("123,456")
    assert [line[place - 7 : place].strip() for line in table] == ["active", "7", "123,456", "42"]
    assert all(line[place - 1] != " " for line in table)


def test_columns_go_in_their_order() -> None:
    """As the terminal narrows lag goes first, then age, accepted, generation, pid and state."""
    worker = Worker(pid=12345, generation=7, state="ready", active=1000, accepted=9, lag_ms=1.0)
    status = Status(
        name="x",
        state="running",
        generation=7,
        slots=(Slot(slot=0, state="ready", workers=(worker,)),),
    )
    seen = []
    for width in range(100, 11, -1):
        lines = drawn(status, width).splitlines()
        columns = next(line for line in lines if line.startswith("slot")).split()
        if columns not in seen:
            seen.append(columns)
    assert [" ".join(columns) for columns in seen] == [
        "slot pid gen state active accepted lag age",
        "slot pid gen state active accepted age",
        "slot pid gen state active accepted",
        "slot pid gen state active",
        "slot pid state active",
        "slot state active",
        "slot active",
    ]


def test_who_was_turned_away() -> None:
    """A line says how many were refused and for what, if there are any."""
    by_reason = {"draining": 0, "limit": 1200, "address": 34}
    some = Connections(refused=1234, refused_by_reason=by_reason)
    for connections, said in ((Connections(), 0), (some, 1)):
        status = Status(name="x", state="running", generation=1, connections=connections)
        assert drawn(status, 80).count("refused  1,234 (limit 1,200, address 34)\n") == said


def test_uptime_is_read_from_either_form() -> None:
    """started_at may be unix time or ISO 8601; what is neither costs only the uptime."""
    for started in (NOW.timestamp() - 3661, "2024-01-01T22:58:59Z", "2024-01-01T22:58:59+00:00"):
        status = Status(name="x", state="running", generation=1, started_at=started)
        assert "up 1h 01m" in drawn(status, 80)
    status = Status(name="x", state="running", generation=1, started_at="soon")
    assert "up -" in drawn(status, 80)


@given(st.text())
def test_safe_text_acts_on_no_terminal(text: str) -> None:
    """Nothing but printable characters and line ends is left, and printable text is unchanged."""
    found = safe(text)
    assert all(char == "\n" or char.isprintable() for char in found)
    assert "\n" not in one_line(text)
    if text.isprintable():
        assert found == text


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *("phase", "slot", "state", "pid", "active", "moved", "total", "seconds"),
                *("generation", "message"),
            ]
        ),
        st.none() | st.integers() | st.text() | st.floats() | st.booleans(),
    ),
    st.sampled_from(["phase", "slot", "remaining", "notice", "new"]),
)
@example({"seconds": math.inf}, "phase")
@example({"seconds": 1.8e305}, "phase")
@example({"seconds": 10**400}, "phase")
def test_any_event_is_one_safe_line_or_nothing(fields: dict[str, object], kind: str) -> None:
    """Whatever an event holds, it becomes one printable line, or none if it is unknown."""
    line = sentence({"event": kind} | fields)
    if kind == "new":
        assert line is None
    else:
        assert line is not None
        assert line.isprintable()


def test_spans_of_time() -> None:
    """A span is shown in its two largest units; none is a dash."""
    assert [ago(x) for x in (None, -1, 0.9, 61, 3660, 90000)] == [
        *("-", "0s", "0s", "1m 01s", "1h 01m", "1d 01h"),
    ]
