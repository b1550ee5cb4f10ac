"""Who subscribes while connections move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.raw import Raw

Start = Callable[..., Instance]

#: Says its worker; subscribes, at once or when a file is there; publishes.
APP = """
import os
from pathlib import Path

import trio
import wssup

@wssup.resumable
async def app(request):
    ws = await request.accept()
    async for message in ws:
        word, _, rest = message.partition(" ")
        if word == "pid":
            await ws.send_message(f"pid {os.getpid()}")
        elif word == "publish":
            wssup.publish("room", rest)
        elif word == "subscribe":
            ws.subscribe(rest)
            await ws.send_message("subscribed")
        else:
            await ws.send_message("waiting")
            while not Path(rest).exists():
                await trio.sleep(0.01)
            ws.subscribe("room")
"""


def worker_of(client: Raw, heard: list[str]) -> int:
    """Where a connection is; what it hears before goes to ``heard``."""
    answer = client.ask("pid")
    while not answer.startswith("pid "):
        heard.append(answer)
        answer = client.frame()[1].decode()
    return int(answer.removeprefix("pid "))


def test_who_subscribes_before_it_moves(start: Start, tmp_path: Path) -> None:
    """A connection is busy as the others of its worker move, subscribes when it is done with that,
    and moves: it hears what is published from then on, and nothing from before, although its new
    worker had that and its old one had not.
    """
    instance = start(APP, workers=1, drain_timeout=60)
    instance.running()
    address = instance.address()
    file = tmp_path / "go on"
    with Raw(address).open() as busy, Raw(address).open() as quiet:
        assert quiet.ask("subscribe elsewhere") == "subscribed"
        old = worker_of(quiet, [])
        assert busy.ask(f"wait {file}") == "waiting"
        with instance.launch("reload") as command:
            # It is subscribed, so it moves when messages of the new worker come to the old one.
            processes.until(lambda: worker_of(quiet, []) != old, 60, "the quiet one to move")
            with Raw(address).open() as new:
                assert new.ask("subscribe room") == "subscribed"
                assert new.ask("publish early") == "early"
                file.touch()
                heard: list[str] = []
                processes.until(lambda: worker_of(busy, heard) != old, 60, "the busy one to move")
                assert new.ask("publish late") == "late"
                assert worker_of(busy, heard) == worker_of(new, [])
                assert heard == ["late"]
            assert command.wait(60) == 0
