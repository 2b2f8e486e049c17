"""Sessions of nodes that are silent for too long are ended by the leaders of the shards they hold something in.

A leader counts from when it was last in touch with the node (contacts.py), or
began to lead, whichever was later, up to when it is certain to lead. After
``session-timeout`` the node has closed the clients (credit.py), or is dead, and
their sessions are ended like those of any client that is gone.

They are named one by one, because it may be another leader that gets to end
them, much later, when the node is back with other clients: those that are named
are gone for good. Before it looks which there are, the leader carries out all
that the node had brought into the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.batch import node_of

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.shard import Shard


class Office:
    """One term in which this node leads a shard.

    ``dealt`` has the nodes whose sessions were ended in it, with when each fell
    silent; ``noticed`` how long the log was when that came to be known.
    ``mark`` is the last state of affairs in which nothing was left to be done.
    """

    __slots__ = ("dealt", "mark", "noticed", "since_ms", "term")

    def __init__(self, term: int, since_ms: float) -> None:
        self.term = term
        self.since_ms = since_ms
        self.dealt: dict[str, float] = {}
        self.noticed: dict[str, tuple[float, int]] = {}
        self.mark = -1


class Silence:
    """One node's part in it, as the leader of some shards. ``ended`` counts sessions."""

    def __init__(self, node: Node, timeout_ms: float) -> None:
        self.ended = 0
        self._node = node
        self._timeout_ms = timeout_ms
        self._offices: dict[int, Office] = {}  # by shard
        self._silent: dict[str, float] = {}  # who is, of those that were in touch with this node, and since when
        self._mark = 0  # another number whenever there is another silence to be looked at

    def look(self) -> None:
        """Once in a while. It costs nothing to speak of while nobody falls silent."""
        node = self._node
        silent = node.contacts.out_of_touch(node.monotonic_ms - self._timeout_ms)
        if silent != self._silent:
            self._silent = silent
            self._mark += 1
        for shard in node.shards:
            office = self._office(shard)
            if office is not None and office.mark != self._mark and self._look_at(shard, office):
                office.mark = self._mark

    def _office(self, shard: Shard) -> Office | None:
        """None while this node does not lead the shard, or has not carried out all that may have been agreed."""
        raft = shard.raft
        if raft.leading is None or not raft.leading.settled:
            self._offices.pop(shard.number, None)
            return None
        office = self._offices.get(shard.number)
        if office is None or office.term != raft.term:
            office = self._offices[shard.number] = Office(raft.term, self._node.monotonic_ms)
        return office

    def _look_at(self, shard: Shard, office: Office) -> bool:
        """Ends what is to be ended in a shard; whether nothing is left to be done unless something changes."""
        node, leading = self._node, shard.raft.leading
        assert leading is not None
        sure_ms = leading.sure_ms(node.monotonic_ms)
        left, silent = False, []
        for peer in dict.fromkeys(map(node_of, shard.authors)):
            in_touch_ms = node.contacts.in_touch_ms(peer)
            since_ms = max(in_touch_ms, office.since_ms)
            if peer == node.name or (in_touch_ms and peer not in self._silent) or office.dealt.get(peer) == since_ms:
                continue
            if sure_ms - since_ms >= self._timeout_ms and _carried_out(shard, office, peer, since_ms):
                office.dealt[peer] = since_ms
                silent.append(peer)
            else:
                left = True
        if silent:
            self._end(shard, silent)
        return not left

    def _end(self, shard: Shard, peers: list[str]) -> None:
        found = [origin for origin in shard.machine.origins() if node_of(origin) in peers]
        if found:
            self._node.stir(shard)
        for origin in found:
            shard.end_session(origin)
        self.ended += len(found)


def _carried_out(shard: Shard, office: Office, peer: str, since_ms: float) -> bool:
    """Whether all is that was in the log when the silence was noticed: nothing of the node came after that."""
    known_ms, index = office.noticed.get(peer, (-1.0, 0))
    if known_ms != since_ms:
        index = shard.raft.log.last_index
        office.noticed[peer] = (since_ms, index)
    return shard.raft.applied >= index
