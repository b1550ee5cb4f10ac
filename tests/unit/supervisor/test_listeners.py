"""Listening sockets and the kernel's side of steering, on real sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import bpf
from tests.harness.ports import free_port
from tests.harness.processes import until
from wssup.errors import ListenError
from wssup.server.fairness import is_shared
from wssup.supervisor import address as module
from wssup.supervisor.address import Address
from wssup.supervisor.listeners import Listeners

Make = Callable[..., Listeners]

_SYN, _ACK, _SYN_ACK, _RST, _FIN_ACK, _PSH_ACK = 0x02, 0x10, 0x12, 0x04, 0x11, 0x18


@pytest.fixture
def make() -> Iterator[Make]:
    """Listeners on some addresses, listening; closed at the end."""
    made: list[Listeners] = []

    def making(*binds: str, slots: int = 1, mode: int = 0o660, backlog: int = 1024) -> Listeners:
        found = Listeners(backlog=backlog, mode=mode)
        made.append(found)
        found.extend(slots)
        found.add(found.bind(binds))
        return found

    yield making
    for found in made:
        found.close_all()


def port_of(address: Address) -> int:
    return int(str(address).rpartition(":")[2])


def only(found: Listeners) -> Address:
    (address,) = found.addresses.values()
    return address


def meet(address: Address, slots: int, clients: int) -> Counter[int]:
    """Connect from several addresses; how many came to each slot's listener."""
    port = port_of(address)
    with contextlib.ExitStack() as stack:
        for number in range(clients):
            client = stack.enter_context(socket.socket())
            client.bind((f"127.0.0.{number % 7 + 2}", 0))
            client.settimeout(20)
            client.connect(("127.0.0.1", port))
        came: Counter[int] = Counter()
        selector = stack.enter_context(selectors.DefaultSelector())
        for slot in range(slots):
            listener = stack.enter_context(socket.socket(fileno=os.dup(address.fileno(slot))))
            selector.register(listener, selectors.EVENT_READ, (slot, listener))
        deadline = time.monotonic() + 20
        while came.total() < clients:
            assert time.monotonic() < deadline, came
            for key, _ in selector.select(1):
                slot, listener = key.data
                with contextlib.suppress(BlockingIOError):
                    while True:
                        listener.accept()[0].close()
                        came[slot] += 1
    return came


# Which listener is which slot's.


@pytest.mark.parametrize("slot", range(4))
def test_the_number_in_the_group_is_the_slot(make: Make, slot: int) -> None:
    """A program that returns a slot's number brings every connection to that slot's listener."""
    found = make("127.0.0.1:0", slots=4)
    found.steer([int(s == slot) for s in range(4)])
    assert meet(only(found), 4, 40) == {slot: 40}


def test_excluded_slots_get_none(make: Make) -> None:
    """Of 400 connections from several addresses none comes to a slot of weight zero, and the others
    get about their shares.
    """
    found = make("127.0.0.1:0", slots=4)
    found.steer([0, 1, 0, 3])
    came = meet(only(found), 4, 400)
    assert set(came) == {1, 3}
    # 100 are expected; six standard deviations of chance are 52.
    assert 48 <= came[1] <= 152


def test_steering_follows_a_change(make: Make) -> None:
    """A later program replaces an earlier one."""
    found = make("127.0.0.1:0", slots=2)
    for shares, slot in (([1, 0], 0), ([0, 1], 1), ([1, 0], 0)):
        found.steer(shares)
        assert meet(only(found), 2, 20) == {slot: 20}


def test_slots_that_join_later_keep_their_numbers(make: Make) -> None:
    """Listeners for further slots join the same port, behind those that are there, and the earlier
    ones stay what they are; asking for fewer changes nothing.
    """
    found = make("127.0.0.1:0", slots=1)
    address = only(found)
    first, text = address.fileno(0), str(address)
    found.extend(3)
    found.extend(2)
    assert (found.slots, address.listening) == (3, 3)
    assert (address.fileno(0), str(address)) == (first, text)
    for slot in (2, 1, 0):
        found.steer([int(s == slot) for s in range(3)])
        assert meet(address, 3, 20) == {slot: 20}


def test_shares_of_slots_without_listeners_are_left_out(make: Make) -> None:
    """Steering never names a listener that is not there yet: the kernel would use its hash."""
    found = make("127.0.0.1:0", slots=2)
    found.steer([0, 1, 1, 1])
    assert meet(only(found), 2, 40) == {1: 40}


