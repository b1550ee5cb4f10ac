"""The server's side of a bridge, against a small server of the test's own."""

from __future__ import annotations

import time

import pytest
import structlog

from tests.harness.bridge_side import Side, running
from tests.harness.resp import RespServer, confirm, error
from tests.harness.waiting import until
from wssup.bridge import desk, redis
from wssup.bridge.faults import without
from wssup.bridge.outbox import Letter, Outbox
from wssup.bridge.packing import Parcel, pack
from wssup.scoreboard import BridgeFault

PASSWORD = "open/se same%"  # noqa: S105 - nobody's


async def test_what_one_publishes_the_other_hears_in_order() -> None:
    """Messages of a topic that is wanted come in order and whole; of others, none come."""
    async with RespServer().running() as server:
        one, two = Side(server.port), Side(server.port)
        two.desk.want("t", True)
        async with running(one, two):
            await until(lambda: two.witness.settlings)
            for number in range(1, 2001):
                one.post("t" if number % 2 else "other", number, b"%d" % number)
            await until(lambda: len(two.witness.got) == 1000)
            assert two.numbers() == list(range(1, 2001, 2))
            assert [p.data for _, p in two.witness.got] == [b"%d" % n for n in range(1, 2001, 2)]
            await until(lambda: one.witness.taken == 2000)
            assert not one.witness.got


async def test_wishes_come_and_go() -> None:
    """A topic is subscribed to when it is wanted and left when it is not, many in one command."""
    async with RespServer().running() as server:
        side = Side(server.port)
        topics = [f"t{n}" for n in range(1200)]
        async with running(side):
            for topic in topics:
                side.desk.want(topic, True)
            await until(lambda: side.witness.settlings)
            assert len(server.named(b"SUBSCRIBE")) == 3
            for topic in topics:
                side.desk.want(topic, False)
            await until(
                lambda: sum(len(c) - 1 for c in server.named(b"UNSUBSCRIBE")) == len(topics)
            )
            server.heard.clear()
            # What came and went again before there was time for it is not said at all.
            side.desk.want("brief", True)
            side.desk.want("brief", False)
            side.desk.want("lasting", True)
            await until(lambda: server.named(b"SUBSCRIBE"))
            assert server.named(b"SUBSCRIBE") == [[b"SUBSCRIBE", b"wssup:lasting"]]


async def test_a_lost_connection_comes_back_with_all_topics(at_once: None) -> None:
    """When the server drops the connection, or is not there at all, it is found again and all is
    subscribed to again; what was to be published meanwhile goes out then.
    """
    server = RespServer()
    async with server.running():
        side = Side(server.port)
        side.desk.want("t", True)
        async with running(side):
            await until(lambda: side.witness.settlings == 1)
            await server.drop()
            await until(lambda: side.witness.settlings == 2)
            assert side.witness.faults == [BridgeFault.LOST]
            server._scope.cancel()
            await until(lambda: len(side.witness.faults) > 2)
            assert set(side.witness.faults[2:]) == {BridgeFault.REFUSED}
            for number in range(1, 11):
                side.post("t", number)
            async with server.running():
                await until(lambda: side.witness.settlings == 3)
                await until(lambda: side.witness.taken == 10)
                assert server.named(b"SUBSCRIBE")[-1] == [b"SUBSCRIBE", b"wssup:t"]


async def test_a_server_that_does_not_answer_is_away(at_once: None) -> None:
    """A server that holds the connection and says nothing is given up after the deadline, whether
    it was asked something or only greeted.
    """
    async with RespServer().running() as server:
        side = Side(server.port)
        async with running(side):
            await until(lambda: side.redis.connected)
            server.mute = True
            began = time.monotonic()
            await until(lambda: side.witness.faults)
            assert time.monotonic() - began < 15
            await until(lambda: len(side.witness.faults) > 1)
            assert set(side.witness.faults) == {BridgeFault.TIMEOUT}
            server.mute = False
            await until(lambda: side.redis.connected)


async def test_the_queue_is_bounded_while_the_server_is_away() -> None:
    """What waits for a server that is away is bounded: the oldest goes, and how many is told."""
    side = Side(1, queue_bytes=64 << 10)
    async with running(side):
        await until(lambda: side.witness.faults)
        dropped = sum(side.post("t", number, bytes(1000)) for number in range(1, 101))
        assert dropped == side.desk.outbox.lost > 40
        assert side.desk.outbox.size <= 64 << 10


