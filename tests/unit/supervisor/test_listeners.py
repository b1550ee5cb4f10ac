"""Listening sockets: what they are like, who may have an address, and the end of one."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from pathlib import Path

import pytest

from tests.harness import bpf
from tests.harness.descriptors import open_descriptors
from tests.harness.listeners import Make, only, port_of
from tests.harness.ports import free_port
from tests.harness.processes import until
from wssup.errors import ListenError
from wssup.server.fairness import is_shared
from wssup.supervisor import address as module
from wssup.supervisor.address import Address
from wssup.supervisor.listeners import Listeners

_SYN, _ACK, _SYN_ACK, _RST, _FIN_ACK, _PSH_ACK = 0x02, 0x10, 0x12, 0x04, 0x11, 0x18


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
    before = open_descriptors()
    found = Listeners(backlog=10, mode=0o660)
    found.extend(2)
    with pytest.raises(ListenError, match=str(holder)):
        found.bind([f"127.0.0.1:{fine}", str(holder)])
    assert open_descriptors() == before
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
