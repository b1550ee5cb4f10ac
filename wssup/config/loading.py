"""Loading the settings: defaults < file < environment < command line. (Between defaults and file
stands gunicorn's own configuration, if one is named.)

Every value that is given is checked, also one that a stronger source overrides, and every key must
be known, so that a mistake shows at once and not on the day the override goes.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from wssup.config.addresses import MAX_UNIX_PATH
from wssup.config.bus import without_secrets
from wssup.config.files import FILE_NAME, read_file
from wssup.config.kinds import Given
from wssup.config.places import default_runtime_dir, working_directory
from wssup.config.scaling import AUTO, Autoscale
from wssup.config.settings import SETTINGS, Heartbeat, Limits, Settings, Topics, value_of
from wssup.config.values import BadValueError, format_duration
from wssup.errors import ConfigError, UserError

if TYPE_CHECKING:
    from wssup.config.gunicorn import Left

__all__ = ["CONTROL_SOCKET", "DEFAULT", "Changes", "Loaded", "apply", "changes", "load"]

DEFAULT: Final = "default"
"""The source of a setting that nobody gave."""

CONTROL_SOCKET: Final = "control.sock"
"""The file name of the control socket in the instance's directory."""

_PREFIX: Final = "WSSUP_"
_CONFIG_VARIABLE: Final = "WSSUP_CONFIG"
# No settings: what names the file, and what each process looks at by itself (server/wire.py).
_NO_SETTINGS: Final = frozenset({_CONFIG_VARIABLE, "WSSUP_PURE_PYTHON"})
# What else is looked at in the environment; the rest of it is neither kept nor seen.
_OTHER_VARIABLES: Final = frozenset({"PWD", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"})
_GUNICORN_CONFIG: Final = "gunicorn_config"
_UNKNOWN: Final = "no such setting"


class Changes(NamedTuple):
    """The keys in which two `Settings` differ, in the table's order.

    :ivar live: those that a reload applies.
    :ivar not_live: those that need a restart.
    """

    live: list[str]
    not_live: list[str]


class _Inputs(msgspec.Struct, frozen=True):
    """What was given to `load`, kept to load again."""

    cli: dict[str, object]
    environ: dict[str, str]
    config_file: str | None
    cwd: str
    required: tuple[str, ...]
    gunicorn: dict[str, tuple[object, str]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and where each came from.

    :ivar sources: for each key ``default``, ``wssup.toml:12``, ``WSSUP_WORKERS``, ``--workers``…
    :ivar file: the absolute path of the configuration file that was read, or None.
    :ivar left: settings of gunicorn that mean nothing here.
    """

    settings: Settings
    sources: dict[str, str]
    file: str | None
    _inputs: _Inputs = field(repr=False, compare=False)
    left: tuple[Left, ...] = ()

    def reload(self) -> Loaded:
        """The settings as they are now: the file anew, the same environment and command line.

        :raises UserError: as `load`; also if the file that was read is gone.
        """
        again = _load(self._inputs)
        if self.file is not None and again.file is None:
            raise UserError(f"{self.file} is gone", "put it back, or restart without it")
        return again

    def rows(self) -> list[dict[str, Any]]:
        """Each setting as ``{"key", "value", "source", "live"}``, in the table's order.

        Passwords are not in it.
        """
        return [
            {
                "key": key,
                "value": setting.kind.public(value_of(self.settings, key)),
                "source": self.sources[key],
                "live": setting.spec.live,
            }
            for key, setting in SETTINGS.items()
        ]


def load(
    *,
    cli: Mapping[str, object],
    environ: Mapping[str, str],
    config_file: str | None = None,
    cwd: str | None = None,
    required: Collection[str] = (),
    gunicorn: Mapping[str, tuple[object, str]] | None = None,
) -> Loaded:
    """The settings from all sources.

    :param cli: what the command line gave, by key; None and an empty tuple mean not given.
    :param environ: the environment. An empty variable means not given.
    :param config_file: what ``--config`` named.
    :param cwd: the absolute directory that relative paths start from; default: the current one.
    :param required: keys that some source must give.
    :param gunicorn: what gunicorn's configuration gives, by key, with where from.
    :raises ConfigError: for an unknown key, an impossible value, or two that contradict.
    :raises UserError: if the file cannot be read, or a required setting is missing.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name.startswith(_PREFIX) or name in _OTHER_VARIABLES
    }
    given = {key: value for key, value in cli.items() if value is not None and value != ()}
    directory = working_directory(environ) if cwd is None else cwd
    inputs = _Inputs(given, kept, config_file, directory, tuple(required), dict(gunicorn or {}))
    return _load(inputs)


def changes(old: Settings, new: Settings) -> Changes:
    """The keys in which `new` differs from `old`."""
    found = Changes([], [])
    for key, setting in SETTINGS.items():
        if value_of(old, key) != value_of(new, key):
            (found.live if setting.spec.live else found.not_live).append(key)
    return found


def apply(running: Loaded, fresh: Loaded) -> Loaded:
    """What a reload makes of a `running` instance: `fresh`, but for the settings that are not live.

    :raises ConfigError: if a new value contradicts one that is kept.
    """
    kept = {key for key, setting in SETTINGS.items() if not setting.spec.live}
    values = {key: value_of((running if key in kept else fresh).settings, key) for key in SETTINGS}
    sources = {key: (running if key in kept else fresh).sources[key] for key in SETTINGS}
    settings = _build(values)
    _check_together(settings, sources)
    return Loaded(settings, sources, fresh.file, fresh._inputs, fresh.left)  # noqa: SLF001 - of one class


def _load(inputs: _Inputs) -> Loaded:
    path, layer = _file_layer(inputs)
    layers = [
        (layer, Given(text=False, base=inputs.cwd if path is None else str(path.parent))),
        (_environment_layer(inputs.environ), Given(text=True, base=inputs.cwd)),
        (_cli_layer(inputs.cli), Given(text=True, base=inputs.cwd)),
    ]
    gunicorn, left = _gunicorn_layer(inputs, layers)
    layers.insert(0, (gunicorn, Given(text=False, base=inputs.cwd)))
    runtime_dir, origin = default_runtime_dir(inputs.environ)
    values = {key: setting.default for key, setting in SETTINGS.items()}
    values |= {"runtime_dir": runtime_dir, "app_dir": inputs.cwd}
    sources = dict.fromkeys(SETTINGS, DEFAULT) | {"runtime_dir": origin}
    for key in ("runtime_dir", "app_dir"):
        # These come from outside too, and may be what no setting can be.
        _read(key, values[key], sources[key], Given(text=True, base=inputs.cwd))
    for entries, given in layers:
        for key, (value, source) in entries.items():
            values[key] = _read(key, value, source, given)
            sources[key] = source
    for key in inputs.required:
        if sources[key] == DEFAULT:
            setting = SETTINGS[key]
            raise UserError(
                f"{key} is not set",
                f"give {setting.flag}, {setting.environment} or {key} in {FILE_NAME}",
            )
    settings = _build(values)
    _check_together(settings, sources)
    return Loaded(settings, sources, None if path is None else str(path), inputs, left)


def _gunicorn_layer(
    inputs: _Inputs, layers: list[tuple[dict[str, tuple[object, str]], Given]]
) -> tuple[dict[str, tuple[object, str]], tuple[Left, ...]]:
    """What gunicorn's configuration gives, if the strongest of the layers that name one names
    one, and what of it means nothing here.
    """
    named = ""
    for entries, given in layers:
        if _GUNICORN_CONFIG in entries:
            value, source = entries[_GUNICORN_CONFIG]
            named = str(_read(_GUNICORN_CONFIG, value, source, given))
    if not named:
        return inputs.gunicorn, ()
    # Few have one, and every start would wait for it.
    from wssup.config.gunicorn import translate  # noqa: PLC0415
    from wssup.config.gunicorn_file import read as read_gunicorn  # noqa: PLC0415

    found = read_gunicorn(named, inputs.cwd)
    values, left = translate(found.values, found.names)
    shown = PurePosixPath(named).name
    return {key: (value, shown) for key, value in values.items()}, tuple(left)


def _file_layer(inputs: _Inputs) -> tuple[Path | None, dict[str, tuple[object, str]]]:
    """The file's absolute path and its values; None and nothing if there is no file."""
    named = inputs.config_file or inputs.environ.get(_CONFIG_VARIABLE) or None
    path = Path(inputs.cwd, named or FILE_NAME)
    try:
        return path, read_file(path, named or FILE_NAME)
    except FileNotFoundError:
        if named is None:
            return None, {}
        source = "--config" if inputs.config_file else _CONFIG_VARIABLE
        raise UserError(f"{named} (from {source}): no such file", "name one that exists") from None


def _environment_layer(environ: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    keys = {setting.environment: key for key, setting in SETTINGS.items()}
    layer: dict[str, tuple[object, str]] = {}
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in _NO_SETTINGS:
            continue
        if name not in keys:
            raise ConfigError(
                name,
                without_secrets(environ[name]),
                "environment",
                _UNKNOWN,
                _nearest(name, [*keys, _CONFIG_VARIABLE]),
            )
        if environ[name]:
            layer[keys[name]] = (environ[name], name)
    return layer


def _cli_layer(cli: Mapping[str, object]) -> dict[str, tuple[object, str]]:
    layer: dict[str, tuple[object, str]] = {}
    for key, value in cli.items():
        flag = SETTINGS[key].flag
        if value is False:
            flag = flag.replace("--", "--no-", 1)
        layer[key] = (value, flag)
    return layer


def _read(key: str, value: object, source: str, given: Given) -> object:
    setting = SETTINGS.get(key)
    if setting is None:
        raise ConfigError(key, without_secrets(value), source, _UNKNOWN, _nearest(key, SETTINGS))
    try:
        return setting.kind.read(value, given)
    except BadValueError as error:
        # One --bind is shown as it was written, not as a list of one.
        shown = value[0] if isinstance(value, tuple) and len(value) == 1 else value
        raise ConfigError(
            key, without_secrets(setting.kind.public(shown)), source, error.problem, error.remedy
        ) from None


def _nearest(name: str, known: Collection[str]) -> str:
    """A remedy that names the known name most like `name`."""
    if any(full.startswith(f"{name}.") for full in known):
        return f"it is a table: write [{name}] and its settings below"
    # A key may stand in the wrong table, or outside of its own.
    bare = {full.rpartition(".")[2]: full for full in known}
    folded = name.rpartition(".")[2].replace("-", "_")
    folded = folded.upper() if name.startswith(_PREFIX) else folded.lower()
    close = difflib.get_close_matches(folded, bare, n=1)
    if close:
        return f"did you mean {bare[close[0]]}?"
    return "`wssup config` lists the settings"


def _origin(source: str) -> str:
    return "the default" if source == DEFAULT else f"from {source}"


def _build(values: dict[str, object]) -> Settings:
    top: dict[str, Any] = {key: value for key, value in values.items() if "." not in key}
    tables: dict[str, dict[str, Any]] = {"limits": {}, "heartbeat": {}, "topics": {}}
    for key, value in values.items():
        table, dot, name = key.partition(".")
        if dot:
            tables[table][name] = value
    return Settings(
        **top,
        limits=Limits(**tables["limits"]),
        heartbeat=Heartbeat(**tables["heartbeat"]),
        topics=Topics(**tables["topics"]),
    )


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """Raise ConfigError if two settings contradict each other."""
    for low, high, equal in (
        ("drain_window", "drain_timeout", True),
        ("stall_after", "hang_after", False),
        ("backoff_min", "backoff_max", True),
    ):
        least, most = getattr(settings, low), getattr(settings, high)
        if least > most or (least == most and not equal):
            relation = "shorter" if least > most else "not longer"
            step = "at least" if equal else "more than"
            raise ConfigError(
                high,
                format_duration(most),
                sources[high],
                f"{relation} than {low} = {format_duration(least)!r} ({_origin(sources[low])})",
                f"set {high} to {step} {format_duration(least)}, or lower {low}",
            )
    _check_workers(settings, sources)
    socket = PurePosixPath(settings.runtime_dir, settings.name, CONTROL_SOCKET)
    if len(os.fsencode(socket)) > MAX_UNIX_PATH:
        raise ConfigError(
            "runtime_dir",
            settings.runtime_dir,
            sources["runtime_dir"],
            f"too long: {socket} has more than the {MAX_UNIX_PATH} bytes of a unix socket's path",
            "choose a shorter runtime_dir or name",
        )


def _check_workers(settings: Settings, sources: Mapping[str, str]) -> None:
    """Raise ConfigError if what says how many workers there are contradicts something."""
    workers, count = settings.workers, settings.connections
    shown = SETTINGS["workers"].kind.public(workers)
    if count and workers != AUTO:
        raise ConfigError(
            "connections",
            count,
            sources["connections"],
            f"workers = {shown!r} ({_origin(sources['workers'])}) says how many workers there are",
            f"give one of them: connections = 0, or workers = {AUTO}",
        )
    if count and 0 < settings.max_connections < count:
        raise ConfigError(
            "connections",
            count,
            sources["connections"],
            f"more than max_connections = {settings.max_connections} "
            f"({_origin(sources['max_connections'])}) lets in",
            "raise max_connections, or lower connections",
        )
    most = workers.max if isinstance(workers, Autoscale) else workers
    if most != AUTO and 0 < settings.max_connections < most:
        raise ConfigError(
            "max_connections",
            settings.max_connections,
            sources["max_connections"],
            f"fewer than workers = {shown!r} ({_origin(sources['workers'])}): some could let "
            "nobody in, and who waits for one of these would wait for ever",
            "raise max_connections, or lower workers",
        )
    if most != AUTO and most > settings.max_workers:
        raise ConfigError(
            "workers",
            shown,
            sources["workers"],
            f"more than max_workers = {settings.max_workers} ({_origin(sources['max_workers'])})",
            "raise max_workers (a restart applies it), or lower workers",
        )
