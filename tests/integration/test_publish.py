"""``wssup publish`` and what status shows of topics, with real workers and clients."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
from trio_websocket import WebSocketConnection

from tests.harness import processes
from tests.harness.clients import aside, connected
from tests.harness.instance import Instance

Start = Callable[..., Instance]

PATIENCE = 90.0
#: The first message names a topic to subscribe to; what follows is published there.
TOPICS = """\
import os
import wssup

RESUMABLE = True

async def app(request):
    ws = await request.accept()
    topic = await ws.get_message()
    ws.subscribe(topic)
    await ws.send_message(f"subscribed {wssup.current_worker().slot}")
    while True:
        wssup.publish(topic, await ws.get_message())
"""


@asynccontextmanager
async def subscribed(
    instance: Instance, topic: str, slots: int
) -> AsyncIterator[dict[int, WebSocketConnection]]:
    """A subscriber in each of the first slots."""
    found: dict[int, WebSocketConnection] = {}
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            url = await aside(instance.url)
            # Which worker takes a connection is the kernel's choice.
            while len(found) < slots:
                ws = await stack.enter_async_context(connected(url))
                await ws.send_message(topic)
                slot = int(str(await ws.get_message()).split()[1])
                if slot in found:
                    await ws.aclose()
                else:
                    found[slot] = ws
            yield found


async def subscribers(instance: Instance, count: int) -> dict[str, Any]:
    """Wait until the status shows so many subscriptions."""
    return await aside(
        instance.wait, lambda s: s["topics"]["subscriptions"] == count, f"{count} subscriptions"
    )


async def published(instance: Instance, count: int, topic: str = "news") -> None:
    """Publish until so many subscribers are known to the worker that publishes: counts of other
    workers come a moment later.
    """

    def all_heard() -> bool:
        answer = instance.ask("publish", topic=topic, data="probe")
        return bool(answer["result"]["subscribers"] == count)

    await aside(processes.until, all_heard, 30, f"{count} subscribers of {topic}")


async def heard(ws: WebSocketConnection) -> str | bytes:
    """The next message that is no probe."""
    while (message := await ws.get_message()) == "probe":
        pass
    return message


async def test_subscribers_in_all_workers_get_it(start: Start) -> None:
    """What the command publishes reaches the subscribers in every worker, as text or as bytes, and
    once; the command says how many there are. Others get nothing.
    """
    instance = start(TOPICS, workers=3)
    instance.running()
    async with subscribed(instance, "news", 3) as found, subscribed(instance, "other", 1) as other:
        await subscribers(instance, 4)
        await published(instance, 3)
        done = await aside(instance.run, "publish", "news", "Maintenance at noon ☕")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "published to news: 3 subscribers\n"
        content = bytes(range(256)) * 256
        answer = await aside(
            instance.ask, "publish", topic="news", base64=base64.b64encode(content).decode()
        )
        assert answer["result"] == {"subscribers": 3}
        answer = await aside(instance.ask, "publish", topic="news", data="\0" * 65536)
        assert answer["result"] == {"subscribers": 3}
        for ws in found.values():
            assert await heard(ws) == "Maintenance at noon ☕"
            assert await heard(ws) == content
            assert await heard(ws) == "\0" * 65536
        (bystander,) = other.values()
        await bystander.send_message("of my own")
        assert await bystander.get_message() == "of my own"


async def test_the_status_tells_of_topics(start: Start) -> None:
    """The document counts subscriptions and messages; the page has a line about them."""
    instance = start(TOPICS, workers=2)
    before = instance.running()
    assert before["topics"]["bridge"] is None
    assert "topics " not in instance.run("status").stdout
    async with subscribed(instance, "news", 2) as found:
        await subscribers(instance, 2)
        await published(instance, 2)
        await found[0].send_message("from a client")
        for ws in found.values():
            assert await heard(ws) == "from a client"
        status = await aside(
            instance.wait,
            lambda s: s["topics"]["delivered"] >= 4 and s["topics"]["bus"]["sent"] >= 2,
            "what was delivered",
        )
        topics = status["topics"]
        assert topics["published"] >= 2
        assert topics["bus"]["received"] >= 1
        assert topics["bus"]["bytes"] > 0
        assert (topics["dropped"], topics["bus"]["lost"], topics["bus"]["missed"]) == (0, 0, 0)
        workers = [w for slot in status["slots"] for w in slot["workers"]]
        assert [(w["subscriptions"], w["topics"]) for w in workers] == [(1, 1), (1, 1)]
        assert "topics  2 subscriptions; " in (await aside(instance.run, "status")).stdout


def test_what_is_refused(start: Start) -> None:
    """A bad topic, a message that is too long or cannot be read, and arguments that are unknown or
    missing are refused with a code, and nothing is published.
    """
    instance = start(TOPICS, workers=1)
    instance.running()
    refused: list[dict[str, object]] = [
        {},
        {"topic": "news"},
        {"topic": 5, "data": "x"},
        {"topic": "news", "data": 5},
        {"topic": "news", "data": "x", "base64": "eA=="},
        {"topic": "news", "data": "x", "to": "all"},
        {"topic": "news", "base64": "eA="},
        {"topic": "news", "base64": "é"},
        {"topic": "", "data": "x"},
        {"topic": "a\nb", "data": "x"},
        {"topic": "x" * 256, "data": "x"},
        {"topic": "news", "data": "x" * 65537},
        {"topic": "news", "data": "ü" * 32769},
    ]
    for arguments in refused:
        answer = instance.ask("publish", **arguments)
        assert answer["error"]["code"] == "bad_argument", (arguments, answer)
    assert instance.status()["topics"]["published"] == 0
    assert instance.ask("publish", topic="news", data="")["result"] == {"subscribers": 0}


def test_no_worker_is_ready(start: Start) -> None:
    """While there is no worker that could publish, the command says so at once, with status 1."""
    instance = start(TOPICS, workers=1, preload=False, backoff_min=60, backoff_max=60)
    instance.running()
    instance.edit("import os", "import os\nraise RuntimeError('not today')\n")
    os.kill(instance.workers()[0], signal.SIGKILL)
    instance.wait(lambda s: s["slots"][0]["state"] == "backoff", "the worker's death")
    done = instance.run("publish", "news", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no worker is ready" in done.stderr


async def test_a_new_generation_is_linked_to_the_old_one(start: Start) -> None:
    """While a reload is under way, what one generation publishes reaches the other, and each
    subscriber gets each message once.
    """
    instance = start(TOPICS, workers=2, on_reload="wait", drain_timeout=60)
    instance.running()
    old = instance.workers()
    async with subscribed(instance, "news", 2) as found:
        await published(instance, 2)
        # Not resumable: the old workers keep their connections until these end.
        reload = await aside(instance.launch, "reload", "--no-wait")
        await aside(
            instance.wait,
            lambda s: (
                sum(w["state"] == "ready" for x in s["slots"] for w in x["workers"]) == 2
                and sum(len(x["workers"]) for x in s["slots"]) == 4
            ),
            "both generations",
        )
        async with subscribed(instance, "news", 2) as new:
            await published(instance, 4)
            assert (await aside(instance.run, "publish", "news", "for all")).returncode == 0
            await found[0].send_message("from the old")
            await new[1].send_message("from the new")
            for ws in (*found.values(), *new.values()):
                first = await heard(ws)
                rest = {await heard(ws), await heard(ws)}
                assert {first} | rest == {"for all", "from the old", "from the new"}
        for ws in found.values():
            await ws.aclose()
        await aside(reload.wait, 60)
        await aside(
            lambda: [
                processes.until(lambda p=pid: not processes.alive(p), 30, "the old workers' end")
                for pid in old.values()
            ]
        )
        status = await aside(instance.status)
        assert status["topics"]["bus"]["lost"] == 0


async def test_a_worker_that_dies_and_its_successor(start: Start) -> None:
    """A worker that is killed leaves the bus, and the one in its place is on it."""
    instance = start(TOPICS, workers=2)
    instance.running()
    async with subscribed(instance, "news", 2) as found:
        await published(instance, 2)
        victim = instance.workers()[1]
        os.kill(victim, signal.SIGKILL)
        await aside(
            instance.wait,
            lambda s: (
                s["slots"][1]["state"] == "ready" and s["slots"][1]["workers"][0]["pid"] != victim
            ),
            "the new worker",
        )
        await published(instance, 1)
        async with subscribed(instance, "news", 2) as new:
            await published(instance, 3)
            await found[0].send_message("to the new")
            for ws in new.values():
                assert await heard(ws) == "to the new"
