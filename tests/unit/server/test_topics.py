"""Topics in one worker: subscribing, publishing, what each subscriber gets, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

import wssup
from tests.harness.served import Served, code_of, served
from wssup.config.topics import Topics
from wssup.server.connection import Connection


class Commands:
    """Does what a client says: a JSON list of a method's name and its arguments."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []

    def on_connect(self, ws: Connection) -> None:
        self.connections.append(ws)

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        name, *arguments = json.loads(data)
        try:
            found = getattr(self, name)(ws, *arguments)
        except Exception as error:  # noqa: BLE001 - told to the client, which is the test
            found = f"{type(error).__name__}: {error}"
        ws.send_nowait(json.dumps({name: found}))

    def subscribe(self, ws: Connection, topic: Any, options: dict[str, Any] | None = None) -> Any:
        found = ws.subscribe(topic, **(options or {}))
        return [found.topic, found.position, found.recovered, found.missed]

    def unsubscribe(self, ws: Connection, topic: str) -> bool:
        return ws.unsubscribe(topic)

    def topics(self, ws: Connection) -> tuple[str, ...]:
        return ws.topics

    def publish(self, _: Connection, topic: str, data: Any) -> None:
        wssup.publish(topic, bytes(data) if isinstance(data, list) else data)

    def whisper(self, ws: Connection, topic: str, data: str) -> None:
        wssup.publish(topic, data, exclude=ws)

    def count(self, _: Connection, topic: str) -> int:
        return wssup.subscribers(topic)

    def position(self, _: Connection, topic: str) -> str:
        return wssup.position(topic)

    def from_thread(self, _: Connection, topic: str, data: str) -> None:
        thread = threading.Thread(target=wssup.publish, args=(topic, data))
        thread.start()
        thread.join()


async def ask(ws: WebSocketConnection, name: str, *arguments: object) -> Any:
    """Have a command done; its answer, behind whatever came before it."""
    await ws.send_message(json.dumps([name, *arguments]))
    while True:
        found = await ws.get_message()
        if isinstance(found, str) and found.startswith(f'{{"{name}"'):
            return json.loads(found)[name]


async def subscriber(server: Served, *topics: str, **options: Any) -> WebSocketConnection:
    ws = await server.connect()
    for topic in topics:
        assert (await ask(ws, "subscribe", topic, options))[0] == topic
    return ws


async def test_every_subscriber_gets_a_message_once(tmp_path: Path) -> None:
    """Text comes as text, bytes as bytes, in the order of publishing; to the subscribers of that
    topic, the publisher among them, and to nobody else.
    """
    async with served(tmp_path, Commands()) as server:
        first = await subscriber(server, "a", "b")
        second = await subscriber(server, "a")
        other = await subscriber(server, "b")
        publisher = await subscriber(server, "a")
        await publisher.send_message(json.dumps(["publish", "a", "über"]))
        await publisher.send_message(json.dumps(["publish", "a", [0, 1, 255]]))
        for ws in (first, second):
            assert await ws.get_message() == "über"
            assert await ws.get_message() == b"\0\1\xff"
        assert await publisher.get_message() == "über"
        assert await ask(other, "topics") == ["b"]
        assert await ask(first, "topics") == ["a", "b"]
        counts = await server.until(lambda c: c.topics.delivered == 6)
        assert counts.topics.published == 2
        view = server.board.read(server.row)
        assert view is not None
        assert (view.subscriptions, view.topics) == (5, 2)


async def test_the_excluded_one(tmp_path: Path) -> None:
    """A message with ``exclude`` goes to all but that connection."""
    async with served(tmp_path, Commands()) as server:
        one, two = await subscriber(server, "a"), await subscriber(server, "a")
        await one.send_message(json.dumps(["whisper", "a", "psst"]))
        assert await two.get_message() == "psst"
        assert await one.get_message() == '{"whisper": null}'
        await two.send_message(json.dumps(["publish", "a", "loud"]))
        assert await one.get_message() == "loud"


async def test_a_thread_s_message_is_not_overtaken(tmp_path: Path) -> None:
    """What a thread has published comes before what the loop publishes when that has returned."""

    class App(Commands):
        def both(self, _: Connection) -> None:
            for number in range(500):
                thread = threading.Thread(target=wssup.publish, args=("a", f"{number}"))
                thread.start()
                thread.join()
            wssup.publish("a", "done")

    async with served(tmp_path, App()) as server:
        one, two = await subscriber(server, "a"), await subscriber(server)
        await two.send_message('["both"]')
        expected = [*map(str, range(500)), "done"]
        assert [await one.get_message() for _ in expected] == expected