async def test_what_may_have_been_taken_is_not_said_again(at_once: None) -> None:
    """A connection that breaks in mid-batch: those messages count as lost; they are not doubled."""
    async with RespServer().running() as server:
        one, two = Side(server.port), Side(server.port)
        two.desk.want("t", True)
        async with running(one, two):
            await until(lambda: two.witness.settlings and one.redis.connected)
            server.mute = True
            for number in range(1, 11):
                one.post("t", number)
            await until(lambda: server.named(b"PUBLISH"))
            await until(lambda: one.witness.untaken == 10)
            server.mute = False
            await until(lambda: one.redis.connected and two.redis.connected)
            await until(lambda: two.witness.settlings == 2)
            one.post("t", 11)
            await until(lambda: 11 in two.numbers())
            assert len(server.named(b"PUBLISH")) == 11


@pytest.mark.parametrize("refusal", ["wrong password", "old server", "no rights"])
async def test_a_password_is_never_told(at_once: None, refusal: str) -> None:
    """Refused for its credentials a bridge says so, with the server's words but for the password,
    also if the server repeats them all (as Redis 5 does), and goes on trying.
    """
    async with RespServer("another").running() as server:
        said = f"ERR unknown command `HELLO`, with args beginning with: `3`, `{PASSWORD}`, "
        if refusal == "old server":
            server.refuse = lambda _: error(said)
        if refusal == "no rights":
            server.password = ""
            server.refuse = lambda c: (
                error("NOPERM this user has no permissions to access one of the channels")
                if c[0] == b"SUBSCRIBE"
                else None
            )
        side = Side(server.port, password=PASSWORD)
        side.desk.want("t", True)
        with structlog.testing.capture_logs() as logs:
            async with running(side):
                await until(lambda: len(side.witness.faults) > 2)
        entries = [entry for entry in logs if entry["event"] == "bridge_away"]
        # It is said once, however often it is tried; after each connection anew.
        assert len(entries) == 1 or refusal == "no rights"
        assert not [entry for entry in logs if PASSWORD in str(entry)]
        assert PASSWORD not in repr(redis.place_of(side.redis._url))
        if refusal != "old server":
            assert {entry["log_level"] for entry in entries} == {"error"}
            assert {entry["fault"] for entry in entries} == {"auth"}
            assert set(side.witness.faults) == {BridgeFault.AUTH}
        else:
            assert "`3`, `***`" in entries[0]["error"]


def test_every_form_of_a_secret_is_hidden() -> None:
    """A password is found as it is and as URLs write it."""
    text = f"a {PASSWORD} b open%2Fse%20same%25 c open/se%20same%25"
    assert without(text, PASSWORD, "") == "a *** b *** c ***"


async def test_garbage_on_a_channel_is_passed_over() -> None:
    """What is published under our names and is no message of ours hurts nobody."""
    async with RespServer().running() as server:
        side = Side(server.port)
        side.desk.want("t", True)
        async with running(side):
            await until(lambda: side.witness.settlings)
            await server.publish(b"wssup:t", b"hello")
            await server.publish(b"wssup:t", pack(Parcel("bbbbbbbb.1", 1, 0, 0, True, 0.0, b"ok")))
            await until(lambda: side.witness.got)
            assert len(side.witness.garbage) == 1


async def test_losses_of_others_show(at_once: None) -> None:
    """That a message of another instance never came is known from the next one of its topic."""
    async with RespServer().running() as server:
        one, two = Side(server.port), Side(server.port)
        two.desk.want("t", True)
        async with running(one, two):
            await until(lambda: two.witness.settlings and one.redis.connected)
            one.post("t", 1, after=0)
            one.post("other", 2, after=0)
            one.post("t", 3, after=1)
            await until(lambda: two.numbers() == [1, 3])
            assert two.witness.missed == 0
            one.post("t", 6, after=5)
            await until(lambda: two.numbers() == [1, 3, 6])
            assert two.witness.missed == 1


async def test_losses_of_an_outage_show(at_once: None) -> None:
    """What others published while there was no connection is missed, and is known to be once they
    publish again; of a topic that nobody wanted meanwhile nothing is.
    """
    async with RespServer().running() as server:
        side, history = Side(server.port), Side(server.port, history=10)
        side.desk.want("t", True)

        async def said(topic: str, number: int) -> None:
            parcel = Parcel("bbbbbbbb.1", number, number - 1, number - 1, False, 0.0, b"")
            await server.publish(f"wssup:{topic}".encode(), pack(parcel))

        async with running(side, history):
            await until(lambda: side.witness.settlings == history.witness.settlings == 1)
            await said("t", 1)
            await until(lambda: side.witness.got and history.witness.got)
            await server.drop()
            side.desk.want("new", True)
            await until(lambda: side.witness.settlings == history.witness.settlings == 2)
            await said("new", 4)
            await said("t", 5)
            await until(lambda: side.numbers() == history.numbers() == [1, 5])
            assert (side.witness.missed, history.witness.missed) == (1, 1)


