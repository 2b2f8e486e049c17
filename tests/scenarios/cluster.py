"""The nodes of a scenario, the links between them, and time: all of it moves only as the script says.

Every message takes `DELAY_MS`. Everything that happens and that a reader of the
scenario wants to see becomes a line in ``events``.
"""

from __future__ import annotations

from cluster import wire
from cluster.raft.membership import Config, static
from cluster.wishes import Change
from tests.scenarios.host import Asked, Host

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


class Cluster:
    """Nodes n1 … n``size`` that found a cluster together."""

    def __init__(self, size: int) -> None:
        self.now_ms = 0.0
        self.events: list[str] = []
        self.hosts: dict[str, Host] = {}
        self.cuts: set[tuple[str, str]] = set()
        self._draws: dict[str, Draw] = {}
        self._wire: list[tuple[float, str, str, bytes]] = []
        self._roles: dict[str, str] = {}
        self._members: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        names = [f"n{number + 1}" for number in range(size)]
        config = static({name: f"{name}:1" for name in names})
        for place, name in enumerate(names):
            self._host(name, place / size).found(config)
            self.hosts[name].start(self.now_ms)
        self._members = (config.voters, ())

    def _host(self, name: str, patience: float) -> Host:
        self._draws[name] = Draw(patience)
        self.hosts[name] = Host(name, self._draws[name], self.events.append)
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
        for to, message in host.outbox:
            if (name, to) not in self.cuts:
                self._wire.append((self.now_ms + DELAY_MS, name, to, wire.encode(message)))
        host.outbox.clear()
        self._look(name)

    def _arrive(self) -> None:
        due = [one for one in self._wire if one[0] <= self.now_ms]
        self._wire = [one for one in self._wire if one[0] > self.now_ms]
        for _, sender, to, data in due:
            host = self.hosts.get(to)
            if host is not None and host.up:
                host.inbox.append((sender, wire.decode(data)))

    def _look(self, name: str) -> None:
        """Notes what became of a node, and of the cluster, in its turn."""
        raft = self.hosts[name].node.raft
        role = f"leads in term {raft.term}" if raft.leading is not None else ""
        if self._roles.get(name, "") != role:
            self.events.append(f"{name} {role}" if role else f"{name} leads no more")
            self._roles[name] = role
        members = (raft.config.voters, raft.config.learners)
        if raft.leading is not None and raft.applied >= raft.membership.since and members != self._members:
            self._members = members
            learners = f", learners {' '.join(members[1])}" if members[1] else ""
            self.events.append(f"{name} has agreed: voters {' '.join(members[0])}{learners}")

    # Elections

    def leader(self) -> str | None:
        """Whoever leads in the latest term."""
        found = [(host.node.term, name) for name, host in self.hosts.items() if host.up and host.node.raft.leading]
        return max(found)[1] if found else None

    def elect(self, name: str) -> None:
        """Waits until this node leads, being the only one that loses patience."""
        draws = {one: draw.value for one, draw in self._draws.items()}
        for one, draw in self._draws.items():
            draw.value = 0.0 if one == name else PATIENT
        for host in self.hosts.values():
            if host.up:
                host.rest(self.now_ms)
        for _ in range(2000):
            if self.leader() == name:
                break
            self.pass_ms(1)
        else:
            raise AssertionError(f"{name} is not elected: {self.leader()} leads")
        for one, value in draws.items():
            self._draws[one].value = value
        for host in self.hosts.values():
            if host.up:
                host.rest(self.now_ms)
        self.pass_ms(10)

    # Faults

    def crash(self, name: str) -> None:
        """The power of a node goes."""
        self.hosts[name].crash()
        self._roles.pop(name, None)
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
        config: Config = self.hosts[via].node.members
        host.start(self.now_ms, config)
        self.turn(name)

    def change(self, via: str, kind: str, name: str) -> None:
        """Somebody asks a node for a change."""
        text = {"remove": f"remove {name}", "lead": f"make {name} the leader"}[kind]
        self.hosts[via].node.change(Asked(text), Change(kind, name))
        self.turn(via)
