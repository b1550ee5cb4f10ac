"""Completion in a real zsh and a real fish, with the Tab key. (bash is in the unit tests.)"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pyte
import pytest

from tests.harness import processes

PATIENCE = 60.0
LINES, COLUMNS = 24, 100


class Shell:
    """An interactive shell on a screen."""

    def __init__(self, command: list[str], environ: dict[str, str], home: Path) -> None:
        self._own, theirs = os.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._process = subprocess.Popen(
            command,
            cwd=home,
            env=environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    def until(self, fact: Callable[[str], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not fact(text := "\n".join(line.rstrip() for line in self._screen.display)):
            assert time.monotonic() < deadline, text
            if select.select([self._own], [], [], 0.1)[0]:
                self._stream.feed(os.read(self._own, 1 << 16))

    def shows(self, text: str) -> None:
        self.until(lambda seen: text in seen)

    def close(self) -> None:
        # It may be asking wssup still.
        family = processes.descendants(self._process.pid)
        self._process.kill()
        processes.end(family)
        self._process.wait(PATIENCE)
        os.close(self._own)


@contextmanager
def shell(name: str, home: Path) -> Iterator[Shell]:
    """A shell that found the script where the documentation has it put."""
    programs = home / "bin"
    programs.mkdir()
    program = programs / "wssup"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m wssup "$@"\n')
    program.chmod(0o755)
    script = subprocess.run(
        [program, "completion", name], capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout
    if name == "zsh":
        (home / ".zfunc").mkdir()
        (home / ".zfunc/_wssup").write_text(script)
        (home / ".zshrc").write_text(
            "fpath+=(~/.zfunc)\nautoload -U compinit\ncompinit -u\nPS1='ready> '\n"
        )
    else:
        folder = home / ".config/fish/completions"
        folder.mkdir(parents=True)
        (folder / "wssup.fish").write_text(script)
        (home / ".config/fish/config.fish").write_text(
            "function fish_prompt; echo 'ready> '; end\nset -g fish_greeting\n"
        )
    found = shutil.which(name)
    assert found is not None
    kept = {k: v for k, v in os.environ.items() if k == "LANG" or k.startswith("LC_")}
    environ = kept | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "TERM": "xterm-256color",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    made = Shell([found, "-i"], environ, home)
    try:
        yield made
    finally:
        made.close()
        # fish leaves its history, and somebody who writes it.
        with contextlib.suppress(OSError):
            shutil.rmtree(home / ".local")


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_tab(name: str, tmp_path: Path) -> None:
    """Tab completes commands, options and words, and shows what commands do: the first time and
    each time after it, which is not the same to zsh.
    """
    with shell(name, tmp_path) as made:
        made.shows("ready>")
        for typed, completed in (
            ("wssup conn", "wssup connections "),
            ("wssup connections --newe", "wssup connections --newest"),
            ("wssup serve --on-reload ha", "wssup serve --on-reload handoff"),
        ):
            made.type(typed)
            # zsh takes a Tab that comes with other keys for one that was pasted.
            made.shows(typed)
            made.type("\t")
            made.shows(completed.rstrip())
            made.type("\x15")
            made.until(lambda seen, typed=typed: typed not in seen)
        made.type("wssup s")
        made.shows("wssup s")
        made.type("\t")
        made.shows("Install it as a systemd service")
        made.shows("Stop the instance.")
