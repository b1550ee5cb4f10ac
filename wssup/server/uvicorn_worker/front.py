"""uvicorn inside a worker: its lifespan, its HTTP, and its log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import Server, ServerState

from wssup import logs
from wssup.application import Application, own_traceback, summary
from wssup.config.settings import Settings
from wssup.errors import ApplicationError
from wssup.scoreboard import RowWriter
from wssup.server.engine import Engine
from wssup.server.forwarded import TrustedProxies
from wssup.server.opening import HttpSocket
from wssup.server.uvicorn_worker.http import Http, ProxiedHttp, Upgraded

__all__ = ["Front"]

#: Seconds between two looks of uvicorn at its clock, for the Date of its answers.
_TICK: Final = 1.0
#: By the length of a packed address.
_FAMILIES: Final = {0: socket.AF_UNIX, 6: socket.AF_INET, 18: socket.AF_INET6}


class Front:
    """Serves an application's lifespan and HTTP.

    :ivar server_state: uvicorn's.
    :ivar connections: those that speak HTTP.
    :ivar trusted: proxies that are believed where a client comes from.
    :ivar leaves: whether connections are kept for no further request: each answer closes its own.
    :ivar limits: of clients.
    :ivar cuts_off: whether there is no time left for any.
    """

    def __init__(self, application: Application, settings: Settings) -> None:
        self.config = Config(
            application.handler,
            interface="asgi3",
            http=Http,
            ws=Upgraded,
            lifespan="auto",
            log_config=None,
            access_log=False,
            # Headers of proxies are read by the engine's own rules.
            proxy_headers=False,
            root_path=application.root_path,
            timeout_keep_alive=settings.limits.keep_alive_timeout,  # type: ignore[arg-type]
        )
        self.config.load()
        self.config.lifespan_class = _Lifespan
        self._loop = asyncio.get_running_loop()
        self._server = _Server(self.config)
        self._engine: Engine | None = None
        self._serving: asyncio.Task[None] | None = None
        self.trusted = TrustedProxies(settings.trusted_proxies, settings.proxy_headers)
        self._protocol = ProxiedHttp if settings.trusted_proxies else Http
        self.connections: set[Http] = set()
        self._counted = 0
        self._errors = 0
        self.leaves = self.cuts_off = False
        self.limits = settings.limits
        self._connecting: set[asyncio.Task[None]] = set()
        self._log = logs.get()
        for name in ("uvicorn.error", "uvicorn.asgi"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("uvicorn.error").addFilter(self._tells)

    @property
    def server_state(self) -> ServerState:
        """What uvicorn shares between connections."""
        return self._server.server_state

    @property
    def app_state(self) -> dict[str, Any]:
        """What the lifespan has put into its scope's ``state``."""
        return self._server.lifespan.state

    # The lifespan.

    async def start(self) -> None:
        """Run the application's start-up.

        :raises ApplicationError: it failed.
        """
        self._serving = asyncio.create_task(self._server.serve(sockets=[]))
        ready = asyncio.create_task(self._server.ready.wait())
        try:
            await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._serving.done():
            self._serving.result()
            raise ApplicationError("uvicorn ended while it started", "see the log")

    async def outlives(self, other: asyncio.Task[Any]) -> bool:
        """Wait for another task; whether uvicorn is still there then."""
        assert self._serving is not None
        await asyncio.wait({self._serving, other}, return_when=asyncio.FIRST_COMPLETED)
        return not self._serving.done()

    async def stop(self, patience: float) -> None:
        """Wait for tasks of requests that go on behind their answers, and run the application's
        shutdown.

        :param patience: seconds after which those tasks are cancelled.
        :raises ApplicationError: it failed.
        """
        assert self._serving is not None
        self.config.timeout_graceful_shutdown = patience  # type: ignore[assignment] # wait_for()'s
        self._server.should_exit = True
        self._server.leaving.set()
        await self._serving
        self._server.lifespan.check("shutdown")

    # HTTP.

    def attach(self, engine: Engine) -> None:
        """Take what is plain HTTP from an engine."""
        self._engine = engine
        engine.opening.http = self.take

    def take(self, found: HttpSocket) -> None:
        """Serve HTTP on a connection, which is owned from now on."""
        task = self._loop.create_task(self._connect(found))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, found: HttpSocket) -> None:
        http = self._protocol(self, found)
        # Told what it is, the object need not ask the kernel, which is three system calls.
        sock = socket.socket(_FAMILIES[len(found.peer)], socket.SOCK_STREAM, 0, fileno=found.fd)
        try:
            await self._loop.connect_accepted_socket(lambda: http, sock)
        except BaseException as error:
            # Its client is gone already, or the worker is.
            if http.is_ours:
                # Counted first: close(2) wakes the client.
                self.ended(http)
                sock.close()
            if not isinstance(error, OSError):
                raise

    def ended(self, http: Http) -> None:
        """A connection is closed."""
        assert self._engine is not None
        self.connections.discard(http)
        self._engine.opening.http_ended(http.found.peer)

    def give_back(self, http: Http, found: HttpSocket) -> None:
        """A connection is the engine's again: its next request asks for a WebSocket."""
        assert self._engine is not None
        self.connections.discard(http)
        self._engine.opening.from_http(found)

    def linger(self, http: Http, found: HttpSocket) -> None:
        """Nothing more is said on a connection."""
        assert self._engine is not None
        self.connections.discard(http)
        self._engine.opening.leave_http(found)

    def leave(self) -> None:
        """Close connections that wait for a request, now, and the others behind their answer."""
        self.leaves = True
        for http in list(self.connections):
            http.shutdown()

    def abort(self) -> None:
        """Cut off every connection, and cancel what runs for them."""
        self.leaves = self.cuts_off = True
        for http in list(self.connections):
            http.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()

    def look(self) -> None:
        """From time to time: cut off who is waited for too long."""
        now = time.monotonic()
        for http in list(self.connections):
            http.look(now)

    def flush(self, row: RowWriter) -> None:
        """Write the counters to the scoreboard."""
        answered = self.server_state.total_requests - self._counted
        if answered or self._errors:
            row.http_requests(answered, self._errors)
            self._counted += answered
            self._errors = 0

    def _tells(self, record: logging.LogRecord) -> bool:
        """What uvicorn says of applications that raise is counted, and said as elsewhere."""
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno < logging.ERROR or isinstance(error, asyncio.CancelledError):
            return error is None
        self._errors += 1
        if error is None:
            return True
        self._log.error("handler_failed", error=summary(error), exception=own_traceback(error))
        return False


