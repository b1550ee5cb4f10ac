"""The C programs: built here, and the load run by their command lines."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engine.machine import pinned, processors

_SOURCES = Path(__file__).resolve().parents[1] / "native"
BUILD = _SOURCES / "build"
_PROGRAMS = {
    "load": ("load.c", "client.c"),
    "floor": ("floor.c", "server.c"),
    "reload": ("reload.c", "client.c"),
    "knock": ("knock.c", "client.c"),
    "topics": ("topics.c", "client.c", "pace.c"),
    "look": ("look.c", "pace.c"),
    "topics_floor": ("topics_floor.c", "server.c"),
    "http": ("http.c",),
}
FLOOR = BUILD / "floor"
#: Seconds that a load may take beyond what it was told to measure: opening its connections.
_PATIENCE = 150.0


class MeasureError(Exception):
    """Something could not be measured; the text says why."""


def build() -> None:
    """Compile what is older than its sources.

    :raises SystemExit: without a C compiler, or if one does not like the sources.
    """
    BUILD.mkdir(exist_ok=True)
    newest = max(f.stat().st_mtime for f in _SOURCES.iterdir() if f.suffix in {".c", ".h"})
    for name, sources in _PROGRAMS.items():
        program = BUILD / name
        if program.exists() and program.stat().st_mtime > newest:
            continue
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit(
                "The load generator is written in C, and there is no cc here. Install a C compiler "
                "(Debian's package gcc with libc6-dev) and run this again."
            )
        files = [str(_SOURCES / source) for source in sources]
        done = subprocess.run(
            [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), *files, "-lm", "-lpthread"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"cc on {', '.join(sources)}:\n{done.stderr}")
        if done.stderr:
            print(done.stderr, file=sys.stderr)


def load(mode: str, port: int, seconds: float = 0, **options: object) -> dict[str, float]:
    """Run the load generator to its end; the figures it printed.

    :param seconds: measured, after its warm-up.
    :param options: its further options, by name.
    :raises MeasureError: if it failed, or if a connection did.
    """
    command = _command(mode, port, seconds=seconds, **options)
    with pinned(processors()[1]):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    try:
        out, err = process.communicate(timeout=seconds + _PATIENCE)
    except subprocess.TimeoutExpired:
        raise MeasureError(f"load {mode} did not end") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise MeasureError(f"load {mode}: {err.decode().strip() or process.returncode}")
    figures: dict[str, float] = json.loads(out)
    if figures["errors"]:
        raise MeasureError(f"load {mode}: {figures['errors']:.0f} errors: {err.decode().strip()}")
    return figures


def _command(mode: str, port: int, **options: object) -> list[str]:
    words = [str(BUILD / "load"), mode, "--port", str(port)]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words


class Held:
    """Connections that are open and idle; their pings are answered."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def opened(self) -> None:
        """Wait until all are open.

        :raises MeasureError: if they cannot be opened.
        """
        self._line()

    def pings(self) -> int:
        """How many pings came so far."""
        return self._asked()["pings"]

    def intact(self) -> None:
        """Make sure that no connection was lost.

        :raises MeasureError: if one was.
        """
        lost = self._asked()["errors"]
        if lost:
            raise MeasureError(f"{lost} of the idle connections were lost")

    def _asked(self) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise MeasureError(f"holding connections: {self._process.stderr.read().strip()}")
        counts: dict[str, int] = json.loads(line)
        return counts


@contextmanager
def holding(port: int, connections: int) -> Iterator[Held]:
    """Hold so many idle connections. Politely (nice): another load must not wait for this one."""
    command = ["nice", "-n", "10", *_command("idle", port, connections=connections)]
    with (
        pinned(processors()[1]),
        subprocess.Popen(
            command,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            held = Held(process)
            held.opened()
            yield held
        finally:
            process.kill()