def test_an_extension_that_failed_is_none(make: Make) -> None:
    """When there are no descriptors for all addresses, what one has got more than another does not
    listen, and queues are those of the slots there are.
    """
    found = make("127.0.0.1:0", "127.0.0.2:0", slots=2)
    first, second = found.addresses.values()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = max(int(fd.name) for fd in Path("/proc/self/fd").iterdir())
    with contextlib.ExitStack() as stack:
        while (probe := stack.enter_context(socket.socket())).fileno() < taken:
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 3, hard))
        try:
            with pytest.raises(ListenError):
                found.extend(20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.queued() == [0, 0]
    found.extend(3)
    assert first.listening == second.listening == 3
    assert found.queued() == [0, 0, 0]


def test_an_address_added_later_is_steered_as_the_others(make: Make) -> None:
    """A new address starts with the shares in force."""
    found = make("127.0.0.1:0", slots=3)
    found.steer([0, 0, 1])
    found.add(found.bind(["127.0.0.2:0"]))
    _, late = found.addresses.values()
    port = port_of(late)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.2", port), 20))
        third = stack.enter_context(socket.socket(fileno=os.dup(late.fileno(2))))
        third.settimeout(20)
        for _ in range(20):
            third.accept()[0].close()


def test_port_0_is_one_port_for_all_slots(make: Make) -> None:
    """The kernel chooses once; all slots listen there, and that is the address's name."""
    found = make("127.0.0.1:0", slots=5)
    address = only(found)
    names = set()
    for slot in range(5):
        with socket.socket(fileno=os.dup(address.fileno(slot))) as listener:
            names.add(listener.getsockname())
    assert names == {("127.0.0.1", port_of(address))}
    assert port_of(address) > 0
    assert address.text == "127.0.0.1:0"


def test_options_of_a_listener(make: Make) -> None:
    """Every slot's listener reuses address and port, does not block, and gives its connections
    TCP_NODELAY, keepalive and a bound for unacknowledged data.
    """
    address = only(make("127.0.0.1:0", slots=2))
    for slot in range(2):
        with socket.socket(fileno=os.dup(address.fileno(slot))) as listener:
            assert not os.get_blocking(listener.fileno())
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_ACCEPTCONN):
                assert listener.getsockopt(socket.SOL_SOCKET, option)
        assert not os.get_inheritable(address.fileno(slot))
    with socket.create_connection(("127.0.0.1", port_of(address)), 20), contextlib.ExitStack() as s:
        selector = s.enter_context(selectors.DefaultSelector())
        for slot in range(2):
            listener = s.enter_context(socket.socket(fileno=os.dup(address.fileno(slot))))
            selector.register(listener, selectors.EVENT_READ)
        ((key, _),) = selector.select(20)
        taken = s.enter_context(key.fileobj.accept()[0])  # type: ignore[union-attr]
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 15
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000


