"""gunicorn's side of a worker: what the arbiter calls and expects (gunicorn 23 or newer)."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
from types import FrameType
from typing import Any, Final

import trio
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError
from gunicorn.workers.base import Worker

from wssup import application, identity, logs
from wssup.application import Application, Way, own_traceback, summary
from wssup.config.gunicorn import WORKER_SETTINGS, translate
from wssup.config.loading import load
from wssup.config.settings import Settings
from wssup.errors import ApplicationError, UserError
from wssup.gunicorn.requests import watched
from wssup.gunicorn.serving import Serving

__all__ = ["TrioWorker"]

#: What gunicorn's loader and ours understand alike.
_PLAIN_NAME: Final = re.compile(r"(?!\d)\w+(?:\.(?!\d)\w+)*:(?!\d)\w+(?:\.(?!\d)\w+)*")
#: What gunicorn takes if only a module is named.
_USUAL_ATTRIBUTE: Final = "application"


class TrioWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """A worker of gunicorn that serves WebSockets with wssup's engine on trio.

    Of gunicorn's settings it keeps to ``timeout``, ``graceful_timeout``, ``max_requests`` and its
    jitter (a handshake is a request, and so is a request of HTTP), ``worker_connections``,
    ``limit_request_*``, ``forwarded_allow_ips``, ``reuse_port`` and the hooks. wssup's own settings
    come from ``wssup.toml`` and the environment, and are stronger.
    """

    settings: Settings
    application: Application
    serving: Serving

    def init_process(self) -> None:
        """Prepare this process, which was just forked, and serve.

        :raises SystemExit: something in the configuration cannot be.
        """
        if self.cfg.is_ssl:
            self._refuse("TLS is not spoken here", "let the proxy in front end it")
        if self.cfg.env:
            # They may be settings of ours; the base class sets them as well, but later.
            os.environ.update(self.cfg.env)
        given = {name: getattr(self.cfg, name) for name in WORKER_SETTINGS}
        try:
            values, _ = translate(given, WORKER_SETTINGS)
            layer = {key: (value, "gunicorn") for key, value in values.items()}
            self.settings = load(
                cli={}, environ=os.environ, cwd=self.cfg.chdir, gunicorn=layer
            ).settings
        except UserError as error:
            self._refuse(error.message, error.remedy)
        logs.configure_into(self.log.error_log)
        identity.set_current_worker(identity.WorkerInfo("gunicorn", self.age, 1, os.getpid()))
        super().init_process()

    def load_wsgi(self) -> None:
        """Import the application, whatever its style.

        :raises AppImportError: there is none; it ends gunicorn.
        """
        try:
            self.application = self._load()
        except ApplicationError as error:
            text = f"{error.traceback}{error.message} → {error.remedy}"
            if not self.cfg.reload:
                raise AppImportError(text) from None
            # Somebody is writing it, and will save the file again.
            self.log.error(text)  # noqa: TRY400 - it has the application's own traceback
            self.application = Application("broken", _broken, None)
        self.wsgi = self.application.handler

    def _load(self) -> Application:
        name = str(getattr(self.app, "app_uri", "") or "application")
        module, colon, _ = name.partition(":")
        name = name if colon else f"{name}:{_USUAL_ATTRIBUTE}"
        settings = self.settings
        way = Way(
            settings.interface,
            factory=settings.factory,
            resumes=False,
            root_path=settings.root_path,
        )
        if self.app.callable is None and _PLAIN_NAME.fullmatch(name):
            return application.load(name, self.cfg.chdir, way)
        # It was imported by the arbiter (preload_app), or is made by a call in its name.
        return application.of(name, self.app.wsgi(), way, sys.modules.get(module))

    def init_signals(self) -> None:
        """As gunicorn does; but trio wakes itself up."""
        super().init_signals()
        signal.set_wakeup_fd(-1)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - gunicorn's
        """The arbiter has not heard of this worker for ``timeout``: say where it stands, and end.

        The loop cannot be trusted, and an exception would be the application's: so no SystemExit.
        """
        self.alive = False
        self.cfg.worker_abort(self)
        self.log.critical("The event loop does not turn (pid:%s); it stands here:", self.pid)
        faulthandler.dump_traceback()
        os._exit(1)

    def run(self) -> None:
        """Serve until told to end.

        :raises SystemExit: the application's lifespan could not begin, which ends gunicorn; or
            failed in the end.
        """
        self.application = watched(self.application, self)
        self.serving = Serving(self, self.application, self.settings)
        try:
            trio.run(self.serving.run)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told and ends this
            # Without the frames of trio and of wssup.
            self.log.error("%s\n%s", summary(error), own_traceback(error))  # noqa: TRY400
            raise SystemExit(1 if self.serving.began else Arbiter.WORKER_BOOT_ERROR) from None

    def quit(self) -> None:
        """Call the hook of a worker that is interrupted."""
        self.alive = False
        self.cfg.worker_int(self)

    def handle_request(self) -> None:
        """Count a request; after ``max_requests`` of them this worker makes room for another."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
            self.serving.leave()

    def _refuse(self, what: str, remedy: str) -> None:
        self.log.error("wssup.gunicorn.TrioWorker: %s → %s", what, remedy)
        raise SystemExit(Arbiter.WORKER_BOOT_ERROR)


async def _broken(request: Any) -> None:
    """Stand in for an application that cannot be imported."""
    await request.reject(500, body=b"the application cannot be imported\n")
