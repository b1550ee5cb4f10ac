"""Messages and descriptors over real socket pairs."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from tests.harness.descriptors import open_descriptors
from tests.harness.fresh import python
from wssup import channel
from wssup.channel import Channel, ChannelFull, Received
from wssup.errors import MessageError
from wssup.messages import Accept, Failed, Hello, Listen, Ready, encode

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    ours, theirs = channel.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pipes() -> Iterator[list[int]]:
    """Three pipes' ends."""
    found = [end for _ in range(3) for end in os.pipe()]
    yield found
    for descriptor in found:
        os.close(descriptor)


def test_messages_arrive_one_by_one_in_order(ends: Pair) -> None:
    """Each message arrives whole, in the order sent, in both directions."""
    ours, theirs = ends
    for on in (True, False, True):
        channel.send(ours, Accept(on))
    channel.send(theirs, Hello(1, 4711))
    assert [channel.receive(theirs) for _ in range(3)] == [
        Received(Accept(True), []),
        Received(Accept(False), []),
        Received(Accept(True), []),
    ]
    assert channel.receive(ours) == Received(Hello(1, 4711), [])


def test_both_ends_are_closed_on_exec(ends: Pair) -> None:
    """No program that is started inherits an end of a pair."""
    assert [os.get_inheritable(e.fileno()) for e in ends] == [False, False]


def test_descriptors_arrive_in_order_and_closed_on_exec(ends: Pair, pipes: list[int]) -> None:
    """Descriptors arrive beside their message, as the same files in the same order; no program
    inherits them; the sender keeps its own.
    """
    ours, theirs = ends
    channel.send(ours, Listen(3, ["a", "b"]), pipes)
    received = channel.receive(theirs)
    assert received is not None
    assert received.message == Listen(3, ["a", "b"])
    try:
        assert len(received.descriptors) == len(pipes)
        for arrived, sent in zip(received.descriptors, pipes, strict=True):
            assert arrived != sent
            assert os.path.sameopenfile(arrived, sent)
            assert fcntl.fcntl(arrived, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    finally:
        for descriptor in received.descriptors:
            os.close(descriptor)


def test_end_of_file_comes_after_what_was_sent(ends: Pair) -> None:
    """When the other end is closed, what it had sent is read first."""
    ours, theirs = ends
    channel.send(theirs, Accept(True))
    theirs.close()
    assert channel.receive(ours) == Received(Accept(True), [])
    assert channel.receive(ours) is None


def test_a_datagram_that_is_no_message(ends: Pair, pipes: list[int]) -> None:
    """What is not understood raises MessageError; descriptors that came with it are closed, and the
    next message is fine.
    """
    ours, theirs = ends
    before = open_descriptors()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipes))]
    ours.sendmsg([b"\xc1"], rights)
    with pytest.raises(MessageError, match="1 bytes is not understood"):
        channel.receive(theirs)
    assert open_descriptors() == before
    channel.send(ours, Accept(True))
    assert channel.receive(theirs) == Received(Accept(True), [])


def test_a_message_longer_than_the_longest(ends: Pair) -> None:
    """A datagram that does not fit is refused, not cut."""
    ours, theirs = ends
    ours.sendmsg([encode(Failed("x", "y" * channel.LONGEST))])
    with pytest.raises(MessageError, match="longer than"):
        channel.receive(theirs)


def test_the_longest_traceback_fits(ends: Pair) -> None:
    """A traceback of the longest kind, in characters of four bytes, goes through in one message."""
    message = Failed("x" * 1000, "\N{PILE OF POO}" * 33_000)
    channel.send(ends[0], message)
    assert channel.receive(ends[1]) == Received(message, [])


def test_too_many_descriptors(ends: Pair, pipes: list[int]) -> None:
    """253 descriptors go through in one message; one more is an error that names the limit."""
    ours, theirs = ends
    channel.send(ours, Accept(True), [pipes[0]] * 253)
    received = channel.receive(theirs)
    assert received is not None
    for descriptor in received.descriptors:
        os.close(descriptor)
    assert len(received.descriptors) == 253
    with pytest.raises(MessageError, match="254 descriptors in one message; 253"):
        channel.send(ours, Accept(True), [pipes[0]] * 254)


def test_a_receiver_at_its_limit_notices_what_it_lost() -> None:
    """At the limit of open files a message whose descriptors cannot all be received raises
    MessageError, and those that were received are closed again; later messages arrive.
    """
    said = python(
        """
        from wssup import channel
        from wssup.errors import MessageError
        from wssup.messages import Accept
        ours, theirs = channel.pair()
        ends = os.pipe()
        opened = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 3, opened + 3))
        for count in (5, 1):
            channel.send(ours, Accept(True), [ends[0]] * count)
        try:
            channel.receive(theirs)
        except MessageError as error:
            print(error)
        print(len(os.listdir("/proc/self/fd")) - 1 - opened)
        print(len(channel.receive(theirs).descriptors))
        """
    )
    error, leaked, later = said.splitlines()
    assert "descriptors were lost" in error
    assert "RLIMIT_NOFILE" in error
    assert (leaked, later) == ("0", "1")


