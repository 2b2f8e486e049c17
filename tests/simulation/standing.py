"""What stood when: who held and who waited for what, over all shards, by the world's time.

A deadlock that its victim was told of is real when all waits and holds that
it names stood at one moment, wherever they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from cluster.machine.lock import Lock
from tests.simulation.waiting import Graph, Node, add_shard, in_cycles, owner_in, waits_for_locks
from tests.simulation.world import Violation, World

if TYPE_CHECKING:
    from cluster.machine.waiters import Waiter
    from tests.simulation.pictures import Had, Picture
    from tests.simulation.referee import Referee
    from tests.simulation.sessions import Session

STEP = re.compile(r"(\S+) waits for (\S+) (held by|behind) ([^\s,]+)")

Fact: TypeAlias = "tuple[str, bytes, bytes]"
"""``holds`` or ``waits``, the owner, and the lock."""

Times: TypeAlias = "list[tuple[int, int]]"
"""From when to when, in the world's microseconds, both included."""


class Standing:
    """The record of one run, and its ``referees``, one a shard; ``sessions`` are all there ever were, by origin."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since: dict[Fact, dict[tuple[int, int], int]] = {}  # by shard and token or number of the wait
        self._over: dict[Fact, Times] = {}
        self.sessions: dict[bytes, Session] = {}
        self.referees: list[Referee] = []
        self._ended_meanwhile: dict[Session, None] = {}  # whose process was stopped then

    # What changes

    def changed(self, shard: int, before: Picture, now: Picture) -> None:
        """Between two commands in a shard."""
        for number in before.waits.keys() - now.waits.keys():
            self._wait(shard, before.waits[number], self._ends)
        for number in now.waits.keys() - before.waits.keys():
            self._wait(shard, now.waits[number], self._begins)
        for key in dict.fromkeys((*before.things, *now.things)):
            had, have = _holders(before, key), _holders(now, key)
            for owner in had.keys() - have.keys():
                self._ends(("holds", owner, key), (shard, 0))
            for owner in have.keys() - had.keys():
                self._begins(("holds", owner, key), (shard, 0))

    def _wait(self, shard: int, wait: Waiter, tell: Callable[[Fact, tuple[int, int]], None]) -> None:
        if wait.kind == Lock.kind:
            for key in wait.keys:
                tell(("waits", owner_in(wait.args), key), (shard, wait.number))

    def _begins(self, fact: Fact, by: tuple[int, int]) -> None:
        self._since.setdefault(fact, {})[by] = self._world.now_us

    def _ends(self, fact: Fact, by: tuple[int, int]) -> None:
        since = self._since[fact]
        self._over.setdefault(fact, []).append((since.pop(by), self._world.now_us))
        if not since:
            del self._since[fact]

    def ends(self, origin: bytes, before: Picture, shard: int) -> None:
        """A session is over in a shard: if it had something there, its client knows, or its process is stopped."""
        session = self.sessions.get(origin)
        if session is None or session.closed:
            return
        if session.process.cannot_move:
            self._ended_meanwhile[session] = None
            return
        held = [key for key, thing in before.things.items() for had in thing.by.values() if had.origin == origin]
        if held or any(wait.origin == origin for wait in before.waits.values()):
            raise Violation("told before it ends", f"{session} had {held} in shard {shard}, and is still open")

    def judge_answer(self, session: Session) -> None:
        """Something is answered on a connection: its session goes on, as far as its node could know."""
        if session in self._ended_meanwhile:
            raise Violation("closed before it answers", f"{session} was ended while its process was stopped")

    def dead(self) -> list[str]:
        """What is held or waited for by sessions that are over."""
        found = []
        for referee in self.referees:
            known = dict.fromkeys(referee.machine.sessions.origins())
            known.update((wait.origin, None) for wait in referee.machine.waiters.everyone())
            sessions = [self.sessions[origin] for origin in known if origin in self.sessions]
            found += [f"{session} in shard {referee.number}" for session in sessions if session.closed]
        return found

    # Deadlocks

    def standing_cycles(self) -> list[Node]:
        """The waits that are part of a cycle now, over all shards."""
        graph: Graph = {}
        for referee in self.referees:
            add_shard(graph, referee.number, referee.machine, waits_for_locks(referee.machine))
        return in_cycles(graph)

    def judge_cycle(self, text: str, victim: bytes) -> None:
        """A wait was failed because of a cycle over several shards: it closes, and all of it stood at one moment."""
        steps = STEP.findall(text)
        if len(steps) != text.count(" waits for "):
            raise Violation("the whole cycle is named", text)
        if any(other != steps[(at + 1) % len(steps)][0] for at, (*_, other) in enumerate(steps)):
            raise Violation("the whole cycle is named", f"{text}, which is none")
        if victim.decode() not in [waiter for waiter, *_ in steps]:
            raise Violation("the whole cycle is named", f"{text}, and {victim!r} is failed")
        facts: list[Fact] = []
        for waiter, key, how, other in steps:
            facts.append(("waits", waiter.encode(), key.encode()))
            facts.append(("holds" if how == "held by" else "waits", other.encode(), key.encode()))
        together: Times = [(0, self._world.now_us)]
        for fact in facts:
            together = _both(together, self._times(fact))
        if not together:
            times = {fact: self._times(fact) for fact in facts}
            raise Violation("no victim without a cycle", f"{text}, which never stood at once: {times}")

    def _times(self, fact: Fact) -> Times:
        now_us = self._world.now_us
        return [*self._over.get(fact, ()), *((since_us, now_us) for since_us in self._since.get(fact, {}).values())]


def _holders(picture: Picture, key: bytes) -> dict[bytes, Had]:
    thing = picture.things.get(key)
    return thing.by if thing is not None and thing.kind == Lock.kind else {}


def _both(one: Times, other: Times) -> Times:
    """When both are so."""
    return [
        (max(begin, start), min(end, stop))
        for begin, end in one
        for start, stop in other
        if max(begin, start) <= min(end, stop)
    ]
