"""What the replicated state knows of a client session.

A session is known here only while it has something that must end with it:
a wait, watched keys, or what it holds with SESSION. Everything else about a
client (its name, its protocol, its queued transaction) stays on the node it
is connected to.
"""

from __future__ import annotations

import msgspec


class Session(msgspec.Struct, array_like=True):
    """``watched`` keys since WATCH, whether one of them changed, and the keys of what is ``held`` until the end.

    ``loading`` are those it has a token for (`cluster.machine.loading`).
    """

    watched: dict[bytes, None]
    dirty: bool
    held: dict[bytes, None]
    loading: dict[bytes, None] = {}


class Sessions:
    """The sessions that have something to lose, by origin."""

    __slots__ = ("_known", "_watchers")

    def __init__(self) -> None:
        self._known: dict[bytes, Session] = {}
        self._watchers: dict[bytes, dict[bytes, None]] = {}  # key -> origins

    def get(self, origin: bytes) -> Session | None:
        """The session, when it is known here."""
        return self._known.get(origin)

    def open(self, origin: bytes) -> Session:
        """The session, made known if it was not."""
        session = self._known.get(origin)
        if session is None:
            session = self._known[origin] = Session({}, False, {}, {})
        return session

    def close(self, origin: bytes) -> Session | None:
        """Forgets the session and gives back what it had; its watches end too."""
        session = self._known.get(origin)
        if session is not None:
            self.unwatch(origin)
            self._known.pop(origin, None)
        return session

    def watch(self, origin: bytes, key: bytes) -> bool:
        """Begins to watch ``key``; whether it was not watched by this session yet."""
        session = self.open(origin)
        if key in session.watched:
            return False
        session.watched[key] = None
        self._watchers.setdefault(key, {})[origin] = None
        return True

    def unwatch(self, origin: bytes) -> list[bytes]:
        """Ends the session's watches; the keys it watched."""
        session = self._known.get(origin)
        if session is None:
            return []
        keys = list(session.watched)
        for key in keys:
            watchers = self._watchers[key]
            del watchers[origin]
            if not watchers:
                del self._watchers[key]
        session.watched = {}
        session.dirty = False
        self.forget_if_empty(origin)
        return keys

    def forget_if_empty(self, origin: bytes) -> None:
        """Drops a session that has nothing left to lose."""
        session = self._known.get(origin)
        if session is not None and not (session.watched or session.held or session.loading):
            del self._known[origin]

    def changed(self, key: bytes) -> None:
        """Marks every session that watches ``key``."""
        for origin in self._watchers.get(key, ()):
            self._known[origin].dirty = True

    def origins(self) -> list[bytes]:
        """Every known session, in the order they became known."""
        return list(self._known)

    def snapshot(self) -> dict[bytes, Session]:
        """The state, for the ledger."""
        return self._known

    def restore(self, known: dict[bytes, Session]) -> list[bytes]:
        """The state back from a ledger; the keys watched, once for each watch."""
        self._known = known
        keys = []
        for origin, session in known.items():
            for key in session.watched:
                self._watchers.setdefault(key, {})[origin] = None
                keys.append(key)
        return keys