async def test_a_cluster_is_found_again_without_the_server_that_was_named(at_once: None) -> None:
    """When the server that the URL names is gone for good, the others are asked for the rest."""
    async with RespServer().running() as a, RespServer().running() as b:
        a.slots = [(0, 8191, a.port), (8192, 16383, b.port)]
        side = Side(a.port, cluster=True)
        async with running(side):
            await until(lambda: side.redis.connected)
            a._scope.cancel()
            b.slots = [(0, 16383, b.port)]
            await until(lambda: side.witness.faults)
            await until(lambda: side.redis.connected)
            side.post("t", 1)
            await until(lambda: side.witness.taken)
            assert b.named(b"SPUBLISH")


async def test_a_cluster_has_each_topic_where_it_belongs(at_once: None) -> None:
    """On a Cluster channels are sharded and each is spoken of to the server that has its slot;
    when one moves, the layout is read anew.
    """
    async with RespServer().running() as a, RespServer().running() as b:
        a.slots = b.slots = [(0, 8191, a.port), (8192, 16383, b.port)]
        one, two = Side(a.port, cluster=True), Side(b.port, cluster=True)
        topics = [f"t{n}" for n in range(40)]
        for topic in topics:
            two.desk.want(topic, True)
        async with running(one, two):
            await until(lambda: two.witness.settlings and one.redis.connected)
            for number, topic in enumerate(topics, 1):
                one.post(topic, number)
            await until(lambda: len(two.witness.got) == len(topics))
            for server in (a, b):
                assert 5 < len(server.named(b"SPUBLISH")) < 35
                subscribed = {c[1] for c in server.named(b"SSUBSCRIBE")}
                assert {c[1] for c in server.named(b"SPUBLISH")} == subscribed
                assert all(len(c) == 2 for c in server.named(b"SSUBSCRIBE"))
            # All slots go to one server.
            a.slots = b.slots = [(0, 16383, a.port)]
            b.refuse = lambda c: (
                error(f"MOVED 1 127.0.0.1:{a.port}") if c[0] == b"SPUBLISH" else None
            )
            for number, topic in enumerate(topics, 101):
                one.post(topic, number)
            await until(lambda: BridgeFault.BUSY in one.witness.faults)
            await until(lambda: one.redis.connected)
            before = len(b.named(b"SPUBLISH"))
            for number, topic in enumerate(topics, 201):
                one.post(topic, number)
            await until(lambda: not one.desk.outbox)
            await one.desk.brought_out()
            assert len(b.named(b"SPUBLISH")) == before


async def test_a_topic_that_is_wanted_again_at_once(at_once: None) -> None:
    """On a Cluster a server says itself that a channel has moved away from it. It says the same
    when it was asked: that is no such thing, though the topic is wanted again by then.
    """
    async with RespServer().running() as server:
        server.slots = [(0, 16383, server.port)]
        side = Side(server.port, cluster=True)
        side.desk.want("t", True)

        def wanted_again(command: list[bytes]) -> None:
            if command[0] == b"SUNSUBSCRIBE":
                side.desk.want("t", True)

        server.refuse = wanted_again
        async with running(side):
            await until(lambda: side.witness.settlings)
            side.desk.want("t", False)
            await until(lambda: len(server.named(b"SSUBSCRIBE")) == 2)
            await until(lambda: side.desk.wishes.settled)
            assert not side.witness.faults
            # Not asked, it does mean that.
            (_, channel) = server.named(b"SSUBSCRIBE")[0]
            for stream in list(server._clients):
                await server._send(stream, confirm(b"SUNSUBSCRIBE", [channel]))
            await until(lambda: side.witness.faults)


async def test_one_refused_command_costs_that_message_only(at_once: None) -> None:
    """A server that does not take a message (it is out of memory, say) keeps its connection; the
    message counts as lost, and the others go on.
    """
    async with RespServer().running() as server:
        server.refuse = lambda c: (
            error("OOM command not allowed") if c[0] == b"PUBLISH" and b"big" in c[2] else None
        )
        side = Side(server.port)
        async with running(side):
            await until(lambda: side.redis.connected)
            side.post("t", 1, b"small")
            side.post("t", 2, b"big")
            side.post("t", 3, b"small")
            await until(lambda: side.witness.taken == 2)
            assert side.witness.untaken == 1
            assert not side.witness.faults


def test_a_batch_is_bounded() -> None:
    """What is under way to a server at a time is bounded in number and bytes."""
    outbox = Outbox(1 << 30)
    for number in range(2000):
        outbox.put(Letter("t", "aaaaaaaa.1", number, bytes(2000)))
    taken = outbox.take(desk.BATCH, desk.BATCH_BYTES)
    assert len(taken) <= 512
    assert sum(x.size for x in taken) <= 512 << 10
