"""The whole terminal for a live view: lines at their places, keys, another size; and everything as
it was afterwards, however the view ends.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import termios
from types import FrameType, TracebackType
from typing import Any, Final, Self, TextIO

__all__ = ["Screen"]

#: The other screen, without a cursor (xterm's control sequences, which all others follow). What has
#: no other screen is left empty.
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
_LEAVE: Final = "\x1b[H\x1b[2J\x1b[?25h\x1b[?1049l"
_KEYS: Final = {
    b"q": "quit",
    b"Q": "quit",
    b"\x0c": "redraw",
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\x1b[5~": "page_up",
    b"\x1b[6~": "page_down",
    b" ": "page_down",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"g": "home",
    b"\x1b[F": "end",
    b"\x1b[4~": "end",
    b"G": "end",
}
#: What ends a command: it ends by the same signal, when the terminal is as it was.
_DEADLY: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Screen:
    """A context manager; inside, stdout is the screen and nothing else may write to it.

    :param out: a terminal.
    """

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._keyboard = _terminal_of(sys.stdin)
        self._saved: list[Any] | None = None
        self._shown: list[str] = []
        self._wakes, self._woken = socket.socketpair()
        self._handlers: dict[int, Any] = {}
        self._wakeup_was = -1

    def __enter__(self) -> Self:
        for end in (self._wakes, self._woken):
            end.setblocking(False)
        self._wakeup_was = signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGWINCH, signal.SIGTSTP, *_DEADLY):
            self._handlers[number] = signal.signal(number, _noted)
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._leave()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup_was)
            self._wakes.close()
            self._woken.close()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        try:
            found = os.get_terminal_size(self._out.fileno())
        except OSError:
            found = shutil.get_terminal_size()
        # Some pseudo-terminals say 0.
        return found.columns or 80, found.lines or 24

    def show(self, lines: list[str]) -> None:
        """Show these lines, of the terminal's width at most, from the top; only what is new is
        written.
        """
        written = []
        rows = max(len(lines), len(self._shown))
        for row in range(rows):
            line = lines[row] if row < len(lines) else ""
            if row >= len(self._shown) or self._shown[row] != line:
                written.append(f"\x1b[{row + 1};1H\x1b[2K{line}")
        self._shown = list(lines)
        if written:
            self._write("".join(written))

    def wake(self) -> None:
        """End a `wait` from another thread."""
        try:
            self._wakes.send(b"\0")
        except OSError:
            return  # it is full of reasons to wake up, or closed

    def wait(self, seconds: float | None = None) -> list[str]:
        """Wait for keys, another size (``"resize"``) or `wake`; what came.

        :raises KeyboardInterrupt: on Ctrl-C.
        """
        readers = [self._woken.fileno()]
        if self._keyboard is not None:
            readers.append(self._keyboard)
        ready, _, _ = select.select(readers, [], [], seconds)
        found = []
        if self._woken.fileno() in ready:
            found += self._take_signals()
        if self._keyboard in ready:
            found += self._take_keys()
        return found

    def _take_signals(self) -> list[str]:
        found = []
        for number in self._woken.recv(4096):
            if number == signal.SIGWINCH:
                self._forget()
                found.append("resize")
            elif number == signal.SIGTSTP:
                self._suspend()
                found.append("resize")
            elif number in _DEADLY:
                self._leave()
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        return found

    def _take_keys(self) -> list[str]:
        assert self._keyboard is not None
        try:
            data = os.read(self._keyboard, 256)
        except OSError:
            data = b""
        if not data:
            # The terminal is gone, and with it whoever could press a key.
            self._keyboard = None
            return ["quit"]
        found = []
        while data:
            length = next((n for n in (4, 3, 1) if data[:n] in _KEYS), 0)
            if length:
                found.append(_KEYS[data[:length]])
            data = data[length or 1 :]
        if "redraw" in found:
            self._forget()
        return found

    def _suspend(self) -> None:
        """Stop, as Ctrl-Z asks for, with the terminal as it was; until somebody has us go on."""
        self._leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._enter()

    def _enter(self) -> None:
        if self._keyboard is not None:
            self._saved = termios.tcgetattr(self._keyboard)
            mode = termios.tcgetattr(self._keyboard)
            # Keys as they are pressed, and not shown; Ctrl-C stays a signal.
            mode[3] &= ~(termios.ICANON | termios.ECHO)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, mode)
        self._shown = []
        self._write(_ENTER)

    def _leave(self) -> None:
        try:
            self._write(_LEAVE)
        finally:
            if self._keyboard is not None and self._saved is not None:
                # Keys that nobody has read are not for the shell.
                termios.tcsetattr(self._keyboard, termios.TCSAFLUSH, self._saved)

    def _forget(self) -> None:
        """Write everything again."""
        self._shown = []
        self._write("\x1b[2J")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _noted(_number: int, _frame: FrameType | None) -> None:
    """A signal's handler: its number is in the wakeup descriptor already."""


def _terminal_of(stream: TextIO | None) -> int | None:
    """A stream's descriptor, if it is a terminal."""
    try:
        return stream.fileno() if stream is not None and stream.isatty() else None
    except (OSError, ValueError):
        return None
