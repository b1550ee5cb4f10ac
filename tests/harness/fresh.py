"""Python processes of their own, for what would disturb the test process: limits, reaping."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

_HEAD = """
import json, os, resource, signal, socket, sys, time
import trio
"""
#: A body with ``processes`` at hand, whose reaping runs; ``say`` prints its result.
_REAPING = """
from tests.harness.waiting import until
from wssup.supervisor.process import Exit, Processes, become_subreaper

async def gone(pid):
    await until(lambda: not os.path.exists(f"/proc/{{pid}}"))

async def body(processes):
{body}

async def main():
    processes = Processes()
    with trio.fail_after(50):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(processes.reap)
            await trio.testing.wait_all_tasks_blocked()
            await body(processes)
            nursery.cancel_scope.cancel()

import trio.testing
trio.run(main)
"""


def python(code: str, *arguments: object, cwd: Path | None = None) -> str:
    """What a Python of its own prints; its exit status must be 0 and nothing may be on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr or done.stdout
    return done.stdout


def reaping(body: str, *arguments: object) -> str:
    """The same for the body of an async function that has a ``processes``, with reaping running."""
    indented = textwrap.indent(textwrap.dedent(body), "    ")
    return python(_REAPING.format(body=indented), *arguments)
