"""Which listener of an address is which slot's, and how the kernel chooses among them."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from pathlib import Path

import pytest

from tests.harness.listeners import Make, meet, only, port_of
from wssup.errors import ListenError


@pytest.mark.parametrize("slot", range(4))
def test_the_number_in_the_group_is_the_slot(make: Make, slot: int) -> None:
    """A program that returns a slot's number brings every connection to that slot's listener."""
    found = make("127.0.0.1:0", slots=4)
    found.steer([int(s == slot) for s in range(4)])
    assert meet(only(found), 4, 40) == {slot: 40}


def test_excluded_slots_get_none(make: Make) -> None:
    """Of 400 connections from several addresses none comes to a slot of weight zero, and the others
    get about their shares.
    """
    found = make("127.0.0.1:0", slots=4)
    found.steer([0, 1, 0, 3])
    came = meet(only(found), 4, 400)
    assert set(came) == {1, 3}
    # 100 are expected; six standard deviations of chance are 52.
    assert 48 <= came[1] <= 152


def test_steering_follows_a_change(make: Make) -> None:
    """A later program replaces an earlier one."""
    found = make("127.0.0.1:0", slots=2)
    for shares, slot in (([1, 0], 0), ([0, 1], 1), ([1, 0], 0)):
        found.steer(shares)
        assert meet(only(found), 2, 20) == {slot: 20}


def test_slots_that_join_later_keep_their_numbers(make: Make) -> None:
    """Listeners for further slots join the same port, behind those that are there, and the earlier
    ones stay what they are; asking for fewer changes nothing.
    """
    found = make("127.0.0.1:0", slots=1)
    address = only(found)
    first, text = address.fileno(0), str(address)
    found.extend(3)
    found.extend(2)
    assert (found.slots, address.listening) == (3, 3)
    assert (address.fileno(0), str(address)) == (first, text)
    for slot in (2, 1, 0):
        found.steer([int(s == slot) for s in range(3)])
        assert meet(address, 3, 20) == {slot: 20}


def test_shares_of_slots_without_listeners_are_left_out(make: Make) -> None:
    """Steering never names a listener that is not there yet: the kernel would use its hash."""
    found = make("127.0.0.1:0", slots=2)
    found.steer([0, 1, 1, 1])
    assert meet(only(found), 2, 40) == {1: 40}


def test_an_extension_that_failed_is_none(make: Make) -> None:
    """When there are no descriptors for all addresses, what one has got more than another does not
    listen, and queues are those of the slots there are.
    """
    found = make("127.0.0.1:0", "127.0.0.2:0", slots=2)
    first, second = found.addresses.values()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = max(int(fd.name) for fd in Path("/proc/self/fd").iterdir())
    with contextlib.ExitStack() as stack:
        while (probe := stack.enter_context(socket.socket())).fileno() < taken:
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 3, hard))
        try:
            with pytest.raises(ListenError):
                found.extend(20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.queued() == [0, 0]
    found.extend(3)
    assert first.listening == second.listening == 3
    assert found.queued() == [0, 0, 0]


def test_an_address_added_later_is_steered_as_the_others(make: Make) -> None:
    """A new address starts with the shares in force."""
    found = make("127.0.0.1:0", slots=3)
    found.steer([0, 0, 1])
    found.add(found.bind(["127.0.0.2:0"]))
    _, late = found.addresses.values()
    port = port_of(late)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.2", port), 20))
        third = stack.enter_context(socket.socket(fileno=os.dup(late.fileno(2))))
        third.settimeout(20)
        for _ in range(20):
            third.accept()[0].close()
