"""The oracle of topics itself: one that never finds anything would prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.harness.instance import Instance
from tests.harness.topics_apps import EVENT
from tests.harness.topics_client import Kind
from tests.harness.topics_oracle import TopicsOracle
from tests.harness.topics_run import right

Start = Callable[..., Instance]

_HEARS, _POSED, _CHATS, _PASSES = "hears", "positions", "chats", "passes"
#: What the application does with the fifth message, who is there, and what the oracle says.
_WRONGS = {
    "loses a message": ("return PID", _HEARS, "number 6 of .* after 4"),
    "doubles one": ("wssup.publish(topic, payload)", _HEARS, "number 5 .* again"),
    "publishes it late": ("late.append(payload); return PID", _HEARS, "number 6 of .* after 4"),
    "turns a letter": ("payload = payload.replace('w', 'v')", _HEARS, "nobody has published"),
    "loses a letter": ("payload = payload[:-1]", _HEARS, "instead of number 5"),
    "takes bytes for text": ("kind = 'text' if kind == 'bytes' else 'bytes'", _HEARS, "instead of"),
    "says it to the publisher": ("kind = 'text'", _CHATS, "its own message 5"),
    "forgets a position": ("last[0].send_nowait(payload)", _POSED, "an envelope or none"),
    "takes another topic": (
        'last[0].send_nowait(json.dumps({"topic": "", "position": "", "data": payload}))',
        _POSED,
        "a message of w. as one of ",
    ),
    "closes": ("last[0].close_nowait(4000)", _HEARS, "was closed with 4000"),
    "says nonsense": ("last[0].send_nowait('hello')", _HEARS, "nobody has published"),
    "is out of step": ("last[0].wire.transmit(last[0], b'x')", _HEARS, "out of step"),
    "loses the last ones": ("lost.add(topic)", _HEARS, "to be heard"),
    "goes on": ("", _PASSES, "not subscribed to that"),
}
_PUBLISHES = '    if kind == "bytes":\n'
_UNSUBSCRIBES = "def do_unsub(ws, topic, rest):\n"
_WRONG = """
PID, last, late, lost = str(os.getpid()), [], [], set()


def connected(self, ws):
    last[:] = [ws]


App.on_connect = connected
"""


def test_it_finds_what_is_wrong(start: Start) -> None:
    """Whatever happens to one message is a fault of whoever should have heard it."""
    numbers = {name: f"w{chr(97 + number)}" for number, name in enumerate(_WRONGS)}
    wrongs = "".join(
        f"    if topic == {numbers[name]!r} and ' 5 ' in payload[:20]:\n        {does or 'pass'}\n"
        for name, (does, _, _) in _WRONGS.items()
    )
    wrongs += "    if topic in lost:\n        return PID\n"
    stays = f"    if topic == {numbers['goes on']!r}:\n"
    stays += "        return json.dumps({'topic': topic, 'was': True})\n"
    application = EVENT.replace(_PUBLISHES, wrongs + _PUBLISHES)
    application = application.replace(_UNSUBSCRIBES, _UNSUBSCRIBES + stays) + _WRONG
    instance = start(application, workers=1, topics={"history": 1000})
    instance.running()
    for name, (_, who, says) in _WRONGS.items():
        topics = (numbers[name],)
        kinds = {
            _HEARS: Kind("hears", topics),
            _POSED: Kind("hears", topics, positions=True),
            _CHATS: Kind("chats", topics, topics),
            _PASSES: Kind("passes", topics, passing=True),
        }
        with TopicsOracle(instance.address(), [Kind("tells", tells=topics), kinds[who]]) as people:
            people.speak()
            with pytest.raises(AssertionError, match=says):
                _live(people)


def _live(people: TopicsOracle) -> None:
    people.wait(lambda: people.published >= 20, "messages")
    people.settle()
    people.end(seconds=0.5)


def test_it_finds_nothing_where_nothing_is(start: Start) -> None:
    """Clients of all kinds are satisfied with a server that does nothing unusual, and the numbers
    of subscribers are right.
    """
    instance = start(EVENT, topics={"history": 1000})
    instance.running()
    topics = ("red", "green")
    kinds = [
        *3 * [Kind("tells", tells=topics)],
        *3 * [Kind("chats", topics, topics)],
        *3 * [Kind("hears", topics)],
        *3 * [Kind("positions", topics, positions=True)],
        *3 * [Kind("passes", topics, passing=True)],
        *3 * [Kind("comes and goes", topics, positions=True, passing=True)],
    ]
    with TopicsOracle(instance.address(), kinds) as people:
        right(instance, people, 2)
        people.speak()
        people.go_on(20)
        people.settle()
        right(instance, people, 2)
        people.end()
