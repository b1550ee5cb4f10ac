"""What the oracle of topics talks to: an application in two styles that subscribes and publishes
for its clients.

A client sends a command, one line of text: ``WHAT TOPIC REST``. The answer begins with ``=``, then
the command, then the answer proper; what went wrong is ``= error TYPE: TEXT``. Messages of topics
begin otherwise: a published payload gets the process that published it in front.

===========================  =====================================================================
``sub TOPIC [OPTIONS]``      with the options of ``ws.subscribe`` as JSON
``unsub TOPIC``
``pub TOPIC KIND PAYLOAD``   KIND is ``text``, ``bytes`` or ``others`` (text, ``exclude=ws``)
``thread TOPIC PAYLOAD``     the same from two threads
``count TOPIC``              ``wssup.subscribers``
``there TOPIC LIMIT``        ``wssup.presence`` with ids
``topics``                   how many ``ws.topics`` has
``churn TOPIC COUNT NAMES``  subscribes and unsubscribes so often, with so many different names
``flood TOPIC COUNT BYTES``  publishes so many numbered texts of this size, 500 a second
``who``                      answers slot, generation, process, and nothing before that
===========================  =====================================================================
"""

from __future__ import annotations

from typing import Final

_COMMON = '''\
import contextlib
import json
import os
import threading

import trio
import trio_websocket
import wssup

tasks = None


@contextlib.asynccontextmanager
async def lifespan():
    """Publishes the time that goes by, numbered, until the worker ends."""
    global tasks
    async with trio.open_nursery() as tasks:
        tasks.start_soon(tick)
        yield
        tasks.cancel_scope.cancel()


async def tick():
    number = 0
    while True:
        await trio.sleep(0.02)
        number += 1
        wssup.publish("ticks", f"{os.getpid()} {number}")


def obey(ws, line):
    """Do what a client wants; the answer, unless that comes later."""
    if line == "who":
        worker = wssup.current_worker()
        return f"{worker.slot} {worker.generation} {os.getpid()}"
    what, _, rest = line.partition(" ")
    topic, _, rest = rest.partition(" ")
    try:
        answer = globals()["do_" + what](ws, topic, rest)
    except Exception as error:
        answer = failure(error)
    return f"= {what} {answer}" if answer is not None else None


def failure(error):
    return f"error {type(error).__name__}: {error}"


def do_pub(ws, topic, rest):
    kind, _, payload = rest.partition(" ")
    payload = f"{os.getpid()} {payload}"
    if kind == "bytes":
        wssup.publish(topic, payload.encode())
    else:
        wssup.publish(topic, payload, exclude=ws if kind == "others" else None)
    return str(os.getpid())


def do_sub(ws, topic, rest):
    found = ws.subscribe(topic, **json.loads(rest or "{}"))
    assert found.topic == topic
    answer = {"topic": topic, "position": found.position, "missed": found.missed}
    return json.dumps(answer | {"recovered": found.recovered, "pid": os.getpid()})


def do_unsub(ws, topic, rest):
    return json.dumps({"topic": topic, "was": ws.unsubscribe(topic)})


def do_count(ws, topic, rest):
    return str(wssup.subscribers(topic))


def do_topics(ws, topic, rest):
    return str(len(ws.topics))


def do_there(ws, topic, rest):
    async def answer():
        found = await wssup.presence(topic, ids=True, limit=int(rest or 1000))
        return json.dumps([found.count, sorted(found.ids), found.complete])

    tasks.start_soon(later, ws, "there", answer)


def do_thread(ws, topic, rest):
    def run():
        wssup.publish(topic, f"{threading.get_ident()} {rest}")

    async def answer():
        # One that trio knows, and one that it does not.
        await trio.to_thread.run_sync(run)
        thread = threading.Thread(target=run)
        thread.start()
        await trio.to_thread.run_sync(thread.join)
        return str(threading.get_ident())

    tasks.start_soon(later, ws, "thread", answer)


def do_churn(ws, topic, rest):
    count, names = map(int, rest.split())

    async def answer():
        for number in range(count):
            name = f"{topic}{number % names}"
            ws.subscribe(name)
            assert ws.unsubscribe(name)
            if number % 100 == 99:
                await trio.lowlevel.checkpoint()
        return str(count)

    tasks.start_soon(later, ws, "churn", answer)


def do_flood(ws, topic, rest):
    count, size = map(int, rest.split())

    async def answer():
        for number in range(1, count + 1):
            wssup.publish(topic, f"{number} ".ljust(size, "x"))
            if number % 10 == 0:
                await trio.sleep(0.02)
        return str(count)

    tasks.start_soon(later, ws, "flood", answer)


async def later(ws, what, answer):
    try:
        text = await answer()
    except Exception as error:
        text = failure(error)
    with contextlib.suppress(trio_websocket.ConnectionClosed):
        await ws.send_message(f"= {what} {text}")
'''

#: Plain hooks of an object.
EVENT: Final = (
    _COMMON
    + """

class App:
    def on_receive(self, ws, data):
        answer = obey(ws, data)
        if answer is not None and not ws.send_nowait(answer):
            raise RuntimeError("an answer was not taken")

app = App()
"""
)

#: A task per connection, which gives way between doing and answering.
TASK: Final = (
    _COMMON
    + """

@wssup.resumable
async def app(request):
    ws = await request.accept()
    async for data in ws:
        answer = obey(ws, data)
        await trio.lowlevel.checkpoint()
        if answer is not None:
            await ws.send_message(answer)
"""
)

STYLES: Final = {"event": EVENT, "task": TASK}
