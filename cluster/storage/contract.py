"""What the core asks of a disk.

Two things are kept. The *log*: entries in the order they were proposed, made
durable before anything is acknowledged. The *checkpoint*: the keyspace as it
stood after one entry, so that the log behind it can be cut.

The rule between the two: the log always holds the entry the checkpoint ends
with, by index and term. So what follows it there is known to continue it. The
two do not commit together; where they do not fit, because a crash came between
or because the checkpoint is ahead of the log (entries may be carried out
before this disk has them), `load` replaces the log by that one entry, without a
payload: a *marker*. Before the first entry there is none.

All shards of a node share the two; what is said of the log and the checkpoint
holds for each shard.

Who calls what, in order:

0. `identity`, and `claim` when the folder is new.
1. `Storage.load` once, then `rows` and `entries` to rebuild the state. Nothing
   is appended before that: only `load` sees to it that the log fits.
2. `append` once a turn with that turn's entries of all shards. When it returns
   they are as durable as the sync policy says; when it raises `StorageError` none
   of them is there to be read, and after a crash only those of an error that is not
   definite may be. Then `reopen` until it returns, and look again at `load`
   and `entries`, before anything else is appended.
3. Now and then a checkpoint: `begin_checkpoint`, any number of `write_rows`,
   then `finish_checkpoint`, which makes all of it visible at once. A crash or
   a `StorageError` before that leaves the checkpoint before it in force; the
   one under way is then gone and the next begins anew.
4. `cut_log` in small slices behind the finished checkpoint, never the entry it ends with.
5. For another node: `snapshot`, a view of the last finished checkpoint, closed
   when it is sent. One that comes from another node is written as a checkpoint
   that is ``cleared`` at its begin and ``installed`` at its end: that leaves the
   marker alone in the log. Where only that last step fails, the snapshot is in
   force and its node does not know its keys: the log may go on, but a checkpoint
   of changes alone is refused until a snapshot is installed or `load` was called.
6. A replica that is given up is a checkpoint of index 0 without rows, ``cleared``
   and ``installed``: its log is then empty and its hard state is kept. Where only
   that last step fails, nothing is appended to that shard until it is done again
   or `load` was called: what the log would go on with is gone.

The checkpoint calls and `cut_log` come from one worker thread at a time, one of
`append` and `reopen` from another, `sync`, `rows` and `snapshot` from any,
everything else from the loop's thread; all of these may overlap. Reading what
turns out to be damaged raises `FolderError`, and so does a failing `claim` or
repair: without them the folder cannot be used.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol


class SyncPolicy(Enum):
    """When an append reaches the disk itself: Redis's ``appendfsync``."""

    ALWAYS = "always"  # before it returns
    EVERYSEC = "everysec"  # by `sync`, called once a second
    NO = "no"  # when the operating system likes


class StorageError(Exception):
    """The disk did not take it. ``message`` is one line for the client and the log.

    ``definite`` is true when the entries are certainly not on the disk (it was
    full before anything was committed), false when they may be: then only
    `Storage.reopen` can tell.
    """

    def __init__(self, message: str, *, definite: bool) -> None:
        super().__init__(message)
        self.message = message
        self.definite = definite


def installed_in_part() -> StorageError:
    """What a checkpoint of changes alone is refused with while its node's state is not the one they would change."""
    return StorageError(
        "a snapshot was installed in part: another will come, else start the server again", definite=True
    )


def given_up_in_part() -> StorageError:
    """What entries are refused with that would continue a state which is gone."""
    return StorageError("a replica was given up in part: that has to be finished first", definite=True)


class FolderError(Exception):
    """The data folder cannot be used: in use, foreign, unwritable or too new."""


class Entry(NamedTuple):
    """One log entry. ``payload`` is opaque here and to Raft."""

    shard: int
    index: int  # type: ignore[assignment]  # an entry's index, not tuple.index
    term: int
    payload: bytes


class Identity(NamedTuple):
    """Whose folder it is: the cluster's id, the node's id, a random id of the folder itself, and the cluster's shape.

    ``shards`` and ``replicas`` were fixed when the cluster was founded, and so was ``founders``, whom it began
    with: ``id=address``, with commas between. That is empty for a node that joined, or founded its cluster alone.
    """

    cluster: str
    node: str
    disk: str
    shards: int = 1
    replicas: int = 3
    founders: str = ""


