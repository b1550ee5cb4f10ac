"""When an application is taken to go on with a connection that has come."""

from __future__ import annotations

from typing import cast

from wssup.server.connection import Connection
from wssup.server.handoff.fresh import Fresh


class Told:
    """Who wants to know."""

    def __init__(self) -> None:
        self.failed: list[bool] = []

    def known(self, *, failed: bool) -> None:
        self.failed.append(failed)

    def end(self, error: str) -> None:
        raise AssertionError(error)


def fresh(at: float) -> tuple[Fresh, Connection, Told]:
    """One that has come then, to a worker that looks each half second."""
    found, connection, told = Fresh(lambda: None), cast("Connection", object()), Told()
    found.look(at - 0.3)
    found.add(connection, told, at)
    found.look(at + 0.2)
    found.look(at + 0.7)
    assert connection in found
    return found, connection, told


def test_an_application_that_does_not_raise() -> None:
    """After a second it goes on; that it raises later is nothing that a session wants to know."""
    found, connection, told = fresh(100.0)
    found.look(101.2)
    assert told.failed == [False]
    assert not found
    found.settle(connection, failed=True)
    assert told.failed == [False]


def test_an_application_that_had_no_time() -> None:
    """A worker that stood still has not seen yet what its application does with a connection."""
    found, connection, told = fresh(100.0)
    found.look(102.5)
    assert connection in found
    found.settle(connection, failed=True)
    assert told.failed == [True]


def test_an_application_that_has_time_afterwards() -> None:
    """It stood still once, and then no more."""
    found, _, told = fresh(100.0)
    found.look(102.5)
    found.look(103.0)
    assert told.failed == [False]
