"""The events of an instance's life."""

from __future__ import annotations

import msgspec
import trio

from wssup.supervisor.lifecycle import RECENT, Lifecycle


def test_what_is_kept() -> None:
    """The recent events are kept, numbered, as JSON-like data of bounded size; their own fields
    take the place of no other; a traceback is left out.
    """
    lifecycle = Lifecycle()
    lifecycle.record("error", {"event": "lost", "exception": "Traceback …", "seq": 7, "slot": 0})
    [entry] = lifecycle.recent
    assert list(entry)[:4] == ["seq", "at", "level", "event"]
    assert {k: v for k, v in entry.items() if k != "at"} == {
        "seq": 1,
        "level": "error",
        "event": "lost",
        "slot": 0,
    }
    deep = {"a": {"b": {"c": {"d": 1}}}}
    lifecycle.record(
        "info",
        {"event": "x", "text": "y" * 9999, "list": list(range(999)), "deep": deep, "n": 2**70},
    )
    entry = lifecycle.recent[-1]
    assert len(entry["text"]) == 1000
    assert len(entry["list"]) == 100
    assert entry["n"] == str(2**70)
    assert msgspec.json.decode(msgspec.json.encode(entry)) == entry
    for number in range(500):
        lifecycle.record("info", {"event": str(number)})
    assert len(lifecycle.recent) == RECENT
    assert [e["event"] for e in lifecycle.since(500)] == ["498", "499"]
    assert len(lifecycle.since(0)) == RECENT
    assert lifecycle.since(502) == []


async def test_who_follows() -> None:
    """A follower gets each event from then on, until the end; ``on_news`` is told of each."""
    lifecycle = Lifecycle()
    news: list[int] = []
    lifecycle.on_news = lambda: news.append(len(lifecycle.recent))
    lifecycle.record("info", {"event": "before"})
    with trio.fail_after(15), lifecycle.follow() as events:
        lifecycle.record("info", {"event": "one", "slot": 3})
        lifecycle.record("warning", {"event": "two"})
        first = await events.receive()
        assert (first["seq"], first["event"], first["slot"]) == (2, "one", 3)
        assert (await events.receive())["level"] == "warning"
        lifecycle.end()
        assert [event async for event in events] == []
    assert news == [1, 2, 3]
