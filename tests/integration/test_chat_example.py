"""The example of a chat: its rooms are one on all workers, and what happens to workers is not seen
in them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.harness.clients import aside, connected
from tests.harness.instance import Instance
from tests.harness.ports import free_port

Start = Callable[..., Instance]

#: Seconds for what is a matter of milliseconds.
_PATIENCE = 20.0


@dataclass
class Guest:
    """Somebody with the page open.

    :ivar said: texts that were heard in the room, in their order.
    :ivar position: of the last one.
    :ivar told: everything else.
    """

    ws: WebSocketConnection
    worker: dict[str, Any]
    said: list[str] = field(default_factory=list)
    position: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)

    async def send(self, **what: object) -> None:
        """Send what a page would."""
        await self.ws.send_message(json.dumps(what))

    async def say(self, *texts: str) -> None:
        """Say something."""
        for text in texts:
            await self.send(type="say", text=text, id=f"{id(self)}.{text}"[:40])

    async def join(self, name: str, room: str = "lobby", **more: object) -> dict[str, Any]:
        """Come into a room; the answer."""
        await self.send(type="join", room=room, name=name, **more)
        answer = await self.until("joined")
        self.position = answer["position"]
        return answer

    async def until(self, kind: str, fact: Callable[[dict[str, Any]], object] = bool) -> Any:
        """The next message of this type of which this is true."""
        with trio.fail_after(_PATIENCE):
            while True:
                found = await self._next()
                if found.get("type") == kind and fact(found):
                    return found

    async def hears(self, *texts: str) -> None:
        """Hear until exactly this was said in the room, since it was come into."""
        with trio.fail_after(_PATIENCE):
            while len(self.said) < len(texts):
                await self._next()
        assert self.said == list(texts)

    async def who(self, *names: str) -> None:
        """Ask until these are in the room."""
        with trio.fail_after(_PATIENCE):
            found: dict[str, Any] = {}
            while found.get("names") != sorted(names):
                await self.send(type="who")
                found = await self.until("people")
                await trio.sleep(0.02)
        assert found["count"] == len(names)
        assert found["complete"]

    async def _next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.ws.get_message())
        if "topic" in found:
            self.said.append(json.loads(found["data"])["text"])
            self.position = found["position"]
        else:
            self.told.append(found)
        return found


@asynccontextmanager
async def guest(url: str) -> AsyncIterator[Guest]:
    """A connection, on some worker."""
    async with connected(url) as ws:
        with trio.fail_after(_PATIENCE):
            worker = json.loads(await ws.get_message())
        yield Guest(ws, worker)


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Guest, Guest]]:
    """Two connections on two workers."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(guest(url))
        for _ in range(50):
            other = await stack.enter_async_context(guest(url))
            if other.worker["slot"] != one.worker["slot"]:
                break
        assert other.worker["slot"] != one.worker["slot"]
        yield one, other


