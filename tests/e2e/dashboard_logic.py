"""What the dashboard decides, apart from what it draws: its modules are asked in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.common import Start
from tests.e2e.dashboard import ECHO
from tests.e2e.watching import Dashboard, Watched, screens

#: Figures: an expression, and how it reads.
_FIGURES = {
    "m.count(1001700)": "1,001,700",
    "m.count(null)": "–",
    "m.compact(0)": "0",
    "m.compact(7)": "7",
    "m.compact(0.25)": "0.25",
    "m.compact(8.04)": "8.04",
    "m.compact(99.94)": "99.9",
    "m.compact(99.96)": "100",
    "m.compact(999)": "999",
    "m.compact(999.6)": "1k",
    "m.compact(1284)": "1.28k",
    "m.compact(34100000)": "34.1M",
    "m.bytes(0)": "0 B",
    "m.bytes(812.4)": "812 B",
    "m.bytes(999.7)": "1 kB",
    "m.bytes(3120)": "3.12 kB",
    "m.bytes(41e6)": "41 MB",
    "m.milliseconds(0.08)": "0.08 ms",
    "m.milliseconds(12)": "12 ms",
    "m.milliseconds(1400)": "1.4 s",
    "m.milliseconds(undefined)": "–",
    "m.span(59.9)": "59s",
    "m.span(11100)": "3h 05m",
    "m.span(187200)": "2d 04h",
    "m.about(1024)": "17.1 min",
    "m.percent(0.0004)": "<0.1%",
    "m.percent(0.047)": "4.7%",
    "m.percent(0.93)": "93%",
    "m.plural(1, 'slot')": "1 slot",
    "m.plural(1200, 'slot')": "1,200 slots",
    "m.ticks(0).join()": "0,1",
    "m.ticks(93).join()": "0,25,50,75,100",
    "m.ticks(0.3).join()": "0,0.1,0.2,0.3",
    "String(m.quantile([1, 2, 4], [0, 0, 0, 0], 0.5))": "null",
    "m.quantile([1, 2, 4], [0, 10, 0, 0], 0.5).toFixed(2)": "1.50",
    "m.quantile([1, 2, 4], [0, 0, 0, 5], 0.5).toFixed(2)": "4.00",
}
#: A history that is fed states of one slot: [seconds, accepted, started]. Only what it looks at.
_FEED = """
    const history = new m.History();
    const state = (accepted, started) => ({
        started_at: started, slots: [{ slot: 0, workers: [
            { generation: 1, active: 4, lag_ms: 1 }, { generation: 2, active: 6, lag_ms: 3 }] }],
        connections: { active: 10, accepted, closed: 0, refused: 0, handshake_failures: 0,
            closed_by_reason: { client: accepted }, refused_by_reason: {},
            handshake_failures_by_reason: {} },
    });
    const feed = (...states) => states.map(([at, accepted, started = 1]) =>
        history.add(at, state(accepted, started)));
"""
_HEALTHY: dict[str, Any] = {
    "state": "running",
    "generation": 1,
    "capacity": 1000,
    "mixed": False,
    "reload": None,
    "last_reload": None,
    "topics": {"bridge": None},
    "connections": {"open": 10, "active": 10},
    "slots": [
        {
            "slot": number,
            "state": "ready",
            "lent_to": None,
            "error": None,
            "workers": [
                {
                    "pid": 10 + number,
                    "generation": 1,
                    "state": "ready",
                    "accepting": True,
                    "stalled": False,
                    "stale": False,
                    "active": 5,
                }
            ],
        }
        for number in (0, 1)
    ],
}


@pytest.fixture
def page(start: Start) -> Iterator[Dashboard]:
    """The dashboard of an instance."""
    with screens() as browser:
        yield browser.open(Watched(start, ECHO).address)


def test_figures_read_well(page: Dashboard) -> None:
    """Numbers have few digits, never a unit's thousand, and a dash where there is none."""
    for expression, expected in _FIGURES.items():
        assert page.module("figures", f"return {expression}") == expected, expression


def test_history(page: Dashboard) -> None:
    """A rate is a counter's change by the time between two states. Over a gap, and over another
    start of the instance, there is none, and none is ever below zero. A state that comes twice
    counts once; what is older than ten minutes goes; a clock that was set back starts anew.
    """
    history = f"{_FEED} feed([0, 0], [1, 10], [2, 30], [2, 30], [9, 100], [10, 101], [11, 5, 2],"
    rates = page.module("history", f"{history} [12, 8, 2]); return history.rates('accepted')")
    assert rates == [None, 10, 20, None, 1, None, 3]
    found = page.module(
        "history",
        f"""{_FEED} feed([0, 0], [1, 10], [2, 30], [3, 60]);
        return [history.rate('accepted'), history.rise('accepted', 1), history.rises('closed', 2),
            [...history.last.generations], history.last.slots, history.last.lag,
            history.last.lagMiddle, history.last.gap, history.samples[0].gap]""",
    )
    assert found == [
        20,
        30,
        {"client": 50},
        [[1, 4], [2, 6]],
        [[[1, 4], [2, 6]]],
        3,
        1,
        False,
        True,
    ]
    found = page.module(
        "history",
        f"""{_FEED} for (let at = 0; at < 2000; at += 1) feed([at, at]);
        const kept = history.samples.length;
        const added = feed([5000, 1], [4000, 2], [4001, 4]);
        return [kept, added, history.samples.map((one) => one.at)]""",
    )
    assert found == [601, [True, True, True], [4000, 4001]]


