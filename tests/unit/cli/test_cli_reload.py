"""Commands that change an instance, and wait for it: reload, scale, drain, stop."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from control_peer import DEADLINE, Peer
from told import SHORT, errors, running, status

from wssup.cli.main import main


@pytest.mark.parametrize(
    ("result", "code", "out", "err"),
    [
        (
            {"outcome": "done", "generation": 8, "seconds": 17.24, "reason": None},
            0,
            "reloaded: generation 8 serves in 17.2s",
            [],
        ),
        (
            {
                "outcome": "done",
                "generation": 3,
                "seconds": 3.14,
                "moved": 2000,
                "disconnected": 0,
                "pause_p99_ms": 12.34,
            },
            0,
            "reloaded: generation 3 serves: 2,000 moved, 0 disconnected, pause p99 12 ms, 3.1 s",
            [],
        ),
        (
            {
                "outcome": "done",
                "generation": 3,
                "seconds": 3.14,
                "moved": 0,
                "disconnected": 7,
                "pause_p99_ms": None,
            },
            0,
            "reloaded: generation 3 serves: 0 moved, 7 disconnected, 3.1 s",
            [],
        ),
        (
            {"outcome": "rolled_back", "generation": 8, "seconds": 3.0, "reason": "slot 1 died"},
            1,
            "",
            ["reload rolled back in 3.0s: slot 1 died", "old workers serve on"],
        ),
        (
            {
                "outcome": "refused",
                "generation": 8,
                "seconds": 0.1,
                "reason": "app.py cannot be imported",
                "traceback": 'Traceback:\n  File "app.py"\nNameError: x\n',
            },
            1,
            "",
            ['  File "app.py"\nNameError: x\nwssup: error: reload refused', "cannot be imported"],
        ),
    ],
)
def test_how_a_reload_ends(  # noqa: PLR0917 - a table's columns
    peer: Peer,
    capsys: pytest.CaptureFixture[str],
    result: dict[str, Any],
    code: int,
    out: str,
    err: list[str],
) -> None:
    """A reload exits 0 when done and 1 when not, then with reason and traceback."""
    running(
        peer,
        reload=[
            {"event": "phase", "phase": "importing", "generation": 8, "seconds": 30},
            {"event": "slot", "slot": 0, "state": "starting", "pid": 7},
            {"event": "slot", "slot": 0, "state": "draining", "pid": 6, "active": 9, "total": 12},
            {"event": "something_new", "x": 1},
            {"event": "notice", "message": "backlog needs a restart"},
            {"result": result},
        ],
    )
    assert main(["reload"]) == code
    found = capsys.readouterr()
    assert found.out.splitlines() == [
        "generation 8: importing the application, 30s at most",
        "slot 0: starting, pid 7",
        "slot 0: draining, pid 6, 9 of 12 connections left",
        "backlog needs a restart",
        *([out] if out else []),
    ]
    for part in err:
        assert part in found.err
    assert bool(found.err) == bool(err)
    assert peer.requests.get(timeout=DEADLINE) == {"v": 1, "command": "reload", "wait": True}


def test_a_reload_that_is_not_waited_for(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """--no-wait asks the master not to make us wait, and exits 0 when the reload has begun."""
    running(peer, reload=[{"result": {"outcome": "started", "generation": 8}}])
    assert main(["reload", "--no-wait"]) == 0
    assert "reload started: generation 8" in capsys.readouterr().out
    assert peer.requests.get(timeout=DEADLINE)["wait"] is False


def test_a_second_reload_is_refused(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """An error from the master is printed with its remedy, and the exit status is 1."""
    running(
        peer,
        reload=[{"error": {"code": "busy", "message": "a reload runs", "remedy": "wait for it"}}],
    )
    assert main(["reload"]) == 1
    assert errors(capsys) == "wssup: error: a reload runs → wait for it\n"


def test_a_silent_reload_is_waited_for_while_the_master_answers(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silence longer than the answer's deadline is no failure while status is answered."""
    asked = threading.Event()
    running(
        peer,
        status=[asked.set, {"result": status()}],
        reload=[
            lambda: asked.wait(DEADLINE),
            {"result": {"outcome": "done", "generation": 8, "seconds": 1}},
        ],
    )
    # Long enough for an answer on a busy machine, short enough to wait for.
    assert main(["reload", "--answer-timeout", "4"]) == 0
    assert asked.is_set()


@pytest.mark.parametrize(
    ("step", "code", "message"),
    [("silent", 4, "does not answer"), ("dies", 1, "without a result")],
)
def test_a_master_that_goes_away_during_a_reload(
    peer: Peer, capsys: pytest.CaptureFixture[str], step: str, code: int, message: str
) -> None:
    """A master that stops answering in mid-reload, or dies, ends the waiting with an error."""
    released = threading.Event()
    wait = [lambda: released.wait(DEADLINE)]
    running(peer, reload=wait if step == "silent" else [peer.die], status=wait)
    try:
        assert main(["reload", *(SHORT if step == "silent" else [])]) == code
    finally:
        released.set()
    assert message in errors(capsys)


def test_scale(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """Scale sends the number, shows slots, and says from how many to how many."""
    running(
        peer,
        scale=[
            {"event": "slot", "slot": 2, "state": "ready", "pid": 5},
            {"result": {"workers": 3, "was": 2}},
        ],
    )
    assert main(["scale", "3"]) == 0
    out = capsys.readouterr().out
    assert out == "slot 2: ready, pid 5\nscaled from 2 to 3 workers\n"
    assert peer.requests.get(timeout=DEADLINE) == {"v": 1, "command": "scale", "workers": 3}


@pytest.mark.parametrize(
    ("command", "request_"),
    [
        (["stop"], {"v": 1, "command": "stop", "fast": False}),
        (["stop", "--fast"], {"v": 1, "command": "stop", "fast": True}),
        (["drain", "--over", "2m"], {"v": 1, "command": "drain", "over": 120.0}),
        (["drain"], {"v": 1, "command": "drain"}),
    ],
)
def test_the_end_is_waited_for(
    peer: Peer, capsys: pytest.CaptureFixture[str], command: list[str], request_: dict[str, Any]
) -> None:
    """Stop and drain return only after the connection has ended and the lock is free."""
    freed = threading.Event()

    def free() -> None:
        freed.set()
        peer.unlock()

    def free_late() -> None:
        threading.Timer(0.2, free).start()
        peer.stop_listening()

    script = [
        {"event": "remaining", "active": 1200, "deadline": 30},
        {"result": {"outcome": "stopping"}},
        {"event": "remaining", "active": 0, "deadline": 30},
        free_late,
    ]
    running(peer, stop=script, drain=script)
    assert main(command) == 0
    assert freed.is_set()
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["1,200 connections left", "0 connections left"]
    assert "stopped default" in out[2]
    assert peer.requests.get(timeout=DEADLINE) == request_


def test_an_instance_that_ends_without_a_word_is_stopped(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stop succeeds when the master is gone, even if its result never came."""
    running(peer, stop=[peer.die])
    assert main(["stop"]) == 0


def test_an_instance_that_does_not_end(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """Stop gives up when the deadline that the master gave has passed, and exits 1."""
    released = threading.Event()
    running(
        peer,
        stop=[
            {"event": "remaining", "active": 3, "deadline": -9.9},
            lambda: released.wait(DEADLINE),
        ],
    )
    try:
        assert main(["stop", *SHORT]) == 1
    finally:
        released.set()
    assert "still runs after" in capsys.readouterr().err
