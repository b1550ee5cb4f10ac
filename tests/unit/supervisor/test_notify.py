"""What the service manager is told, as text; and that it arrives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.scoreboard import InstanceState
from wssup.supervisor.notify import Notifier, address_of, lines, progresses, status_line, wants_time
from wssup.supervisor.slots import State


def test_lines() -> None:
    """A datagram has a line for each field."""
    assert (
        lines([("RELOADING", 1), ("MONOTONIC_USEC", 4711)]) == b"RELOADING=1\nMONOTONIC_USEC=4711"
    )


@given(st.text())
def test_a_value_never_begins_a_line(value: str) -> None:
    """Whatever a value holds, it stays one line: no text can say READY=1."""
    text = value.encode("utf-8", "replace").decode()
    assert lines([("STATUS", text), ("X", 1)]).count(b"\n") == 1


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/run/systemd/notify", "/run/systemd/notify"),
        ("@/org/freedesktop/systemd1/notify/1", "\0/org/freedesktop/systemd1/notify/1"),
        ("", None),
        ("vsock:2:1234", None),
        ("relative", None),
    ],
)
def test_addresses(text: str, address: str | None) -> None:
    """Paths and abstract names are known, all else is not."""
    assert address_of(text) == address


def test_status_lines() -> None:
    """The status says what the instance does, how many workers are ready, and its connections."""
    counts = {"generation": 7, "ready": 4, "count": 4, "connections": 81203}
    said = status_line(InstanceState.RUNNING, **counts)
    assert said == "gen 7: 4/4 ready, 81203 connections"
    assert status_line(InstanceState.RELOADING, **counts) == f"reloading, {said}"
    assert status_line(InstanceState.STOPPING, **counts) == f"stopping, {said}"


@pytest.mark.parametrize(
    ("state", "slots", "looked_ago", "progress"),
    [
        (InstanceState.RUNNING, [State.READY, State.FAILED], 1.0, True),
        (InstanceState.RUNNING, [State.BACKOFF], 1.0, True),
        (InstanceState.RUNNING, [State.STARTING], 1.0, True),
        (InstanceState.RUNNING, [State.FAILED, State.FAILED], 1.0, False),
        (InstanceState.RUNNING, [], 1.0, False),
        (InstanceState.RUNNING, [State.READY], 11.0, False),
        (InstanceState.RELOADING, [State.FAILED], 1.0, True),
        (InstanceState.RELOADING, [State.REPLACING], 11.0, False),
        (InstanceState.STARTING, [], 99.0, True),
        (InstanceState.STOPPING, [State.READY], 99.0, True),
        (InstanceState.DRAINING, [], 99.0, True),
    ],
)
def test_progress(
    state: InstanceState, slots: list[State], looked_ago: float, *, progress: bool
) -> None:
    """A master that serves makes progress while it looks at its workers and has some, or will."""
    assert progresses(state, slots, looked_ago=looked_ago, patience=10.0) is progress


@pytest.mark.parametrize(
    ("state", "progress", "left", "wanted"),
    [
        (InstanceState.RUNNING, True, 0.0, False),
        (InstanceState.STARTING, True, 0.0, False),
        (InstanceState.RELOADING, True, 0.0, True),
        (InstanceState.RELOADING, False, 0.0, False),
        (InstanceState.STOPPING, True, 1.0, True),
        (InstanceState.DRAINING, False, 1.0, True),
        (InstanceState.STOPPING, True, -1.0, False),
    ],
)
def test_when_time_is_asked_for(
    state: InstanceState, left: float, *, progress: bool, wanted: bool
) -> None:
    """Time is asked for while connections are waited for: in a reload that gets on, and at the end
    until its own deadline.
    """
    assert wants_time(state, progress=progress, left=left) is wanted


@pytest.mark.parametrize("abstract", [True, False])
def test_sending(tmp_path: Path, *, abstract: bool) -> None:
    """A datagram arrives on both kinds of sockets, with its descriptors."""
    name = f"@wssup-unit-{os.getpid()}" if abstract else str(tmp_path / "notify")
    address = address_of(name)
    assert address is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(10)
        notifier = Notifier(address)
        assert notifier
        assert notifier.tell(("READY", 1))
        assert manager.recv(100) == b"READY=1"
        assert notifier.tell(("FDSTORE", 1), descriptors=[0])
        said, descriptors, _, _ = socket.recv_fds(manager, 100, 4)
        assert said == b"FDSTORE=1"
        (descriptor,) = descriptors
        assert os.path.samestat(os.fstat(descriptor), os.fstat(0))
        os.close(descriptor)
        notifier.close()
    assert not notifier.tell(("READY", 1))


def test_nobody_listens(tmp_path: Path) -> None:
    """Without a manager, with one that is gone, and with one that does not read, nothing fails and
    nothing hangs.
    """
    assert not Notifier(None)
    assert not Notifier(None).tell(("READY", 1))
    path = str(tmp_path / "notify")
    assert not Notifier(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        notifier = Notifier(path)
        while notifier.tell(("STATUS", "x" * 1000), lossy=True):
            pass
        assert not notifier.tell(("READY", 1))
    assert not notifier.tell(("READY", 1))
    notifier.close()
