"""An instance on a terminal of its own, as a person starts it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import termios
import threading

from tests.harness.instance import Instance


class OnTerminal(Instance):
    """An instance whose input and output is a pseudo-terminal, its controlling one (pty(7)).

    Its log is what the terminal shows.
    """

    def _serve(self) -> subprocess.Popen[bytes]:
        self._screen, theirs = os.openpty()
        process = subprocess.Popen(
            self.command("serve"),
            cwd=self.home,
            env=self.environ | {"TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Of the new session, so that ^C becomes a signal to its foreground group.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(theirs)
        self.log.touch()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return process

    def press_ctrl_c(self) -> None:
        """What the key sends."""
        os.write(self._screen, b"\x03")

    def end(self) -> None:
        """Kill whatever of it still runs, and close the terminal."""
        super().end()
        self._reader.join(10)
        os.close(self._screen)

    def _read(self) -> None:
        with self.log.open("ab") as log:
            while True:
                try:
                    data = os.read(self._screen, 1 << 16)
                except OSError as error:
                    # So ends a pseudo-terminal that nobody has open any more.
                    if error.errno != errno.EIO:
                        raise
                    return
                log.write(data)
                log.flush()
