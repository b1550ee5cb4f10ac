"""A reload hands connections over: the stream goes on, byte for byte, and nobody is closed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import EVENT, STYLES
from tests.harness.oracle_client import BINARY, PING, PONG, QUIET, Kind, frame, mixed
from tests.harness.oracle_run import Note, exact, journal, lives_in_the_new, reload, same
from tests.harness.oracle_sockets import counts, inodes
from tests.harness.raw import CLOSE, TEXT, Raw, raw_clients

Start = Callable[..., Instance]

#: How many reloads the clients live through: 50 in `make soak`; else it is enough that those of one
#: style move twice.
_RELOADS = int(os.environ.get("WSSUP_RELOADS", "1"))
_AGAIN = {"task": max(2, _RELOADS)}
_CLIENTS = 60
_MASK = b"\x5a\xc3\x01\xfe"


@pytest.mark.timeout(100 + 20 * _RELOADS)
@pytest.mark.parametrize("style", STYLES)
def test_nobody_notices(start: Start, style: str) -> None:
    """Clients that send without a pause — small texts, fragments with pings in between, 1 MiB
    messages, pieces of a few bytes — go on through every reload: nothing is lost, doubled,
    reordered or corrupted, nobody is closed, and ``ws.state`` goes with them. It is the same
    connection: port and inode stay, and the inode is in a process of the new generation alone.
    """
    reloads = _AGAIN.get(style, _RELOADS)
    instance = start(STYLES[style], settle=0.1)
    instance.running()
    with Oracle(instance.address(), mixed(_CLIENTS)) as people:
        people.go_on()
        sockets = inodes(people.server_port, people.ports)
        assert len(set(sockets.values())) == _CLIENTS
        workers = [set(instance.workers().values())]
        for number in range(reloads):
            reload(instance)
            people.served_by(number + 2)
            lives_in_the_new(instance, people, workers[-1])
            same(people, sockets)
            workers.append(set(instance.workers().values()))
            assert {client.pid for client in people.living} <= workers[-1]
        people.finish()
        found = exact(instance, people)
    assert found.moved_in == found.moved_out == reloads * _CLIENTS
    assert found.closed_by_reason["client"] == _CLIENTS
    assert found.handler_errors == 0
    assert found.handoff_bytes > 0
    _assert_told(instance, workers)


def _assert_told(instance: Instance, workers: list[set[int]]) -> None:
    """The application was told of everything once, in the right process."""
    last = len(workers)
    told = ["connect", *(["suspend", "resume"] * (last - 1)), "disconnect"]
    processes.until(
        lambda: all(len(notes) == len(told) for notes in journal(instance).values()),
        20,
        "all goodbyes",
    )
    notes = journal(instance)
    assert len(notes) == _CLIENTS
    for happened in notes.values():
        assert [note.what for note in happened] == told
        generations = [note.generation for note in happened]
        assert generations == [g for g in range(1, last + 1) for _ in range(2)]
        for note in happened:
            assert note.pid in workers[note.generation - 1]
        # Suspended where it was connected or resumed.
        assert all(a.pid == b.pid for a, b in zip(happened[::2], happened[1::2], strict=True))


def _unread(server_port: int) -> int:
    """Bytes that the kernel has for the server and that nobody has read."""
    unread = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == server_port and fields[3] == "01":
            unread += int(fields[4].partition(":")[2], 16)
    return unread


def test_cut_at_every_byte(start: Start) -> None:
    """A stream of fragments, pings and short and longer messages is cut by the reload after each of
    its bytes: what came before and after makes the same messages as if it had not been cut.
    """
    text = "in three \N{SNOWMAN} parts \N{GRINNING FACE}".encode()
    binary = bytes(range(256))
    stream = b"".join(
        [
            # The cuts between fragments go through letters, too.
            frame(TEXT, text[:10], _MASK, final=False),
            frame(PING, b"between", _MASK),
            frame(0, text[10:23], _MASK, final=False),
            frame(0, text[23:], _MASK),
            frame(BINARY, binary, _MASK),
        ]
    )
    # The inner bytes of a payload are all alike.
    cuts = [*range(70), *range(70, len(stream), 16), *range(len(stream) - 3, len(stream) + 1)]
    # A ping would be taken for an answer.
    instance = start(EVENT, settle=0.1, heartbeat={"ping_interval": 0})
    instance.running()
    address = instance.address()
    with raw_clients(address, len(cuts)) as clients:
        for cut, client in zip(cuts, clients, strict=True):
            client.socket.sendall(stream[:cut])
        port = int(address.rpartition(":")[2])
        processes.until(lambda: not _unread(port), 20, "the server to have read all")
        reload(instance)
        assert counts(instance).moved_in == len(cuts)
        for cut, client in zip(cuts, clients, strict=True):
            client.socket.sendall(stream[cut:])
        for cut, client in zip(cuts, clients, strict=True):
            got = dict(client.frame() for _ in range(3))
            assert got[PONG] == b"between", cut
            assert _answer(got[TEXT]) == (0, text), cut
            assert _answer(got[BINARY]) == (1, binary), cut


def _answer(payload: bytes) -> tuple[int, bytes]:
    number, _, _, message = payload.split(b" ", 3)
    return int(number), message


def test_queues_move(start: Start) -> None:
    """A client that takes nothing of what it is sent is moved with what waits for it, with the
    messages that wait for that, and the part of the next one; later it gets all of it, in order.
    """
    greedy = Kind("greedy", window=120, size=200_000)
    # They are not given up while they take nothing.
    instance = start(EVENT, settle=0.1, limits={"send_timeout": 300})
    instance.running()
    with Oracle(instance.address(), [greedy, greedy]) as people:
        people.go_on(1)
        for client in people.clients:
            client.deaf = True
        # The outbound queues are full, and then nobody is listened to.
        processes.until(lambda: _queued(instance) >= 2 << 20, 30, "full queues")
        people.wait(lambda: _stands(instance), "everything to stand still")
        reload(instance)
        assert counts(instance).moved_in == 2
        assert _queued(instance) >= 2 << 20
        for client in people.clients:
            client.deaf = False
        people.go_on(2 * greedy.window)
        people.served_by(2)
        people.finish()
        exact(instance, people)


def _queued(instance: Instance) -> int:
    workers = [w for slot in instance.status()["slots"] for w in slot["workers"]]
    return sum(worker["send_queue_bytes"] for worker in workers)


def _stands(instance: Instance) -> bool:
    """Whether no message came between two looks, a while apart."""
    before = counts(instance).bytes_in
    looks = iter(range(20))
    processes.until(lambda: next(looks) == 19, 10, "a while to pass")
    return counts(instance).bytes_in == before


_WORK = """
async def work(answer):
    while "work" in str(answer) and not journal.with_name("done").exists():
        await trio.sleep(0.02)
