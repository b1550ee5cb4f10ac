"""The examples do what README's first screen says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.harness import processes
from tests.harness.clients import aside, ask
from tests.harness.instance import Instance
from tests.harness.ports import free_port

ANYWHERE = ["--bind", "127.0.0.1:0", "--workers", "2"]


async def test_page_shows_worker_and_generation(tmp_path: Path) -> None:
    """The page is served, its WebSockets say who serves them, and the terminal what to do next."""
    port = free_port()
    runtime = ["--runtime-dir", str(tmp_path / "run")]
    wssup = [sys.executable, "-m", "wssup"]
    environ = {"PAGE_PORT": str(port), "PATH": "/usr/bin:/bin"}
    with (tmp_path / "log").open("wb") as log:
        serve = subprocess.Popen(
            [
                *wssup,
                "serve",
                "wssup.examples.page:app",
                *ANYWHERE,
                # A worker that a busy machine puts aside for a while is no stall, which would end
                # the reload.
                *("--stall-after", "20s", "--settle", "1s"),
                "--log-format",
                "pretty",
                *runtime,
            ],
            cwd=tmp_path,
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        said = tmp_path / "log"
        processes.until(lambda: "Ctrl-C" in said.read_text(), 60, "the banner")
        text = said.read_text()
        for word in ("limits", "capacity", "connect", "status", "reload", "scale 3", f":{port}/"):
            assert word in text, word
        url = next(x for x in text.splitlines() if x.lstrip().startswith("connect")).split()[1]
        async with open_websocket_url(url) as ws:
            hello = json.loads(await ws.get_message())
            assert hello["generation"] == 1
            assert hello["slot"] in (0, 1)
            assert hello["resumed"] is False
            await ws.send_message("count on")
            assert [await ws.get_message(), await ws.get_message()] == ["1", "2"]
            # A reload: the same connection, in another worker, and its count goes on.
            reload = [*wssup, "reload", "--no-wait", *runtime]
            subprocess.run(reload, env=environ, check=True, stdout=subprocess.DEVNULL)
            counted = 2
            with trio.fail_after(60):
                while not (message := await ws.get_message()).startswith("{"):
                    counted += 1
                    assert int(message) == counted
            hello = json.loads(message)
            assert (hello["generation"], hello["resumed"]) == (2, True)
            assert await ws.get_message() == str(counted + 1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            page = answer.read().decode()
        assert "<title>wssup" in page
        assert "generation" in page
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/other", timeout=10)
    finally:
        subprocess.run([*wssup, "stop", "--fast", *runtime], env=environ, check=False)
        serve.kill()
        serve.wait(10)


@contextmanager
def example(home: Path, name: str, workers: int) -> Iterator[str]:
    """An example that runs; its address."""
    runtime = ["--runtime-dir", str(home / "run")]
    wssup = [sys.executable, "-m", "wssup"]
    options = ["--bind", "127.0.0.1:0", "--workers", str(workers), "--log-format", "json"]
    serve = subprocess.Popen(
        [*wssup, "serve", f"wssup.examples.{name}:app", *options, *runtime],
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert serve.stderr is not None
    try:
        deadline = time.monotonic() + 60
        for line in serve.stderr:
            entry = json.loads(line)
            if entry["event"] == "starting":
                bind = entry["bind"][0]
            if entry["event"] == "running":
                break
            assert time.monotonic() < deadline
        yield f"ws://{bind}/"
    finally:
        subprocess.run([*wssup, "stop", "--fast", *runtime], check=False)
        serve.stderr.close()
        serve.kill()
        serve.wait(10)


async def test_echo(tmp_path: Path) -> None:
    """The smallest application runs as its docstring says."""
    with example(tmp_path, "echo", 2) as url:
        assert await ask(url, "there and back") == "there and back"


async def test_room(tmp_path: Path) -> None:
    """Who is in the room hears who comes, what is said, and who leaves."""
    with example(tmp_path, "room", 1) as url, trio.fail_after(30):
        async with open_websocket_url(url) as one:
            me = (await one.get_message()).split()[0]
            async with open_websocket_url(url) as two:
                other = (await one.get_message()).split()[0]
                assert await two.get_message() == f"{other} is here, 2 in the room"
                await two.send_message("hello")
                for person in (one, two):
                    assert await person.get_message() == f"{other}: hello"
                assert me != other
            assert await one.get_message() == f"{other} has left (1000)"


async def test_rooms_of_starlette(start: Callable[..., Instance]) -> None:
    """The page counts who is in the rooms, and the rooms hear each other, through a reload."""
    served = start(app="wssup.examples.starlette_rooms:app", asgi_resumable=True)
    served.running()
    address = served.address()

    def counted() -> dict[str, int]:
        with urllib.request.urlopen(f"http://{address}/rooms", timeout=10) as answer:
            found: dict[str, int] = json.load(answer)
        return found

    async with (
        open_websocket_url(f"ws://{address}/rooms/lobby") as ada,
        open_websocket_url(f"ws://{address}/rooms/lobby") as ben,
    ):
        await aside(processes.until, lambda: counted()["lobby"] == 2, 20, "both to be in")
        await ada.send_message("hello")
        with trio.fail_after(20):
            assert str(await ben.get_message()).endswith(" (1): hello")
        assert (await aside(served.run, "reload")).returncode == 0
        await ada.send_message("again")
        with trio.fail_after(20):
            assert str(await ben.get_message()).endswith(" (2): again")
        # How many there are elsewhere is heard a little later than what they say.
        await aside(processes.until, lambda: counted()["lobby"] == 2, 20, "both to be counted")
