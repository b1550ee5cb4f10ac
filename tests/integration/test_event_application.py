"""An event-style application served by real instances: what it does, what is counted, and that a
reload loses nobody.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.harness import processes
from tests.harness.clients import SERVICE_RESTART, aside, crowd, prober
from tests.harness.instance import Instance
from tests.harness.raw import TEXT, Raw, endings, frame, raw_clients, request

Start = Callable[..., Instance]

#: A room of people per worker, for whom is at /room; an echo for all others. It notes who left.
ROOM = """\
import os
from pathlib import Path

import wssup

MARK = "original"
journal = Path(__file__).with_name("journal")

class Room:
    def __init__(self):
        self.people = set()

    def on_request(self, request):
        if request.path == "/forbidden":
            request.reject_nowait(403, body=b"no")
        elif request.subprotocols:
            request.accept_nowait(subprotocol=request.subprotocols[0])

    def on_connect(self, ws):
        ws.state["said"] = 0
        if ws.path == "/room":
            self.people.add(ws)

    def on_receive(self, ws, data):
        ws.state["said"] += 1
        if data == "who":
            worker = wssup.current_worker()
            ws.send_nowait(f"{worker.slot} {worker.generation} {os.getpid()} {MARK}")
        elif data == "about me":
            names = sorted(name.decode() for name, _ in ws.handshake_headers)
            ws.send_nowait(f"{ws.id} {ws.state['said']} {ws.path} {','.join(names)}")
        elif data == "raise":
            raise ValueError("of its own")
        elif ws in self.people:
            for other in self.people:
                other.send_nowait(data)
        else:
            ws.send_nowait(data)

    async def on_disconnect(self, ws, code):
        self.people.discard(ws)
        for other in self.people:
            other.send_nowait(f"left with {code}")
        with journal.open("a") as file:
            file.write(f"{ws.id} {code}\\n")

