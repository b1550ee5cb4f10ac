"""The npm package ws on a real instance. `make e2e` installs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.common import APPLICATION, Start, endings

#: Where `make e2e` has npm install it.
MODULES = Path(sys.prefix) / "e2e" / "node_modules"
SCRIPT = Path(__file__).with_name("npm_ws.cjs")


def test_the_npm_package(start: Start) -> None:
    """A Node.js client has its text, binary and fragments echoed, its pings answered and answers
    the server's, is told of refusals, and closes and is closed with code and reason. It is offered
    no compression that it would ask for.
    """
    assert (MODULES / "ws").is_dir(), f"there is no {MODULES / 'ws'}: run make e2e"
    instance = start(APPLICATION, heartbeat={"ping_interval": 0.5, "app_ping": True})
    instance.running()
    client = subprocess.run(
        ["node", SCRIPT, instance.url()],
        env=os.environ | {"NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert client.returncode == 0, client.stderr
    found = json.loads(client.stdout)
    assert found == {
        "extensions": "",
        "protocol": "chat",
        "echoed": 9,
        "fragments": ["in three parts", "binary 300000"],
        "pong": "payload",
        "app ping": {"type": "pong"},
        "pinged by the server": True,
        "closed": [3000, "done"],
        "closed by the server": [4001, "as you wish"],
        "too big": 1009,
        "refused": [401, "no key", "no"],
        "many": 50,
    }
    # One was just cut off.
    assert endings(instance, 55) == {
        "client": 51,
        "server": 1,
        "too_big": 1,
        "rejected": 1,
        "lost": 1,
    }


def test_the_npm_package_lives_through_reloads(start: Start) -> None:
    """Node.js clients send and receive through three reloads, among it fragments and 1 MiB, and
    notice nothing but the new generation.
    """
    instance = start(APPLICATION, heartbeat={"ping_interval": 0.5})
    instance.running()
    client = subprocess.Popen(
        ["node", SCRIPT, instance.url(), "live"],
        env=os.environ | {"NODE_PATH": str(MODULES)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        try:
            assert client.stdout is not None
            for generation in range(1, 5):
                assert client.stdout.readline() == f"{generation}\n"
                if generation < 4:
                    done = instance.run("reload")
                    assert done.returncode == 0, done.stdout + done.stderr
            assert client.wait(60) == 0
        finally:
            client.kill()
    assert endings(instance, 20) == {"client": 20}
