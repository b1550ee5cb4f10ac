"""How many connections moved between which workers, as both ends say. Bookkeeping; nothing acts.

A worker counts its moves in its own row of the scoreboard: who took a connection right after it
acknowledged it, who gave it right after it read that. A worker that dies in between has not counted
a move that is one, but its peer knows, and says so when the session is over. So the row of a dead
worker is closed only when its peers have told, or are dead too; in that case what either of the two
had counted is true.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Ledger"]


@dataclass(slots=True)
class _Entry:
    """One session.

    :ivar least: the moves that are certain so far.
    :ivar told: one of the two has said how it ended.
    :ivar waiting: who of the two has not, and lives or has not been closed yet.
    """

    sender: int
    receiver: int
    waiting: set[int]
    least: int = 0
    told: bool = False


class Ledger:
    """All sessions of which somebody may still have to tell."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._known: set[int] = set()
        self._dead: set[int] = set()
        #: By worker: moves to it and away from it in sessions that are over.
        self._settled: dict[int, tuple[int, int]] = {}

    def opened(self, session: int, sender: int, receiver: int) -> None:
        """Two workers, by serial number, are told to begin a session."""
        self._entries[session] = _Entry(sender, receiver, {sender, receiver})
        self._known |= {sender, receiver}

    def told(self, session: int, worker: int, moved: int) -> None:
        """One of the two says how many connections moved in all: the session is over for it."""
        entry = self._entries.get(session)
        if entry is not None and worker in entry.waiting:
            entry.least = max(entry.least, moved)
            entry.told = True
            self._leave(session, entry, worker)

    def died(self, worker: int, moved_in: int, moved_out: int) -> None:
        """A worker is gone, and its last words have been heard; what it had counted itself."""
        self._dead.add(worker)
        came, went = self._settled.get(worker, (0, 0))
        entries = self._entries.values()
        for mine, unsettled in (
            ([e for e in entries if e.receiver == worker], moved_in - came),
            ([e for e in entries if e.sender == worker], moved_out - went),
        ):
            untold = [e for e in mine if not e.told]
            # Of several it could not be said which one the moves belong to.
            if len(untold) == 1:
                rest = unsettled - sum(e.least for e in mine if e.told)
                untold[0].least = max(untold[0].least, rest)

    def awaits(self, worker: int) -> bool:
        """Whether more will be known of a dead worker's moves: a living peer has yet to tell."""
        return any(
            not e.told and e.waiting - self._dead
            for e in self._entries.values()
            if worker in (e.sender, e.receiver)
        )

    def moves(self, worker: int) -> tuple[int, int]:
        """How many moved to a worker and away from it in all its life, at least."""
        came, went = self._settled.get(worker, (0, 0))
        entries = self._entries.values()
        return (
            came + sum(e.least for e in entries if e.receiver == worker),
            went + sum(e.least for e in entries if e.sender == worker),
        )

    def closed(self, worker: int) -> None:
        """A dead worker's row has been closed: nothing is asked about it any more."""
        self._known.discard(worker)
        self._dead.discard(worker)
        self._settled.pop(worker, None)
        for session, entry in list(self._entries.items()):
            self._leave(session, entry, worker)

    def _leave(self, session: int, entry: _Entry, worker: int) -> None:
        """Nothing more comes from a worker; once that is so of both, the session is settled."""
        if worker not in entry.waiting:
            return
        entry.waiting.discard(worker)
        if entry.waiting:
            return
        del self._entries[session]
        for party, came, went in (
            (entry.receiver, entry.least, 0),
            (entry.sender, 0, entry.least),
        ):
            if party in self._known:
                settled = self._settled.get(party, (0, 0))
                self._settled[party] = (settled[0] + came, settled[1] + went)