class _Server(Server):
    """uvicorn's server, which accepts nothing and is told its end by the worker."""

    lifespan: _Lifespan

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.leaving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which would end the process if it fails; older ones leave it at a flag."""
        with contextlib.suppress(SystemExit):
            await super().startup(sockets=sockets)
        self.lifespan.check("startup")
        if not self.started:
            raise ApplicationError("uvicorn did not start", "see the log")
        await self.on_tick(0)
        self.ready.set()

    async def main_loop(self) -> None:
        """As uvicorn's, without looking ten times a second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.leaving.wait(), _TICK)


class _Lifespan(LifespanOn):
    """uvicorn's lifespan, which remembers what went wrong."""

    reason = ""

    async def send(self, message: Any) -> None:
        """As uvicorn's."""
        if message["type"].endswith(".failed"):
            self.reason = message.get("message", "")
            message = {**message, "message": ""}  # told by the worker
        await super().send(message)

    def check(self, what: str) -> None:
        """Whether startup or shutdown has failed.

        :raises ApplicationError: it has.
        """
        if self.startup_failed or self.shutdown_failed:
            lines = self.reason.strip().splitlines()
            # Starlette says the whole traceback, which ends with the error.
            said = f": {lines[-1]}" if lines else ""
            raise ApplicationError(
                f"its lifespan's {what} failed{said}", "see the traceback", self.reason
            )
