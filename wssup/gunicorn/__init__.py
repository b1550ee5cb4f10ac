"""wssup's server inside gunicorn: ``gunicorn -k wssup.gunicorn.TrioWorker shop.chat:app``.

Its arbiter keeps the processes, the listeners and the signals; each worker runs wssup's engine on
trio. What only wssup's own master can give is missing there: connections that move to another
worker, topics across workers, counts of the instance, steering. ``docs/how-to/gunicorn.md``.
"""

from __future__ import annotations

from wssup.gunicorn.worker import TrioWorker

__all__ = ["TrioWorker"]
