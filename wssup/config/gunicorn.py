"""What settings of gunicorn mean here (gunicorn 23 or newer).

A table with a row for each of gunicorn's settings: the setting of wssup that it becomes, or why
there is none and what to do instead. Pure: gunicorn itself is asked elsewhere (gunicorn_file.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

from wssup.config.settings import SETTINGS

__all__ = ["ADDRESS", "HOOKS", "WORKER_SETTINGS", "Left", "translate"]

ADDRESS: Final = "address"
"""What ``bind`` is among the values that are translated: the parsed list ``Config.address``."""

HOOKS: Final = frozenset({"post_fork", "post_worker_init", "worker_exit"})
"""Hooks that workers of wssup call."""

WORKER_SETTINGS: Final = frozenset(
    {
        *("forwarded_allow_ips", "graceful_timeout", "keepalive"),
        *("limit_request_field_size", "limit_request_fields", "limit_request_line"),
    }
)
"""What a worker inside gunicorn takes over of them. (The arbiter keeps to the others.)"""

_Values = Mapping[str, Any]
_Found = dict[str, object]

_MOST_HEADER_BYTES: Final = 1 << 20
_SHORTEST_STALL: Final = 2.0
_USUAL_WINDOW: Final = 10.0


class Left(NamedTuple):
    """A setting of gunicorn that has no meaning here, or not all of the one it has there."""

    name: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why} → {self.remedy}"


class _NoneError(Exception):
    """This value of a setting has no counterpart.

    :ivar why: and ``remedy``: as `Left` has them.
    """

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy


def translate(values: _Values, names: Collection[str]) -> tuple[_Found, list[Left]]:
    """The settings of wssup, by key, that those of gunicorn become; and those that become none.

    :param values: by gunicorn's names, as its ``Config`` holds them, and `ADDRESS`.
    :param names: of those that were given.
    """
    found: _Found = {}
    left: list[Left] = []
    for name in sorted(names):
        try:
            if name in _RULES:
                found |= _RULES[name](values)
            elif name not in HOOKS:
                left.append(Left(name, *_why(name)))
        except _NoneError as error:
            left.append(Left(name, error.why, error.remedy))
    # A setting that this version does not have.
    return {key: value for key, value in found.items() if key in SETTINGS}, left


def _bind(values: _Values) -> _Found:
    binds = []
    for address in values[ADDRESS]:
        if isinstance(address, int):
            raise _NoneError(
                f"descriptor {address} cannot be named",
                "let systemd pass it: `wssup systemd socket`",
            )
        if isinstance(address, str):
            binds.append(f"unix:{address}")
            continue
        host, port = address[0] or "0.0.0.0", address[1]  # noqa: S104 - what gunicorn means by it
        binds.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return {"bind": binds}


def _app(values: _Values) -> _Found:
    name = values["wsgi_app"]
    if "(" in name:
        raise _NoneError("a call is no name", f"wssup serve {name.partition('(')[0]} --factory")
    return {"app": name if ":" in name else f"{name}:application"}


def _worker_class(values: _Values) -> _Found:
    name = str(values["worker_class"]).rpartition(".")[2].lower()
    if "uvicorn" in name or "asgi" in name:
        return {"worker": "uvicorn"}
    if "trio" in name:
        return {"worker": "trio"}
    raise _NoneError(
        "its workers serve WSGI, which has no WebSockets",
        "keep gunicorn for that application, beside wssup",
    )


def _timeout(values: _Values) -> _Found:
    seconds = float(values["timeout"])
    if not seconds:
        raise _NoneError(
            "a worker that hangs is always ended", "raise hang_after if 30 s is too early"
        )
    stall = {"stall_after": seconds / 2} if seconds <= _SHORTEST_STALL else {}
    return {"hang_after": seconds, **stall}


def _graceful_timeout(values: _Values) -> _Found:
    seconds = float(values["graceful_timeout"])
    window = {"drain_window": seconds / 3} if seconds < _USUAL_WINDOW else {}
    return {"drain_timeout": seconds, **window}


def _head(values: _Values) -> _Found:
    """Of a request line and each field there, of all of them together here: one field of the
    largest size fits.
    """
    line, field = values["limit_request_line"], values["limit_request_field_size"]
    if not line or not field:
        return {"limits.header_bytes": _MOST_HEADER_BYTES}
    return {"limits.header_bytes": min(max(256, line + field), _MOST_HEADER_BYTES)}


def _proxies(values: _Values) -> _Found:
    """Whoever connects through a unix socket is trusted there, too."""
    proxies: list[str] = []
    for address in values["forwarded_allow_ips"]:
        proxies += ["0.0.0.0/0", "::/0"] if str(address) == "*" else [str(address)]
    return {"trusted_proxies": [*dict.fromkeys(proxies), "unix"]}


def _log_level(values: _Values) -> _Found:
    level = str(values["loglevel"]).lower()
    return {"log_level": "error" if level == "critical" else level}


def _errorlog(values: _Values) -> _Found:
    if values["errorlog"] in {"-", None}:
        return {}
    raise _NoneError("the log goes to stderr", "redirect it; systemd's journal keeps it")


def _same(
    key: str, name: str, least: float = 0, most: int = 1 << 60
) -> Callable[[_Values], _Found]:
    """A rule for a setting that only has another name, within the bounds that it has here."""
    return lambda values: {
        key: value
        if isinstance(value := values[name], bool | str)
        else min(max(value, least), most)
    }


_RULES: Final[dict[str, Callable[[_Values], _Found]]] = {
    "backlog": _same("backlog", "backlog", 1, 2**31 - 1),
    "bind": _bind,
    "chdir": _same("app_dir", "chdir"),
    "errorlog": _errorlog,
    "forwarded_allow_ips": _proxies,
    "graceful_timeout": _graceful_timeout,
    "keepalive": _same("limits.keep_alive_timeout", "keepalive", 0.01),
    "limit_request_field_size": _head,
    "limit_request_fields": _same("limits.headers", "limit_request_fields", 8, 10_000),
    "limit_request_line": _head,
    "loglevel": _log_level,
    "max_requests": _same("max_worker_connections", "max_requests"),
    "preload_app": _same("preload", "preload_app"),
    "timeout": _timeout,
    "websocket_max_message_size": _same(
        "limits.message_bytes", "websocket_max_message_size", 1, 1 << 30
    ),
    "worker_class": _worker_class,
    "worker_connections": _same("worker_connections", "worker_connections", 1, 10_000_000),
    "workers": _same("workers", "workers", 1, 1000),
    "wsgi_app": _app,
}

_SYSTEMD: Final = ("the service manager does this", "`wssup systemd` prints the unit")
_TLS: Final = ("TLS is not spoken here", "let the proxy in front end it: `wssup proxy-config`")
_LOG: Final = ("there is one log, on stderr", "log_level and log_format set it up")
_NO_ACCESS_LOG: Final = (
    "there is no access log",
    "connections are counted (`wssup status`), and log_level debug tells each end",
)
_LIFESPAN: Final = (
    "its caller, gunicorn's arbiter, is not there",
    "what belongs to a worker goes into the application's lifespan",
)
_METRICS: Final = ("nothing is pushed", "`wssup status --json` tells all that is counted")
_WSGI: Final = ("it is about WSGI", "leave it out")
_OWN_SOCKET: Final = ("wssup has its own", "`wssup status`, `wssup reload`")
_HTTP2: Final = ("HTTP/1.1 is spoken here", "let the proxy in front speak HTTP/2")
_WATCH: Final = ("files are not watched", "`wssup reload` after a change")
_NAMED: Final = ("wssup's parser is strict", "leave it out")

#: By a setting's name, or its beginning, the longest first.
_NONE: Final[dict[str, tuple[str, str]]] = {
    "accesslog": _NO_ACCESS_LOG,
    "access_log": _NO_ACCESS_LOG,
    "asgi_disconnect": _NAMED,
    "asgi_lifespan": ("an application with a lifespan is asked for it", "leave it out"),
    "asgi_loop": ("uvloop is used if it is installed", "leave it out"),
    "ca_certs": _TLS,
    "capture_output": _LOG,
    "casefold": _NAMED,
    "cert": _TLS,
    "check_config": ("it is a command here", "`wssup config --given`"),
    "child_exit": _LIFESPAN,
    "ciphers": _TLS,
    "control_socket": _OWN_SOCKET,
    "daemon": _SYSTEMD,
    "disable_redirect": _NO_ACCESS_LOG,
    "dirty_": ("there are no dirty workers", "run such work in a service of its own"),
    "do_handshake": _TLS,
    "dogstatsd": _METRICS,
    "enable_backlog_metric": ("queues are measured anyway", "`wssup status`"),
    "enable_stdio": _SYSTEMD,
    "forwarder_headers": ("no header becomes part of an environment", "leave it out"),
    "group": _SYSTEMD,
    "header_map": ("no header becomes part of an environment", "leave it out"),
    "http2": _HTTP2,
    "http_protocols": _HTTP2,
    "http_parser": ("httptools parses", "leave it out"),
    "initgroups": _SYSTEMD,
    "keyfile": _TLS,
    "logconfig": _LOG,
    "logger_class": _LOG,
    "max_requests_jitter": ("workers are replaced one after the other", "leave it out"),
    "nworkers_changed": _LIFESPAN,
    "on_": _LIFESPAN,
    "paste": _WSGI,
    "permit_": _NAMED,
    "pidfile": _SYSTEMD,
    "post_request": (
        "requests are not shown to hooks",
        "wrap the application: an event-style on_disconnect, a middleware of ASGI",
    ),
    "pre_exec": ("a new version is a restart", "leave it out; a new application is a reload"),
    "pre_fork": _LIFESPAN,
    "pre_request": (
        "requests are not shown to hooks",
        "wrap the application: an event-style on_request, a middleware of ASGI",
    ),
    "print_config": ("it is a command here", "`wssup config --given`"),
    "proc_name": ("processes are named after the instance", "give it a name with --name"),
    "protocol": ("HTTP and WebSockets are spoken here", "let the proxy in front speak HTTP"),
    "proxy_": ("the PROXY protocol is not spoken", "let the proxy send X-Forwarded-For"),
    "pythonpath": ("modules come from app_dir", "set PYTHONPATH in the unit, or --app-dir"),
    "raw_env": ("the environment is the service manager's", "Environment= in the unit"),
    "raw_paste": _WSGI,
    "reload": _WATCH,
    "reuse_port": ("each worker has a listener of its own anyway", "leave it out"),
    "root_path": ("the proxy's paths are the application's", "mount it there"),
    "secure_scheme_headers": ("X-Forwarded-Proto says it", "have the proxy set that"),
    "sendfile": ("there are no files to send", "let the proxy serve them"),
    "spew": ("it is for gunicorn's developers", "leave it out"),
    "ssl": _TLS,
    "statsd": _METRICS,
    "strip_header": _NAMED,
    "suppress_ragged": _TLS,
    "syslog": _LOG,
    "threads": ("a worker has one thread, and thousands of connections", "leave it out"),
    "tmp_upload_dir": _WSGI,
    "umask": ("a unix socket has the permissions of unix_mode", "set unix_mode"),
    "user": _SYSTEMD,
    "uwsgi": _WSGI,
    "when_ready": _LIFESPAN,
    "worker_abort": ("a worker that hangs logs where it stands", "leave it out"),
    "worker_int": _LIFESPAN,
    "worker_tmp_dir": ("workers say that they live in shared memory", "leave it out"),
}


def _why(name: str) -> tuple[str, str]:
    beginnings = sorted((key for key in _NONE if name.startswith(key)), key=len)
    if beginnings:
        return _NONE[beginnings[-1]]
    return "there is no such thing here", "leave it out"
