"""Workers of class uvicorn hand connections over: the stream goes on, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.oracle import Oracle
from tests.harness.oracle_apps import ASGI
from tests.harness.oracle_client import mixed
from tests.harness.oracle_run import exact, journal, lives_in_the_new, reload, same
from tests.harness.oracle_sockets import inodes

Start = Callable[..., Instance]

#: How many reloads the clients live through; `make soak` has them live through 50.
_RELOADS = int(os.environ.get("WSSUP_RELOADS", "2"))
_CLIENTS = 60

#: The application of the oracle, giving way as asyncio has it.
ON_ASYNCIO = ASGI.replace("import trio\n", "import asyncio\n").replace(
    "await trio.lowlevel.checkpoint()", "await asyncio.sleep(0)"
)


@pytest.mark.timeout(100 + 20 * _RELOADS)
def test_nobody_notices(start: Start) -> None:
    """Clients that send without a pause go on through every reload: nothing is lost, doubled,
    reordered or corrupted, nobody is closed, and the state goes with them, over the same socket.
    The application sees each move as an end, and a beginning in the right process.
    """
    instance = start(ON_ASYNCIO, worker="uvicorn", asgi_resumable=True, settle=0.1)
    instance.running()
    with Oracle(instance.address(), mixed(_CLIENTS)) as people:
        people.go_on()
        sockets = inodes(people.server_port, people.ports)
        assert len(set(sockets.values())) == _CLIENTS
        old = set(instance.workers().values())
        for number in range(_RELOADS):
            reload(instance)
            people.served_by(number + 2)
            lives_in_the_new(instance, people, old)
            same(people, sockets)
            old = set(instance.workers().values())
        people.finish()
        found = exact(instance, people)
    assert found.moved_in == found.moved_out == _RELOADS * _CLIENTS
    assert found.closed_by_reason["client"] == _CLIENTS
    assert found.handler_errors == 0
    told = ["connect", *(["suspend", "resume"] * _RELOADS), "disconnect"]
    processes.until(
        lambda: all(len(notes) == len(told) for notes in journal(instance).values()),
        20,
        "all goodbyes",
    )
    for notes in journal(instance).values():
        assert [note.what for note in notes] == told
