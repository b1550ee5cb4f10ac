"""The command on a real terminal (a pseudo-terminal) and with a real Ctrl-C."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from control_peer import DEADLINE, Peer, Step
from told import status


class Terminal:
    """A command on a pseudo-terminal of a given width; everything it wrote is in `text`."""

    def __init__(self, peer: Peer, arguments: list[str], width: int, **environ: str) -> None:
        self._own, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        environment = {
            k: v for k, v in peer.environment.items() if k not in ("NO_COLOR", "COLUMNS")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wssup", *arguments],
            env=environment | {"TERM": "xterm-256color"} | environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # The pseudo-terminal becomes the controlling one, so that ^C is a signal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, pattern: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while re.search(pattern, self.text) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} not seen in {self.text!r}"
            if select.select([self._own], [], [], left)[0]:
                assert self._read(), f"{pattern!r} not seen in {self.text!r}"

    def press_ctrl_c(self) -> None:
        os.write(self._own, b"\x03")

    def finish(self) -> int:
        while self._read():
            pass
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self._own)

    def _read(self) -> bool:
        try:
            data = os.read(self._own, 1 << 16)
        except OSError as error:
            # A pseudo-terminal whose last writer is gone gives EIO, not an end of file.
            if error.errno != errno.EIO:
                raise
            return False
        self.text += data.decode()
        return bool(data)


@contextmanager
def terminal(peer: Peer, *arguments: str, width: int = 80, **environ: str) -> Iterator[Terminal]:
    found = Terminal(peer, list(arguments), width, **environ)
    try:
        yield found
    finally:
        found.close()


def plain(text: str) -> list[str]:
    """The lines without what moves the cursor or colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "").split("\n")


def test_status_has_colours_on_a_terminal_unless_no_color(peer: Peer) -> None:
    """A terminal gets colours, and with NO_COLOR none."""
    peer.script = {"status": [{"result": status()}]}
    peer.lock().listen()
    with terminal(peer, "status") as colourful:
        assert colourful.finish() == 0
        assert "\x1b[32m" in colourful.text
    with terminal(peer, "status", NO_COLOR="1") as sober:
        assert sober.finish() == 0
        assert re.search(r"\x1b\[[0-9;]*3[0-9]m", sober.text) is None


@pytest.mark.parametrize("width", [24, 40, 60])
def test_a_narrow_terminal_stays_legible(peer: Peer, width: int) -> None:
    """No line is wider than a narrow terminal, and the counts are whole."""
    peer.script = {"status": [{"result": status()}]}
    peer.lock().listen()
    with terminal(peer, "status", width=width) as narrow:
        assert narrow.finish() == 0
        lines = plain(narrow.text)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for number in ("1,024", "1,030", "38,872", "512"):
        assert re.search(rf"(?<![\d,]){number}(?![\d,])", text), number


def test_watch_refreshes_until_ctrl_c(peer: Peer) -> None:
    """--watch shows new figures, survives an instance that goes away, and Ctrl-C ends it with 0."""
    first = {"open": 7, "active": 7, "accepted": 7}
    second = {"open": 8, "active": 8, "accepted": 8}
    peer.script = {"status": [{"result": status(connections=first)}]}
    peer.lock().listen()
    with terminal(peer, "status", "--watch") as watching:
        watching.read_until("7 active, 7 open")
        peer.script = {"status": [{"result": status(connections=second)}]}
        watching.read_until("8 active, 8 open")
        peer.die()
        watching.read_until("no instance named 'default' runs")
        watching.press_ctrl_c()
        assert watching.finish() == 0
        assert "Traceback" not in watching.text


def test_a_reload_on_a_terminal_shows_a_line_per_slot(peer: Peer) -> None:
    """On a terminal each slot has one line that changes, with a bar while it drains."""
    peer.script = {
        "reload": [
            {"event": "phase", "phase": "draining", "generation": 8, "seconds": 30},
            {"event": "slot", "slot": 0, "state": "ready", "pid": 5},
            {"event": "slot", "slot": 1, "state": "draining", "active": 1500, "total": 3000},
            {"event": "slot", "slot": 2, "state": "moving", "moved": 750, "total": 3000},
            {"event": "notice", "message": "[bold]backlog[/bold] needs a restart"},
            {"result": {"outcome": "done", "generation": 8, "seconds": 2}},
        ]
    }
    peer.lock().listen()
    with terminal(peer, "reload") as live:
        assert live.finish() == 0
        text = "\n".join(plain(live.text))
    assert "generation 8: draining the old workers, 30s at most" in text
    assert re.search(r"slot 0 +● ready", text)
    assert re.search(r"slot 1 +◐ draining +━{20} +1,500 of 3,000 connections left", text)
    assert re.search(r"slot 2 +→ moving +━{20} +750 of 3,000 connections moved", text)
    assert "[bold]backlog[/bold] needs a restart" in text
    assert "reloaded: generation 8 serves in 2.0s" in text


