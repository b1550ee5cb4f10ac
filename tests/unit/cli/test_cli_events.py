from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from control_peer import DEADLINE, Peer

from wssup.cli.events import line
from wssup.cli.main import main

NOW = dt.datetime(2026, 11, 26, 12, 0, 0, tzinfo=dt.UTC)
ENDED = {"result": {"outcome": "ended"}}


def event(name: str = "worker_ready", **changes: Any) -> dict[str, Any]:
    return {"event": name, "seq": 1, "at": NOW.timestamp(), "level": "info"} | changes


def test_lines(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """An event is a line: time, level, name, and its fields; at the instance's end that is said,
    and the exit status is 0.
    """
    peer.script = {
        "events": [
            event(slot=0, gen=1, seconds=0.1),
            event("worker_lost", level="error", reason="killed by SIGKILL", lost=21),
            ENDED,
        ]
    }
    peer.lock().listen()
    assert main(["events"]) == 0
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert first.endswith("info    worker_ready         slot=0 gen=1 seconds=0.1")
    assert second.endswith('error   worker_lost          reason="killed by SIGKILL" lost=21')
    assert err == "wssup: instance 'default' ended\n"
    request = {"v": 1, "command": "events", "past": 10, "follow": True}
    assert peer.requests.get(timeout=DEADLINE) == request


def test_json_lines(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints each event as one object on a line, without the protocol's version."""
    peer.script = {
        "events": [event(text="a\nb"), event("stopped"), {"result": {"outcome": "told"}}]
    }
    peer.lock().listen()
    assert main(["events", "--json", "--past", "100", "--no-follow"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(text) for text in out.splitlines()] == [event(text="a\nb"), event("stopped")]
    assert err == ""
    request = peer.requests.get(timeout=DEADLINE)
    assert (request["past"], request["follow"]) == (100, False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "12:00:00  info    worker_ready"),
        ({"at": NOW.timestamp() - 86400}, "2026-11-25 12:00:00  info    worker_ready"),
        ({"at": "yesterday"}, "1970-01-01 00:00:00  info    worker_ready"),
        ({"at": 1e300}, "1970-01-01 00:00:00  info    worker_ready"),
        ({"level": "warning"}, "12:00:00  warning worker_ready"),
        ({"error": None, "n": 5}, "12:00:00  info    worker_ready         error=null n=5"),
        ({"to": ["a", 1]}, '12:00:00  info    worker_ready         to=["a", 1]'),
        ({"x": "\x1b[2J"}, "12:00:00  info    worker_ready         x=\\x1b[2J"),
        ({"x": "a\nb"}, '12:00:00  info    worker_ready         x="a\\nb"'),
        ({"e\x07": "ä"}, "12:00:00  info    worker_ready         e\\x07=ä"),
    ],
)
def test_a_line(fields: dict[str, Any], expected: str) -> None:
    """An event of another day has its date; nothing in it acts on a terminal; one line is one."""
    assert line(event(**fields), NOW).plain.rstrip() == expected


def test_each_event_is_seen_when_it_happens(peer: Peer) -> None:
    """Into a pipe each event is written before the next one comes, and the end of its reader ends
    the command without a traceback.
    """
    seen = threading.Event()
    peer.script = {"events": [event("one"), lambda: seen.wait(DEADLINE), *[event("two")] * 5000]}
    peer.lock().listen()
    with subprocess.Popen(
        [sys.executable, "-m", "wssup", "events"],
        env=peer.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        assert "one" in command.stdout.readline()
        command.stdout.close()
        seen.set()
        assert command.stderr.read() == ""
        assert command.wait(DEADLINE) == 1


def test_ctrl_c_is_how_following_ends(peer: Peer) -> None:
    """Ctrl-C ends it with exit status 0 and without a word; the master sees the client go."""
    peer.script = {"events": [event("one"), lambda: time.sleep(0.1), *[event("two")] * 100_000]}
    peer.lock().listen()
    with subprocess.Popen(
        [sys.executable, "-m", "wssup", "events"],
        env=peer.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        assert "one" in command.stdout.readline()
        command.send_signal(signal.SIGINT)
        command.stdout.read()
        assert command.stderr.read() == ""
        assert command.wait(DEADLINE) == 0
    assert peer.hung_up.get(timeout=DEADLINE) == "events"


def test_silence_is_no_end(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """While nothing happens the master is asked whether it is alive, and following goes on."""
    asked = threading.Event()

    def answer_status() -> None:
        asked.set()

    peer.script = {
        "events": [lambda: asked.wait(DEADLINE), event("late"), ENDED],
        "status": [answer_status, {"result": {}}],
    }
    peer.lock().listen()
    # Long enough for an answer on a busy machine, short enough to wait for.
    assert main(["events", "--answer-timeout", "4"]) == 0
    assert "late" in capsys.readouterr().out


def test_a_master_that_dies(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """The end of the conversation without a result is an error, exit status 1."""
    peer.script = {"events": [event("one")]}
    peer.lock().listen()
    assert main(["events"]) == 1
    assert "ended the conversation" in capsys.readouterr().err


@pytest.mark.parametrize("past", ["-1", "101", "all"])
def test_mistakes(peer: Peer, capsys: pytest.CaptureFixture[str], past: str) -> None:
    """A number that there cannot be is exit status 2; the master is not asked."""
    assert main(["events", "--past", past]) == 2
    assert past in capsys.readouterr().err
    assert peer.requests.empty()