async def test_post_to_a_peer_that_does_not_read(ends: Pair) -> None:
    """Posting never waits: a peer that reads nothing makes it ChannelFull after hundreds of
    messages, and when the peer has read, posting works again.
    """
    ours, theirs = Channel(ends[0]), Channel(ends[1])
    posted = 0
    with pytest.raises(ChannelFull):  # noqa: PT012 - the loop is what fills it
        while True:
            assert ours.post(Accept(True))
            posted += 1
    assert posted > 200
    for _ in range(posted):
        assert await theirs.receive() == Received(Accept(True), [])
    assert ours.post(Accept(False))


@pytest.mark.parametrize("unread", [False, True])
async def test_post_to_a_peer_that_is_gone(ends: Pair, *, unread: bool) -> None:
    """Posting to a closed end says so and raises nothing, also when the peer left messages unread;
    reading then gives what the peer had sent, and end of file.
    """
    ours, theirs = Channel(ends[0]), Channel(ends[1])
    assert theirs.post(Ready(1.5))
    if unread:
        assert ours.post(Accept(True))
    theirs.close()
    with trio.fail_after(20):
        assert await ours.receive() == Received(Ready(1.5), [])
        assert ours.post(Accept(True)) is False
        assert await ours.receive() is None


async def test_post_on_an_own_closed_end(ends: Pair) -> None:
    """Posting on an end that was closed here is the same as to a peer that is gone."""
    ours = Channel(ends[0])
    ours.close()
    assert ours.fileno() == -1
    assert ours.post(Accept(True)) is False
    ours.close()


async def test_receive_waits(ends: Pair) -> None:
    """A receiver waits for the next message without blocking the loop."""
    ours, theirs = Channel(ends[0]), Channel(ends[1])
    got: list[Received | None] = []

    async def take() -> None:
        got.append(await theirs.receive())

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            ours.post(Accept(True))
    assert got == [Received(Accept(True), [])]


async def test_close_wakes_the_receiver(ends: Pair) -> None:
    """Who waits for a message when the end is closed here gets ClosedResourceError."""
    theirs = Channel(ends[1])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def take() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await theirs.receive()

            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            theirs.close()


async def test_closed_before_it_was_waited_for(ends: Pair) -> None:
    """An end that is closed before its receiver's first turn is ClosedResourceError too."""
    theirs = Channel(ends[1])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def take() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await theirs.receive()

            nursery.start_soon(take)
            theirs.close()


async def test_closed_in_the_turn_in_which_a_message_came() -> None:
    """When an end is closed in the turn in which a message woke its receiver, that gets the message
    or ClosedResourceError, whichever task runs first.
    """
    for _ in range(20):
        sender, receiver = channel.pair()
        theirs = Channel(receiver)
        also_readable = os.dup(receiver.fileno())
        got: list[object] = []

        async def take(theirs: Channel = theirs, got: list[object] = got) -> None:
            try:
                got.append(await theirs.receive())
            except trio.ClosedResourceError:
                got.append("closed")

        with sender, trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take)
                await trio.testing.wait_all_tasks_blocked()
                channel.send(sender, Accept(True))
                await trio.lowlevel.wait_readable(also_readable)
                theirs.close()
        os.close(also_readable)
        assert got in ([Received(Accept(True), [])], ["closed"])


async def test_receive_can_be_cancelled_and_loses_nothing(ends: Pair) -> None:
    """A cancelled receive takes no message."""
    ours, theirs = Channel(ends[0]), Channel(ends[1])
    ours.post(Accept(True))
    with trio.CancelScope() as scope:
        scope.cancel()
        await theirs.receive()
    assert scope.cancelled_caught
    assert theirs.receive_nowait() == Received(Accept(True), [])


async def test_receive_nowait_on_an_empty_end(ends: Pair) -> None:
    """Nothing there is ``None``."""
    assert Channel(ends[0]).receive_nowait() is None


async def test_a_bad_message_leaves_the_channel_usable(ends: Pair) -> None:
    """After MessageError the next message is received."""
    ours, theirs = ends
    ours.send(b"garbage")
    channel.send(ours, Accept(True))
    end = Channel(theirs)
    with pytest.raises(MessageError):
        await end.receive()
    assert await end.receive() == Received(Accept(True), [])
