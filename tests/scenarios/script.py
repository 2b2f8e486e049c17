"""The language of the scenarios.

A scenario is a text. Lines that begin with ``#`` are for the reader, those
with ``>`` are commands, and what follows a command is what came of it, line by
line: who leads, what clients were answered, who joined or left.

======================================  ==========================================================================
``start 3``                             three nodes n1 n2 n3, which found a cluster together, with one shard
``start 5, 4 shards, 2 replicas``       one of another shape
``elect n1``                            n1 loses patience first, time passes until it leads
``write n2 SET x 1``                    a client of n2 sends a command for the log (nothing happens until time passes)
``read n2 GET x``                       a client of n2 sends one that only looks
``pass 20ms``                           time passes
``cut n1``, ``cut n1 n2``               cuts n1 off from all, or from n2
``cut n1 -> n2``                        what n1 sends does not reach n2 any more
``heal``                                all links work again
``crash n1``, ``start n1``              the power of n1 goes; it comes back
``stop n1``, ``continue n1``            n1 does not move, as after SIGSTOP; it does again
``disk n1 slow|full|broken|quick``      commits do not end; fail; fail without saying whether; work again
``checkpoint n1``                       n1 writes a checkpoint and forgets the log behind it
``join n4 via n1``                      a new node asks n1 to be taken in
``remove n3 via n2``                    somebody asks n2 to remove n3
``transfer n3 via n2``                  somebody asks n2 to make n3 the leader
``where n3``                            says where each shard is, as far as n3 knows
``expect leader n2``                    n2 leads, and n1 and n3 know it if they are up and can be reached
``expect no leader``                    nobody leads
``expect n2 SET x 1 -> OK``             that was (the beginning of) a line so far
``expect no n2 SET x 1``                there was no such line so far
``expect agreement``                    all nodes that are up have the same keys, of the same log
======================================  ==========================================================================

`run` gives the text back with what came of it this time; ``python -m tests.scenarios.rewrite`` writes that into
the files. An ``expect`` that does not hold is an error either way.
"""

from __future__ import annotations

from cluster.machine.machine import Machine
from cluster.status import ring_of
from tests.scenarios.cluster import Cluster
from tests.scenarios.host import Shape


class Unexpected(AssertionError):
    """Something that a scenario expects is not so."""


