"""What an application sees of a handoff, and what it can do to prevent it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.harness import processes
from tests.harness.clients import SERVICE_RESTART
from tests.harness.instance import ECHO, Instance
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import EVENT, TASK
from tests.harness.oracle_client import PLAIN, QUIET, Kind
from tests.harness.oracle_run import ended, exact, journal, reload
from tests.harness.oracle_sockets import counts
from tests.harness.raw import Raw, endings, raw_clients

Start = Callable[..., Instance]

#: It keeps its connections, and tries everything on them once they are elsewhere. What it tries
#: ends up in a file: the worker has no connection left to tell it on.
AFTERWARDS = """\
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import wssup

journal = Path(__file__).with_name("tried")
kept = []


async def outcome(function, *arguments):
    try:
        found = function(*arguments)
        if hasattr(found, "__await__"):
            with trio.fail_after(15):
                found = await found
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return " ".join(names[:names.index("Exception")])
    return repr(found)


@asynccontextmanager
async def lifespan():
    yield
    lines = []
    for ws in kept:
        for what, function, *arguments in (
            ("send_nowait", ws.send_nowait, "lost"),
            ("send_message", ws.send_message, "lost"),
            ("get_message", ws.get_message),
            ("ping", ws.ping),
            ("close_nowait", ws.close_nowait),
            ("aclose", ws.aclose),
        ):
            lines.append(f"{what}: {await outcome(function, *arguments)}\\n")
    with journal.open("a") as file:
        file.writelines(lines)


class App:
    def on_connect(self, ws):
        kept.append(ws)

    def on_suspend(self, ws):
        ws.state["note"] = ["from", b"the old \\xff", {"worker": 1.5, "none": None}]

    def on_resume(self, ws):
        assert ws.state["note"] == ["from", b"the old \\xff", {"worker": 1.5, "none": None}]

    def on_receive(self, ws, data):
        who = f"{ws.path} {ws.subprotocol} {dict(ws.handshake_headers)[b'host'].decode()}"
        ws.send_nowait(f"{data} {ws.resumed} {ws.id} {ws.remote} {ws.local} {who}")

app = App
"""


def test_a_connection_that_has_moved(start: Start) -> None:
    """In the old worker nothing can be done with a connection that has moved: to send, to receive
    and to ping raise ConnectionMoved, a ConnectionClosed; to close does nothing to it. In the new
    worker it is what it was, with what on_suspend wrote into its state, but that ``ws.resumed`` is
    true.
    """
    instance = start(AFTERWARDS, workers=1, settle=0.1)
    instance.running()
    with Raw(instance.address()) as client:
        before = client.open("/path?query").ask("hello")
        reload(instance)
        assert client.ask("hello") == before.replace("hello False", "hello True")
        assert "/path?query None test" in before
        tried = (instance.home / "tried").read_text().splitlines()
        assert len(tried) == 6
        outcomes = dict(line.split(": ") for line in tried)
        for what in ("send_message", "get_message", "ping"):
            assert outcomes[what].split()[:2] == ["ConnectionMoved", "ConnectionClosed"], what
        assert outcomes["send_nowait"] in {"False", "ConnectionMoved ConnectionClosed"}
        assert outcomes["close_nowait"] == outcomes["aclose"] == "None"
        assert client.ask("again").startswith("again True")


def test_what_is_not_resumable_is_closed(start: Start) -> None:
    """A handler that is not marked has its connections closed with 1012, over drain_window, and
    counted as not resumable.
    """
    window = 4
    instance = start(ECHO, settle=0.1, drain_window=window)
    instance.running()
    with raw_clients(instance.address(), 40) as clients:
        command = instance.launch("reload")
        ends = endings(clients)
        assert command.wait(60) == 0
        assert {end.code for end in ends} == {SERVICE_RESTART}
        times = [end.at for end in ends]
        assert max(times) - min(times) > window / 3
    found = counts(instance)
    assert ended(found) == {"drain": 40, "not: not_resumable": 40}
    assert found.moved_in == found.moved_out == 0


#: What some clients do to their connections.
_SPOILT = EVENT.replace(
    "    def on_receive(self, ws, data):\n",
    """\
    def on_receive(self, ws, data):
        spoil = str(data).partition(" ")[2]
        if spoil == "object":
            ws.state["outer"] = [1, {"a thing of its own": object()}]
        elif spoil == "large":
            ws.state["heap"] = b"x" * 3000
        elif spoil == "raise":
            ws.state["raise"] = True
