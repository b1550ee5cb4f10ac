"""The messages between master, zygote, workers and bridge, and their codec.

Each message is one frozen struct and travels as one datagram of a ``SOCK_SEQPACKET`` pair,
descriptors beside it (unix(7), SCM_RIGHTS). Counts are never messages: they stand in the
scoreboard. A process says in its first message which :data:`PROTOCOL` it speaks, because a reload
may start a newer wssup under an older master.

====================  ===================================================================
master → zygote       :class:`Load`, :class:`Fork`
zygote → master       :class:`Loaded`, :class:`LoadFailed`, :class:`Forked`, :class:`ForkFailed`
master → worker       :class:`Accept`, :class:`Admit`, :class:`Listen`, :class:`Unlisten`,
                      :class:`Drain`, :class:`HandOver`, :class:`TakeOver`, :class:`Recall`,
                      :class:`Peers`, :class:`Publish`, :class:`Inspect`,
                      :class:`CloseConnections`
worker → master       :class:`Hello`, :class:`Ready`, :class:`Failed`, :class:`Leaving`,
                      :class:`Swept`, :class:`HandedOver`, :class:`TookOver`,
                      :class:`PublishDone`, :class:`Inspected`, :class:`ConnectionsClosing`
master → bridge       :class:`Bridge`, :class:`Peers`
bridge → master       :class:`Hello`, :class:`Failed`
====================  ===================================================================

Workers and bridge are the *nodes* of the bus of topics. The master makes a stream pair for each two
of them and gives each its end; what they say there (:mod:`wssup.topics.packets`) it never hears.

Connections move between two workers in *sessions*: the master gives each one end of a stream pair,
one says :class:`HandOver`'s part on it and the other :class:`TakeOver`'s; both report its end
(:mod:`wssup.moves`).
What is asked about single connections is in :mod:`wssup.questions`.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from wssup.errors import MessageError
from wssup.moves import LEFT, HandedOver, HandOver, Recall, Swept, TakeOver, TookOver
from wssup.questions import CloseConnections, ConnectionsClosing, Inspect, Inspected
from wssup.questions import Tagged as _Message

__all__ = [
    "GRACE",
    "LEFT",
    "PROTOCOL",
    "Accept",
    "Admit",
    "Bridge",
    "CloseConnections",
    "ConnectionsClosing",
    "Drain",
    "Failed",
    "Fork",
    "ForkFailed",
    "Forked",
    "HandOver",
    "HandedOver",
    "Hello",
    "Inspect",
    "Inspected",
    "Leaving",
    "Listen",
    "Load",
    "LoadFailed",
    "Loaded",
    "Message",
    "Peers",
    "Publish",
    "PublishDone",
    "Ready",
    "Recall",
    "Swept",
    "TakeOver",
    "TookOver",
    "Unlisten",
    "decode",
    "encode",
]

#: Seconds at most that a worker gets beyond its own deadline before it is killed.
GRACE: Final = 5.0

#: The version of this vocabulary. A process that meets another one says so and ends.
PROTOCOL = 5


class Load(_Message, frozen=True, tag="load"):
    """To a zygote, first: which application to import, and for whom."""

    protocol: int
    instance: str
    generation: int
    application: str
    app_dir: str
    preload: bool
    scoreboard: str
    #: ``module:function`` of the worker's entry; the supervisor never imports the server.
    entry: str
    settings: dict[str, Any]
    #: The instance's name among all there are: random, from its start to its end the same.
    node: str = ""


class Loaded(_Message, frozen=True, tag="loaded"):
    """From a zygote: the application is imported; workers can be forked."""

    protocol: int
    #: ``app_dir`` with its symbolic links resolved: what this generation's code is.
    app_dir: str
    #: A digest of the files of the imported modules; differs when they changed on disk.
    digest: str
    seconds: float
    warnings: list[str]


class LoadFailed(_Message, frozen=True, tag="load_failed"):
    """From a zygote, last: the application cannot be imported."""

    message: str
    remedy: str
    traceback: str


class Fork(_Message, frozen=True, tag="fork"):
    """To a zygote: fork a worker. Descriptors: its channel, then a listener per address."""

    serial: int
    slot: int
    row: int
    addresses: list[str]


class Forked(_Message, frozen=True, tag="forked"):
    """From a zygote: the worker runs, and is now the master's child."""

    serial: int
    pid: int


class ForkFailed(_Message, frozen=True, tag="fork_failed"):
    """From a zygote: the worker could not be forked."""

    serial: int
    message: str


class Hello(_Message, frozen=True, tag="hello"):
    """From a worker or a bridge, first."""

    protocol: int
    pid: int


