"""The master's end of what it and an observer say to each other (status/lines.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from wssup.errors import CommandError, MessageError
from wssup.status import lines
from wssup.status.facts import Facts
from wssup.supervisor.status import facts

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["Link", "public"]

#: Seconds between two lines to it at least, and at most.
_GAP: Final = 0.05
_TURN: Final = 1.0
#: Messages that are published for it at a time, and bytes of a line from it: it is who everybody
#: talks to, and may not be trusted with more.
_MOST_PUBLISHES: Final = 32
_LONGEST_LINE: Final = 512 * 1024


class Link:
    """What master and one observer say to each other.

    :ivar answered: it has said something; ``heard_at``: when that was last (trio's clock).
    :ivar failure: why it ends, as it said itself.
    :param ready: called when it says that it answers.
    """

    def __init__(
        self, master: Master, stream: trio.SocketStream, ready: Callable[[], None]
    ) -> None:
        self.answered = False
        self.heard_at = trio.current_time()
        self.failure = ""
        self._master = master
        self._stream = stream
        self._ready = ready
        self._awake = trio.Event()
        self._told: Facts | None = None
        self._seen = 0
        self._pinged = 0
        self._pinged_at = 0.0
        self._answers: list[lines.Published] = []
        self._under_way = 0

    async def run(self) -> None:
        """Talk until the channel is closed.

        :raises MessageError: it says what is not understood.
        """
        lifecycle = self._master.lifecycle
        try:
            async with trio.open_nursery() as nursery:
                lifecycle.on_news = self._wake
                nursery.start_soon(self._tell)
                nursery.start_soon(self._notice_changes)
                await self._listen(nursery)
                nursery.cancel_scope.cancel()
        except* MessageError as group:
            raise MessageError(str(group.exceptions[0])) from None
        finally:
            lifecycle.on_news = None

    def close(self) -> None:
        """Say no more; an observer that runs ends then."""
        self._stream.socket.close()
        self._wake()

    def _wake(self) -> None:
        self._awake.set()

    async def _notice_changes(self) -> None:
        while True:
            await self._master.fleet.wait_changed()
            self._wake()

    async def _tell(self) -> None:
        """Tell what is new. While the observer does not read, nothing is kept for it here."""
        settings = self._master.settings
        begin = lines.Begin(
            lines.VERSION,
            settings.name,
            self._master.scoreboard.name,
            settings.log_level,
            settings.log_format,
            settings.publish_token_file,
        )
        news = lines.encode(begin) + self._news()
        try:
            while True:
                if news:
                    await self._stream.send_all(news)
                await trio.sleep(_GAP)
                with trio.move_on_after(_TURN - _GAP):
                    await self._awake.wait()
                self._awake = trio.Event()
                news = self._news()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def _news(self) -> bytes:
        found = bytearray()
        now = trio.current_time()
        if now >= self._pinged_at + _TURN / 2:
            self._pinged, self._pinged_at = self._pinged + 1, now
            found += lines.encode(lines.Ping(self._pinged))
        for event in self._master.lifecycle.since(self._seen):
            self._seen = event["seq"]
            found += lines.encode(lines.Happened(event))
        # After the events: from the first facts on the observer answers.
        known = public(facts(self._master))
        if known != self._told:
            self._told = known
            found += lines.encode(lines.News(known))
        for answer in self._answers:
            found += lines.encode(answer)
        self._answers.clear()
        return bytes(found)

    async def _listen(self, nursery: trio.Nursery) -> None:
        buffer = bytearray()
        while True:
            try:
                chunk = await self._stream.receive_some(64 * 1024)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not chunk:
                return
            self.answered, self.heard_at = True, trio.current_time()
            buffer += chunk
            for line in lines.split(buffer, _LONGEST_LINE):
                match lines.from_observer(line):
                    case lines.Publish() as wish:
                        self._publish(nursery, wish)
                    case lines.Failed(message=why):
                        self.failure = why
                    case lines.Ready():
                        self._ready()
                    case lines.Pong():
                        pass

    def _publish(self, nursery: trio.Nursery, wish: lines.Publish) -> None:
        if not self._master.settings.publish_token_file:
            self._answer(wish, code="forbidden", error="nobody may publish over HTTP here")
        elif self._under_way >= _MOST_PUBLISHES:
            self._answer(wish, code="busy", error="too many messages are being published")
        else:
            self._under_way += 1
            nursery.start_soon(self._have_published, wish)

    async def _have_published(self, wish: lines.Publish) -> None:
        publishing = self._master.fleet.publishing
        try:
            count = await publishing.publish(wish.topic, wish.data, text=wish.text)
        except CommandError as error:
            self._answer(wish, code=error.code, error=error.message)
        else:
            self._answer(wish, subscribers=count)
        finally:
            self._under_way -= 1

    def _answer(
        self, wish: lines.Publish, *, subscribers: int = 0, code: str = "", error: str = ""
    ) -> None:
        self._answers.append(lines.Published(wish.question, subscribers, code, error))
        self._wake()


def public(known: Facts) -> Facts:
    """Facts as everybody may know them: without tracebacks, which show what stands in the code."""
    last = known.last_reload
    if last is None or last.traceback is None:
        return known
    return msgspec.structs.replace(known, last_reload=msgspec.structs.replace(last, traceback=None))
