"""Listeners that a service manager keeps for a real master, or has made for it: the test plays it
(sd_listen_fds(3), FileDescriptorStoreMax= in systemd.service(5)).
"""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
import trio

from tests.harness import kernel, processes
from tests.harness.clients import aside, crowd, prober
from tests.harness.service_manager import ServiceManager
from tests.integration.conftest import Launch


async def test_a_restart_refuses_nobody(manager: ServiceManager, launch: Launch) -> None:
    """The listeners of all slots are in the store while the instance runs. Through a stop and a
    start, during which nobody accepts, connects wait and are answered by the new master; none is
    refused or reset. The new one has the same listeners and stores nothing twice.
    """
    instance = launch(manager, drain_window=0.1)
    await aside(manager.wait, "READY")
    url, port = instance.url(), int(instance.address().rpartition(":")[2])
    assert len(manager.store) == 2
    assert all(re.fullmatch(r"wssup-[0-9a-f]{16}-[01]", name) for name in manager.store)
    assert all(d["FDPOLL"] == "0" for d in manager.told("FDSTORE"))
    listening = kernel.listening(port)
    async with prober(url, 4, stops=True) as probing:
        await probing.rounds(20)
        instance.signal(signal.SIGTERM)
        assert await aside(instance.exited) == 0
        assert kernel.listening(port) == listening
        instance.restarted()
        await aside(manager.wait, "READY", "1", 2)
        await probing.rounds(20)
    assert not probing.failures
    assert kernel.listening(port) == listening
    assert len(manager.told("FDSTORE")) == 2
    assert not manager.told("FDSTOREREMOVE")
    assert {e["count"] for e in instance.events("listeners_taken")} == {2}


async def test_a_killed_master_refuses_nobody(manager: ServiceManager, launch: Launch) -> None:
    """When the master is killed, clients are told 1012; connects wait until a new master has the
    listeners, and none is refused.
    """
    instance = launch(manager, drain_window=0.1)
    await aside(manager.wait, "READY")
    url = instance.url()
    async with crowd(url, 20) as people, prober(url, 4) as probing:
        await probing.rounds(20)
        family = processes.descendants(instance.pid)
        instance.signal(signal.SIGKILL)
        await aside(instance.exited)

        def gone() -> bool:
            for pid in family:
                processes.reap(pid)
            return not any(processes.alive(pid) for pid in family)

        await aside(processes.until, gone, 60, "the workers to end")
        instance.restarted()
        await aside(manager.wait, "READY", "1", 2)
        await probing.rounds(20)
        assert not probing.failures
        await people.wait(lambda: not people.live, "all to be told")
        assert set(people.codes) == {1012}


def test_fewer_workers_after_a_restart(manager: ServiceManager, launch: Launch) -> None:
    """A restart with fewer workers parks the listeners that are too many: they are lent, and every
    connect is answered; with more workers further ones join them and are stored.
    """
    instance = launch(manager, workers=3)
    manager.wait("READY")
    bind = instance.address()
    for workers, stored in ((1, 3), (4, 4)):
        instance.signal(signal.SIGTERM)
        assert instance.exited() == 0
        instance.reconfigure(workers=workers)
        instance.restarted()
        status = instance.running()
        assert sum(s["state"] == "ready" for s in status["slots"]) == workers
        assert status["bind"] == [bind]
        assert len(manager.store) == stored

        async def many() -> None:
            async with prober(instance.url(), 4) as probing:
                await probing.rounds(60)
            assert not probing.failures

        trio.run(many)


def test_addresses_that_come_and_go(
    manager: ServiceManager, launch: Launch, tmp_path: Path
) -> None:
    """An address that a reload adds is stored, and one that it removes leaves the store once it is
    closed. What the store has of addresses that are not configured any more is dropped with a
    warning, and so is what is no listener.
    """
    sock = f"unix:{tmp_path}/app.sock"
    instance = launch(manager, bind=["127.0.0.1:0", sock], address_linger=0.1)
    manager.wait("READY")
    assert len(manager.store) == 3
    instance.reconfigure(bind=["127.0.0.1:0", "127.0.0.2:0"])
    assert instance.run("reload").returncode == 0
    instance.wait_logged("address_closed")
    processes.until(lambda: len(manager.store) == 4, 10, "the store to follow")
    assert not (tmp_path / "app.sock").exists()
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    manager.store["stray"] = os.open("/dev/null", os.O_RDONLY)
    instance.reconfigure(bind=["127.0.0.2:0"])
    instance.restarted()
    manager.wait("READY", count=3)
    assert len(manager.store) == 2
    dropped = instance.events("descriptor_dropped")
    assert {e["name"] for e in dropped} == {"stray"} | {
        e["name"] for e in dropped if e.get("where")
    }
    assert len(dropped) == 3


