"""What is taken for an event-style application, and what is refused and why."""

from __future__ import annotations

import types

import pytest

from wssup.application import style_of
from wssup.errors import ApplicationError
from wssup.server.connection import Connection


class OnlyReceive:
    @staticmethod
    def on_receive(ws: Connection, data: str, *more: object) -> None: ...


class OnlyGoodbye:
    def on_disconnect(self, ws: Connection, code: int) -> None: ...


@pytest.mark.parametrize("found", [OnlyGoodbye, OnlyGoodbye(), OnlyReceive, OnlyReceive()])
def test_what_is_event_style(found: object) -> None:
    """A class or an object with any of the hooks is an event-style application; of a class one
    object is made.
    """
    handler, interface = style_of("m:app", found)
    assert interface == "event"
    assert isinstance(handler, found) if isinstance(found, type) else handler is found


async def _generator(ws: Connection, data: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    yield ws, data


class NeedsArguments(OnlyGoodbye):
    def __init__(self, argument: int) -> None:
        self.argument = argument


class Raises(OnlyGoodbye):
    def __init__(self) -> None:
        raise OSError("no database")


@pytest.mark.parametrize(
    ("found", "message", "remedy"),
    [
        (
            types.SimpleNamespace(on_receive=5),
            "m:app.on_receive is int",
            "on_receive(self, ws, data)",
        ),
        (
            types.SimpleNamespace(on_connect=lambda: 0),
            "m:app.on_connect cannot be called with ws",
            "def on_connect(self, ws)",
        ),
        (
            types.SimpleNamespace(on_disconnect=lambda ws: ws),
            "on_disconnect cannot be called with ws, code",
            "def on_disconnect(self, ws, code), or async def",
        ),
        (
            types.SimpleNamespace(on_request=lambda request, *, key: (request, key)),
            "on_request cannot be called with request",
            "def on_request(self, request)",
        ),
        (
            types.SimpleNamespace(on_receive=lambda ws: ws),
            "on_receive cannot be called with ws, data",
            "def on_receive(self, ws, data)",
        ),
        (types.SimpleNamespace(on_receive=_generator), "on_receive is a generator", "async def"),
        (NeedsArguments, "cannot be made without arguments", "name an object of it"),
        (Raises, "OSError: no database", "traceback"),
    ],
)
def test_what_is_none(found: object, message: str, remedy: str) -> None:
    """Hooks that could not be called, and classes that no object can be made of, are refused before
    anything starts, with how they should look.
    """
    with pytest.raises(ApplicationError) as caught:
        style_of("m:app", found)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
