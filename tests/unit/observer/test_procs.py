"""What a process takes of the machine, on real processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from wssup.observer.procs import sample

CODE = """
import sys
held = [open("/dev/null") for _ in range(int(sys.argv[1]))]
block = bytearray(int(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


def test_memory_and_descriptors_of_another_process() -> None:
    """Forty descriptors and 64 MiB more show as such; the limit is its soft one."""
    samples = []
    for descriptors, size in ((0, 0), (40, 64 << 20)):
        with subprocess.Popen(
            [sys.executable, "-c", CODE, str(descriptors), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            found = sample(other.pid)
            assert found is not None
            samples.append(found)
            listed = list(Path(f"/proc/{other.pid}/fd").iterdir())
            assert found.open_fds == len(listed)
    few, many = samples
    assert few.open_fds is not None
    assert many.open_fds == few.open_fds + 40
    assert few.rss is not None
    assert many.rss is not None
    assert abs(many.rss - few.rss - (64 << 20)) < 4 << 20
    assert few.max_fds == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_process_that_is_gone() -> None:
    """Neither a process that ended nor a zombie has memory or descriptors: there is no sample."""
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert sample(other.pid) is None
    assert sample(other.pid) is None
