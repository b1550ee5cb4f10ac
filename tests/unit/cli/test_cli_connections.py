from __future__ import annotations

import json
from typing import Any

import pytest
from control_peer import DEADLINE, Peer

from wssup.cli.main import main


def connection(number: int = 8589934602, **changes: Any) -> dict[str, Any]:
    found = {
        "id": number,
        "slot": 1,
        "generation": 3,
        "pid": 4711,
        "address": "192.0.2.17:54321",
        "path": "/room/1?…",
        "state": "open",
        "age": 93784.5,
        "idle": 12.3,
        "queue_bytes": 1536,
        "inbox": 2,
        "topics": 3,
    }
    return found | changes


def answering(peer: Peer, *found: dict[str, Any], unanswered: Any = ()) -> Peer:
    result = {"order": "oldest", "connections": found, "unanswered": list(unanswered)}
    peer.script = {"connections": [{"result": result}]}
    return peer.lock().listen()


def closing(peer: Peer, **result: Any) -> Peer:
    empty = {"closing": [], "moving": [], "missing": [], "unanswered": []}
    peer.script = {"close": [{"result": empty | result}]}
    return peer.lock().listen()


def test_the_table(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each connection, with its id whole, in the order of the answer."""
    answering(peer, connection(), connection(5, state="pending", path=""))
    assert main(["connections"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split() for line in out.splitlines()] == [
        ["id", "slot", "address", "path", "state", "age", "idle", "queue", "inbox", "topics"],
        [
            *("8589934602", "1", "192.0.2.17:54321", "/room/1?…", "open", "1d", "02h", "12s"),
            *("1.5", "KiB", "2", "3"),
        ],
        [
            *("5", "1", "192.0.2.17:54321", "-", "pending", "1d", "02h", "12s"),
            *("1.5", "KiB", "2", "3"),
        ],
    ]
    request = {"v": 1, "command": "connections", "order": "oldest", "limit": 20}
    assert peer.requests.get(timeout=DEADLINE) == request


@pytest.mark.parametrize("order", ["oldest", "newest", "idle", "queue"])
def test_orders(peer: Peer, capsys: pytest.CaptureFixture[str], order: str) -> None:
    """Order, number and slot go to the master; without connections a line says so."""
    answering(peer)
    assert main(["connections", f"--{order}", "200", "--slot", "0"]) == 0
    assert capsys.readouterr().out == "no connections\n"
    request = peer.requests.get(timeout=DEADLINE)
    assert (request["order"], request["limit"], request["slot"]) == (order, 200, 0)


def test_json(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the master's answer as it is, also what this version does not know."""
    answering(peer, connection(later="field"))
    assert main(["connections", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "order": "oldest",
        "connections": [connection(later="field")],
        "unanswered": [],
    }


def test_who_did_not_answer(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is said on stderr, and is exit status 1; what is there is shown."""
    answering(peer, connection(), unanswered=[{"slot": 2, "generation": 1, "pid": 99}])
    assert main(["connections"]) == 1
    out, err = capsys.readouterr()
    assert "8589934602" in out
    assert err == (
        "wssup: the worker of slot 2 (pid 99) did not answer; its connections are missing\n"
    )


def test_what_a_client_sends_does_not_reach_the_terminal(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path with control characters is shown with backslashes, and a long one is cut."""
    answering(peer, connection(path="/\x1b[2J\n" + "x" * 300))
    assert main(["connections"]) == 0
    out = capsys.readouterr().out
    assert "/\\x1b[2J\\nxxx" in out
    assert "\x1b" not in out
    assert out.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--oldest", "5", "--idle", "5"], "exclude"),
        (["--oldest", "0"], "1<=x<=200"),
        (["--queue", "201"], "1<=x<=200"),
        (["--newest", "many"], "many"),
        (["--slot", "-1"], "-1"),
        (["5"], "5"),
    ],
)
def test_mistakes(
    peer: Peer, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """A mistake is one line with exit status 2; the master is not asked."""
    assert main(["connections", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err
    assert peer.requests.empty()


def test_close(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """All ids go to the master in one request, with code and reason; each is said to be closing."""
    closing(peer, closing=[{"id": 5, "slot": 1}, {"id": 6, "slot": 0}])
    assert main(["close", "5", "6", "--code", "4001", "--reason", "grüße"]) == 0
    assert capsys.readouterr() == ("closing 5 (slot 1)\nclosing 6 (slot 0)\n", "")
    request = {"v": 1, "command": "close", "ids": [5, 6], "code": 4001, "reason": "grüße"}
    assert peer.requests.get(timeout=DEADLINE) == request


def test_close_by_default(peer: Peer) -> None:
    """By default the client is told 1008, and that the operator closed it."""
    closing(peer, closing=[{"id": 5, "slot": 1}])
    assert main(["close", "5", "5"]) == 0
    request = peer.requests.get(timeout=DEADLINE)
    assert (request["code"], request["reason"]) == (1008, "closed by the operator")


def test_what_could_not_be_closed(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """Each id that was not closed is told on stderr with the reason, and is exit status 1."""
    closing(
        peer,
        closing=[{"id": 5, "slot": 1}],
        moving=[6],
        missing=[7],
        unanswered=[{"slot": 3, "pid": 8}],
    )
    assert main(["close", "5", "6", "7"]) == 1
    out, err = capsys.readouterr()
    assert out == "closing 5 (slot 1)\n"
    assert err.splitlines() == [
        "wssup: 6 moves to another worker just now; try again",
        "wssup: there is no connection 7",
        "wssup: the worker of slot 3 (pid 8) did not answer",
    ]


def test_close_as_json(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the master's answer; the exit status is the same."""
    closing(peer, missing=[7])
    assert main(["close", "--json", "7"]) == 1
    assert json.loads(capsys.readouterr().out)["missing"] == [7]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "ID"),
        (["x"], "x"),
        (["-1"], "-1"),
        ([str(1 << 53)], str(1 << 53)),
        (["5", "--code", "999"], "1000<=x<=4999"),
        (["5", "--code", "5000"], "1000<=x<=4999"),
        (["5", "--reason", "x" * 124], "123 bytes"),
        (["5", "--reason", "ü" * 62], "123 bytes"),
        (["5", "--reason", "\udcff"], "UTF-8"),
        ([str(n) for n in range(201)], "200"),
    ],
)
def test_mistakes_of_close(
    peer: Peer, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """A mistake is one line with exit status 2; nothing is closed."""
    assert main(["close", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err
    assert peer.requests.empty()


@pytest.mark.parametrize("command", [["connections"], ["close", "5"]])
def test_a_refusal(peer: Peer, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """What the instance refuses is one line with its remedy, and exit status 1."""
    error = {"code": "busy", "message": "others ask", "remedy": "try again"}
    peer.script = {command[0]: [{"error": error}]}
    peer.lock().listen()
    assert main(command) == 1
    assert capsys.readouterr().err == "wssup: error: others ask → try again\n"
