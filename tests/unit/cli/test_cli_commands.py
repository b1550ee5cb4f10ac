from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import click
import pytest
from control_peer import DEADLINE, Peer

from wssup.cli.main import COMMANDS, group, main
from wssup.config import load
from wssup.version import __version__

ROOT = Path(__file__).parents[3]
SHORT = ["--answer-timeout", "0.2"]


def status(**changes: Any) -> dict[str, Any]:
    """A status document of schema 1."""
    return {
        "schema": 1,
        "name": "default",
        "version": "0.1",
        "state": "running",
        "pid": 4242,
        "generation": 7,
        "started_at": "2024-01-01T00:00:00+00:00",
        "bind": ["127.0.0.1:8000", "[::1]:8000"],
        "connections": {"open": 1030, "active": 1024, "accepted": 5000, "closed": 3970},
        "capacity": 38872,
        "mixed": False,
        "slots": [
            {
                "slot": 0,
                "state": "ready",
                "error": None,
                "lent_to": None,
                "workers": [
                    {
                        "pid": 101,
                        "generation": 7,
                        "state": "ready",
                        "open": 515,
                        "active": 512,
                        "accepted": 2500,
                        "lag_ms": 0.31,
                        "lag_max_ms": 5,
                        "age": 11130,
                        "stalled": False,
                        "stale": False,
                    }
                ],
            },
            {
                "slot": 1,
                "state": "failed",
                "error": "5 failures in 60s:\nboom",
                "lent_to": 0,
                "workers": [],
            },
        ],
        "last_reload": {"outcome": "done", "generation": 7, "seconds": 12.5, "reason": None},
    } | changes


def running(peer: Peer, **script: list[Any]) -> Peer:
    peer.script = {"status": [{"result": status()}], **script}
    return peer.lock().listen()


