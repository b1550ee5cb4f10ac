"""Settings that are lists of names: which origins may connect, and which headers are kept."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wssup.cli.main import group, main
from wssup.cli.options import load_instance
from wssup.cli.serve import command
from wssup.config import SETTINGS, Settings, changes, load
from wssup.config.kinds import MAX_NAMES, Given, Names
from wssup.config.values import BadValueError
from wssup.errors import ConfigError
from wssup.server.handshake import is_origin_allowed

TOML, TEXT = Given(text=False, base="/"), Given(text=True, base="/")
ORIGINS, HEADERS = SETTINGS["limits.origins"], SETTINGS["keep_headers"]


def loaded(cwd: Path, text: str = "", **sources: Any) -> Any:
    (cwd / "wssup.toml").write_text(text)
    return load(**({"cli": {}, "environ": {}, "cwd": str(cwd)} | sources))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the command line of `serve` gives, in a directory without a file."""
    for name in list(os.environ):
        if name.startswith("WSSUP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def read(*words: str) -> Any:
        # As the group makes it: click remembers for a command how help was first asked for.
        parent = click.Context(group, **group.context_settings)
        context = command.make_context("serve", list(words), parent)
        given_ = {key: value for key, value in context.params.items() if key != "config_file"}
        return load_instance(given_, None)

    return read


# The kind.

_WORDS = Names(pattern="[a-z]{1,5}", form="a word", example='["a"]', placeholder="W", word="all")
_TWO = Names(pattern="[a-z]+", form="a word", example='["a", "b"]', placeholder="W", least=2)


@pytest.mark.parametrize(
    ("value", "given_", "found"),
    [
        (["b", "a"], TOML, ("b", "a")),
        (("b", "a"), TEXT, ("b", "a")),
        (["A", " a ", "B\n", "b"], TOML, ("a", "b")),
        ("One", TOML, ("one",)),
        ([], TOML, ()),
        ("all", TOML, "all"),
        ("all", TEXT, "all"),
        ("a, B ,,a,", TEXT, ("a", "b")),
        (",", TEXT, ()),
        (" ", TEXT, ()),
        (["", "a"], TEXT, ("a",)),
    ],
)
def test_names(value: object, given_: Given, found: object) -> None:
    """Names come as an array, one as a string, or as text with commas; in lower case, each once,
    in their order. The word stands for itself.
    """
    assert _WORDS.read(value, given_) == found


@pytest.mark.parametrize(
    ("value", "given_", "problem"),
    [
        (["a", "b c"], TOML, "'b c' is not a word"),
        (["a,b"], TOML, "'a,b' is not a word"),
        ("a,b", TOML, "'a,b' is not a word"),
        ("a,b c", TEXT, "'b c' is not a word"),
        (("a,b",), TEXT, "'a,b' is not a word"),
        ("toolong", TOML, "'toolong' is not a word"),
        ("a\nb", TEXT, "is not a word"),
        ([""], TOML, "'' is not a word"),
        ("", TOML, "'' is not a word"),
        (["\udcff"], TOML, "not UTF-8"),
        (["a", 1], TOML, "an integer where a string is expected"),
        ([["a"]], TOML, "an array where a string is expected"),
        (1, TOML, "an integer where an array of strings is expected"),
        (True, TOML, "a boolean where an array of strings is expected"),
        ({"a": 1}, TOML, "a table where an array of strings is expected"),
    ],
)
def test_what_is_no_name(value: object, given_: Given, problem: str) -> None:
    """What has not the form, or the type, is refused with the name that is wrong and a remedy."""
    with pytest.raises(BadValueError) as caught:
        _WORDS.read(value, given_)
    assert problem in caught.value.problem
    assert caught.value.remedy == 'write ["a"] or "all"'


def test_how_many_names() -> None:
    """There are as many as the kind says, 100 at most; what stands twice counts once."""
    names = [a + b for a in "abcdefghij" for b in "abcdefghijk"]
    assert len(names) > MAX_NAMES
    assert _TWO.read(names[:MAX_NAMES] * 2, TOML) == tuple(names[:MAX_NAMES])
    for value in ([], ["a"], ["a", "A"], names[: MAX_NAMES + 1]):
        with pytest.raises(BadValueError, match="there must be 2 to 100"):
            _TWO.read(value, TOML)


@pytest.mark.parametrize("value", ["ALL", " all ", "All", "all,", "all,cookie", ("all",)])
def test_the_word_is_not_taken_for_a_name(value: object) -> None:
    """However the word is written, it is never read as a name: that would mean the opposite, and
    nobody would be told.
    """
    try:
        assert _WORDS.read(value, TEXT) == "all"
    except BadValueError as error:
        assert error.remedy  # noqa: PT017 - both are good


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([ORIGINS, HEADERS]),
    st.sampled_from([TOML, TEXT]),
    st.text(max_size=20)
    | st.lists(st.text(max_size=12) | st.integers(), max_size=4)
    | st.sampled_from(["all", "*", "null", "https://*.a.b:1", "x-a,x-b", ["https://a"]]),
)
@example(HEADERS, TEXT, "\u212a")
def test_any_value(setting: Any, given_: Given, value: object) -> None:
    """Whatever is given is refused, or is what a file reads back to the same value; and so it
    crosses a process boundary.
    """
    try:
        found = setting.kind.read(value, given_)
    except BadValueError:
        return
    shown = tomllib.loads(f"x = {setting.kind.show(found)}")["x"]
    assert setting.kind.read(shown, TOML) == found
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found)) in (found, list(found))


