"""``maxmemory``: when the memory of a node is used up, what would take more of it is refused.

A node that has too much says so to the system group, and every node then refuses
for the shards that it has a replica of, whichever node is asked: entries in the
log are carried out by all replicas, so it is too late to refuse them there. What
makes room, and what the cluster does by itself (redelivery, dead letters on their
way), goes on. A node that is not reached any more is not waited for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cluster import atlas as system_state
from cluster.machine.reply import CommandError

if TYPE_CHECKING:
    from cluster.node import Node
    from resp_server.commands.command import Command

TELL_AGAIN_MS = 1_000.0


class Fullness:
    """What one node knows of it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._is_full = False
        self._told_at_ms = float("-inf")

    def weigh(self, used_bytes: int, maxmemory_bytes: int) -> bool:
        """The node's memory was measured, a few times a second; whether it has become too much, or is not any more.

        ``maxmemory_bytes`` 0 is no limit.
        """
        node = self._node
        is_full = 0 < maxmemory_bytes < used_bytes
        is_news = is_full is not self._is_full
        self._is_full = is_full
        if is_news or ((node.name in node.atlas.full) is not is_full and self._is_time()):
            self._told_at_ms = node.monotonic_ms
            node.stir(node.system)
            node.system.clients.owe(system_state.filled(node.system.machine, node.name, is_full=is_full))
        return is_news

    def _is_time(self) -> bool:
        return self._node.monotonic_ms - self._told_at_ms >= TELL_AGAIN_MS

    @property
    def somewhere(self) -> bool:
        """Whether any node has, or had when it was last heard of, too much."""
        return self._is_full or bool(self._node.atlas.full)

    def check(self, command: Command, numbers: Iterable[int]) -> None:
        """Raises ``-OOM`` for a command that would take memory where one of these shards has none left."""
        if "denyoom" not in command.flags:
            return
        node = self._node
        full = {one for one in node.atlas.full if one != node.name and node.reachable(one)}
        full |= {node.name} if self._is_full else set()
        if any(not full.isdisjoint(node.nodes_of(number)) for number in numbers):
            raise CommandError("command not allowed when used memory > 'maxmemory'.", "OOM")
