"""Who accepts for a slot that has nobody of its own.

A listener is never closed while the master lives, because closing resets the handshakes that wait
in its queue. So the listeners of a slot without a worker that can accept (booting, crashed,
stalled, parked) are lent to a worker that can. This is the whole decision, computed afresh from the
facts whenever they change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

__all__ = ["lend"]


def lend(
    needy: Collection[int], able: Mapping[int, int], standing: Mapping[int, int]
) -> dict[int, int]:
    """Which slot's worker serves each needy slot's listeners.

    :param needy: slots whose listeners nobody of their own serves.
    :param able: slots whose worker accepts, with its open connections.
    :param standing: the loans as they are; one stays while its borrower is able.
    :returns: borrower by needy slot; empty if no slot is able (then their queues wait in the
        kernel).
    """
    loans = {slot: standing[slot] for slot in needy if standing.get(slot) in able}
    burden = dict.fromkeys(able, 0)
    for borrower in loans.values():
        burden[borrower] += 1
    for slot in sorted(needy):
        if slot in loans or not able:
            continue
        borrower = min(able, key=lambda s: (burden[s], able[s], s))
        burden[borrower] += 1
        loans[slot] = borrower
    return loans