# Where they are given.


def test_defaults(tmp_path: Path) -> None:
    """Unless something is said, all origins may connect and all headers are kept."""
    found = loaded(tmp_path).settings
    assert found.limits.origins == ("*",)
    assert found.keep_headers == "all"


def test_the_file(tmp_path: Path) -> None:
    """A file gives an array, or one string; and a change applies with a reload."""
    text = 'keep_headers = ["Cookie", "x-forwarded-for"]\n[limits]\norigins = "https://A.example"\n'
    found = loaded(tmp_path, text)
    assert found.settings.keep_headers == ("cookie", "x-forwarded-for")
    assert found.settings.limits.origins == ("https://a.example",)
    assert found.sources["limits.origins"] == "wssup.toml:3"
    packed = msgspec.msgpack.encode(found.settings)
    assert msgspec.msgpack.decode(packed, type=Settings) == found.settings
    other = loaded(tmp_path, "keep_headers = []").settings
    assert other.keep_headers == ()
    assert changes(found.settings, other).live == ["keep_headers", "limits.origins"]
    assert loaded(tmp_path, 'keep_headers = "all"').settings.keep_headers == "all"


def test_the_environment(tmp_path: Path) -> None:
    """A variable gives them with commas; an empty one gives nothing."""
    environ = {"WSSUP_LIMITS_ORIGINS": "https://a.b, null", "WSSUP_KEEP_HEADERS": "Cookie,Origin"}
    found = loaded(tmp_path, environ=environ)
    assert found.settings.limits.origins == ("https://a.b", "null")
    assert found.settings.keep_headers == ("cookie", "origin")
    assert found.sources["keep_headers"] == "WSSUP_KEEP_HEADERS"
    found = loaded(tmp_path, environ=dict.fromkeys(environ, ""))
    assert (found.settings.limits.origins, found.settings.keep_headers) == (("*",), "all")
    assert loaded(tmp_path, environ={"WSSUP_KEEP_HEADERS": ","}).settings.keep_headers == ()


def test_the_command_line(arguments: Any) -> None:
    """--origin is given once for each origin, --keep-headers once, with commas."""
    found = arguments("--origin", "https://a.b", "--origin", "https://*.C.d:8443", "x:y")
    assert found.settings.limits.origins == ("https://a.b", "https://*.c.d:8443")
    assert found.sources["limits.origins"] == "--origin"
    assert found.settings.keep_headers == "all"
    for text, names in [("all", "all"), ("Cookie, x-a", ("cookie", "x-a")), ("", ())]:
        found = arguments("--keep-headers", text)
        assert found.settings.keep_headers == names
        assert found.sources["keep_headers"] == "--keep-headers"
    assert arguments().sources["limits.origins"] == "default"
    with pytest.raises(click.UsageError):
        arguments("--origins", "https://a.b")


def test_the_strongest_source_replaces_the_others(tmp_path: Path) -> None:
    """Lists of several sources are not put together; each of them is checked."""
    text = '[limits]\norigins = ["https://file"]\n'
    environ = {"WSSUP_LIMITS_ORIGINS": "https://environment"}
    cli = {"limits.origins": ("https://cli",)}
    found = loaded(tmp_path, text, environ=environ, cli=cli)
    assert found.settings.limits.origins == ("https://cli",)
    assert loaded(tmp_path, text, environ=environ).settings.limits.origins == (
        "https://environment",
    )
    with pytest.raises(ConfigError, match=r"wssup\.toml:2"):
        loaded(tmp_path, text.replace("https://", ""), cli=cli)


