"""What the commands of the control socket do."""

from __future__ import annotations

import binascii
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from wssup import logs
from wssup.config.values import BadValueError, parse_duration
from wssup.errors import CommandError
from wssup.questions import MOST_CONNECTIONS, ORDERS
from wssup.supervisor.lifecycle import RECENT
from wssup.supervisor.status import document

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["CHANGING", "COMMANDS", "Reply"]

#: Seconds between two reports of what is left.
_REPORT_EVERY = 0.5
#: Clients that may follow events at a time: each holds one of the places of the control socket.
_MOST_FOLLOWERS = 8
#: RFC 6455 section 7.4.1: what a client is told for which no other code fits.
_POLICY_VIOLATION = 1008
#: Bytes of a reason in a close frame (section 5.5).
_LONGEST_REASON = 123

Arguments = dict[str, Any]
Result = dict[str, Any]


class Reply:
    """The way back to a client, before the result."""

    def __init__(
        self,
        say: Callable[[Mapping[str, object]], Awaitable[None]],
        gone: Callable[[], Awaitable[None]],
    ) -> None:
        self._say = say
        self._gone = gone

    async def event(self, name: str, **fields: object) -> None:
        """Send an event."""
        await self._say({"event": name, **fields})

    async def forward(self, event: Mapping[str, object]) -> None:
        """Send an event as it was told by somebody else."""
        await self._say(event)

    async def gone(self) -> None:
        """Wait until the client has closed its side: it wants nothing more."""
        await self._gone()


async def _status(master: Master, _reply: Reply, arguments: Arguments) -> Result:
    _none_left(arguments)
    return document(master, time.monotonic_ns())


async def _config(master: Master, _reply: Reply, arguments: Arguments) -> Result:
    _none_left(arguments)
    return {"settings": master.loaded.rows(), "file": master.loaded.file}


async def _reload(master: Master, reply: Reply, arguments: Arguments) -> Result:
    wait = _take(arguments, "wait", bool, default=True)
    _none_left(arguments)
    with master.events.follow() as events:
        reload = master.reload()
        if not wait:
            return {"outcome": "started", "generation": reload.number}
        async for event in events:
            if event["event"] == "result":
                return {key: value for key, value in event.items() if key != "event"}
            await reply.forward(event)
    if master.fleet.stopping:
        raise CommandError("ended", "the reload was given up: the instance stops")
    raise CommandError("ended", "the reload goes on unseen: too many events were not read")


async def _scale(master: Master, reply: Reply, arguments: Arguments) -> Result:
    workers = _take(arguments, "workers", int)
    _none_left(arguments)
    fleet = master.fleet
    was = fleet.count
    master.scale(workers)
    told: dict[int, str] = {}
    while not fleet.stopping:
        for slot in list(fleet.slots.values()):
            if told.get(slot.index) != slot.state:
                told[slot.index] = slot.state
                await reply.event("slot", slot=slot.index, state=slot.state.value)
        if fleet.settled:
            return {"workers": fleet.count, "was": was}
        with trio.move_on_after(_REPORT_EVERY):
            await fleet.wait_changed()
    raise CommandError("ended", "the instance stops")


async def _rebalance(master: Master, reply: Reply, arguments: Arguments) -> Result:
    _none_left(arguments)
    handoffs = master.fleet.handoffs
    rebalance = master.rebalance()
    told: dict[int, int] = {}
    while not rebalance.over:
        for slot, sessions in rebalance.by_slot.items():
            moved = handoffs.moved(*sessions)
            if told.get(slot) != moved:
                told[slot] = moved
                total = sum(session.total for session in sessions)
                await reply.event("slot", slot=slot, state="moving", moved=moved, total=total)
        with trio.move_on_after(_REPORT_EVERY):
            await rebalance.wait()
    await rebalance.wait()
    return {
        "moved": rebalance.moved,
        "planned": rebalance.planned,
        "seconds": rebalance.seconds,
    }


async def _events(master: Master, reply: Reply, arguments: Arguments) -> Result:
    past = _take(arguments, "past", int, default=0)
    follow = _take(arguments, "follow", bool, default=True)
    _none_left(arguments)
    lifecycle = master.lifecycle
    if not 0 <= past <= RECENT:
        raise CommandError("bad_argument", f"past = {past}: it must be 0 to {RECENT}")
    if lifecycle.followers >= _MOST_FOLLOWERS:
        raise CommandError(
            "busy",
            f"{_MOST_FOLLOWERS} clients follow the events already",
            "the status socket's /events takes more",
        )
    with lifecycle.follow() as events:
        for event in list(lifecycle.recent)[len(lifecycle.recent) - past :]:
            await reply.forward(event)
        if not follow:
            return {"outcome": "told"}
        left = await _forward_all(reply, events)
    if left or master.fleet.stopping:
        return {"outcome": "ended"}
    raise CommandError("ended", "too many events were not read")