async def test_a_unix_socket_through_a_restart(
    manager: ServiceManager, launch: Launch, tmp_path: Path
) -> None:
    """The file of a unix socket stays through a restart, and connects wait; when it was removed
    meanwhile, a new socket is made.
    """
    sock = tmp_path / "app.sock"
    instance = launch(manager, bind=[f"unix:{sock}"], drain_window=0.1)
    await aside(manager.wait, "READY")
    async with prober(f"unix:{sock}", 2, stops=True) as probing:
        await probing.rounds(5)
        instance.signal(signal.SIGTERM)
        assert await aside(instance.exited) == 0
        assert sock.is_socket()
        instance.restarted()
        await aside(manager.wait, "READY", "1", 2)
        await probing.rounds(5)
    assert not probing.failures
    instance.signal(signal.SIGTERM)
    assert await aside(instance.exited) == 0
    sock.unlink()
    instance.restarted()
    await aside(manager.wait, "READY", "1", 3)
    async with prober(f"unix:{sock}", 1) as probing:
        await probing.rounds(2)
    assert "its file is gone" in instance.events("descriptor_dropped")[0]["reason"]


def test_a_small_store(manager: ServiceManager, launch: Launch) -> None:
    """What does not fit into the store is said once; what fits outlives the master."""
    instance = launch(manager, workers=3, store=2)
    manager.wait("READY")
    assert len(manager.store) == 2
    assert len(instance.events("fdstore_full")) == 1
    port = int(instance.address().rpartition(":")[2])
    instance.signal(signal.SIGTERM)
    assert instance.exited() == 0
    assert len(kernel.listening(port)) == 2


def reuseport(count: int) -> list[socket.socket]:
    """Listeners as a socket unit with ReusePort=yes makes them."""
    made: list[socket.socket] = []
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", made[0].getsockname()[1] if made else 0))
        sock.listen(64)
        made.append(sock)
    return made


@pytest.mark.parametrize(("count", "workers"), [(1, 3), (2, 3), (3, 1)])
async def test_socket_activation(
    launch: Launch, manager: ServiceManager, count: int, workers: int
) -> None:
    """The listeners of a socket unit become the slots'; fewer of them are shared, and shared by
    slots that come later, and more of them are lent. None is stored or bound anew, and every worker
    serves. Through a stop and a start connects wait.
    """
    sockets = reuseport(count)
    port = sockets[0].getsockname()[1]
    instance = launch(
        manager,
        passed=[("wssup", s.fileno()) for s in sockets],
        bind=f"127.0.0.1:{port}",
        workers=workers,
        drain_window=0.1,
    )
    await aside(manager.wait, "READY")
    assert not manager.store
    url = instance.url()
    async with prober(url, 4, stops=True) as probing:
        # Of a shared listener the kernel does not promise who takes the next connection.
        with trio.fail_after(60):
            while {a.split()[0] for a in probing.answers} != {str(s) for s in range(workers)}:
                await probing.rounds(1)
        scaled = await aside(instance.run, "scale", str(workers + 1))
        assert scaled.returncode == 0
        await probing.rounds(40)
        instance.signal(signal.SIGTERM)
        assert await aside(instance.exited) == 0
        instance.restarted()
        await aside(manager.wait, "READY", "1", 2)
        await probing.rounds(20)
    assert not probing.failures
    assert len(kernel.listening(port)) == count
    for sock in sockets:
        sock.close()


def test_a_socket_unit_of_another_address(launch: Launch, manager: ServiceManager) -> None:
    """A listener that no bind names is a clear error, and nothing is started; a reload that drops
    the address of a socket unit is refused.
    """
    (sock,) = reuseport(1)
    port = sock.getsockname()[1]
    wrong = launch(manager, passed=[("wssup", sock.fileno())], bind="127.0.0.1:1")
    assert wrong.exited() == 2
    assert (
        f"the service's socket unit passes a listener on 127.0.0.1:{port} (named 'wssup'), "
        "which bind does not name (127.0.0.1:1)" in wrong.logged()
    )
    assert not manager.told("READY")
    right = launch(
        manager, name="right", passed=[("wssup", sock.fileno())], bind=f"127.0.0.1:{port}"
    )
    manager.wait("READY")
    right.reconfigure(bind="127.0.0.1:0")
    refused = right.run("reload")
    assert refused.returncode == 1
    assert f"bind no longer names 127.0.0.1:{port}" in refused.stderr
    assert right.status()["generation"] == 1
    sock.close()
