"""``wssup connections``, ``wssup close`` and ``wssup events`` on real instances."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.harness import processes
from tests.harness.clients import aside, connected
from tests.harness.instance import Instance

Start = Callable[..., Instance]

PATIENCE = 60.0
#: It says who it is: the connection's id, and the worker's slot and generation.
WHO = """\
import wssup

@wssup.resumable
async def app(request):
    ws = await request.accept()
    while True:
        await ws.get_message()
        worker = wssup.current_worker()
        await ws.send_message(f"{ws.id} {worker.slot} {worker.generation}")
"""


async def who(ws: WebSocketConnection) -> tuple[int, int, int]:
    """A connection's id, and the slot and generation of its worker."""
    await ws.send_message("who")
    number, slot, generation = (int(word) for word in str(await ws.get_message()).split())
    return number, slot, generation


@asynccontextmanager
async def one_in_each(instance: Instance) -> AsyncIterator[dict[int, WebSocketConnection]]:
    """A connection in both slots, by slot."""
    found: dict[int, WebSocketConnection] = {}
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            url = await aside(instance.url)
            # Which worker takes a connection is the kernel's choice.
            while len(found) < 2:
                ws = await stack.enter_async_context(connected(url))
                _, slot, _ = await who(ws)
                if slot in found:
                    await ws.aclose()
                else:
                    found[slot] = ws
            await aside(instance.wait, lambda s: s["connections"]["open"] == 2, "two connections")
            yield found