async def _forward_all(reply: Reply, events: trio.MemoryReceiveChannel[Result]) -> bool:
    """Tell a client all events there will be; whether it went away meanwhile."""
    left = False
    async with trio.open_nursery() as nursery:

        async def leave_with_client() -> None:
            nonlocal left
            await reply.gone()
            left = True
            nursery.cancel_scope.cancel()

        nursery.start_soon(leave_with_client)
        try:
            async for event in events:
                await reply.forward(event)
        except (trio.BrokenResourceError, trio.TooSlowError):
            left = True
        nursery.cancel_scope.cancel()
    return left


async def _publish(master: Master, _reply: Reply, arguments: Arguments) -> Result:
    topic = _take(arguments, "topic", str)
    text = "base64" not in arguments
    message = _take(arguments, "data" if text else "base64", str)
    _none_left(arguments)
    try:
        data = message.encode() if text else binascii.a2b_base64(message, strict_mode=True)
    except ValueError as error:
        raise CommandError("bad_argument", f"the message cannot be read: {error}") from None
    return {"subscribers": await master.fleet.publishing.publish(topic, data, text=text)}


async def _connections(master: Master, _reply: Reply, arguments: Arguments) -> Result:
    order = _take(arguments, "order", str, default="oldest")
    limit = _take(arguments, "limit", int, default=20)
    slot = _take(arguments, "slot", int) if "slot" in arguments else None
    _none_left(arguments)
    if order not in ORDERS:
        raise CommandError(
            "bad_argument", f"there is no order {order!r}", f"known: {', '.join(ORDERS)}"
        )
    if not 1 <= limit <= MOST_CONNECTIONS:
        raise CommandError("bad_argument", f"limit = {limit}: it must be 1 to {MOST_CONNECTIONS}")
    if slot is not None and slot not in master.fleet.slots:
        raise CommandError("bad_argument", f"there is no slot {slot}", "see wssup status")
    return await master.fleet.inspecting.connections(order, limit, slot)


async def _close(master: Master, _reply: Reply, arguments: Arguments) -> Result:
    ids = _take(arguments, "ids", list)
    code = _take(arguments, "code", int, default=_POLICY_VIOLATION)
    reason = _take(arguments, "reason", str, default="closed by the operator")
    _none_left(arguments)
    if not all(type(number) is int and 0 <= number < 1 << 53 for number in ids):
        raise CommandError("bad_argument", "ids holds what is no id", "see wssup connections")
    if not 1 <= len(ids) <= MOST_CONNECTIONS:
        raise CommandError("bad_argument", f"{len(ids)} ids: it must be 1 to {MOST_CONNECTIONS}")
    if not 1000 <= code <= 4999 or len(reason.encode()) > _LONGEST_REASON:
        raise CommandError(
            "bad_argument",
            f"no close frame holds code {code} and a reason of {len(reason.encode())} bytes",
            f"use 1000 or 3000 to 4999, and {_LONGEST_REASON} bytes at most",
        )
    found = await master.fleet.inspecting.close(ids, code, reason)
    closing = [one["id"] for one in found["closing"]]
    if closing:
        logs.get().info("connections_closed", count=len(closing), code=code, connections=closing)
    return found


async def _drain(master: Master, reply: Reply, arguments: Arguments) -> Result:
    over = arguments.pop("over", master.settings.drain_window)
    _none_left(arguments)
    try:
        seconds = parse_duration(over)
    except BadValueError as error:
        raise CommandError(
            "bad_argument", f"over = {over!r}: {error.problem}", error.remedy
        ) from None
    deadline = master.ending.drain(seconds)
    await _report(master, reply, deadline)
    return {"outcome": "drained"}


async def _stop(master: Master, reply: Reply, arguments: Arguments) -> Result:
    fast = _take(arguments, "fast", bool, default=False)
    _none_left(arguments)
    deadline = master.ending.stop(fast=fast)
    await _report(master, reply, deadline)
    return {"outcome": "stopping"}


async def _report(master: Master, reply: Reply, deadline: float) -> None:
    """Tell how many connections are left until there are none."""
    ends = trio.current_time() + deadline
    while master.fleet.workers:
        active = master.scoreboard.snapshot().total.active
        left = max(0.0, ends - trio.current_time())
        await reply.event("remaining", active=active, deadline=round(left, 1))
        with trio.move_on_after(_REPORT_EVERY):
            await master.fleet.wait_changed()


def _take(arguments: Arguments, key: str, kind: type, *, default: Any = None) -> Any:
    value = arguments.pop(key, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CommandError("bad_argument", f"{key} = {value!r} is not {kind.__name__}")
    return value


def _none_left(arguments: Arguments) -> None:
    if arguments:
        raise CommandError("bad_argument", f"unknown argument {next(iter(arguments))!r}")


Command = Callable[["Master", Reply, Arguments], Awaitable[Result]]

#: Those that change what the instance does: who gave them is logged.
CHANGING = frozenset({"reload", "scale", "rebalance", "drain", "stop", "close"})

#: Every command by its name.
COMMANDS: dict[str, Command] = {
    "status": _status,
    "config": _config,
    "reload": _reload,
    "scale": _scale,
    "rebalance": _rebalance,
    "drain": _drain,
    "stop": _stop,
    "publish": _publish,
    "connections": _connections,
    "close": _close,
    "events": _events,
}
