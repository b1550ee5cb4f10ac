"""A reload that fails: the old generation serves on unnoticed, and the reason is told."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

import wssup
from tests.harness import processes
from tests.harness.clients import aside, ask, crowd, prober
from tests.harness.instance import ECHO, Instance

Start = Callable[..., Instance]

#: Long enough for a failure to come first; a reload that fails does not wait for its end.
_LONG_SETTLE = 60
_CROWD = 50

_LIFESPAN = """\
from contextlib import asynccontextmanager

import os
import time
import trio
"""


def _background(does: str) -> str:
    """An application whose lifespan has a task that does something 5 s after the start: it is ready
    by then, which takes an answer of each other worker.
    """
    return f"""{_LIFESPAN}
async def background():
    await trio.sleep(5)
    {does}

@asynccontextmanager
async def lifespan():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(background)
        yield
        nursery.cancel_scope.cancel()

{ECHO}"""


class Broken(NamedTuple):
    """New code that must not replace the old.

    :ivar code: the module's new text.
    :ivar reason: what the reason must match.
    :ivar outcome: ``refused`` if no worker of it may have been started.
    :ivar traceback: what the application's own traceback must have, if there is one.
    :ivar settings: changes of the configuration.
    """

    code: str
    reason: str
    outcome: str = "refused"
    traceback: tuple[str, ...] = ()
    settings: dict[str, object] = {}  # noqa: RUF012 - never changed


_BROKEN = {
    "import raises": Broken(
        "def connect():\n    raise RuntimeError('no database')\n\nconnect()\n" + ECHO,
        "importing application:app failed: RuntimeError: no database",
        traceback=("line 4, in <module>", "line 2, in connect", "RuntimeError: no database"),
    ),
    "import exits": Broken(
        "import sys\nsys.exit('not today')\n" + ECHO,
        r"importing application:app ended the process: sys\.exit\('not today'\)",
        traceback=("line 2, in <module>", "SystemExit: not today"),
    ),
    "syntax error": Broken(
        ECHO + "\ndef broken(:\n",
        "importing application:app failed: SyntaxError",
        traceback=("def broken(:", "SyntaxError"),
    ),
    "a module is missing": Broken(
        "import no_such_module_anywhere\n" + ECHO,
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
        traceback=("line 1, in <module>", "ModuleNotFoundError"),
    ),
    "the attribute is missing": Broken(
        ECHO.replace("async def app", "async def apps"),
        r"module 'application' .* has no attribute 'app'; did you mean application:apps\?",
    ),
    "the handler is no coroutine function": Broken(
        ECHO + "\ndef app(request):\n    pass\n", "application:app is not an async function"
    ),
    "the import takes too long": Broken(
        "import time\ntime.sleep(1000)\n" + ECHO,
        r"importing application:app took longer than ready_timeout \(1 s\)",
        settings={"ready_timeout": 1},
    ),
    "the import kills its process": Broken(
        "import os\nos._exit(9)\n" + ECHO,
        "the process that imports application:app exited with status 9",
    ),
    "the lifespan raises": Broken(
        f"{_LIFESPAN}\n@asynccontextmanager\nasync def lifespan():\n"
        f"    raise RuntimeError('no cache')\n    yield\n\n{ECHO}",
        "its lifespan raised RuntimeError: no cache",
        outcome="rolled_back",
        traceback=("in lifespan", "RuntimeError: no cache"),
    ),
    "the workers are never ready": Broken(
        f"{_LIFESPAN}\n@asynccontextmanager\nasync def lifespan():\n"
        f"    await trio.sleep_forever()\n    yield\n\n{ECHO}",
        r"it was not ready within ready_timeout \(8 s\)",
        outcome="rolled_back",
        settings={"ready_timeout": 8},
    ),
    "a worker dies while it settles": Broken(
        _background("os._exit(7)"), "slot [01]: exited with status 7", outcome="rolled_back"
    ),
    "a task of the lifespan raises while it settles": Broken(
        _background("raise RuntimeError('lost the cache')"),
        "its lifespan raised RuntimeError: lost the cache",
        outcome="rolled_back",
        traceback=("in background", "RuntimeError: lost the cache"),
    ),
    "a loop stands still while it settles": Broken(
        _background("time.sleep(3.5)"),
        r"its loop did not turn for 1\.5 s",
        outcome="rolled_back",
        settings={"stall_after": 1.5},
    ),
}


@pytest.mark.parametrize("broken", _BROKEN.values(), ids=_BROKEN.keys())
async def test_broken_code_changes_nothing(start: Start, broken: Broken) -> None:
    """New code that cannot serve ends its reload with status 1 and the reason; the old generation
    serves on with the same processes and every connection, and mended code is taken next.
    """
    instance = start()
    instance.running()
    url = instance.url()
    async with crowd(url, _CROWD) as people:
        family = processes.children(instance.pid)
        workers = instance.workers()
        instance.source.write_text(broken.code)
        instance.reconfigure(settle=_LONG_SETTLE, **broken.settings)
        reload = await aside(instance.run, "reload")
        _assert_told(instance, reload.returncode, reload.stderr, broken)
        await aside(
            processes.until,
            lambda: processes.children(instance.pid) == family,
            20,
            "the failed generation to be gone",
        )
        await _serves_as_before(instance, workers)
        assert not people.closed
        assert len(people.live) == _CROWD
    await _is_mended(instance)


def _assert_told(instance: Instance, exit_status: int, output: str, broken: Broken) -> None:
    assert exit_status == 1, output
    # The output is wrapped for no terminal: one line has the reason.
    assert re.search(broken.reason, output), output
    last = instance.status()["last_reload"]
    assert (last["outcome"], last["generation"]) == (broken.outcome, 2)
    assert re.search(broken.reason, last["reason"]), last["reason"]
    for part in broken.traceback:
        assert part in output
        assert part in last["traceback"]
    if broken.traceback:
        assert f'File "{instance.source}"' in output
        assert str(Path(wssup.__file__).parent) not in output
    else:
        assert "Traceback" not in output
        assert last["traceback"] is None
    if broken.outcome == "refused":
        assert not [e for e in instance.events("slot") if e["state"] == "replacing"]


def _is_settling(status: dict[str, Any]) -> bool:
    """The new workers are tried, and the old ones have heard that they do not accept."""
    return all(
        slot["state"] == "settling"
        and all(w["accepting"] is (w["role"] != "current") for w in slot["workers"])
        for slot in status["slots"]
    )


async def _serves_as_before(instance: Instance, workers: dict[int, int]) -> None:
    status = await aside(
        instance.wait,
        lambda s: all(w["accepting"] for slot in s["slots"] for w in slot["workers"]),
        "the old workers to hear that they accept again",
    )
    assert (status["state"], status["generation"], status["mixed"]) == ("running", 1, False)
    assert [(s["state"], len(s["workers"])) for s in status["slots"]] == [("ready", 1)] * 2
    assert instance.workers() == workers
    assert (await ask(instance.url(), "who")).endswith("original")


async def _is_mended(instance: Instance) -> None:
    instance.source.write_text(ECHO.replace("original", "mended"))
    instance.reconfigure(settle=0.1, ready_timeout=30, stall_after=20)
    reload = await aside(instance.run, "reload")
    assert reload.returncode == 0, reload.stdout + reload.stderr
    assert (await ask(instance.url(), "who")).endswith("mended")


async def test_a_killed_successor_rolls_back(start: Start) -> None:
    """SIGKILL to one new worker while it settles rolls the reload back, without its help."""
    instance = start()
    instance.running()
    async with crowd(instance.url(), _CROWD) as people, prober(instance.url()) as probing:
        workers = instance.workers()
        instance.reconfigure(settle=_LONG_SETTLE)
        async with trio.open_nursery() as nursery:
            results: list[Any] = []

            async def reload() -> None:
                results.append(await aside(instance.run, "reload"))

            nursery.start_soon(reload)
            await aside(instance.wait, _is_settling, "both slots to settle")
            # New connections go to the new workers alone, so that these are tried in earnest.
            answers = [await ask(instance.url(), "who") for _ in range(20)]
            assert {answer.split()[1] for answer in answers} == {"2"}
            os.kill(instance.workers("successor")[1], signal.SIGKILL)
        (done,) = results
        assert done.returncode == 1
        assert "slot 1: killed by SIGKILL" in done.stderr
        assert instance.status()["last_reload"]["reason"] == "slot 1: killed by SIGKILL"
        await _serves_as_before(instance, workers)
        assert not people.closed
        await probing.rounds(4)
        assert probing.answers[-1].split()[1] == "1"
    await _is_mended(instance)


async def test_raising_handlers_roll_back(start: Start) -> None:
    """New code whose handlers raise for clients while it settles is rolled back, with the count."""
    instance = start()
    instance.running()
    url = instance.url()
    async with crowd(url, _CROWD) as people:
        workers = instance.workers()
        instance.edit(
            'if message == "who":', 'assert message != "fault"\n        if message == "who":'
        )
        instance.reconfigure(settle=_LONG_SETTLE)
        async with prober(url, message="fault") as probing:
            assert probing.failures == []
            reload = await aside(instance.run, "reload")
            assert len(probing.failures) > 0
        assert reload.returncode == 1
        reason = r"the new code's handlers raised \d+ times in \d+ runs; the old code's did 0 times"
        assert re.search(reason, reload.stderr)
        last = instance.status()["last_reload"]
        assert last["outcome"] == "rolled_back"
        assert re.search(reason, last["reason"])
        await _serves_as_before(instance, workers)
        assert not people.closed
    await _is_mended(instance)


async def test_connections_of_the_failed_generation_are_told(start: Start) -> None:
    """Clients that the new workers took before a rollback are closed with 1012 by their drain, and
    those of the old workers stay.
    """
    # Both new workers get some; by their counts the one whose slot has fewer old ones may get all.
    instance = start(steering="hash")
    instance.running()
    url = instance.url()
    async with crowd(url, 10) as old:
        instance.reconfigure(settle=_LONG_SETTLE)
        assert instance.run("reload", "--no-wait").returncode == 0
        await aside(instance.wait, _is_settling, "both slots to settle")
        async with crowd(url, 40, reconnect=True) as new:
            os.kill(instance.workers("successor")[0], signal.SIGKILL)
            await new.wait(lambda: len(new.closed) == 40, "all of the new generation to be closed")
            await new.wait(lambda: len(new.live) == 40, "all to be back")
            # Whom the killed worker served was told nothing.
            assert set(new.codes) == {1006, 1012}
            await aside(instance.wait, _is_served_by_the_first, "everybody to be at home")
            assert not old.closed


def _is_served_by_the_first(status: dict[str, Any]) -> bool:
    workers = [w for s in status["slots"] for w in s["workers"]]
    return sum(w["active"] for w in workers if w["generation"] == 1) == 50 and len(workers) == 2
