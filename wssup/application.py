"""The application: found by its name, imported, looked over; and its errors told without wssup's
frames.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from wssup.errors import ApplicationError

__all__ = ["Application", "digest", "load", "own_traceback", "resumable", "style_of", "summary"]

#: A traceback travels in one message; what is longer is cut in the middle.
LONGEST_TRACEBACK = 32 * 1024
#: Characters of an exception's own text that are shown.
LONGEST_SUMMARY = 1000


@dataclass(frozen=True, slots=True)
class Application:
    """What a worker serves.

    :ivar name: ``module:attribute``.
    :ivar handler: called with a request for each WebSocket handshake; or, of an event-style
        application, the object that has the hooks.
    :ivar is_event_style: which of the two it is.
    :ivar lifespan: the async context manager named ``lifespan`` beside the handler; entered before
        a worker is ready, left after its last connection.
    """

    name: str
    handler: Any
    lifespan: Callable[[], AbstractAsyncContextManager[object]] | None
    is_event_style: bool = False

    @property
    def is_resumable(self) -> bool:
        """Whether its connections can move to another worker."""
        return self.is_event_style or bool(getattr(self.handler, _RESUMABLE, False))


def load(name: str, app_dir: str) -> Application:
    """Import the application called ``name``, with ``app_dir`` first on ``sys.path``.

    :param name: ``module:attribute``; both may have dots.
    :param app_dir: a directory, already free of symbolic links.
    :raises ApplicationError: if there is no such module or attribute, importing raises, or it is no
        handler.
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
        raise _import_failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error
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
    handler, is_event_style = style_of(name, handler)
    lifespan = getattr(module, "lifespan", None)
    if lifespan is not None and not callable(lifespan):
        raise ApplicationError(
            f"{module_name}:lifespan is {type(lifespan).__name__}, not an async context manager "
            f"function",
            "write it with contextlib.asynccontextmanager, or give it another name",
        )
    return Application(name, handler, lifespan, is_event_style)


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


#: The hooks of an event-style application, and what each is called with.
_HOOKS = {
    "on_request": ("request",),
    "on_connect": ("ws",),
    "on_receive": ("ws", "data"),
    "on_disconnect": ("ws", "code"),
    "on_suspend": ("ws",),
    "on_resume": ("ws",),
}


def style_of(name: str, found: Any) -> tuple[Any, bool]:
    """The handler or the object with hooks, and whether it is the latter.

    :raises ApplicationError: it is neither.
    """
    hooks = [hook for hook in _HOOKS if hasattr(found, hook)]
    if not hooks:
        _check_handler(name, found)
        return found, False
    if inspect.isclass(found):
        try:
            found = found()
        except TypeError as error:
            raise ApplicationError(
                f"{name} is a class that cannot be made without arguments ({error})",
                "name an object of it",
            ) from None
        except Exception as error:
            raise _import_failed(name, error) from error
    for hook in hooks:
        function = getattr(found, hook)
        arguments = _HOOKS[hook]
        should_be = f"it should be: def {hook}({', '.join(['self', *arguments])}), or async def"
        if not callable(function):
            raise ApplicationError(f"{name}.{hook} is {type(function).__name__}", should_be)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ApplicationError(f"{name}.{hook} is a generator", should_be)
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError as error:
            raise ApplicationError(
                f"{name}.{hook} cannot be called with {', '.join(arguments)} ({error})", should_be
            ) from None
        except ValueError:
            continue  # written in C: it has no signature to look at
    return found, True


def _check_handler(name: str, handler: object) -> None:
    if not callable(handler):
        raise ApplicationError(
            f"{name} is {type(handler).__name__}, not a handler",
            "it should be: async def app(request), or an object with on_receive(ws, data)",
        )
    function = handler if inspect.isroutine(handler) else type(handler).__call__
    if inspect.isclass(handler) or (
        inspect.isfunction(function) and not inspect.iscoroutinefunction(inspect.unwrap(function))
    ):
        raise ApplicationError(
            f"{name} is not an async function", "it should be: async def app(request)"
        )
    try:
        inspect.signature(handler).bind(object())
    except TypeError as error:
        raise ApplicationError(
            f"{name} cannot be called with one argument, the request ({error})",
            "it should be: async def app(request)",
        ) from None
    except ValueError:
        return  # a handler written in C has no signature to look at


def _import_failed(name: str, error: BaseException) -> ApplicationError:
    if isinstance(error, SystemExit):
        what = f"importing {name} ended the process: sys.exit({error.code!r})"
    else:
        what = f"importing {name} failed: {summary(error)}"
    first = what[:LONGEST_SUMMARY].splitlines()[0]
    return ApplicationError(first, "see the traceback", own_traceback(error))


def own_traceback(error: BaseException) -> str:
    """The traceback of ``error`` from the application's first frame on, at most 32 KiB."""
    kept = error.__traceback__
    while kept is not None and _is_ours(kept):
        kept = kept.tb_next
    text = "".join(traceback.format_exception(type(error), error, kept))
    if len(text) > LONGEST_TRACEBACK:
        half = LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n  … {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text


def summary(error: BaseException) -> str:
    """The error in one line; what nurseries have wrapped once or more is unwrapped."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST_SUMMARY else text[:LONGEST_SUMMARY] + "…"


def _is_ours(frame: TracebackType) -> bool:
    module = str(frame.tb_frame.f_globals.get("__name__", ""))
    if module.startswith("wssup.examples"):
        return False
    return module.partition(".")[0] in {
        "wssup",
        "importlib",
        "trio",
        "trio_websocket",
        "contextlib",
    }


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
