from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest
from control_peer import DEADLINE, Peer

from wssup.cli.main import main


def publishing(peer: Peer, subscribers: Any = 3) -> Peer:
    peer.script = {"publish": [{"result": {"subscribers": subscribers}}]}
    return peer.lock().listen()


def piped(peer: Peer, data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    """The command with something on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "wssup", "publish", *options, "t", "-"],
        env=peer.environment,
        input=data,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize(
    ("subscribers", "said"),
    [
        (0, "published to news: 0 subscribers\n"),
        (1, "published to news: 1 subscriber\n"),
        (12345, "published to news: 12,345 subscribers\n"),
    ],
)
def test_text(peer: Peer, capsys: pytest.CaptureFixture[str], subscribers: int, said: str) -> None:
    """The message goes to the master as text, and the number of subscribers is said."""
    publishing(peer, subscribers)
    assert main(["publish", "news", "grüße 🎈"]) == 0
    assert capsys.readouterr() == (said, "")
    request = {"v": 1, "command": "publish", "topic": "news", "data": "grüße 🎈"}
    assert peer.requests.get(timeout=DEADLINE) == request


def test_json(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the master's answer as it is."""
    publishing(peer)
    assert main(["publish", "--json", "news", ""]) == 0
    assert json.loads(capsys.readouterr().out) == {"subscribers": 3}
    assert peer.requests.get(timeout=DEADLINE)["data"] == ""


def test_binary(peer: Peer) -> None:
    """--binary sends the bytes of the argument, or those of standard input."""
    publishing(peer)
    assert main(["publish", "--binary", "t", "ab\udcff"]) == 0
    assert base64.b64decode(peer.requests.get(timeout=DEADLINE)["base64"]) == b"ab\xff"
    everything = bytes(range(256)) * 256
    assert piped(peer, everything, "--binary").returncode == 0
    request = peer.requests.get(timeout=DEADLINE)
    assert base64.b64decode(request["base64"]) == everything
    assert "data" not in request


def test_standard_input(peer: Peer) -> None:
    """Text is read from standard input as it is, with its line feeds."""
    publishing(peer)
    done = piped(peer, b"one\n\ntwo\n")
    assert (done.returncode, done.stdout) == (0, b"published to t: 3 subscribers\n")
    assert peer.requests.get(timeout=DEADLINE)["data"] == "one\n\ntwo\n"


@pytest.mark.parametrize("content", [b"x" * 65536, b"\0" * 65536, "ü".encode() * 32768])
def test_the_longest_message(peer: Peer, content: bytes) -> None:
    """64 KiB of text arrive, whatever it becomes in JSON."""
    publishing(peer)
    assert piped(peer, content).returncode == 0
    assert peer.requests.get(timeout=DEADLINE)["data"].encode() == content


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["publish"], "TOPIC"),
        (["publish", "news"], "DATA"),
        (["publish", "news", "a", "b"], "b"),
        (["publish", "", "a"], "empty"),
        (["publish", "a\tb", "c"], "control characters"),
        (["publish", "é" * 128, "c"], "256 bytes"),
        (["publish", "\udcff", "c"], "UTF-8"),
        (["publish", "t", "\udcff"], "--binary"),
        (["publish", "t", "x" * 65537], "64 KiB"),
    ],
)
def test_mistakes(
    peer: Peer, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """A mistake is told in one line with exit status 2; the master is not asked."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert part in err
    assert err.count("\n") == 1
    assert "wssup publish --help" in err
    assert peer.requests.empty()


def test_too_much_on_standard_input(peer: Peer) -> None:
    """What is longer than 64 KiB, or endless, is refused and not read on."""
    done = piped(peer, bytes(10_000_000), "--binary")
    assert done.returncode == 2
    assert b"64 KiB" in done.stderr


@pytest.mark.parametrize("code", ["no_worker", "refused", "bad_argument"])
def test_a_refusal(peer: Peer, capsys: pytest.CaptureFixture[str], code: str) -> None:
    """What the instance refuses is one line with its remedy, and exit status 1."""
    error = {"code": code, "message": "no worker is ready", "remedy": "see wssup status"}
    peer.script = {"publish": [{"error": error}]}
    peer.lock().listen()
    assert main(["publish", "t", "x"]) == 1
    assert capsys.readouterr().err == "wssup: error: no worker is ready → see wssup status\n"


def test_an_answer_of_another_kind(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that is none is told, and exit status 1."""
    publishing(peer, "many")
    assert main(["publish", "t", "x"]) == 1
    assert "does not understand" in capsys.readouterr().err
