"""Finding an application, looking it over, and telling of its errors."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wssup.application import Application, digest, load, own_traceback, summary
from wssup.errors import ApplicationError
from wssup.tracebacks import LONGEST_TRACEBACK

Write = Callable[..., str]

_numbers = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module under a name that no other test uses; it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    prefix = f"unit_{os.getpid()}_{next(_numbers)}"

    def writing(text: str, name: str = "app") -> str:
        module = f"{prefix}_{name}"
        path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return module

    yield writing
    for module in set(sys.modules) - before:
        if module.startswith("unit_"):
            del sys.modules[module]


def refused(name: str, app_dir: Path | str) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        load(name, str(app_dir))
    return caught.value


GOOD = "async def app(request): ...\n"


def test_a_handler(write: Write, tmp_path: Path) -> None:
    """A module's async function is the handler; without a lifespan there is none."""
    module = write(GOOD)
    found = load(f"{module}:app", str(tmp_path))
    assert found == Application(f"{module}:app", sys.modules[module].app, None)


def test_a_lifespan(write: Write, tmp_path: Path) -> None:
    """A callable named lifespan beside the handler comes with it."""
    module = write(
        "import contextlib\n@contextlib.asynccontextmanager\nasync def lifespan(): yield\n" + GOOD
    )
    assert load(f"{module}:app", str(tmp_path)).lifespan is sys.modules[module].lifespan


def test_dotted_names(write: Write, tmp_path: Path) -> None:
    """Module and attribute may both have dots."""
    module = write("class Shop:\n    @staticmethod\n    async def chat(request): ...\n", "a.b")
    assert load(f"{module}:Shop.chat", str(tmp_path)).handler is sys.modules[module].Shop.chat


@pytest.mark.parametrize(
    "definition",
    [
        "async def app(request, more=None): ...",
        "async def app(request, *, key=1): ...",
        "class A:\n    async def __call__(self, request): ...\napp = A()",
        "class A:\n    async def serve(self, request): ...\napp = A().serve",
        "import functools\nasync def f(x, request): ...\napp = functools.partial(f, 1)",
        "import functools\nasync def f(r): ...\n@functools.wraps(f)\ndef app(*a): return f(*a)",
    ],
)
def test_what_can_be_a_handler(write: Write, tmp_path: Path, definition: str) -> None:
    """Async functions, methods and callable objects that take one argument are handlers, also
    wrapped.
    """
    module = write(definition)
    assert load(f"{module}:app", str(tmp_path)).handler is sys.modules[module].app


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ("app = 1", "is int, not a handler"),
        ("app = None", "is NoneType, not a handler"),
        ("def app(request): ...", "is not an async function"),
        ("class app:\n    async def __call__(self, request): ...", "is not an async function"),
        ("class A:\n    def __call__(self, request): ...\napp = A()", "is not an async function"),
        ("async def app(): ...", "cannot be called with one argument"),
        ("async def app(one, two): ...", "cannot be called with one argument"),
        ("async def app(request, *, key): ...", "cannot be called with one argument"),
    ],
)
def test_what_is_no_handler(write: Write, tmp_path: Path, definition: str, problem: str) -> None:
    """What cannot be a handler is refused before anything starts, with how one looks."""
    module = write(definition)
    error = refused(f"{module}:app", tmp_path)
    assert problem in error.message
    assert f"{module}:app" in error.message
    assert error.remedy.startswith("it should be: async def app(request)")
    assert error.traceback == ""


def test_a_lifespan_that_is_none(write: Write, tmp_path: Path) -> None:
    """Something named lifespan that cannot be called is refused."""
    module = write(GOOD + "lifespan = 5\n")
    error = refused(f"{module}:app", tmp_path)
    assert f"{module}:lifespan is int" in error.message


@pytest.mark.parametrize("name", ["", "app", ":app", "app:"])
def test_a_name_that_names_nothing(tmp_path: Path, name: str) -> None:
    """A name without module or attribute is refused with an example."""
    error = refused(name, tmp_path)
    assert repr(name) in error.message
    assert "MODULE:ATTRIBUTE" in error.remedy


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    """An app_dir that is no directory is refused by its name."""
    error = refused("m:app", tmp_path / "missing")
    assert f"{tmp_path}/missing" in error.message
    assert "--app-dir" in error.remedy


def test_a_module_that_is_not_there(write: Write, tmp_path: Path) -> None:
    """A missing module is told with where it was looked for, and without a traceback."""
    error = refused("no_such_module_anywhere:app", tmp_path)
    assert "there is no module 'no_such_module_anywhere'" in error.message
    assert str(tmp_path) in error.message
    assert error.traceback == ""
    module = write("", "pkg.inner")
    outer = module.partition(".")[0]
    assert f"there is no module '{outer}.other'" in refused(f"{outer}.other:app", tmp_path).message