def judged(page: Dashboard, changes: dict[str, Any], recent: str = "{}") -> list[Any]:
    """The level, the headline and the problems of a healthy instance with changes."""
    page.page.evaluate("(status) => { window.judged = status; }", _HEALTHY | changes)
    found: list[Any] = page.module(
        "verdict",
        f"""const found = m.verdict(window.judged, {recent});
        return [found.level, found.headline, ...found.problems.map((one) => one.text)]""",
    )
    return found


def test_verdicts(page: Dashboard) -> None:
    """Each thing that can be wrong is named, with the worst giving the colour; a healthy instance
    and a reload are not wrong.
    """
    first, second = _HEALTHY["slots"]
    worker = second["workers"][0]
    assert judged(page, {}) == ["ok", "All 2 slots accept connections"]
    assert judged(page, {"state": "starting"})[0] == "busy"
    assert judged(page, {"state": "stopping"})[:2] == ["warn", "The instance stops"]
    gone = first | {"workers": []}
    assert judged(page, {"slots": [gone]})[:2] == ["bad", "No slot accepts connections"]
    parked = gone | {"state": "parked"}
    assert judged(page, {"slots": [parked, second]}) == ["ok", "The slot accepts connections"]
    failed = gone | {"state": "failed", "lent_to": 1}
    assert judged(page, {"slots": [failed, second]}) == [
        "bad",
        "1 of 2 slots accept connections",
        "Slot 0 failed; slot 1 takes its new connections",
    ]
    stalled = second | {"workers": [worker | {"stalled": True}]}
    assert judged(page, {"slots": [first, stalled]})[2:] == ["Slot 1 is stalled"]
    fresh = worker | {"generation": 2, "active": 0}
    moving = second | {"workers": [worker | {"accepting": False}, fresh], "state": "moving"}
    rollout = {"state": "reloading", "reload": {"generation": 2}, "slots": [first, moving]}
    assert judged(page, rollout) == [
        "busy",
        "Reloading: generation 2 accepts on 1 of 2 slots, 10 connections still on older ones",
    ]
    full = {"connections": {"open": 930, "active": 930}}
    assert judged(page, full)[2:] == ["93% of the capacity is used, 70 connections left"]
    assert judged(page, full)[0] == "warn"
    assert judged(page, {"connections": {"open": 990, "active": 990}})[0] == "bad"
    assert "is mixed" in judged(page, {"mixed": True})[2]
    refused = {"last_reload": {"outcome": "rolled_back", "generation": 2, "reason": "14 errors"}}
    assert judged(page, refused)[2:] == ["The last reload to generation 2 was rolled back"]
    bridge = {"state": "connecting", "stalled": False, "error": None, "fault": "refused"}
    assert judged(page, {"topics": {"bridge": bridge}})[2:] == ["The bridge is connecting"]
    bridge["state"] = "connected"
    assert judged(page, {"topics": {"bridge": bridge}})[0] == "ok"
    late = "{ refused: { limit: 3, rate: 1 }, handlerErrors: 1 }"
    assert judged(page, {}, late)[2:] == [
        "4 connections refused in the last minute",
        "1 error of the application in the last minute",
    ]


def test_events_in_words(page: Dashboard) -> None:
    """An event is a sentence; one that is not known is its name and its fields."""
    cases = {
        "{ event: 'worker_lost', slot: 2, gen: 7, pid: 9, reason: 'SIGKILL', lost: 1 }": (
            "Worker lost: slot 2, generation 7, process 9: SIGKILL; 1 connection lost"
        ),
        "{ event: 'reload_done', gen: 8, moved: 1200, disconnected: 0, pause_p99_ms: null }": (
            "Reload done: generation 8 serves; 1,200 moved, 0 disconnected"
        ),
        "{ event: 'setting_needs_restart', level: 'warning', seq: 3, at: 1, key: 'bind' }": (
            "Setting needs restart: key bind"
        ),
        "{ event: 'addresses_added', bind: ['a', 'b'] }": 'Addresses added: bind ["a","b"]',
    }
    for event, expected in cases.items():
        assert page.module("words", f"return m.sentence({event})") == expected
