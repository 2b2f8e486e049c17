"""The disk in memory: the laws of the one in SQLite, and faults on request.

The log is kept twice, as the files would show it and as it has reached the
disk itself; the commits between the two are what a power cut may lose.
`MemoryStorage.crash` is that power cut.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Literal, TypeAlias

from cluster.storage.contract import (
    Entry,
    FolderError,
    HardState,
    Identity,
    Recovered,
    Row,
    Snapshot,
    StorageError,
    SyncPolicy,
    given_up_in_part,
    installed_in_part,
)

Fault: TypeAlias = Literal[
    "claim", "append", "sync", "reopen", "cut_log", "begin_checkpoint", "write_rows", "finish_checkpoint", "reset_log"
]
entry_index = attrgetter("index")


@dataclass(slots=True)
class LogImage:
    """Every shard's entries, in order, its hard state, and how often its replica was given up."""

    entries: dict[int, list[Entry]] = field(default_factory=dict)
    hard_states: dict[int, HardState] = field(default_factory=dict)
    emptied: dict[int, int] = field(default_factory=dict)

    def add(self, entries: Sequence[Entry], hard_states: Sequence[tuple[int, HardState]]) -> None:
        for entry in entries:
            kept = self.entries.setdefault(entry.shard, [])
            del kept[bisect_left(kept, entry.index, key=entry_index) :]
            kept.append(entry)
        self.hard_states.update(hard_states)

    def cut(self, shard: int, last: int) -> None:
        kept = self.entries.get(shard, [])
        del kept[: bisect_left(kept, last + 1, key=entry_index)]

    def reset(self, marker: Entry, emptied: int) -> None:
        self.entries[marker.shard] = [marker] if marker.index else []
        self.emptied[marker.shard] = emptied

    def copy(self) -> LogImage:
        entries = {shard: list(kept) for shard, kept in self.entries.items()}
        return LogImage(entries, dict(self.hard_states), dict(self.emptied))


