"""The settings of an instance: one table that says everything about each.

A field of `Settings` carries its type, its default and a `Spec`. From these come the options of
``wssup serve``, the environment variables, ``wssup config`` and ``docs/reference/settings.md``.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from wssup.config.kinds import (
    Binds,
    Choice,
    Directory,
    Duration,
    Flag,
    Kind,
    Names,
    Number,
    Permissions,
    Size,
    Text,
)

__all__ = ["SETTINGS", "Heartbeat", "Limits", "Setting", "Settings", "Spec", "value_of"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What the table says about a setting besides its name, type and default.

    :ivar kind: how its values are read and shown.
    :ivar group: the heading it stands under in help and reference.
    :ivar help: one sentence on what it does.
    :ivar live: whether a reload applies a change of it.
    :ivar flag: its option; empty for the usual one (``--drain-window``).
    :ivar default_text: the default in words, where it depends on the surroundings.
    """

    kind: Kind
    group: str
    help: str
    live: bool = True
    flag: str = ""
    default_text: str = ""


_MEMORY = 1 << 30

_Name = Text(
    pattern="[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    form="1 to 64 letters, digits, dots, underscores or hyphens, the first a letter or digit",
    example="default",
    placeholder="NAME",
)
_App = Text(
    pattern=r"(?!\d)\w+(?:\.(?!\d)\w+)*:(?!\d)\w+(?:\.(?!\d)\w+)*",
    form="a module and an attribute of it, with a colon between them",
    example="shop.chat:app",
    placeholder="MODULE:ATTR",
)