def test_the_only_listener_of_a_socket_unit() -> None:
    """It is in no group, whatever the unit asked for: workers know by that that they share it."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("127.0.0.1", 0))
        made.listen()
        host, port = made.getsockname()
        address = Address(f"{host}:{port}")
        address.take([os.dup(made.fileno())], 10, activated=True)
        assert address.shared
        assert is_shared(made)
        address.close()


# Who may have an address.


def test_a_second_instance_of_the_same_user_is_refused(make: Make) -> None:
    """Although all listeners have SO_REUSEPORT, the port of a running instance cannot be had, and
    the error says who has it.
    """
    first = only(make("127.0.0.1:0", slots=3))
    with pytest.raises(ListenError) as caught:
        make(f"127.0.0.1:{port_of(first)}", slots=3)
    assert f"127.0.0.1:{port_of(first)} is in use by pid {os.getpid()} (" in caught.value.message
    assert "another port" in caught.value.remedy


def test_leftover_connections_do_not_keep_the_port(make: Make) -> None:
    """The port can be bound again at once while connections of an earlier instance linger."""
    first = make("127.0.0.1:0")
    address = only(first)
    text = str(address)
    with socket.create_connection(("127.0.0.1", port_of(address)), 20):
        with socket.socket(fileno=os.dup(address.fileno(0))) as listener:
            listener.settimeout(20)
            taken, _ = listener.accept()
            listener.setblocking(False)
        taken.close()
        first.close_all()
        assert str(only(make(text))) == text


def test_all_addresses_or_none(make: Make) -> None:
    """When one of several addresses cannot be had, the others are not bound either, and nothing of
    them stays open.
    """
    holder = only(make("127.0.0.1:0"))
    fine = free_port()
    before = set(Path("/proc/self/fd").iterdir())
    found = Listeners(backlog=10, mode=0o660)
    found.extend(2)
    with pytest.raises(ListenError, match=str(holder)):
        found.bind([f"127.0.0.1:{fine}", str(holder)])
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert found.addresses == {}
    assert str(only(make(f"127.0.0.1:{fine}"))) == f"127.0.0.1:{fine}"


def test_nobody_is_served_before_listen() -> None:
    """Binding holds the address but takes no connection; adding does."""
    found = Listeners(backlog=10, mode=0o660)
    found.extend(1)
    try:
        made = found.bind(["127.0.0.1:0"])
        port = port_of(made[0])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 20)
        found.add(made)
        socket.create_connection(("127.0.0.1", port), 20).close()
    finally:
        found.close_all()


def test_an_address_of_another_machine(make: Make) -> None:
    """An address that this machine does not have is an error that says so (TEST-NET-1)."""
    with pytest.raises(ListenError) as caught:
        make("192.0.2.1:0")
    assert "192.0.2.1:0: Cannot assign requested address" in caught.value.message
    assert "no such address" in caught.value.remedy


def test_a_name_that_does_not_resolve(make: Make) -> None:
    """A hostname without an address is an error that names it."""
    with pytest.raises(ListenError, match=r"'no-such-host\.invalid' cannot be resolved"):
        make("no-such-host.invalid:0")


def test_a_hostname(make: Make) -> None:
    """A name is listened on at its (IPv4) address, and keeps its name."""
    address = only(make("localhost:0", slots=2))
    assert str(address) == f"localhost:{port_of(address)}"
    socket.create_connection(("127.0.0.1", port_of(address)), 20).close()


# IPv6.


def test_ipv6_and_its_slots(make: Make) -> None:
    """Steering works on an IPv6 address too; its name has brackets."""
    found = make("[::1]:0", slots=2)
    address = only(found)
    assert str(address) == f"[::1]:{port_of(address)}"
    found.steer([0, 1])
    with socket.socket(fileno=os.dup(address.fileno(1))) as listener:
        listener.settimeout(20)
        for _ in range(20):
            with socket.create_connection(("::1", port_of(address)), 20):
                listener.accept()[0].close()


def test_any_address_of_ipv6_takes_ipv4_too(make: Make) -> None:
    """``[::]`` alone serves both kinds of clients."""
    port = port_of(only(make("[::]:0", slots=2)))
    for host in ("::1", "127.0.0.1"):
        socket.create_connection((host, port), 20).close()


@pytest.mark.parametrize("order", [("0.0.0.0", "[::]"), ("[::]", "0.0.0.0")])
def test_any_address_of_both_kinds_on_one_port(make: Make, order: tuple[str, str]) -> None:
    """``[::]`` and ``0.0.0.0`` share a port, in either order, each for its own kind of clients, and
    further slots join both.
    """
    port = free_port()
    found = make(*(f"{host}:{port}" for host in order))
    found.extend(3)
    assert [a.listening for a in found.addresses.values()] == [3, 3]
    for host, family in (("::1", socket.AF_INET6), ("127.0.0.1", socket.AF_INET)):
        with socket.create_connection((host, port), 20) as client:
            assert client.family is family
    v6 = found.addresses[f"[::]:{port}"]
    for slot in range(3):
        with socket.socket(fileno=os.dup(v6.fileno(slot))) as listener:
            assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


# Unix sockets.


def test_unix_socket(make: Make, tmp_path: Path) -> None:
    """A unix socket serves all slots by one listener, has the mode asked for, needs no steering,
    and its file goes with it.
    """
    path = tmp_path / "app.sock"
    found = make(f"unix:{path}", slots=3, mode=0o606)
    address = only(found)
    assert {address.fileno(s) for s in range(3)} == {address.fileno(0)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o606
    found.steer([0, 1, 1])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert found.of(1) == ([f"unix:{path}"], [address.fileno(0)])
    assert found.of(1, lent=True) == ([], [])
    found.close_all()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(make: Make, tmp_path: Path) -> None:
    """The file that a dead instance left is no obstacle."""
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    make(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("backlog", [0, 5])
def test_a_live_unix_socket_is_refused(make: Make, tmp_path: Path, backlog: int) -> None:
    """The file of somebody who listens, busy or not, stays; the error says that it is in use."""
    path = tmp_path / "app.sock"
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(socket.socket(socket.AF_UNIX))
        live.bind(str(path))
        live.listen(backlog)
        if not backlog:
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        with pytest.raises(ListenError, match="in use") as caught:
            make(f"unix:{path}")
        assert str(path) in caught.value.message
        assert path.is_socket()


def test_what_is_no_socket_is_left_alone(make: Make, tmp_path: Path) -> None:
    """A regular file in the way is an error, and stays."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="something that is no socket is there"):
        make(f"unix:{path}")
    assert path.read_text() == "data"


