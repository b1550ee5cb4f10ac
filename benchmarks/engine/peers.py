"""The peers' own virtual environment: installed once, and again when the requirements change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1] / "peers"
_CACHE = HOME.parent / ".peers"
_REQUIREMENTS = HOME / "requirements.txt"
PYTHON = _CACHE / "bin" / "python"


def install() -> None:
    """Install the pinned peers, unless they are.

    :raises SystemExit: with what pip said, if it failed.
    """
    wanted = f"{sys.version}\n{_REQUIREMENTS.read_text()}"
    stamp = _CACHE / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing the peers into {_CACHE.name} …", file=sys.stderr, flush=True)
    shutil.rmtree(_CACHE, ignore_errors=True)
    pip = [str(PYTHON), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(_CACHE)],
        [*pip, "install", "-r", str(_REQUIREMENTS)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    stamp.write_text(wanted)


def versions() -> dict[str, str]:
    """The pinned versions, by name."""
    lines = [line.partition("#")[0].strip() for line in _REQUIREMENTS.read_text().splitlines()]
    return dict(line.split("==", 1) for line in lines if line)
