"""A test that plays systemd: gives a real master a notify socket, a watchdog, descriptors and an fd
store, and hears what it says.
"""

from __future__ import annotations

import array
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.harness import processes
from tests.harness.instance import Instance

#: Lays descriptors out as sd_listen_fds(3) says, then becomes the command. Arguments: how many
#: there are, their numbers, the command.
_LAUNCH = """\
import fcntl, os, sys
count = int(sys.argv[1])
numbers, command = [int(n) for n in sys.argv[2:2 + count]], sys.argv[2 + count:]
high = [fcntl.fcntl(n, fcntl.F_DUPFD_CLOEXEC, 200) for n in numbers]
for number in numbers:
    os.close(number)
for place, number in enumerate(high):
    os.dup2(number, 3 + place)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execv(command[0], command)
"""


class ServiceManager:
    """Hears a master, and keeps its descriptors.

    :param address: a path, or ``@`` and a name.
    :ivar heard: each datagram as a dict.
    :ivar store: the fd store, by name, in the order in which they came.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[dict[str, str]] = []
        self.store: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._ours, self._wakes = socket.socketpair()
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def told(self, name: str, value: str | None = None) -> list[dict[str, str]]:
        """The datagrams that have such a line."""
        return [d for d in list(self.heard) if name in d and value in {None, d[name]}]

    def catch_up(self) -> None:
        """Wait until all that was said by now is heard: datagrams of a unix socket keep their order
        (unix(7)).
        """
        before = len(self.told("CATCH_UP"))
        address = self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"CATCH_UP=1", "\0" + address[1:] if address[0] == "@" else address)
        self.wait("CATCH_UP", count=before + 1)

    def wait(self, name: str, value: str = "1", count: int = 1, seconds: float = 60) -> None:
        """Wait until it was told so often."""
        processes.until(
            lambda: len(self.told(name, value)) >= count,
            seconds,
            f"{name}={value}; heard {self.heard[-5:]}",
        )

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._thread.join(10)
        self._wakes.close()
        self._socket.close()
        for descriptor in self.store.values():
            os.close(descriptor)
        self.store.clear()

    def _hear(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._wakes], [], [])
            if self._wakes in ready:
                return
            self._take()

    def _take(self) -> None:
        data, ancillary, _, _ = self._socket.recvmsg(4096, 1024)
        descriptors = array.array("i")
        for _, _, payload in ancillary:
            descriptors.frombytes(payload)
        said = dict(line.split("=", 1) for line in data.decode().split("\n"))
        if "FDSTOREREMOVE" in said and (gone := self.store.pop(said["FDNAME"], None)) is not None:
            os.close(gone)
        for descriptor in descriptors:
            assert said["FDSTORE"] == "1", said
            # As systemd does, it keeps one that it has already only once.
            if said["FDNAME"] in self.store:
                os.close(descriptor)
            else:
                self.store[said["FDNAME"]] = descriptor
        self.heard.append(said)


class Serviced(Instance):
    """An instance that a service manager starts.

    :param passed: descriptors and their names, as a socket unit passes them; those in the store of
        the manager follow.
    :param environment: further variables.
    """

    def __init__(
        self,
        home: Path,
        manager: ServiceManager | None,
        settings: dict[str, Any],
        *,
        application: str = "",
        passed: Sequence[tuple[str, int]] = (),
        environment: dict[str, str] | None = None,
        store: int = 64,
    ) -> None:
        self.manager = manager
        self.passed = list(passed)
        self.store = store
        self.further = environment or {}
        super().__init__(home, application, settings)

    def _serve(self) -> subprocess.Popen[bytes]:
        stored = list(self.manager.store.items()) if self.manager is not None else []
        descriptors = [*self.passed, *stored]
        environ = self.environ | self.further
        if self.manager is not None:
            environ["NOTIFY_SOCKET"] = self.manager.address
            if self.store:
                environ["FDSTORE"] = str(self.store)
        if descriptors:
            environ["LISTEN_FDS"] = str(len(descriptors))
            environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in descriptors)
        numbers = [descriptor for _, descriptor in descriptors]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(len(numbers)), *map(str, numbers),
                 *self.command("serve")],
                cwd=self.home,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=numbers,
            )  # fmt: skip

    def restarted(self) -> None:
        """Start it again, with what is in the store."""
        assert self.process.poll() is not None
        self.process = self._serve()
        self.pid = self.process.pid
