"""Four nodes and a shard that is on three of them: what the fourth's clients ask, and what becomes of the messages."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.raft.messages import Message
from cluster.shard import Shard
from tests.scenarios.cluster import Cluster
from tests.scenarios.host import Host, Shape


class Fates:
    """What becomes of messages of a kind, until told otherwise; all others come at once."""

    def __init__(self) -> None:
        self._rules: list[tuple[type[Message], str | None, Sequence[float]]] = []
        self.seen: list[Message] = []

    def __call__(self, sender: str, to: str, message: Message) -> Sequence[float]:
        self.seen.append(message)
        for kind, peer, late_ms in self._rules:
            if isinstance(message, kind) and peer in (None, to):
                return late_ms
        return (0.0,)

    def lose(self, kind: type[Message], *, to: str | None = None) -> None:
        """None of them comes."""
        self._rules.append((kind, to, ()))

    def copy(self, kind: type[Message], *late_ms: float) -> None:
        """They come as often as there are numbers, each so late."""
        self._rules.append((kind, None, late_ms))

    def mend(self) -> None:
        """Everything comes, once and at once."""
        self._rules.clear()

    def sent(self, kind: type[Message]) -> int:
        """How many of them were sent so far."""
        return sum(isinstance(message, kind) for message in self.seen)


class Far:
    """The cluster: ``leader`` leads the shard, ``others`` have it too, ``distant`` has not."""

    def __init__(self) -> None:
        self.cluster = Cluster(4, Shape(shards=1, replicas=3))
        (self.distant,) = [name for name, host in self.cluster.hosts.items() if not host.shard().here]
        self.leader, *self.others = [name for name in self.cluster.hosts if name != self.distant]
        self.cluster.elect(self.leader)
        self.cluster.pass_ms(400)
        self.fates = self.cluster.fate = Fates()
        self._told = 0
        self.answers()

    @property
    def host(self) -> Host:
        """The distant node."""
        return self.cluster.hosts[self.distant]

    @property
    def shard(self) -> Shard:
        """The shard as the distant node sees it."""
        return self.host.shard()

    def write(self, text: str, at: str | None = None) -> None:
        """A client sends a command for the log, at the distant node unless told otherwise."""
        name = at or self.distant
        self.cluster.hosts[name].write(text)
        self.cluster.turn(name)

    def read(self, text: str, at: str | None = None) -> None:
        """A client sends a command that only looks."""
        name = at or self.distant
        self.cluster.hosts[name].read(text)
        self.cluster.turn(name)

    def answers(self, ms: float = 0) -> list[str]:
        """What the distant node's clients were told since the last time, after so long; errors by their code."""
        self.cluster.pass_ms(ms)
        events = [line for line in self.cluster.events if line.startswith(f"{self.distant} ") and " -> " in line]
        new, self._told = events[self._told :], len(events)
        replies = [line.partition(" -> ")[2] for line in new]
        return [reply.split()[0] if reply.startswith("-") else reply for reply in replies]

    def ask(self, text: str, ms: float = 20) -> str:
        """A write and its answer."""
        self.write(text)
        (answer,) = self.answers(ms)
        return answer

    def look(self, text: str, ms: float = 20) -> str:
        """A read and its answer."""
        self.read(text)
        (answer,) = self.answers(ms)
        return answer

    def change_leader(self, crash: bool = True) -> None:
        """The leader is lost, and another elected."""
        former = self.leader
        if crash:
            self.cluster.crash(former)
        self.leader, self.others = self.others[0], [*self.others[1:], former]
        self.cluster.elect(self.leader)