"""


@pytest.mark.parametrize("style", ["async", "task"])
def test_work_is_finished_first(start: Start, style: str) -> None:
    """Who is at work when the reload comes finishes it in the old worker, and its answer is sent;
    then the connection moves, with the messages that have been waiting meanwhile, more of them
    than the inbound queue holds. Others do not wait for it.
    """
    application = STYLES[style].replace("trio.lowlevel.checkpoint()", "work(answer)") + _WORK
    instance = start(application, settle=0.1, workers=1, limits={"inbound_messages": 4})
    instance.running()
    with Raw(instance.address()) as client, Raw(instance.address()) as other:
        assert client.open().ask("hello").split()[:2] == ["0", "1"]
        other.open()
        client.say("work")
        instance.wait(lambda s: s["connections"]["messages_in"] == 2, "the work to begin")
        for number in range(20):
            client.say(f"{number} waits")
        command = instance.launch("reload")
        instance.wait(lambda _: counts(instance).moved_in, "the other one to move")
        assert other.ask("hello").split()[:2] == ["0", "2"]
        # Longer than the window in which an old worker closes what cannot move.
        instance.wait_logged("draining")
        began = time.monotonic()
        processes.until(lambda: time.monotonic() > began + 0.8, 20, "the work to take a while")
        (instance.home / "done").touch()
        found = [client.frame()[1].decode().split() for _ in range(21)]
        assert [int(answer[0]) for answer in found] == list(range(1, 22))
        assert [answer[3] for answer in found] == ["work", *map(str, range(20))]
        assert [answer[1] for answer in found[:1] + found[-4:]] == ["1", "2", "2", "2", "2"]
        assert client.ask("goodbye").split()[:2] == ["22", "2"]
        assert command.wait(60) == 0
    assert counts(instance).moved_in == 2


def test_the_heartbeat_goes_on(start: Start) -> None:
    """Pings come before and after a move; the answer to one from before it counts after it; and who
    never answers is given up after ping_timeout, although another worker has sent the ping.
    """
    heartbeat = {"ping_interval": 0.5, "ping_timeout": 20}
    instance = start(EVENT, settle=0, workers=1, heartbeat=heartbeat)
    instance.running()
    address = instance.address()
    with Oracle(address, [QUIET]) as people, Raw(address) as late, Raw(address) as silent:
        opcode, payload = late.open().frame()
        assert opcode == PING
        assert silent.open().frame()[0] == PING
        reload(instance)
        assert counts(instance).moved_in == 3
        late.socket.sendall(frame(PONG, payload, _MASK))
        # A ping that waits for its answer would not be followed by another.
        opcode, following = late.frame()
        assert (opcode, following == payload) == (PING, False)
        late.close()
        # The next thing it hears: the new worker knows of the ping that it has not answered.
        opcode, payload = silent.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1011)
        silent.close(1011)
        people.go_on()
    found = counts(instance)
    assert found.ping_timeouts == found.closed_by_reason["timeout"] == 1
    notes = [note for happened in journal(instance).values() for note in happened]
    assert Note("disconnect", 2, instance.workers()[0]) in notes
