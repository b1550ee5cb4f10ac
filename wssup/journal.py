"""The journal as the output of the log: what journald makes of standard error, and its own
protocol.

Lines on standard error begin with their level (``<6>``, sd-daemon(3)). Events of the instance's
life are sent to the journal itself, with their fields and an id that programs can wait for
(systemd.journal-fields(7)); one that cannot be sent is a line like the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog

__all__ = ["MESSAGE_IDS", "SOCKET", "Renderer", "entry", "fields", "is_output", "plain", "prefixed"]

SOCKET: Final = "/run/systemd/journal/socket"
#: syslog(3): what journalctl filters and colours by.
_PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
#: Characters of a value; what is longer is cut, so that an entry always fits into a datagram.
_LONGEST: Final = 16 * 1024

MESSAGE_IDS: Final = {
    "starting": "24a83c509ead48a295f14fa9cd07fe0f",
    "running": "ce55c104ef704993bad77a9e985b877a",
    "reload_started": "853ff60f40d54b1394c87ada2ef8b710",
    "reload_done": "07b8b4f893514326ad338f9f210c59a2",
    "reload_rolled_back": "7453f9369a684baf945e2fc381e794a6",
    "reload_refused": "034d3c97612c4ec68b520e1c9232978f",
    "worker_lost": "20074a4dfb15404f943a07cb00d8d084",
    "worker_hung": "5abe949469db41d193c209ba4ba2cff9",
    "slot_failed": "7aebee5527ed4925a3061f9bf4efc13b",
    "zygote_lost": "bcbca2d61e084075924129e7fe3e797b",
    "generation_mixed": "3401853888ba4ea88dac08c7c54a7138",
    "watchdog_unfed": "554b103846ed44e59d256bc5597b3386",
    "stopping": "92709e8732624ca5b82206674918baff",
    "stopped": "4f81afdd2db7404392581d312eb4123a",
    "cannot_start": "289c382378a04f66a1a1048df80b9051",
}
"""The ids of events in the life of an instance (MESSAGE_ID). They never change."""


def is_output(environ: Mapping[str, str], descriptor: int) -> bool:
    """Whether a descriptor is the stream that the service manager connected to the journal
    (systemd.exec(5), ``$JOURNAL_STREAM``).
    """
    named = environ.get("JOURNAL_STREAM", "")
    if not named:
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def plain(event: Mapping[str, Any]) -> str:
    """An event for people. Time and level are the journal's business."""
    words = [str(event.get("event", ""))]
    words += [
        f"{key}={_word(value)}"
        for key, value in event.items()
        if key not in {"event", "level", "timestamp", "exception"}
    ]
    text = " ".join(words)
    exception = event.get("exception")
    return f"{text}\n{exception}" if exception else text


def prefixed(text: str, level: str) -> str:
    """Each line with its level."""
    priority = _PRIORITIES.get(level, 6)
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


def fields(event: Mapping[str, Any], message: str) -> list[tuple[str, str]]:
    """An event as fields of the journal: ``slot`` becomes ``WSSUP_SLOT``."""
    name = str(event.get("event", ""))
    found = [
        ("MESSAGE", message),
        ("PRIORITY", str(_PRIORITIES.get(str(event.get("level")), 6))),
        ("SYSLOG_IDENTIFIER", "wssup"),
    ]
    if name in MESSAGE_IDS:
        found.append(("MESSAGE_ID", MESSAGE_IDS[name]))
    for key, value in event.items():
        if key not in {"level", "timestamp"}:
            told = "".join(c if c.isascii() and c.isalnum() else "_" for c in key.upper())
            found.append((f"WSSUP_{told}"[:64], str(value)))
    return found


def entry(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A datagram of the journal's own protocol ("Native Journal Protocol"): ``NAME=value`` lines; a
    value that has lines itself comes after its length.
    """
    data = bytearray()
    for name, value in pairs:
        raw = value[:_LONGEST].encode("utf-8", "backslashreplace")
        if b"\n" in raw:
            data += name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
        else:
            data += name.encode() + b"=" + raw + b"\n"
    return bytes(data)


class Renderer:
    """The last processor of the log: sends what the journal should have as fields, and makes a line
    of the rest.

    :param as_json: lines are JSON, because somebody asked for it.
    :param address: the journal's socket.
    """

    def __init__(self, *, as_json: bool, address: str = SOCKET) -> None:
        self._as_json = as_json
        self._address = address
        self._socket: socket.socket | None = None

    def __call__(self, _logger: object, _method: str, event: Mapping[str, Any]) -> str:
        """The line of an event, if it is to be one."""
        text = json.dumps(event, default=str) if self._as_json else plain(event)
        if event.get("event") in MESSAGE_IDS and self._send(entry(fields(event, text))):
            raise structlog.DropEvent
        return prefixed(text, str(event.get("level")))

    def close(self) -> None:
        """Close the socket; another event opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, data: bytes) -> bool:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        with contextlib.suppress(OSError):
            # Not connected: a journal that was started anew has another socket there.
            self._socket.sendto(data, self._address)
            return True
        return False


def _word(value: object) -> str:
    if isinstance(value, str) and value and not any(c.isspace() or c in "\"'=" for c in value):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)
