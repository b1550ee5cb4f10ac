from __future__ import annotations

import json
from pathlib import Path

import pytest

from wssup.config import load
from wssup.config.bus import HIDDEN, Bus, BusUrl, parse_bus, without_secrets
from wssup.config.kinds import Given
from wssup.config.settings import SETTINGS, without_password
from wssup.config.values import BadValueError
from wssup.errors import ConfigError, UserError

TEXT = Given(text=True, base="/")
MARK = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://h", BusUrl(False, "h", 6379, "", "", 0, {})),
        ("valkey://10.0.0.1:7000/", BusUrl(False, "10.0.0.1", 7000, "", "", 0, {})),
        ("rediss://[fd00::1]:1/15", BusUrl(True, "fd00::1", 1, "", "", 15, {})),
        ("redis://:p@h", BusUrl(False, "h", 6379, "", "p", 0, {})),
        ("redis://u@h", BusUrl(False, "h", 6379, "u", "", 0, {})),
        ("redis://u:@h", BusUrl(False, "h", 6379, "u", "", 0, {})),
        (
            "valkeys://us%20er:p%40%2F%3A%3F@cache.internal:65535/3",
            BusUrl(True, "cache.internal", 65535, "us er", "p@/:?", 3, {}),
        ),
        ("redis://u:a:b@h", BusUrl(False, "h", 6379, "u", "a:b", 0, {})),
        ("redis+cluster://h/0", BusUrl(False, "h", 6379, "", "", 0, {}, True)),
        (
            "valkeys+cluster://h?ssl_ca_certs=/etc/ca.pem",
            BusUrl(True, "h", 6379, "", "", 0, {"ssl_ca_certs": "/etc/ca.pem"}, True),
        ),
        (
            "rediss://h/1?ssl_certfile=/a%20b&ssl_keyfile=/k",
            BusUrl(True, "h", 6379, "", "", 1, {"ssl_certfile": "/a b", "ssl_keyfile": "/k"}),
        ),
    ],
)
def test_the_parts_of_a_url(url: str, parts: BusUrl) -> None:
    """A URL is taken apart, its user and password decoded; the setting keeps it as it was given."""
    assert parse_bus(url) == parts
    assert Bus().read(url, TEXT) == url


def test_the_embedded_bus() -> None:
    """It is a word of its own, and the default."""
    assert Bus().read("embedded", TEXT) == "embedded"
    assert SETTINGS["topics.bus"].default == "embedded"
    assert Bus().public("embedded") == "embedded"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        *((value, "a string is expected") for value in (1, True, ["redis://h"], {}, 1.5)),
        *(
            (value, "not the URL of a server")
            for value in (
                *("", "embeded", "redis", "redis:", "redis://", "redis:///0", "h:6379", "//h"),
                *("redis://h:", "redis://h:x", "redis://h:123456", "redis://h/x", "redis://h/0/1"),
                *("redis://h/123456", "redis://h#x", " redis://h", "redis://h\n", "redis://a b"),
                *("redis://:pa/ss@h", "redis://:pa?ss@h", "redis://:pa#ss@h", "redis://u:p@x@h"),
                *("redis://[::1", "redis://h\0", "REDIS://h", "redis://" + "h" * 5000),
            )
        ),
        *(
            (value, "another scheme")
            for value in ("http://h", "unix://h", "redis+sentinel://h", "rediz://h", "a+b://h")
        ),
        *((value, "port") for value in ("redis://h:0", "redis://h:65536")),
        *(
            (value, "options besides")
            for value in (
                *("rediss://h?password=x", "rediss://h?ssl_ca_certs", "rediss://h?ssl_ca_certs="),
                *("redis://h?ssl_ca_certs=/a", "rediss://h?ssl_ca_certs=/a&db=1"),
            )
        ),
        ("redis+cluster://h/1", "a cluster has no databases"),
        ("redis://:***@h", "its password is hidden"),
        ("redis://***@h", "its password is hidden"),
        ("redis://u:%2A%2A%2A@h", "its password is hidden"),
        ("redis://\udcff", "not UTF-8"),
    ],
)
def test_what_is_no_bus(value: object, problem: str) -> None:
    """What cannot be used is refused with the reason, a masked password too."""
    with pytest.raises(BadValueError, match=problem):
        Bus().read(value, TEXT)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://:p@h", "redis://:***@h"),
        ("redis://u:p@h:1/2", "redis://u:***@h:1/2"),
        ("redis://u:@h", "redis://***@h"),
        ("redis://p@h", "redis://***@h"),
        ("valkeys+cluster://u:p@[::1]:9", "valkeys+cluster://u:***@[::1]:9"),
        ("rediss://u:p@h?ssl_ca_certs=/x", "rediss://u:***@h?ssl_ca_certs=/x"),
        ("rediss://h?password=p", HIDDEN),
        ("redis://u:p/p@h", HIDDEN),
        ("redis://u:p", HIDDEN),
        ("redis//:p@h", HIDDEN),
        ("p@h", HIDDEN),
        (["redis://u:p@h"], HIDDEN),
        ({"password": "p"}, HIDDEN),
        ("embeded", "embeded"),
        ("redis://h:99999", "redis://h:99999"),
        (5, 5),
    ],
)
def test_what_is_shown(value: object, shown: object) -> None:
    """A password is hidden; of what is no URL, nothing is shown that could hold one."""
    assert Bus().public(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("redis://u:p@h/0", "redis://***@h/0"),
        ("a redis://u:p@h?x=y z", "a redis://***@h?*** z"),
        ("plain", "plain"),
        (3, 3),
        (("redis://u:p@h",), ("redis://***@h",)),
        ([{"a": "redis://p@h"}], [{"a": "redis://***@h"}]),
    ],
)
def test_urls_in_wrong_places(value: object, shown: object) -> None:
    """A URL under a key that does not exist loses its user and password, also within a table."""
    assert without_secrets(value) == shown


