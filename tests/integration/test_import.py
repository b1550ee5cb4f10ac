"""What importing an application may do, and which names are none."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.instance import ECHO, Instance
from tests.harness.raw import Raw

Start = Callable[..., Instance]

_THREADED = f"""\
import threading

enough = threading.Event()
thread = threading.Thread(target=enough.wait, name="poller", daemon=True)
thread.start()
{ECHO.replace('"who"', '"thread"').replace("{GENERATION_MARK}", "{thread.is_alive()}")}"""


def _threads(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def test_threads_at_import_are_refused(start: Start) -> None:
    """An application that starts a Python thread while it is imported is refused, with the thread's
    name and a remedy.
    """
    instance = start(_THREADED)
    assert instance.exited() == 1
    [event] = instance.events("cannot_start")
    assert "'poller'" in event["reason"]
    assert "--no-preload" in event["reason"]
    assert instance.events("worker_ready") == []
    assert "Traceback" not in instance.logged()


def test_threads_at_import_without_preload(start: Start) -> None:
    """With preload = false each worker imports the application itself, so that threads it starts
    then live in the worker.
    """
    instance = start(_THREADED, preload=False)
    status = instance.running()
    pids = {w["pid"] for s in status["slots"] for w in s["workers"]}
    assert len(pids) == 2
    with Raw(instance.address()) as client:
        _, _, pid, alive = client.open().ask("thread").split()
        client.close()
    assert alive == "True"
    assert int(pid) in pids
    for worker in pids:
        assert _threads(worker) == 2
    assert _threads(instance.zygote()) == 1


def test_what_an_import_prints_is_in_the_log_once(start: Start) -> None:
    """What the application prints at import is in the log once, although its buffer is copied to
    each worker, and what a handler prints is there too.
    """
    instance = start(
        f"import sys\nprint('a banner')\nprint('a warning', file=sys.stderr)\n{ECHO}"
        "        print('a message')\n"
    )
    instance.running()
    with Raw(instance.address()) as client:
        assert client.open().ask("hello") == "hello"
        client.close()
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    lines = instance.logged().splitlines()
    assert [lines.count(x) for x in ("a banner", "a warning", "a message")] == [1, 1, 1]


class Wrong(NamedTuple):
    """An application that is none: its name, its text, and what must be said."""

    name: str
    text: str
    said: tuple[str, ...]


_WRONG = {
    "no module": Wrong("nowhere:app", "", ("there is no module 'nowhere'", "--app-dir")),
    "no package": Wrong("nowhere.chat:app", "", ("there is no module 'nowhere'",)),
    "no attribute": Wrong(
        "application:chatt",
        "async def chat(request): ...",
        ("has no attribute 'chatt'", "did you mean application:chat?"),
    ),
    "not async": Wrong(
        "application:app",
        "def app(request): ...",
        ("application:app is not an async function", "async def app(request)"),
    ),
    "no argument": Wrong(
        "application:app",
        "async def app(): ...",
        ("cannot be called with one argument", "async def app(request)"),
    ),
    "two arguments": Wrong(
        "application:app",
        "async def app(scope, receive): ...",
        ("cannot be called with one argument", "'receive'"),
    ),
    "a class": Wrong(
        "application:App",
        "class App:\n    async def __call__(self, request): ...",
        ("application:App is not an async function",),
    ),
    "a value": Wrong("application:app", "app = 5", ("application:app is int, not a handler",)),
}


@pytest.mark.parametrize("case", _WRONG)
def test_a_wrong_name(start: Start, case: str) -> None:
    """What is named but is no handler is refused by serve with status 1 and one line that says what
    is wrong, where, and what helps; no worker is started and no traceback shown.
    """
    wrong = _WRONG[case]
    instance = start(wrong.text, app=wrong.name)
    assert instance.exited() == 1
    [event] = instance.events("cannot_start")
    for part in wrong.said:
        assert part in event["reason"]
    assert instance.events("worker_ready") == []
    assert "Traceback" not in instance.logged()


def test_a_name_without_attribute(start: Start) -> None:
    """A name without an attribute is a mistake in the configuration: status 2, one line."""
    instance = start(app="application")
    assert instance.exited() == 2
    (line,) = instance.logged().splitlines()
    assert "app = 'application'" in line
    assert "module and an attribute" in line
    assert "shop.chat:app" in line
