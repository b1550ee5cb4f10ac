from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wssup.config import SETTINGS, Settings, apply, changes, load
from wssup.config.files import key_lines
from wssup.config.settings import value_of
from wssup.errors import ConfigError, UserError

ROOT = Path(__file__).parents[3]


def loaded(cwd: Path, text: str | None = None, **rest: Any) -> Any:
    if text is not None:
        (cwd / "wssup.toml").write_text(text)
    return load(**({"cli": {}, "environ": {}, "cwd": str(cwd)} | rest))


def test_defaults(tmp_path: Path) -> None:
    """Without any source the settings are the defaults, and each says so."""
    found = loaded(tmp_path)
    assert found.settings.workers == "auto"
    assert found.settings.bind == ("127.0.0.1:8000",)
    assert found.settings.drain_window == 10.0
    assert found.settings.on_reload == "handoff"
    assert found.settings.resume_failure_limit == 0.01
    assert found.settings.rebalance is False
    recycling = [getattr(found.settings, f"max_worker_{x}") for x in ("age", "rss", "connections")]
    assert recycling == [0, 0, 0]
    assert found.settings.limits.message_bytes == 1 << 20
    assert found.settings.app_dir == str(tmp_path)
    assert found.file is None
    assert set(found.sources.values()) == {"default"}
    assert list(found.sources) == list(SETTINGS)


def test_every_default_is_a_valid_value() -> None:
    """Every default of the table is what its own kind reads from its own text."""
    from wssup.config.kinds import Given  # noqa: PLC0415

    for setting in SETTINGS.values():
        if setting.default in (None, ""):
            continue
        value = setting.default
        assert setting.kind.read(value, Given(text=False, base="/")) == value, setting.key


def test_settings_cross_a_process_boundary(tmp_path: Path) -> None:
    """Settings are encoded and decoded by msgspec without loss, types included."""
    found = loaded(tmp_path, cli={"workers": "3", "max_surge": "2"}).settings
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Settings) == found


def test_the_file_gives_values_and_their_lines(tmp_path: Path) -> None:
    """Each value from the file is used, and its source names the file and the line."""
    found = loaded(
        tmp_path,
        '# note\nworkers = 4\nbind = [\n  "[::1]:1",\n  "unix:/run/a,b.sock",\n]\n'
        'settle = "500ms"\npreload = false\n\n[limits]\nmessage_bytes = "64KiB"\n',
    )
    assert found.settings.workers == 4
    assert found.settings.bind == ("[::1]:1", "unix:/run/a,b.sock")
    assert found.settings.settle == 0.5
    assert found.settings.preload is False
    assert found.settings.limits.message_bytes == 65536
    assert found.file == str(tmp_path / "wssup.toml")
    lines = {key: source for key, source in found.sources.items() if source != "default"}
    assert lines == {
        "workers": "wssup.toml:2",
        "bind": "wssup.toml:3",
        "settle": "wssup.toml:7",
        "preload": "wssup.toml:8",
        "limits.message_bytes": "wssup.toml:11",
    }


@pytest.mark.parametrize(
    "text",
    [
        "limits.message_bytes = 5",
        "limits = { message_bytes = 5 }",
        "[limits]\nmessage_bytes = 5",
        '["limits"]\n"message_bytes" = 5',
        "\ufeffworkers = 1\r\n[limits]\r\nmessage_bytes = 5\r\n",
    ],
)
def test_every_way_to_write_a_table_is_read(tmp_path: Path, text: str) -> None:
    """Dotted keys, inline tables, headers, quoted keys, CRLF and a byte order mark all work."""
    found = loaded(tmp_path, text)
    line = len(text.strip().split("\n"))
    assert found.settings.limits.message_bytes == 5
    assert found.sources["limits.message_bytes"] == f"wssup.toml:{line}"


