"""Settings: what they are, where they come from, what is wrong with them."""

from __future__ import annotations

from wssup.config.addresses import TcpAddress, UnixAddress, parse_bind
from wssup.config.loading import Changes, Loaded, apply, changes, load
from wssup.config.settings import SETTINGS, Limits, Setting, Settings

__all__ = [
    "SETTINGS",
    "Changes",
    "Limits",
    "Loaded",
    "Setting",
    "Settings",
    "TcpAddress",
    "UnixAddress",
    "apply",
    "changes",
    "load",
    "parse_bind",
]
