"""Takes over the listeners that the service manager passed to this process, before anything is
bound.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from wssup import logs
from wssup.supervisor.activation import match
from wssup.supervisor.address import effective
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.manager import Manager, describe

__all__ = ["take"]


def take(listeners: Listeners, manager: Manager, texts: Sequence[str]) -> None:
    """Give the listeners what was passed for them, and close the rest.

    :param texts: the addresses of the configuration.
    :raises ListenError: if what was passed is not what is configured.
    """
    if not manager.passed:
        return
    found = [describe(one) for one in manager.passed]
    matching = match(found, {text: effective(text) for text in texts})
    log = logs.get()
    for one, why in matching.foreign:
        log.warning("descriptor_dropped", name=one.name, where=one.where or None, reason=why)
        os.close(one.descriptor)
        if manager.store is not None:
            manager.store.remove(one.name)
    listeners.inherit(matching)
    for kind, texts_ in (("stored", matching.stored), ("activated", matching.activated)):
        for text, descriptors in texts_.items():
            log.info("listeners_taken", bind=text, kind=kind, count=len(descriptors))
