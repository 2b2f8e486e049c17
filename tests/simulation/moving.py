"""Situations of shards that are not on every node, set up by hand: as scripts.py, where ``d`` has no replica."""

from __future__ import annotations

from unittest.mock import patch

from cluster.machine.reply import OK
from cluster.raft.membership import Member
from cluster.ring.slots import SYSTEM
from cluster.storage import StorageError
from cluster.wishes import Change
from tests.simulation.clients import FOR_EVER_MS
from tests.simulation.network import Weather
from tests.simulation.process import Process
from tests.simulation.scripts import Play, Script, read_from_the_unsettled
from tests.simulation.simulation import ONE, Shape
from tests.simulation.world import MS, SECOND, Violation

ON_THREE = Shape(shards=1, replicas=3)
ON_ONE = Shape(shards=1, replicas=1)

WAITS = ("PX", FOR_EVER_MS.decode(), "BLOCK")


def _add(script: Script, node: Process) -> None:
    """The leader takes the node in, in a new term if it was removed in this one."""
    if not script.leading().may_add(node.name):
        leader = script.leader()
        script.raft(leader).renew()
        script.stir(leader)
    script.until(lambda: script.leads_one() and script.leading().may_change())
    script.configure(script.raft(script.leader()).config.with_learner(Member(node.name, "")))


def _until_voter(script: Script, node: Process) -> None:
    script.until(lambda: node.name in script.raft(script.leader()).config.voters and script.leading().may_change())


def _remove(script: Script, node: Process) -> None:
    """The leader lets the node go, which empties its replica."""
    script.until(lambda: script.leading().may_change())
    script.configure(script.raft(script.leader()).config.without(node.name))
    script.until(lambda: script.raft(node).log.last_index == 0, 15 * SECOND)


def vote_of_one_given_up(script: Script) -> None:
    """One that misses two changes asks somebody for its vote who gave its replica up, and is at the log's begin again.

    By what that one has of the log it is a voter, as it was once, and the other has as much.
    """
    a, b, c, d = script.a, script.b, script.c, script.others[0]
    script.call(a, "SET", "r", "1")
    d.disk.least_us = SECOND
    _add(script, d)
    begun = script.raft(a).log.last_index
    script.until(lambda: script.raft(b).log.saved_index >= begun)
    script.isolate(b)
    d.disk.least_us = 0
    _until_voter(script, d)
    script.call(a, "SET", "r", "2")
    _remove(script, c)
    script.call(a, "SET", "r", "3")
    c.crash()
    script.simulation.start(c)
    script.run(600)
    with patch("cluster.raft.leading.APPEND_BYTES_MAX", 1), patch("cluster.raft.progress.IN_FLIGHT_APPENDS_MAX", 1):
        script.weather(a, c, Weather(delay_us=0, least_us=60 * MS))
        _add(script, c)
        script.until(lambda: script.raft(c).log.saved_index == script.raft(b).log.last_index)
        script.heal()
        script.cut(*[pair for one in (a, d) for other in (b, c) for pair in ((one, other), (other, one))])
        c.crash()
        script.simulation.start(c)
        script.run(400)
        script.stands(b)
        script.run(1500)


def replayed_alone(script: Script) -> None:
    """One that had the shard alone once, gets it again, and restarts when its log says so again."""
    a = script.a
    b = script.b
    script.call(a, "SET", "r", "1")
    _add(script, b)
    _until_voter(script, b)
    for number in range(10):
        script.call(a, "SET", "r", f"with{number}")
    script.hand_over(b)
    _remove(script, a)
    script.call(b, "SET", "r", "without")
    with patch("cluster.raft.leading.APPEND_BYTES_MAX", 1), patch("cluster.raft.progress.IN_FLIGHT_APPENDS_MAX", 1):
        script.weather(b, a, Weather(delay_us=0, least_us=20 * MS))
        _add(script, a)
        script.until(lambda: script.raft(a).config.voters == (a.name,))
        script.run(5)
        a.crash()
        script.isolate(a)
        script.simulation.start(a)
        script.run(2000)
    script.heal()
    script.run(1000)


def added_again(script: Script) -> None:
    """What one said before it was removed comes when it is a member again, and has nothing."""
    a, c = script.a, script.c
    for number in range(8):
        script.call(a, "SET", "r", f"v{number}")
    script.run(300)
    script.weather(c, a, Weather(delay_us=0, least_us=4 * SECOND, ordered=False))
    script.call(a, "SET", "r", "acknowledged late")
    script.run(200)
    script.weather(c, a, script.network.fair)
    _remove(script, c)
    with patch("cluster.raft.leading.APPEND_BYTES_MAX", 1):
        script.cut((a, c))
        _add(script, c)
        script.run(4000)
        script.heal()
        script.run(500)