def errors(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_status_for_people(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """Status shows the instance, each slot's worker, what failed and the last reload."""
    running(peer)
    assert main(["status"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert peer.requests.get(timeout=DEADLINE) == {"v": 1, "command": "status"}
    for part in [
        *("default", "running", "generation 7", "pid 4242", "127.0.0.1:8000  [::1]:8000"),
        *("1,024 active, 1,030 open", "capacity 38,872 (2.6% used)"),
        *("slot 1 failed: 5 failures in 60s:", "  boom"),
        "last reload  done, generation 7, 12.5s",
    ]:
        assert part in out
    row = next(line for line in out.splitlines() if " 101 " in line)
    assert row.split() == ["0", "101", "7", "ready", "512", "2,500", "0.3ms", "3h", "05m"]
    assert "failed, lent to 0" in out
    assert "\x1b" not in out


def test_status_tells_what_drains_and_what_is_mixed(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old workers that drain, stalled and stale workers and a mixed generation are named."""
    worker = status()["slots"][0]["workers"][0]
    old = worker | {"pid": 99, "generation": 6, "state": "draining", "active": 1812}
    slots = [
        {"slot": 0, "state": "replacing", "workers": [worker | {"stalled": True}, old]},
        {"slot": 1, "state": "ready", "workers": [worker | {"stale": True}]},
    ]
    running(peer, status=[{"result": status(slots=slots, mixed=True, last_reload={})}])
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    for part in [
        "draining  1 worker of generation 6, 1,812 connections left",
        "ready, stalled",
        "ready, stale",
        "generation 7 is mixed",
    ]:
        assert part in out
    assert "last reload" not in out


def test_status_tells_what_moved(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """Connections that moved are shown with their pauses, those that did not with the reasons."""
    handoff = {
        "moved": 81203,
        "in_progress": 0,
        "refused_by_reason": {"state": 2, "busy": 1, "not_resumable": 0},
        "bytes": 12345,
        "pause_ms": {"p50": 3.96, "p99": 12.4, "max": 40.0},
    }
    last = status()["last_reload"] | {"moved": 2000, "disconnected": 3, "pause_p99_ms": 12.0}
    running(peer, status=[{"result": status(handoff=handoff, last_reload=last)}])
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "last reload  done, generation 7, 12.5s, 2,000 moved, 3 disconnected" in out
    line = next(x for x in out.splitlines() if x.startswith("handoff"))
    assert line.rstrip() == (
        "handoff  81,203 moved, 3 not (state 2, busy 1); pause p50 4.0 ms, p99 12 ms, max 40 ms"
    )
    peer.script["status"] = [{"result": status(handoff=handoff | {"in_progress": 1})}]
    assert main(["status"]) == 0
    assert "; moving now" in capsys.readouterr().out
    peer.script["status"] = [{"result": status(handoff={"moved": 0})}]
    assert main(["status"]) == 0
    assert "handoff" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"moved": 0, "planned": 0}, "nothing to move: the workers are even"),
        ({"moved": 1500, "planned": 1500, "seconds": 0.42}, "rebalanced: 1,500 moved, 0.4 s"),
        ({"moved": 7, "planned": 9, "seconds": 30.0}, "rebalanced: 7 moved, 2 stayed, 30.0 s"),
    ],
)
def test_rebalance(
    peer: Peer, capsys: pytest.CaptureFixture[str], result: dict[str, Any], said: str
) -> None:
    """Rebalance shows what moves, and says in the end how many have and how many stayed."""
    event = {"event": "slot", "slot": 0, "state": "moving", "moved": 5, "total": 9}
    running(peer, rebalance=[event, {"result": result}])
    assert main(["rebalance"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["slot 0: moving, 5 of 9 connections moved", said]
    assert peer.requests.get(timeout=DEADLINE) == {"v": 1, "command": "rebalance"}


def test_a_rebalance_that_is_refused(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is one line and exit status 1."""
    error = {"code": "refused", "message": "connections cannot move: it is not resumable"}
    running(peer, rebalance=[{"error": error}])
    assert main(["rebalance"]) == 1
    assert "connections cannot move: it is not resumable" in errors(capsys)


def test_status_json_is_the_document_as_it_is(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json prints the master's document unchanged, also fields this version does not know."""
    document = status(new_field={"x": [1, None]}, name="\u009b\x1b[31m")
    running(peer, status=[{"result": document}])
    assert main(["status", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == document
    assert out.isascii()
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["status"], 3),
        (["reload"], 3),
        (["scale", "2"], 3),
        (["publish", "news", "hello"], 3),
        (["drain"], 3),
        (["stop"], 3),
        (["config", "--effective"], 3),
    ],
)
def test_nothing_runs(
    peer: Peer, capsys: pytest.CaptureFixture[str], command: list[str], code: int
) -> None:
    """Every command exits 3 when nothing runs: no directory, and also a dead one's leftovers."""
    assert main([*command, "--name", "other"]) == code
    assert "no instance named 'other' runs" in errors(capsys)
    peer.lock().listen(answer=False)
    peer.unlock()
    peer.stop_listening()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(peer.socket_path))
    assert main(command) == code
    assert "no instance named 'default' runs" in errors(capsys)


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["reload"],
        ["scale", "2"],
        ["rebalance"],
        ["stop"],
        ["drain"],
        ["config"],
        ["publish", "a", "b"],
    ],
)
def test_an_instance_that_does_not_answer(
    peer: Peer, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Every command exits 4 when the socket takes connections and nobody answers."""
    peer.lock().listen(answer=False)
    assert main([*command, *SHORT]) == 4
    assert "does not answer (waited 200ms)" in errors(capsys)


def test_an_instance_without_a_control_socket(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A held lock without a socket is status unknown, not nothing."""
    peer.lock()
    assert main(["status", *SHORT]) == 4
    assert "has no control socket" in errors(capsys)


def test_an_instance_that_is_just_starting(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """A command given between lock and socket waits for the socket."""
    peer.script = {"status": [{"result": status()}]}
    peer.lock()
    late = threading.Timer(0.3, peer.listen)
    late.start()
    assert main(["status"]) == 0
    late.join()


def test_a_full_backlog_is_no_answer(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """A control socket whose queue is full is no answer after the deadline, not at once."""
    peer.lock().listen(answer=False, backlog=0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(peer.socket_path))
        assert main(["status", *SHORT]) == 4
    assert "does not take connections" in errors(capsys)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xfe\n",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b'{"v":2,"result":{}}\n',
        b'{"v":1}\n',
        b'{"v":1,"result":[]}\n',
        b'{"v":1,"result":{"name":3}}\n',
    ],
    ids=lambda answer: repr(answer[:20]),
)
def test_answers_that_are_not_the_protocol(
    peer: Peer, capsys: pytest.CaptureFixture[str], answer: bytes
) -> None:
    """An answer that is not the protocol is one clear line and status unknown."""
    running(peer, status=[answer])
    assert main(["status"]) == 4
    assert "what this wssup does not understand" in errors(capsys)


def test_an_answer_cut_short(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """A master that dies in the middle of its answer is status unknown."""
    running(peer, status=[b'{"v":1,"res'])
    assert main(["status"]) == 4
    assert "ended the conversation" in errors(capsys)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which needs root")
def test_a_control_socket_that_is_not_ours(peer: Peer) -> None:
    """Without permission for the control socket status is unknown, and the remedy says who may."""
    running(peer)
    peer.socket_path.chmod(0o600)
    peer.runtime_dir.chmod(0o755)
    code = (
        "import locale, os, sys; from wssup.cli import config, main, reload, status; "
        "os.setuid(65534); sys.exit(main.main([sys.argv[1]]))"
    )
    for command, expected in [("status", 4), ("reload", 1)]:
        run = subprocess.run(
            [sys.executable, "-c", code, command],
            env=peer.environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert (run.returncode, run.stdout) == (expected, "")
        assert "Permission denied" in run.stderr
        assert "run as root, or as the service's user or group" in run.stderr


def test_what_comes_from_elsewhere_cannot_act_on_the_terminal(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences, markup and reordering characters in answers are shown, not obeyed."""
    evil = "\x1b]0;x\x07[red]\u202e\u009b31m\r\x08"
    slot = status()["slots"][0] | {"state": evil, "error": evil}
    worker = slot["workers"][0] | {"state": evil}
    document = status(
        name=evil,
        state=evil,
        version=evil,
        bind=[evil],
        slots=[slot | {"workers": [worker]}],
        last_reload={"outcome": evil, "reason": evil},
    )
    error = {"code": "busy", "message": evil, "remedy": evil, "traceback": evil}
    running(
        peer,
        status=[{"result": document}],
        reload=[
            {"event": "phase", "phase": evil, "generation": evil},
            {"event": "slot", "slot": 0, "state": evil},
            {"event": "notice", "message": evil},
            {"error": error},
        ],
        scale=[{"result": {"workers": 1, "was": 1}}],
        config=[
            {"result": {"settings": [{"key": evil, "value": evil, "source": evil, "live": True}]}}
        ],
    )
    for command in (["status"], ["reload"], ["config"], ["config", "--json"]):
        main(command)
        out, err = capsys.readouterr()
        assert out
        for char in set(out + err) - {"\n"}:
            assert char.isprintable(), (command, char)
        if "--json" not in command:
            assert "[red]" in out


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
    assert main(["reload", "--answer-timeout", "1"]) == 0
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
        assert main(["reload", *SHORT]) == code
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


def test_config_without_an_instance(
    peer: Peer, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an instance config shows what serve would use, as a file that means the same."""
    (tmp_path / "wssup.toml").write_text(
        'app = "a:b"\nbind = ["[::1]:1", "unix:/run/\u00e9,x.sock"]\nsettle = 0.1\n'
        'app_dir = "we\\u202eird \\u001b\\"x"\n[limits]\nmessage_bytes = 1000\n'
    )
    assert main(["config", "--name", "x"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# The settings that wssup serve would use.\n# File: /")
    assert re.search(r'^settle = "100ms" +# wssup.toml:3$', out, re.MULTILINE)
    assert re.search(r'^name = "x" +# --name; needs a restart$', out, re.MULTILINE)
    found = load(cli={"name": "x"}, environ={}, cwd=str(tmp_path))
    (tmp_path / "copy.toml").write_text(out)
    copy = load(cli={}, environ={}, config_file="copy.toml", cwd=str(tmp_path))
    assert (
        copy.settings
        == load(
            cli={"name": "x"},
            environ={"WSSUP_RUNTIME_DIR": str(peer.runtime_dir)},
            cwd=str(tmp_path),
        ).settings
    )
    assert copy.settings.app_dir == found.settings.app_dir == f'{tmp_path}/we\u202eird \x1b"x'
    assert main(["config", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["running"] is False
    assert {"key": "settle", "value": 0.1, "source": "wssup.toml:3", "live": True} in document[
        "settings"
    ]


def test_config_of_a_running_instance(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """With an instance config shows its settings and says so; --given shows ours."""
    rows = [
        {"key": "workers", "value": 3, "source": "/etc/x.toml:4", "live": True},
        {"key": "settle", "value": "new kind", "source": "default", "live": True},
        {"key": "brand_new", "value": [1], "source": "default", "live": False},
    ]
    running(peer, config=[{"result": {"settings": rows, "file": "/etc/x.toml"}}])
    for command in (["config"], ["config", "--effective"]):
        assert main(command) == 0
        assert capsys.readouterr().out.splitlines() == [
            "# The settings of the running instance default.",
            "# File: /etc/x.toml",
            "workers = 3          # /etc/x.toml:4",
            'settle = "new kind"  # default',
            "brand_new = [1]      # default; needs a restart",
        ]
    assert main(["config", "--given"]) == 0
    assert "that wssup serve would use" in capsys.readouterr().out
    assert main(["config", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"running": True, "settings": rows, "file": "/etc/x.toml"}


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["serve"], ["app is not set", "MODULE:ATTR"]),
        (["serve", "a:b", "--bind", ":8765"], ["bind = ':8765' (from --bind)", "0.0.0.0:8765"]),
        (["serve", "a:b", "--workers", "x"], ["workers = 'x' (from --workers)"]),
        (["serve", "a:b", "--drain-timeout", "1s"], ["drain_window", "from --drain-timeout"]),
        (["serve", "a:b", "--wrokers", "2"], ["--wrokers", "--workers", "wssup serve --help"]),
        (["serve", "a:b", "c"], ["c", "wssup serve --help"]),
        (["status", "--config", "nope"], ["nope (from --config): no such file"]),
        (["status", "--watch"], ["needs a terminal"]),
        (["status", "--watch", "--json"], ["exclude"]),
        (["scale"], ["N"]),
        (["scale", "0"], ["0"]),
        (["drain", "--over", "soon"], ["'soon': not a duration"]),
        (["frob"], ["frob", "wssup --help"]),
        (["status", "\x1b[31m"], ["\\x1b[31m"]),
    ],
)
def test_mistakes(
    peer: Peer, capsys: pytest.CaptureFixture[str], command: list[str], parts: list[str]
) -> None:
    """A mistake in a command or the configuration is one line with its remedy, exit status 2."""
    assert main(command) == 2
    err = errors(capsys)
    (line,) = err.splitlines()
    assert line.startswith("wssup: error: ")
    assert " → " in line
    for part in parts:
        assert part in err


def test_an_unknown_variable_stops_every_command(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt WSSUP_ variable is an error that names the right one."""
    monkeypatch.setenv("WSSUP_WORKES", "2")
    for command in (["status"], ["config"], ["serve", "a:b"]):
        assert main(command) == 2
        assert "did you mean WSSUP_WORKERS?" in errors(capsys)


@pytest.mark.parametrize("variable", ["", "1"])
def test_the_version_names_the_core(variable: str) -> None:
    """`wssup --version` says which core runs: the compiled one if it is there, unless
    WSSUP_PURE_PYTHON is set and not empty.
    """
    done = subprocess.run(
        [sys.executable, "-m", "wssup", "--version"],
        env=os.environ | {"WSSUP_PURE_PYTHON": variable},
        capture_output=True,
        text=True,
        check=True,
    )
    there = importlib.util.find_spec("wssup.server._wire") is not None
    core = "compiled" if there and not variable else "pure Python"
    assert done.stdout == f"wssup {__version__} ({core} core)\n"


def test_bare_command_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The bare command shows its help and exits 2; --version and every --help exit 0."""
    assert main([]) == 2
    assert "Commands:" in errors(capsys)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"wssup {__version__} (")
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        out = capsys.readouterr().out
        assert "Exit status: 0" in out
        assert f"\n    wssup {command}" in out
        # All others are about an instance.
        assert ("--runtime-dir DIR" in out) is (
            command not in {"systemd", "completion", "proxy-config"}
        )
        assert max(map(len, out.splitlines())) <= 80


def test_serve_has_an_option_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of serve lists an option for every setting, in the table's order and groups."""
    from wssup.config import SETTINGS  # noqa: PLC0415

    assert main(["serve", "-h"]) == 0
    out = capsys.readouterr().out
    places = [out.index(f"  {setting.flag} ") for key, setting in SETTINGS.items() if key != "app"]
    assert places == sorted(places)
    headings = dict.fromkeys(setting.spec.group for setting in SETTINGS.values())
    positions = [out.index(f"\n{heading}:\n") for heading in headings]
    assert positions == sorted(positions)


def test_another_platform_is_told_at_once() -> None:
    """Elsewhere than on Linux one line says so, and nothing for Linux alone is imported."""
    code = (
        "import sys; sys.modules['fcntl'] = None; sys.platform = 'darwin'; "
        "from wssup.cli.main import main; sys.exit(main(['status']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr == "wssup: error: wssup runs on Linux only, and this is darwin\n"


def test_the_module_runs_the_command(peer: Peer) -> None:
    """Running the package is the command, and its exit status is the command's."""
    run = subprocess.run(
        [sys.executable, "-m", "wssup", "status"],
        env=peer.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (run.returncode, run.stdout) == (3, "")
    assert "Traceback" not in run.stderr


def test_the_reference_names_every_command_and_option() -> None:
    """docs/reference/commands.md names each command and each of its options."""
    text = (ROOT / "docs/reference/commands.md").read_text()
    context = click.Context(group)
    sections = dict(
        re.findall(r"^## `wssup ([\w-]+).*?`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    assert list(sections) == list(COMMANDS)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        inner = command.commands.values() if isinstance(command, click.Group) else []
        for option in [p for c in (command, *inner) for p in c.params]:
            is_setting = hasattr(option, "setting") or option.name == "config_file"
            if not isinstance(option, click.Option) or option.hidden or is_setting:
                continue
            for flag in [*option.opts, *option.secondary_opts]:
                assert f"`{flag}" in sections[name], (name, flag)
