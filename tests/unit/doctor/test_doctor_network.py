"""Queues, tables, counters and proxies: what is enough, what is not, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.doctor.plenty import PLENTY, WANTED, by_name, facts, replaced
from wssup.doctor.checks import examine
from wssup.doctor.checks.network import COUNTERS
from wssup.doctor.checks.server import examine_server
from wssup.doctor.facts import Counters, Hardware
from wssup.doctor.findings import Change, Finding, Verdict, overall
from wssup.doctor.served import ListenQueue, Process, Server


def one(check: str, network: dict[str, Any] | None = None, **plan: Any) -> Finding:
    """The finding of a check."""
    return by_name(examine(facts(network=network or {}), replaced(WANTED, **plan)), check)


@pytest.mark.parametrize(
    ("somaxconn", "backlog", "rate", "verdict"),
    [
        (4096, 4096, 4097, Verdict.OK),
        (4096, 4096, 4098, Verdict.FAIL),
        (128, 4096, 129, Verdict.OK),
        (128, 4096, 130, Verdict.FAIL),
        (4096, 128, 130, Verdict.FAIL),
        (4096, 4096, None, Verdict.OK),
        (128, 4096, None, Verdict.WARN),
    ],
)
def test_accept_queue(somaxconn: int, backlog: int, rate: float | None, verdict: Verdict) -> None:
    """Each of four queues must take a quarter of what comes within two seconds; it takes one more
    than it is told.
    """
    found = one(
        "accept queue",
        {"somaxconn": somaxconn},
        backlog=backlog,
        reconnects_per_second=None if rate is None else 2.0 * rate,
    )
    assert (found.of, found.predicted) == ("waiting", 4 * (min(somaxconn, backlog) + 1))
    assert found.verdict is verdict


def test_the_accept_queues_remedy() -> None:
    """Whichever of the two is too small is to be raised."""
    both = one("accept queue", {"somaxconn": 128}, backlog=128, reconnects_per_second=20_000)
    assert "net.core.somaxconn=10000" in both.remedy
    assert "backlog = 10000" in both.remedy
    assert both.changes == (Change("sysctl", "net.core.somaxconn", "10000"),)
    own = one("accept queue", backlog=128, reconnects_per_second=20_000)
    assert "somaxconn" not in own.remedy
    assert own.changes == ()


@pytest.mark.parametrize(
    ("cookies", "somaxconn", "rate", "verdict"),
    [
        (1, 4096, 9_000, Verdict.OK),
        (2, 4096, 9_000, Verdict.OK),
        (0, 4096, 900, Verdict.WARN),
        (0, 4096, 4 * 1536, Verdict.WARN),
        (0, 4096, 4 * 1536 + 1, Verdict.FAIL),
        (0, 128, 4 * 128, Verdict.WARN),
        (0, 128, 4 * 128 + 1, Verdict.FAIL),
    ],
)
def test_syn_queue(cookies: int, somaxconn: int, rate: float, verdict: Verdict) -> None:
    """Without syncookies three quarters of the queue are there for new clients, but no more than
    may wait to be accepted.
    """
    network = {"syncookies": cookies, "syn_backlog": 2048, "somaxconn": somaxconn}
    found = one("SYN queue", network, reconnects_per_second=rate)
    assert found.verdict is verdict


def test_tcp_memory_is_in_pages() -> None:
    """One page for a connection with data on the way; what is to be set is in pages, too."""
    assert one("TCP memory", {"tcp_mem": (1, 100_100, 200_000)}).verdict is Verdict.OK
    short = one("TCP memory", {"tcp_mem": (1, 100_099, 200_000)})
    assert short.verdict is Verdict.WARN
    (change,) = short.changes
    low, pressure, high = map(int, change.value.split())
    assert low < pressure < high
    assert pressure >= 100_100
    # In bytes it would be 4096 times as much.
    assert high < 1_000_000
    assert one("TCP memory", {"tcp_mem": (1, 50, 100)}).verdict is Verdict.FAIL


def test_tracking_that_tracks_nothing() -> None:
    """The module may be loaded without a rule that uses it."""
    idle = {"conntrack_max": 10, "conntrack_count": 0}
    assert one("connection tracking", idle).verdict is Verdict.OK
    assert one("connection tracking", idle | {"tcp_sockets": 0}).verdict is Verdict.FAIL


def test_migration() -> None:
    """tcp_migrate_req belongs off, and the remedy says why."""
    found = one("net.ipv4.tcp_migrate_req", {"migrate_req": 1})
    assert found.verdict is Verdict.WARN
    assert "steering" in found.remedy


@pytest.mark.parametrize("name", COUNTERS)
def test_counters(name: str) -> None:
    """What grew while it was looked at is a warning; what was before is only told."""
    old = replaced(PLENTY, counters=Counters(1.0, {name: 7}, {name: 0}))
    found = by_name(examine(old, WANTED), "dropped by the kernel")
    assert found.verdict is Verdict.OK
    assert f"{name} 7" in found.found
    fresh = replaced(PLENTY, counters=Counters(1.0, {name: 7}, {name: 2}))
    found = by_name(examine(fresh, WANTED), "dropped by the kernel")
    assert found.verdict is Verdict.WARN
    assert f"{name} +2 in 1.0 s" in found.found
    assert name in found.remedy


@pytest.mark.parametrize(
    ("proxies", "connections", "verdict", "predicted"),
    [
        (("127.0.0.1",), 20_000, Verdict.OK, 28_232),
        (("127.0.0.1",), 25_000, Verdict.WARN, 28_232),
        (("127.0.0.1",), 30_000, Verdict.FAIL, 28_232),
        (("10.0.0.7",), 30_000, Verdict.WARN, None),
        (("10.0.0.0/8",), 30_000, Verdict.WARN, None),
        (("10.0.0.7", "10.0.0.8"), 30_000, Verdict.OK, None),
    ],
)
def test_ports_of_a_proxy(
    proxies: tuple[str, ...], connections: int, verdict: Verdict, predicted: int | None
) -> None:
    """A proxy on this machine has this machine's ports; of another one it can only be assumed."""
    found = one("ports of the proxy", proxies=proxies, connections=connections)
    assert (found.verdict, found.predicted) == (verdict, predicted)


