"""What all end-to-end tests serve."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.harness.instance import Instance

Start = Callable[..., Instance]

#: An echo that does a little more when it is asked to.
APPLICATION = """\
import wssup

class App:
    def on_request(self, request):
        if request.path == "/forbidden":
            request.reject_nowait(401, extra_headers=[(b"X-Why", b"no key")], body=b"no")
        elif "chat" in request.subprotocols:
            request.accept_nowait(subprotocol="chat")

    def on_receive(self, ws, data):
        if data == "close":
            ws.close_nowait(4001, "as you wish")
        elif data == "who":
            ws.send_nowait(f"generation {wssup.current_worker().generation}")
        elif data == "count":
            ws.state["count"] = ws.state.get("count", 0) + 1
            ws.send_nowait(f"{ws.state['count']} {wssup.current_worker().generation}")
        else:
            ws.send_nowait(data)

app = App()
"""


def endings(instance: Instance, count: int) -> dict[str, int]:
    """How connections ended, once so many have come and all have gone."""
    status = instance.wait(
        lambda s: s["connections"]["accepted"] >= count and not s["connections"]["open"],
        f"{count} connections to come and go",
    )
    counts = status["connections"]
    kinds = (
        counts["closed_by_reason"],
        counts["handshake_failures_by_reason"],
        counts["refused_by_reason"],
    )
    assert counts["handler_errors"] == 0
    return {name: n for kind in kinds for name, n in kind.items() if n}


def deadline(seconds: float) -> Callable[[], float]:
    """The seconds that are left of so many."""
    end = time.monotonic() + seconds
    return lambda: max(0.0, end - time.monotonic())