app = Room
"""


def goodbyes(instance: Instance, count: int) -> Counter[int]:
    """The codes with which so many connections ended; on_disconnect must come once for each."""
    journal = instance.home / "journal"
    journal.touch()
    processes.until(lambda: journal.read_text().count("\n") >= count, 60, f"{count} goodbyes")
    lines = [line.split() for line in journal.read_text().splitlines()]
    found = {int(number): int(code) for number, code in lines}
    assert len(found) == len(lines) == count
    return Counter(found.values())


def nobody_open(instance: Instance, accepted: int, messages: int = 0) -> dict[str, Any]:
    """Wait until so many have come, have said so much, and have gone; the counts then."""
    status = instance.wait(
        lambda s: (
            s["connections"]["accepted"] == accepted
            and not s["connections"]["open"]
            and s["connections"]["messages_in"] >= messages
        ),
        "the end of the connections",
    )
    counts: dict[str, Any] = status["connections"]
    return counts


def test_a_room(start: Start) -> None:
    """What one says in the room everybody there hears, in order, and nobody else; who leaves is
    announced. The status counts every message, byte and close code.
    """
    instance = start(ROOM, workers=1)
    instance.running()
    address = instance.address()
    with raw_clients(address, 20, "/room") as people, Raw(address) as outside:
        assert outside.open().ask("alone") == "alone"
        for number in range(5):
            people[number].say(f"message {number}")
            for client in people:
                assert client.frame() == (TEXT, b"message %d" % number)
        assert people[0].close(3001).code == 3001
        for client in people[1:]:
            assert client.frame() == (TEXT, b"left with 3001")
        assert outside.ask("still alone") == "still alone"
        for client in (*people[1:], outside):
            client.socket.sendall(frame(8, b"\x0f\xa0"))
        endings([*people[1:], outside])
    counts = nobody_open(instance, 21, messages=7)
    said = 5 * len("message 0") + len("alone") + len("still alone")
    heard = 5 * 20 * len("message 0") + len("alone") + len("still alone")
    assert (counts["messages_in"], counts["bytes_in"]) == (7, said)
    # Those who leave together may hear of each other, or not any more.
    assert counts["messages_out"] >= 5 * 20 + 2 + 19
    assert counts["bytes_out"] >= heard + 19 * len("left with 3001")
    assert counts["closed_by_code"]["server"] == {}
    assert sum(counts["closed_by_code"]["client"].values()) == 21
    assert counts["closed_by_reason"]["client"] == 21
    assert (counts["handler_runs"], counts["handler_errors"]) == (21, 0)
    assert goodbyes(instance, 21) == {3001: 1, 4000: 20}


def test_pings_are_counted(start: Start) -> None:
    """Idle clients are pinged, those who do not answer are closed with 1011, and the status says
    how many there were of both. A browser's JSON ping is answered by the server itself.
    """
    heartbeat = {"ping_interval": 0.3, "ping_timeout": 3, "app_ping": True}
    instance = start(ROOM, workers=1, heartbeat=heartbeat)
    instance.running()
    with Raw(instance.address()) as client:
        client.open()
        assert json.loads(client.ask('{"type": "ping"}')) == {"type": "pong"}
        assert client.ask('{"type": "pong"}') == '{"type": "pong"}'
        assert client.ask("about me").split()[1] == "2"
        # It answers the first ping, and then no more.
        opcode, payload = client.frame()
        assert opcode == 9
        client.socket.sendall(frame(10, payload))
        assert client.ending().code == 1011
    counts = nobody_open(instance, 1)
    assert counts["pings_sent"] >= 2
    assert counts["ping_timeouts"] == 1
    assert counts["closed_by_reason"]["timeout"] == 1
    assert counts["closed_by_code"]["server"] == {"1011": 1}


def test_settings_of_the_engine(start: Start) -> None:
    """keep_headers and limits of the configuration hold for event-style applications; ids are
    unique among all workers.
    """
    instance = start(
        ROOM,
        keep_headers=["x-kept", "host"],
        limits={"message_bytes": 1000, "fragments": 2, "origins": ["https://example.com"]},
    )
    instance.running()
    address = instance.address()
    ids = set()
    for _ in range(40):
        with Raw(address) as client:
            further = (b"X-Kept: 1", b"X-Dropped: 2", b"Origin: https://example.com")
            client.socket.sendall(request("/a?b", *further))
            assert client.head().startswith(b"HTTP/1.1 101 ")
            number, said, path, names = client.ask("about me").split()
            assert (said, path, names) == ("1", "/a?b", "host,x-kept")
            ids.add(number)
            client.close()
    assert len(ids) == 40
    with Raw(address) as large, Raw(address) as parts, Raw(address) as elsewhere:
        large.open().say("x" * 1001)
        parts.open().fragments("a", "b", "c")
        assert [ending.code for ending in endings([large, parts])] == [1009, 1009]
        elsewhere.socket.sendall(request("/", b"Origin: https://example.org"))
        assert elsewhere.head().startswith(b"HTTP/1.1 403 ")
        elsewhere.rest()
    counts = nobody_open(instance, 43)
    assert counts["closed_by_reason"]["too_big"] == 2
    assert counts["refused_by_reason"]["origin"] == 1


def test_a_hook_that_raises(start: Start) -> None:
    """An exception out of a hook ends its connection alone and is logged with hook and worker; what
    on_request rejects is no error.
    """
    instance = start(ROOM, workers=1)
    instance.running()
    address = instance.address()
    pid = instance.workers()[0]
    with Raw(address) as other, Raw(address) as client, Raw(address) as third:
        other.open("/room")
        client.open("/room").say("raise")
        assert client.ending().code == 1011
        assert other.frame() == (TEXT, b"left with 1011")
        third.socket.sendall(request("/forbidden"))
        assert third.head().startswith(b"HTTP/1.1 403 ")
        assert third.rest() == b"no"
        assert other.ask("fine") == "fine"
        other.close()
    counts = nobody_open(instance, 3)
    assert counts["handler_errors"] == 1
    assert counts["handshake_failures_by_reason"]["rejected"] == 1
    [event] = instance.wait_logged("handler_failed")
    assert (event["hook"], event["pid"]) == ("on_receive", pid)
    assert event["error"] == "ValueError: of its own"
    assert str(instance.source) in event["exception"]
    assert instance.workers()[0] == pid


async def test_a_reload(start: Start) -> None:
    """With on_reload = "close" a reload closes the connections of the old workers with 1012, once
    each, and tells the application; who connects meanwhile is served.
    """
    instance = start(ROOM, on_reload="close")
    instance.running()
    url = instance.url()
    async with crowd(url, 100) as people, prober(url) as probing:
        instance.edit("original", "edited")
        done = await aside(instance.run, "reload")
        assert done.returncode == 0, done.stdout + done.stderr
        await people.wait(lambda: sum(people.closed.values()) == 100, "everybody to be closed")
        await probing.rounds(4)
    assert people.codes == {SERVICE_RESTART: 100}
    assert set(people.closed.values()) == {1}
    assert probing.failures == []
    assert {answer.split()[1] for answer in probing.answers} == {"1", "2"}
    assert probing.answers[-1].endswith(" edited")
    status = await aside(instance.wait, lambda s: not s["connections"]["open"], "everybody's end")
    counts = status["connections"]
    # A probe that had its answer and was just leaving may have been told, too.
    told = counts["closed_by_code"]["server"]["1012"]
    assert told >= 100 + probing.restarted
    assert counts["handler_errors"] == 0
    assert goodbyes(instance, counts["closed"])[SERVICE_RESTART] == told


def test_stopping(start: Start) -> None:
    """When the instance stops everybody is told 1001, and every on_disconnect has been called
    before it exits.
    """
    instance = start(ROOM)
    instance.running()
    with raw_clients(instance.address(), 40) as clients:
        instance.signal(signal.SIGTERM)
        assert {ending.code for ending in endings(clients)} == {1001}
        assert instance.exited() == 0
    assert goodbyes(instance, 40) == {1001: 40}


def _get(client: Raw, path: str, method: str = "GET") -> bytes:
    """The whole answer to a plain HTTP request."""
    client.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return client.rest()


def test_plain_http(start: Start) -> None:
    """GET /healthz gets 200 from a worker that runs, and 503 from an old one that waits for its
    last clients; everything else gets 426 and a line of text.
    """
    instance = start(ROOM, workers=1, on_reload="wait", limits={"handshake_timeout": 1000})
    instance.running()
    address = instance.address()
    for path in ("/healthz", "/healthz?verbose"):
        with Raw(address) as client:
            answer = _get(client, path)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"\r\n\r\nok\n")
    for method, path in (("GET", "/"), ("GET", "/health"), ("POST", "/healthz")):
        with Raw(address) as client:
            head, _, body = _get(client, path, method).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 426 ")
            assert b"\r\nUpgrade: websocket\r\n" in head
            assert b"\r\nContent-Type: text/plain" in head
            assert b"WebSocket" in body
            assert body.count(b"\n") == 1
    accepted = instance.status()["connections"]["accepted"]
    with Raw(address) as stays, Raw(address) as early:
        old = stays.open().ask("who").split()[2]
        instance.wait(lambda s: s["connections"]["accepted"] == accepted + 2, "both")
        reload = instance.launch("reload")
        instance.wait_logged("draining")
        assert _get(early, "/healthz").endswith(b"\r\n\r\ndraining\n")
        with Raw(address) as client:
            assert _get(client, "/healthz").startswith(b"HTTP/1.1 200 ")
        with Raw(address) as client:
            assert client.open().ask("who").split()[2] != old
            client.close()
        assert stays.ask("who").split()[2] == old
        stays.close()
        assert reload.wait(60) == 0
    processes.until(lambda: not processes.alive(int(old)), 60, "the old worker's end")
    counts = instance.status()["connections"]
    assert counts["handshake_failures_by_reason"]["plain_http"] == 7


def test_plain_http_without_content(start: Start) -> None:
    """The answer to HEAD is a head (RFC 9110 section 9.3.2)."""
    instance = start(ROOM, workers=1)
    instance.running()
    with Raw(instance.address()) as client:
        answer = _get(client, "/", "HEAD")
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert answer.endswith(b"\r\n\r\n")