async def test_the_end_of_a_subscription(tmp_path: Path) -> None:
    """Whoever unsubscribes, closes or breaks gets nothing more, and is counted no more."""
    async with served(tmp_path, Commands()) as server:
        one, two, three = [await subscriber(server, "a") for _ in range(3)]
        assert await ask(one, "count", "a") == 3
        assert await ask(one, "unsubscribe", "a") is True
        assert await ask(one, "unsubscribe", "a") is False
        await two.aclose()
        await three._stream.aclose()
        await server.until(lambda c: c.active == 1)
        assert await ask(one, "count", "a") == 0
        await one.send_message(json.dumps(["publish", "a", "is anybody there?"]))
        assert await one.get_message() == '{"publish": null}'
        assert server.counts.topics.delivered == 0
        view = server.board.read(server.row)
        assert view is not None
        assert (view.subscriptions, view.topics) == (0, 0)


async def test_subscribing_again(tmp_path: Path) -> None:
    """It replaces what was said before: one subscription, with the new options."""
    async with served(tmp_path, Commands()) as server:
        ws = await subscriber(server, "a")
        assert (await ask(ws, "subscribe", "a", {"positions": True}))[0] == "a"
        assert await ask(ws, "count", "a") == 1
        assert await ask(ws, "topics") == ["a"]
        await ws.send_message(json.dumps(["publish", "a", "hello"]))
        assert json.loads(await ws.get_message()) == {"topic": "a", "position": "", "data": "hello"}


async def test_a_thread_publishes(tmp_path: Path) -> None:
    """A message from another thread reaches the subscribers, and problems its caller."""
    async with served(tmp_path, Commands()) as server:
        ws = await subscriber(server, "a")
        await ws.send_message(json.dumps(["from_thread", "a", "from afar"]))
        assert {await ws.get_message(), await ws.get_message()} == {
            "from afar",
            '{"from_thread": null}',
        }


@pytest.mark.parametrize(
    ("topic", "problem"),
    [
        ("", "ValueError: a topic's name is empty"),
        ("a\nb", "ValueError: a topic's name contains control characters"),
        ("ü" * 128, "ValueError: a topic's name has 256 bytes, more than 255"),
        (5, "TypeError: a topic is a str, not int"),
    ],
)
async def test_names_that_are_none(tmp_path: Path, topic: object, problem: str) -> None:
    """They are refused with words for it, by both sides, and the connection lives on."""
    async with served(tmp_path, Commands()) as server:
        ws = await subscriber(server, "a")
        assert (await ask(ws, "subscribe", topic)).startswith(problem)
        if topic != 5:
            assert (await ask(ws, "publish", topic, "x")).startswith(problem)
        assert await ask(ws, "topics") == ["a"]


async def test_messages_that_are_none(tmp_path: Path) -> None:
    """What is neither text nor bytes, cannot be encoded, or is larger than clients may send, is
    refused with words for it.
    """
    async with served(tmp_path, Commands(), message_bytes=1000) as server:
        ws = await subscriber(server, "a")
        assert await ask(ws, "publish", "a", 5) == "TypeError: a message is str or bytes, not int"
        wssup.publish("a", b"x" * 1000)
        assert await ws.get_message() == b"x" * 1000
        with pytest.raises(ValueError, match="1001 bytes; 1000 are the most"):
            wssup.publish("a", b"x" * 1001)
        with pytest.raises(UnicodeEncodeError):
            wssup.publish("a", "\ud800")


async def test_limits(tmp_path: Path) -> None:
    """A connection and a worker have a bound of topics; an error says which it was, and a topic
    that is given up makes room.
    """
    topics = Topics(per_connection=3, per_worker=4)
    async with served(tmp_path, Commands(), topics=topics) as server:
        one = await subscriber(server, "a", "b", "c")
        said = await ask(one, "subscribe", "d")
        assert said.startswith("SubscriptionLimitError: connection ")
        assert said.endswith(" has 3 topics, all that topics.per_connection allows")
        assert (await ask(one, "subscribe", "a"))[0] == "a"
        two = await subscriber(server, "a", "d")
        assert await ask(two, "subscribe", "e") == (
            "SubscriptionLimitError: this worker has 4 topics, all that topics.per_worker allows"
        )
        assert await ask(two, "unsubscribe", "d") is True
        assert (await ask(two, "subscribe", "e"))[0] == "e"


