"""`tests.front` with what clients receive as bytes, and an edge that notes what it is asked for."""

from __future__ import annotations

from typing import Any

from cluster.shard import Shard
from resp_server.protocol.replies import resp2, resp3
from resp_server.session import Session
from resp_server.settings import load
from tests.front import Front


class Edge:
    """Does nothing but remember."""

    def __init__(self) -> None:
        self.closed: list[Session] = []
        self.adopted: list[tuple[Session, str, str]] = []  # who it was, and where it is reached
        self.stopped: bool | None = None  # with a checkpoint or without
        self.checkpoint_under_way = False
        self.changed: list[str] = []

    def close(self, session: Session) -> None:
        self.closed.append(session)

    def stop(self, *, checkpoint: bool) -> None:
        self.stopped = checkpoint

    def start_checkpoint(self) -> bool:
        started = not self.checkpoint_under_way
        self.checkpoint_under_way = True
        return started

    def settings_changed(self, name: str) -> None:
        self.changed.append(name)

    def unsent_bytes(self, session: Session) -> int:
        return 0

    def adopt_peer(self, session: Session, peer: str, address: str) -> None:
        self.adopted.append((session, peer, address))


class WireFront:
    """A server to talk to; ``flags`` are settings by attribute."""

    def __init__(self, **flags: str) -> None:
        self._front = Front(settings=load(flags, {}))
        self.server = self._front.server
        self.server.edge = self.edge = Edge()
        self.table = self.server.table

    @property
    def shard(self) -> Shard:
        """The first shard, the only one unless the settings say otherwise."""
        return self._front.shard

    def connect(self) -> Session:
        """A new client, with an address of its own."""
        return self.server.connect(f"127.0.0.1:{50_000 + len(self.server.clients)}", "127.0.0.1:6379")

    def send(self, session: Session, *calls: str | list[bytes]) -> bytes:
        """Sends calls as one pipeline and gives what the client receives; a call is words with blanks between."""
        commands = [call if isinstance(call, list) else [word.encode() for word in call.split()] for call in calls]
        self._front.dispatcher.execute(session, commands)
        self._front.finish()
        received = b"".join(session.out)
        session.out.clear()
        return received

    def pass_time(self) -> None:
        """A while passes, enough for any timer of a node that is alone."""
        self._front.advance(100)

    def ask(self, call: str | list[bytes]) -> bytes:
        """One call of a new client in RESP2."""
        return self.send(self.connect(), call)


def wire(reply: Any, protocol: int = 2) -> bytes:
    """A reply as it is sent."""
    return (resp3 if protocol == 3 else resp2)(reply)