def test_a_module_that_the_application_misses(write: Write, tmp_path: Path) -> None:
    """A missing module that the application imports is the application's error, with the place."""
    module = write("import no_such_module_anywhere\n")
    error = refused(f"{module}:app", tmp_path)
    assert f"importing {module}:app failed: ModuleNotFoundError" in error.message
    assert f"{module}.py" in error.traceback
    assert "import no_such_module_anywhere" in error.traceback


def test_an_attribute_that_is_not_there(write: Write, tmp_path: Path) -> None:
    """A missing attribute is told with its file, and with the nearest one there is."""
    module = write("async def handler(request): ...\n")
    error = refused(f"{module}:handle", tmp_path)
    assert f"{tmp_path}/{module}.py" in error.message
    assert error.remedy == f"did you mean {module}:handler?"
    assert "define it there" in refused(f"{module}:zzz", tmp_path).remedy


def test_an_attribute_of_an_attribute_that_is_not_there(write: Write, tmp_path: Path) -> None:
    """In a dotted attribute the suggestion is the whole name that would work."""
    module = write("class Shop:\n    @staticmethod\n    async def chat(request): ...\n")
    error = refused(f"{module}:Shop.chta", tmp_path)
    assert error.remedy == f"did you mean {module}:Shop.chat?"


def test_an_import_that_raises(write: Write, tmp_path: Path) -> None:
    """What the import raises is told in one line, with the application's frames and no others."""
    module = write("def f():\n    raise ValueError('first\\nsecond')\nf()\n")
    error = refused(f"{module}:app", tmp_path)
    assert error.message == f"importing {module}:app failed: ValueError: first"
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert error.traceback.count("File ") == error.traceback.count(f"{module}.py") == 2
    assert error.traceback.endswith("ValueError: first\nsecond\n")


@pytest.mark.parametrize("text", ["async def app(request:\n", "x = '\n", "  x = 1\n", "\0"])
def test_source_that_is_no_python(write: Write, tmp_path: Path, text: str) -> None:
    """A syntax error shows the place in the application and no frame of ours or of importlib."""
    module = write(text)
    error = refused(f"{module}:app", tmp_path)
    assert "Error" in error.message
    assert "\n" not in error.message
    assert "wssup" not in error.traceback.replace(str(tmp_path), "")
    assert "importlib" not in error.traceback
    assert "Error: " in error.traceback


@pytest.mark.parametrize(("end", "shown"), [("sys.exit(3)", "3"), ("exit('no')", "'no'")])
def test_an_import_that_ends_the_process(
    write: Write, tmp_path: Path, end: str, shown: str
) -> None:
    """An application that exits on import is an error that says so."""
    module = write(f"import sys\n{end}\n")
    error = refused(f"{module}:app", tmp_path)
    assert f"ended the process: sys.exit({shown})" in error.message
    assert f"{module}.py" in error.traceback


def test_a_module_that_failed_can_be_loaded_once_it_is_mended(write: Write, tmp_path: Path) -> None:
    """A failed import leaves nothing behind that would hide the mended file."""
    module = write("broken(")
    refused(f"{module}:app", tmp_path)
    (tmp_path / f"{module}.py").write_text(GOOD)
    assert load(f"{module}:app", str(tmp_path)).lifespan is None


# Tracebacks.


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("nothing was raised")


def test_a_long_traceback_is_cut_in_the_middle() -> None:
    """A traceback of more than 32 KiB keeps its beginning and its end, and says what is missing."""

    def fail() -> None:
        raise ValueError("x" * 100_000 + " the end")

    text = own_traceback(raised(fail))
    assert len(text) < LONGEST_TRACEBACK + 100
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith(" the end\n")
    assert "characters left out" in text


def test_causes_are_told() -> None:
    """What an exception was raised from is part of its traceback."""

    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    text = own_traceback(raised(fail))
    assert text.index("KeyError: 'inner'") < text.index("direct cause")
    assert text.index("direct cause") < text.index("ValueError: outer")


def test_summary_unwraps_groups_of_one() -> None:
    """An error that nurseries wrapped is told as what it is; a group of several as a group."""
    inner = ValueError("oh")
    assert summary(inner) == "ValueError: oh"
    assert summary(ExceptionGroup("a", [ExceptionGroup("b", [inner])])) == "ValueError: oh"
    assert summary(ExceptionGroup("a", [inner, inner])) == "ExceptionGroup: a (2 sub-exceptions)"


# Digest.


def test_the_digest_follows_the_files(write: Write, tmp_path: Path) -> None:
    """The digest changes when the file of an imported module changes or is gone, comes back with
    it, and does not depend on files that nobody imported.
    """
    module = write(GOOD)
    before = digest()
    load(f"{module}:app", str(tmp_path))
    loaded = digest()
    assert loaded != before
    assert digest() == loaded
    path = tmp_path / f"{module}.py"
    path.write_text(GOOD + "# edited\n")
    edited = digest()
    assert edited != loaded
    write(GOOD, "other")
    assert digest() == edited
    path.unlink()
    assert digest() not in {loaded, edited}
    path.write_text(GOOD)
    assert digest() == loaded