_Origins = Names(
    pattern=r"\*|[a-z][a-z0-9+.-]*://(?:\*\.)?[a-z0-9.-]+(?::[0-9]{1,5})?"
    r"|[a-z][a-z0-9+.-]*://\[[0-9a-f:.]+\](?::[0-9]{1,5})?|null",
    form="an origin (`https://example.com`, `https://*.example.com`) or `*`",
    example='["https://example.com"]',
    placeholder="ORIGIN",
    least=1,
)
_Headers = Names(
    pattern=r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}",
    form="the name of a header",
    example='["cookie", "x-forwarded-for"]',
    placeholder="NAMES",
    word="all",
)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[limits]``: what one connection may take."""

    handshake_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Limits",
            "How long a client may take from connecting to a complete WebSocket handshake.",
        ),
    ] = 10.0
    header_bytes: Annotated[
        int,
        Spec(
            Size(256, 1 << 20),
            "Limits",
            "The largest request head of a handshake; a larger one is answered with status 431.",
        ),
    ] = 8 << 10
    headers: Annotated[
        int,
        Spec(
            Number(8, 10_000),
            "Limits",
            "The most header fields of a handshake; more are answered with status 431.",
        ),
    ] = 100
    origins: Annotated[
        tuple[str, ...],
        Spec(
            _Origins,
            "Limits",
            "The origins whose pages may connect; others get status 403. Clients that send no "
            "Origin are no browsers and are not asked.",
            flag="--origin",
        ),
    ] = ("*",)
    connections_per_address: Annotated[
        int,
        Spec(
            Number(0, 10_000_000),
            "Limits",
            "The most connections of one client address in a worker; more are answered with "
            "status 429. 0: no limit.",
        ),
    ] = 0
    message_bytes: Annotated[
        int,
        Spec(
            Size(1, _MEMORY),
            "Limits",
            "The largest message accepted from a client; a larger one closes it with 1009.",
        ),
    ] = 1 << 20
    fragments: Annotated[
        int,
        Spec(
            Number(1, 1_000_000),
            "Limits",
            "The most frames that one message may come in; more close it with 1009.",
        ),
    ] = 1024
    inbound_messages: Annotated[
        int,
        Spec(
            Number(1, 100_000),
            "Limits",
            "How many messages of a connection may wait for the application; then no more is read "
            "of it.",
        ),
    ] = 16
    outbound_bytes: Annotated[
        int,
        Spec(
            Size(1 << 10, _MEMORY),
            "Limits",
            "How much may wait to be sent to a client before slow_client is applied.",
        ),
    ] = 1 << 20
    slow_client: Annotated[
        Literal["wait", "close"],
        Spec(
            Choice(("wait", "close")),
            "Limits",
            "What happens to a client whose outbound queue is full: senders wait for it, or it is "
            "closed with 1013.",
        ),
    ] = "wait"
    send_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Limits",
            "How long a client may take nothing of what waits for it; then it is closed with 1013.",
        ),
    ] = 30.0
    close_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Limits",
            "How long a client may take for its part of the closing handshake; then it is cut off.",
        ),
    ] = 5.0
    read_bytes: Annotated[
        int,
        Spec(
            Size(1 << 10, 16 << 20),
            "Limits",
            "The most that is read of a connection at a time; one buffer serves the whole worker.",
        ),
    ] = 64 << 10


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[heartbeat]``: how dead connections are found."""

    ping_interval: Annotated[
        float,
        Spec(
            Duration(),
            "Heartbeat",
            "How often a client that says nothing is sent a ping. 0: never.",
        ),
    ] = 20.0
    ping_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Heartbeat",
            "How long a client may take to say something after a ping; then it is closed.",
        ),
    ] = 20.0
    app_ping: Annotated[
        bool,
        Spec(
            Flag(),
            "Heartbeat",
            'Whether a text `{"type": "ping"}` is answered with `{"type": "pong"}` instead of '
            "being given to the application: code in a browser cannot send pings.",
        ),
    ] = False


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of an instance, validated. Durations are seconds, sizes are bytes.

    ``runtime_dir`` and ``app_dir`` are absolute, not resolved. ``app`` is empty if none was named.
    """

    name: Annotated[
        str,
        Spec(_Name, "Instance", "The name of the instance: one master runs under it.", live=False),
    ] = "default"
    runtime_dir: Annotated[
        str,
        Spec(
            Directory(),
            "Instance",
            "The directory that holds a directory per instance, with its lock and sockets.",
            live=False,
            default_text="`$RUNTIME_DIRECTORY` (its first entry); else `/run/wssup` for root; "
            "else `$XDG_RUNTIME_DIR/wssup`; else `/tmp/wssup-UID`",
        ),
    ]

    app: Annotated[
        str,
        Spec(
            _App,
            "Application",
            "The application: a module and the handler in it. `serve` needs it.",
            flag="MODULE:ATTR",
            default_text="none",
        ),
    ] = ""
    app_dir: Annotated[
        str,
        Spec(
            Directory(),
            "Application",
            "The directory that modules are imported from; links in it are resolved anew by "
            "each reload.",
            default_text="the current directory",
        ),
    ]
    preload: Annotated[
        bool,
        Spec(
            Flag(),
            "Application",
            "Whether the application is imported once and then forked, instead of imported in "
            "each worker.",
        ),
    ] = True

    keep_headers: Annotated[
        tuple[str, ...] | Literal["all"],
        Spec(
            _Headers,
            "Application",
            "Which request headers a connection keeps for the application once it is open. Fewer "
            "cost less memory; before that, a request has them all.",
        ),
    ] = "all"

    bind: Annotated[
        tuple[str, ...],
        Spec(Binds(), "Addresses", "The addresses to listen on."),
    ] = ("127.0.0.1:8000",)
    backlog: Annotated[
        int,
        Spec(
            Number(1, 2**31 - 1),
            "Addresses",
            "How many connections may wait per listener; net.core.somaxconn caps it.",
            live=False,
        ),
    ] = 4096
    unix_mode: Annotated[
        str,
        Spec(
            Permissions(),
            "Addresses",
            "The permissions of the unix sockets that bind names.",
            live=False,
        ),
    ] = "0660"
    address_linger: Annotated[
        float,
        Spec(
            Duration(),
            "Addresses",
            "How long an address that a reload removed is still accepted from, so that "
            "handshakes in flight finish.",
        ),
    ] = 64.0

    workers: Annotated[
        int | Literal["auto"],
        Spec(
            Number(1, 1000, "auto"),
            "Workers",
            "How many workers run; auto: as many as the CPU affinity and the cgroup's quota allow.",
        ),
    ] = "auto"
    max_workers: Annotated[
        int,
        Spec(
            Number(1, 1000),
            "Workers",
            "The most workers that scaling may reach; shared memory is reserved for them at start.",
            live=False,
        ),
    ] = 64
    reserve_fds: Annotated[
        int,
        Spec(
            Number(16, 1_000_000),
            "Workers",
            "File descriptors that a worker keeps for things other than connections.",
        ),
    ] = 64

    ready_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Reload",
            "How long a new worker may take until it is ready.",
        ),
    ] = 30.0
    settle: Annotated[
        float,
        Spec(
            Duration(),
            "Reload",
            "How long the new workers must run well before the old ones drain.",
        ),
    ] = 5.0
    max_surge: Annotated[
        int | Literal["all"],
        Spec(
            Number(1, 1000, "all"),
            "Reload",
            "How many slots may run a second worker at the same time during a reload.",
        ),
    ] = "all"
    on_reload: Annotated[
        Literal["close", "wait"],
        Spec(
            Choice(("close", "wait")),
            "Reload",
            "Whether old workers close their connections, or wait until these end by themselves.",
        ),
    ] = "close"

    drain_window: Annotated[
        float,
        Spec(
            Duration(),
            "Drain",
            "The time over which a draining worker spreads the closing of its connections.",
        ),
    ] = 10.0
    drain_timeout: Annotated[
        float,
        Spec(
            Duration(),
            "Drain",
            "How long a draining worker may live in all; at least drain_window.",
        ),
    ] = 30.0

    stall_after: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "After how long without a heartbeat a worker gets no new connections.",
        ),
    ] = 2.0
    hang_after: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "After how long without a heartbeat a worker is killed; more than stall_after.",
        ),
    ] = 30.0
    backoff_min: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "The wait before a worker that died is started again; it doubles with each failure.",
        ),
    ] = 0.1
    backoff_max: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "The longest wait before a worker is started again; at least backoff_min.",
        ),
    ] = 30.0
    failure_budget: Annotated[
        int,
        Spec(
            Number(1, 1000),
            "Health",
            "How many failures within failure_window a slot may have until it is given up.",
        ),
    ] = 5
    failure_window: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Health",
            "The time within which a slot's failures are counted.",
        ),
    ] = 60.0

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Spec(
            Choice(("debug", "info", "warning", "error")),
            "Logs",
            "The least important events that are logged.",
            live=False,
        ),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "pretty", "json"],
        Spec(
            Choice(("auto", "pretty", "json")),
            "Logs",
            "How events are written; auto: pretty on a terminal, JSON lines otherwise.",
            live=False,
        ),
    ] = "auto"

    limits: Limits = Limits()
    heartbeat: Heartbeat = Heartbeat()


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    :ivar key: the key in ``wssup.toml``, with its table: ``workers``, ``limits.message_bytes``.
    :ivar default: the default, or None where it depends on the surroundings.
    """

    key: str
    default: object
    spec: Spec

    @property
    def kind(self) -> Kind:
        """How its values are read and shown."""
        return self.spec.kind

    @property
    def environment(self) -> str:
        """The environment variable: ``WSSUP_WORKERS``, ``WSSUP_LIMITS_MESSAGE_BYTES``."""
        return "WSSUP_" + self.key.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """The option of the command line; for ``app`` the argument's placeholder."""
        return self.spec.flag or "--" + self.key.rpartition(".")[2].replace("_", "-")

    @property
    def default_text(self) -> str:
        """The default as TOML, or in words where it depends on the surroundings."""
        return self.spec.default_text or self.kind.show(self.default)


def _rows(struct: type[msgspec.Struct], prefix: str = "") -> list[Setting]:
    hints = typing.get_type_hints(struct, include_extras=True)
    rows: list[Setting] = []
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            rows += _rows(hint, f"{field.name}.")
            continue
        spec = next(extra for extra in hint.__metadata__ if isinstance(extra, Spec))
        default = None if field.default is msgspec.NODEFAULT else field.default
        rows.append(Setting(prefix + field.name, default, spec))
    return rows


SETTINGS: Final[dict[str, Setting]] = {row.key: row for row in _rows(Settings)}
"""The table, by key, in the order in which settings are shown."""


def value_of(settings: Settings, key: str) -> object:
    """The value of the setting `key` (``limits.message_bytes`` for one in a table)."""
    value: object = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value
