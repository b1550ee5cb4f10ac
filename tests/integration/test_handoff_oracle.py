"""The oracle itself: an oracle that never finds anything would prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.harness.instance import Instance
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import EVENT
from tests.harness.oracle_client import PLAIN, mixed

Start = Callable[..., Instance]

_ANSWER = """\
        if not ws.send_nowait(numbered(ws, data)):
            raise RuntimeError("an answer was not taken")
"""
#: What the application does at its twentieth answer, and what the oracle says of it.
_WRONGS = {
    "loses a message": ("return", "instead of"),
    "loses the state": ("ws.state['answers'] = 3", "is numbered 3"),
    "doubles a message": (
        "ws.send_nowait(numbered(ws, data))",
        "an answer to nothing|message 21 has",
    ),
    "turns a byte": ("data = data.replace(':', ';', 1)", "instead of"),
    "loses a byte": ("data = data[:-1]", "instead of"),
    "speaks of itself": ("ws.send_nowait('hello')", "not enough values"),
    "sends bytes for text": ("data = data.encode()", "instead of"),
    "closes": ("ws.close_nowait(4000)", "was closed with 4000"),
    "loses a pong": ("ws.wire.transmit(ws, bytes([0x8A, 1, 0x39]))", "instead of 0"),
    "is out of step": ("ws.wire.transmit(ws, b'x')", "out of step"),
}


def test_it_finds_what_is_wrong(start: Start) -> None:
    """Whatever an application does wrong with one message is a fault, of that client alone."""
    wrongs = "".join(
        f"        if ws.path == '/{number}' and (ws.state['answers'], len(ws.state)) == (20, 1):\n"
        f"            ws.state['wrong'] = True\n            {does}\n"
        for number, (does, _) in enumerate(_WRONGS.values())
    )
    instance = start(EVENT.replace(_ANSWER, wrongs + _ANSWER), workers=1)
    instance.running()
    address = instance.address()
    with Oracle(address, [PLAIN]) as satisfied:
        for number, (_, says) in enumerate(_WRONGS.values()):
            with Oracle(address, [PLAIN], path=f"/{number}") as people:
                with pytest.raises(AssertionError, match=says):
                    people.go_on(60)
                assert len(people.faults) == 1
        satisfied.finish()


def test_it_finds_nothing_where_nothing_is(start: Start) -> None:
    """Clients of all kinds are satisfied with a server that does nothing unusual."""
    instance = start(EVENT)
    instance.running()
    with Oracle(instance.address(), mixed(200)) as people:
        people.go_on(4)
        people.finish()
        assert people.codes == {1000: 200}
        assert people.pause < 20