@pytest.mark.parametrize(
    ("families", "count"), [((), 28_232), ((4,), 28_232), ((6,), 28_232), ((4, 6), 2 * 28_232)]
)
def test_a_proxy_of_two_families(families: tuple[int, ...], count: int) -> None:
    """127.0.0.1 and ::1 are one proxy, which has ports of the family it connects to."""
    found = one(
        "ports of the proxy", proxies=("127.0.0.1", "::1"), connections=1, families=families
    )
    assert found.predicted == count


def test_no_ports_of_a_unix_socket() -> None:
    """A unix socket needs none, and neither does a port without a proxy."""
    for plan in ({"unix": True, "proxies": ("127.0.0.1",)}, {"proxies": ("unix",)}, {}):
        found = examine(PLENTY, replaced(WANTED, **plan))
        assert not [f for f in found if f.check == "ports of the proxy"]


@pytest.mark.parametrize(
    ("interval", "timeout", "verdict"),
    [
        (20.0, 20.0, Verdict.OK),
        (30.0, 30.0, Verdict.WARN),
        (0.0, 20.0, Verdict.WARN),
    ],
)
def test_heartbeat(interval: float, timeout: float, verdict: Verdict) -> None:
    """Both spans together are shorter than the proxy's patience."""
    found = one("heartbeat", proxies=("10.0.0.7",), ping_interval=interval, ping_timeout=timeout)
    assert found.verdict is verdict


def test_handshakes() -> None:
    """The configuration's rate against that of clients who come back."""
    found = one("max_handshakes_per_second", handshakes=100, reconnects_per_second=500.0)
    assert found.verdict is Verdict.WARN
    assert one("max_handshakes_per_second", handshakes=100).verdict is Verdict.OK


def test_speed() -> None:
    """The measured rate counts once for each worker that has a core."""
    slow = Hardware(cores=2, memory=None, accepts_per_second=1000.0, seconds=2.0)
    here = replaced(PLENTY, hardware=slow)
    found = by_name(examine(here, replaced(WANTED, reconnects_per_second=2001)), "accept rate")
    assert (found.verdict, found.predicted) == (Verdict.WARN, 2000)


def test_another_server() -> None:
    """Piles in CLOSE_WAIT and queues that fill are warnings; TIME_WAIT never is."""
    process = Process(pid=1, command="x", kinds={"socket": 9}, states={}, accepts=True)
    queue = ListenQueue("0.0.0.0:80", 1, 128)
    well = Server(
        pid=1,
        processes=(process,),
        queues=(queue,),
        states={"ESTABLISHED": 500, "TIME_WAIT": 100_000, "CLOSE_WAIT": 10},
    )
    assert overall(examine_server(well)) is Verdict.OK
    for states, full, check in (
        ({"ESTABLISHED": 500, "CLOSE_WAIT": 100}, queue, "CLOSE_WAIT"),
        ({"SYN_RECV": 500}, queue, "SYN_RECV"),
        ({}, ListenQueue("0.0.0.0:80", 100, 128), "accept queue of 0.0.0.0:80"),
    ):
        ill = replaced(well, states=states, queues=(full,))
        assert by_name(examine_server(ill), check).verdict is Verdict.WARN
        assert [f.check for f in examine_server(ill) if f.verdict is Verdict.WARN] == [check]