class Script:
    """One run of one scenario."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._history: list[str] = []

    @property
    def cluster(self) -> Cluster:
        """The nodes, once they were started."""
        assert self._cluster is not None, "a scenario begins with start"
        return self._cluster

    def run(self, text: str) -> str:
        """Carries out every command of a scenario; its text, with what came of each."""
        lines: list[str] = []
        for line in text.splitlines():
            if line.startswith(">"):
                lines += [line, *self._execute(line[1:].strip())]
            elif not line or line.startswith("#"):
                lines.append(line)
        return "\n".join(lines) + "\n"

    def _execute(self, command: str) -> list[str]:
        name, _, rest = command.partition(" ")
        try:
            getattr(self, f"do_{name}")(rest)
        except Exception as error:
            error.add_note(f"in: > {command}")
            raise
        events = list(self.cluster.events)
        self.cluster.events.clear()
        self._history += events
        return events

    # Commands: each is given what follows its name

    def do_start(self, rest: str) -> None:
        """How many nodes, with how many shards and replicas of each unless it is the usual; or which one again."""
        if rest[0].isdecimal():
            size, *more = rest.split(", ")
            shape = {what.rstrip("s"): int(count) for count, what in map(str.split, more)}
            self._cluster = Cluster(int(size), Shape(shards=shape.get("shard", 1), replicas=shape.get("replica", 3)))
        else:
            self.cluster.start(rest)

    def do_elect(self, rest: str) -> None:
        """Whom."""
        self.cluster.elect(rest)

    def do_write(self, rest: str) -> None:
        """At which node, what."""
        name, _, text = rest.partition(" ")
        self.cluster.hosts[name].write(text)
        self.cluster.turn(name)

    def do_read(self, rest: str) -> None:
        """At which node, what."""
        name, _, text = rest.partition(" ")
        self.cluster.hosts[name].read(text)
        self.cluster.turn(name)

    def do_pass(self, rest: str) -> None:
        """How long."""
        self.cluster.pass_ms(int(rest.removesuffix("ms")))

    def do_cut(self, rest: str) -> None:
        """Whom, from whom, and whether one way only."""
        one, _, other = rest.replace(" -> ", " ").partition(" ")
        self.cluster.cut(one, other or None, one_way="->" in rest)

    def do_heal(self, rest: str) -> None:
        """Everything."""
        self.cluster.cuts.clear()

    def do_crash(self, rest: str) -> None:
        """Whom."""
        self.cluster.crash(rest)

    def do_stop(self, rest: str) -> None:
        """Whom."""
        self.cluster.hosts[rest].stopped = True

    def do_continue(self, rest: str) -> None:
        """Whom."""
        self.cluster.hosts[rest].stopped = False

    def do_disk(self, rest: str) -> None:
        """Whose, how it is from now on."""
        name, state = rest.split()
        host = self.cluster.hosts[name]
        if state == "quick":
            host.mend()
            self.cluster.turn(name)
        host.disk = state

    def do_checkpoint(self, rest: str) -> None:
        """Whose."""
        self.cluster.events.append(f"{rest} has a checkpoint of {self.cluster.hosts[rest].checkpoint()}")

    def do_join(self, rest: str) -> None:
        """Whom, whom it asks."""
        name, via = rest.split(" via ")
        self.cluster.join(name, via)

    def do_remove(self, rest: str) -> None:
        """Whom, who is asked."""
        name, via = rest.split(" via ")
        self.cluster.change(via, "remove", name)

    def do_transfer(self, rest: str) -> None:
        """To whom, who is asked."""
        name, via = rest.split(" via ")
        self.cluster.change(via, "lead", name)

    def do_where(self, rest: str) -> None:
        """Each shard, as that node sees it."""
        for row in ring_of(self.cluster.hosts[rest].node):
            moving = f", moving {' '.join(row.moving)}" if row.moving else ""
            self.cluster.events.append(f"shard {row.shard} on {' '.join(row.nodes)}, led by {row.leader}{moving}")

    # Expectations

    def do_expect(self, rest: str) -> None:
        """What must be so, or must have been said."""
        if rest == "agreement":
            self._expect_agreement()
        elif rest == "no leader":
            _expect(self.cluster.leader() is None, f"{self.cluster.leader()} leads")
        elif rest.startswith("leader "):
            self._expect_leader(rest.removeprefix("leader "))
        elif rest.startswith("no "):
            found = [line for line in self._history if line.startswith(rest.removeprefix("no "))]
            _expect(not found, f"there was: {found}")
        else:
            _expect(any(line.startswith(rest) for line in self._history), "nobody said so")

    def _expect_leader(self, name: str) -> None:
        cluster = self.cluster
        _expect(cluster.leader() == name, f"{cluster.leader()} leads")
        for other, host in cluster.hosts.items():
            if host.up and not host.stopped and cluster.cuts.isdisjoint({(name, other), (other, name)}):
                leader = host.shard().leader
                _expect(leader == name or other not in cluster.hosts[name].node.members, f"{other} follows {leader}")

    def _expect_agreement(self) -> None:
        up = [host for host in self.cluster.hosts.values() if host.up]
        for number in range(self.cluster.shape.shards):
            shards = {host.name: host.shard(number) for host in up if host.shard(number).member}
            applied = {name: shard.applied_index for name, shard in shards.items()}
            _expect(len(set(applied.values())) == 1, f"carried out of shard {number}: {applied}")
            kept = {name: contents(shard.machine) for name, shard in shards.items()}
            _expect(len(set(kept.values())) == 1, f"kept of shard {number}: {kept}")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Unexpected(otherwise)


def contents(machine: Machine) -> tuple[tuple[bytes, object], ...]:
    """Every key of a machine, in order, with all that a checkpoint would hold of it."""
    found: list[tuple[bytes, object]] = []
    for key, value in sorted(machine.keyspace.values.items()):
        if isinstance(value, bytes | int):
            found.append((key, value))
        else:
            found.append((key, (value.header(), tuple((part, value.part(part)) for part in sorted(value.parts())))))
    return tuple(found)
