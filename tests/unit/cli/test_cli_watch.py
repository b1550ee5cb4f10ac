"""The live view on a screen that a terminal emulator keeps, with real keys, sizes and signals."""

from __future__ import annotations

import fcntl
import itertools
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyte
import pytest
from control_peer import DEADLINE, Peer
from told import status

from wssup.cli.client import ANSWER_TIMEOUT

#: What leaves the other screen, with a cursor.
_LEAVE = b"\x1b[?25h\x1b[?1049l"


class Watch:
    """``wssup status --watch``, or a shell that has run it, and what its user sees."""

    def __init__(self, peer: Peer, columns: int, lines: int, **environ: str) -> None:
        self._own, self._theirs = os.openpty()
        self._size(columns, lines)
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.bytes = b""
        self.before = termios.tcgetattr(self._theirs)
        environment = {k: v for k, v in peer.environment.items() if k != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wssup", "status", "--watch"],
            env=environment | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | environ,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self._size(columns, lines)

    def press(self, keys: bytes) -> None:
        os.write(self._own, keys)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, fact: Callable[[str], object], what: str) -> str:
        """Wait until the screen shows something; what it shows then."""
        deadline = time.monotonic() + DEADLINE
        while not fact(self.text):
            left = deadline - time.monotonic()
            assert left > 0, f"{what} not seen:\n{self.text}"
            self._read(min(left, 0.1))
        return self.text

    def shows(self, text: str) -> str:
        return self.until(lambda seen: text in seen, repr(text))

    def _read(self, seconds: float) -> None:
        if select.select([self._own], [], [], seconds)[0]:
            data = os.read(self._own, 1 << 16)
            self.bytes += data
            self._stream.feed(data)

    def ended(self) -> int:
        """Wait for the end of the command; its exit status. The terminal must be as it was."""
        found = self.process.wait(DEADLINE)
        # What it wrote last may be on its way through the terminal, behind something else.
        deadline = time.monotonic() + DEADLINE
        while not self.bytes.endswith(_LEAVE) and time.monotonic() < deadline:
            self._read(0.1)
        assert termios.tcgetattr(self._theirs) == self.before
        assert self.bytes.endswith(_LEAVE)
        assert self.bytes.count(b"\x1b[?1049h") == self.bytes.count(b"\x1b[?1049l")
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self._own)
        os.close(self._theirs)


@contextmanager
def watching(peer: Peer, columns: int = 80, lines: int = 24, **environ: str) -> Iterator[Watch]:
    found = Watch(peer, columns, lines, **environ)
    try:
        yield found
    finally:
        found.close()


def serving(peer: Peer, **changes: Any) -> Peer:
    tell(peer, **changes)
    return peer.lock().listen()


def tell(peer: Peer, **changes: Any) -> None:
    peer.script = {"status": [{"result": status(**changes)}]}


def many(count: int) -> list[dict[str, Any]]:
    worker = {"generation": 1, "role": "current", "state": "ready", "active": 5, "accepted": 7}
    return [
        {"slot": n, "state": "ready", "workers": [worker | {"pid": 1000 + n}]} for n in range(count)
    ]


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"PYTHONIOENCODING": "ascii"}])
def test_eighty_by_twentyfour(peer: Peer, environ: dict[str, str]) -> None:
    """Everything that matters is on the screen, in words, whatever colours and characters there
    are; without colour none is sent, and without UTF-8 nothing but ASCII.
    """
    serving(peer, connections={"open": 60, "active": 55, "accepted": 100}, capacity=80)
    with watching(peer, **environ) as watch:
        seen = watch.shows("q quit")
        for text in ("default", "running", "55 active, 60 open", "75.0% of 80", "slot", "ready"):
            assert text in seen, text
        bar = "#" * 15 + "." * 5 if "PYTHONIOENCODING" in environ else "█" * 15 + "·" * 5
        assert bar in seen
        watch.press(b"q")
        assert watch.ended() == 0
        assert (b"\x1b[32m" in watch.bytes) is ("NO_COLOR" not in environ)
        if "PYTHONIOENCODING" in environ:
            assert watch.bytes.isascii()


def test_what_happens_per_second(peer: Peer) -> None:
    """From the second status on it says how much happens, per second and per worker."""
    worker = {"pid": 5, "generation": 1, "role": "current", "state": "ready", "active": 7}
    slot = {"slot": 0, "state": "ready", "workers": [worker | {"accepted": 10}]}
    later = {"slot": 0, "state": "ready", "workers": [worker | {"accepted": 2010}]}
    counts = {"open": 7, "active": 7, "accepted": 10, "closed": 3, "messages_in": 100}
    serving(peer, connections=counts, slots=[slot])
    with watching(peer) as watch:
        watch.shows("7 active")
        tell(
            peer,
            connections=counts | {"accepted": 2010, "active": 2007, "messages_in": 1_000_100},
            slots=[later],
        )
        seen = watch.until(lambda text: "accepted" in text and "2,007" in text, "rates")
        # Two seconds at most lie between two statuses, if the machine is not very busy.
        assert " 0 closed" in seen
        assert "refused" not in seen
        watch.until(lambda text: "new/s" in text, "the column")
        watch.press(b"\x03")
        assert watch.ended() == 0


