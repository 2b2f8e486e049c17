"""A node gets its replica of a shard, or gives it up, while its clients write, read and wait."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

import pytest

from cluster.raft.messages import Message
from tests.scenarios.cluster import Cluster, in_time
from tests.scenarios.host import Shape


class Move:
    """Three nodes with the only shard; once n4 joins, it is to be on n4 instead of ``giver``."""

    def __init__(self) -> None:
        self.cluster = Cluster(3, Shape(1, 3))
        self.cluster.pass_ms(3_000)
        leader = self.cluster.leader()
        assert leader is not None
        self.leader = leader
        self.answers: dict[str, list[str]] = {}

    @property
    def moved(self) -> bool:
        """Whether it is there, and nothing of it is where it was."""
        return self.here("n4") and any(self.gone(name) for name in ("n1", "n2", "n3"))

    def here(self, name: str) -> bool:
        return name in self.cluster.hosts and self.cluster.hosts[name].shard().here

    def gone(self, name: str) -> bool:
        shard = self.cluster.hosts[name].shard()
        return not shard.member and not shard.raft.log.last_index

    @property
    def giver(self) -> str:
        (name,) = [name for name in ("n1", "n2", "n3") if self.gone(name)]
        return name

    def pass_ms(self, ms: int) -> None:
        """Lets time pass; what clients were told is sorted by what they asked."""
        self.cluster.pass_ms(ms)
        events, self.cluster.events[:] = list(self.cluster.events), []
        for event in events:
            text, arrow, reply = event.partition(" -> ")
            if arrow and reply != "waits":
                self.answers.setdefault(text, []).append(reply)

    def write(self, name: str, text: str) -> None:
        self.cluster.hosts[name].write(text)

    def read(self, name: str, text: str) -> None:
        self.cluster.hosts[name].read(text)

    def told(self, text: str) -> list[str]:
        """What the clients of all nodes were told to a command."""
        return [reply for name in self.cluster.hosts for reply in self.answers.get(f"{name} {text}", [])]


@pytest.fixture
def move() -> Move:
    return Move()


def test_clients_of_all_nodes_notice_nothing(move: Move) -> None:
    move.write("n1", "SET x 0")
    move.pass_ms(50)
    asked = 0
    for step in range(1_000):
        if step == 20:
            move.cluster.join("n4", "n1")
        for name in move.cluster.hosts:
            move.write(name, "INCR x")
            move.read(name, "GET x")
            asked += 1
        move.pass_ms(7)
        if move.moved:
            break
    assert move.moved
    move.pass_ms(300)
    counted = [int(reply) for reply in move.told("INCR x")]
    assert sorted(counted) == list(range(1, asked + 1))
    for name in move.cluster.hosts:
        own = [int(reply) for reply in move.answers[f"{name} INCR x"]]
        assert own == sorted(own), "in order"
        seen = [int(reply.strip('"')) for reply in move.answers[f"{name} GET x"]]
        assert seen == sorted(seen), "no read is older than one before"
        assert len(seen) == len(own)


def test_who_waits_is_served_wherever_its_node_s_replica_went(move: Move) -> None:
    for name in move.cluster.hosts:
        move.write(name, f"Q.POP before:{name} BLOCK 0")
    move.pass_ms(50)
    move.cluster.join("n4", "n1")
    move.write("n4", "Q.POP before:n4 BLOCK 0")
    while not move.moved:
        move.pass_ms(50)
    for name in move.cluster.hosts:
        move.write(name, f"Q.POP after:{name} BLOCK 0")
    move.pass_ms(50)
    assert move.answers.keys() & {f"{name} Q.POP before:{name} BLOCK 0" for name in move.cluster.hosts} == set()
    for name in move.cluster.hosts:
        for queue in ("before", "after"):
            move.write(move.giver, f"Q.PUSH {queue}:{name} job")
    move.pass_ms(100)
    for name in move.cluster.hosts:
        for queue in ("before", "after"):
            (reply,) = move.answers[f"{name} Q.POP {queue}:{name} BLOCK 0"]
            assert '"job"' in reply


def test_waits_that_end_in_every_moment_of_a_move_end_once(move: Move) -> None:
    """Each node always has one session that waits, and is served a number that nobody else gets."""
    pushed = 0
    waiting = 0
    for step in range(400):
        if step == 5:
            move.cluster.join("n4", "n1")
        for name in move.cluster.hosts:
            move.write(name, "Q.POP mail BLOCK 0")
            waiting += 1
        move.pass_ms(11)
        for name in move.cluster.hosts:
            move.write(name, f"Q.PUSH mail job-{pushed}")
            pushed += 1
        move.pass_ms(11)
        if move.moved:
            break
    assert move.moved
    move.pass_ms(2_000)
    replies = move.told("Q.POP mail BLOCK 0")
    assert len(replies) == waiting == pushed
    for number in range(pushed):
        assert sum(f'"job-{number}"' in reply for reply in replies) == 1, number


def test_locks_of_sessions_stay_with_them_and_go_with_them(move: Move) -> None:
    for name in move.cluster.hosts:
        move.write(name, f"LOCK.ACQUIRE lock:{name} {name} SESSION")
    move.pass_ms(50)
    move.cluster.join("n4", "n1")
    while not move.moved:
        move.pass_ms(50)
    giver = move.giver
    shard = move.cluster.hosts[giver].shard()
    assert shard.knows_session(shard.clients.origin(1))
    shard.end_session(shard.clients.origin(1))
    move.cluster.turn(giver)
    move.pass_ms(50)
    held = [name for name in ("n1", "n2", "n3") if name != giver]
    for name in held:
        move.read("n4", f"LOCK.INFO lock:{name}")
    move.read("n4", f"LOCK.INFO lock:{giver}")
    move.pass_ms(50)
    for name in held:
        assert f"b'owner': b'{name}'" in move.answers[f"n4 LOCK.INFO lock:{name}"][0]
    assert "b'free'" in move.answers[f"n4 LOCK.INFO lock:{giver}"][0]


def test_a_node_that_gave_its_replica_up_starts_again_without_it(move: Move) -> None:
    move.write("n1", "SET x 1")
    move.pass_ms(50)
    move.cluster.join("n4", "n1")
    while not move.moved:
        move.pass_ms(50)
    giver = move.giver
    move.cluster.crash(giver)
    move.cluster.start(giver)
    assert move.gone(giver)
    move.pass_ms(400)
    move.write(giver, "INCR x")
    move.pass_ms(30)
    assert move.answers[f"{giver} INCR x"] == ["2"]
    assert move.gone(giver), "it is not voted for, and votes for nobody"


def test_it_gets_the_replica_again_later(move: Move) -> None:
    move.write("n1", "SET x 1")
    move.cluster.join("n4", "n1")
    while not move.moved:
        move.pass_ms(50)
    giver = move.giver
    move.write(giver, "INCR x")
    move.pass_ms(30)
    move.cluster.change("n2", "remove", "n4")
    for _ in range(200):
        move.pass_ms(50)
        if move.here(giver) and "n2 remove n4" in move.answers:
            break
    assert move.answers["n2 remove n4"] == ["OK"]
    move.pass_ms(200)
    assert move.cluster.hosts[giver].shard().machine.keyspace.values == {b"x": b"2"}
    move.write(giver, "INCR x")
    move.pass_ms(30)
    assert move.answers[f"{giver} INCR x"] == ["2", "3"]


def test_a_removed_node_ends_what_is_under_way_and_takes_nothing_more(move: Move) -> None:
    """It would not hear what became of that: the others part with it."""
    move.cluster.join("n4", "n1")
    while not move.moved:
        move.pass_ms(50)
    giver = move.giver
    move.cluster.change("n4", "remove", giver)
    asked = 0
    while asked < 1_000 and "-CLUSTERDOWN no leader for shard 0" not in move.told("INCR x"):
        move.write(giver, "INCR x")
        asked += 1
        move.pass_ms(7)
    move.pass_ms(10_000)
    assert move.answers[f"n4 remove {giver}"] == ["OK"]
    *counted, last = move.answers[f"{giver} INCR x"]
    assert counted == [str(number) for number in range(1, asked)]
    assert last == "-CLUSTERDOWN no leader for shard 0"


# Whatever the network does


class Trouble:
    """Messages are lost, doubled and late, links are cut, and one node at a time is down."""

    def __init__(self, cluster: Cluster, chance: Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._down: dict[str, float] = {}
        cluster.fate = self._fate

    def _fate(self, sender: str, to: str, message: Message) -> Sequence[float]:
        drawn = self._chance.random()
        if drawn < 0.03:
            return ()
        if drawn < 0.06:
            return (0.0, self._chance.uniform(0, 400))
        return (self._chance.uniform(0, 30),) if drawn < 0.2 else (0.0,)

    def step(self, step: int) -> None:
        """What goes wrong in this step."""
        cluster, chance = self._cluster, self._chance
        if step % 100 == 99:
            cluster.cuts.clear()
            cluster.cut(*chance.sample(sorted(cluster.hosts), 2), one_way=chance.random() < 0.5)
        if step % 150 == 149 and not self._down:
            name = chance.choice([name for name, host in cluster.hosts.items() if host.up])
            cluster.crash(name)
            self._down[name] = cluster.now_ms + chance.uniform(0, 900)
        self._start(cluster.now_ms)

    def end(self) -> None:
        """All is well from here on."""
        self._cluster.cuts.clear()
        self._cluster.fate = in_time
        self._start(float("inf"))

    def _start(self, now_ms: float) -> None:
        for name in [name for name, at_ms in self._down.items() if at_ms <= now_ms]:
            del self._down[name]
            self._cluster.start(name)


@pytest.mark.parametrize("seed", range(6))
def test_no_answer_is_wrong_whatever_goes_wrong(seed: int) -> None:
    """An answer is right, or says that it may have happened, or that it did not: then it did not."""
    chance = Random(seed)
    move = Move()
    hosts = move.cluster.hosts
    trouble = Trouble(move.cluster, chance)
    asked = 0
    for step in range(900):
        if step == 50:
            move.cluster.join("n4", "n1")
        for name, host in hosts.items():
            if host.up and chance.random() < 0.3:
                move.write(name, "INCR all")
                move.write(name, f"INCR one:{asked}")
                asked += 1
        trouble.step(step)
        move.pass_ms(10)
    trouble.end()
    move.pass_ms(8_000)
    leader = move.cluster.leader()
    assert leader is not None
    values = hosts[leader].shard().machine.keyspace.values
    counts = [int(reply) for reply in move.told("INCR all") if not reply.startswith("-")]
    assert len(counts) == len(set(counts)) > 200, "no count twice"
    for number in range(asked):
        happened, (reply, *more) = values.get(b"one:%d" % number), [*move.told(f"INCR one:{number}"), "nothing"]
        assert more in ([], ["nothing"])
        assert (reply.split()[0], happened) in RIGHT, f"{number}: {reply}"


RIGHT = {
    ("1", b"1"),
    ("-UNCERTAIN", None),
    ("-UNCERTAIN", b"1"),
    ("-CLUSTERDOWN", None),
    ("nothing", None),  # its node crashed
    ("nothing", b"1"),
}


@pytest.mark.parametrize("seed", range(5, 9))
def test_nobody_waits_for_ever_whatever_goes_wrong(seed: int) -> None:
    """Every wait ends, every message goes to one of those who wait, and no node remembers a wait that is over."""
    chance = Random(seed)
    move = Move()
    hosts = move.cluster.hosts
    trouble = Trouble(move.cluster, chance)
    for step in range(900):
        if step == 50:
            move.cluster.join("n4", "n1")
        for name, host in hosts.items():
            if host.up and chance.random() < 0.15:
                move.write(name, f"Q.POP {chance.choice('ab')} BLOCK {chance.choice([50, 700, 2_500])}")
            if host.up and chance.random() < 0.12:
                move.write(name, f"Q.PUSH {chance.choice('ab')} job-{step}-{name}")
        trouble.step(step)
        move.pass_ms(10)
    trouble.end()
    move.pass_ms(12_000)
    assert [text for host in hosts.values() for text in host.waiting] == []
    for host in hosts.values():
        assert len(host.shard().clients.outstanding) == 0
        assert len(host.shard().machine.waiters) == 0
        assert not host.node.busy
    replies = [reply for text, told in move.answers.items() if " Q.POP " in text for reply in told]
    jobs = [job for reply in replies for job in re.findall(r'"(job-\S+)", ', reply)]
    assert len(jobs) == len(set(jobs)) > 100