async def test_a_connection_is_found_and_closed(start: Start) -> None:
    """Both workers' connections are listed, the oldest first, with the ids that the application
    has; also after a reload, in which they move. Closing one by its id ends that one alone, is
    logged and counted. A worker that stands still is named, and nobody waits for it.
    """
    instance = start(WHO, workers=2, stall_after=4, hang_after=60)
    instance.running()
    async with one_in_each(instance) as found:
        ids = {(await who(ws))[0]: slot for slot, ws in found.items()}
        answer = (await aside(instance.ask, "connections"))["result"]
        assert {c["id"]: c["slot"] for c in answer["connections"]} == ids
        ages = [c["age"] for c in answer["connections"]]
        assert ages == sorted(ages, reverse=True)
        assert answer["unanswered"] == []
        done = await aside(instance.run, "reload")
        assert done.returncode == 0, done.stderr
        answer = (await aside(instance.ask, "connections", slot=1))["result"]
        assert [ids[c["id"]] for c in answer["connections"]] == [1]
        assert [c["generation"] for c in answer["connections"]] == [2]
        (number,) = (number for number, slot in ids.items() if slot == 1)
        assert (await who(found[1]))[0] == number
        done = await aside(instance.run, "close", str(number), "7", "--code", "4321")
        assert (done.returncode, done.stdout) == (1, f"closing {number} (slot 1)\n")
        assert done.stderr == "wssup: there is no connection 7\n"
        with pytest.raises(ConnectionClosed) as closed:
            await found[1].get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 4321
        assert closed.value.reason.reason == "closed by the operator"
        assert (await who(found[0]))[1] == 0
        status = await aside(
            instance.wait,
            lambda s: s["connections"]["closed_by_reason"]["operator"] == 1,
            "the close to be counted",
        )
        assert status["connections"]["closed_by_code"]["server"]["4xxx"] == 1
        commands = await aside(instance.events, "command")
        assert [(c["name"], c["uid"]) for c in commands] == [
            ("reload", os.geteuid()),
            ("close", os.geteuid()),
        ]
        (logged,) = await aside(instance.events, "connections_closed")
        assert (logged["connections"], logged["count"], logged["code"]) == ([number], 1, 4321)

        stopped = (await aside(instance.workers))[1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            await aside(
                instance.wait,
                lambda s: any(w["stalled"] for x in s["slots"] for w in x["workers"]),
                "the stall",
            )
            done = await aside(instance.run, "connections")
            assert done.returncode == 1
            assert done.stderr == (
                f"wssup: the worker of slot 1 (pid {stopped}) did not answer; "
                "its connections are missing\n"
            )
            assert str((await who(found[0]))[0]) in done.stdout
        finally:
            os.kill(stopped, signal.SIGCONT)


async def test_closing_while_connections_move(start: Start) -> None:
    """Each id is found wherever its connection is, also while a reload moves it from one worker to
    another; each is closed once, and nobody else.
    """
    instance = start(WHO, workers=2)
    instance.running()
    url = await aside(instance.url)
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            found = {}
            for _ in range(60):
                ws = await stack.enter_async_context(connected(url))
                found[(await who(ws))[0]] = ws
            reload = await aside(instance.launch, "reload")
            left = list(found)
            while reload.poll() is None or len(left) > 20:
                batch = [left.pop() for _ in range(min(2, len(left) - 10))]
                if batch:
                    answer = (await aside(instance.ask, "close", ids=batch))["result"]
                    assert sorted(c["id"] for c in answer["closing"]) == sorted(batch), answer
                else:
                    await trio.sleep(0.02)
            assert await aside(reload.wait) == 0
            for number, ws in found.items():
                if number in left:
                    assert (await who(ws))[::2] == (number, 2)
                else:
                    with pytest.raises(ConnectionClosed) as closed:
                        await ws.get_message()
                    assert closed.value.reason is not None
                    assert closed.value.reason.code == 1008
            status = await aside(
                instance.wait,
                lambda s: s["connections"]["closed_by_reason"]["operator"] == 60 - len(left),
                "the closes to be counted",
            )
            assert status["connections"]["active"] == len(left)


def test_what_is_refused(start: Start) -> None:
    """Arguments that are unknown, of another kind or out of bounds are refused with a code."""
    instance = start(workers=1)
    instance.running()
    refused: list[tuple[str, dict[str, object]]] = [
        ("connections", {"order": "tallest"}),
        ("connections", {"order": 5}),
        ("connections", {"limit": 0}),
        ("connections", {"limit": 201}),
        ("connections", {"limit": "20"}),
        ("connections", {"slot": None}),
        ("connections", {"slot": 99}),
        ("connections", {"what": 1}),
        ("close", {}),
        ("close", {"ids": []}),
        ("close", {"ids": [True]}),
        ("close", {"ids": [1.5]}),
        ("close", {"ids": [-1]}),
        ("close", {"ids": [1 << 53]}),
        ("close", {"ids": list(range(201))}),
        ("close", {"ids": 5}),
        ("close", {"ids": [5], "code": 999}),
        ("close", {"ids": [5], "code": 1006}),
        ("close", {"ids": [5], "code": 70000}),
        ("close", {"ids": [5], "reason": "x" * 124}),
        ("close", {"ids": [5], "reason": None}),
        ("events", {"past": 101}),
        ("events", {"past": -1}),
        ("events", {"follow": 1}),
        ("events", {"level": "info"}),
    ]
    for command, arguments in refused:
        answer = instance.ask(command, **arguments)
        assert answer.get("error", {}).get("code") == "bad_argument", (command, arguments, answer)
    assert instance.ask("close", ids=[5])["result"]["missing"] == [5]


def following(instance: Instance, **arguments: object) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect(str(instance.runtime_dir / instance.name / "control.sock"))
    client.sendall(json.dumps({"v": 1, "command": "events"} | arguments).encode() + b"\n")
    return client


def first_line(client: socket.socket) -> dict[str, Any]:
    with client.makefile("rb") as lines:
        found: dict[str, Any] = json.loads(lines.readline())
    return found


def test_following(start: Start) -> None:
    """What happens is told as it happens, to the end of the instance, whatever the log's level: a
    worker's death, a reload. It begins with what has happened last; numbers leave out none.
    """
    instance = start(workers=2, log_level="error")
    instance.running()
    command = instance.launch("events", "--json", "--past", "3")
    assert command.stdout is not None
    lines = (json.loads(line) for line in command.stdout if line.startswith("{"))
    seen: list[dict[str, Any]] = [next(lines) for _ in range(3)]
    assert seen[-1]["event"] == "running"
    victim = instance.workers()[1]
    os.kill(victim, signal.SIGKILL)
    while seen[-1]["event"] != "worker_ready":
        seen.append(next(lines))
    assert instance.run("reload").returncode == 0
    while seen[-1]["event"] != "reload_done":
        seen.append(next(lines))
    assert instance.run("stop").returncode == 0
    seen += list(lines)
    assert command.wait(PATIENCE) == 0
    (lost,) = (e for e in seen if e["event"] == "worker_lost")
    assert (lost["pid"], lost["slot"], lost["level"]) == (victim, 1, "error")
    names = [e["event"] for e in seen]
    assert names.index("worker_lost") < names.index("reload_started") < names.index("stopping")
    numbers = [e["seq"] for e in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_how_many_may_follow(start: Start) -> None:
    """Eight may follow at a time, so that commands always find a place; who goes makes room for
    another, and one that does not read costs the others nothing.
    """
    instance = start(workers=1)
    instance.running()
    clients = [following(instance, past=1) for _ in range(8)]
    try:
        assert {first_line(client)["event"] for client in clients} == {"running"}
        answer = instance.ask("events", past=1)
        assert answer["error"]["code"] == "busy"
        assert instance.ask("status")["result"]["state"] == "running"
        clients.pop().close()
        more: list[dict[str, Any]] = []

        def again() -> bool:
            with following(instance, past=1) as client:
                more[:] = [first_line(client)]
            return "error" not in more[0]

        processes.until(again, PATIENCE, "a place for another")
        assert more[0]["event"] == "running"
    finally:
        for client in clients:
            client.close()
    assert instance.run("stop").returncode == 0
