"""Situations of caches, set up by hand: as scripts.py."""

from __future__ import annotations

from cluster.machine import caches
from cluster.node import Node
from tests.simulation.network import Weather
from tests.simulation.process import Process
from tests.simulation.scripts import Play, Script
from tests.simulation.sessions import Op
from tests.simulation.world import MS, SECOND, Violation

LEASE_MS = 500
PASSED_ON_US_MAX = 9 * SECOND
"""A token lives longer, but its session does not."""


def _node(process: Process) -> Node:
    assert process.node is not None
    return process.node


def _holds(script: Script, process: Process, key: str) -> None:
    """The process has a line, and reads it."""
    script.call(process, "CACHE.GET", key)
    script.run(30)
    script.call(process, "CACHE.GET", key)


def _holds_old(script: Script, process: Process, key: str = "r") -> None:
    """The key is "old" in memory, and in a line of the process."""
    script.call(script.a, "SET", key, "old")
    _holds(script, process, key)


def _goes_on_reading(script: Script, process: Process, key: str, ms: int) -> None:
    """Somebody else reads there now and then."""
    for _ in range(ms // 20):
        script.ask(process, "CACHE.GET", key)
        script.run(20)


def holder_cut_off(script: Script) -> None:
    """A node that holds a line is cut off; somebody writes, and it is read on both sides."""
    a, c = script.a, script.c
    _holds_old(script, c)
    script.isolate(c)
    script.ask(a, "SET", "r", "new")
    _goes_on_reading(script, c, "r", 3 * LEASE_MS)


def renewed_late(script: Script) -> None:
    """What a leader says of leases is on its way for long, and then it says no more."""
    a, c = script.a, script.c
    _holds_old(script, c)
    script.weather(a, c, Weather(delay_us=0, least_us=300 * MS))
    script.run(LEASE_MS)
    script.cut((a, c), (c, a))
    script.ask(a, "SET", "r", "new")
    _goes_on_reading(script, c, "r", 3 * LEASE_MS)


def closed_and_back(script: Script) -> None:
    """A node was cut off until its cache was closed, and comes back."""
    a, c = script.a, script.c
    _holds_old(script, c)
    script.isolate(c)
    script.call(a, "SET", "r", "new")
    script.heal()
    script.run(LEASE_MS // 2)
    _goes_on_reading(script, c, "r", LEASE_MS)


def written_at_another(script: Script) -> None:
    """What a cache took, and memory has not yet, is asked for at a new leader."""
    a, b, c = script.a, script.b, script.c
    _holds_old(script, c)
    script.call(c, "CACHE.SET", "r", "new")
    script.cut((c, a), (b, a), (a, b), (a, c))
    script.ask(b, "GET", "r")
    script.elect(b)
    script.run(500)
    script.call(b, "GET", "r")


def lines_of_a_former_leader(script: Script) -> None:
    """A leader has lines of its own, and is cut off; another is elected, and writes."""
    a, b = script.a, script.b
    _holds_old(script, a)
    script.isolate(a)
    script.stands(b)
    script.until(lambda: script.leads(b))
    script.call(b, "SET", "r", "new")
    _goes_on_reading(script, a, "r", LEASE_MS)


def asked_late(script: Script) -> None:
    """A leader is stopped in a turn before it reads what clients ask; another is elected, and writes."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "SET", "r", "old")
    script.call(c, "CACHE.SET", "s", "owned")  # reads have to be looked at
    a.late_us = 4 * SECOND
    script.until(lambda: script.leads(b) or script.leads(c))
    script.call(b if script.leads(b) else c, "SET", "r", "new")
    op = script.send(a, "GET", "r")
    script.until(lambda: op.done)


def several_asked_late(script: Script) -> None:
    """As `asked_late`, of a node that has the line of one key, and waits for that of another."""
    a, c = script.a, script.c
    _holds_old(script, c)
    c.late_us = 4 * SECOND
    script.run(100)
    script.call(a, "SET", "r", "new")
    op = script.send(c, "CACHE.MGET", "r", "r1")
    script.until(lambda: op.done or op.session.closed)


def handed_over(script: Script) -> None:
    """Another leads, and takes a write of what a node held under the one before."""
    b, c = script.b, script.c
    _holds_old(script, c)
    script.hand_over(b)
    script.until(lambda: script.raft(c).leader == b.name)
    script.call(b, "SET", "r", "new")
    _goes_on_reading(script, c, "r", LEASE_MS)


def cleared_while_owned(script: Script) -> None:
    """All keys are deleted while a node has a line of one alone."""
    a, c = script.a, script.c
    _holds_old(script, c)
    script.call(a, "FLUSHALL")
    _goes_on_reading(script, c, "r", LEASE_MS)


def cleared_while_shared(script: Script) -> None:
    """All keys are deleted while nodes share the line of one, and then written again."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "SET", "r", "old")
    for process in (b, c):
        _holds(script, process, "r")
    for clearing in ("FLUSHALL", "FLUSHDB"):
        script.call(a, clearing)
        for process in (b, c):
            _goes_on_reading(script, process, "r", 100)
        script.call(a, "SET", "r", clearing)


def asked_for_while_cleared(script: Script) -> None:
    """A node waits for a line until an entry is carried out; behind that all keys are deleted."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "SET", "r", "old")
    script.call(c, "CACHE.GET", "r0")
    script.call(c, "CACHE.EVICT", "r0")
    for process in (b, c):
        script.weather(process, a, Weather(delay_us=0, least_us=20 * MS))
    script.run(100)
    script.ask(c, "CACHE.GET", "r")
    script.run(16)
    script.ask(a, "SET", "r0", "before")
    script.run(8)
    script.ask(a, "FLUSHALL")
    script.run(15)
    for process in (b, c):
        script.weather(process, a, Weather(delay_us=0))
    _goes_on_reading(script, c, "r", LEASE_MS)


def read_together(script: Script) -> None:
    """Some keys are read at once, of which the node has one, others have some, and one is nowhere."""
    a, b, c = script.a, script.b, script.c
    for key in ("r0", "r1", "r2"):
        script.call(a, "SET", key, f"v{key}")
    _holds(script, c, "r0")
    script.call(b, "CACHE.SET", "r1", "newer")
    for _ in range(3):
        script.call(c, "CACHE.MGET", "r0", "r1", "r2", "r3", "r0")


def outlived(script: Script) -> None:
    """A key ends while two nodes hold its line."""
    a, b, c = script.a, script.b, script.c
    script.call(a, "SET", "f", "v", "PX", "800")
    _holds(script, b, "f")
    _holds(script, c, "f")
    while script.call(a, "GET", "f").output is not None:
        script.run(10)
    for process in (b, c):
        _goes_on_reading(script, process, "f", 100)


def joined_unheard(script: Script) -> None:
    """A cache has joined, and was closed by the next leader, before it heard of either."""
    a, b, c = script.a, script.b, script.c
    script.call(b, "CACHE.SET", "r", "v")
    script.cut((a, c))
    script.ask(c, "CACHE.GET", "r")
    script.until(lambda: _node(c).author in script.shard(a).machine.caches.known)
    script.isolate(c)
    script.hand_over(b)
    joined = caches.Cache(1, 1)
    script.until(lambda: not script.shard(b).machine.caches.known.get(_node(c).author, joined).is_open)
    script.heal()
    script.until(lambda: script.shard(c).has_leader)
    op = script.send(c, "CACHE.GET", "r")
    until_us = script.world.now_us + SECOND
    script.until(lambda: op.done or script.world.now_us > until_us)
    if op.output != b"v":
        raise Violation("progress", f"{op} got {op.output!r} within a second")


def lagging_holder(script: Script) -> None:
    """A node that holds lines gets a snapshot in place of what it missed; what it holds was written meanwhile."""
    a, b, c = script.a, script.b, script.c
    for key in ("r0", "r1", "r2"):
        _holds_old(script, c, key)
    script.isolate(c)
    for value in range(30):
        script.ask(a, "SET", f"r{value % 3}", f"new{value}")
        script.run(40)
    for process in (a, b):
        script.checkpoint(process)
    script.heal()
    for _ in range(20):
        for key in ("r0", "r1", "r2"):
            _goes_on_reading(script, c, key, 20)


def _becomes_loader(script: Script, op: Op) -> None:
    """Whoever waits gets the next token, soon."""
    until_us = script.world.now_us + PASSED_ON_US_MAX
    script.until(lambda: op.done or script.world.now_us > until_us, 2 * PASSED_ON_US_MAX)
    if not isinstance(op.output, int):
        raise Violation("somebody loads", f"{op} got {op.output!r}")


def loader_leaves(script: Script) -> None:
    """Who loads a key goes away, and then the next, at another node; the last one fills it."""
    a, b, c = script.a, script.b, script.c
    first, second = script.typist(), script.typist()
    script.until(lambda: script.leads(a))
    op = script.send(b, "CACHE.FETCH", "g", typist=first)
    script.until(lambda: op.done)
    next_one = script.send(c, "CACHE.FETCH", "g", typist=second)
    script.until(lambda: next_one.waits)
    last = script.wait(a, "CACHE.FETCH", "g")
    b.crash()
    _becomes_loader(script, next_one)
    assert second.session is not None
    second.session.close()
    second.session = None
    _becomes_loader(script, last)
    late = script.call(c, "CACHE.FILL", "g", str(next_one.output), "late")
    filled = script.call(c, "CACHE.FILL", "g", str(last.output), "filled")
    if (late.output, filled.output) != (None, "OK"):
        raise Violation("somebody loads", f"{late.output!r} of a late fill, {filled.output!r} of the loader's")


def written_while_loaded(script: Script) -> None:
    """A key is written and deleted while somebody loads it: what that one brings is too old."""
    a, b, c = script.a, script.b, script.c
    token = script.call(b, "CACHE.FETCH", "g").output
    assert isinstance(token, int)
    script.call(a, "SET", "g", "newer")
    script.call(c, "CACHE.GET", "g")
    script.call(c, "CACHE.DEL", "g")
    script.call(b, "CACHE.FILL", "g", str(token), "older")
    script.call(c, "GET", "g")


def two_miss(script: Script) -> None:
    """Two clients of two nodes miss the same key; one loads it, and both have it."""
    a, b, c = script.a, script.b, script.c
    op = script.call(b, "CACHE.FETCH", "g")
    other = script.send(c, "CACHE.FETCH", "g")
    script.until(lambda: other.waits or other.done)
    script.call(a, "CACHE.FILL", "g", str(op.output), "filled")
    script.until(lambda: other.done)


OF_CACHES: tuple[Play, ...] = (
    holder_cut_off,
    renewed_late,
    closed_and_back,
    written_at_another,
    lines_of_a_former_leader,
    asked_late,
    several_asked_late,
    handed_over,
    cleared_while_owned,
    cleared_while_shared,
    asked_for_while_cleared,
    read_together,
    outlived,
    joined_unheard,
    lagging_holder,
    loader_leaves,
    written_while_loaded,
    two_miss,
)
"""All of them."""
