"""A real nginx, with the configuration that ``wssup proxy-config nginx`` prints for an instance."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.ports import free_port

#: Where programs are, also those of administrators.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NGINX = shutil.which("nginx", path=PATH)


@contextmanager
def nginx(
    instance: Instance, *options: str, edit: Callable[[str], str] = lambda text: text
) -> Iterator[str]:
    """Start one in front of an instance; its address. Ended with all it started.

    :param options: more for ``wssup proxy-config nginx``.
    :param edit: changes what it has printed.
    """
    home = instance.home
    address = f"127.0.0.1:{free_port()}"
    printed = instance.run("proxy-config", "nginx", "--listen", address, "--user", "root", *options)
    assert printed.returncode == 0, printed.stderr
    file, log = home / "nginx.conf", home / "nginx.log"
    # Its process is not the machine's nginx.
    text = re.sub(r"^pid .*;$", f"pid {home}/nginx.pid;", printed.stdout, flags=re.MULTILINE)
    file.write_text(edit(text))
    assert NGINX is not None
    command = [NGINX, "-e", str(log), "-p", str(home), "-c", str(file)]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr, checked.stderr
    process = subprocess.Popen([*command, "-g", "daemon off;"], stdin=subprocess.DEVNULL)
    try:
        processes.until(lambda: _listens(address), 20, "nginx")
        yield address
    finally:
        family = processes.descendants(process.pid)
        process.terminate()
        process.wait(20)
        for pid in family:
            processes.until(
                lambda pid=pid: not processes.alive(pid), 10, "nginx's processes to end"
            )
        print(log.read_text()[-2000:] if log.exists() else "")  # noqa: T201 - of a failing test


def errors(home: Path) -> list[str]:
    """What nginx has complained about."""
    return [
        line
        for line in (home / "nginx.log").read_text().splitlines()
        if re.search(r"\[(warn|error|crit|alert|emerg)\]", line)
    ]


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
