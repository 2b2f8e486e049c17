"""One node's part in keeping caches coherent: its own cache, and the directories of the shards it leads.

What the two say to each other on the same node never leaves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cluster.batch import node_of
from cluster.cache.controller import Controller, Leader
from cluster.cache.directory import Directory
from cluster.cache.lines import Lines
from cluster.cache.naming import named_in
from cluster.cache.office import Office
from cluster.clients import no_leader
from cluster.machine.machine import Machine
from cluster.raft.membership import config_in
from cluster.raft.messages import (
    Census,
    Grant,
    Join,
    Joined,
    Lost,
    Message,
    Recall,
    Release,
    Renew,
    Renewed,
    Surrendered,
    Want,
    WriteBack,
    WrittenBack,
    Yield,
)
from cluster.ring.slots import SYSTEM
from cluster.storage.contract import Entry

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.raft.leading import Leading
    from cluster.shard import Shard

TO_LEADERS = frozenset({Join, Want, Yield, Release, WriteBack, Surrendered})
TO_CACHES = frozenset({Joined, Grant, Recall, WrittenBack, Census, Lost})
MESSAGES = TO_LEADERS | TO_CACHES | {Renew, Renewed}

KINDS: tuple[type[Message], ...] = (
    Want, Grant, Recall, Yield, Release, WriteBack, WrittenBack, Renew, Renewed, Join, Joined,
    Census, Surrendered, Lost,
)  # fmt: skip
"""The same, in the order in which people are shown them."""


class _Led:
    """A shard this node leads, as its directory sees it."""

    def __init__(self, node: Node, shard: Shard, leading: Leading) -> None:
        self.author = node.author
        self.term = shard.raft.term
        self.began_ms = shard.office_began_ms
        self._node = node
        self._shard = shard
        self._leading = leading

    @property
    def machine(self) -> Machine:
        """The memory."""
        return self._shard.machine

    @property
    def now_ms(self) -> float:
        """Monotonic time."""
        return self._node.monotonic_ms

    @property
    def log_ms(self) -> int:
        """The log's time now: no entry to come has an earlier one than the turn began with."""
        return self._shard.clock_ms

    @property
    def applied(self) -> int:
        """The last entry that is carried out."""
        return self._shard.raft.applied

    @property
    def last_index(self) -> int:
        """The last entry there is."""
        return self._shard.raft.log.last_index

    def sure(self) -> bool:
        """Whether it is certain now that nobody else leads."""
        return self._shard.raft.leading is self._leading and self._leading.sure_until_ms > self._node.monotonic_ms

    def hears(self, author: bytes) -> bool:
        """Whether the node of that cache was heard of late."""
        return self._node.contacts.hears(node_of(author), self._node.monotonic_ms - self._node.timing.election_ms)

    def replicates_to(self, author: bytes) -> bool:
        """Whether the node of that cache takes this shard's log as it grows, or is this one."""
        return author == self.author or self._leading.replicates_to(node_of(author))

    def demand(self, author: bytes, index: int) -> None:
        """The entry is not to be committed before the node of that cache has it in its log."""
        self._leading.demands.add(node_of(author), index)

    def tell(self, author: bytes) -> None:
        """The node of that cache is to hear soon what is carried out."""
        self._leading.tell(node_of(author))

    def has(self, author: bytes, index: int) -> bool:
        """Whether the node of that cache has it."""
        return self._leading.match(node_of(author)) >= index

    def excuse(self, author: bytes) -> None:
        """Nothing that was demanded of that node so far is waited for."""
        self._leading.excuse(node_of(author))


def _named(entry: Entry, author: bytes) -> dict[bytes, None] | None:
    """What an entry names, see `named_in`: nothing if it is what a leader begins with, or a change of members."""
    if not entry.payload or config_in(entry.payload) is not None:
        return {}
    return named_in(entry.payload, author)


