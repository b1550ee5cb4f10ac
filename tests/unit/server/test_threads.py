"""What other threads publish before there is a loop, and when there is one."""

from __future__ import annotations

import threading

from wssup.server.topics.threads import FromThreads


class Loop:
    """Chores that the test does."""

    def attend(self, fd: int, mask: int, heard: object) -> None:
        """There is nothing to hear."""


def test_nobody_waits_before_there_is_a_loop() -> None:
    """An application that publishes from threads while it starts, and waits for these, starts
    however much that is: all is published in order once there is a loop. Then threads wait for
    room, and what came before takes none of it.
    """
    got: list[str] = []
    queue = FromThreads(lambda topic, *_: got.append(topic))

    def put(count: int) -> None:
        for number in range(count):
            queue.put(str(number), True, b"", 0)

    early = threading.Thread(target=put, args=(3000,), daemon=True)
    early.start()
    early.join(30)
    assert not early.is_alive()
    queue.begin(Loop())  # type: ignore[arg-type]
    try:
        late = threading.Thread(target=put, args=(1000,), daemon=True)
        late.start()
        late.join(30)
        assert not late.is_alive()
        assert not queue._room.acquire(blocking=False)
        queue.drain()
        assert got == [*map(str, range(3000)), *map(str, range(1000))]
        assert queue._room._value == 1000
    finally:
        queue.close()
