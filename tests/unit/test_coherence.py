"""Caches of several nodes under delay, reordering, loss, cuts and pauses: every reply is explained by one order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from resp_server.session import Session
from tests.front import START_MS
from tests.simulation.findings import Verdict
from tests.simulation.linearizability import check
from tests.simulation.models import Call, Operation, Output, Register
from tests.unit.several_nodes import STEP_MS, Mail, SeveralNodes

KEYS = [b"a", b"b", b"c"]


class Slow(SeveralNodes):
    """Messages take a while, not each as long as the other, and some are lost."""

    def __init__(self, chance: Random, shards: int, nodes: int, loss: float) -> None:
        self.chance = chance
        self.loss = loss
        self.events = 0
        self.later: list[tuple[int, str, str, int, object]] = []
        super().__init__(nodes, shards)

    def _exchange(self) -> None:
        due = [one for one in self.later if one[0] <= self.now_ms]
        self.later = [one for one in self.later if one[0] > self.now_ms]
        self.chance.shuffle(due)
        for _, peer, name, number, message in due:
            if name not in self.cut and peer not in self.cut and (name, peer) not in self.cut_ways:
                self._mail[peer].append((name, number, message))  # type: ignore[arg-type]
        for name, member in self.members.items():
            if name in self.stopped:
                continue
            mail: Mail = self._mail[name]
            self._mail[name] = []
            for peer, number, message in member.turn(self.now_ms, mail):
                if self.chance.random() >= self.loss:
                    delay_ms = self.chance.choice([0, 0, 0, 0, 10, 20, 40])
                    self.later.append((self.now_ms + delay_ms, peer, name, number, message))


class User:
    """One client: a call at a time."""

    def __init__(self, world: Slow, name: str, node: str) -> None:
        self.world, self.name, self.node = world, name, node
        self.session: Session = world.connect(node)
        self.call: Call | None = None
        self.since = 0
        self.history: list[Operation] = []

    def go_on(self) -> None:
        """Takes what came, and asks something new."""
        world = self.world
        if self.node in world.stopped:
            return
        out = world.received(self.session)
        if out and self.call is not None:
            world.events += 1
            self._took(out)
            self.call = None
        if self.session in world.members[self.node].closed:
            raise AssertionError("nobody holds anything with a session here")
        if self.call is None and world.chance.random() < 0.5:
            self._ask()

    def _took(self, out: bytes) -> None:
        assert self.call is not None
        reply = _decode(out)
        if isinstance(reply, str) and reply.startswith(("-CLUSTERDOWN", "-TRYAGAIN")):
            return
        returned = None if isinstance(reply, str) and reply.startswith("-UNCERTAIN") else self.world.events
        operation = Operation(self.name, self.call, self.since, returned)
        self.history.append(operation if returned is None else operation._replace(output=reply))

    def _ask(self) -> None:
        chance, world = self.world.chance, self.world
        key = chance.choice(KEYS)
        value = b"%d" % chance.randrange(10**9)
        kind = chance.choice(self.world.kinds)  # type: ignore[attr-defined]
        args: list[bytes]
        if kind == "cached read":
            self.call, args = (b"GET", key), [b"CACHE.GET", key]
        elif kind == "cached write":
            self.call, args = (b"SET", key, value), [b"CACHE.SET", key, value]
        elif kind == "cached new":
            self.call, args = (b"SET", key, value, b"NX"), [b"CACHE.SET", key, value, b"NX"]
        elif kind == "durable":
            self.call, args = (b"SET", key, value), [b"CACHE.SET", key, value, b"SYNC"]
        elif kind == "read":
            self.call, args = (b"GET", key), [b"GET", key]
        elif kind == "write":
            self.call, args = (b"SET", key, value), [b"SET", key, value]
        elif kind == "delete":
            self.call, args = (b"DEL", key), [b"DEL", key]
        else:
            self.call, args = (b"DEL", key), [b"CACHE.EVICT", key]
        world.events += 1
        self.since = world.events
        member = world.members[self.node]
        member.node.advance(START_MS + world.now_ms, world.now_ms)  # it may have been stopped until now
        member.dispatcher.execute(self.session, [args])
        if kind == "evict":
            world.received(self.session)
            self.call = None


def _decode(out: bytes) -> Output:
    first, _, rest = out.partition(b"\r\n")
    if first[:1] == b"$":
        return None if first == b"$-1" else rest[:-2]
    if first[:1] == b":":
        return int(first[1:])
    if first == b"_":
        return None
    text = first.decode()
    return text[1:] if text[:1] == "+" else text


READS = ["cached read"] * 5
MILD = [*READS, "cached write", "cached write", "cached new", "durable", "read", "write", "delete", "evict"]
HARSH = [*READS, "durable", "durable", "read", "write", "delete", "evict"]


def live(seed: int, *, harsh: bool, steps: int = 600) -> tuple[Slow, list[Operation]]:
    """A world with clients on all nodes; everything they saw."""
    chance = Random(seed)
    world = Slow(chance, chance.choice([1, 1, 2]), chance.choice([3, 3, 4]), chance.choice([0.0, 0.02]))
    kinds = HARSH if harsh else MILD
    world.kinds = [*kinds, *READS * 3] if seed % 2 else kinds  # type: ignore[attr-defined]  # so that lines are shared
    users = [User(world, f"{node}-{number}", node) for node in world.addresses for number in range(2)]
    troubles = _troubles(world, chance, harsh=harsh)
    for _ in range(steps):
        next(troubles)
        chance.shuffle(users)
        for user in users:
            user.go_on()
        world.pass_time(STEP_MS)
    for fault in (world.cut, world.cut_ways, world.stopped):
        fault.clear()
    world.loss = 0.0
    for _ in range(400):
        world.pass_time(STEP_MS)
        for user in users:
            if user.call is not None:
                out = world.received(user.session)
                if out:
                    world.events += 1
                    user._took(out)
                    user.call = None
    for user in users:
        assert user.call is None, f"{user.name} got no answer to {user.call}"
    return world, [operation for user in users for operation in user.history]


def _troubles(world: Slow, chance: Random, *, harsh: bool) -> Iterator[None]:
    names = list(world.addresses)
    while True:
        for _ in range(chance.randrange(5, 60)):
            yield
        most_ms = 1500 if harsh else 250
        kind = chance.choice(["cut", "way", "stop", "failover"] if harsh else ["stop", "failover"])
        node = chance.choice(names)
        if kind == "cut":
            world.cut.add(node)
        elif kind == "way":
            world.cut_ways.add((node, chance.choice(names)))
        elif kind == "stop":
            world.stopped.add(node)
        else:
            shards = list(world.members[node].node.each())
            world.members[node].dispatcher.execute(world.connect(node), [[b"CLUSTER", b"FAILOVER"]])
            assert shards
        for _ in range(chance.randrange(5, most_ms // STEP_MS)):
            yield
        world.cut.clear()
        world.cut_ways.clear()
        world.stopped.clear()


@pytest.mark.parametrize("harsh", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_every_reply_is_explained_by_one_order(seed: int, harsh: bool) -> None:
    world, history = live(seed, harsh=harsh)
    if not harsh:
        assert not any(member.node.cache.traffic.leases_lost for member in world.members.values())
    report = check(history, Register())
    assert report.verdict is Verdict.LINEARIZABLE, str(report)