""",
).replace(
    '        note("suspend", ws)',
    """\
        if ws.state.get("raise"):
            raise ValueError("cannot leave")
        note("suspend", ws)""",
)


def test_what_cannot_move_is_closed(start: Start) -> None:
    """A state that cannot be encoded or is too large, and an on_suspend that raises, have that
    connection closed with 1012 in its old worker, counted under its reason, and logged: the key of
    the state is named. All others move.
    """
    instance = start(_SPOILT, workers=1, settle=0.1, limits={"state_bytes": 2000})
    instance.running()
    address = instance.address()
    with Oracle(address, [PLAIN] * 20) as people:
        people.go_on()
        # In two reloads: of each kind of problem a worker tells of the first one only.
        for generation, spoils in ((2, ["object", "raise", "object"]), (3, ["large"])):
            with raw_clients(address, len(spoils)) as spoilt:
                for client, spoil in zip(spoilt, spoils, strict=True):
                    assert client.ask(f"please {spoil}").startswith("0 ")
                command = instance.launch("reload")
                assert [end.code for end in endings(spoilt)] == [SERVICE_RESTART] * len(spoils)
                assert command.wait(60) == 0
            people.served_by(generation)
        people.finish()
    found = counts(instance)
    assert found.moved_in == found.moved_out == 40
    refused = {k: v for k, v in found.handoff_refused_by_reason.items() if v}
    assert refused == {"state": 3, "suspend_failed": 1}
    assert found.closed_by_reason["drain"] == 4
    [unfit, large] = [entry["error"] for entry in instance.events("state_cannot_move")]
    assert "limits.state_bytes (2000)" in large
    assert "state['outer'][1]['a thing of its own'] is an object" in unfit
    [failed] = instance.events("handler_failed")
    assert (failed["hook"], failed["error"]) == ("on_suspend", "ValueError: cannot leave")
    _goodbyes(instance, accepted=24, moved=40)


def _goodbyes(instance: Instance, *, accepted: int, moved: int) -> None:
    """on_disconnect came once for each connection, and for none because it moved."""
    processes.until(
        lambda: sum(_noted(instance, "disconnect").values()) == accepted, 20, "all goodbyes"
    )
    assert set(_noted(instance, "disconnect").values()) == {1}
    assert sum(_noted(instance, "resume").values()) == moved


def _noted(instance: Instance, what: str) -> dict[int, int]:
    found = {
        number: sum(note.what == what for note in notes)
        for number, notes in journal(instance).items()
    }
    return {number: times for number, times in found.items() if times}


def test_a_handler_that_does_not_come_to_rest_is_closed(start: Start) -> None:
    """A handler that never waits for a message, or whose client takes nothing, keeps its connection
    where it is until the deadline; then it is closed with 1012 and counted as busy.
    """
    deaf = Kind("deaf", window=100, size=200_000)
    application = TASK.replace(
        "await trio.lowlevel.checkpoint()",
        'await trio.sleep(1000 if "for ever" in str(answer[-8:]) else 0)',
    )
    instance = start(application, workers=1, settle=0.1, drain_window=0.5, drain_timeout=10)
    instance.running()
    address = instance.address()
    with Oracle(address, [deaf, QUIET], may_end=True) as people, Raw(address) as works:
        people.go_on(1)
        people.clients[0].deaf = True
        works.open().say("for ever")
        instance.wait(lambda s: s["connections"]["messages_in"] > 10, "the queues to fill")
        command = instance.launch("reload")
        assert works.ending().code == SERVICE_RESTART
        assert command.wait(60) == 0
        people.clients[0].deaf = False
        people.wait(lambda: people.clients[0].ended, "the end of the deaf client")
        assert people.clients[1].generation == 1
        people.go_on()
        assert people.clients[1].generation == 2
    found = counts(instance)
    assert found.moved_in == 1
    assert found.handoff_refused_by_reason["busy"] == 2


def test_a_client_that_is_leaving_is_not_moved(start: Start) -> None:
    """A connection in its closing handshake ends where it is, under its own code."""
    application = EVENT.replace(
        "    def on_receive(self, ws, data):\n",
        '    def on_receive(self, ws, data):\n        if data == "close":\n'
        "            ws.close_nowait(4000)\n            return\n",
    )
    instance = start(application, workers=1, settle=0.1, limits={"close_timeout": 30})
    instance.running()
    address = instance.address()
    with Oracle(address, [PLAIN] * 5) as people, Raw(address) as client:
        client.open().say("close")
        people.go_on()
        instance.wait(lambda s: s["connections"]["messages_in"] > 1, "the message to be taken")
        command = instance.launch("reload")
        people.served_by(2)
        assert client.ending().code == 4000
        assert command.wait(60) == 0
        people.finish()
    found = counts(instance)
    assert found.moved_in == 5
    assert found.handoff_refused_by_reason["closing"] == 1
    assert found.closed_by_reason["server"] == 1


def test_reading_and_writing_tasks_of_one_handler(start: Start) -> None:
    """A handler with a task of its own that sends meanwhile is resumed, too, and no message of that
    task is sent twice or by both workers.
    """
    application = TASK_THAT_TICKS
    # A ping would be taken for an answer.
    instance = start(application, settle=0.1, heartbeat={"ping_interval": 0})
    instance.running()
    with raw_clients(instance.address(), 10) as clients:
        for client in clients:
            client.say("start")
        reload(instance)
        reload(instance)
        for client in clients:
            client.say("stop")
        for client in clients:
            heard = []
            while (said := client.frame()[1].decode()) != "stopped":
                heard.append(said)
            assert heard == [str(number) for number in range(len(heard))]
            assert client.ending().code == 1000
    assert counts(instance).moved_in == 20


TASK_THAT_TICKS = """\
import trio
import wssup

