"""The settings of an instance: one table that says everything about each.

A field of `Settings` carries its type, its default and a `Spec`. From these come the options of
``wssup serve``, the environment variables, ``wssup config`` and ``docs/reference/settings.md``.
"""

from __future__ import annotations

import typing
from typing import Annotated, Final, Literal

import msgspec

from wssup.config.admission import (
    MaxConnections,
    MaxHandshakes,
    Overflow,
    Steering,
    WorkerConnections,
)
from wssup.config.forms import APP, HEADERS, NAME
from wssup.config.health import Health
from wssup.config.kinds import Binds, Choice, Directory, Flag, Kind, Number, Permissions
from wssup.config.limits import Heartbeat, Limits
from wssup.config.proxies import GunicornConfig, ProxyHeaders, TrustedProxies
from wssup.config.quantities import Duration, Share
from wssup.config.scaling import MAX_WORKERS, Connections, ScaleDownAfter, Workers
from wssup.config.spec import Spec
from wssup.config.topics import Topics
from wssup.config.ways import AsgiResumable, Factory, Interface, RootPath, WorkerClass

__all__ = [
    "SETTINGS",
    "Heartbeat",
    "Limits",
    "Setting",
    "Settings",
    "Spec",
    "Topics",
    "value_of",
    "without_password",
]


class Settings(Health, frozen=True, kw_only=True):
    """Every setting of an instance, validated. Durations are seconds, sizes are bytes.

    ``runtime_dir`` and ``app_dir`` are absolute, not resolved. ``app`` is empty if none was named.
    """

    name: Annotated[
        str,
        Spec(NAME, "Instance", "The name of the instance: one master runs under it.", live=False),
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
            APP,
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
    interface: Interface = "auto"
    factory: Factory = False
    asgi_resumable: AsgiResumable = False
    root_path: RootPath = ""
    preload: Annotated[
        bool,
        Spec(
            Flag(),
            "Application",
            "Whether the application is imported once and then forked, instead of imported in "
            "each worker.",
        ),
    ] = True
    worker: WorkerClass = "trio"

    keep_headers: Annotated[
        tuple[str, ...] | Literal["all"],
        Spec(
            HEADERS,
            "Application",
            "Which request headers a connection keeps for the application once it is open. Fewer "
            "cost less memory; before that, a request has them all.",
        ),
    ] = "all"

    gunicorn_config: GunicornConfig = ""
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
    trusted_proxies: TrustedProxies = ()
    proxy_headers: ProxyHeaders = "x-forwarded"
    address_linger: Annotated[
        float,
        Spec(
            Duration(),
            "Addresses",
            "How long an address that a reload removed is still accepted from, so that "
            "handshakes in flight finish.",
        ),
    ] = 64.0

    workers: Workers = "auto"
    connections: Connections = 0
    scale_down_after: ScaleDownAfter = 60.0
    max_workers: Annotated[
        int,
        Spec(
            Number(1, MAX_WORKERS),
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
    rebalance: Annotated[
        bool,
        Spec(
            Flag(),
            "Workers",
            "Whether connections move to workers that are new, after scaling up or when a lost "
            "one was replaced, until all have equally many; every 10 s at most.",
        ),
    ] = False

    steering: Steering = "least"
    max_connections: MaxConnections = 0
    worker_connections: WorkerConnections = 0
    max_handshakes_per_second: MaxHandshakes = 0
    overflow: Overflow = "queue"

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
        Literal["handoff", "close", "wait"],
        Spec(
            Choice(("handoff", "close", "wait")),
            "Reload",
            "Whether old workers hand their connections over to the new ones, close them, or wait "
            "until these end by themselves. What cannot be handed over is closed.",
        ),
    ] = "handoff"
    resume_failure_limit: Annotated[
        float,
        Spec(
            Share(),
            "Reload",
            "The share of a worker's connections that may fail to resume in the new code; more of "
            "them roll the reload back.",
        ),
    ] = 0.01

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
    topics: Topics = Topics()


class Setting(msgspec.Struct, frozen=True):
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
    # Those of a part that stands in a file of its own come after the struct's own.
    own = struct.__annotations__
    for field in sorted(msgspec.structs.fields(struct), key=lambda field: field.name not in own):
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


def without_password(settings: Settings) -> Settings:
    """The settings for processes that run the application, or show them: all but a password."""
    bus = SETTINGS["topics.bus"].kind.public(settings.topics.bus)
    topics = msgspec.structs.replace(settings.topics, bus=bus)
    return msgspec.structs.replace(settings, topics=topics)