class Row(NamedTuple):
    """One row of a checkpoint.

    A plain value is one row with an empty ``part``; a large value (a queue) is
    that row, its header, and one row per part. ``body`` None deletes the row.
    """

    key: bytes
    part: bytes
    kind: bytes
    deadline_ms: int | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class HardState:
    """What Raft must never forget: the current term, the vote in it, and the floor (`cluster.raft.core.Raft`)."""

    term: int = 0
    vote: str = ""
    floor_term: int = 0
    floor_index: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a shard's storage held when it was opened.

    ``checkpoint_index`` and ``checkpoint_term`` name the last entry the
    checkpoint contains (0 for none) and ``ledger`` is the machine's own small
    state at that entry; ``last_index`` is the last log entry's index, or
    ``checkpoint_index`` when the log is empty.
    """

    hard_state: HardState
    checkpoint_index: int
    checkpoint_term: int
    ledger: bytes
    last_index: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A finished checkpoint as it stood when it was asked for: ``rows`` come by key and then part.

    Any one thread at a time may take rows. Close it when done, from any thread and
    at any time between two rows: it holds its view, and with it space, on the disk.
    """

    index: int
    term: int
    ledger: bytes
    rows: Generator[Row, None, None]

    def close(self) -> None:
        """Gives the view up."""
        self.rows.close()


class Storage(Protocol):
    """One node's disk. Methods raise `StorageError` where they write."""

    def identity(self) -> Identity | None:
        """Whose folder this is; None while it is nobody's."""
        ...

    def claim(self, identity: Identity) -> None:
        """Makes the folder somebody's, durably; `FolderError` when it is another's already or cannot be written."""
        ...

    def load(self, shard: int) -> Recovered:
        """What is there for this shard, after repairing the log, durably, where it does not fit the checkpoint."""
        ...

    def rows(self, shard: int) -> Iterator[Row]:
        """Every row of the last finished checkpoint, by key and then part, so the header comes first.

        A checkpoint finished meanwhile does not show. Close the iterator if you
        stop early: it holds that view, and with it space, on the disk.
        """
        ...

    def snapshot(self, shard: int) -> Snapshot | None:
        """The last finished checkpoint for another node; None when there is none yet."""
        ...

    def entries(self, shard: int, first: int) -> Iterator[Entry]:
        """The log from index ``first`` on, in order."""
        ...

    def append(self, entries: Sequence[Entry], hard_states: Sequence[tuple[int, HardState]] = ()) -> None:
        """Adds entries of any shards, in one transaction, durable as the policy says.

        An entry whose index is already there replaces it and everything after
        it in its shard. ``hard_states`` are (shard, state), written with them, or
        alone: whenever there is one, the whole is as durable as with ``always``,
        for a vote must not be given twice.
        """
        ...

    def sync(self) -> None:
        """Makes durable everything appended so far (for ``everysec``; any thread)."""
        ...

    def set_policy(self, policy: SyncPolicy) -> None:
        """Changes when appends reach the disk, from the next one on."""
        ...

    def reopen(self) -> None:
        """After a `StorageError`: opens the log afresh and proves that it takes a durable write.

        Until it returns, the log can be neither written nor read.
        """
        ...

    def intact(self) -> bool:
        """Whether what was written can still be found by name: false for good once the folder was deleted."""
        ...

    def begin_checkpoint(self, shard: int, *, cleared: bool, erased: Iterable[bytes]) -> None:
        """Starts a checkpoint; ``cleared`` drops every row first, ``erased`` all rows of those keys."""
        ...

    def write_rows(self, shard: int, rows: Sequence[Row]) -> None:
        """Adds, replaces or deletes rows in the checkpoint under way."""
        ...

    def finish_checkpoint(self, shard: int, index: int, term: int, ledger: bytes, *, installed: bool = False) -> None:
        """Makes the checkpoint under way the one in force, durably; ``installed`` leaves but its marker in the log."""
        ...

    def abandon_checkpoint(self) -> None:
        """Drops the checkpoint under way, if there is one."""
        ...

    def cut_log(self, shard: int, last: int, limit: int) -> bool:
        """Deletes up to ``limit`` entries with an index of at most ``last``; whether any are left to cut.

        The entry that the checkpoint in force ends with, and what follows it, stay whatever ``last`` says.
        """
        ...

    def close(self) -> None:
        """Lets go of the files."""
        ...
