"""A bridge and histories: the workers', and the one that the server keeps."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.harness.bridge_side import Side, running
from tests.harness.resp import RespServer, error
from tests.harness.waiting import until
from wssup.bridge import desk, redis
from wssup.bridge.outbox import Letter
from wssup.bridge.packing import Parcel


@pytest.mark.parametrize(
    "settings", [{"history": 10}, {"history_age": 10.0}, {"bus_history": True}]
)
async def test_what_is_left_is_told_to_histories(settings: dict[str, Any]) -> None:
    """Where not everything can be heard, on a Cluster, histories learn that a topic is not heard
    any more, before that is so; no client is told then that it has missed nothing.
    """
    async with RespServer().running() as server:
        server.slots = [(0, 16383, server.port)]
        side = Side(server.port, cluster=True, **settings)
        async with running(side):
            side.desk.want("t", True)
            await until(lambda: side.witness.settlings and server.named(b"SSUBSCRIBE"))
            before = side.witness.settlings
            side.desk.want("t", False)
            await until(lambda: server.named(b"SUNSUBSCRIBE"))
            assert side.witness.settlings > before


@pytest.mark.parametrize("settings", [{"history": 10}, {"bus_history": True}])
async def test_with_a_history_everything_is_heard(settings: dict[str, Any]) -> None:
    """Where workers keep a history, all topics are subscribed to with one pattern, and a message
    of any topic shows that one of another topic is missing.
    """
    async with RespServer().running() as server:
        one, two = Side(server.port), Side(server.port, **settings)
        async with running(one, two):
            await until(lambda: two.witness.settlings and one.redis.connected)
            assert server.named(b"PSUBSCRIBE") == [[b"PSUBSCRIBE", b"wssup:*"]]
            for number, before in ((1, 0), (2, 1), (6, 2), (8, 7)):
                one.post(f"t{number}", number, before=before)
            await until(lambda: len(two.witness.got) == 4)
            assert two.witness.missed == 1
            two.desk.want("t9", True)
            one.post("t9", 9)
            await until(lambda: len(two.witness.got) == 5)
            assert not server.named(b"SUBSCRIBE")


async def test_the_server_keeps_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `bus_history` each message is kept before it is published, and what somebody missed is
    read back, page by page, in order, with the truth about whether it is all.
    """
    async with RespServer().running() as server:
        side = Side(server.port, bus_history=True, history=500)
        async with running(side):
            assert await side.redis.missed("t", {}, 0) == ([], False)
            await until(lambda: side.redis.connected)
            monkeypatch.setattr(redis, "_PATIENCE", 30.0)
            for number in range(1, 301):
                side.post("t", number, after=number - 1)
            found, complete = await side.redis.missed("t", {"aaaaaaaa.1": 100}, 1000)
            assert ([p.sequence for p in found], complete) == (list(range(101, 301)), True)
            assert not (await side.redis.missed("t", {"aaaaaaaa.1": 100}, 50))[1]
            assert await side.redis.missed("t", {"aaaaaaaa.1": 300, "aaaaaaaa.0": 77}, 0) == (
                [],
                True,
            )
            found, complete = await side.redis.missed("t", {"gone.1": 300}, 0)
            assert ([p.sequence for p in found], complete) == (list(range(1, 301)), False)
            assert await side.redis.missed("never", {}, 0) == ([], False)
            del server.streams[b"wssup:history:t"][:150]
            assert not (await side.redis.missed("t", {"aaaaaaaa.1": 100}, 1000))[1]
            assert (await side.redis.missed("t", {"aaaaaaaa.1": 200}, 1000))[1]
    kept = server.named(b"XADD")[0]
    assert kept[1:6] == [b"wssup:history:t", b"MAXLEN", b"~", b"500", b"*"]
    assert {c[0] for c in server.heard} >= {b"HSET", b"EXPIRE"}


async def test_long_answers_do_not_end_what_is_heard() -> None:
    """A server bounds what may wait for who is subscribed, and closes beyond that: many who come
    back at once, to long messages, have their answers, and nothing else suffers.
    """
    async with RespServer().running() as server:
        side = Side(server.port, bus_history=True, history=500, history_bytes=64 << 20)
        async with running(side):
            await until(lambda: side.witness.settlings)
            for number in range(1, 301):
                side.post("t", number, bytes(4000), after=number - 1)
            await until(lambda: side.witness.taken == 300)
            server.pubsub_bytes = 64 << 10
            answers: list[tuple[list[Parcel], bool]] = []

            async def ask() -> None:
                answers.append(await side.redis.missed("t", {"aaaaaaaa.1": 0}, 1000))

            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(ask)
            assert [(len(found), complete) for found, complete in answers] == [(300, True)] * 8
            assert side.witness.faults == []
            pages = [int(c[-1]) for c in server.named(b"XREVRANGE")]
            assert max(pages) * 4000 <= 1 << 20


