"""The Autobahn cases of performance and limits (9.*), one after the other, in a table.

``python -m tests.conformance.limits [STYLE …]``; both styles of application by default. The exit
status is 1 when a case failed.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from tests.conformance.autobahn import APPLICATIONS, Case, failed, run, serving, told
from tests.harness import processes


def main() -> int:
    """Run and print; the exit status."""
    processes.become_subreaper()
    # So that whoever ends this ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    wrong: list[str] = []
    for style in sys.argv[1:] or APPLICATIONS:
        with (
            tempfile.TemporaryDirectory(prefix="wssup-limits-") as home,
            serving(style, Path(home)) as instance,
        ):
            cases = run(instance.address(), Path(home) / "reports", 9, seconds=600)
        show(style, cases)
        wrong += [f"{style}: {told(case)}" for case in cases if failed(case)]
    print(f"\n{len(wrong)} failed", *wrong, sep="\n")  # noqa: T201
    return 1 if wrong else 0


def show(style: str, cases: list[Case]) -> None:
    """Print the table of one style."""
    rows = [("case", "behaviour", "close", "ms", style)]
    rows += [
        (
            case["id"],
            case["behavior"],
            case["behaviorClose"],
            str(case["duration"]),
            case["description"].partition("<br")[0],
        )
        for case in cases
    ]
    for name, behaviour, close, duration, what in rows:
        print(f"{name:<7}{behaviour:<15}{close:<17}{duration:>6}  {what}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