def removed_from_a_log(script: Script) -> None:
    """One that is a member again comes to where its log says that it was removed, and hears no leader for a while."""
    a, d = script.a, script.others[0]
    _add(script, d)
    _until_voter(script, d)
    _remove(script, d)
    for number in range(20):
        script.call(a, "SET", "r", f"v{number}")
    with patch("cluster.raft.leading.APPEND_BYTES_MAX", 1), patch("cluster.raft.progress.IN_FLIGHT_APPENDS_MAX", 1):
        script.weather(a, d, Weather(delay_us=0, least_us=40 * MS))
        _add(script, d)
        script.until(lambda: script.raft(d).membership.left(d.name))
        script.run(300)
        script.isolate(d)
        script.run(2000)
    script.heal()
    script.run(500)


def emptied_by_a_slow_disk(script: Script) -> None:
    """One is removed, and hears of it, long before its disk has the last of the log."""
    c = script.c
    c.disk.least_us = 9 * SECOND
    script.until(lambda: script.leading().may_change())
    script.configure(script.raft(script.leader()).config.without(c.name))
    script.run(8500)
    c.disk.least_us = 0
    script.until(lambda: script.raft(c).log.last_index == 0, 15 * SECOND)


def emptied_late(script: Script) -> None:
    """A replica cannot be emptied for a while, and its node is a member again by then, and is sent a snapshot."""
    a, c = script.a, script.c
    full = StorageError("no space left", definite=True)
    with patch("tests.simulation.keeping.give_up", side_effect=full):
        script.configure(script.raft(a).config.without(c.name))
        script.run(2000)
        for number in range(10):
            script.call(a, "SET", "r", f"v{number}")
        script.checkpoint(a)
        _add(script, c)
        script.run(2500)
    script.run(3000)


def founder_without_a_disk(script: Script) -> None:
    """One that founded the shard begins anew with an empty disk, and so does another, which joined again as it should.

    The shard is elsewhere by then; both are cut off from those who know.
    """
    a, b, c, d = script.a, script.b, script.c, script.others[0]
    simulation = script.simulation
    script.call(a, "SET", "r", "1")
    _add(script, d)
    _until_voter(script, d)
    _remove(script, c)
    script.change(a, Change("remove", c.name))
    script.until(lambda: c.name not in a.raft(SYSTEM).config, 15 * SECOND)
    c.crash()
    simulation.give_new_disk(c)
    script.change(a, Change("add", c.name, f"{c.name}:1", c.disk.id))
    script.until(lambda: c.name in a.raft(SYSTEM).config)
    assert a.node is not None
    simulation.join(c.name, c.disk.id, a.node.members)
    script.run(1000)
    script.call(a, "SET", "r", "kept")
    script.cut(*[pair for one in (a, d) for other in (b, c) for pair in ((one, other), (other, one))])
    b.crash()
    script.run(1500)
    simulation.give_new_disk(b)
    simulation.pretend(b)
    script.run(2500)
    b.crash()


def session_on_the_move(script: Script) -> None:
    """Who waits at a node that gives its replica up is told how the wait ends."""
    a, c = script.a, script.c
    script.call(a, "LOCK.ACQUIRE", "l", "holder", "PX", FOR_EVER_MS.decode())
    waiting = script.send(c, "LOCK.ACQUIRE", "l", "waiter", *WAITS, "0")
    script.until(lambda: waiting.waits)
    _remove(script, c)
    script.call(a, "LOCK.RELEASE", "l", "holder")
    script.run(3000)
    if not isinstance(waiting.output, int):
        raise Violation("a wait ends", f"{waiting} got {waiting.output!r}")


def end_of_another_wait(script: Script) -> None:
    """That a wait has ended is told twice, and the second time when the session waits again."""
    a, d = script.a, script.others[0]
    script.call(a, "LOCK.ACQUIRE", "l", "holder", "PX", FOR_EVER_MS.decode())
    typist = script.typist()
    script.weather(a, d, Weather(double=1.0, late_us=600 * MS, ordered=False))
    for number in range(6):
        short = script.send(d, "LOCK.ACQUIRE", "l", f"short{number}", *WAITS, "20", typist=typist)
        script.until(lambda short=short: short.done)  # type: ignore[misc]
    waiting = script.send(d, "LOCK.ACQUIRE", "l", "waiter", *WAITS, "0", typist=typist)
    script.run(1500)
    if waiting.done:
        raise Violation("a wait without limit", f"{waiting} ended with {waiting.output!r}")
    script.heal()
    script.call(a, "LOCK.RELEASE", "l", "holder")
    script.until(lambda: waiting.done)


def asked_of_the_next(script: Script) -> None:
    """A leader carries out what one without a replica asked, and is lost before it has said so."""
    a, b, d = script.a, script.b, script.others[0]
    script.cut((a, d))
    sent = script.send(d, "INCR", "c")
    before = script.raft(b).applied
    script.until(lambda: script.raft(b).applied > before)
    script.run(120)
    a.crash()
    script.elect(b)
    script.until(lambda: sent.done)
    script.simulation.start(a)
    if sent.output != 1:
        raise Violation("its own outcome", f"{sent} got {sent.output!r}")