def test_lines_are_not_fooled_by_strings() -> None:
    """A line inside a multi-line string or array is not taken for a key."""
    text = 'a = """\nworkers = 1\n[limits]\n"""\nb = [\n"x",\n]\nworkers = 2\n[limits] # c\nz=1'
    assert key_lines(text) == {
        "a": 1,
        "b": 5,
        "workers": 8,
        "limits": 9,
        "limits.z": 10,
    }


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("workers = 0", ["workers = 0", "wssup.toml:1", '1 to 1000, or "auto"']),
        ("workers = true", ["workers = True", "a boolean", "write 1 to"]),
        ('workers = "4"', ["workers = '4'", "a string where a number"]),
        ("workers = 1.0", ["a float where a number"]),
        ("workers = 65", ["workers = 65", "max_workers = 64", "the default"]),
        ("bind = []", ["bind = []", "0 addresses"]),
        ('bind = ["a:1", "A:1"]', ["a:1 is named twice"]),
        ("bind = [1]", ["an integer where a string"]),
        ("bind = 1", ["an integer where an array"]),
        ('bind = ["a:1", ":2"]', ["':2': no host", "0.0.0.0:2"]),
        ('name = "a/b"', ["name = 'a/b'", "letters"]),
        ('name = "a\\n"', ["letters"]),
        ('app = "x"', ["colon"]),
        ("preload = 1", ["preload = 1", "true or false"]),
        ("unix_mode = 0o660", ["unix_mode = 432", '"0660"']),
        ('unix_mode = "0999"', ['"0660"']),
        ('on_reload = "restart"', ["handoff, close or wait"]),
        ("settle = -1", ["settle = -1"]),
        ("stall_after = 0", ["longer than 0"]),
        ("reserve_fds = 15", ["16 to"]),
        ("settle = nan", ["not a finite"]),
        ("resume_failure_limit = 2", ["resume_failure_limit = 2", "not from 0 to 1", '"1%"']),
        ('max_worker_rss = "1TB"', ["unknown unit TB"]),
        ("max_worker_connections = -1", ["0 to"]),
        ("[limits]\nmessage_bytes = 0", ["limits.message_bytes = 0", "wssup.toml:2"]),
        ("app_dir = 3", ["an integer where a string"]),
        ('app_dir = "a\\u0000"', ["not a path"]),
        ("drain_timeout = 5", ["drain_timeout", "'5s'", "wssup.toml:1", "drain_window", "10s"]),
        ("stall_after = 30", ["hang_after", "stall_after", "more than 30s"]),
        ("backoff_min = 31", ["backoff_max", "backoff_min", "at least 31s"]),
        (f'runtime_dir = "/{"x" * 99}"', ["too long", "107 bytes"]),
        ("workes = 4", ["workes = 4", "wssup.toml:1", "did you mean workers?"]),
        ("max-workers = 4", ["did you mean max_workers?"]),
        ("message_bytes = 4", ["did you mean limits.message_bytes?"]),
        ("[limits]\nworkers = 4", ["limits.workers = 4", "did you mean workers?"]),
        ("[limit]\nx = 4", ["no such setting"]),
        ("limits = 4", ["[limits]"]),
        ("quux = 4", ["quux = 4", "`wssup config`"]),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, text: str, parts: list[str]) -> None:
    """A wrong value or key is refused with key, value, source, problem and remedy."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    message = str(caught.value)
    for part in [*parts, "wssup.toml:"] if "default" not in message else parts:
        assert part in message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"workers = 4\nx = [1,\n", ["wssup.toml:3", "not TOML", "end of the file"]),
        (b"workers = 4\nworkers 5\n", ["wssup.toml:2", "not TOML", "column 9"]),
        (b"workers = 4\n# \xff\n", ["wssup.toml:2", "not UTF-8"]),
        (b"x = " + b"[" * 5000, ["wssup.toml", "nested too deeply"]),
        (b"x = " + b"1" * 5000, ["wssup.toml", "not TOML"]),
        (b"#" * (1 << 20) + b"\n", ["larger than 1 MiB"]),
    ],
)
def test_files_that_are_no_toml(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    """A file that is not TOML, not UTF-8 or far too large is refused, with the line if known."""
    (tmp_path / "wssup.toml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        loaded(tmp_path)
    for part in parts:
        assert part in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A named file that is missing, a directory, or unreadable is one line, not a traceback."""
    for name, part in [("nope.toml", "no such file"), (".", "a directory")]:
        with pytest.raises(UserError) as caught:
            loaded(tmp_path, config_file=name)
        assert part in str(caught.value)
        assert name in str(caught.value)
    with pytest.raises(UserError, match=r"nope\.toml \(from WSSUP_CONFIG\): no such file"):
        loaded(tmp_path, environ={"WSSUP_CONFIG": "nope.toml"})
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    with pytest.raises(UserError, match="cannot be read"):
        loaded(tmp_path, config_file="loop.toml")


