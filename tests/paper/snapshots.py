"""Snapshots in a `Group`: checkpoints on disks in memory, and their pieces moved by hand."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.machine.keyspace import STRING
from cluster.machine.machine import Commands, Machine
from cluster.raft.membership import static
from cluster.raft.messages import Chunk, ChunkTaken
from cluster.snapshot_files import Reading, store
from cluster.snapshots import Installation, Snapshots, ledger_of
from cluster.storage import MemoryStorage
from cluster.storage.contract import Row
from tests.paper.group import SHARD, Group, entries

ROWS = 2
"""Rows in a piece."""

KEYS = 9
"""Written before the checkpoint; with two rows in a piece it has five."""


class Courier:
    """Does for a group what the driver of a node does: takes checkpoints, reads and stores their pieces.

    A member's state is the set of the payloads it carried out, each a key.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.storages: dict[str, MemoryStorage] = {}
        self.snapshots: dict[str, Snapshots] = {}
        self.machines: dict[str, Machine] = {}
        self.installed: list[tuple[str, int]] = []
        self._readings: dict[tuple[str, str], Reading] = {}
        for name in group.names:
            self.watch(name)

    def watch(self, name: str) -> None:
        """A member started: it has no piece of anything in memory."""
        self.snapshots[name] = Snapshots(self.group[name], lambda: Machine(Commands({}, {})))
        self.storages.setdefault(name, MemoryStorage()).abandon_checkpoint()

    def checkpoint(self, name: str) -> int:
        """Writes what a member has carried out, and cuts its log behind that; the index."""
        raft, storage = self.group[name], self.storages[name]
        index = raft.applied
        term = raft.log.term(index)
        assert term is not None
        storage.begin_checkpoint(SHARD, cleared=True, erased=())
        storage.write_rows(SHARD, [Row(key, b"", STRING, None, key) for key in self.state(name)])
        storage.finish_checkpoint(SHARD, index, term, ledger_of(raft.membership.at(index), b""))
        raft.compact(index, 0)
        return index

    def state(self, name: str) -> list[bytes]:
        """Every key a member has, in order."""
        machine = self.machines.get(name)
        restored = list(machine.keyspace.values) if machine is not None else []
        return sorted({*restored, *self.group.payloads(name)})

    def send(self, leader: str) -> list[Chunk]:
        """Sends the pieces that are due."""
        sent = []
        snapshots = self.snapshots[leader]
        for peer, index, position in snapshots.due():
            if index is None:
                found = self.storages[leader].snapshot(SHARD)
                assert found is not None
                self._readings[leader, peer] = Reading(found, rows_max=ROWS)
            reading = self._readings[leader, peer]
            piece = reading.piece(position) if index in (None, reading.index) else None
            if piece is None:
                snapshots.begin_anew(peer)
                continue
            snapshots.send(peer, piece)
            sent.append(piece)
        return sent

    def take(self, name: str) -> tuple[Chunk, bytes] | None:
        """The next piece a member is to store."""
        return self.snapshots[name].next_to_store()

    def finish(self, name: str, piece: tuple[Chunk, bytes]) -> Installation | None:
        """The piece is on the member's disk; what it has in force now, if that was the last."""
        chunk, ledger = piece
        store(self.storages[name], SHARD, chunk, ledger)
        installation = self.snapshots[name].stored(chunk, stored=True)
        if installation is not None:
            self.machines[name] = installation.machine
            self.group.applied[name].clear()
            self.installed.append((name, installation.index))
        return installation

    def move(self, steps: int = 100) -> None:
        """Moves everything that can be moved without time passing."""
        for _ in range(steps):
            self.group.settle()
            for name in self.group.names:
                if name not in self.group.down:
                    self.send(name)
                    while (piece := self.take(name)) is not None:
                        self.finish(name, piece)

    def waiting(self, name: str) -> list[Chunk]:
        """Pieces on their way to a member."""
        return [packet.message for packet in self.group.waiting(Chunk, to=name) if isinstance(packet.message, Chunk)]

    def answers(self, name: str) -> list[ChunkTaken]:
        """What a member said of pieces."""
        return self.group.sent(name, ChunkTaken)


def behind(log: Sequence[int] = ()) -> tuple[Group, Courier]:
    """n1 leads and has cut its log behind a checkpoint; n3 was cut off before all of it, with a log of its own."""
    group = Group()
    group.load("n3", entries(log, author="n3 "))
    group.cut("n3")
    group.load("n1", [], term=max(log, default=0))
    group.elect("n1")
    for number in range(KEYS):
        group.write("n1", b"key %d" % number)
    group.pass_ms(100)
    courier = Courier(group)
    courier.checkpoint("n1")
    group.heal()
    return group, courier


def first_piece(group: Group, courier: Courier) -> None:
    """Time passes until the leader has found out that n3 needs a snapshot, and has sent the first piece."""
    leading = group["n1"].leading
    assert leading is not None
    group.pass_ms(1000, until=lambda: "n3" in leading.transfers)
    assert [piece.position for piece in courier.send("n1")] == [0]


def chunk(index: int, *, term: int = 3, position: int = 0, last: bool = True) -> Chunk:
    """A piece of a snapshot without keys."""
    return Chunk(term, index, 2, position, ledger_of(static({"n1": "", "n2": "", "n3": ""}), b""), [], last)