def test_a_reload_on_a_narrow_terminal_keeps_its_figures(peer: Peer) -> None:
    """On a narrow terminal the bar goes before a figure is cut."""
    draining = {"event": "slot", "slot": 1, "state": "draining", "active": 15000, "total": 30000}
    peer.script = {"reload": [draining, {"result": {"outcome": "done", "generation": 8}}]}
    peer.lock().listen()
    with terminal(peer, "reload", width=40) as live:
        assert live.finish() == 0
        text = "\n".join(plain(live.text))
    assert re.search(r"slot 1 +◐ draining +15,000 of 30,000 *\n", text)


def test_ctrl_c_leaves_the_reload_running(peer: Peer) -> None:
    """Ctrl-C while waiting exits 130, says that the reload goes on, and sends nothing more."""
    released = threading.Event()
    peer.script = {
        "reload": [
            {"event": "phase", "phase": "settling", "generation": 8},
            lambda: released.wait(DEADLINE),
        ]
    }
    peer.lock().listen()
    try:
        with terminal(peer, "reload") as live:
            live.read_until("settling")
            live.press_ctrl_c()
            assert live.finish() == 130
            assert "the reload goes on" in live.text
            assert "Traceback" not in live.text
    finally:
        released.set()
    assert peer.requests.get(timeout=DEADLINE)["command"] == "reload"
    assert peer.requests.empty()


@pytest.mark.parametrize("command", [["stop"], ["drain"], ["scale", "2"], ["rebalance"]])
def test_ctrl_c_while_others_wait(peer: Peer, command: list[str]) -> None:
    """Ctrl-C during stop, drain, scale and rebalance exits 130 and says that the master goes on."""
    released = threading.Event()
    steps: list[Step] = [{"event": "remaining", "active": 5}, lambda: released.wait(DEADLINE)]
    peer.script = {command[0]: steps}
    peer.lock().listen()
    try:
        with terminal(peer, *command) as live:
            live.read_until("5 connections left")
            live.press_ctrl_c()
            assert live.finish() == 130
            assert "no longer waiting" in live.text
    finally:
        released.set()


def test_a_pipe_gets_each_line_when_it_happens(peer: Peer) -> None:
    """Into a pipe events are plain lines, each written before the next event comes."""
    seen = threading.Event()
    peer.script = {
        "reload": [
            {"event": "notice", "message": "first " + "x" * 200},
            lambda: seen.wait(DEADLINE),
            {"result": {"outcome": "done", "generation": 8, "seconds": 2}},
        ]
    }
    peer.lock().listen()
    with subprocess.Popen(
        [sys.executable, "-m", "wssup", "reload"],
        env=peer.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        # The peer ends only after this line was read: it was not kept back in a buffer.
        assert command.stdout.readline() == "first " + "x" * 200 + "\n"
        seen.set()
        assert command.stdout.read() == "reloaded: generation 8 serves in 2.0s\n"
        assert command.wait(DEADLINE) == 0


def test_an_interrupt_by_signal_is_130_everywhere(peer: Peer) -> None:
    """SIGINT during a command that only asks ends it with 130 and without a traceback."""
    peer.lock().listen(answer=False)
    peer_connected = threading.Event()

    def accept() -> None:
        assert peer._listener is not None
        connection, _ = peer._listener.accept()
        with connection:
            connection.recv(1000)
            peer_connected.set()
            connection.recv(1)

    peer._start(accept)
    with subprocess.Popen(
        [sys.executable, "-m", "wssup", "status"],
        env=peer.environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert peer_connected.wait(DEADLINE)
        command.send_signal(signal.SIGINT)
        assert command.stderr is not None
        assert "Traceback" not in command.stderr.read()
        assert command.wait(DEADLINE) == 130
