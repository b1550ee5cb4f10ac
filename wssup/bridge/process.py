"""The bridge at work: its node of the bus, and the master's orders."""

from __future__ import annotations

import os
import socket
import traceback

import trio

from wssup import channel, logs
from wssup.bridge.faults import without
from wssup.bridge.node import Node
from wssup.channel import Channel
from wssup.config.bus import parse_bus
from wssup.config.settings import Settings
from wssup.errors import MessageError
from wssup.messages import PROTOCOL, Bridge, Failed, Hello, Peers
from wssup.scoreboard import Scoreboard

__all__ = ["run"]

#: Characters of a traceback that the master is told; the channel bounds a message.
_TRACEBACK = 32 << 10


def run(end: socket.socket, order: Bridge, settings: Settings) -> int:
    """Be the bridge until the master closes the channel; returns the exit status."""
    try:
        board = Scoreboard.attach(order.scoreboard)
        writer = board.bridge_writer()
        writer.begin(order.serial)
        channel.send(end, Hello(PROTOCOL, os.getpid()))
        node = Node(order.node, order.serial, settings.topics, writer)
        trio.run(_live, node, Channel(end))
        node.over()
        writer.stopped()
    except Exception as error:  # noqa: BLE001 - whatever it is, its words are not shown as they are
        password = parse_bus(settings.topics.bus).password
        text = without(str(error) or type(error).__name__, password)
        told = without(traceback.format_exc(), password)
        logs.get().error("bridge_failed", error=text, exception=told)
        Channel(end).post(Failed(text[:4096], told[-_TRACEBACK:]))
        return 1
    return 0


async def _live(node: Node, master: Channel) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        while True:
            try:
                received = await master.receive()
            except MessageError as error:
                logs.get().error("bridge_message_lost", error=str(error))
                continue
            if received is None:
                await node.bring_out()
                break
            if isinstance(received.message, Peers):
                links = zip(received.message.serials, received.descriptors, strict=False)
                for serial, descriptor in links:
                    node.link(serial, socket.socket(fileno=descriptor))
        nursery.cancel_scope.cancel()
