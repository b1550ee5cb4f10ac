"""``POST /publish``: who may, what, and what is said to others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.harness import processes
from tests.harness.instance import ECHO, Instance
from tests.harness.observer import Answer, observer, request
from tests.harness.raw import TEXT, Raw, raw_clients

Start = Callable[..., Instance]

#: RFC 6455 section 5.2.
BINARY = 2
TOPICS = ECHO.replace(
    "    ws = await request.accept()\n",
    '    ws = await request.accept()\n    ws.subscribe("news")\n',
)
#: A message that the subscribers may miss.
_EARLY = b"?"


def heard(client: Raw) -> tuple[int, bytes]:
    """A client's next frame, but for early ones."""
    while (found := client.frame()) == (TEXT, _EARLY):
        pass
    return found


def test_publish(start: Start, tmp_path: Path) -> None:
    """With the token, and no other, a message reaches the subscribers, as text or as bytes; what
    cannot be published is refused with its reason; another token in the file counts at once; the
    token is in no log and no configuration that is shown.
    """
    token = tmp_path / "token"
    token.write_text("t0p-secret-t0ken-of-32-characters\n")
    token.chmod(0o640)
    instance = start(TOPICS, status=True, publish_token_file=str(token))
    instance.running()
    observer(instance)

    def publish(body: bytes = b"hello", topic: str = "news", **headers: str) -> Answer:
        return request(instance, f"/publish/{topic}", method="POST", body=body, **headers)

    bearer = {"Authorization": "Bearer t0p-secret-t0ken-of-32-characters"}
    binary = {"Content_Type": "application/octet-stream"}
    with raw_clients(instance.address(), 2) as clients:
        instance.wait(lambda s: s["topics"]["subscriptions"] == 2, "the subscriptions")
        # The worker that is asked hears of another one's subscribers a moment later.
        known = {"subscribers": 2}
        processes.until(lambda: publish(_EARLY, **bearer).json() == known, 60, "both to be known")
        answer = publish("grüße".encode(), **bearer)
        assert (answer.status, answer.json()) == (202, {"subscribers": 2})
        assert [heard(client) for client in clients] == [(TEXT, "grüße".encode())] * 2
        assert publish(b"\xff\x00", **bearer, **binary).status == 202
        assert [heard(client) for client in clients] == [(BINARY, b"\xff\x00")] * 2
    refused = {
        "no token": publish(),
        "another scheme": publish(Authorization="Basic dDpw"),
        "another token": publish(Authorization="Bearer t0p-secret-t0ken-of-32-character5"),
        "no text": publish(b"\xff", **bearer),
        "too long": publish(b"x" * 65537, **bearer),
        "no topic": publish(topic="", **bearer),
        "just fits": publish(b"x" * 65536, **bearer),
    }
    assert {name: answer.status for name, answer in refused.items()} == {
        "no token": 401,
        "another scheme": 401,
        "another token": 403,
        "no text": 400,
        "too long": 413,
        "no topic": 400,
        "just fits": 202,
    }
    assert refused["no token"].headers["www-authenticate"] == 'Bearer realm="wssup"'
    token.write_text("an0ther-secret-t0ken-of-32-chars\n")
    assert publish(**bearer).status == 403
    assert publish(Authorization="Bearer an0ther-secret-t0ken-of-32-chars").status == 202
    token.chmod(0o644)
    assert publish(**bearer).json()["error"]["code"] == "no_token"
    shown = instance.logged() + instance.run("config").stdout + json.dumps(instance.status())
    assert "secret" not in shown


def test_tokens_that_are_none(start: Start, tmp_path: Path) -> None:
    """A file for the token that is missing, open to everybody or too short ends the start with one
    line that says so.
    """
    token = tmp_path / "token"
    missing = start(status=True, publish_token_file=str(token))
    assert missing.exited() == 2
    assert "No such file" in missing.logged()
    token.write_text("short\n")
    token.chmod(0o600)
    short = start(status=True, publish_token_file=str(token), name="short")
    assert short.exited() == 2
    assert "shorter than 16 bytes" in short.logged()
    token.write_text("long enough for a token\n")
    token.chmod(0o604)
    everybody = start(status=True, publish_token_file=str(token), name="everybody")
    assert everybody.exited() == 2
    assert "open to everybody (mode 0604)" in everybody.logged()
    for instance in (missing, short, everybody):
        assert "Traceback" not in instance.logged()
