"""One node of a scenario with its disk: the turn that resp_server/edge takes, without sockets and threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from cluster.machine.machine import Commands, Handler
from cluster.machine.reply import WAITING, CommandError, Reply, Status
from cluster.node import SHARD, Answers, Node, Work
from cluster.raft.core import Chance, Timing
from cluster.raft.membership import Config
from cluster.raft.messages import Message
from cluster.snapshot_files import Reading, store
from cluster.snapshots import ledger_of
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


class Asked:
    """One command of one client: ``text`` is as it was typed, ``origin`` its session."""

    def __init__(self, text: str, origin: bytes = b"") -> None:
        self.text = text
        self.origin = origin


class Host:
    """One node. ``say`` hears of every answer; ``disk`` is "quick", "slow" (commits do not end), "full" or "broken".

    A broken disk does not even say whether it took what it was given last.
    """

    def __init__(self, name: str, chance: Chance, say: Callable[[str], None]) -> None:
        self.name = name
        self.storage = MemoryStorage()
        self.address = f"{name}:1"
        self.disk = "quick"
        self.stopped = False
        self.inbox: list[tuple[str, Message]] = []
        self.outbox: list[tuple[str, Message]] = []
        self.refusal: CommandError | None = None
        self._node: Node | None = None
        self._chance = chance
        self._say = say
        self._boots = 0
        self._sessions = 0
        self._waiting: dict[bytes, Asked] = {}
        self._work: Work | None = None
        self._readings: dict[str, Reading] = {}
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

    def found(self, config: Config) -> None:
        """It founds a cluster, together with all of ``config``: that is on its disk before anything else."""
        self.storage.begin_checkpoint(SHARD, cleared=False, erased=())
        self.storage.finish_checkpoint(SHARD, 0, 0, ledger_of(config, b""))

    def start(self, now_ms: float, members: Config | None = None) -> None:
        """Starts it on what its disk holds."""
        self._boots += 1
        node = Node(
            commands(),
            identity=Identity("scenario", self.name, f"disk of {self.name}"),
            boot=f"b{self._boots}",
            timing=Timing(),
            chance=self._chance,
            members=members or Config(),
            address=self.address,
        )
        found = self.storage.load(SHARD)
        node.recover(found, self.storage.rows(SHARD), self.storage.entries(SHARD, found.checkpoint_index + 1))
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
        self._work = None
        self.refusal = None

    # Clients

    def asked(self, text: str) -> Asked:
        """A client of its own asks this."""
        self._sessions += 1
        return Asked(text, self.node.origin(self._sessions))

    def call(self, text: str) -> tuple[Handler, list[bytes]]:
        """A command as the node takes it."""
        args = [word.encode() for word in text.split()]
        return self.node.machine.handler(args[0]), args

    def write(self, text: str) -> None:
        """A client sends a command that goes through the log."""
        asked = self.asked(text)
        if self.refusal is not None:
            self._answer(asked, self.refusal)
        else:
            self.node.submit(asked, *self.call(text), origin=asked.origin)

    def read(self, text: str) -> None:
        """A client sends a command that only looks."""
        asked = self.asked(text)
        self._tell_time()
        if self.node.reads_wait:
            self.node.submit_read(asked, *self.call(text))
        else:
            self._answer(asked, self.node.read(*self.call(text)))

    def _answer(self, asked: Asked, reply: Reply) -> None:
        if reply is WAITING:
            self._waiting[asked.origin] = asked
            self._say(f"{self.name} {asked.text} -> waits")
        else:
            self._say(f"{self.name} {asked.text} -> {shown(reply)}")

    # A turn

    def turn(self, now_ms: float) -> None:
        """What resp_server/edge/reactor.py does in a turn."""
        node, self._now_ms = self.node, now_ms
        self._tell_time()
        inbox, self.inbox = self.inbox, []
        for peer, message in inbox:
            node.receive(peer, message)
        node.tick()
        if self._work is None and self.refusal is None:
            self._work = node.ready()
        self.outbox += node.outgoing()
        self.commit()
        self._deliver(node.apply())
        self._move_snapshots()
        self.outbox += node.outgoing()
        node.raft.check()

    def idle(self, now_ms: float) -> bool:
        """Whether a turn would do nothing."""
        node = self.node
        if self.inbox or (node.busy and self._work is None and self.refusal is None) or node.snapshots.moving:
            return False
        tick_ms, due_ms = node.next_tick_ms(), node.next_due_ms()
        if tick_ms is not None and tick_ms <= now_ms:
            return False
        return due_ms is None or due_ms > EPOCH_MS + now_ms

    def rest(self, now_ms: float) -> None:
        """Its patience begins anew."""
        self.node.pass_time(now_ms)
        self.node.raft.rest()

    def _tell_time(self) -> None:
        self.node.advance(EPOCH_MS + int(self._now_ms), self._now_ms)

    def _deliver(self, answers: Answers) -> None:
        for asked, reply in answers.replies:
            if asked is not None:
                self._answer(asked, reply)
        for origin, reply in answers.woken:
            waiting = self._waiting.pop(origin, None)
            if waiting is not None:
                self._answer(waiting, reply)
        if answers.restored:
            for origin in [one for one in self._waiting if self.node.machine.waiters.of(one) is None]:
                self._answer(self._waiting.pop(origin), CommandError("the wait ended unseen", "UNCERTAIN"))

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
            self.storage.append(work.entries, [] if work.hard_state is None else [work.hard_state])
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

    def checkpoint(self) -> int:
        """Writes a checkpoint and keeps nothing of the log behind it; the index."""
        node, storage = self.node, self.storage
        changed, index, term, ledger = node.begin_checkpoint()
        storage.begin_checkpoint(SHARD, cleared=changed.cleared, erased=changed.erased)
        while rows := changed.slice(100):
            storage.write_rows(SHARD, rows)
        storage.finish_checkpoint(SHARD, index, term, ledger)
        node.end_checkpoint(index, durable=True)
        node.raft.compact(index, 0)
        while storage.cut_log(SHARD, index, CUT_ENTRIES):
            pass
        return index

    # Snapshots

    def _move_snapshots(self) -> None:
        snapshots = self.node.snapshots
        while (due := snapshots.next_to_store()) is not None:
            piece, ledger = due
            store(self.storage, SHARD, piece, ledger)
            self.node.chunk_stored(piece, stored=True)
            self._say(f"{self.name} has piece {piece.position} of the snapshot of {piece.index}")
            if piece.last:
                self._say(f"{self.name} has the snapshot of {piece.index}")
                self._deliver(self.node.apply())
        for peer, index, position in snapshots.due():
            if index is None:
                found = self.storage.snapshot(SHARD)
                assert found is not None
                self._readings[peer] = Reading(found, rows_max=PIECE_ROWS)
            reading = self._readings.get(peer)
            chunk = reading.piece(position) if reading is not None and index in (None, reading.index) else None
            if chunk is None:
                snapshots.begin_anew(peer)
            else:
                snapshots.send(peer, chunk)


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