def asked_of_one_that_forgot(script: Script) -> None:
    """As `asked_of_the_next`, and the next one knows what came of it from a checkpoint only."""
    a, b, d = script.a, script.b, script.others[0]
    script.cut((a, d))
    sent = script.send(d, "INCR", "c")
    before = script.raft(b).applied
    script.until(lambda: script.raft(b).applied > before)
    script.run(120)
    script.checkpoint(b)
    b.crash()
    script.simulation.start(b)
    script.run(400)
    a.crash()
    script.elect(b)
    script.until(lambda: sent.done, 8 * SECOND)
    script.simulation.start(a)


def told_late_that_never(script: Script) -> None:
    """That a batch never happened is told twice, and the second time when it was sent again and carried out."""
    a, b, d = script.a, script.b, script.others[0]
    script.cut((d, a))
    sent = script.send(d, "SET", "r", "v-told")
    outstanding = d.shard(0).clients.outstanding
    script.until(lambda: outstanding.oldest is not None)
    batch = outstanding.oldest
    assert batch is not None
    first = batch.term
    script.isolate(a)
    script.weather(b, d, Weather(double=1.0, late_us=400 * MS, ordered=False))
    script.elect(b)
    script.until(lambda: batch.term > first)
    script.cut(*[(one, d) for one in (a, b, script.c)])
    script.until(lambda: sent.done, 10 * SECOND)
    script.heal()
    script.run(500)


def looks_of_the_deposed(script: Script) -> None:
    """A leader that has lost its office without hearing of it is asked by one without a replica, who has not either."""
    a, b, c, d = script.a, script.b, script.c, script.others[0]
    script.call(a, "SET", "r", "old")
    script.cut((a, b), (b, a), (a, c), (c, a), (b, d), (c, d))
    script.elect(b)
    script.ask(b, "SET", "r", "new")
    script.run(20)
    for _ in range(20):
        script.ask(d, "GET", "r")
        script.run(2)
    script.run(300)


def looks_at_the_unsettled(script: Script) -> None:
    """A new leader, which does not know yet what is committed, is asked by one without a replica."""
    read_from_the_unsettled(script, script.others[0])


def reads_behind_writes(script: Script) -> None:
    """A write of one without a replica is lost on the way, and a read behind it is not."""
    a, d = script.a, script.others[0]
    script.call(a, "SET", "r", "old")
    script.run(300)
    typist = script.typist()
    script.cut((d, a))
    typist.ask(d, "SET", "r", "vnew")
    script.run(5)
    script.heal()
    typist.ask(d, "GET", "r")
    script.run(1000)


def late_report(script: Script) -> None:
    """That a shard is where it was is reported when it is elsewhere by then."""
    a, b, c, d = script.a, script.b, script.c, script.others[0]
    script.hand_over_system(d)
    script.run(400)
    script.cut((a, d), (d, a))
    script.configure(script.raft(a).config.without(c.name))
    script.run(600)
    script.hand_over(b)
    script.until(lambda: script.leading().may_change())
    script.configure(script.raft(b).config.with_learner(Member(c.name, "")))
    script.run(2500)
    script.heal()
    script.run(4000)


def leaders_wished(script: Script) -> None:
    """One without a replica is asked for one leader, and then for another."""
    b, c, d = script.b, script.c, script.others[0]
    first = script.wish(d, Change("lead", b.name))
    second = script.wish(d, Change("lead", c.name))
    script.run(2000)
    if first.replies != [OK] or second.replies != [OK]:
        raise Violation("told", f"{d} says {first.replies} and {second.replies}")


def joined_while_paused(script: Script) -> None:
    """A node joins while nothing is to be moved."""
    a = script.a
    script.simulation.by_hand = False
    script.change(a, Change("add", "n9", "n9:1", "d9"))
    script.until(lambda: "n9" in a.raft(SYSTEM).config)
    assert a.node is not None
    script.simulation.join("n9", "d9", a.node.members)
    script.run(6000)


MOVING: tuple[Play, ...] = (
    vote_of_one_given_up,
    replayed_alone,
    added_again,
    removed_from_a_log,
    emptied_by_a_slow_disk,
    emptied_late,
    founder_without_a_disk,
    session_on_the_move,
    end_of_another_wait,
    asked_of_the_next,
    asked_of_one_that_forgot,
    told_late_that_never,
    looks_of_the_deposed,
    looks_at_the_unsettled,
    reads_behind_writes,
    late_report,
    leaders_wished,
    joined_while_paused,
)
"""All of them."""

SHAPES: dict[Play, Shape] = {replayed_alone: ON_ONE, joined_while_paused: ONE}
"""Those of clusters in which the shard is not on three nodes."""
