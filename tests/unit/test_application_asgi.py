"""What is taken for an ASGI application, what is refused and why; and factories."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from wssup.application import Way, of, resumable
from wssup.errors import ApplicationError
from wssup.interfaces import style_of


async def function(scope: object, receive: object, send: object) -> None: ...


def plain(scope: object, receive: object, send: object) -> Any:
    return function(scope, receive, send)


class Framework:
    async def __call__(self, scope: object, receive: object, send: object) -> None: ...

    async def bound(self, scope: object, receive: object, send: object) -> None: ...


async def configured(more: object, scope: object, receive: object, send: object) -> None: ...


async def handler(request: object) -> None: ...


class Hooks:
    def on_receive(self, ws: object, data: object) -> None: ...


class Both(Framework, Hooks):
    pass


async def anything(*args: object) -> None: ...


@pytest.mark.parametrize(
    "found",
    [function, plain, Framework(), Framework().bound, functools.partial(configured, 1)],
    ids=["function", "plain", "object", "method", "partial"],
)
def test_what_is_asgi(found: object) -> None:
    """Whatever is called with scope, receive and send is an ASGI application: async or not, a
    function, a method or an object; and it is left as it is.
    """
    assert style_of("m:app", found) == (found, "asgi")
    assert style_of("m:app", found, "asgi") == (found, "asgi")


@pytest.mark.parametrize(
    ("found", "interface"), [(handler, "task"), (Hooks(), "event"), (function, "asgi")]
)
def test_what_is_said_agrees_with_what_is_seen(found: object, interface: Any) -> None:
    """To say what an application is, is the same as to let it be looked at."""
    assert style_of("m:app", found, interface) == style_of("m:app", found) == (found, interface)


@pytest.mark.parametrize(
    ("found", "said"),
    [(Both(), "event"), (anything, "task")],
    ids=["hooks and three arguments", "any arguments"],
)
def test_what_could_be_two_things(found: object, said: Any) -> None:
    """What could be an ASGI application and something else is refused, with both ways out; and
    taken as what it is said to be.
    """
    with pytest.raises(ApplicationError) as caught:
        style_of("m:app", found)
    assert "m:app can be called with scope, receive and send, and " in caught.value.message
    assert f"--interface asgi, or --interface {said}" in caught.value.remedy
    assert style_of("m:app", found, "asgi") == (found, "asgi")
    assert style_of("m:app", found, said) == (found, said)


class Asgi2:
    def __init__(self, scope: object) -> None: ...

    async def __call__(self, receive: object, send: object) -> None: ...


def wsgi(environ: object, start_response: object) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    ("found", "interface", "message", "remedy"),
    [
        (Asgi2, "asgi", "as ASGI 2 applications were", "double_to_single_callable"),
        (handler, "asgi", "as ASGI 2 applications were", "double_to_single_callable"),
        (wsgi, "asgi", "as WSGI applications are", "WsgiToAsgi"),
        (Framework, "asgi", "is a class", "name an object of it"),
        (5, "asgi", "is int, not an application", "async def app(scope, receive, send)"),
        (lambda: 0, "asgi", "cannot be called with scope", "async def app(scope, receive, send)"),
        (Framework(), "event", "has none of the hooks", "--interface task or asgi"),
        (function, "task", "cannot be called with one argument", "async def app(request)"),
        (wsgi, "auto", "is not an async function", "async def app(request)"),
    ],
)
def test_what_is_refused(found: object, interface: Any, message: str, remedy: str) -> None:
    """What is not what it is said to be is refused, with what it looks like and what to do."""
    with pytest.raises(ApplicationError) as caught:
        style_of("m:app", found, interface)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_factory() -> None:
    """With ``factory`` the application is what the function returns, of whatever kind."""
    for made in (function, handler, Framework()):
        assert of("m:make", lambda made=made: made, Way(factory=True)).handler is made
    assert of("m:Framework", Framework, Way(factory=True)).is_asgi


async def _coroutine() -> object:
    return function


def _raises() -> object:
    raise LookupError("no such database")


def _exits() -> object:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (5, "is int, not a factory"),
        (function, "cannot be called without arguments"),
        (_coroutine, "is an async function"),
        (_raises, "LookupError: no such database"),
        (_exits, "sys.exit(3)"),
        (lambda: None, "is NoneType, not a handler"),
    ],
)
def test_a_factory_that_makes_nothing(factory: Callable[[], object], message: str) -> None:
    """A factory that cannot be called, raises, or makes no application is one clear error."""
    with pytest.raises(ApplicationError) as caught:
        of("m:make", factory, Way(factory=True))
    assert message in caught.value.message
    assert caught.value.remedy


def test_who_can_move() -> None:
    """An ASGI application's connections move if the setting says so, or its mark."""
    assert not of("m:app", function).is_resumable
    assert of("m:app", function, Way(resumes=True)).is_resumable
    assert not of("m:app", handler, Way(resumes=True)).is_resumable
    assert of("m:app", resumable(Framework())).is_resumable  # type: ignore[type-var]


def test_settings_say_how() -> None:
    """The four settings are what an application is taken by; those of older versions are none."""
    settings = {"interface": "asgi", "factory": True, "asgi_resumable": True, "root_path": "/a"}
    assert Way.by(settings) == Way("asgi", factory=True, resumes=True, root_path="/a")
    assert Way.by({}) == Way()


def test_a_name_beside_it_is_not_its_lifespan() -> None:
    """An ASGI application has a scope for its lifespan: a ``lifespan`` in its module is for itself,
    as those of FastAPI are, which take the application.
    """

    class Module:
        __name__ = "module"

        @staticmethod
        def lifespan(app: object) -> None: ...

    module: Any = Module()
    assert of("m:app", function, module=module).lifespan is None
    assert of("m:app", handler, module=module).lifespan is Module.lifespan