@pytest.mark.parametrize(
    ("sources", "parts"),
    [
        ({"text": "limits.origins = []"}, ["limits.origins = []", "0 of them", "1 to 100"]),
        ({"text": 'limits.origins = "a.b"'}, ["limits.origins = 'a.b'", "'a.b' is not an origin"]),
        ({"text": "keep_headers = 3"}, ["keep_headers = 3", "an integer where an array"]),
        ({"text": 'keep_headers = ["a b"]'}, ["'a b' is not the name of a header", '"all"']),
        ({"text": 'origins = "*"'}, ["did you mean limits.origins?"]),
        ({"environ": {"WSSUP_ORIGINS": "*"}}, ["did you mean WSSUP_LIMITS_ORIGINS?"]),
        ({"environ": {"WSSUP_KEEP_HEADERS": "a:"}}, ["(from WSSUP_KEEP_HEADERS)", "'a:' is not"]),
        ({"cli": {"limits.origins": ("a.b",)}}, ["limits.origins = 'a.b' (from --origin)"]),
        ({"cli": {"limits.origins": ("*", "x")}}, ["('*', 'x') (from --origin)", "'x' is not"]),
        ({"cli": {"limits.origins": ("",)}}, ["0 of them"]),
    ],
)
def test_what_is_refused(tmp_path: Path, sources: dict[str, Any], parts: list[str]) -> None:
    """A wrong list is refused with its key, source, the name that is wrong, and what to write."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, **sources)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.remedy


def test_serve_says_it_in_one_line(arguments: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong origin ends `serve` with status 2 and one line before anything is started."""
    assert main(["serve", "no_such_module:app", "--origin", "example.com"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for part in ("limits.origins", "example.com", "--origin", "https://example.com"):
        assert part in err


# Names of headers and origins.


@pytest.mark.parametrize("name", ["cookie", "X-A", "!#$%&'*+.^_`|~-09", "x" * 100, "all-of-it"])
def test_header_names(name: str) -> None:
    """Any token is the name of a header (RFC 9110 section 5.6.2), up to 100 characters."""
    assert HEADERS.kind.read([name], TOML) == (name.lower(),)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\nb", "é", '"a"', "a/b", "x" * 101, "a\0"])
def test_what_is_no_header_name(name: str) -> None:
    """What cannot be the name of a header is refused."""
    with pytest.raises(BadValueError, match="is not the name of a header"):
        HEADERS.kind.read([name], TOML)


_GOOD = [
    *("*", "null", "https://example.com", "http://localhost:3000", "https://*.example.com"),
    *("https://*.example.com:8443", "http://127.0.0.1", "http://[::1]:80", "http://[2001:db8::1]"),
    *("chrome-extension://abcdefgh", "app://x", "https://xn--caf-dma.example", "tauri://localhost"),
]


@pytest.mark.parametrize("origin", _GOOD)
def test_what_is_an_origin(origin: str) -> None:
    """An origin is a scheme and a host, perhaps a port (RFC 6454 section 6.2); the host may begin
    with a star. It allows what it names.
    """
    assert ORIGINS.kind.read([origin.upper()], TOML) == (origin,)
    page = origin.replace("*", "a.b") if origin != "*" else "https://any.where"
    assert is_origin_allowed(page.encode(), [origin])
    assert is_origin_allowed(b"https://other.example", [origin]) is (origin == "*")


@pytest.mark.parametrize(
    "origin",
    [
        *("example.com", "//example.com", "https://", "https:example.com", "https://example.com/"),
        *("https://example.com/a", "https://u@example.com", "https://u:p@example.com", "https://*"),
        *("https://exa*mple.com", "https://*example.com", "https://a.*.com", "https://*.*.com"),
        *("https://example.com:", "https://example.com:a", "https://example.com:123456", "**"),
        *("*.example.com", "*://example.com", "https://exa mple.com", "https://é.example", ""),
        *("https://a.b?", "https://a.b#", "https://a\\b", "https://a.b\nhttps://c", "1://a"),
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    """What no browser can send as an Origin is refused: it would never allow anything."""
    with pytest.raises(BadValueError, match="is not an origin"):
        ORIGINS.kind.read([origin], TOML)


_ALLOWED = ["https://example.com", "https://*.example.org", "http://*.example.net:81"]


@pytest.mark.parametrize(
    ("origin", "verdict"),
    [
        *((o, True) for o in (None, b"https://example.com", b"HTTPS://Example.COM")),
        *((o, True) for o in (b"https://a.example.org", b"https://a.b.example.org")),
        *((b"http://a.example.net:81", True), (b"https://xn--caf-dma.example.org", True)),
        *((o, False) for o in (b"", b"null", b"*", b"https://", b"example.com", b"//example.com")),
        (b"https://example.org", False),
        *((o, False) for o in (b"http://example.com", b"https://a.example.com")),
        *((b"https://example.com" + x, False) for x in (b".evil.com", b":444", b"/", b"@a", b".")),
        *((b"https://evil-example." + end, False) for end in (b"com", b"org")),
        *((b"https://" + x + b".example.org", False) for x in (b"", b"u@evil", b"u:p", b"evil/")),
        *((o, False) for o in (b"https://a.example.org:444", b"https://a.example.org.evil.com")),
        *((o, False) for o in (b"http://a.example.net", b"http://a.example.net:8181")),
    ],
)  # fmt: skip
def test_origins(*, origin: bytes | None, verdict: bool) -> None:
    """An origin is allowed as a whole, or below a domain; what only looks like it is not. Who sends
    none is no browser and is not asked.
    """
    assert is_origin_allowed(origin, _ALLOWED) is verdict
    assert is_origin_allowed(origin, ["*"])
    assert is_origin_allowed(origin, ["null"]) is (origin in {None, b"null"})


def test_a_star_stands_for_labels() -> None:
    """What stands before a domain is made of what a host's labels are made of: with any other
    character in it, who parses the origin as a URL finds another host.
    """
    others = [char for char in map(chr, range(256)) if not (char.isascii() and char.isalnum())]
    origins = {char: f"https://evil.com{char}.example.org".encode("latin-1") for char in others}
    taken = {char for char, origin in origins.items() if is_origin_allowed(origin, _ALLOWED)}
    assert taken <= set("-._")