async def test_a_question_waits_for_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was published before a question is in the answer, though the server had it not yet."""
    monkeypatch.setattr(redis, "_PATIENCE", 30.0)
    async with RespServer().running() as server:
        side = Side(server.port, bus_history=True, history=500)
        async with running(side):
            await until(lambda: side.redis.connected)
            for number in range(1, 1201):
                side.post("t", number)
            found, complete = await side.redis.missed("t", {"aaaaaaaa.1": 1000}, 1000)
            assert ([p.sequence for p in found], complete) == (list(range(1001, 1201)), True)


@pytest.mark.parametrize("how", ["under way", "no room", "refused"])
async def test_the_last_message_of_a_quiet_topic(at_once: None, how: str) -> None:
    """A message that the server has not, or nobody knows whether it has, and after which its topic
    is quiet: nobody is told that nothing was missed.
    """
    async with RespServer().running() as server:
        side = Side(server.port, bus_history=True, history=500, queue_bytes=64 << 10)
        async with running(side):
            await until(lambda: side.redis.connected)
            side.post("t", 1)
            side.post("u", 2)
            await until(lambda: side.witness.taken == 2)
            for topic, number in (("t", 1), ("u", 2)):
                assert await side.redis.missed(topic, {"aaaaaaaa.1": number}, 0) == ([], True)
            if how == "refused":
                server.refuse = lambda c: error("OOM") if c[0] in (b"HSET", b"XADD") else None
                side.post("t", 3, after=1)
                await until(lambda: side.witness.taken == 3)
                server.refuse = lambda _: None
            else:
                if how == "under way":
                    server.refuse = lambda c: (
                        b"" if c[0] in (b"HSET", b"XADD", b"PUBLISH") else None
                    )
                    side.post("t", 3, after=1)
                    await until(lambda: len(server.named(b"PUBLISH")) == 3)
                    server.refuse = lambda _: None
                server.mute = True
                await server.drop()
                await until(lambda: side.witness.faults)
                if how == "no room":
                    side.post("t", 3, after=1)
                    for number in range(100):
                        side.post("v", 4 + number, bytes(1000))
                    assert side.desk.outbox.lost
                server.mute = False
            owed = side.desk.owed
            await until(lambda: side.redis.connected and not owed and not owed.refused)
            assert server.hashes[b"wssup:marks:t"][b"aaaaaaaa.1"] == b"3"
            assert await side.redis.missed("t", {"aaaaaaaa.1": 1}, 0) == ([], False)
            assert (await side.redis.missed("u", {"aaaaaaaa.1": 2}, 0))[1]


async def test_what_is_owed_holds_up_nothing(at_once: None) -> None:
    """A queue that is full when the server comes back, and to which more comes with each word that
    the server is told: messages go out.
    """
    async with RespServer().running() as server:
        side = Side(server.port, bus_history=True, history=500, queue_bytes=64 << 10)
        numbers = iter(range(1, 1000))

        def more(command: list[bytes]) -> None:
            if command[0] == b"HSET" and not server.named(b"PUBLISH"):
                side.post("t", next(numbers), bytes(1000))

        server.refuse = more
        for _ in range(100):
            side.post("t", next(numbers), bytes(1000))
        assert side.desk.owed
        async with running(side):
            await until(lambda: side.witness.taken)
            await until(lambda: not side.desk.owed and not side.desk.outbox)


async def test_a_number_that_is_never_taken(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of the server's that is something else costs its own topic the claim, and no other one
    anything; it is not tried again and again.
    """
    monkeypatch.setattr(desk, "_AGAIN", 300.0)
    async with RespServer().running() as server:
        side = Side(server.port, bus_history=True, history=500)
        bad = [b"HSET", b"wssup:marks:bad"]
        server.refuse = lambda c: error("WRONGTYPE") if c[:2] == bad else None
        async with running(side):
            await until(lambda: side.redis.connected)
            side.post("bad", 1)
            for number in range(2, 12):
                side.post("good", number)
                await until(lambda: side.witness.taken == number)  # noqa: B023 - at once
            assert len([c for c in server.heard if c[:2] == bad]) == 1
            assert side.desk.owed.refused == {"bad": {"aaaaaaaa.1": 1}}
            said = [c[-1] for c in server.named(b"HSET") if c[:2] != bad]
            assert said == [b"%d" % number for number in range(2, 12)]
            found, complete = await side.redis.missed("good", {"aaaaaaaa.1": 9}, 0)
            assert ([parcel.sequence for parcel in found], complete) == ([10, 11], True)
            await server.drop()
            await until(lambda: len([c for c in server.heard if c[:2] == bad]) == 2)


@pytest.mark.parametrize("how", ["many", "refused"])
async def test_a_number_never_goes_down(
    at_once: None, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A topic's later message goes out before the number is told that it was owed: the server keeps
    the later one, and who was between the two is given that message.
    """
    async with RespServer().running() as server:
        side = Side(server.port, bus_history=True, history=500)
        source = "aaaaaaaa.1"
        if how == "many":
            side.desk.owed.add(Letter(f"t{n}", source, 100, b"") for n in range(600))
            side.post("t599", 900, after=100)
        else:
            side.post("t599", 99)
        async with running(side):
            if how == "refused":
                await until(lambda: side.witness.taken)
                assert await side.redis.missed("t599", {source: 99}, 0) == ([], True)
                server.refuse = lambda c: error("OOM") if c[0] in (b"HSET", b"XADD") else None
                side.post("t599", 100, after=99)
                await until(lambda: side.desk.owed.refused)
                # Not that this is all; but what there is.
                assert await side.redis.missed("t599", {source: 99}, 0) == ([], False)
                found, complete = await side.redis.missed("t599", {source: 98}, 0)
                assert ([parcel.sequence for parcel in found], complete) == ([99], False)
                monkeypatch.setattr(desk, "_AGAIN", 300.0)
                server.refuse = lambda _: None
                side.post("t599", 900, after=100)
            await until(lambda: side.redis.connected and len(server.named(b"PUBLISH")) > 0)
            await until(lambda: not side.desk.owed and not side.desk.owed.refused)
            assert server.hashes[b"wssup:marks:t599"][source.encode()] == b"900"
            found, complete = await side.redis.missed("t599", {source: 100}, 0)
            assert ([parcel.sequence for parcel in found], complete) == ([900], True)
