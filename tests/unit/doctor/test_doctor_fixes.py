"""What doctor prints to be changed: whole files, and never advice that does not work."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.unit.doctor.plenty import GIB, PLENTY, WANTED, facts, group, replaced, running, worker
from tests.unit.doctor.test_doctor_limits import SHORT
from wssup.doctor.checks import examine
from wssup.doctor.checks.server import examine_server
from wssup.doctor.facts import Counters, Facts, Hardware, Holder
from wssup.doctor.findings import Change, Finding, Verdict
from wssup.doctor.fixes import fixes
from wssup.doctor.served import ListenQueue, Process, Server

#: Advice that is wrong or obsolete, and what there is to say of it.
OBSOLETE = {
    "tcp_tw_recycle": "it was removed in Linux 4.12",
    "tcp_tw_reuse": "it has no effect on inbound connections",
    "tcp_fin_timeout": "it has nothing to do with TIME_WAIT",
    "rmem_max": "TCP's buffers follow tcp_rmem",
    "wmem_max": "TCP's buffers follow tcp_wmem",
    r"file-max\s*=": "systemd sets the largest value at boot",
    r"ulimit -n": "a shell's limit does not reach a service",
    "tcp_max_tw_buckets": "TIME_WAIT costs a server next to nothing",
}


def everything() -> list[Finding]:
    """The findings of an unlucky machine, and of each single shortage."""
    unlucky = Facts(
        descriptors=replaced(PLENTY.descriptors, hard=1024, nr_open=1024, file_max=20_000),
        memory=replaced(
            PLENTY.memory, available=GIB >> 5, group=group(GIB, GIB), address_space=GIB >> 4
        ),
        tasks=replaced(PLENTY.tasks, group=group(5, 4), nproc=4),
        network=replaced(
            PLENTY.network,
            somaxconn=128,
            syncookies=0,
            syn_backlog=128,
            tcp_mem=(10, 20, 30),
            conntrack_max=1000,
            migrate_req=1,
        ),
        counters=Counters(1.0, {}, dict.fromkeys(("ListenDrops", "TCPMemoryPressures"), 5)),
        holders=(Holder("0.0.0.0:80", "pid 7"),),
        hardware=Hardware(cores=1, memory=None, accepts_per_second=10.0, seconds=2.0),
    )
    plan = replaced(
        WANTED,
        connections=1_000_000,
        reconnects_per_second=50_000.0,
        proxies=("127.0.0.1",),
        backlog=128,
        total=10,
        per_worker=5,
        handshakes=1,
        ping_interval=60.0,
    )
    live = replaced(unlucky, running=running(worker(5, descriptors=900, soft=1024)))
    ill = Server(
        pid=1,
        processes=(Process(pid=1, command="x", kinds=None, states={}, accepts=True),),
        queues=(ListenQueue("0.0.0.0:80", 100, 128),),
        states={"CLOSE_WAIT": 100, "SYN_RECV": 500, "TIME_WAIT": 100_000},
    )
    short = [examine(facts(**parts), replaced(WANTED, **more)) for parts, more, _, _ in SHORT]
    return [
        *examine(unlucky, plan),
        *examine(live, plan),
        *examine_server(ill),
        *itertools.chain(*short),
    ]


def test_every_fault_has_a_remedy() -> None:
    """What warns or fails says what to do, in one line."""
    for finding in everything():
        assert "\n" not in finding.remedy
        if finding.verdict in (Verdict.WARN, Verdict.FAIL):
            assert finding.remedy, finding
        if finding.verdict is Verdict.OK:
            assert not finding.changes, finding


@pytest.mark.parametrize("pattern", OBSOLETE)
def test_nothing_obsolete(pattern: str) -> None:
    """Neither remedies nor files have any of it."""
    findings = everything()
    texts = [finding.remedy for finding in findings]
    texts += [file.text for file in fixes(findings, user="shop", unit="wssup@shop.service")]
    assert len([text for text in texts if text]) > 15
    for text in texts:
        assert re.search(pattern, text) is None, text


def test_files() -> None:
    """Lines of the same kind are in one file; of two numbers for one key the greater counts."""
    finding = Finding(
        check="x",
        found="",
        needed="",
        verdict=Verdict.FAIL,
        changes=(
            Change("sysctl", "net.core.somaxconn", "5000"),
            Change("sysctl", "net.core.somaxconn", "40000"),
            Change("limits", "nofile", "50000"),
            Change("unit", "LimitNOFILE", "50000"),
            Change("unit", "TasksMax", "100"),
        ),
    )
    sysctl, limits, unit = fixes([finding], user="shop", unit="wssup@shop.service")
    assert sysctl.path.startswith("/etc/sysctl.d/")
    assert sysctl.text.splitlines()[1:] == ["net.core.somaxconn = 40000"]
    assert limits.path.startswith("/etc/security/limits.d/")
    assert limits.text.splitlines()[1:] == ["shop - nofile 50000"]
    assert unit.path.startswith("/etc/systemd/system/wssup@shop.service.d/")
    assert unit.text.splitlines()[1:] == ["[Service]", "LimitNOFILE=50000", "TasksMax=100"]


def test_nothing_to_change() -> None:
    """Files in which nothing has to change have comments alone."""
    for file in fixes(examine(PLENTY, WANTED), user="shop", unit="wssup@shop.service"):
        assert all(line.startswith("#") for line in file.text.splitlines())