@pytest.mark.parametrize("where", ["file/app.sock", "missing/app.sock"])
def test_a_path_that_cannot_be(make: Make, tmp_path: Path, where: str) -> None:
    """A path through a file, or a directory that is not there, is an error with the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ListenError, match=rf"{where}: (Not a|No such file or) directory"):
        make(f"unix:{tmp_path}/{where}")


def test_a_file_that_is_not_ours_any_more_is_not_removed(make: Make, tmp_path: Path) -> None:
    """When another instance has taken over the path, closing leaves its socket alone."""
    path = tmp_path / "app.sock"
    found = make(f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        found.close_all()
        assert path.is_socket()


# The end of an address.


@pytest.mark.parametrize(
    ("flags", "passes"),
    [
        (_SYN, False),
        (_SYN | 0xC0, False),
        (_SYN_ACK, True),
        (_ACK, True),
        (_RST, True),
        (_FIN_ACK, True),
        (_PSH_ACK, True),
    ],
)
def test_only_segments_that_open_a_connection_are_dropped(flags: int, *, passes: bool) -> None:
    """The filter of a closing address drops a SYN without ACK, also with ECN's flags (RFC 3168),
    and passes everything else whole.
    """
    segment = bytes(13) + bytes([flags]) + bytes(6)
    assert bpf.run(module._NO_NEW, packet=segment) == (0xFFFFFFFF if passes else 0)


def test_a_closing_address_takes_no_new_handshakes_but_keeps_what_it_has(make: Make) -> None:
    """After refuse_new() a client's SYN is not answered, while connections that wait to be accepted
    stay and can talk.
    """
    found = make("127.0.0.1:0")
    address = only(found)
    port = port_of(address)
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        address.refuse_new()
        late = stack.enter_context(socket.socket())
        late.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.connect(("127.0.0.1", port))
        waiting.sendall(b"hello")
        listener = stack.enter_context(socket.socket(fileno=os.dup(address.fileno(0))))
        listener.settimeout(20)
        taken = stack.enter_context(listener.accept()[0])
        taken.settimeout(20)
        assert taken.recv(10) == b"hello"
        taken.sendall(b"welcome")
        assert waiting.recv(10) == b"welcome"
        assert _state(late) == _SYN_SENT
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


#: TCP_SYN_SENT and TCP_SYN_RECV of <netinet/tcp.h>; the state is tcp_info's first byte (tcp(7)).
_SYN_SENT = 2


def _state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def test_close_lets_go_of_the_port(make: Make) -> None:
    """A closed address refuses connections and can be bound by others; the rest stays."""
    found = make("127.0.0.1:0", "127.0.0.2:0", slots=2)
    first, second = found.addresses.values()
    name, port = str(first), port_of(first)
    found.close(first.text)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 20)
    assert list(found.addresses.values()) == [second]
    socket.create_connection(("127.0.0.2", port_of(second)), 20).close()
    assert str(only(make(name))) == name


def test_listeners_of_a_slot(make: Make, tmp_path: Path) -> None:
    """A slot's listeners are named as configured, in that order; a borrower of the slot gets them
    without the unix sockets, which it has anyway.
    """
    found = make("127.0.0.1:0", f"unix:{tmp_path}/a.sock", "[::1]:0", slots=2)
    texts, descriptors = found.of(1)
    assert texts == ["127.0.0.1:0", f"unix:{tmp_path}/a.sock", "[::1]:0"]
    assert descriptors == [a.fileno(1) for a in found.addresses.values()]
    lent_texts, lent = found.of(1, lent=True)
    assert lent_texts == ["127.0.0.1:0", "[::1]:0"]
    assert lent == [descriptors[0], descriptors[2]]


def test_connections_wait_for_a_worker(make: Make) -> None:
    """As many clients as the backlog allows connect although nobody accepts; none is refused."""
    address = only(make("127.0.0.1:0", backlog=50))
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(address)), 20))
            for _ in range(50)
        ]
        until(lambda: all(_state(c) == 1 for c in clients), 20, "connections to be established")