@wssup.resumable
async def app(request):
    async with await request.accept() as ws, trio.open_nursery() as nursery:
        if ws.resumed:
            nursery.start_soon(tick, ws)
        while True:
            message = await ws.get_message()
            if message == "start":
                nursery.start_soon(tick, ws)
            elif message == "stop":
                nursery.cancel_scope.cancel()
                ws.send_nowait("stopped")

async def tick(ws):
    while True:
        number = ws.state.get("ticks", 0)
        # In one step: a tick is counted if, and only if, it is sent.
        if ws.send_nowait(str(number)):
            ws.state["ticks"] = number + 1
        await trio.sleep(0.02)
"""


def test_status_shows_it(start: Start) -> None:
    """The status says how many connections have moved, how many bytes went with them, what was
    refused, and how long the pauses were; people are told the same. At every moment meanwhile the
    totals are exact.
    """
    instance = start(EVENT, settle=0.1)
    instance.running()
    with Oracle(instance.address(), [PLAIN] * 30) as people:
        people.go_on()
        command = instance.launch("reload")
        looks = Counter[tuple[int, ...]]()
        while command.poll() is None:
            board = counts(instance)
            looks[board.accepted, board.open, board.active, board.closed] += 1
        printed = command.communicate()[0]
        assert command.returncode == 0, printed
        assert set(looks) == {(30, 30, 30, 0)}
        assert looks.total() > 100
        people.finish()
        exact(instance, people)
    found: dict[str, Any] = instance.status()["handoff"]
    board = counts(instance)
    assert board.moved_in == sum(board.pauses) == 30
    assert 0 < board.pause.quantile(0.5) <= board.pause.quantile(0.99) <= board.pause.max < 10
    assert (found["moved"], found["in_progress"]) == (30, 0)
    assert found["bytes"] == board.handoff_bytes > 30 * 50
    assert not any(found["refused_by_reason"].values())
    pauses = found["pause_ms"]
    assert 0 < pauses["p50"] <= pauses["p99"] <= pauses["max"] < 10_000
    page = instance.run("status").stdout
    assert "30" in page
    assert "moved" in page
    assert "moved" in printed