@pytest.fixture
def chat(start: Start, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """The example, with two workers and a history."""
    monkeypatch.setenv("PAGE_PORT", str(free_port()))
    instance = start(app="wssup.examples.chat:app", topics={"history": 100})
    instance.running()
    return instance


async def test_rooms_are_one_on_all_workers(chat: Instance) -> None:
    """Whoever is in a room hears what is said in it, and nothing else, on whichever worker; who is
    in it is told alike, and when somebody comes or goes.
    """
    url = chat.url()
    async with two(url) as (ada, ben), guest(url) as cy:
        assert (await ada.join("Ada"))["room"] == "lobby"
        await ben.join("  Ben\u202e \n")
        assert (await ada.until("came"))["name"] == "Ben"
        await cy.join("Cy", "tea")
        await ada.who("Ada", "Ben")
        await ben.who("Ada", "Ben")
        await cy.who("Cy")
        await ada.say("one", "<b>two</b>")
        await ben.hears("one", "<b>two</b>")
        await ben.say("three")
        await ada.hears("one", "<b>two</b>", "three")
        # From one room into another: what is said in the first is not heard any more.
        await ben.join("Ben", "tea")
        assert (await ada.until("went"))["name"] == "Ben"
        ben.said.clear()
        await ada.say("four")
        await cy.say("five")
        await ben.hears("five")
        await cy.hears("five")
        await ada.who("Ada")
        await cy.who("Ben", "Cy")
        # Whoever comes later is told what was said before; and a name may be there twice.
        await cy.join("Ada", "lobby")
        cy.said.remove("five")
        await cy.hears("one", "<b>two</b>", "three", "four")
        await ben.who("Ben")
        await cy.who("Ada", "Ada")
        await cy.ws.aclose()
        assert (await ada.until("went"))["name"] == "Ada"
        await ada.who("Ada")


async def test_nothing_is_missed_that_a_reload_or_a_dead_worker_could_hide(chat: Instance) -> None:
    """Over a reload two talk on, and hear each message once; over the death of a worker its clients
    come back, and are told what they have missed, or that it cannot be told.
    """
    url = chat.url()
    async with two(url) as (ada, ben):
        await ada.join("Ada")
        await ben.join("Ben")
        await ada.say("before")
        await ben.hears("before")
        done = await aside(chat.run, "reload")
        assert "disconnected 0" in done.stdout or "0 disconnected" in done.stdout, done
        texts = ["before"]
        for number in range(3):
            for speaker in (ada, ben):
                texts.append(f"{number} {speaker.worker['slot']}")
                await speaker.say(texts[-1])
                await ada.hears(*texts)
                await ben.hears(*texts)
        for one in (ada, ben):
            served = next(x for x in one.told if x["type"] == "served")
            assert (served["generation"], served["resumed"]) == (2, True)
            one.worker = served
        await ada.who("Ada", "Ben")
        # They are on the same worker now, or not; whoever is not on the dead one talks on.
        os.kill(ben.worker["pid"], signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            await ben.until("never")
        position = ben.position
        async with guest(url) as dora, guest(url) as ben_again, guest(url) as odd:
            await dora.join("Dora")
            await dora.hears(*texts)
            await dora.say("x", "y", "z")
            await dora.hears(*texts, "x", "y", "z")
            back = await ben_again.join("Ben", since=position, again=True)
            assert (back["recovered"], back["missed"]) == (True, 3)
            await ben_again.hears("x", "y", "z")
            # A position of another start of the service, and what is none.
            for since in ("1~00000000.1.5", "1~", "nonsense"):
                assert not (await odd.join("Odd", since=since))["recovered"]
            await dora.who("Ben", "Dora", "Odd", *["Ada"] * (ada.worker != ben.worker))


async def test_who_sends_what_makes_no_sense_is_refused(chat: Instance) -> None:
    """Whatever is sent to it, the chat says no, and to who does not stop it closes with 1008; the
    others notice nothing. Its page may run its own script, known by its hash, open WebSockets to
    the host that it came from, and nothing else.
    """
    await aside(look_at_the_page)
    url = chat.url()
    async with guest(url) as ada, guest(url) as eve:
        await ada.join("Ada")
        hostile: list[str | bytes] = [
            "",
            b'{"type": "who"}',
            "[" * 10000,
            '{"type": "say", "text": "not in a room", "id": "1"}',
            '{"type": "join", "room": "", "name": "Eve"}',
            '{"type": "join", "room": "a\\u0000b", "name": "Eve"}',
            '{"type": "join", "room": "lobby", "name": "\\u202e"}',
            '{"type": "join", "room": "lobby", "name": "\\ud83d"}',
            json.dumps({"type": "join", "room": "x" * 300, "name": "Eve"}),
            json.dumps({"type": "join", "room": "lobby", "name": "Eve", "since": "1" * 5000}),
        ]
        for each in hostile:
            await eve.ws.send_message(each)
            assert (await eve.until("refused"))["why"]
        await eve.join("Eve")
        await eve.send(type="say", text="x" * 2001, id="2")
        assert "2000" in (await eve.until("refused"))["why"]
        for _ in range(100):
            await eve.say("flood")
        refused = await eve.until("refused", lambda m: m["id"])
        assert "too much" in refused["why"]
        with pytest.raises(ConnectionClosed) as closed:
            await eve.until("never")
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1008
        await ada.until("went")
        assert len(ada.said) < 25
        await ada.say("at last")
        await ada.hears(*ada.said, "at last")


def look_at_the_page() -> None:
    """The page, and what is served with it."""
    found, page = fetch("/?name=Ada")
    assert found.status == 200
    policy = found.getheader("Content-Security-Policy", "")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "connect-src ws://localhost:* wss://localhost:*;" in policy
    assert policy.startswith("default-src 'none';")
    assert "innerHTML" not in page
    assert "http" not in re.sub(r"https:\"|https and", "", page)
    assert fetch("/chat.py")[0].status == 404


def fetch(path: str) -> tuple[HTTPResponse, str]:
    """What is served beside the WebSockets."""
    client = HTTPConnection("localhost", int(os.environ["PAGE_PORT"]), timeout=10)
    client.request("GET", path)
    answer = client.getresponse()
    text = answer.read().decode()
    client.close()
    return answer, text
