"""The configuration that ``wssup proxy-config nginx`` prints, in the real nginx."""

from __future__ import annotations

import re
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.common import Start
from tests.harness.nginx import errors, nginx
from tests.harness.ports import free_port

#: It says where its client is; of a word it is silent.
APPLICATION = """\
class App:
    def on_receive(self, ws, data):
        if data == "where":
            where = ws.remote
            ws.send_nowait(f"{where.address} {where.is_ssl}")

app = App()
"""
STORY = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "Forwarded": "for=6.6.6.6"}
#: nginx's patience in these tests, seconds; several times of it pass.
_TIMEOUT = 2.0


def impatient(text: str) -> str:
    """The configuration with a timeout that a test can wait for."""
    changed, count = re.subn(r"(proxy_(?:read|send)_timeout) \d+s;", rf"\1 {_TIMEOUT:g}s;", text)
    assert count == 2
    return changed


def where(ws: ClientConnection) -> str:
    """What the application is told of its client."""
    ws.send("where")
    return str(ws.recv(timeout=20))


def test_silence(start: Start, tmp_path: Path) -> None:
    """It ends connections on which nothing is said. The heartbeat keeps those of silent clients,
    and a client that talks to an application that does not answer keeps its own.
    """
    unix = f"unix:{tmp_path}/ws"
    heartbeat = {"ping_interval": "500ms", "ping_timeout": "10s"}
    instance = start(
        APPLICATION, bind=unix, workers=1, trusted_proxies=["unix"], heartbeat=heartbeat
    )
    instance.running()
    with nginx(instance, "--connections", "500", edit=impatient) as address:
        url = f"ws://{address}/"
        with (
            connect(url, proxy=None, ping_interval=None) as silent,
            connect(url, proxy=None, ping_interval=None) as talking,
        ):
            assert where(silent) == "127.0.0.1 False"
            instance.reconfigure(heartbeat={"ping_interval": "0s"})
            time.sleep(3 * _TIMEOUT)  # the claim is that nothing happens
            assert where(silent) == "127.0.0.1 False"
            # New workers, and connections that moved to them, have no heartbeat any more.
            assert instance.run("reload").returncode == 0
            until = time.monotonic() + 3 * _TIMEOUT
            while time.monotonic() < until:
                talking.send("word")
                time.sleep(_TIMEOUT / 8)
            assert where(talking) == "127.0.0.1 False"
            try:
                where(silent)
            except ConnectionClosed:
                pass
            else:
                raise AssertionError("nobody has ended what was silent")
        assert all("timed out" in line for line in errors(tmp_path))


def test_where_clients_are(start: Start, tmp_path: Path) -> None:
    """The application is told the client's address, whatever that says of itself, with both kinds
    of headers; through a unix socket, and through TCP from several source addresses.
    """
    tcp = f"127.0.0.1:{free_port()}"
    instance = start(
        APPLICATION,
        bind=[tcp, f"unix:{tmp_path}/ws"],
        workers=1,
        trusted_proxies=["unix", "127.0.0.0/8"],
    )
    instance.running()

    def told(url: str) -> str:
        with connect(url, proxy=None, additional_headers=STORY) as ws:
            return where(ws)

    with nginx(instance, "--connections", "500") as address:
        assert told(f"ws://{address}/") == "127.0.0.1 False"
    instance.reconfigure(proxy_headers="forwarded", bind=[tcp])
    assert instance.run("reload").returncode == 0
    with nginx(instance, "--connections", "60000", edit=_fewer) as address:
        assert "proxy_bind" in (tmp_path / "nginx.conf").read_text()
        assert {told(f"ws://{address}/") for _ in range(9)} == {"127.0.0.1 False"}
    assert told(f"ws://{tcp}/") == "6.6.6.6 False"
    assert errors(tmp_path) == []


def _fewer(text: str) -> str:
    """The configuration with as many descriptors as a process may have here."""
    text = re.sub(r"worker_rlimit_nofile \d+", "worker_rlimit_nofile 4096", text)
    return re.sub(r"worker_connections \d+", "worker_connections 2048", text)
