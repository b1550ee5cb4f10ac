"""picows: callbacks on uvloop. ``python picows_app.py PORT``.

Its quickest way: the reply is sent from the read buffer, undecoded; text is not checked for UTF-8
(picows has no such check).
"""

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

connected: set[WSTransport] = set()


class Echo(WSListener):
    """Every message comes back; one that begins with ``go`` goes to all."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Remember whom a fan-out reaches."""
        connected.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Forget them."""
        connected.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answer a message or a close frame; pings are answered by picows itself."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
            return
        data = frame.get_payload_as_memoryview()
        if data[:2] == b"go":
            message = bytes(data)
            for other in connected:
                other.send(WSMsgType.TEXT, message)
        else:
            transport.send(frame.msg_type, data)


def listener(_request: WSUpgradeRequest) -> WSListener:
    """One object per connection."""
    return Echo()


async def main() -> None:
    """Serve until killed."""
    server = await ws_create_server(listener, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


uvloop.run(main())