def test_another_life_of_the_instance(peer: Peer) -> None:
    """Counters of an instance that was started anew are not compared with the old ones; while it
    is away, the last page stays with the time it is of.
    """
    serving(peer, connections={"open": 70, "active": 70, "accepted": 900}, started_at=1000.0)
    with watching(peer) as watch:
        watch.shows("70 active")
        peer.stop_listening()
        peer.unlock()
        seen = watch.shows("no instance named 'default' runs")
        assert "last seen " in seen
        assert "70 active" in seen
        assert peer._listener is not None
        peer._listener.close()
        tell(peer, connections={"open": 3, "active": 3, "accepted": 3}, started_at=2000.0)
        # From the second status on there are figures per second: it waits for the first page.
        looked, asked = threading.Event(), itertools.count()
        peer.script["status"].insert(0, lambda: next(asked) and looked.wait(DEADLINE))
        peer.lock().listen()
        seen = watch.shows("3 active")
        looked.set()
        assert "no instance" not in seen
        assert "per second" not in seen
        watch.shows("per second  0 accepted")
        watch.press(b"q")
        assert watch.ended() == 0


def _rows(text: str) -> tuple[int, int]:
    """The first and the last row that the page says it shows."""
    found = re.search(r"rows (\d+) to (\d+)", text)
    assert found, text
    return int(found[1]), int(found[2])


def test_more_slots_than_lines(peer: Peer) -> None:
    """The table scrolls, its heading and the figures stay, and both ends are where they are."""
    serving(peer, slots=many(64))
    with watching(peer) as watch:
        seen = watch.shows("rows 1 to")
        assert "1000" in seen
        assert "1063" not in seen
        assert seen.count("ready") > 10
        watch.press(b"\x1b[B" * 2)
        watch.shows("rows 3 to")
        watch.press(b"k")
        last = _rows(watch.shows("rows 2 to"))[1]
        watch.press(b"\x1b[6~")
        # A line of figures may have come in between, for which a row made way.
        watch.until(lambda text: _rows(text)[0] in {last, last + 1}, "the next page")
        watch.press(b"G")
        seen = watch.shows("to 64 of 64")
        assert "1063" in seen
        assert "slot " in seen
        watch.press(b"\x1b[H")
        watch.shows("rows 1 to")
        watch.press(b"q")
        assert watch.ended() == 0


def test_another_size(peer: Peer) -> None:
    """The page fits into the terminal whatever size it gets, at once, down to very small ones."""
    serving(peer, slots=many(30))
    with watching(peer) as watch:
        watch.shows("rows 1 to")
        # The peer is silent from now on: what is drawn is drawn because of the size.
        for columns, lines in ((132, 50), (40, 12), (24, 6), (80, 24)):
            watch.resize(columns, lines)
            watch.until(
                lambda text, columns=columns, lines=lines: (
                    text.splitlines()[-1].startswith("q quit")
                    and len(text.splitlines()) == lines
                    and "default" in text.splitlines()[0]
                    and (columns < 132 or "of 30" not in text)
                ),
                f"a page of {columns}x{lines}",
            )
        watch.press(b"q")
        assert watch.ended() == 0


def test_what_went_wrong_is_seen(peer: Peer) -> None:
    """Errors are on the screen also where there are more slots than lines; of many the first."""
    slots = many(64)
    for number in (0, 40, *range(50, 64)):
        slots[number] |= {"state": "failed", "error": f"cannot boot {number}\ntrace", "workers": []}
    serving(peer, slots=slots)
    with watching(peer) as watch:
        seen = watch.shows("q quit")
        assert "slot 0 failed: cannot boot 0" in seen
        assert "slot 40 failed: cannot boot 40" in seen
        assert "lines more: wssup status" in seen
        assert "48 ready, 16 failed" in seen
        assert "1001" in seen
        watch.press(b"q")
        assert watch.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_ends_it(peer: Peer, number: int) -> None:
    """Such a signal ends it as it ends others, and the terminal is as it was."""
    serving(peer)
    with watching(peer) as watch:
        watch.shows("q quit")
        watch.process.send_signal(number)
        assert watch.ended() == -number


def test_stopped_and_continued(peer: Peer) -> None:
    """While it is stopped the terminal is as it was; afterwards the page is there again."""
    serving(peer)
    with watching(peer) as watch:
        watch.shows("q quit")
        # In a session of its own nobody could continue it, so the kernel does not stop it for
        # Ctrl-Z; but it leaves and comes again.
        watch.process.send_signal(signal.SIGTSTP)
        deadline = time.monotonic() + DEADLINE
        while watch.bytes.count(b"\x1b[?1049h") < 2:
            assert time.monotonic() < deadline
            watch._read(0.1)
        assert watch.bytes.count(b"\x1b[?1049l") == 1
        watch.shows("q quit")
        watch.press(b"q")
        assert watch.ended() == 0


def test_a_master_that_does_not_answer(peer: Peer) -> None:
    """Keys are answered at once also while the master is silent."""
    serving(peer)
    with watching(peer) as watch:
        watch.shows("q quit")
        released = threading.Event()
        peer.script = {"status": [lambda: released.wait(DEADLINE)]}
        try:
            peer.hung_up.get(timeout=DEADLINE)
            watch.resize(60, 20)
            watch.until(lambda text: len(text.splitlines()) == 20, "the other size")
            began = time.monotonic()
            watch.press(b"q")
            assert watch.ended() == 0
            assert time.monotonic() - began < ANSWER_TIMEOUT
        finally:
            released.set()


def test_a_terminal_without_a_cursor(peer: Peer) -> None:
    """A terminal that cannot show it is told so, with exit status 2, and nothing is asked."""
    serving(peer)
    with watching(peer, TERM="dumb") as watch:
        assert watch.process.wait(DEADLINE) == 2
        watch._read(1)
        assert "TERM is dumb" in watch.text
        assert peer.requests.empty()
