"""What a handoff takes for granted of a stream pair between processes (unix(7)).

The rules of protocol.py and the kernel of the model (tests/property/handoff_model.py) rest on it.
`ours` is the sender's end and `theirs` the receiver's.
"""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def link() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def send(end: socket.socket, data: bytes, *descriptors: int) -> int:
    rights = array.array("i", descriptors)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    return end.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(end: socket.socket, size: int = 1 << 20) -> tuple[bytes, list[int]]:
    data, descriptors, flags, _ = socket.recv_fds(end, size, 32)
    assert not flags & socket.MSG_CTRUNC
    return data, descriptors


def told(call: Callable[[], object]) -> object:
    """What a call answers, or the error that it raises."""
    try:
        return call()
    except OSError as error:
        return type(error)


@contextmanager
def receiver(end: socket.socket, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the receiver's end as its standard input, runs the code and waits."""
    code = f"import os, signal, socket; end = socket.socket(fileno=0)\n{code}\nsignal.pause()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=end.fileno(), stdout=subprocess.PIPE) as process:
        try:
            end.close()
            yield process
        finally:
            process.kill()


def end_by_kill(process: subprocess.Popen[bytes]) -> None:
    """Wait until it says that it is where it should be, kill it, and wait until it is gone."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_queued_answers_outlive_the_shutdown(link: Pair) -> None:
    """After shutdown(SHUT_RDWR) the sender still reads the answers that were in its queue and then,
    without waiting for the receiver, end of file, as often as it asks.
    """
    ours, theirs = link
    theirs.send(b"one")
    theirs.send(b"two")
    ours.shutdown(socket.SHUT_RDWR)
    assert ours.recv(3) == b"one"
    assert ours.recv(100) == b"two"
    assert ours.recv(100) == b""
    assert ours.recv(100) == b""


def test_later_answers_fail(link: Pair) -> None:
    """After the shutdown every send of the receiver fails with EPIPE and none of it arrives."""
    ours, theirs = link
    ours.shutdown(socket.SHUT_RDWR)
    for _ in range(2):
        assert told(lambda: theirs.send(b"late", socket.MSG_NOSIGNAL)) is BrokenPipeError
    assert ours.recv(100) == b""
    assert told(lambda: ours.send(b"more", socket.MSG_NOSIGNAL)) is BrokenPipeError


def test_the_shutdown_is_one_moment() -> None:
    """While the receiver answers without pause the sender shuts down: it reads exactly the answers
    whose send was successful, in every one of 200 tries.
    """
    for _ in range(200):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        counts: list[int] = []
        begun = threading.Event()

        def answer(end: socket.socket, counts: list[int], begun: threading.Event) -> None:
            for count in range(100_000):
                try:
                    end.send(b"1234", socket.MSG_NOSIGNAL)
                except BrokenPipeError:
                    counts.append(count)
                    return
                begun.set()

        with ours, theirs:
            thread = threading.Thread(target=answer, args=(theirs, counts, begun))
            thread.start()
            begun.wait()
            read = len(ours.recv(64))
            ours.shutdown(socket.SHUT_RDWR)
            while data := ours.recv(1 << 16):
                read += len(data)
            thread.join()
            assert [read] == [count * 4 for count in counts]


def test_queued_records_outlive_the_shutdown(link: Pair) -> None:
    """Records that were queued before the sender's shutdown are still read by the receiver, with
    working descriptors, and so are they after the sender's end is closed; then end of file.
    """
    ours, theirs = link
    reader, writer = os.pipe()
    try:
        send(ours, b"one", writer)
        send(ours, b"two", writer)
        ours.shutdown(socket.SHUT_RDWR)
        data, (first,) = receive(theirs)
        assert data == b"one"
        ours.close()
        data, (second,) = receive(theirs)
        assert data == b"two"
        assert receive(theirs) == (b"", [])
        os.close(writer)
        for copy in (first, second):
            assert os.write(copy, b"x") == 1
            assert os.read(reader, 9) == b"x"
            os.close(copy)
        assert os.read(reader, 9) == b""
    finally:
        os.close(reader)


def test_a_sender_that_closes_with_answers_unread(link: Pair) -> None:
    """The receiver reads all records of a sender that died with answers unread, then ECONNRESET
    once, then end of file; what it sends fails from the beginning.
    """
    ours, theirs = link
    theirs.send(b"answer")
    send(ours, b"one")
    send(ours, b"two")
    ours.close()
    assert theirs.recv(3) == b"one"
    assert theirs.recv(3) == b"two"
    assert told(lambda: theirs.recv(3)) is ConnectionResetError
    assert theirs.recv(3) == b""
    assert told(lambda: theirs.send(b"late", socket.MSG_NOSIGNAL)) is BrokenPipeError


def test_a_failed_send_says_nothing_of_the_answers(link: Pair) -> None:
    """To a receiver that died with unread bytes a send fails with EPIPE, while its answers are
    still in the sender's queue; ECONNRESET waits behind them for the one who reads.
    """
    ours, theirs = link
    ours.send(b"unread")
    theirs.send(b"answer")
    theirs.close()
    for _ in range(2):
        assert told(lambda: ours.send(b"more", socket.MSG_NOSIGNAL)) is BrokenPipeError
    ours.shutdown(socket.SHUT_RDWR)
    assert ours.recv(100) == b"answer"
    assert told(lambda: ours.recv(100)) is ConnectionResetError
    assert ours.recv(100) == b""


@pytest.mark.parametrize("shut", [False, True], ids=["open", "shut"])
def test_a_killed_receiver(link: Pair, *, shut: bool) -> None:
    """Of a receiver that answered and was killed with records unread the sender reads first the
    answers, then ECONNRESET once, then end of file; whether it shuts the link first or not. The
    shutdown itself is no error.
    """
    ours, theirs = link
    send(ours, b"one")
    send(ours, b"two")
    code = "end.recv(3); end.send(b'answer'); print('there', flush=True)"
    with receiver(theirs, code) as process:
        end_by_kill(process)
        if shut:
            ours.shutdown(socket.SHUT_RDWR)
        assert ours.recv(100) == b"answer"
        assert told(lambda: ours.recv(100)) is ConnectionResetError
        assert ours.recv(100) == b""


def test_a_killed_receiver_that_had_read_all(link: Pair) -> None:
    """With nothing unread there is no ECONNRESET: the answers, then end of file."""
    ours, theirs = link
    send(ours, b"one")
    code = "end.recv(3); end.send(b'answer'); print('there', flush=True)"
    with receiver(theirs, code) as process:
        end_by_kill(process)
        assert ours.recv(100) == b"answer"
        assert ours.recv(100) == b""


def test_descriptors_in_flight_end_with_their_reader(link: Pair) -> None:
    """Descriptors in the queue of a receiver that is killed, and those that it had received, are
    closed: the pipe that they write to ends when the sender's own are closed.
    """
    ours, theirs = link
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        send(ours, b"one", writer)
        send(ours, b"two", writer)
        os.close(writer)
        code = "socket.recv_fds(end, 3, 1); print('there', flush=True)"
        with receiver(theirs, code) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            assert told(lambda: os.read(reader, 1)) is BlockingIOError
            process.kill()
            process.wait()
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_descriptors_in_flight_outlive_their_sender(link: Pair) -> None:
    """What the receiver has not read stays open in its queue after the sender shut the link and
    closed everything, until the receiver's end is closed.
    """
    ours, theirs = link
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        send(ours, b"one", writer)
        ours.shutdown(socket.SHUT_RDWR)
        ours.close()
        os.close(writer)
        assert told(lambda: os.read(reader, 1)) is BlockingIOError
        theirs.close()
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_a_read_ends_behind_bytes_with_descriptors(link: Pair) -> None:
    """One read does not go past bytes that carry descriptors; bytes before them without any come
    with them. So the descriptors of one batch at most come with one read.
    """
    ours, theirs = link
    for data, descriptors in ((b"one", [0]), (b"two", [0, 0]), (b"tail", []), (b"three", [0])):
        send(ours, data, *descriptors)
    for expected in ((b"one", 1), (b"two", 2), (b"tailthree", 1)):
        data, found = receive(theirs)
        assert (data, len(found)) == expected
        for descriptor in found:
            os.close(descriptor)


def test_descriptors_travel_with_the_first_byte(link: Pair) -> None:
    """Of a batch that the kernel takes in part the descriptors are on their way, so it may not be
    offered with them again; a read of its first byte brings them.
    """
    ours, theirs = link
    sent = send(ours, bytes(8 << 20), 0)
    assert 0 < sent < 8 << 20
    data, found = receive(theirs, 1)
    assert (data, len(found)) == (b"\0", 1)
    os.close(found[0])
    ours.shutdown(socket.SHUT_RDWR)
    received = 1
    while data := theirs.recv(1 << 20):
        received += len(data)
    assert received == sent


def test_an_answer_is_queued_whole_or_not_at_all(link: Pair) -> None:
    """When the sender does not read, an answer fails with EAGAIN in the end; what it then reads is
    made of whole answers, as many as were sent.
    """
    ours, theirs = link
    count = 0
    while told(lambda: theirs.send(b"1234")) == 4:
        count += 1
    assert told(lambda: theirs.send(b"1234")) is BlockingIOError
    ours.shutdown(socket.SHUT_RDWR)
    assert len(ours.recv(1 << 24)) == 4 * count


def test_a_receiver_at_its_limit_loses_descriptors(link: Pair) -> None:
    """A receiver that runs out of descriptors gets those that fit and MSG_CTRUNC; the others are
    closed and never come.
    """
    ours, theirs = link
    reader, writer = os.pipe()
    code = (
        "import resource\n"
        "os.closerange(3, 100)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))\n"
        "data, found, flags, _ = socket.recv_fds(end, 100, 20)\n"
        "print(data, found, bool(flags & socket.MSG_CTRUNC), flush=True)\n"
        "for descriptor in found: os.close(descriptor)\n"
        "print('closed', end.recv(100), flush=True)"
    )
    try:
        os.set_blocking(reader, False)
        send(ours, b"one", *[writer] * 10)
        send(ours, b"two")
        os.close(writer)
        with receiver(theirs, code) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"b'one' [3, 4] True\n"
            assert process.stdout.readline() == b"closed b'two'\n"
            assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
