"""Every course that a handoff can take, with a kill at every step; the model is
handoff_model.py.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any

import pytest

from tests.property.handoff_model import Move, Violation, World
from wssup.server.handoff import protocol
from wssup.server.handoff.protocol import (
    AT_RECEIVER,
    AT_SENDER,
    RECEIVER_LINK,
    SENDER_LINK,
    AtReceiver,
    AtSender,
    ReceiverEvent,
    SenderEvent,
    Table,
)

_S, _R = AtSender, AtReceiver


def explore(broken: str = "") -> tuple[int, int]:
    """Try everything.

    :returns: the situations, and how many of them are ends.
    :raises Violation: at the first situation that must not be, with the shortest way there.
    """
    first = World(broken)
    seen = {first.key()}
    #: Situations in the order found, each with the one before it and the move between.
    found: list[tuple[World, int, Move | None]] = [(first, 0, None)]
    ends = at = 0
    while at < len(found):
        world = found[at][0]
        moves = [*world.moves()]
        move: Move | None = None
        try:
            if not moves:
                ends += 1
                world.check_end()
            for move in (*moves, *world.kills()):
                function, *rest = move
                following = world.twin()
                function(following, *rest)
                key = following.key()
                if key not in seen:
                    seen.add(key)
                    found.append((following, at, move))
                    following.check()
        except (Violation, protocol.ProtocolError) as error:
            found.append((world, at, move))
            raise Violation(f"{error!r} after {_way(found, len(found) - 1)}") from error
        at += 1
    return len(found), ends


def _way(found: list[tuple[World, int, Move | None]], at: int) -> str:
    """The moves that lead to a situation."""
    names: list[str] = []
    while at:
        _, before, move = found[at]
        if move is not None:
            names.append(f"{move[0].__name__}({', '.join(map(str, move[1:]))})")
        at = before
    return " → ".join(reversed(names))


def test_every_course(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three connections in batches of one and two; the sender sends, is recalled or ends at any
    point; the receiver takes, has no room, stops, or cannot answer at any point; either or both are
    killed at any point. In every situation at most one living process may read a connection, and
    nothing is closed while both live. In the end each connection has one living owner or none, no
    descriptor is left open, and each one without an owner is counted as closed exactly once.
    All of the tables that leads to another state is met on the way.
    """
    met: set[tuple[str, str, str]] = set()
    after = Table.after

    def noted(table: Any, state: Any, event: Any) -> Any:
        met.add((table.name, state, event))
        return after(table, state, event)

    monkeypatch.setattr(Table, "after", noted)
    situations, ends = explore()
    assert situations > 10_000
    assert ends > 1_000
    tables: tuple[Any, ...] = (AT_SENDER, AT_RECEIVER, SENDER_LINK, RECEIVER_LINK)
    for table in tables:
        for (state, event), following in table.steps.items():
            assert following is state or (table.name, state, event) in met


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("the receiver reads what arrives", "two readers"),
        ("a failed acknowledgement counts", "two readers"),
        ("taken back at the shutdown", "two readers|knows no event"),
        ("taken back when no answer is there", "two readers"),
        ("a failed send is the end", "two readers|knows no event"),
        ("what is gone is not closed", "is left open"),
        ("rows are folded as they are", "counted as closed|closed, . owned|died"),
        ("what the dead had counted is not asked", "counted as closed|closed, . owned"),
    ],
)
def test_a_broken_rule_is_found(broken: str, expected: str) -> None:
    """The exploration finds each rule that is broken on purpose, and says how it came to it."""
    with pytest.raises(Violation, match=expected) as found:
        explore(broken)
    assert "hold(" in str(found.value)


@pytest.mark.parametrize(
    ("table", "state", "event", "wrong"),
    [
        ("AT_SENDER", _S.HELD, SenderEvent.SEND, _S.KEPT),
        ("AT_SENDER", _S.SENT, SenderEvent.TAKEN, _S.KEPT),
        ("AT_SENDER", _S.SENT, SenderEvent.REFUSED, _S.GONE),
        ("AT_SENDER", _S.SENT, SenderEvent.OVER, _S.GONE),
        ("AT_SENDER", _S.HELD, SenderEvent.OVER, _S.GONE),
        ("AT_RECEIVER", _R.ARRIVED, ReceiverEvent.ACKNOWLEDGED, _R.DROPPED),
        ("AT_RECEIVER", _R.ARRIVED, ReceiverEvent.ACK_FAILED, _R.OWNED),
        ("AT_RECEIVER", _R.ARRIVED, ReceiverEvent.DECLINED, _R.OWNED),
    ],
)
def test_a_wrong_entry_is_found(
    table: str, state: StrEnum, event: StrEnum, wrong: StrEnum, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does it find each entry of the tables of connections that leads to another outcome."""
    right: Any = {"AT_SENDER": AT_SENDER, "AT_RECEIVER": AT_RECEIVER}[table]
    steps = {**right.steps, (state, event): wrong}
    monkeypatch.setattr(protocol, table, replace(right, steps=steps))
    with pytest.raises(Violation):
        explore()
