"""The ASGI application on hypercorn's trio worker. ``python asgi_hypercorn.py PORT``."""

import sys
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "apps"))
from asgi_echo import app

config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
config.backlog = 4096
config.accesslog = None
trio.run(serve, app, config)
