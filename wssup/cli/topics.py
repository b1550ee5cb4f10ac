"""Topics and the bridge on the status page: a line each, while there is something to tell."""

from __future__ import annotations

from rich.text import Text

from wssup.cli.documents import Bridge, Topics
from wssup.cli.text import ago, count, one_line

__all__ = ["topics"]


def topics(found: Topics) -> list[Text]:
    """What is shown of topics: nothing where none is used."""
    lines: list[Text] = []
    if found.subscriptions or found.published or found.delivered:
        noun = "subscription" if found.subscriptions == 1 else "subscriptions"
        line = (
            f"topics  {count(found.subscriptions)} {noun}; {count(found.published)} published, "
            f"{count(found.delivered)} delivered"
        )
        asked = found.recovered + found.not_recovered
        if asked:
            line += f"; recovered {count(found.recovered)} of {count(asked)}"
        lost = [
            f"{count(number)} {what}"
            for number, what in (
                (found.dropped, "not delivered to slow clients"),
                (found.bus.lost, "lost to slow workers"),
            )
            if number
        ]
        lines.append(Text("; ".join([line, *lost]), style="yellow" if found.bus.lost else ""))
    if found.bridge is not None:
        lines.append(_bridge(found.bridge))
    return lines


def _bridge(bridge: Bridge) -> Text:
    state, style = one_line(bridge.state), "yellow"
    if bridge.stalled:
        state, style = "stalled", "red"
    elif bridge.state == "lost":
        style = "red"
    elif bridge.state == "connected":
        state, style = f"connected for {ago(bridge.connected_for)}", ""
    elif bridge.fault not in (None, "none"):
        state = f"{state} (last: {one_line(bridge.fault or '')})"
    line = f"bridge  {one_line(bridge.url)}  {state}"
    line += f"; {count(bridge.sent)} sent, {count(bridge.received)} received"
    for number, what in ((bridge.lost, "lost"), (bridge.missed, "missed")):
        if number:
            line += f", {count(number)} {what}"
    if bridge.reconnects:
        line += f", {count(bridge.reconnects)} " + (
            "reconnect" if bridge.reconnects == 1 else "reconnects"
        )
    if bridge.error:
        line += f": {one_line(bridge.error)}"
    return Text(line, style=style)
