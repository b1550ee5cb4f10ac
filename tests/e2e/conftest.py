"""What these tests need beside Python; where `make e2e` could not install it, they are skipped."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Fixtures of modules that share one machine, which takes long to boot.
from tests.e2e.installed import installed, machine, service, started, wheels  # noqa: F401 - see above
from tests.harness.limited import controller
from tests.harness.nginx import NGINX, PATH
from tests.harness.prometheus import program

HERE = Path(__file__).parent


def _ws() -> bool:
    return bool(shutil.which("node")) and (Path(sys.prefix) / "e2e/node_modules/ws").is_dir()


def _chromium() -> bool:
    return bool(shutil.which("chromium"))


def _playwright() -> bool:
    return _chromium() and importlib.util.find_spec("playwright") is not None


def _nginx() -> bool:
    return NGINX is not None


def _nginx_and_tcpdump() -> bool:
    # Only root may listen to what others send (packet(7)).
    return _nginx() and bool(shutil.which("tcpdump", path=PATH)) and os.geteuid() == 0


def _redis() -> bool:
    return bool(shutil.which("redis-server"))


def _shells() -> bool:
    return bool(shutil.which("zsh") and shutil.which("fish"))


def _prometheus() -> bool:
    return program("prometheus") is not None


def _limits() -> bool:
    """Control groups and namespaces can be made (the former of version 1)."""
    tools = all(shutil.which(tool) for tool in ("prlimit", "unshare", "nsenter", "ip"))
    return tools and all(controller(name) for name in ("pids", "memory"))


#: By the beginning of the file's name.
NEEDS: dict[str, tuple[str, Callable[[], bool]]] = {
    "npm_": ("Node.js and its package ws", _ws),
    "chromium": ("Chromium", _chromium),
    "example_page": ("Chromium", _chromium),
    "chat_page": ("Chromium", _chromium),
    "dashboard": ("Chromium or Playwright", _playwright),
    "redis_": ("a Redis server", _redis),
    "shells": ("zsh or fish", _shells),
    "nginx_front": ("nginx", _nginx),
    "nginx_room": ("nginx, tcpdump or root's rights", _nginx_and_tcpdump),
    "doctor_": ("root's rights, or control groups of version 1", _limits),
    "prometheus": ("Prometheus", _prometheus),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what cannot run here."""
    for item in items:
        for beginning, (what, there) in NEEDS.items():
            mine = item.path.parent == HERE and item.path.name.startswith(beginning)
            if mine and not there():
                item.add_marker(pytest.mark.skip(f"{what} is not here (tests/skips.md)"))
