"""What an application is: a handler, an object with hooks, or an ASGI 3 application; and what is
wrong with one that is none of these.
"""

from __future__ import annotations

import inspect
from typing import Any, Final, Literal

from wssup.errors import ApplicationError
from wssup.tracebacks import import_failed

__all__ = ["Interface", "Said", "style_of"]

Interface = Literal["task", "event", "asgi"]
Said = Literal["auto", "task", "event", "asgi"]

#: The hooks of an event-style application, and what each is called with.
_HOOKS: Final = {
    "on_request": ("request",),
    "on_connect": ("ws",),
    "on_receive": ("ws", "data"),
    "on_disconnect": ("ws", "code"),
    "on_suspend": ("ws",),
    "on_resume": ("ws",),
}


def style_of(name: str, found: Any, interface: Said = "auto") -> tuple[Any, Interface]:
    """The handler, the object with hooks, or the ASGI application; and which of these it is.

    :param interface: what it is said to be; ``auto``: what it looks like.
    :raises ApplicationError: it is none of them.
    """
    hooks = [hook for hook in _HOOKS if hasattr(found, hook)]
    if interface == "auto":
        interface = _guess(name, found, hooks)
    if interface == "asgi":
        _check_asgi(name, found)
        return found, "asgi"
    if interface == "task":
        _check_handler(name, found)
        return found, "task"
    return _with_hooks(name, found, hooks), "event"


def _guess(name: str, found: Any, hooks: list[str]) -> Interface:
    """What it looks like. ASGI 3: it can be called with three arguments, and not with one."""
    if inspect.isclass(found) or not _takes(found, 3):
        return "event" if hooks else "task"
    if not hooks and not _takes(found, 1):
        return "asgi"
    other = f"has {hooks[0]}" if hooks else "can be called with a request alone"
    raise ApplicationError(
        f"{name} can be called with scope, receive and send, and {other}",
        f"say which it is: --interface asgi, or --interface {'event' if hooks else 'task'}",
    )


def _with_hooks(name: str, found: Any, hooks: list[str]) -> Any:
    """An object with hooks that can be called; of a class one is made."""
    if not hooks:
        raise ApplicationError(
            f"{name} has none of the hooks {', '.join(_HOOKS)}",
            "define on_receive(ws, data), or say what it is with --interface task or asgi",
        )
    if inspect.isclass(found):
        try:
            found = found()
        except TypeError as error:
            raise ApplicationError(
                f"{name} is a class that cannot be made without arguments ({error})",
                "name an object of it",
            ) from None
        except Exception as error:
            raise import_failed(name, error) from error
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
    return found


def _takes(found: Any, count: int) -> bool:
    """Whether it can be called with so many positional arguments. What has no signature (it is
    written in C) and is no function at all cannot, as far as is known.
    """
    if not callable(found):
        return False
    try:
        inspect.signature(found).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _check_asgi(name: str, found: Any) -> None:
    """That it can be an ASGI 3 application (asgi.readthedocs.io, "Applications")."""
    should_be = "it should be: async def app(scope, receive, send)"
    if not callable(found):
        raise ApplicationError(f"{name} is {type(found).__name__}, not an application", should_be)
    if inspect.isclass(found):
        called = getattr(found, "__call__", None)  # noqa: B004 - the class's own is looked for
        if inspect.isfunction(called) and len(inspect.signature(called).parameters) == 3:
            _refuse_asgi2(name)
        raise ApplicationError(
            f"{name} is a class", "name an object of it, or say --factory if it makes one itself"
        )
    try:
        inspect.signature(found).bind("scope", "receive", "send")
    except TypeError as error:
        if _takes(found, 1):
            _refuse_asgi2(name)
        if _takes(found, 2):
            raise ApplicationError(
                f"{name} is called with two arguments, as WSGI applications are",
                "wrap it: app = asgiref.wsgi.WsgiToAsgi(app)",
            ) from None
        raise ApplicationError(
            f"{name} cannot be called with scope, receive and send ({error})", should_be
        ) from None
    except ValueError:
        return  # written in C: it has no signature to look at


def _refuse_asgi2(name: str) -> None:
    raise ApplicationError(
        f"{name} is called with the scope alone, as ASGI 2 applications were",
        "wrap it: app = asgiref.compatibility.double_to_single_callable(app)",
    )


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
        remedy = "it should be: async def app(request)"
        if _takes(handler, 2):
            remedy += "; a WSGI application can be wrapped with asgiref.wsgi.WsgiToAsgi"
        raise ApplicationError(
            f"{name} cannot be called with one argument, the request ({error})", remedy
        ) from None
    except ValueError:
        return  # a handler written in C has no signature to look at
