"""The table of a slot's life as a whole; walks through it are in tests/property."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from wssup.supervisor import slots
from wssup.supervisor.slots import SERVED, TABLE, Action, Event, SlotError, State, step

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "slots.md"


def reachable(start: State) -> set[State]:
    """The states that some sequence of events leads to."""
    found = {start}
    waiting = [start]
    while waiting:
        state = waiting.pop()
        fresh = {after for (s, _), (after, _) in TABLE.items() if s is state} - found
        found |= fresh
        waiting += fresh
    return found


@pytest.mark.parametrize(("state", "event"), list(TABLE))
def test_step_answers_what_the_table_says(state: State, event: Event) -> None:
    """For each pair of the table, a step leads to a known state by known actions, none twice."""
    after, actions = step(state, event)
    assert (after, actions) == TABLE[state, event]
    assert after in State
    assert all(a in Action for a in actions)
    assert len(set(actions)) == len(actions)


def test_unknown_pair_is_an_error_that_names_it() -> None:
    """Each pair that is not in the table raises SlotError with the state, the event, and what the
    state does know.
    """
    unknown = [p for p in itertools.product(State, Event) if p not in TABLE]
    assert len(unknown) + len(TABLE) == len(State) * len(Event)
    for state, event in unknown:
        with pytest.raises(SlotError) as caught:
            step(state, event)
        text = str(caught.value)
        assert f"state {state} " in text
        assert f"event {event};" in text
        known = {str(e) for (s, e) in TABLE if s is state}
        assert set(text.rpartition("it knows ")[2].split(", ")) == known


def test_every_word_is_used() -> None:
    """No state, event or action exists that the table does not use."""
    assert {s for s, _ in TABLE} == set(State)
    assert {e for _, e in TABLE} == set(Event)
    assert {a for _, actions in TABLE.values() for a in actions} == set(Action)


def test_every_state_is_reached() -> None:
    """A new slot can come into every state."""
    assert reachable(State.EMPTY) == set(State)


@pytest.mark.parametrize("state", list(State))
def test_no_state_is_a_trap(state: State) -> None:
    """From every state a slot can come to serve, and can be scaled away."""
    assert {State.READY, State.PARKED} <= reachable(state)


def test_the_table_cannot_be_changed() -> None:
    """Who imports the table can only read it."""
    with pytest.raises(TypeError):
        TABLE[State.EMPTY, Event.RETRY] = TABLE[State.EMPTY, Event.START]  # type: ignore[index]


def test_the_diagram_has_every_arrow() -> None:
    """The diagram has one arrow for each entry but those that neither move nor do anything."""
    arrows = re.findall(r"^    (\w+) --> (\w+): (\w+)", slots.diagram(), re.MULTILINE)
    expected = [(s, a.state, e) for (s, e), a in TABLE.items() if a.state is not s or a.actions]
    assert arrows == expected


def test_the_page_shows_this_table() -> None:
    """docs/explanation/slots.md has the diagram as the code draws it, and each state with the
    sentence of the code's own list.
    """
    text = PAGE.read_text()
    (shown,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert shown == slots.diagram()
    assert slots.__doc__ is not None
    said = dict(re.findall(r"^([A-Z]+) {2,}(\S.*)$", slots.__doc__, re.MULTILINE))
    assert set(said) == {s.name for s in State}
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (yes|no) \|$", text, re.MULTILINE)
    assert rows == [(s.value, said[s.name], "yes" if s in SERVED else "no") for s in State]