Commit: TypeAlias = Callable[[LogImage], None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One shard's rows by (key, part), as of an entry; ``emptied`` is how often its replica was given up."""

    index: int = 0
    term: int = 0
    ledger: bytes = b""
    rows: dict[tuple[bytes, bytes], Row] = field(default_factory=dict)
    emptied: int = 0


class MemoryStorage:
    """`cluster.storage.contract.Storage` without files.

    ``fail_next`` maps a method's name to the error its next call raises, once;
    `claim` raises it as a `FolderError`. "reset_log" is the step in which an
    install (as it is) and a repair in `load` (as a `FolderError`) leave but the
    marker, if any, in the log: fail there, and `crash`, for a kill between the two files.
    When ``append`` fails with an error that is not definite, `reopen` and
    `crash` find its entries on the disk if ``uncertain_survives`` is true.
    ``votes_wait`` is for a driver that acknowledges nothing before its own
    `sync`: a vote is then synced no sooner than anything else.
    """

    def __init__(self, policy: SyncPolicy = SyncPolicy.ALWAYS, *, votes_wait: bool = False) -> None:
        self.fail_next: dict[Fault, StorageError] = {}
        self.uncertain_survives = False
        self._policy = policy
        self._votes_wait = votes_wait
        self._log = LogImage()
        self._disk = LogImage()
        self._unsynced: list[Commit] = []
        self._uncertain: Commit | None = None
        self._checkpoints: dict[int, Checkpoint] = {}
        self._under_way: tuple[int, Checkpoint] | None = None
        self._torn: set[int] = set()  # shards whose install failed behind its first commit
        self._given_up: set[int] = set()  # shards whose keys are gone, and whose log has yet to go
        self._identity: Identity | None = None

    def identity(self) -> Identity | None:
        return self._identity

    def claim(self, identity: Identity) -> None:
        if self._identity is not None and self._identity != identity:
            raise FolderError(f"the folder belongs to node {self._identity.node} of cluster {self._identity.cluster}")
        with _needed():
            self._fail_if_asked("claim")
        self._identity = identity

    def crash(self, surviving: int = 0) -> MemoryStorage:
        """The storage that the next start finds: what was synced, and the first ``surviving`` commits after that."""
        found = MemoryStorage(self._policy, votes_wait=self._votes_wait)
        found._identity = self._identity
        found._disk = self._disk.copy()
        for commit in self._unsynced[:surviving]:
            commit(found._disk)
        if self._uncertain is not None and self.uncertain_survives and surviving >= len(self._unsynced):
            self._uncertain(found._disk)
        found._log = found._disk.copy()
        found._checkpoints = dict(self._checkpoints)
        return found

    def load(self, shard: int) -> Recovered:
        checkpoint = self._checkpoints.get(shard, Checkpoint())
        if not self._continues(shard, checkpoint):
            with _needed():
                self._reset_log(shard, checkpoint)
        self._mended(shard)
        entries = self._log.entries.get(shard)
        return Recovered(
            hard_state=self._log.hard_states.get(shard, HardState()),
            checkpoint_index=checkpoint.index,
            checkpoint_term=checkpoint.term,
            ledger=checkpoint.ledger,
            last_index=max(checkpoint.index, entries[-1].index if entries else 0),
        )

    def rows(self, shard: int) -> Iterator[Row]:
        rows = self._checkpoints.get(shard, Checkpoint()).rows
        for place in sorted(rows):
            yield rows[place]

    def snapshot(self, shard: int) -> Snapshot | None:
        found = self._checkpoints.get(shard)
        return None if found is None else Snapshot(found.index, found.term, found.ledger, _in_order(found.rows))

    def entries(self, shard: int, first: int) -> Iterator[Entry]:
        kept = self._log.entries.get(shard, [])
        yield from kept[bisect_left(kept, first, key=entry_index) :]

    def append(self, entries: Sequence[Entry], hard_states: Sequence[tuple[int, HardState]] = ()) -> None:
        if any(entry.shard in self._given_up for entry in entries):
            raise given_up_in_part()
        commit = partial(LogImage.add, entries=tuple(entries), hard_states=tuple(hard_states))
        error = self.fail_next.pop("append", None)
        if error is not None:
            self._uncertain = None if error.definite else commit
            raise error
        self._commit(commit)
        if hard_states and not self._votes_wait:
            self._flush()

    def sync(self) -> None:
        self._fail_if_asked("sync")
        self._flush()

    def set_policy(self, policy: SyncPolicy) -> None:
        self._policy = policy

    def reopen(self) -> None:
        self._fail_if_asked("reopen")
        if self._uncertain is not None and self.uncertain_survives:
            self._commit(self._uncertain)
        self._uncertain = None
        self._flush()

    def intact(self) -> bool:
        return True

    def begin_checkpoint(self, shard: int, *, cleared: bool, erased: Iterable[bytes]) -> None:
        if self._under_way is not None:
            raise RuntimeError(f"a checkpoint of shard {self._under_way[0]} is under way")
        if shard in self._torn and not cleared:
            raise installed_in_part()
        self._fail_if_asked("begin_checkpoint")
        former = self._checkpoints.get(shard, Checkpoint())
        gone = frozenset(erased)
        rows = {} if cleared else {place: row for place, row in former.rows.items() if place[0] not in gone}
        self._under_way = (shard, replace(former, rows=rows))

    def write_rows(self, shard: int, rows: Sequence[Row]) -> None:
        checkpoint = self._checkpoint_of(shard)
        self._drop_if_asked("write_rows")
        for row in rows:
            if row.body is None:
                checkpoint.rows.pop((row.key, row.part), None)
            else:
                checkpoint.rows[row.key, row.part] = row

    def finish_checkpoint(self, shard: int, index: int, term: int, ledger: bytes, *, installed: bool = False) -> None:
        checkpoint = self._checkpoint_of(shard)
        self._drop_if_asked("finish_checkpoint")
        given_up = installed and not index
        finished = replace(checkpoint, index=index, term=term, ledger=ledger, emptied=checkpoint.emptied + given_up)
        self._checkpoints[shard] = finished
        self._under_way = None
        self._torn.discard(shard)
        if installed:
            self._torn.add(shard)
            if given_up:
                self._given_up.add(shard)
            self._reset_log(shard, finished)
            self._mended(shard)

    def abandon_checkpoint(self) -> None:
        self._under_way = None

    def cut_log(self, shard: int, last: int, limit: int) -> bool:
        self._fail_if_asked("cut_log")
        if shard in self._checkpoints:
            last = min(last, self._checkpoints[shard].index - 1)
        kept = self._log.entries.get(shard, [])
        behind = bisect_left(kept, last + 1, key=entry_index)
        if behind:
            self._commit(partial(LogImage.cut, shard=shard, last=kept[min(behind, limit) - 1].index))
        return behind > limit

    def close(self) -> None:
        self._under_way = None
        self._flush()

    def _continues(self, shard: int, checkpoint: Checkpoint) -> bool:
        if self._log.emptied.get(shard, 0) != checkpoint.emptied:
            return False
        if not checkpoint.index:
            return True
        kept = self._log.entries.get(shard, [])
        place = bisect_left(kept, checkpoint.index, key=entry_index)
        return place < len(kept) and kept[place].index == checkpoint.index and kept[place].term == checkpoint.term

    def _mended(self, shard: int) -> None:
        self._torn.discard(shard)
        self._given_up.discard(shard)

    def _reset_log(self, shard: int, checkpoint: Checkpoint) -> None:
        self._fail_if_asked("reset_log")
        marker = Entry(shard, checkpoint.index, checkpoint.term, b"")
        self._commit(partial(LogImage.reset, marker=marker, emptied=checkpoint.emptied))
        self._flush()

    def _commit(self, commit: Commit) -> None:
        commit(self._log)
        self._uncertain = None
        self._unsynced.append(commit)
        if self._policy is SyncPolicy.ALWAYS:
            self._flush()

    def _flush(self) -> None:
        for commit in self._unsynced:
            commit(self._disk)
        self._unsynced.clear()

    def _checkpoint_of(self, shard: int) -> Checkpoint:
        if self._under_way is None or self._under_way[0] != shard:
            raise RuntimeError(f"no checkpoint of shard {shard} is under way")
        return self._under_way[1]

    def _fail_if_asked(self, method: Fault) -> None:
        error = self.fail_next.pop(method, None)
        if error is not None:
            raise error

    def _drop_if_asked(self, method: Fault) -> None:
        if method in self.fail_next:
            self._under_way = None
        self._fail_if_asked(method)


@contextmanager
def _needed() -> Iterator[None]:
    """Without what the block writes the folder cannot be used."""
    try:
        yield
    except StorageError as error:
        raise FolderError(f"the folder cannot be used ({error})") from error


def _in_order(rows: dict[tuple[bytes, bytes], Row]) -> Generator[Row, None, None]:
    for place in sorted(rows):
        yield rows[place]