class _Followed:
    """This node's replica of a shard, as its cache sees it."""

    def __init__(self, shard: Shard, author: bytes) -> None:
        self._shard = shard
        self._author = author

    @property
    def last_index(self) -> int:
        """The last entry of its log."""
        return self._shard.raft.log.last_index

    @property
    def applied(self) -> int:
        """The last entry that is carried out."""
        return self._shard.raft.applied

    @property
    def settled(self) -> int:
        """The last that is carried out and on the disk: it may be carried out before `Coherence.logged` is told."""
        return min(self._shard.raft.applied, self._shard.raft.log.saved_index)

    def last_naming(self, key: bytes, after: int) -> int:
        """The last entry behind ``after`` that names the key, or may have; 0 if there is none."""
        log = self._shard.raft.log
        for index in range(log.last_index, max(after, log.base_index), -1):
            named = _named(log.entry(index), self._author)
            if named is None or key in named:
                return index
        return log.base_index if log.base_index > after else 0

    def is_lasting(self, key: bytes) -> bool:
        """Whether memory has a string without a deadline there, or nothing, and that changes by what names it only."""
        machine = self._shard.machine
        keyspace = machine.keyspace
        if key not in keyspace.values:
            return not machine.may_come(key)
        return key not in keyspace.deadlines and isinstance(keyspace.values[key], bytes)

    def value(self, key: bytes) -> bytes | None:
        """What memory has there, if that is so."""
        value = self._shard.machine.keyspace.values.get(key)
        return value if isinstance(value, bytes) else None


