"""The shortest way through everything: serve, connect, reload, stop."""

from __future__ import annotations

from collections.abc import Callable

from tests.harness.clients import ask
from tests.harness.instance import Instance

Start = Callable[..., Instance]


async def test_serve_reload_stop(start: Start) -> None:
    """An application is served, a reload brings its next version, a stop ends it with status 0."""
    instance = start()
    instance.running()
    url = instance.url()
    assert (await ask(url, "who")).endswith("original")
    instance.edit("original", "a later one")
    reload = instance.run("reload")
    assert reload.returncode == 0, reload.stdout + reload.stderr
    assert (await ask(url, "who")).endswith("a later one")
    stop = instance.run("stop")
    assert stop.returncode == 0, stop.stdout + stop.stderr
    assert instance.exited() == 0
