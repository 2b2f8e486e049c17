"""The nodes of a scenario, the links between them, and time: all of it moves only as the script says.

Every message takes `DELAY_MS`. Everything that happens and that a reader of the
scenario wants to see becomes a line in ``events``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from cluster import wire
from cluster.raft.membership import static
from cluster.raft.messages import Message
from cluster.ring.slots import SYSTEM
from cluster.shard import Shard
from cluster.wishes import Change
from tests.scenarios.host import Asked, Host, Shape

DELAY_MS = 1.0
PATIENT = 9.0
"""Drawn by nodes that are not to stand for election soon."""


class Draw:
    """Chance that always draws ``value``: how much longer than the election timeout a node waits."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        """The same number again."""
        return self.value


Fate: TypeAlias = "Callable[[str, str, Message], Sequence[float]]"
"""From whom, to whom, what: how late each copy of a message comes; none is lost."""


def in_time(sender: str, to: str, message: Message) -> Sequence[float]:
    """As it should be."""
    return (0.0,)


class Cluster:
    """Nodes n1 … n``size`` that found a cluster together.

    What is told of leaders and members is told of the shards; the system group
    only where its members change. Of a cluster with one shard nobody says which.
    """

    def __init__(self, size: int, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()
        self.now_ms = 0.0
        self.events: list[str] = []
        self.hosts: dict[str, Host] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.fate: Fate = in_time
        self._draws: dict[str, Draw] = {}
        self._wire: list[tuple[float, str, str, bytes]] = []
        self._roles: dict[tuple[str, int], str] = {}
        self._members: dict[int, Members] = {}
        names = [f"n{number + 1}" for number in range(size)]
        config = static({name: f"{name}:1" for name in names})
        for place, name in enumerate(names):
            self._host(name, place / size).found(config)
            self.hosts[name].start(self.now_ms)
        for shard in self.hosts[names[0]].node.each():
            self._members[shard.number] = members_of(shard)

    def _host(self, name: str, patience: float) -> Host:
        self._draws[name] = Draw(patience)
        self.hosts[name] = Host(name, self._draws[name], self.events.append, self.shape)
        return self.hosts[name]

    # Time

    def pass_ms(self, ms: float) -> None:
        """Lets time pass, a millisecond at a time."""
        for _ in range(int(ms)):
            self.now_ms += 1
            self._arrive()
            for name, host in self.hosts.items():
                if host.up and not host.stopped and not host.idle(self.now_ms):
                    self.turn(name)

    def turn(self, name: str) -> None:
        """One node takes a turn."""
        host = self.hosts[name]
        host.turn(self.now_ms)
        mail: dict[tuple[str, float], list[tuple[int, Message]]] = {}
        for to, number, message in host.outbox:
            if (name, to) not in self.cuts:
                for late_ms in self.fate(name, to, message):
                    mail.setdefault((to, self.now_ms + DELAY_MS + late_ms), []).append((number, message))
        self._wire += [(at_ms, name, to, wire.encode(letters)) for (to, at_ms), letters in mail.items()]
        host.outbox.clear()
        self._look(name)

    def _arrive(self) -> None:
        due = [one for one in self._wire if one[0] <= self.now_ms]
        self._wire = [one for one in self._wire if one[0] > self.now_ms]
        for _, sender, to, data in due:
            host = self.hosts.get(to)
            if host is not None and host.up:
                host.inbox += [(sender, number, message) for number, message in wire.decode(data)]

    def _look(self, name: str) -> None:
        """Notes what became of a node, and of the cluster, in its turn."""
        node = self.hosts[name].node
        for shard in node.shards:
            role = f"leads{self._which(shard)} in term {shard.raft.term}" if shard.raft.leading is not None else ""
            if self._roles.get((name, shard.number), "") != role:
                self.events.append(f"{name} {role}" if role else f"{name} leads{self._which(shard)} no more")
                self._roles[name, shard.number] = role
        for shard in node.each():
            raft, members = shard.raft, members_of(shard)
            agreed = raft.leading is not None and raft.applied >= raft.membership.since
            if agreed and members != self._members[shard.number]:
                self.events.append(f"{name} has agreed: {self._change(shard, members)}")
                self._members[shard.number] = members

    def _which(self, shard: Shard) -> str:
        return f" shard {shard.number}" if self.shape.shards > 1 else ""

    def _change(self, shard: Shard, members: Members) -> str:
        """What a group's members are now; of the system's, who is new and who is gone."""
        voters, learners = members
        if shard.number != SYSTEM:
            more = f", soon {' '.join(learners)}" if learners else ""
            return f"shard {shard.number} on {' '.join(voters)}{more}"
        here, before = {*voters, *learners}, {*self._members[SYSTEM][0], *self._members[SYSTEM][1]}
        changes = [f"{one} is a node" for one in sorted(here - before)]
        changes += [f"{one} is no node any more" for one in sorted(before - here)]
        return ", ".join(changes) or f"the cluster's voters are {' '.join(voters)}"

    # Elections

    def leader(self, number: int = 0) -> str | None:
        """Whoever leads a shard in the latest term."""
        shards = {host.name: host.node.shards[number] for host in self._up()}
        found = [(shard.raft.term, name) for name, shard in shards.items() if shard.raft.leading is not None]
        return max(found)[1] if found else None

    def elect(self, name: str) -> None:
        """Waits until this node leads all shards it has, being the only one that loses patience.

        It is as if somebody had chosen it: it is not asked to hand over to who should lead.
        """
        numbers = [shard.number for shard in self.hosts[name].node.shards if shard.here]
        assert numbers, f"{name} has no shard it could lead"
        draws = {one: draw.value for one, draw in self._draws.items()}
        ranks = [(shard.raft, shard.raft.rank) for host in self._up() for shard in host.node.each()]
        for one, draw in self._draws.items():
            draw.value = 0.0 if one == name else PATIENT
        for raft, _ in ranks:
            raft.rank = None
        self._rest()
        for _ in range(2000):
            if all(self.leader(number) == name for number in numbers):
                break
            self.pass_ms(1)
        else:
            raise AssertionError(f"{name} is not elected: {self.leader()} leads")
        for number in numbers:
            self.hosts[name].shard(number).chosen_ms = self.now_ms
        for one, value in draws.items():
            self._draws[one].value = value
        for raft, rank in ranks:
            raft.rank = rank
        self._rest()
        self.pass_ms(10)

    def _up(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.up]

    def _rest(self) -> None:
        for host in self._up():
            host.rest(self.now_ms)

    # Faults

    def start(self, name: str) -> None:
        """A node starts, on what its disk holds, and is connected with the others."""
        host = self.hosts[name]
        host.start(self.now_ms)
        for other in self._up():
            if other is not host and not self.cuts & {(name, other.name), (other.name, name)}:
                host.node.connected(other.name)
                other.node.connected(name)
        self.turn(name)

    def crash(self, name: str) -> None:
        """The power of a node goes."""
        self.hosts[name].crash()
        self._roles = {one: role for one, role in self._roles.items() if one[0] != name}
        self._wire = [one for one in self._wire if one[2] != name]

    def cut(self, one: str, other: str | None = None, *, one_way: bool = False) -> None:
        """Cuts the links between two nodes, or of one with all others; ``one_way`` only what ``one`` sends."""
        for peer in [other] if other is not None else [name for name in self.hosts if name != one]:
            self.cuts.add((one, peer))
            if not one_way:
                self.cuts.add((peer, one))

    # Membership

    def join(self, name: str, via: str) -> None:
        """A new node asks one of the cluster to be taken in, and starts once it is."""
        host = self._host(name, PATIENT)
        agreed = len(self.events)
        self.hosts[via].node.change(Asked(f"join {name}"), Change("add", name, f"{name}:1", f"disk of {name}"))
        for _ in range(1000):
            if f'{via} join {name} -> "{name}"' in self.events[agreed:]:
                break
            self.pass_ms(1)
        host.join(self.hosts[via].node.members)
        self.start(name)

    def change(self, via: str, kind: str, name: str) -> None:
        """Somebody asks a node for a change."""
        text = {"remove": f"remove {name}", "lead": f"make {name} the leader"}[kind]
        host = self.hosts[via]
        if kind == "lead":
            host.shard().change(Asked(text), Change(kind, name))
        else:
            host.node.change(Asked(text), Change(kind, name))
        self.turn(via)


Members: TypeAlias = "tuple[tuple[str, ...], tuple[str, ...]]"
"""The voters of a group, and the learners."""


def members_of(shard: Shard) -> Members:
    """As a node knows them."""
    return shard.raft.config.voters, shard.raft.config.learners
