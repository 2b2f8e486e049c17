"""One node of a scenario with its disk: the turn that resp_server/edge takes, without sockets and threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from cluster.machine.machine import Commands, Handler
from cluster.machine.reply import WAITING, CommandError, Reply, Status
from cluster.node import Answers, Node, Work
from cluster.raft.core import Chance, Timing
from cluster.raft.membership import Config
from cluster.raft.messages import Chunk, Message
from cluster.ring.slots import slot_of
from cluster.shard import Shard
from cluster.snapshot_files import Reading, give_up, store
from cluster.storage import MemoryStorage, StorageError
from cluster.storage.contract import Identity
from resp_server.commands.table import Table

EPOCH_MS = 1_000_000
"""The wall clock when a scenario begins."""

PIECE_ROWS = 1
"""Of a snapshot: so even a few keys take several pieces."""

CUT_ENTRIES = 1000


@lru_cache(maxsize=1)
def table() -> Table:
    """All commands there are."""
    return Table()


@lru_cache(maxsize=1)
def commands() -> Commands:
    """All commands of the log."""
    return table().machine_commands()


class Shape(NamedTuple):
    """What all nodes of a cluster are told."""

    shards: int = 1
    replicas: int = 3
    node_timeout_ms: float = 300_000.0


class Asked:
    """One command of one client: ``text`` is as it was typed, ``origin`` its session."""

    def __init__(self, text: str, origin: bytes = b"") -> None:
        self.text = text
        self.origin = origin


class Host:
    """One node. ``say`` hears of every answer; ``disk`` is "quick", "slow" (commits do not end), "full" or "broken".

    A broken disk does not even say whether it took what it was given last.
    """

    def __init__(self, name: str, chance: Chance, say: Callable[[str], None], shape: Shape) -> None:
        self.name = name
        self.storage = MemoryStorage()
        self.address = f"{name}:1"
        self.disk = "quick"
        self.stopped = False
        self.inbox: list[tuple[str, int, Message]] = []
        self.outbox: list[tuple[str, int, Message]] = []
        self.refusal: CommandError | None = None
        self._shape = shape
        self._founders = Config()
        self._members = Config()
        self._node: Node | None = None
        self._chance = chance
        self._say = say
        self._boots = 0
        self._sessions = 0
        self._waiting: dict[tuple[int, bytes], Asked] = {}  # by shard and session
        self._work: Work | None = None
        self._readings: dict[tuple[int, str], Reading] = {}
        self._storing: int | None = None  # of which shard a snapshot is coming in
        self._now_ms = 0.0

    # Life

    @property
    def up(self) -> bool:
        """Whether it runs, or is stopped."""
        return self._node is not None

    @property
    def node(self) -> Node:
        """The node of a host that runs."""
        assert self._node is not None, f"{self.name} is not running"
        return self._node

    def shard(self, number: int = 0) -> Shard:
        """One of its shards, ready to be used in this turn."""
        shard = self.node.shards[number]
        self.node.touch(shard)
        return shard

    def number_of(self, text: str) -> int:
        """The number of the shard that a command goes to, by its key."""
        return self.node.slot_shard[slot_of(text.split()[1].encode())]

    def found(self, config: Config) -> None:
        """It founds a cluster, together with all of ``config``."""
        self._founders = self._members = config

    def join(self, config: Config) -> None:
        """It was taken into a cluster that has these members by now."""
        self._members = config

    def start(self, now_ms: float) -> None:
        """Starts it on what its disk holds."""
        self._boots += 1
        node = Node(
            commands(),
            identity=Identity("scenario", self.name, f"disk of {self.name}", self._shape.shards, self._shape.replicas),
            boot=f"b{self._boots}",
            timing=Timing(),
            chance=self._chance,
            members=self._members,
            founders=self._founders,
            address=self.address,
            node_timeout_ms=self._shape.node_timeout_ms,
        )
        for shard in node.each():
            found = self.storage.load(shard.number)
            rows = self.storage.rows(shard.number)
            node.recover(shard.number, found, rows, self.storage.entries(shard.number, found.checkpoint_index + 1))
        self._node = node
        self.turn(now_ms)

    def crash(self) -> None:
        """The power goes; of the commit under way nothing is left."""
        self._node = None
        self.storage = self.storage.crash()
        self.inbox.clear()
        self.outbox.clear()
        self._waiting.clear()
        self._readings.clear()
        self._storing = None
        self._work = None
        self.refusal = None

    # Clients

    def asked(self, text: str) -> Asked:
        """A client of its own asks this."""
        self._sessions += 1
        return Asked(text, self.node.origin(self._sessions))

    @property
    def waiting(self) -> list[str]:
        """What clients of this node asked that wait."""
        return [asked.text for asked in self._waiting.values()]

    def call(self, text: str) -> tuple[Handler, list[bytes]]:
        """A command as a shard takes it."""
        args = [word.encode() for word in text.split()]
        return commands().handlers[args[0]], args

    def write(self, text: str) -> None:
        """A client sends a command that goes through the log."""
        asked = self.asked(text)
        if self.refusal is not None:
            self._answer(asked, self.refusal)
        else:
            self.shard(self.number_of(text)).submit(asked, *self.call(text), origin=asked.origin)

    def read(self, text: str) -> None:
        """A client sends a command that only looks."""
        asked = self.asked(text)
        self._tell_time()
        shard = self.shard(self.number_of(text))
        if shard.reads_wait:
            shard.submit_read(asked, *self.call(text))
        else:
            self._answer(asked, shard.read(*self.call(text)))

    def _answer(self, asked: Asked, reply: Reply) -> None:
        if reply is WAITING:
            self._waiting[self.number_of(asked.text), asked.origin] = asked
            self._say(f"{self.name} {asked.text} -> waits")
        else:
            self._say(f"{self.name} {asked.text} -> {shown(reply)}")

    # A turn

    def turn(self, now_ms: float) -> None:
        """What resp_server/edge/reactor.py does in a turn."""
        node, self._now_ms = self.node, now_ms
        self._tell_time()
        inbox, self.inbox = self.inbox, []
        for peer, number, message in inbox:
            node.receive(peer, number, message)
        node.tick()
        if self._work is None and self.refusal is None:
            self._work = node.ready()
        self.outbox += node.outgoing()
        self.commit()
        self._deliver(node.apply())
        self._move_snapshots()
        self.outbox += node.outgoing()
        for shard in node.each():
            shard.raft.check()

    def idle(self, now_ms: float) -> bool:
        """Whether a turn would do nothing."""
        node = self.node
        if self.inbox or (node.busy and self._work is None and self.refusal is None) or node.moving:
            return False
        tick_ms, due_ms = node.next_tick_ms(), node.next_due_ms()
        if tick_ms <= now_ms:
            return False
        return due_ms is None or due_ms > EPOCH_MS + now_ms

    def rest(self, now_ms: float) -> None:
        """Its patience begins anew."""
        for shard in self.node.each():
            shard.pass_time(now_ms)
            if shard.raft.leading is None:
                shard.raft.rest()

    def _tell_time(self) -> None:
        self.node.advance(EPOCH_MS + int(self._now_ms), self._now_ms)

    def _deliver(self, answers: Answers) -> None:
        for asked, reply in answers.replies:
            if asked is not None:
                self._answer(asked, reply)
        for number, origin, reply in answers.woken:
            waiting = self._waiting.pop((number, origin), None)
            if waiting is not None:
                self._answer(waiting, reply)

    # The disk

    def commit(self) -> None:
        """The commit under way ends, unless the disk is slow."""
        work = self._work
        if work is None or self.disk == "slow":
            return
        self._work = None
        if self.disk != "quick":
            error = StorageError("no space left", definite=self.disk == "full")
            self.storage.fail_next["append"] = error
        try:
            self.storage.append(work.entries, work.hard_states)
        except StorageError as error:
            self.refusal = CommandError(f"Errors writing to the log: {error.message}", "MISCONF")
            uncertain = CommandError(f"the log may or may not have taken it: {error.message}", "UNCERTAIN")
            self.node.refused(self.refusal if error.definite else uncertain, definite=error.definite)
            self.node.refuse_open(self.refusal)
            self._say(f"{self.name} its disk takes nothing")
            return
        self.node.persisted(work)

    def mend(self) -> None:
        """The disk takes writes again."""
        self.disk = "quick"
        if self.refusal is not None:
            self.storage.reopen()
            self.refusal = None
            self.node.mended()

    def checkpoint(self, number: int = 0) -> int:
        """Writes a checkpoint of a shard and keeps nothing of its log behind it; the index."""
        node, storage = self.node, self.storage
        changed, index, term, ledger = node.begin_checkpoint(number)
        storage.begin_checkpoint(number, cleared=changed.cleared, erased=changed.erased)
        while rows := changed.slice(100):
            storage.write_rows(number, rows)
        storage.finish_checkpoint(number, index, term, ledger)
        node.end_checkpoint(number, index, durable=True)
        node.shards[number].raft.compact(index, 0)
        while storage.cut_log(number, index, CUT_ENTRIES):
            pass
        return index

    # Snapshots, and replicas that go

    def _move_snapshots(self) -> None:
        node = self.node
        for number in node.to_drop():
            give_up(self.storage, number, node.ledger_of_dropped(number))
            node.dropped(number)
            self._say(f"{self.name} has nothing of shard {number} any more")
            self._deliver(node.apply())
        for shard in node.each():
            if shard.snapshots.coming and self._storing not in (None, shard.number):
                shard.snapshots.put_off()
            while (due := shard.snapshots.next_to_store()) is not None:
                self._store(shard.number, *due)
            for peer, index, position in shard.snapshots.due():
                self._send(shard, peer, index, position)

    def _store(self, number: int, piece: Chunk, ledger: bytes) -> None:
        self._storing = None if piece.last else number
        store(self.storage, number, piece, ledger)
        self.node.chunk_stored(number, piece, stored=True)
        self._say(f"{self.name} has piece {piece.position} of the snapshot of {piece.index}")
        if piece.last:
            self._say(f"{self.name} has the snapshot of {piece.index}")
            self._deliver(self.node.apply())

    def _send(self, shard: Shard, peer: str, index: int | None, position: int) -> None:
        known = shard.number, peer
        if index is None:
            found = self.storage.snapshot(shard.number)
            assert found is not None
            self._readings[known] = Reading(found, rows_max=PIECE_ROWS)
        reading = self._readings.get(known)
        chunk = reading.piece(position) if reading is not None and index in (None, reading.index) else None
        if chunk is None:
            shard.snapshots.begin_anew(peer)
        else:
            shard.snapshots.send(peer, chunk)


def shown(reply: Reply) -> str:
    """A reply as redis-cli might show it, on one line."""
    if isinstance(reply, CommandError):
        return f"-{reply.line.decode()}"
    if isinstance(reply, Status):
        return reply.text
    if isinstance(reply, bytes):
        return f'"{reply.decode()}"'
    if isinstance(reply, list):
        return f"[{', '.join(map(shown, reply))}]"
    return "nil" if reply is None else str(reply)
