"""Which shards a call goes to, and with which arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.clients import no_leader
from cluster.machine.reply import CommandError
from cluster.ring.slots import slot_of
from resp_server.commands.spreading import Shares, cross_slot
from resp_server.commands.table import Route
from resp_server.session import Session

if TYPE_CHECKING:
    from resp_server.server import Server


OF_ANY_QUEUE = frozenset({"Q.CREATE", "DEL", "UNLINK", "EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT", "PERSIST"})
"""Writes of keys that a queue with partitions may be: what becomes of its first part becomes of the others."""


class Targets:
    """The shards of one node's calls; ``redirecting`` says that clients are to find leaders themselves (-MOVED)."""

    def __init__(self, server: Server) -> None:
        self.redirecting = False
        self._node = server.node
        self._table = server.table
        self._several = len(server.node.shards) > 1

    def of(self, session: Session, route: Route, args: list[bytes]) -> Shares:
        """What each shard has to do for a call; raises what speaks against it: `-CROSSSLOT`, `-MOVED`, `-CLUSTERDOWN`.

        With one shard everything is that one's. A command without keys that says
        nothing else of itself is the first shard's.
        """
        if not (self._several or self.redirecting):
            return Shares([(0, args)])
        slot_shard, queues = self._node.slot_shard, self._node.atlas.queues
        keys = self._table.keys_of(route, args)
        is_apart = session.transaction is None and route.command.name in OF_ANY_QUEUE
        if queues and route.logged and not is_apart and not queues.keys().isdisjoint(keys):
            where = "" if session.transaction is None else " in a transaction"
            raise CommandError(f"a queue with partitions cannot be a key of '{route.name}'{where}")
        if route.command.spread is not None and self._several:
            shares = route.command.spread(route.command.keys, args, slot_shard)
        else:
            numbers = {slot_shard[slot_of(key)] for key in keys}
            if len(numbers) > 1:
                raise cross_slot()
            shares = Shares([(numbers.pop() if numbers else 0, args)])
        if self.redirecting and keys and len(shares.parts) == 1:
            self._redirect(session, route, keys[0], shares.parts[0][0])
        return shares

    def _redirect(self, session: Session, route: Route, key: bytes, number: int) -> None:
        """Raises unless this node leads the shard, or has it and the client is content with that (READONLY)."""
        leader = self._node.leader_of(number)
        if leader == self._node.name or (session.readonly and not route.logged and self._node.shards[number].here):
            return
        if leader is None:
            raise no_leader(number)
        raise CommandError(f"{slot_of(key)} {self._node.address_of(leader)}", "MOVED")