async def test_history(tmp_path: Path) -> None:
    """Who comes back with a position gets what it has missed, once and in order, before what comes
    later; who comes too late is told so.
    """
    async with served(tmp_path, Commands(), topics=Topics(history=3)) as server:
        ws = await subscriber(server, "a", positions=True)
        for number in range(5):
            wssup.publish("a", str(number))
        found = [json.loads(await ws.get_message()) for _ in range(5)]
        assert [each["data"] for each in found] == ["0", "1", "2", "3", "4"]
        positions = [each["position"] for each in found]
        again = await server.connect()
        for seen in (4, 3, 2, 1):
            answer = await replayed(again, since=positions[seen], positions=True)
            assert answer == ([str(n) for n in range(seen + 1, 5)], True)
        assert await replayed(again, since=positions[0]) == (["2", "3", "4"], False)
        assert await replayed(again, since="") == (["2", "3", "4"], False)
        assert await replayed(again, since="nonsense") == ([], False)
        assert await replayed(again, since=await ask(again, "position", "a")) == ([], True)
        counts = await server.until(lambda c: c.topics.not_recovered == 3)
        assert counts.topics.recovered == 5


async def replayed(ws: WebSocketConnection, **options: Any) -> tuple[list[str], bool]:
    """Subscribe again; what came before the answer, and whether that was everything."""
    await ws.send_message(json.dumps(["subscribe", "a", options]))
    found: list[str] = []
    while True:
        said = json.loads(await ws.get_message())
        if isinstance(said, dict) and "subscribe" in said:
            _, _, recovered, missed = said["subscribe"]
            assert missed == len(found)
            return found, recovered
        found.append(said["data"] if isinstance(said, dict) else str(said))


async def test_a_topic_without_history(tmp_path: Path) -> None:
    """Nobody can go on where he was, and is told so."""
    async with served(tmp_path, Commands()) as server:
        ws = await subscriber(server, "a")
        assert await ask(ws, "position", "a") == ""
        assert await ask(ws, "subscribe", "a", {"since": "x"}) == ["a", "", False, 0]


async def test_positions_of_binary_messages(tmp_path: Path) -> None:
    """They come as base64 in JSON."""
    async with served(tmp_path, Commands(), topics=Topics(history=3)) as server:
        ws = await subscriber(server, "a", positions=True)
        wssup.publish("a", b"\0\xff")
        found = json.loads(await ws.get_message())
        assert found["base64"] == "AP8="
        assert found["position"] == wssup.position("a")


async def test_a_subscriber_that_does_not_read(tmp_path: Path) -> None:
    """With ``wait`` it loses what its queue has no room for, which is counted; everybody else gets
    everything.
    """
    limits = {"outbound_bytes": 64 << 10}
    async with served(tmp_path, Commands(), **limits) as server:
        good, bad = await subscriber(server, "a"), await subscriber(server, "a")
        message = "x" * 60_000
        # The kernel holds some megabytes for a socket.
        for _ in range(200):
            wssup.publish("a", message)
            assert await good.get_message() == message
            if server.counts.topics.dropped > 5:
                break
        assert server.counts.topics.dropped > 5
        assert await ask(good, "count", "a") == 2
        await bad._stream.aclose()


async def test_a_slow_subscriber_is_closed(tmp_path: Path) -> None:
    """With ``close`` it is closed with 1013, while everybody else gets everything."""
    async with served(tmp_path, Commands(), outbound_bytes=64 << 10, slow_client="close") as server:
        good, bad = await subscriber(server, "a"), await subscriber(server, "a")
        message = "x" * 60_000
        for _ in range(400):
            wssup.publish("a", message)
            assert await good.get_message() == message
            if wssup.subscribers("a") == 1:
                break
        assert wssup.subscribers("a") == 1
        with trio.move_on_after(5):
            assert (await code_of(bad))[0] in {1006, 1013}


async def test_subscribing_to_nothing(tmp_path: Path) -> None:
    """A connection that is closed can subscribe no more."""
    app = Commands()
    async with served(tmp_path, app) as server:
        ws = await subscriber(server, "a")
        await ws.aclose()
        await server.until(lambda c: not c.open)
        with pytest.raises(ConnectionClosed):
            app.connections[0].subscribe("a")
        assert app.connections[0].unsubscribe("a") is False
        assert app.connections[0].topics == ()


async def test_who_is_there(tmp_path: Path) -> None:
    """Presence counts, and lists names: what subscribers gave, or their connections' numbers."""
    app = Commands()
    async with served(tmp_path, app) as server:
        await subscriber(server, "a", member="ann")
        await subscriber(server, "a")
        assert await wssup.presence("a") == wssup.Presence(2)
        found = await wssup.presence("a", ids=True)
        assert found.count == 2
        assert set(found.ids) == {"ann", str(app.connections[1].id)}
        assert found.complete
        few = await wssup.presence("a", ids=True, limit=1)
        assert (len(few.ids), few.count, few.complete) == (1, 2, False)
        assert await wssup.presence("b", ids=True) == wssup.Presence(0)


def test_without_a_worker() -> None:
    """Outside of a worker an error says so."""
    code = "import wssup; wssup.publish('a', 'b')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RuntimeError: topics are there in a worker of wssup only" in done.stderr
