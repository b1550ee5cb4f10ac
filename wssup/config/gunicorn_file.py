"""Reading a ``gunicorn.conf.py``: a process of its own runs it and asks gunicorn what it means.

The file is code, and the master runs no code but its own. Run as a program (``python -m``), this is
that process: it prints one JSON document.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import traceback
from typing import Any, Final, NamedTuple

from wssup.config.gunicorn import ADDRESS
from wssup.errors import UserError

__all__ = ["GunicornFile", "read"]

#: Seconds that a file may take: it may look something up.
_PATIENCE: Final = 30.0
_INSTALL: Final = "pip install 'wssup[gunicorn]'"


class GunicornFile(NamedTuple):
    """What a file says.

    :ivar values: by gunicorn's names, as gunicorn reads them.
    :ivar names: of those that the file sets.
    """

    values: dict[str, Any]
    names: list[str]


def read(path: str, cwd: str) -> GunicornFile:
    """The settings in a file.

    :param path: absolute.
    :param cwd: the directory that it is run in.
    :raises UserError: it is not there, fails, or sets what gunicorn does not take; or gunicorn is
        missing.
    """
    # -P: what lies in that directory is the file's to import, and not ours.
    command = [sys.executable, "-P", "-m", "wssup.config.gunicorn_file", path]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, cwd=cwd, capture_output=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{path}: took more than {_PATIENCE:g} s to run", "make it shorter"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be run: {error.strerror}", "name one that exists"
        ) from None
    try:
        # The file may have printed something before.
        answer = json.loads(done.stdout.rpartition(b"\n")[2])
    except ValueError:
        text = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise UserError(f"{path}: ended its process: {text}", "mend it") from None
    if "error" in answer:
        problem = UserError(f"{path}: {answer['error']}", answer["remedy"])
        if answer["traceback"]:
            problem.add_note(answer["traceback"])
        raise problem
    return GunicornFile(answer["values"], answer["names"])


def _main(path: str) -> dict[str, Any]:
    try:
        from gunicorn.config import Config  # noqa: PLC0415 - optional, and only of this process
    except ImportError:
        return _error("gunicorn is not installed here, and only it understands its files", _INSTALL)
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - a path goes on sys.path as text
    try:
        module = runpy.run_path(path, run_name="__config__")
    except FileNotFoundError as error:
        if error.filename == path:
            return _error("no such file", "name one that exists")
        return _error(f"it failed: {error}", "mend it", traceback.format_exc())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's code
        return _error(
            f"it failed: {type(error).__name__}: {error}", "mend it", traceback.format_exc()
        )
    config = Config()
    # As gunicorn does: what it does not know is a variable of the file.
    names = [name for name in module if name in config.settings]
    for name in names:
        try:
            config.set(name, module[name])
        except Exception as error:  # noqa: BLE001 - gunicorn's validators raise what they like
            return _error(f"{name} = {module[name]!r}: {error}", "mend it")
    values = {name: _plain(setting.get()) for name, setting in config.settings.items()}
    values[ADDRESS] = config.address
    return {"values": values, "names": names}


def _plain(value: object) -> object:
    """A value that JSON can carry."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _error(message: str, remedy: str, trace: str = "") -> dict[str, Any]:
    return {"error": message, "remedy": remedy, "traceback": trace}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_main(sys.argv[1])))
