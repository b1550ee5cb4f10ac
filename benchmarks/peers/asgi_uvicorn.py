"""The ASGI application on uvicorn, websockets-sansio, uvloop and httptools.

``python asgi_uvicorn.py PORT``.
"""

import sys
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "apps"))
from asgi_echo import app

uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    backlog=4096,
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    access_log=False,
    log_level="warning",
)
