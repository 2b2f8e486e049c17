"""Deadlocks over several shards: found where all shards report to, confirmed where each stands, broken in one entry.

Whoever leads the system group looks for them. It keeps a copy of all waits for
locks that lasted a moment and of who holds these locks, made of the reports of
the shards' leaders (cluster/contention.py). Every report is of a time of its
own, so a cycle in the copy is no more than a suspicion: each shard is asked
whether its part of the cycle stands, by a read as any client's. Waits are known
by their numbers and holds by their tokens, neither of which comes again: what
was reported before the question, and stands when it is answered, stood all the
while. So all parts stood together at the moment of the asking. The victim, the
waiter that began to wait last, is failed by an entry of its shard, which looks
again at the part of the cycle that is there.

Whatever is lost on the way, the cycle is still in the copy and is asked about
again; a new leader anywhere begins with a full report.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from cluster.contention import NEVER_MS, Report, decode
from cluster.deadlock import Edge, Step, describe, find_cycle, steps
from cluster.machine.clockwork import Clockwork
from cluster.machine.lock import Lock
from cluster.machine.lock_deadlocks import Link, fail, failing, is_standing, standing
from cluster.machine.lock_waits import LockWaits, owner_of
from cluster.machine.reply import Reply
from cluster.machine.waiters import Waiter, Waiters
from cluster.raft.messages import Contended
from cluster.ring.slots import SHARDS_MAX, slot_of

if TYPE_CHECKING:
    from cluster.node import Node

AGAIN_MS = 100.0
"""How long after a cycle was asked about it is looked at again."""


class Graph:
    """The copy: waits of all shards, and holders of the locks that are waited for.

    A wait is known here by a number and a session that tell its shard, too, and
    ``since_ms`` is of this node's monotonic clock: the clocks of shards differ.
    """

    def __init__(self) -> None:
        self._waiters = Waiters(Clockwork())
        self._waits = LockWaits(self._waiters)
        self._locks: dict[bytes, Lock] = {}
        self._of_shard: dict[int, dict[int, Waiter]] = {}

    def clear(self, shard: int) -> None:
        """What was reported of the shard holds no more."""
        for number in list(self._of_shard.get(shard, ())):
            self._end(shard, number)

    def take(self, shard: int, report: Report, ahead_ms: float) -> Iterable[bytes]:
        """What happened in a shard, whose clock is so much ahead; the owners through which a cycle may go since."""
        concerned: dict[bytes, None] = {}
        for number in report.ended:
            self._end(shard, number)
        for waiter in report.begun:
            copy = msgspec.structs.replace(
                waiter,
                origin=b"%d:%b" % (shard, waiter.origin),
                number=waiter.number * SHARDS_MAX + shard,
                since_ms=int(waiter.since_ms - ahead_ms),
            )
            self._of_shard.setdefault(shard, {})[waiter.number] = copy
            self._waiters.add(copy)
            concerned[owner_of(copy)] = None
        for key, lock in report.locks:
            self._let_go(key)
            if lock is not None:
                self._locks[key] = lock
                for hold in lock.holders():
                    self._waits.took(hold.owner, key)
                    concerned[hold.owner] = None
        return (owner for owner in concerned if self._waits.held_by(owner) and self._waits.of(owner))

    def _end(self, shard: int, number: int) -> None:
        waits = self._of_shard[shard]
        waiter = waits.pop(number)
        if not waits:
            del self._of_shard[shard]
        self._waiters.remove(waiter)
        for key in waiter.keys:
            if self._waiters.first(key, Lock.kind) is None:
                self._let_go(key)

    def _let_go(self, key: bytes) -> None:
        lock = self._locks.pop(key, None)
        if lock is not None:
            for hold in lock.holders():
                self._waits.gave_up(hold.owner, key)

    def cycle(self, owner: bytes) -> list[Edge]:
        """A cycle through the owner; empty when there is none."""
        return find_cycle(owner, lambda one: self._waits.edges(one, self._locks))

    def waits(self, step: Step) -> tuple[Waiter, Link]:
        """The wait that a step of a cycle is, as it is known here, and what its shard is to be asked of it."""
        waiter = next(waiter for waiter in self._waits.of(step.waiter) if self._is(waiter, step))
        origin = waiter.origin.partition(b":")[2]
        number = waiter.number // SHARDS_MAX
        if step.held:
            hold = self._locks[step.key].holder(step.other)
            assert hold is not None, "the step says so"
            return waiter, Link(origin, number, step.key, step.other, hold.token)
        before = next(one for one in self._waiters.wide_before(waiter, step.key) if owner_of(one) == step.other)
        return waiter, Link(origin, number, step.key, step.other, before.number // SHARDS_MAX, behind=True)

    def _is(self, waiter: Waiter, step: Step) -> bool:
        if step.key not in waiter.keys:
            return False
        if step.held:
            return step.other in self._waits.holders_before(waiter, step.waiter, step.key, self._locks)
        return any(owner_of(one) == step.other for one in self._waiters.wide_before(waiter, step.key))


class Inquiry:
    """A cycle that is asked about: its ``owners``, its links by shard, and all of it in words.

    The wait to fail is in the shard ``victim``, and the first of the links there.
    """

    def __init__(self, owners: Iterable[bytes], links: dict[int, list[Link]], victim: int, text: bytes) -> None:
        self.owners = dict.fromkeys(owners)
        self.links = links
        self.victim = victim
        self.text = text
        self.replies: list[Reply] = []
        self.asked = 0
        self.confirmed = False  # and the victim is being failed

    @property
    def answered(self) -> bool:
        """Whether there is an answer to all that was asked."""
        return len(self.replies) == self.asked

    @property
    def stands(self) -> bool:
        """Whether all of the answers say that the cycle stands."""
        return all(reply == 1 for reply in self.replies)


class Detector:
    """Looks for cycles, while this node leads the system group."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._heard = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Nothing is known: the shards' leaders will report all there is."""
        self._graph = Graph()
        self._reports: dict[int, tuple[int, int]] = {}  # the last one of each shard: its term and number
        self._suspects: dict[bytes, float] = {}  # owners, and when to look whether a cycle goes through them
        self._inquiries: list[Inquiry] = []

    def take(self, shard: int, message: Contended, came_ms: float) -> bool:
        """A report came; whether it is known now, be it because it came before."""
        known, said = self._reports.get(shard, (0, 0)), (message.term, message.number)
        if said == known:
            return True
        if said < known or not (message.fresh or said == (known[0], known[1] + 1)):
            return False
        self._reports[shard] = said
        if message.fresh:
            self._graph.clear(shard)
        for owner in self._graph.take(shard, decode(message.body), message.now_ms - came_ms):
            self._suspects[owner] = 0.0
        return True

    def next_ms(self) -> float:
        """When `look` has something to do."""
        return 0.0 if self._heard else min(self._suspects.values(), default=NEVER_MS)

    def look(self, now_ms: float) -> None:
        """Looks for cycles through those who are suspected, and goes on with those that were asked about."""
        if self._heard:
            self._heard = False
            self._inquiries = [inquiry for inquiry in self._inquiries if self._goes_on(inquiry)]
        for owner, at_ms in list(self._suspects.items()):
            if at_ms <= now_ms:
                self._examine(owner, now_ms)

    def _examine(self, owner: bytes, now_ms: float) -> None:
        cycle = self._graph.cycle(owner)
        if not cycle:
            del self._suspects[owner]
            return
        self._suspects[owner] = now_ms + AGAIN_MS
        found = [(*self._graph.waits(step), step) for step in steps(cycle)]
        owners = {step.waiter for _, _, step in found}
        if any(not owners.isdisjoint(inquiry.owners) for inquiry in self._inquiries):
            return  # it may be gone when that one is broken
        links: dict[int, list[Link]] = {}
        last = max(found, key=lambda one: (one[0].since_ms, one[0].number))[1]
        for _, link, _ in found:
            part = links.setdefault(self._node.slot_shard[slot_of(link.key)], [])
            part.insert(0 if link is last else len(part), link)
        if len(links) > 1:  # what is in one shard only that breaks by itself
            victim = self._node.slot_shard[slot_of(last.key)]
            self._inquire(Inquiry((step.waiter for _, _, step in found), links, victim, describe(cycle)))

    def _inquire(self, inquiry: Inquiry) -> None:
        self._inquiries.append(inquiry)
        for number, links in inquiry.links.items():
            if number != inquiry.victim:
                inquiry.asked += 1
                hear = partial(self._hear, inquiry)
                self._node.ask(self._node.shards[number], is_standing, standing(links), hear, logged=False)

    def _goes_on(self, inquiry: Inquiry) -> bool:
        if not inquiry.answered:
            return True
        if inquiry.confirmed or not inquiry.stands:
            return False
        self._fail_victim(inquiry)
        return True

    def _fail_victim(self, inquiry: Inquiry) -> None:
        inquiry.confirmed = True
        inquiry.asked += 1
        args = failing(inquiry.links[inquiry.victim], inquiry.text)
        self._node.ask(self._node.shards[inquiry.victim], fail, args, partial(self._hear, inquiry), logged=True)

    def _hear(self, inquiry: Inquiry, reply: Reply) -> None:
        inquiry.replies.append(reply)
        self._heard = True
