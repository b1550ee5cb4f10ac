"""The accept queues that there are: what the kernel says of them counts, not what settings say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.unit.doctor.plenty import PLENTY, WANTED, by_name, facts, replaced, running, worker
from wssup.config.settings import Settings
from wssup.doctor import collect, listeners
from wssup.doctor.checks import examine
from wssup.doctor.facts import Facts, Running
from wssup.doctor.findings import Finding, Verdict
from wssup.doctor.plan import narrowest, plan, plan_of_server
from wssup.doctor.served import ListenQueue, Process, Server


def instance(limits: Sequence[int], *, workers: int = 4, backlog: int = 4096) -> Facts:
    """A running instance whose listeners have these limits."""
    queues = tuple(ListenQueue("0.0.0.0:80", 0, limit) for limit in limits)
    live = running(*(worker(0) for _ in range(workers)))
    return replaced(PLENTY, running=live, queues=queues)


def judged(here: Facts, *, workers: int = 4, rate: float | None = None) -> Finding:
    """The accept queue, for the default backlog."""
    settings = Settings(app="x:y", runtime_dir="/", app_dir="/")
    wanted = plan(settings, here, workers=workers, reconnects_per_second=rate)
    return by_name(examine(here, wanted), "accept queue")


def test_the_kernels_own_limit() -> None:
    """A listener keeps the limit that it was made with, whatever the sysctl is by now; a restart
    gives it another.
    """
    found = judged(instance([4096, 128, 4096, 4096]))
    assert found.verdict is Verdict.WARN
    assert found.predicted == 4 * 129
    assert "restart" in found.remedy
    assert not found.changes
    short = judged(facts(instance([128] * 4), network={"somaxconn": 128}), rate=2000)
    assert short.verdict is Verdict.FAIL
    assert "net.core.somaxconn=4096" in short.remedy
    assert "restart" in short.remedy
    # Lowered since: what is made next will be short, what there is is not.
    later = judged(facts(instance([4096] * 4), network={"somaxconn": 128}), rate=2000)
    assert later.verdict is Verdict.OK


@pytest.mark.parametrize(
    ("limits", "workers", "queues"),
    [
        ([4096], 4, 1),
        ([4096, 4096], 4, 2),
        ([4096] * 4, 4, 4),
        ([4096] * 4, 8, 8),  # its own ones grow with the workers
        ([4096] * 6, 4, 4),  # two are of slots that were scaled away
        ([], 4, 4),
    ],
)
def test_listeners_that_there_are(limits: list[int], workers: int, queues: int) -> None:
    """An instance that was given fewer listeners than it has workers has as few queues."""
    assert judged(instance(limits), workers=workers).predicted == queues * 4097


def test_the_smallest_address() -> None:
    """Clients of one address find no room in another's queues."""
    queues = [ListenQueue("a", 0, 511)] * 4 + [ListenQueue("b", 0, 4096)]
    assert narrowest(queues) == (4, 511)
    assert narrowest([*queues, ListenQueue("c", 0, 128)]) == (1, 128)
    assert narrowest([*queues, ListenQueue("c", 0, 0)]) == (1, None)
    assert narrowest([]) is None


def server(*queues: ListenQueue) -> Server:
    process = Process(pid=1, command="x", kinds={}, states={}, accepts=True)
    return Server(pid=1, processes=(process,), queues=queues, states={})


def test_another_servers_queues() -> None:
    """Those of the smallest address count; where the kernel says no limit, none is made up."""
    here = replaced(PLENTY, running=running(worker(0)))
    two = server(ListenQueue("0.0.0.0:80", 0, 511), ListenQueue("0.0.0.0:443", 0, 511))
    found = by_name(
        examine(here, plan_of_server(two, here, reconnects_per_second=300)), "accept queue"
    )
    assert (found.verdict, found.predicted) == (Verdict.FAIL, 512)
    assert "1 listener," in found.found
    assert "restart" in found.remedy
    wanted = plan_of_server(server(ListenQueue("0.0.0.0:80", 0, 0)), here)
    unknown = by_name(examine(here, wanted), "accept queue")
    assert (unknown.verdict, unknown.predicted) == (Verdict.UNKNOWN, None)


def test_sockets() -> None:
    """Of real sockets: what listen(2) was told, of the given sockets at the given address alone."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=7))]
        address = f"127.0.0.1:{made[0].getsockname()[1]}"
        stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=9))
        own = listeners.own_sockets([os.getpid()])
        assert own is not None
        assert listeners.queues([address], own) == [ListenQueue(address, 0, 7)]
        assert listeners.queues([address], frozenset()) == []
        assert listeners.queues([address], None) == []


def test_unix_sockets() -> None:
    """One queue, which the kernel cut when it was made, serves all workers."""
    path = f"/tmp/wssup-{uuid.uuid4().hex[:12]}.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        try:
            made.listen(7)
            own = frozenset([os.fstat(made.fileno()).st_ino])
            found = listeners.queues([f"unix:{path}"], own)
            assert listeners.queues([f"unix:{path}"], frozenset()) == []
        finally:
            Path(path).unlink()
    assert found == [ListenQueue(f"unix:{path}", 0, 7)]
    here = replaced(instance([]), queues=tuple(found))
    settings = Settings(app="x:y", runtime_dir="/", app_dir="/", bind=(f"unix:{path}",))
    queue = by_name(examine(here, plan(settings, here, workers=4)), "accept queue")
    assert (queue.predicted, queue.verdict) == (8, Verdict.WARN)
    assert "restart" in queue.remedy


def test_another_network() -> None:
    """The settings of this network namespace are not those of a process in another one."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    tool = shutil.which("unshare")
    if (
        tool is None
        or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no network namespace can be made here")
    with subprocess.Popen(
        [*alone, "sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        there = collect.facts(cores=1, running=Running(name="x", pid=child.pid, slots=1))
        child.communicate()
    assert there.network.elsewhere
    assert there.network.somaxconn is None
    assert there.network.ports is None
    assert there.network.tcp_mem is not None
    found = examine(there, replaced(WANTED, ours=False))
    assert by_name(found, "accept queue").verdict is Verdict.UNKNOWN
    assert by_name(found, "SYN queue").verdict is Verdict.UNKNOWN
    assert not collect.facts(cores=1).network.elsewhere
