"""Reading ``wssup.toml``: its values by key, and the line that each stands on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from wssup.config.settings import SETTINGS
from wssup.errors import UserError

__all__ = ["FILE_NAME", "MAX_FILE", "key_lines", "read_file"]

FILE_NAME: Final = "wssup.toml"
"""The file that is read from the current directory if none is named."""

MAX_FILE: Final = 1 << 20
"""Bytes in a configuration file: what is larger (``/dev/zero``) is something else."""

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TABLES: Final = frozenset(key.partition(".")[0] for key in SETTINGS if "." in key)


def read_file(path: Path, shown: str) -> dict[str, tuple[object, str]]:
    """Each key of the file with its value and its source (``wssup.toml:12``).

    Keys of tables that settings have are joined with a dot; other tables are values.

    :param shown: how to name the file in messages.
    :raises FileNotFoundError: if there is none.
    :raises UserError: if it cannot be read, or is not UTF-8 or not TOML; names the line.
    """
    text = _decode(_read(path, shown), shown)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # ValueError besides TOMLDecodeError: an integer of more digits than int() takes.
        raise _bad_toml(error, text, shown) from None
    lines = key_lines(text)
    values: dict[str, tuple[object, str]] = {}
    for key, value in document.items():
        flat = (
            {f"{key}.{inner}": item for inner, item in value.items()}
            if (key in _TABLES and isinstance(value, dict))
            else {key: value}
        )
        for name, item in flat.items():
            line = lines.get(name, lines.get(key))
            values[name] = (item, shown if line is None else f"{shown}:{line}")
    return values


def key_lines(text: str) -> dict[str, int]:
    """The line (from 1) on which each key of a valid TOML document is set.

    tomllib does not tell positions, so the document is taken apart into statements: from a
    statement's first line, the fewest lines that are TOML by themselves.
    """
    found: dict[str, int] = {}
    prefix = ""
    statement: list[str] = []
    first = 1
    for number, line in enumerate(text.split("\n"), start=1):
        if not statement:
            first = number
        statement.append(line)
        try:
            part = tomllib.loads("\n".join(statement))
        except tomllib.TOMLDecodeError:
            continue
        if statement[0].lstrip().startswith("["):
            prefix = "".join(f"{key}." for key in _path(part))
            found.setdefault(prefix.rstrip("."), first)
        else:
            for key in part:
                path = ".".join(_path({key: part[key]}))
                found.setdefault((prefix + path), first)
                # The table that a dotted key begins: for messages about the table itself.
                found.setdefault((prefix + key), first)
        statement = []
    return found


def _path(table: dict[str, Any]) -> list[str]:
    """The keys that lead through tables of one entry each."""
    keys: list[str] = []
    inner: Any = table
    while isinstance(inner, dict) and len(inner) == 1:
        key, inner = next(iter(inner.items()))
        keys.append(key)
    return keys


def _read(path: Path, shown: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise UserError(f"{shown}: a directory, not a file", f"name {shown}/{FILE_NAME}") from None
    except OSError as error:
        raise UserError(
            f"{shown}: cannot be read: {error.strerror}", "mend its permissions or name another"
        ) from None
    if len(content) > MAX_FILE:
        raise UserError(f"{shown}: larger than 1 MiB", "name a configuration file with --config")
    return content


def _decode(content: bytes, shown: str) -> str:
    try:
        # A byte order mark is what some editors begin a file with; TOML has none.
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}:{line}: not UTF-8", "save the file as UTF-8") from None


def _bad_toml(error: Exception, text: str, shown: str) -> UserError:
    if isinstance(error, RecursionError):
        return UserError(f"{shown}: not TOML: nested too deeply", "settings are not nested")
    place = _PLACE.search(str(error))
    problem = _PLACE.sub("", str(error))
    if place is None:
        where, column = shown, ""
    elif place[1] is None:
        where, column = f"{shown}:{text.count(chr(10)) + 1}", " at the end of the file"
    else:
        where, column = f"{shown}:{place[1]}", f" in column {place[2]}"
    return UserError(
        f"{where}: not TOML: {problem}{column}",
        'write lines such as workers = 4 or on_reload = "wait"',
    )