def test_the_command_line_names_the_file_over_the_environment(tmp_path: Path) -> None:
    """--config wins over WSSUP_CONFIG, which wins over ./wssup.toml."""
    for name, workers in [("wssup.toml", 1), ("env.toml", 2), ("cli.toml", 3)]:
        (tmp_path / name).write_text(f"workers = {workers}")
    environ = {"WSSUP_CONFIG": "env.toml"}
    assert loaded(tmp_path).settings.workers == 1
    assert loaded(tmp_path, environ=environ).settings.workers == 2
    found = loaded(tmp_path, environ=environ, config_file="cli.toml")
    assert (found.settings.workers, found.sources["workers"]) == (3, "cli.toml:1")


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("WSSUP_WORKERS", " 4 ", "workers", 4),
        ("WSSUP_WORKERS", "auto", "workers", "auto"),
        ("WSSUP_BIND", "a:1, [::1]:2", "bind", ("a:1", "[::1]:2")),
        ("WSSUP_PRELOAD", "No", "preload", False),
        ("WSSUP_PRELOAD", "1", "preload", True),
        ("WSSUP_SETTLE", "500ms", "settle", 0.5),
        ("WSSUP_LIMITS_MESSAGE_BYTES", "64KiB", "limits.message_bytes", 65536),
        ("WSSUP_APP_DIR", "sub/./x", "app_dir", "/srv/sub/x"),
        ("WSSUP_UNIX_MODE", "600", "unix_mode", "0600"),
        ("WSSUP_RESUME_FAILURE_LIMIT", "5%", "resume_failure_limit", 0.05),
        ("WSSUP_MAX_WORKER_RSS", "2GiB", "max_worker_rss", 2 << 30),
        ("WSSUP_LIMITS_STATE_BYTES", "0", "limits.state_bytes", 0),
    ],
)
def test_variables_are_read_as_text(name: str, text: str, key: str, value: object) -> None:
    """An environment variable gives a setting of any kind as text, and is named as its source."""
    found = loaded(Path("/srv"), environ={name: text})
    assert value_of(found.settings, key) == value
    assert found.sources[key] == name


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("WSSUP_WORKES", "4", ["WSSUP_WORKES = '4'", "environment", "did you mean WSSUP_WORKERS?"]),
        ("WSSUP_MESSAGE_BYTES", "4", ["did you mean WSSUP_LIMITS_MESSAGE_BYTES?"]),
        ("WSSUP_WORKERS", "many", ["workers = 'many' (from WSSUP_WORKERS)"]),
        ("WSSUP_WORKERS", "٣", ["not a whole number"]),
        ("WSSUP_PRELOAD", "maybe", ["true or false"]),
        ("WSSUP_BIND", "a:1,,b:2", ["'': no port"]),
        ("WSSUP_APP", "\udcff:app", ["not UTF-8"]),
    ],
)
def test_wrong_variables_are_refused(
    tmp_path: Path, name: str, text: str, parts: list[str]
) -> None:
    """An unknown WSSUP_ variable or a wrong value in one is refused, naming it."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, environ={name: text})
    for part in parts:
        assert part in str(caught.value)


def test_an_empty_variable_is_not_given(tmp_path: Path) -> None:
    """An empty environment variable counts as not given."""
    found = loaded(tmp_path, "workers = 2", environ={"WSSUP_WORKERS": "", "WSSUP_CONFIG": ""})
    assert (found.settings.workers, found.sources["workers"]) == (2, "wssup.toml:1")


def test_the_core_is_no_setting(tmp_path: Path) -> None:
    """The variable that has a process use the pure core may stand beside the settings."""
    found = loaded(tmp_path, environ={"WSSUP_PURE_PYTHON": "1"})
    assert set(found.sources.values()) == set(loaded(tmp_path).sources.values())


def test_required_settings_and_flags_as_sources(tmp_path: Path) -> None:
    """A required setting must be given; options are named as they were written."""
    with pytest.raises(UserError, match=r"MODULE:ATTR, WSSUP_APP or app in wssup\.toml"):
        loaded(tmp_path, required=["app"])
    found = loaded(tmp_path, cli={"app": "a.b:c", "preload": False, "bind": (), "name": None})
    assert found.sources["app"] == "MODULE:ATTR"
    assert found.sources["preload"] == "--no-preload"
    assert found.sources["bind"] == found.sources["name"] == "default"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(*[st.none() | st.integers(1, 64)] * 3), st.sampled_from(["workers", "max_workers"])
)
def test_precedence(tmp_path: Path, values: tuple[int | None, ...], key: str) -> None:
    """Whichever sources give a setting, the strongest of them wins and is named."""
    in_file, in_environment, in_cli = values
    name = SETTINGS[key].environment
    other = "max_workers = 64\nfailure_budget = 7\n" if key == "workers" else "workers = 1\n"
    text = other + ("" if in_file is None else f"{key} = {in_file}\n")
    environ = {} if in_environment is None else {name: str(in_environment)}
    cli = {} if in_cli is None else {key: str(in_cli)}
    found = loaded(tmp_path, text, environ=environ, cli=cli)
    line = f"wssup.toml:{len(text.splitlines())}"
    given_values = [
        (in_cli, SETTINGS[key].flag),
        (in_environment, name),
        (in_file, line),
        (SETTINGS[key].default, "default"),
    ]
    expected = next(pair for pair in given_values if pair[0] is not None)
    assert (value_of(found.settings, key), found.sources[key]) == expected


def test_weaker_sources_are_checked_too(tmp_path: Path) -> None:
    """A wrong value is an error also where a stronger source overrides it."""
    with pytest.raises(ConfigError, match=r"wssup\.toml:1"):
        loaded(tmp_path, "workers = 0", cli={"workers": "2"})


def test_paths_keep_their_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """app_dir follows $PWD through a link, and a relative one in a file starts at the file."""
    (tmp_path / "releases" / "1").mkdir(parents=True)
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    monkeypatch.chdir(current)
    by_link = load(cli={}, environ={"PWD": str(current)})
    assert by_link.settings.app_dir == str(current)
    for stale in (str(tmp_path), "/nonexistent", "relative", "", f"{current}/../1"):
        assert load(cli={}, environ={"PWD": stale}).settings.app_dir == os.getcwd()  # noqa: PTH109
    (current / "wssup.toml").write_text('app_dir = "."\nruntime_dir = "../run"\n')
    found = loaded(tmp_path, config_file=str(current / "wssup.toml"))
    assert found.settings.app_dir == str(current)
    assert found.settings.runtime_dir == f"{current}/../run"
    assert loaded(tmp_path, cli={"app_dir": "x"}).settings.app_dir == f"{tmp_path}/x"


def test_a_removed_current_directory_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A current directory that no longer exists is one line, not a traceback."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UserError, match="no longer exists"):
        load(cli={}, environ={})


def test_the_runtime_directory_comes_from_its_surroundings(tmp_path: Path) -> None:
    """The order is setting, first of RUNTIME_DIRECTORY, /run for root, XDG_RUNTIME_DIR, /tmp."""
    both = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/1"}
    found = loaded(tmp_path, environ=both)
    assert found.settings.runtime_dir == "/run/a"
    assert found.sources["runtime_dir"] == "RUNTIME_DIRECTORY"
    found = loaded(tmp_path, environ=both | {"WSSUP_RUNTIME_DIR": "/run/c"})
    assert found.settings.runtime_dir == "/run/c"
    session = {"XDG_RUNTIME_DIR": "/run/user/1"}
    user = os.geteuid()
    alone = "/run/wssup" if user == 0 else f"/tmp/wssup-{user}"
    assert loaded(tmp_path).settings.runtime_dir == alone
    assert loaded(tmp_path, environ={"XDG_RUNTIME_DIR": "x"}).settings.runtime_dir == alone
    with_session = "/run/wssup" if user == 0 else "/run/user/1/wssup"
    assert loaded(tmp_path, environ=session).settings.runtime_dir == with_session


def test_reload_reads_the_file_again(tmp_path: Path) -> None:
    """reload() sees a changed file, a new file and a removed file; the rest stays as it was."""
    first = loaded(tmp_path, environ={"WSSUP_SETTLE": "1"}, cli={"app": "a:b"}, required=["app"])
    (tmp_path / "wssup.toml").write_text("workers = 3\nsettle = 9\nbacklog = 1")
    second = first.reload()
    assert (second.settings.workers, second.settings.settle, second.settings.app) == (3, 1.0, "a:b")
    assert changes(first.settings, second.settings) == (["workers"], ["backlog"])
    assert changes(second.settings, second.settings) == ([], [])
    (tmp_path / "wssup.toml").unlink()
    with pytest.raises(UserError, match="is gone"):
        second.reload()


def test_apply_keeps_what_is_not_live(tmp_path: Path) -> None:
    """apply() takes the live settings of the new and the others of the running configuration."""
    running = loaded(tmp_path, "workers = 2\nmax_workers = 4\n")
    (tmp_path / "wssup.toml").write_text('# x\nworkers = 3\nmax_workers = 8\nname = "b"\n')
    merged = apply(running, running.reload())
    assert (merged.settings.workers, merged.settings.max_workers) == (3, 4)
    assert merged.settings.name == "default"
    assert merged.sources["workers"] == "wssup.toml:2"
    assert merged.sources["max_workers"] == "wssup.toml:2"
    (tmp_path / "wssup.toml").write_text("workers = 8\nmax_workers = 8\n")
    with pytest.raises(ConfigError, match="max_workers = 4"):
        apply(running, merged.reload())
