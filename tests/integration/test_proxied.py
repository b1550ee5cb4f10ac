"""Clients that come through a proxy, which a raw socket plays here."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.harness.clients import aside
from tests.harness.instance import Instance
from wssup.server.frames import TEXT, encode

APPLICATION = """\
class App:
    def on_receive(self, ws, data):
        where = ws.remote
        if isinstance(where, str):
            ws.send_nowait(where)
        else:
            ws.send_nowait(f"{where.address} {where.port} {where.is_ssl} {ws.resumed} {ws.local}")

app = App()
"""
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


@asynccontextmanager
async def through(
    address: str, *headers: str, source: str = "127.0.0.1"
) -> AsyncIterator[tuple[trio.SocketStream, bytes]]:
    """A connection on which a proxy has sent a handshake, and what was answered."""
    if address.startswith("unix:"):
        stream = await trio.open_unix_socket(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port), local_address=source)
    async with stream:
        lines = b"".join(f"{header}\r\n".encode() for header in headers)
        await stream.send_all(REQUEST + lines + b"\r\n")
        yield stream, bytes(await stream.receive_some(4096))


async def where(stream: trio.SocketStream) -> str:
    """Where the application says that its client is."""
    # A client masks (RFC 6455 section 5.3); of a mask of zeros nothing is to be seen.
    frame = encode(TEXT, b"?")
    await stream.send_all(frame[:1] + bytes([frame[1] | 0x80]) + bytes(4) + frame[2:])
    answer = await stream.receive_some(4096)
    return bytes(answer[2:]).decode()


async def test_clients_behind_proxies(start: Callable[..., Instance], tmp_path: Path) -> None:
    """The application is told the client's address and whether it uses TLS by a trusted proxy, and
    so after a move to another worker; of others headers are ignored. Limits count the clients and
    not the proxy. Behind a unix socket there may be a proxy, too.
    """
    unix = f"unix:{tmp_path}/ws"
    instance = start(
        APPLICATION,
        bind=["127.0.0.1:0", unix],
        trusted_proxies=["127.0.0.1", "unix"],
        limits={"connections_per_address": 2},
        # A ping would be taken for an answer.
        heartbeat={"ping_interval": 0},
        workers=1,
    )
    instance.running()
    tcp = instance.address()
    story, client = "X-Forwarded-For: 1.1.1.1, 192.0.2.7", "X-Forwarded-Proto: https"
    async with contextlib.AsyncExitStack() as stack:

        async def come(address: str, *headers: str, source: str = "127.0.0.1") -> trio.SocketStream:
            stream, head = await stack.enter_async_context(
                through(address, *headers, source=source)
            )
            assert head.startswith(b"HTTP/1.1 101"), head
            return stream

        first = await come(tcp, story, client)
        assert await where(first) == f"192.0.2.7 0 True False {_local(tcp)}"
        second = await come(unix, "X-Forwarded-For: [2001:db8::1]:9")
        assert (await where(second)).startswith(f"2001:db8::1 9 False False {unix}")
        nobody = await come(unix)
        assert await where(nobody) == "unix:"
        liar = await come(tcp, story, client, source="127.0.0.2")
        assert (await where(liar)).startswith("127.0.0.2 ")
        # Two of an address, and then no more of it; the proxy has others.
        await come(unix, "X-Forwarded-For: 192.0.2.7")
        async with through(tcp, "X-Forwarded-For: 192.0.2.7") as (_, head):
            assert head.startswith(b"HTTP/1.1 429")
        for number in range(4):
            await come(tcp, f"X-Forwarded-For: 192.0.2.{100 + number}")
        assert (await aside(instance.run, "reload")).returncode == 0
        assert await where(first) == f"192.0.2.7 0 True True {_local(tcp)}"
        assert (await where(second)).startswith("2001:db8::1 9 False True unix:")
        async with through(unix, "X-Forwarded-For: 192.0.2.7") as (_, head):
            assert head.startswith(b"HTTP/1.1 429")
        await first.aclose()
        instance.wait(lambda s: s["connections"]["closed"] >= 1, "it to be gone")
        await come(unix, "X-Forwarded-For: 192.0.2.7")
    counts = instance.status()["connections"]
    assert counts["refused_by_reason"]["address"] == 2
    assert counts["handler_errors"] == 0


def _local(tcp: str) -> str:
    host, _, port = tcp.rpartition(":")
    return f'Endpoint(address="{host}", port={port}, is_ssl=False)'
