"""The ASGI application on granian, one worker, with uvloop. ``python asgi_granian.py PORT``."""

import sys
from pathlib import Path

from granian import Granian
from granian.constants import Interfaces, Loops

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "apps"))
    Granian(
        "asgi_echo:app",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=1,
        backlog=4096,
        log_enabled=False,
        working_dir=Path(__file__).resolve().parents[1] / "apps",
    ).serve()
