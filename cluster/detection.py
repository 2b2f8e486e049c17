"""One node's part in finding deadlocks over several shards.

For every shard it leads it reports to the detector; where it leads the system
group it is that itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.contention import NEVER_MS, Contention
from cluster.detector import Detector
from cluster.raft.messages import Contended, ContendedHeard, Message

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.shard import Shard

MESSAGES = frozenset({Contended, ContendedHeard})


class Detection:
    """Of a node with several shards."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._contentions: dict[Shard, Contention] = {}  # of the shards that this node leads
        self._detector = Detector(node)
        self._looks = False
        self._office: tuple[int, str] | None = None  # of whom is told: the system group's term, and who leads it
        self._next_ms = 0.0

    # Who leads what

    def leads(self, shard: Shard, *, leads: bool) -> None:
        """This node leads the shard, and knows all that was committed before; or does not any more."""
        former = self._contentions.pop(shard, None)
        if former is not None:
            former.close()
        if leads:
            contention = self._contentions[shard] = Contention(shard)
            if self._office is not None:
                contention.begin_anew()
        self._next_ms = 0.0

    def see_office(self) -> None:
        """Looks who leads the system group: whoever is new there knows nothing."""
        system, name = self._node.system, self._node.name
        leading = system.raft.leading is not None and system.raft.leading.settled
        leader = system.leader
        office = None if leader is None or (leader == name and not leading) else (system.term, leader)
        if office == self._office:
            return
        self._office = office
        self._looks = leading
        self._detector.begin_anew()
        for contention in self._contentions.values():
            contention.begin_anew() if office is not None else contention.close()
        self._next_ms = 0.0

    # Turns

    def contended(self, shard: Shard) -> None:
        """There may be something new to say of the shard."""
        contention = self._contentions.get(shard)
        if contention is not None:
            self._next_ms = min(self._next_ms, contention.next_ms())

    def next_ms(self) -> float:
        """When `look` has something to do, on the node's monotonic clock."""
        return min(self._next_ms, self._detector.next_ms()) if self._looks else self._next_ms

    def look(self, now_ms: float) -> None:
        """Reports, and looks for deadlocks where that is this node's office."""
        if now_ms >= self._next_ms:
            self._next_ms = NEVER_MS
            if self._office is not None:
                self._report(*self._office)
        if self._looks and now_ms >= self._detector.next_ms():
            self._detector.look(now_ms)

    def _report(self, office: int, detector: str) -> None:
        for shard, contention in self._contentions.items():
            self._node.touch(shard)
            message = contention.report(office)
            if message is None:
                pass
            elif detector == self._node.name:
                self._on_contended(detector, shard, message)
            else:
                self._node.post(detector, shard.number, message)
            self._next_ms = min(self._next_ms, contention.next_ms())

    def receive(self, peer: str, shard: Shard, message: Message, held_ms: float) -> None:
        """A report of a shard's leader, or the answer to one of this node's, that came so long before this turn."""
        if isinstance(message, Contended):
            self._on_contended(peer, shard, message, held_ms)
        elif isinstance(message, ContendedHeard):
            self._on_heard(shard, message)

    def _on_contended(self, peer: str, shard: Shard, message: Contended, held_ms: float = 0.0) -> None:
        if not self._looks or self._office != (message.office, self._node.name):
            return
        if self._detector.take(shard.number, message, self._node.monotonic_ms - held_ms):
            heard = ContendedHeard(message.term, message.office, message.number)
            if peer == self._node.name:
                self._on_heard(shard, heard)
            else:
                self._node.post(peer, shard.number, heard)

    def _on_heard(self, shard: Shard, message: ContendedHeard) -> None:
        contention = self._contentions.get(shard)
        if contention is not None and message.term == shard.raft.term:
            contention.heard(message.office, message.number)
            self.contended(shard)
