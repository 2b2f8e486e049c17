"""Carries letters between shards: what `cluster.machine.letters` keeps is brought by the leader of its shard.

A letter is brought as a client's command is, again and again until it is
answered; then its own shard is told. Whoever leads next begins with all that
are still there, so one may arrive twice.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from cluster.machine import letters, queue_parts
from cluster.machine.letters import Letter
from cluster.machine.reply import CommandError, Reply
from cluster.ring.slots import slot_of

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.shard import Shard

UNDER_WAY_MAX = 256
AGAIN_MS = 500.0
"""A letter that could not be brought, or of which that is not known, is brought again after so long."""

NOT_NOW = frozenset({"CLUSTERDOWN", "UNCERTAIN", "TRYAGAIN", "MISCONF", "LOADING"})
"""Errors that say nothing about the letter itself."""

NEVER_MS = float("inf")


class Courier:
    """One node's part: the letters of the shards that it leads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._under_way: dict[Shard, dict[int, float]] = {}  # when each is to be brought again: not as long as asked
        self._answers: list[tuple[Shard, int, Reply]] = []
        self._next_ms = NEVER_MS

    def note(self, shard: Shard) -> None:
        """The shard has letters; whether this node is to bring them."""
        leading = shard.raft.leading
        if leading is None or not leading.settled:
            self._under_way.pop(shard, None)
        elif len(self._under_way.setdefault(shard, {})) < min(len(shard.machine.letters), UNDER_WAY_MAX):
            self._next_ms = 0.0

    def next_ms(self) -> float:
        """When `look` has something to do."""
        return self._next_ms

    def look(self, now_ms: float) -> None:
        """Sees to what was answered, and brings what is to be brought now."""
        answers, self._answers = self._answers, []
        for shard, number, reply in answers:
            self._hear(shard, number, reply, now_ms)
        for shard, under_way in self._under_way.items():
            for number, letter in islice(shard.machine.letters.items(), UNDER_WAY_MAX):
                if under_way.get(number, 0.0) <= now_ms:
                    under_way[number] = NEVER_MS
                    target = self._target(letter)
                    handler = target.machine.handler(letter.args[0])
                    hear = partial(self._answered, shard, number)
                    self._node.ask(target, handler, letter.args, hear, logged=True)
        times = (at_ms for under_way in self._under_way.values() for at_ms in under_way.values())
        self._next_ms = min(times, default=NEVER_MS)

    def _target(self, letter: Letter) -> Shard:
        """The shard a letter is for; what only the system group knows is its own."""
        node = self._node
        if letter.args[0] in node.system.machine.commands.handlers:
            return node.system
        home = node.slot_shard[slot_of(letter.args[1])]
        if letter.args[0] == queue_parts.DROP:
            return node.shards[queue_parts.shard_of(*queue_parts.dropped_part(letter.args), home, len(node.shards))]
        return node.shards[home]

    def _answered(self, shard: Shard, number: int, reply: Reply) -> None:
        self._answers.append((shard, number, reply))
        self._next_ms = 0.0

    def _hear(self, shard: Shard, number: int, reply: Reply, now_ms: float) -> None:
        handler, name = letters.delivered, letters.DELIVERED
        if isinstance(reply, CommandError):
            if reply.code in NOT_NOW:
                self._again(shard, number, now_ms)
                return
            handler, name = letters.refused, letters.REFUSED
        self._node.ask(shard, handler, [name, b"%d" % number], partial(self._settled, shard, number), logged=True)

    def _settled(self, shard: Shard, number: int, reply: Reply) -> None:
        """The letter's own shard was told what became of it, if it was."""
        under_way = self._under_way.get(shard, {})
        if isinstance(reply, CommandError):
            self._again(shard, number, self._node.monotonic_ms)
        else:
            under_way.pop(number, None)

    def _again(self, shard: Shard, number: int, now_ms: float) -> None:
        under_way = self._under_way.get(shard)
        if under_way is not None and number in under_way:
            under_way[number] = now_ms + AGAIN_MS
            self._next_ms = min(self._next_ms, now_ms + AGAIN_MS)
