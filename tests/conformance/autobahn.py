"""The Autobahn cases, run by kosoku against a real instance; its reports as data."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.instance import Instance

#: The same echo in both styles of application.
APPLICATIONS = {
    "task": """\
async def app(request):
    ws = await request.accept()
    while True:
        await ws.send_message(await ws.get_message())
""",
    "event": """\
class Echo:
    def on_receive(self, ws, data):
        ws.send_nowait(data)

app = Echo()
""",
}

Case = dict[str, Any]


@contextmanager
def serving(style: str, home: Path) -> Iterator[Instance]:
    """An instance with one worker that echoes; its log has only what went wrong."""
    instance = Instance(
        home,
        APPLICATIONS[style],
        # The largest message of the suite has 16 MiB; one comes in 65 536 frames.
        {
            "workers": 1,
            "limits": {"message_bytes": "32MiB", "fragments": 100_000},
            "log_level": "warning",
        },
    )
    try:
        instance.running()
        yield instance
    finally:
        instance.end()


def run(
    address: str, reports: Path, *groups: int, at_once: int = 1, seconds: float = 50
) -> list[Case]:
    """Run all cases of some groups; a report of each, in their order.

    :param at_once: cases that run at the same time: most of them mainly wait.
    :param seconds: the deadline of all; kosoku itself waits for ever for a handshake's answer.
    """
    command = [f"{sysconfig.get_path('scripts')}/kosoku", "--mode", "fuzzingclient", address]
    command += ["--outdir", str(reports), "--parallelism", str(at_once)]
    for group in groups:
        command += ["--include", f"{group}.*"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    cases: list[Case] = [json.loads(x.read_text()) for x in reports.glob("*_case_*.json")]
    assert cases, f"kosoku wrote no reports:\n{done.stdout}{done.stderr}"
    return sorted(cases, key=lambda case: int(case["case"]))


def failed(case: Case, may_be_lax: frozenset[str] = frozenset()) -> bool:
    """Whether the case's behaviour or its close is not as it should be.

    :param may_be_lax: the cases whose behaviour may be NON-STRICT. Which ones can be INFORMATIONAL
        is the suite's choice, whatever the server does.
    """
    fine = {"OK", "INFORMATIONAL"}
    # Autobahn takes a connection that just ends for a failed one. RFC 6455 section 7.1.7 wants a
    # close frame that says why; in 7.3.1 the client's has no code, so ours has none.
    silent = case["id"] != "7.3.1" and case["remoteCloseCode"] is None
    if silent and case["behavior"] != "INFORMATIONAL":
        return True
    behaviours = fine | {"NON-STRICT"} if case["id"] in may_be_lax else fine
    return case["behavior"] not in behaviours or case["behaviorClose"] not in fine


def told(case: Case) -> str:
    """What a case did, expected and saw, in a few lines."""
    return (
        f"{case['id']}: {case['behavior']} ({case['result']}), "
        f"its close {case['behaviorClose']} ({case['resultClose']})\n"
        f"  did:      {case['description']}\n"
        f"  expected: {case['expectation']}\n"
        f"            {case['expected']}, close {case['expectedClose']}\n"
        f"  received: {case['received']}, close code {case['remoteCloseCode']} "
        f"{case['remoteCloseReason'] or ''}"
    )
