"""``wssup doctor``: options, output, exit statuses; what it says is tested in tests/unit/doctor."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest
from click.testing import CliRunner, Result
from control_peer import Peer

from wssup.cli.main import group, main
from wssup.doctor import hardware

QUICK = ("doctor", "--seconds", "0", "--workers", "2")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, [*QUICK, *arguments], standalone_mode=False)


def test_json(peer: Peer) -> None:
    """A document with a verdict, a prediction, findings in order, and the facts."""
    done = run("--json", "--fix", "--connections", "10")
    found = json.loads(done.stdout)
    assert found["schema"] == 1
    assert found["connections"] == 10
    assert found["predicted"]["connections"] > 0
    assert found["facts"]["running"] is None
    assert {f["verdict"] for f in found["findings"]} <= {"ok", "warn", "fail", "unknown"}
    assert len(found["fixes"]) == 3
    assert done.return_value == {"ok": 0, "warn": 1, "fail": 2}[found["verdict"]]


def test_too_many(peer: Peer) -> None:
    """What does not fit fails, with exit status 2, and files say what would mend it."""
    done = run("--connections", "100000000")
    assert done.return_value == 2
    assert "100,000,000 connections do not fit" in done.stdout
    assert " fail " in done.stdout
    fix = run("--connections", "100000000", "--fix")
    assert fix.return_value == 2
    assert "[Service]\nLimitNOFILE=" in fix.stdout
    for line in fix.stdout.splitlines():
        assert line.startswith(("#", "[")) or not line or "=" in line or " - no" in line


def test_the_configuration_counts(peer: Peer) -> None:
    """Limits of the configuration are limits; `connections` of it is what is to be carried."""
    with open("wssup.toml", "w") as file:  # noqa: PTH123 - the current directory's
        file.write("max_connections = 77\n")
    found = json.loads(run("--json").stdout)
    assert found["predicted"] == {"connections": 77, "limit": "max_connections"}
    with open("wssup.toml", "w") as file:  # noqa: PTH123
        file.write("connections = 55\n")
    found = json.loads(CliRunner().invoke(group, ["doctor", "--json", "--seconds", "0"]).stdout)
    assert found["connections"] == 55


def test_workers_that_follow_the_load(peer: Peer) -> None:
    """As many count as there may be."""
    with open("wssup.toml", "w") as file:  # noqa: PTH123
        file.write("workers = {min = 1, max = 6, connections_per_worker = 10}\n")
    done = CliRunner().invoke(group, ["doctor", "--json", "--seconds", "0"], standalone_mode=False)
    assert json.loads(done.stdout)["plan"]["workers"] == 6


def test_an_instance_that_does_not_answer(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not taken for none: exit status 4."""
    peer.lock()
    assert main([*QUICK, "--answer-timeout", "0.2"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_a_worker_without_a_pid(peer: Peer) -> None:
    """While a worker is forked its process id is not known: status and doctor go on without it."""
    worker = {"serial": 1, "pid": None, "generation": 1, "state": "starting", "stalled": False}
    document = {
        "schema": 1,
        "name": "default",
        "state": "running",
        "pid": os.getpid(),
        "generation": 1,
        "workers": 3,
        "slots": [{"slot": 0, "state": "starting", "workers": [worker]}],
    }
    peer.script |= {
        "status": [{"result": document}],
        "config": [{"result": {"settings": []}}],
    }
    peer.lock().listen()
    done = CliRunner().invoke(group, ["status"], standalone_mode=False)
    assert done.exception is None, done.exception
    assert "starting" in done.stdout
    done = CliRunner().invoke(group, ["doctor", "--seconds", "0"], standalone_mode=False)
    assert done.exception is None, done.exception
    assert "of the running instance default, 3 workers" in done.stdout


def test_another_pid_namespace(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """The processes that have a container's process ids here are not looked at; it is said where to
    look.
    """
    document = {"schema": 1, "name": "default", "state": "running", "pid": 1, "generation": 1}
    peer.script |= {"status": [{"result": document}]}
    peer.lock().listen()
    assert main(QUICK) == 2
    assert f"nsenter --all --target {os.getpid()} wssup doctor" in capsys.readouterr().err


def test_what_an_instance_was_told(peer: Peer) -> None:
    """The number of workers is what the instance says, wherever it was given; so is what a reload
    replaces at once. An address of the command's own is asked for nevertheless.
    """
    document = {
        "schema": 1,
        "name": "default",
        "state": "running",
        "pid": os.getpid(),
        "generation": 1,
        "workers": 2,
        "bind": ["127.0.0.1:1"],
        "autoscale": {"min": 1, "max": 6, "each": 10},
    }
    settings = [{"key": "max_surge", "value": 2}, {"key": "max_workers", "value": 7}]
    peer.script |= {
        "status": [{"result": document}],
        "config": [{"result": {"settings": settings}}],
    }
    peer.lock().listen()
    asked = ("doctor", "--json", "--seconds", "0")

    def found(*arguments: str) -> Any:
        done = CliRunner().invoke(group, [*asked, *arguments], standalone_mode=False)
        return json.loads(done.stdout)

    plan = found()["plan"]
    assert (plan["workers"], plan["surge"], plan["most"]) == (6, 2, 7)
    assert found("--workers", "3")["plan"]["workers"] == 3
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # The peer's process is this one, whose sockets are the instance's.
        assert found()["facts"]["queues"] == []
        queues = found("--bind", address)["facts"]["queues"]
    assert [queue["address"] for queue in queues] == [address]
    with open("wssup.toml", "w") as file:  # noqa: PTH123 - the current directory's
        file.write("workers = {min = 1, max = 9, connections_per_worker = 10}\n")
    assert found()["plan"]["workers"] == 6


@pytest.mark.parametrize(
    "arguments",
    [
        ("--connections", "0"),
        ("--connections", "many"),
        ("--reconnects-per-second", "0"),
        ("--pid", "0"),
        ("--seconds", "-1"),
        ("--workers", "0"),
        ("--seconds", "nan"),
        ("--reconnects-per-second", "nan"),
        ("--proxy-timeout", "nan"),
    ],
)
def test_mistakes(
    peer: Peer, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """One line that names the option, and exit status 2."""
    assert main(["doctor", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert arguments[0].lstrip("-") in error


def test_hardware(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of accepting is measured with real connections, as long as it is said."""
    monkeypatch.setattr(hardware, "SECONDS", 0.2)
    found = json.loads(run("--json", "--hardware").stdout)["facts"]["hardware"]
    assert found["accepts_per_second"] > 0
    assert found["seconds"] >= 0.2
    assert found["cores"] >= 1
