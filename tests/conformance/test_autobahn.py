"""The protocol as the Autobahn cases see it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.conformance.autobahn import Case, failed, run, serving, told
from tests.harness.cores import needs_compiled

#: The groups, and how many cases each has: framing, pings, reserved bits, opcodes, fragments,
#: UTF-8, closes, fragments made by the suite. 9 is in limits.py; 12 and 13 are permessage-deflate.
GROUPS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 10: 1}

#: A message and a broken frame arrive together: may the echo of the message be missing? What
#: trio-websocket 0.12.2 had as NON-STRICT in some of 46 runs, each in about every other: its reader
#: task races its handler. All else was OK, or INFORMATIONAL: 7.1.6, 7.13.1 and 7.13.2.
NON_STRICT = frozenset(
    {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}
)
#: Hooks have no such excuse: they have answered before the broken frame is looked at.
LAX = {"task": NON_STRICT, "event": frozenset[str]()}


@dataclass(frozen=True)
class Run:
    style: str
    cases: list[Case]
    log: str


#: A style, and what WSSUP_PURE_PYTHON is; empty: the compiled core, if it is there.
_RUNS = [
    pytest.param(("task", ""), id="task"),
    pytest.param(("event", ""), id="event"),
    pytest.param(("event", "1"), id="event-pure", marks=needs_compiled),
]


@pytest.fixture(scope="module", params=_RUNS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All groups in one run against one instance, which has ended before the tests look."""
    style, pure = request.param
    home = tmp_path_factory.mktemp(style)
    with pytest.MonkeyPatch.context() as patch:
        if pure:
            patch.setenv("WSSUP_PURE_PYTHON", pure)
        with serving(style, home) as instance:
            cases = run(instance.address(), home / "reports", *GROUPS, at_once=8)
            return Run(style, cases, instance.logged())


@pytest.mark.parametrize("group", GROUPS)
def test_autobahn(group: int, done: Run) -> None:
    """No case of the group fails, and none is laxer than trio-websocket, in either style of
    application and with either core.
    """
    cases = [case for case in done.cases if case["id"].startswith(f"{group}.")]
    assert len(cases) == GROUPS[group], [case["id"] for case in cases]
    wrong = [told(case) for case in cases if failed(case, LAX[done.style])]
    if wrong:
        log = done.log[-5000:]
        pytest.fail("\n".join([f"{len(wrong)} of {len(cases)} cases:", *wrong, "the log:", log]))