class Ready(_Message, frozen=True, tag="ready"):
    """From a worker: start-up is done, it accepts."""

    seconds: float
    #: Whether its application's connections can move to another worker.
    resumable: bool = False
    #: The lowest and the highest version of a connection's record that it reads and writes.
    records: tuple[int, int] = (0, 0)


class Failed(_Message, frozen=True, tag="failed"):
    """From a worker, last: it could not start, or its application ended it. From a bridge: why it
    ends.
    """

    message: str
    traceback: str


class Leaving(_Message, frozen=True, tag="leaving"):
    """From a worker: it drains and ends although the master did not ask for it."""

    reason: str


class Accept(_Message, frozen=True, tag="accept"):
    """To a worker: accept new connections, or no longer (it keeps those it has)."""

    on: bool


class Admit(_Message, frozen=True, tag="admit"):
    """To a worker: let in so many, from now on. Those it has stay."""

    #: For all workers of its slot together; ``None``: as many as descriptors allow.
    connections: int | None
    #: 0: no limit.
    handshakes_per_second: float


class Listen(_Message, frozen=True, tag="listen"):
    """To a worker: accept from these listeners too. Descriptors: one per address.

    The slot is another one's when its listeners are lent, the worker's own when an address was
    added.
    """

    slot: int
    addresses: list[str]


class Unlisten(_Message, frozen=True, tag="unlisten"):
    """To a worker: close its copies of these listeners."""

    slot: int
    addresses: list[str]


class Drain(_Message, frozen=True, tag="drain"):
    """To a worker: accept no more, close the connections, end. A later one replaces it."""

    #: The WebSocket close code (RFC 6455 section 7.4.1) and reason that clients are told.
    code: int
    reason: str
    #: Seconds over which the closes are spread.
    window: float
    #: Seconds after which what is left is cut off.
    timeout: float
    #: Leave connections alone until only the window is left of the timeout.
    wait: bool = False
    #: The whole service ends: nobody will accept after this worker, so it empties its queues.
    final: bool = False
    #: Why connections are closed that should have moved: a label of the scoreboard's
    #: HandoffRefusal; empty if they should not, or if it is known of each.
    unmoved: str = ""
    #: Connections move to other workers: nobody is closed before only the window is left, and the
    #: time for the last answers. A session for them is under way, or follows.
    moves: bool = False

    @property
    def patience(self) -> float:
        """Seconds after which a worker that has not ended is killed."""
        return self.timeout + min(GRACE, self.timeout)


class Peers(_Message, frozen=True, tag="peers"):
    """To a node: its ends of links to these nodes. Descriptors: one per serial number.

    A new node is told first of all nodes there are, also if there are none; later of new ones.
    """

    serials: list[int]
    #: Those it is told of first do not fit into one message, and another one follows.
    more: bool = False


class Publish(_Message, frozen=True, tag="publish"):
    """To a worker: publish a message; it answers with :class:`PublishDone`."""

    #: The master's number for this, never used twice.
    question: int
    topic: str
    #: Whether ``data`` is text, as UTF-8.
    text: bool
    data: bytes


class PublishDone(_Message, frozen=True, tag="publish_done"):
    """From a worker: the message is on its way."""

    question: int
    #: Of the topic, in the whole instance, as far as the worker knows.
    subscribers: int
    #: Why it could not be published; empty if it was.
    error: str = ""


class Bridge(_Message, frozen=True, tag="bridge"):
    """To a bridge, first: between which instance and which server it stands."""

    protocol: int
    instance: str
    #: As of :class:`Load`.
    node: str
    #: Its number among the nodes.
    serial: int
    scoreboard: str
    #: All of them, the server's password too.
    settings: dict[str, Any]


Message: TypeAlias = (
    Load
    | Loaded
    | LoadFailed
    | Fork
    | Forked
    | ForkFailed
    | Hello
    | Ready
    | Failed
    | Leaving
    | Accept
    | Admit
    | Listen
    | Unlisten
    | Drain
    | HandOver
    | TakeOver
    | Recall
    | Swept
    | HandedOver
    | TookOver
    | Peers
    | Publish
    | PublishDone
    | Inspect
    | Inspected
    | CloseConnections
    | ConnectionsClosing
    | Bridge
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """One message as the bytes of one datagram (MessagePack).

    Text that UTF-8 cannot hold (a lone surrogate, as in an undecodable file name: PEP 383) arrives
    with a backslash: an application's error must reach the log whatever it says.
    """
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        return _encoder.encode(_printable(msgspec.to_builtins(message)))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return value


def decode(data: bytes) -> Message:
    """The message in ``data``.

    :raises MessageError: if it is none, or one that this version does not know.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"a message of {len(data)} bytes is not understood: {error}") from error