@pytest.mark.parametrize(
    ("file", "environ", "cli"),
    [
        (f'[topics]\nbus = "redis://:{MARK}@h:99999"', {}, {}),
        (f'[topics]\nbus = "redis://:{MARK}/x@h"', {}, {}),
        (f'[topics]\nbus = ["redis://:{MARK}@h"]', {}, {}),
        (f'[topics]\nbuss = "redis://:{MARK}@h"', {}, {}),
        (f'bus = "redis://:{MARK}@h"', {}, {}),
        (f'[bus]\nurl = "redis://:{MARK}@h"', {}, {}),
        (f'bind = "redis://:{MARK}@h"', {}, {}),
        ("", {"WSSUP_TOPICS_BUS": f"rediss://h?password={MARK}"}, {}),
        ("", {"WSSUP_BUS": f"redis://u:{MARK}@h"}, {}),
        ("", {}, {"topics.bus": f"redis://u:{MARK}@h:0"}),
    ],
)
def test_no_error_tells_a_password(
    tmp_path: Path, file: str, environ: dict[str, str], cli: dict[str, object]
) -> None:
    """An error about the bus names key and source, and never what stands for a password."""
    (tmp_path / "wssup.toml").write_text(file)
    with pytest.raises(ConfigError) as caught:
        load(cli=cli, environ=environ, cwd=str(tmp_path))
    assert MARK not in str(caught.value)
    assert MARK not in repr(caught.value.args)
    assert caught.value.source


def test_settings_without_password(tmp_path: Path) -> None:
    """The rows that are shown, and the settings that workers get, have the password hidden; the
    bridge's own do not.
    """
    url = f"redis://u:{MARK}@h/1"
    loaded = load(cli={}, environ={"WSSUP_TOPICS_BUS": url}, cwd=str(tmp_path))
    assert loaded.settings.topics.bus == url
    assert MARK not in json.dumps(loaded.rows())
    shown = without_password(loaded.settings)
    assert shown.topics.bus == "redis://u:***@h/1"
    assert shown.limits == loaded.settings.limits
    with pytest.raises(UserError, match="hidden"):
        load(cli={"topics.bus": shown.topics.bus}, environ={}, cwd=str(tmp_path))


@pytest.mark.parametrize("name", ["", "-a", ".", "a:b", "a b", "a*", "ä", "x" * 65, "a{b}"])
def test_what_is_no_namespace(tmp_path: Path, name: str) -> None:
    """The namespace is a plain prefix: no pattern of Redis, no hash tag of a cluster, and without
    what stands between it and a topic.
    """
    with pytest.raises(ConfigError, match=r"topics\.bus_namespace"):
        load(cli={"topics.bus_namespace": name}, environ={}, cwd=str(tmp_path))
