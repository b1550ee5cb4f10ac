"""The application: found by its name, imported, looked over."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Any, TypeVar

import msgspec

from wssup.errors import ApplicationError
from wssup.interfaces import Interface, Said, style_of
from wssup.tracebacks import import_failed, own_traceback, summary

__all__ = [
    "Application",
    "Way",
    "check_worker",
    "digest",
    "load",
    "of",
    "own_traceback",
    "resumable",
    "style_of",
    "summary",
]


class Application(msgspec.Struct, frozen=True):
    """What a worker serves.

    :ivar name: ``module:attribute``.
    :ivar handler: called with a request for each WebSocket handshake; of an event-style
        application, the object that has the hooks; or an ASGI 3 application.
    :ivar lifespan: the async context manager named ``lifespan`` beside the handler; entered before
        a worker is ready, left after its last connection. Of an ASGI application ``None``: it has a
        scope for that.
    :ivar interface: which of the three it is.
    :ivar resumes: of an ASGI application: whether its connections can move.
    :ivar root_path: of an ASGI application: the part of the path that a proxy has cut off.
    """

    name: str
    handler: Any
    lifespan: Callable[[], AbstractAsyncContextManager[object]] | None
    interface: Interface = "task"
    resumes: bool = False
    root_path: str = ""

    @property
    def is_event_style(self) -> bool:
        """Whether it is an object with hooks."""
        return self.interface == "event"

    @property
    def is_asgi(self) -> bool:
        """Whether it is an ASGI 3 application."""
        return self.interface == "asgi"

    @property
    def is_resumable(self) -> bool:
        """Whether its connections can move to another worker."""
        if self.is_event_style or (self.is_asgi and self.resumes):
            return True
        return bool(getattr(self.handler, _RESUMABLE, False))


class Way(msgspec.Struct, frozen=True):
    """How an application is to be taken.

    :ivar interface: what it is; ``auto``: what it looks like.
    :ivar factory: the name is that of a function without parameters that returns the application.
    :ivar resumes: see `Application`; so for ``root_path``.
    """

    interface: Said = "auto"
    factory: bool = False
    resumes: bool = False
    root_path: str = ""

    @classmethod
    def by(cls, settings: Mapping[str, Any]) -> Way:
        """As the settings say, which are those of the configuration, as a dict."""
        return cls(
            settings.get("interface", "auto"),
            settings.get("factory", False),
            settings.get("asgi_resumable", False),
            settings.get("root_path", ""),
        )


_AS_IT_LOOKS = Way()


def load(name: str, app_dir: str, way: Way = _AS_IT_LOOKS) -> Application:
    """Import the application called ``name``, with ``app_dir`` first on ``sys.path``.

    :param name: ``module:attribute``; both may have dots.
    :param app_dir: a directory, already free of symbolic links.
    :raises ApplicationError: if there is no such module or attribute, importing raises, or it is no
        application.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ApplicationError(
            f"{name!r} does not name an application",
            "write MODULE:ATTRIBUTE, for example chat.server:app",
        )
    if not os.path.isdir(app_dir):  # noqa: PTH112 - a path goes on sys.path as text
        raise ApplicationError(f"app_dir {app_dir!r} is not a directory", "name one with --app-dir")
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise ApplicationError(
                f"there is no module {error.name!r} (for {name}; looked in {app_dir} and the "
                f"installed packages)",
                "check the spelling, or name the directory that holds it with --app-dir",
            ) from None
        raise import_failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise import_failed(name, error) from error
    handler: Any = module
    found = f"{module_name}:"
    for part in attribute.split("."):
        try:
            handler = getattr(handler, part)
        except AttributeError:
            near = difflib.get_close_matches(
                part, [n for n in dir(handler) if not n.startswith("_")], n=1
            )
            raise ApplicationError(
                f"module {module_name!r} ({getattr(module, '__file__', None)}) has no attribute "
                f"{attribute!r}",
                f"did you mean {found}{near[0]}?"
                if near
                else "define it there, or name another one",
            ) from None
        found += f"{part}."
    return of(name, handler, way, module)


def of(
    name: str, found: Any, way: Way = _AS_IT_LOOKS, module: ModuleType | None = None
) -> Application:
    """The application that ``found`` is.

    :param name: what errors call it.
    :param module: where a ``lifespan`` may stand beside it.
    :raises ApplicationError: it is none.
    """
    if way.factory:
        found = _made(name, found)
    handler, interface = style_of(name, found, way.interface)
    lifespan = None if interface == "asgi" else getattr(module, "lifespan", None)
    if lifespan is not None and not callable(lifespan):
        raise ApplicationError(
            f"{getattr(module, '__name__', '')}:lifespan is {type(lifespan).__name__}, not an "
            f"async context manager function",
            "write it with contextlib.asynccontextmanager, or give it another name",
        )
    return Application(name, handler, lifespan, interface, way.resumes, way.root_path)


def _made(name: str, factory: Any) -> Any:
    """What a factory returns."""
    if not callable(factory):
        raise ApplicationError(
            f"{name} is {type(factory).__name__}, not a factory", "leave --factory out"
        )
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ApplicationError(
            f"{name} cannot be called without arguments ({error})",
            "a factory has no parameters; if this is the application itself, leave --factory out",
        ) from None
    except ValueError:
        pass  # written in C: it has no signature to look at
    try:
        found = factory()
    except (Exception, SystemExit) as error:
        raise import_failed(f"{name}()", error) from error
    if inspect.iscoroutine(found):
        found.close()
        raise ApplicationError(
            f"{name} is an async function, and a factory runs before there is an event loop",
            "make it a plain function; what is async belongs in the lifespan",
        )
    return found


def check_worker(application: Application, worker: str) -> None:
    """That a class of workers can run an application.

    :raises ApplicationError: it cannot.
    """
    if worker == "uvicorn" and not application.is_asgi:
        raise ApplicationError(
            f"{application.name} is no ASGI application, and workers of class uvicorn run nothing "
            f"else",
            "leave --worker out: handlers of requests and objects with hooks run on trio",
        )


#: The mark of a handler that can be called again for a connection that it has had before.
_RESUMABLE = "__wssup_resumable__"

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def resumable(handler: _Handler) -> _Handler:
    """Mark a handler whose connections can move to another worker (a decorator).

    It is then cancelled while it waits for a message, and called again in the new worker: with the
    same ``ws.state``, and a request whose ``accept()`` gives the connection that lives on::

        @wssup.resumable
        async def app(request):
            ws = await request.accept()
            count = ws.state.setdefault("count", 0)
            ...

    :raises TypeError: it cannot be marked.
    """
    try:
        setattr(handler, _RESUMABLE, True)
    except AttributeError:
        raise TypeError(f"{handler!r} cannot be marked: wrap it in a function") from None
    return handler


def digest() -> str:
    """A digest of the files that the imported modules came from, as they are on disk now.

    Python's own and wssup's modules are left out: they change with an upgrade, which is a restart.
    """
    ours = tuple(os.path.dirname(os.path.abspath(f)) + os.sep for f in (os.__file__, __file__))  # noqa: PTH100, PTH120
    seen = hashlib.blake2b(digest_size=16)
    for module_name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if not path or (path.startswith(ours) and "site-packages" not in path):
            continue
        try:
            with open(path, "rb") as source:  # noqa: PTH123
                content = hashlib.file_digest(source, "blake2b").digest()
        except OSError:
            content = b"gone"
        seen.update(module_name.encode() + b"\0" + content)
    return seen.hexdigest()
