"""The bus between the workers of an instance: one node of it, with a link to each other one.

The master makes the links; nothing goes through it. A node numbers what it publishes, over all
topics. A link keeps order, so the highest number that was read from each node says exactly what was
processed: that is a *position*, and all that a connection needs to take along when it moves.

When connections move from B to C, nothing may be lost or doubled:

1. C keeps all that comes (`Bus.take_from`), and asks every node to send it what B gets (`Mirror`).
2. Every node does, and says so on its link to B (`Fence`). When B has read that from all, each
   message is either processed at B, or will come to C: only then B sends connections that are
   subscribed (`Bus.hand_to`). B stays interested in what they are subscribed to while they are on
   their way.
3. C delivers to a connection what it has kept above its position (`Bus.since`), and of what comes
   later it leaves out what is not above (`Bus.floor`). A connection that could not move finds the
   same at B.
4. When the session is over, C says of its own what it wants, and then that it mirrors B no more.

A node that is killed is read to the end of what it had sent. Everything that is sent and not
accepted is bounded, and so is every wait.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import Final, Unpack

from wssup.topics import packets as p
from wssup.topics.around import Watcher
from wssup.topics.fences import Fences, Ready, Waiting
from wssup.topics.knowing import Knowing
from wssup.topics.message import Message
from wssup.topics.node import LAST, QUIET, Parts, Teller
from wssup.topics.order import UTMOST
from wssup.topics.peer import Peer

__all__ = ["FENCE_TIMEOUT", "Bus", "Teller", "Watcher"]

#: Seconds after which connections move although a node has not said that it mirrors, if nothing
#: comes of it.
FENCE_TIMEOUT: Final = 2.0
#: Seconds for which the number of a node that is gone is remembered, and what came is given again.
_MEMORY: Final = 60.0


class Bus(Knowing):
    """One node.

    :param serial: its number, which never comes again.
    :param node: the instance's name among all instances.
    :param queue_bytes: bytes of messages that may wait for one other node.
    :param everything: it gets all messages, whoever has subscribed.
    :param deliver: is given each message, of this node and the others; it must not raise.
    :param now: the clock of `Message.at`.
    :ivar number: of the last message published here.
    :ivar seen: by node the highest number that was processed here.
    :ivar members: who is subscribed to a topic here: at most so many names, and how many they are.
    :ivar on_interest: is told when the first other node says that it wants a topic, and when the
        last one no longer does; to be set before the first link.
    :ivar on_recover: answers other nodes' questions for what was missed, in pieces, whenever that
        may be; it returns whether it does. To be set before the first link.
    """

    def __init__(self, serial: int, node: str, **parts: Unpack[Parts]) -> None:
        super().__init__(serial, node, **parts)
        # Sessions of handoffs: their receiver, and the node that it mirrors.
        self._sessions: dict[int, tuple[int, int]] = {}
        self._giving: set[int] = set()
        self._taking: set[int] = set()  # those from nobody knows whom
        self._fences = Fences()
        self._hurries = False
        self._short_until = 0.0  # when it may be said again
        self._acts[p.Mirror] = self._mirror
        self._acts[p.Fence] = self._fence
        self._acts[p.Unmirror] = self._unmirror

    def begin(self, watcher: Watcher) -> None:
        """From now on things are sent and read."""
        self.watcher = watcher
        self._history.expire(self._now())
        for peer in list(self._peers.values()):
            peer.begin()
        if self._due:
            self._flushes = True
            watcher.soon(self._flush)
        watcher.soon(self._look)

    def close(self) -> None:
        """End all links; nothing may be called afterwards."""
        for peer in list(self._peers.values()):
            peer.close()
        self._peers.clear()
        self._live.clear()

    def beat(self, now: float) -> None:
        """From time to time, at least each half second: whatever waits for time to go by."""
        self._history.expire(now)
        self._tidy(now)
        self._settle()
        self._look_sent()

        def patient(waiting: Waiting) -> bool:
            # It costs nobody anything to move a little later; what is lost is lost.
            missing = self._fences.missing(waiting, self._peers, self._dead)
            if waiting.receiver in missing:
                # Before it has said that it mirrors us nobody can send a fence.
                missing = [waiting.receiver]
            return now < waiting.deadline + UTMOST and any(
                self._is_lively(serial, now) for serial in missing
            )

        for waiting in self._fences.expired(now, patient):
            self._go(waiting)
        self._beat(now)

    def hurry(self) -> None:
        """Have sessions that wait for fences begin without them, and those to come, too."""
        self._hurries = True
        for waiting in self._fences.expired(math.inf, lambda _: False):
            self._go(waiting)

    def _go(self, waiting: Waiting) -> None:
        missing = self._fences.missing(waiting, self._peers, self._dead)
        self._soon(partial(waiting.ready, missing))

    def _tidy(self, now: float) -> None:
        over = self._news.tidy(now)
        for topic in over:
            self._book.forgot(topic)
        if over or self._news.is_uncounted:
            self._announce()
        for serial in [s for s, at in self._dead.items() if at < now - _MEMORY]:
            del self._dead[serial]
            self.seen.pop(serial, None)
            self._history.forget(serial)
            self._order.forget(serial)

    # Handoff.

    def position(self) -> dict[int, int]:
        """What was processed: the highest number by node.

        Two more entries are of use to `since` and `after` only. Under 0 stands this node's serial
        number: older ones that are not here were gone before it came. And what was published here
        and is held back is not processed, but who moves comes after it: that number stands under
        the negative serial number.
        """
        found = self.seen.copy()
        found[0] = self.serial
        if self.number != found[self.serial]:
            found[-self.serial] = self.number
        return found

    def after(self, position: Mapping[int, int], sender: int) -> None:
        """A connection came: what is published here from now on comes after what its old worker had
        published when it let it go.
        """
        number = max(position.get(sender, 0), position.get(-sender, 0))
        if self._order.after(sender, number):
            self._unnumbered = True
            barrier = self._barrier(sender, number)
            if self._held or barrier.stands(self.seen, self._live):
                self._held.append(barrier)
            else:
                self._order.say(sender, number)

    def take_from(self, sender: int, session: int) -> None:
        """Connections will come from a node: have its messages too, and keep what comes.

        :param sender: 0: nobody knows.
        :param session: of this handoff; its number never comes again.
        """
        if session in self._news.mirrors or session in self._taking:
            return
        self._history.keep()
        if not sender:
            self._taking.add(session)
            return
        self._news.mirrors[session] = sender
        self._news.holding += 1
        frame = p.encode(p.Mirror(session, sender))
        for peer in self._peers.values():
            peer.post(frame)
        self._mirrored(self.serial, session, sender)

    def taken_from(self, sender: int, session: int) -> None:  # noqa: ARG002 - as its counterpart
        """The session is over; all that came is subscribed to what it was."""
        if session in self._taking:
            self._taking.discard(session)
            self._history.release()
        if session not in self._news.mirrors:
            return
        self._history.release()
        self._news.holding -= 1
        self._news.unmirror(session)
        self._sessions.pop(session, None)
        self._announce()

    def hand_to(self, receiver: int, session: int, ready: Ready) -> None:
        """Connections will go to a node: keep what comes, for those that come back, and stay
        interested in what they are subscribed to.

        :param ready: is called, in a turn of the watcher, when they may go; with the nodes that are
            not waited for any more: what these publish meanwhile may be lost to those that move.
        """
        if session in self._giving:
            return
        self._giving.add(session)
        self._history.keep()
        self._news.holding += 1
        waiting = Waiting(session, receiver, ready, self._now() + FENCE_TIMEOUT)
        if not receiver:
            self._soon(partial(ready, []))
        elif self._hurries:
            self._go(waiting)
        else:
            self._fences.wait(waiting)
            self._look()

    def handed_to(self, receiver: int, session: int) -> None:  # noqa: ARG002 - as its counterpart
        """The session is over; what did not go has come back."""
        if session in self._giving:
            self._giving.discard(session)
            self._history.release()
            self._news.holding -= 1
            self._fences.over(session)

    def let_out(self) -> None:
        """Have the links take what is held back or waits, as far as they have room."""
        self._drain(anyway=True)
        self._flush()

    def may_carry(self, serial: int) -> bool:
        """Whether a node may carry what others have published, as bridges do: they get everything,
        and not for a history that they keep.
        """
        peer = self._peers.get(serial)
        return peer is None or peer.carries

    @property
    def moves(self) -> bool:
        """Whether connections go from here to another node, or are about to."""
        return bool(self._giving) or any(of == self.serial for _, of in self._sessions.values())

    def since(
        self, position: Mapping[int, int], topics: Collection[str], lately: Mapping[str, float]
    ) -> list[Message]:
        """What came here above a position, of these topics, in the order in which it came; with a
        warning if more came meanwhile than is kept.

        :param lately: of some topics, since when they are wanted, by ``Message.at``.
        """
        born = position.get(0, 0)
        full = {serial: LAST for serial in self.seen if serial < born}
        full.update(position)
        now = self._now()
        if now >= self._short_until and not self._history.covers(full, topics, lately):
            self._short_until = now + QUIET
            self._log.warning(
                "bus_history_short",
                hint="while connections moved, more was published than topics.history_bytes keep: "
                "messages may be lost to those that moved",
            )
        found = self._history.since_numbers(full, topics, now - _MEMORY)
        return [m for m in found if m.at >= lately.get(m.topic, 0.0)] if lately else found

    def floor(self, position: Mapping[int, int]) -> dict[int, int]:
        """What of a position is still to come here: by node, up to which number to leave out."""
        seen = self.seen
        return {s: n for s, n in position.items() if s > 0 and n > seen.get(s, 0)}

    def _greeted(self, peer: Peer, packet: p.Greeting) -> None:
        if peer.greeted:
            # It says all that it mirrors anew; ends that were still to be said are not.
            self._forget(peer.serial)
        super()._greeted(peer, packet)

    def _forget(self, receiver: int) -> None:
        for session in [s for s, (r, _) in self._sessions.items() if r == receiver]:
            del self._sessions[session]

    def _mirror(self, peer: Peer, packet: p.Mirror) -> None:
        self._book.mirror(peer.serial, packet.session, packet.of)
        self._mirrored(peer.serial, packet.session, packet.of)

    def _mirrored(self, receiver: int, session: int, of: int) -> None:
        self._sessions[session] = (receiver, of)
        sender = self._peers.get(of)
        if sender is not None:
            self._send_fence(sender, session, receiver)

    def _send_fence(self, sender: Peer, session: int, receiver: int) -> None:
        number = self.seen[self.serial]
        sender.post_fixed(number, p.encode(p.Fence(session, receiver, number)))

    def _fence(self, peer: Peer, packet: p.Fence) -> None:
        # What was not sent up to there was not wanted here.
        self._saw(peer.serial, packet.number)
        if packet.receiver not in self._dead:
            self._fences.read(packet.session, packet.receiver, peer.serial)
            self._look()

    def _unmirror(self, peer: Peer, packet: p.Unmirror) -> None:
        self._book.unmirror(peer.serial, packet.session)
        self._sessions.pop(packet.session, None)
        if packet.session not in self._giving:
            self._fences.over(packet.session)

    def _linked(self, peer: Peer) -> None:
        for session, (receiver, of) in self._sessions.items():
            if of == peer.serial:
                self._send_fence(peer, session, receiver)
        super()._linked(peer)

    def _left(self, peer: Peer) -> None:
        serial = peer.serial
        self._forget(serial)
        self._fences.left(serial)
        super()._left(peer)

    def _look(self) -> None:
        if self._fences:
            for waiting in self._fences.begin(self._peers, self._dead):
                self._go(waiting)
        super()._look()
