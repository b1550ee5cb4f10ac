"""Instances that answer nothing, something else, or not to everybody."""

from __future__ import annotations

import socket
import threading

import pytest
from control_peer import Peer
from told import SHORT, errors, running, status

from wssup.cli.main import main


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
