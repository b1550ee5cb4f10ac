"""Progress for those who follow it."""

from __future__ import annotations

from typing import Any

from wssup.supervisor import events as module
from wssup.supervisor.events import Events


async def test_every_follower_hears_everything_from_then_on() -> None:
    """Followers get each event from when they began, in order, and the end."""
    events = Events()
    events.tell("unheard")
    with events.follow() as first:
        events.tell("one", n=1)
        with events.follow() as second:
            events.tell("two", slot=0, state="ready")
            events.end()
            heard = [[event async for event in follower] for follower in (first, second)]
    two = {"event": "two", "slot": 0, "state": "ready"}
    assert heard == [[{"event": "one", "n": 1}, two], [two]]


async def test_a_follower_that_does_not_read_loses_its_place() -> None:
    """Telling never waits: who falls behind is dropped after what it had, and others are not
    touched.
    """
    events = Events()
    with events.follow() as stuck, events.follow() as awake:
        for n in range(module._BEHIND + 5):
            events.tell("tick", n=n)
            assert (await awake.receive())["n"] == n
        kept = [event["n"] async for event in stuck]
        assert kept == list(range(module._BEHIND))
        events.tell("after")
        assert (await awake.receive())["event"] == "after"


async def test_a_follower_that_left_is_forgotten() -> None:
    """Whoever leaves, in whatever way, is told nothing more, and nobody minds."""
    events = Events()
    with events.follow() as follower:
        follower.close()
        events.tell("to nobody")
    with events.follow():
        pass
    events.tell("to nobody")
    events.end()
    assert not events._followers


async def test_who_follows_after_the_end_follows_the_next() -> None:
    """The end is one of those who follow then; a later follower hears later events."""
    events = Events()
    events.end()
    heard: list[dict[str, Any]] = []
    with events.follow() as follower:
        events.tell("again")
        heard.append(await follower.receive())
    assert heard == [{"event": "again"}]