class Coherence:
    """Of one node. ``lease_ms`` is for how long caches may go by what its directories say, ``fans_out``
    whether these send lines anew to those who read them often.

    ``sent`` and ``received`` count the messages that other nodes got, and that came from them, by kind.
    """

    def __init__(
        self, node: Node, *, max_bytes: int, lease_ms: int, writeback_ms: float, fans_out: bool = True
    ) -> None:
        self.lease_ms = lease_ms
        self._fans_out = fans_out
        self._node = node
        self._directories: dict[Shard, Directory] = {}
        self._recalls_sent = 0  # by directories that are no more
        self.sent: dict[type[Message], int] = dict.fromkeys(KINDS, 0)
        self.received: dict[type[Message], int] = dict.fromkeys(KINDS, 0)
        self._followed = {shard: _Followed(shard, node.author) for shard in node.shards}
        self._heard: dict[Directory, None] = {}  # those that were told something, and did nothing about it
        self._own: deque[tuple[Shard, Message]] = deque()  # between the two sides of this node
        self.cache = Controller(
            node.author,
            Lines(max_bytes),
            leader_of=self._leader_of,
            is_lost=self._is_lost,
            sure_until=self._sure_until,
            replica_of=self._replica_of,
            writeback_ms=writeback_ms,
            no_leader=no_leader,
            propagates=fans_out,
        )

    # What the cache wants to know

    def _leader_of(self, number: int) -> Leader:
        shard = self._node.shards[number]
        return Leader(shard.last_leader, shard.term)

    def _is_lost(self, number: int) -> bool:
        shard = self._node.shards[number]
        self._node.touch(shard)
        return shard.lost_leader

    def _sure_until(self, number: int, term: int) -> float:
        raft = self._node.shards[number].raft
        return raft.leading.sure_until_ms if raft.leading is not None and raft.term == term else 0.0

    def _replica_of(self, number: int) -> _Followed | None:
        shard = self._node.shards[number]
        return self._followed[shard] if shard.here else None

    # What comes into the logs

    def logged(self, shard: Shard, entries: Iterable[Entry]) -> None:
        """Entries came into this node's log of a shard, before it says so to anybody."""
        cache, number = self.cache, shard.number
        office = cache.offices.get(number)
        if office is None or office.replica is None or not len(cache.lines):
            return
        for entry in entries:
            named = _named(entry, cache.author)
            if named is None:
                cache.overwrite_all(number, entry.index)
            else:
                for word in named:
                    cache.overwrite(number, word, entry.index)

    # Who leads what

    def leads(self, shard: Shard, *, leads: bool) -> None:
        """This node leads the shard, and knows all that was committed before; or does not any more."""
        former = self._directories.pop(shard, None)
        if former is not None:
            self._recalls_sent += former.recalls_sent
        if leads and shard.machine.caches.known:
            self._open(shard)

    def _open(self, shard: Shard) -> Directory | None:
        """The directory of a shard that this node leads for sure."""
        directory = self._directories.get(shard)
        leading = shard.raft.leading
        if directory is None and leading is not None and leading.settled:
            ground = _Led(self._node, shard, leading)
            directory = Directory(ground, self.lease_ms, fans_out=self._fans_out)
            directory.holding = True  # there may be reads that came too early
            self._directories[shard] = shard.gate.directory = directory
        return directory

    def propagate(self, *, wanted: bool) -> None:
        """Whether directories send what was written to those who read it often, from now on."""
        self._fans_out = self.cache.propagates = wanted
        for directory in self._directories.values():
            directory.fans_out = wanted

    # Messages

    def receive(self, peer: str, number: int, message: Message) -> None:
        """A message about caches came from another node."""
        kind = type(message)
        self.received[kind] += 1
        if isinstance(message, Renew):
            self._on_renew(peer, message)
        elif isinstance(message, Renewed):
            if message.author == self.cache.author:
                self.cache.renewed(message)
        elif number < len(self._node.shards):
            shard = self._node.shards[number]
            if kind in TO_LEADERS:
                self._to_leader(shard, message)
            elif getattr(message, "author", b"") == self.cache.author:
                self.cache.receive(number, message)

    def _to_leader(self, shard: Shard, message: Message) -> None:
        self._node.stir(shard)
        directory = self._directories.get(shard)
        if directory is None and isinstance(message, Join) and message.term == shard.raft.term:
            directory = self._open(shard)
        if directory is not None:
            directory.receive(message)
            self._heard[directory] = None

    def _on_renew(self, peer: str, message: Renew) -> None:
        offices = []
        for number, term, base in message.offices:
            shard = self._node.shards[number] if number < len(self._node.shards) else None
            directory = self._directories.get(shard) if shard is not None else None
            if shard is not None and directory is not None and shard.raft.term == term:
                self._node.touch(shard)
                if directory.renews(message.author, base):
                    offices.append((number, term, base))
        renewed = Renewed(0, message.author, message.sent_us, self.lease_ms, offices)
        self._post(peer, SYSTEM, renewed)

    @property
    def recalls_sent(self) -> int:
        """How many lines this node has recalled from caches."""
        return self._recalls_sent + sum(directory.recalls_sent for directory in self._directories.values())

    # Turns

    def run(self) -> None:
        """Does what has become possible in this turn, and sends what there is to say."""
        cache, node = self.cache, self._node
        cache.now_ms, cache.turn = node.monotonic_ms, node.turn
        self._heard.clear()
        for shard, directory in self._directories.items():
            if shard.turn == node.turn:
                directory.go_on()
        cache.look()
        self.deliver()

    def deliver(self) -> None:
        """Sends what there is to say, until the two sides of this node have nothing left to say to each other."""
        cache, node = self.cache, self._node
        while True:
            self._collect()
            if not self._own:
                break
            while self._own:
                shard, message = self._own.popleft()
                if type(message) in TO_LEADERS:
                    self._to_leader(shard, message)
                else:
                    cache.receive(shard.number, message)
            for directory in self._heard:
                directory.go_on()
            self._heard.clear()
        for shard, directory in self._directories.items():
            if directory.holding:
                shard.go_on()
            if directory.minds_reads:
                shard.reads_wait = True
        for leader, offices in cache.to_renew().items():
            self._post(leader, SYSTEM, Renew(0, cache.author, int(node.monotonic_ms * 1000), offices))

    def _post(self, peer: str, number: int, message: Message) -> None:
        """Sends a message to another node."""
        self.sent[type(message)] += 1
        self._node.post(peer, number, message)

    def _collect(self) -> None:
        cache, node = self.cache, self._node
        for shard, directory in self._directories.items():
            if directory.calls:
                node.stir(shard)
            if directory.mail:
                mail, directory.mail = directory.mail, []
                for author, message in mail:
                    if author == cache.author:
                        self._own.append((shard, message))
                    else:
                        self._post(node_of(author), shard.number, message)
        mail_of_cache, cache.mail = cache.mail, []
        for number, word in mail_of_cache:
            leader = cache.offices[number].leader
            shard = node.shards[number]
            if leader == node.name:
                self._own.append((shard, word))
            elif leader:
                self._post(leader, number, word)

    def look(self, now_ms: float) -> None:
        """Runs the timers."""
        for shard, directory in self._directories.items():
            if directory.next_ms() <= now_ms:
                self._node.stir(shard)
        self.run()

    def next_ms(self) -> float:
        """When `look` has something to do, on the node's monotonic clock."""
        at_ms = self.cache.next_ms()
        for directory in self._directories.values():
            at_ms = min(at_ms, directory.next_ms())
        return at_ms

    def used(self, monotonic_ms: float) -> list[Office]:
        """Where lines were used in this turn under leases that ran out by then."""
        return self.cache.used(self._node.turn, monotonic_ms)

    @property
    def busy(self) -> bool:
        """Whether there is something to send, or to answer."""
        cache = self.cache
        return bool(cache.mail or cache.answers or cache.plain)

    @property
    def idle(self) -> bool:
        """Whether nobody uses it: no line, no directory, nothing to answer."""
        cache = self.cache
        return not (self._directories or cache.offices or cache.answers or cache.plain)
