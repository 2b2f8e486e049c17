"""The disk in two SQLite files: ``log.sqlite`` and ``keyspace.sqlite``.

SQLite has one writer per file. A checkpoint is one long transaction, filled in
slices and made visible by its commit; in a file of its own it never stands in
the way of the log, which commits every turn.

- The log has one connection, used by one thread at a time. Entries lie in the
  order they arrived, whichever shard they are of, so that a commit touches the
  fewest pages; order.py knows where each of them is.
- Each checkpoint, and each reading of one, opens a connection of its own and
  closes it: an abandoned checkpoint leaves nothing behind, a reader keeps its
  view while the next checkpoint commits, and no thread shares a connection. One
  more is open all the time and does nothing: SQLite copies the write-ahead log
  when the last one closes, which is too often where many shards are written.
- Both files count how often a shard's replica was given up. Where the counts
  differ the log is still the one from before, and has to go.
- A snapshot's connection is read-only, so that closing it, which the loop does,
  never copies what a checkpoint has written meanwhile: the next one will.

Weak spots: a commit copies the write-ahead log into its file every thousand
pages, on the loop's thread. That costs a few milliseconds each time, and keeps
the write-ahead log short where copying beside the loop let it grow. While a
snapshot is being read the checkpoints finished meanwhile stay in the write-ahead
log of the keyspace.

docs/decisions/0002-two-sqlite-files.md has the measurements.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import astuple
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final

from cluster.storage import folder as data_folder
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
from cluster.storage.fair_lock import FairLock
from cluster.storage.folder import FORMAT, damage_refused, refused, transaction
from cluster.storage.order import Order

LOG: Final = "log.sqlite"
KEYSPACE: Final = "keyspace.sqlite"

LOG_SCHEMA: Final = (
    """CREATE TABLE log (
        place INTEGER PRIMARY KEY,
        shard INTEGER NOT NULL, entry INTEGER NOT NULL, term INTEGER NOT NULL, payload BLOB NOT NULL
    )""",
    """CREATE TABLE hard_state (
        shard INTEGER PRIMARY KEY, term INTEGER NOT NULL, vote TEXT NOT NULL,
        floor_term INTEGER NOT NULL, floor_index INTEGER NOT NULL
    )""",
    "CREATE TABLE emptied (shard INTEGER PRIMARY KEY, times INTEGER NOT NULL)",
    """CREATE TABLE identity (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        cluster TEXT, node TEXT, disk TEXT, shards INTEGER, replicas INTEGER, founders TEXT
    )""",
)
KEYSPACE_SCHEMA: Final = (
    """CREATE TABLE keyspace (
        shard INTEGER, key BLOB, part BLOB, kind BLOB NOT NULL, deadline_ms INTEGER, body BLOB NOT NULL,
        PRIMARY KEY (shard, key, part)
    ) WITHOUT ROWID""",
    """CREATE TABLE checkpoint (
        shard INTEGER PRIMARY KEY, last_index INTEGER NOT NULL, term INTEGER NOT NULL, ledger BLOB NOT NULL,
        emptied INTEGER NOT NULL
    )""",
)

ENTRIES_AT_ONCE: Final = 32
INDEX_MAX: Final = 2**63 - 2
RESET_AT_ONCE: Final = 256
"""How many entries of a log that goes are deleted in one transaction: an append waits for one of them at the most."""

WAL_BYTES_KEPT: Final = 16 * 1024 * 1024
WAL_BYTES_COPIED: Final = 1024 * 1024
"""A checkpoint leaves the keyspace's write-ahead log to the next one while that is shorter."""

CHECKPOINT_CACHE_KIB: Final = 64 * 1024

SYNCHRONOUS: Final = {SyncPolicy.ALWAYS: "FULL", SyncPolicy.EVERYSEC: "NORMAL", SyncPolicy.NO: "NORMAL"}

INSERT_ENTRY: Final = "INSERT INTO log VALUES (?, ?, ?, ?, ?)"
SELECT_ENTRY: Final = "SELECT term, payload FROM log WHERE place = ?"
SELECT_ORDER: Final = "SELECT place, shard, entry FROM log ORDER BY place"
DELETE_ENTRY: Final = "DELETE FROM log WHERE place = ?"
SELECT_HARD_STATE: Final = "SELECT term, vote, floor_term, floor_index FROM hard_state WHERE shard = ?"
UPSERT_HARD_STATE: Final = "INSERT OR REPLACE INTO hard_state VALUES (?, ?, ?, ?, ?)"
UPSERT_ROW: Final = "INSERT OR REPLACE INTO keyspace VALUES (?, ?, ?, ?, ?, ?)"
UPSERT_CHECKPOINT: Final = "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?)"
DELETE_KEY: Final = "DELETE FROM keyspace WHERE shard = ? AND key = ?"
DELETE_ROW: Final = "DELETE FROM keyspace WHERE shard = ? AND key = ? AND part = ?"

_BEGUN: Final = Row(b"", b"", b"", None, None)
_AS_IT_IS: Final = nullcontext()


class SqliteStorage:
    """`cluster.storage.contract.Storage` in a folder, which it alone uses until `close`.

    Raises `FolderError` when the folder is in use, foreign, damaged, not
    writable or in another format than this version's.
    """

    def __init__(self, folder: Path, policy: SyncPolicy) -> None:
        self._log_path = folder / LOG
        self._keyspace_path = folder / KEYSPACE
        self._policy = policy
        self._order: Order | None = None  # where entries are in the log; None when it has to be looked up
        self._log_files = threading.Lock()  # `sync` may run while `reopen` replaces them
        self._log_use = FairLock()  # appends, cuts and resets come from different threads
        self._finished: dict[int, tuple[int, int, bytes]] = {}  # each shard's checkpoint: index, term, ledger
        self._checkpoint: tuple[int, sqlite3.Connection] | None = None
        self._torn: set[int] = set()  # shards whose install failed behind its first commit
        self._given_up: set[int] = set()  # shards whose keys are gone, and whose log has yet to go
        self._emptied: dict[int, int] = {}  # how often each shard's replica was given up, as the keyspace knows
        self._lock = data_folder.claim(folder, (LOG, KEYSPACE))
        try:
            self._prepare()
            with damage_refused(self._log_path):
                self._open_log()
            with damage_refused(self._keyspace_path):
                self._standing = data_folder.connect(self._keyspace_path)
                self._standing.execute("SELECT count(*) FROM checkpoint").fetchone()  # opens the write-ahead log
        except BaseException:
            os.close(self._lock)
            raise

    def identity(self) -> Identity | None:
        with damage_refused(self._log_path):
            found = self._log.execute("SELECT cluster, node, disk, shards, replicas, founders FROM identity").fetchone()
        return Identity(*found) if found else None

    def claim(self, identity: Identity) -> None:
        owner = self.identity()
        if owner is not None and owner != identity:
            raise FolderError(
                f"{self._log_path.parent} belongs to node {owner.node} of cluster {owner.cluster}:"
                " choose an empty or a new folder with --dir"
            )
        with damage_refused(self._log_path), self._log_use, self._durably(), transaction(self._log, LOG):
            self._log.execute("INSERT OR REPLACE INTO identity VALUES (1, ?, ?, ?, ?, ?, ?)", identity)

    def load(self, shard: int) -> Recovered:
        index, term, ledger = self._finished.get(shard, (0, 0, b""))
        with damage_refused(self._log_path):
            if not (self._emptied_alike(shard) and self._continues(shard, index, term)):
                self._reset_log(shard, index, term)
            self._mended(shard)
            state = self._log.execute(SELECT_HARD_STATE, (shard,)).fetchone()
            last_index = max(index, self._known_order().tail(shard))
        return Recovered(HardState(*state or ()), index, term, ledger, last_index)

    def rows(self, shard: int) -> Iterator[Row]:
        with damage_refused(self._keyspace_path):
            keyspace = data_folder.connect(self._keyspace_path)
        return self._rows_of(keyspace, shard)

    def snapshot(self, shard: int) -> Snapshot | None:
        statement = "SELECT last_index, term, ledger FROM checkpoint WHERE shard = ?"
        with damage_refused(self._keyspace_path), ExitStack() as unless_found:
            keyspace = data_folder.connect(self._keyspace_path, read_only=True)
            unless_found.callback(keyspace.close)
            keyspace.execute("BEGIN")  # one view for what follows
            found = keyspace.execute(statement, (shard,)).fetchone()
            if found is None:
                return None
            unless_found.pop_all()
        index, term, ledger = found
        return Snapshot(index, term, ledger, self._rows_of(keyspace, shard))

    def entries(self, shard: int, first: int) -> Iterator[Entry]:
        while True:
            # Fetched by the piece, as a statement left open would keep the write-ahead log from being reused.
            found = []
            with damage_refused(self._log_path):
                for index, place in self._known_order().places_from(shard, first, ENTRIES_AT_ONCE):
                    term, payload = self._log.execute(SELECT_ENTRY, (place,)).fetchone()
                    found.append(Entry(shard, index, term, payload))
            yield from found
            if len(found) < ENTRIES_AT_ONCE:
                return
            first = found[-1].index + 1

    def append(self, entries: Sequence[Entry], hard_states: Sequence[tuple[int, HardState]] = ()) -> None:
        if not entries and not hard_states:
            return
        log = self._log
        synced = self._durably() if hard_states and self._policy is not SyncPolicy.ALWAYS else _AS_IT_IS
        try:
            with self._log_use, synced, transaction(log, LOG):
                order = self._known_order()
                rows: list[tuple[int, int, int, int, bytes]] = []
                for shard, index, term, payload in entries:
                    if shard in self._given_up:
                        raise given_up_in_part()
                    if index <= order.tail(shard):
                        log.executemany(INSERT_ENTRY, rows)
                        rows.clear()
                        self._delete(order.take_from(shard, index))
                    rows.append((order.add(shard, index), shard, index, term, payload))
                log.executemany(INSERT_ENTRY, rows)
                for shard, state in hard_states:
                    log.execute(UPSERT_HARD_STATE, (shard, *astuple(state)))
        except BaseException:
            self._order = None
            raise

    def sync(self) -> None:
        # Through a descriptor of its own, which leaves the loop's connection alone. It is one of the
        # write-ahead log: closing one of log.sqlite itself would drop the locks SQLite holds on that
        # file. What has left the write-ahead log was synced by SQLite as it copied it.
        with self._log_files:
            if self._wal < 0:
                raise StorageError(f"{LOG}: closed since it failed", definite=False)
            try:
                os.fsync(self._wal)
            except OSError as error:
                raise refused(error, LOG, definite=False) from error

    def set_policy(self, policy: SyncPolicy) -> None:
        self._policy = policy
        with self._log_use:
            if self._wal >= 0:  # else `reopen` will see to it
                self._log.execute(f"PRAGMA synchronous = {SYNCHRONOUS[policy]}")

    def reopen(self) -> None:
        with self._log_files, self._log_use:
            self._close_log()
            try:
                with damage_refused(self._log_path):
                    self._open_log()
                self._log.execute("PRAGMA synchronous = FULL")
                with transaction(self._log, LOG):
                    self._log.execute(f"PRAGMA user_version = {FORMAT}")
                self._log.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self._policy]}")
            except FolderError as error:
                raise StorageError(str(error), definite=False) from error

    def intact(self) -> bool:
        return os.fstat(self._lock).st_nlink > 0

    def begin_checkpoint(self, shard: int, *, cleared: bool, erased: Iterable[bytes]) -> None:
        if self._checkpoint is not None:
            raise RuntimeError(f"a checkpoint of shard {self._checkpoint[0]} is under way")
        if shard in self._torn and not cleared:
            raise installed_in_part()
        try:
            keyspace = data_folder.connect(self._keyspace_path)
        except sqlite3.Error as error:
            raise refused(error, KEYSPACE, definite=True) from error
        self._checkpoint = (shard, keyspace)
        with self._dropped_on_error():
            keyspace.execute(f"PRAGMA cache_size = {-CHECKPOINT_CACHE_KIB}")
            keyspace.execute("PRAGMA synchronous = FULL")
            keyspace.execute("PRAGMA wal_autocheckpoint = 0")
            keyspace.execute("BEGIN IMMEDIATE")
            if cleared:
                keyspace.execute("DELETE FROM keyspace WHERE shard = ?", (shard,))
            keyspace.executemany(DELETE_KEY, ((shard, key) for key in erased))

    def write_rows(self, shard: int, rows: Sequence[Row]) -> None:
        keyspace = self._under_way(shard)
        with self._dropped_on_error():
            for deleted, group in groupby(rows, _is_deletion):
                if deleted:
                    keyspace.executemany(DELETE_ROW, ((shard, row.key, row.part) for row in group))
                else:
                    keyspace.executemany(UPSERT_ROW, ((shard, *row) for row in group))

    def finish_checkpoint(self, shard: int, index: int, term: int, ledger: bytes, *, installed: bool = False) -> None:
        keyspace = self._under_way(shard)
        given_up = installed and not index
        emptied = self._emptied.get(shard, 0) + given_up
        with self._dropped_on_error():
            keyspace.execute(UPSERT_CHECKPOINT, (shard, index, term, ledger, emptied))
            keyspace.execute("COMMIT")
        self._finished[shard], self._emptied[shard] = (index, term, ledger), emptied
        # In force already: where the copy into the file fails, the next checkpoint makes it. Nor is a
        # snapshot being read waited for, which may take minutes.
        with suppress(sqlite3.OperationalError, OSError):
            if Path(f"{self._keyspace_path}-wal").stat().st_size > WAL_BYTES_COPIED:
                keyspace.execute("PRAGMA busy_timeout = 0")
                keyspace.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.abandon_checkpoint()
        self._torn.discard(shard)
        if installed:
            self._torn.add(shard)
            if given_up:
                self._given_up.add(shard)
            self._reset_log(shard, index, term)
            self._mended(shard)

    def abandon_checkpoint(self) -> None:
        if self._checkpoint is not None:
            _, keyspace = self._checkpoint
            self._checkpoint = None
            keyspace.close()

    def cut_log(self, shard: int, last: int, limit: int) -> bool:
        if shard in self._finished:
            last = min(last, self._finished[shard][0] - 1)
        return self._delete_first(shard, last, limit)

    def close(self) -> None:
        self.abandon_checkpoint()
        self._standing.close()
        with self._log_files:
            self._close_log()
        os.close(self._lock)

    def _prepare(self) -> None:
        log_there, keyspace_there = _has_content(self._log_path), _has_content(self._keyspace_path)
        if log_there and not keyspace_there:
            raise _missing(self._keyspace_path)
        data_folder.prepare(self._keyspace_path, KEYSPACE_SCHEMA)
        with damage_refused(self._keyspace_path), closing(data_folder.connect(self._keyspace_path)) as keyspace:
            found = keyspace.execute("SELECT shard, last_index, term, ledger, emptied FROM checkpoint").fetchall()
        # Without one, an earlier start may have ended between making the one file and the other.
        if found and not log_there:
            raise _missing(self._log_path)
        for shard, index, term, ledger, emptied in found:
            self._finished[shard], self._emptied[shard] = (index, term, ledger), emptied
        data_folder.prepare(self._log_path, LOG_SCHEMA)

    def _open_log(self) -> None:
        log = data_folder.connect(self._log_path)
        try:
            log.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
            log.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self._policy]}")
            log.execute("SELECT count(*) FROM hard_state").fetchone()  # SQLite makes the -wal file at the first read
            wal = os.open(f"{self._log_path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            _sync_folder(self._log_path.parent)
        except BaseException:
            log.close()
            raise
        self._log, self._wal = log, wal
        self._order = None

    def _close_log(self) -> None:
        self._log.close()
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1

    def _rows_of(self, keyspace: sqlite3.Connection, shard: int) -> Generator[Row, None, None]:
        """The rows a connection sees; closing the generator closes it, even before the first row is taken."""
        statement = "SELECT key, part, kind, deadline_ms, body FROM keyspace WHERE shard = ? ORDER BY key, part"

        def read() -> Generator[Row, None, None]:
            with closing(keyspace), damage_refused(self._keyspace_path):
                yield _BEGUN
                # Not Row._make: a million rows want no Python between SQLite and their reader.
                yield from map(partial(tuple.__new__, Row), keyspace.execute(statement, (shard,)))

        rows = read()
        next(rows)  # a generator that was never entered would not close anything
        return rows

    def _continues(self, shard: int, index: int, term: int) -> bool:
        """Whether the shard's log goes on where its checkpoint ends."""
        if not index:
            return True
        place = self._known_order().place(shard, index)
        return place is not None and bool(self._log.execute(SELECT_ENTRY, (place,)).fetchone()[0] == term)

    def _emptied_alike(self, shard: int) -> bool:
        """Whether the log was emptied as often as the keyspace."""
        found = self._log.execute("SELECT times FROM emptied WHERE shard = ?", (shard,)).fetchone()
        return (found[0] if found else 0) == self._emptied.get(shard, 0)

    def _mended(self, shard: int) -> None:
        """The shard's two files fit again, and so does what its node knows of them."""
        self._torn.discard(shard)
        self._given_up.discard(shard)

    def _delete_first(self, shard: int, last: int, limit: int) -> bool:
        """Deletes the first ``limit`` entries up to index ``last``; whether any are left of those.

        It need not last: what is deleted is of no use any more, and would be deleted again. So no sync is waited for;
        that of the next append is one for this, too.
        """
        try:
            with self._log_use, self._synced("NORMAL"), transaction(self._log, LOG):
                order = self._known_order()
                places = order.places_to(shard, last, limit)
                self._delete(places)
                if places:
                    order.forget_first(shard, len(places))
                left = order.places_to(shard, last, 1)
        except BaseException:
            self._order = None
            raise
        return bool(left)

    def _length(self, shard: int, limit: int) -> int:
        """How many entries the shard's log has, counted as far as ``limit``. Raises `StorageError`."""
        try:
            with self._log_use:
                return len(self._known_order().places_to(shard, INDEX_MAX, limit))
        except sqlite3.Error as error:
            raise refused(error, LOG, definite=True) from error

    def _reset_log(self, shard: int, index: int, term: int) -> None:
        """Leaves nothing in the shard's log but the entry the checkpoint ends with, if any, durably.

        A long log goes by the piece, as appends of other shards wait meanwhile, and from its front: what a crash leaves
        of it has no gap, and fits the checkpoint as little as before.
        """
        while self._length(shard, RESET_AT_ONCE + 1) > RESET_AT_ONCE:
            self._delete_first(shard, INDEX_MAX, RESET_AT_ONCE)
        try:
            with self._log_use, self._durably(), transaction(self._log, LOG):
                order = self._known_order()
                self._delete(order.take_from(shard, 0))
                self._log.execute("INSERT OR REPLACE INTO emptied VALUES (?, ?)", (shard, self._emptied.get(shard, 0)))
                if index:
                    self._log.execute(INSERT_ENTRY, (order.add(shard, index), shard, index, term, b""))
        except BaseException:
            self._order = None
            raise

    def _durably(self) -> AbstractContextManager[None]:
        """What is committed in the block is synced whatever the policy says. Raises `StorageError`."""
        return self._synced("FULL")

    @contextmanager
    def _synced(self, synchronous: str) -> Iterator[None]:
        """What is committed in the block is synced as SQLite's ``synchronous`` says. Raises `StorageError`."""
        try:
            self._log.execute(f"PRAGMA synchronous = {synchronous}")
        except sqlite3.Error as error:
            raise refused(error, LOG, definite=True) from error
        try:
            yield
        finally:
            try:
                self._log.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self._policy]}")
            except sqlite3.Error:  # nothing may be appended by less: it is opened afresh, with its policy
                with suppress(sqlite3.Error):
                    self._log.close()

    def _known_order(self) -> Order:
        """Where the entries are, read from the file if that is not known."""
        if self._order is None:
            self._order = Order(self._log.execute(SELECT_ORDER))
        return self._order

    def _delete(self, places: list[int]) -> None:
        self._log.executemany(DELETE_ENTRY, ((place,) for place in places))

    def _under_way(self, shard: int) -> sqlite3.Connection:
        if self._checkpoint is None or self._checkpoint[0] != shard:
            raise RuntimeError(f"no checkpoint of shard {shard} is under way")
        return self._checkpoint[1]

    @contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        """Abandons the checkpoint when the block fails: what it left unwritten must never be finished."""
        try:
            yield
        except sqlite3.Error as error:
            self.abandon_checkpoint()
            raise refused(error, KEYSPACE, definite=False) from error
        except BaseException:
            self.abandon_checkpoint()
            raise


def _is_deletion(row: Row) -> bool:
    return row.body is None


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _missing(path: Path) -> FolderError:
    return FolderError(f"{path} is missing beside its twin: restore the folder from a copy or choose another --dir")


def _sync_folder(folder: Path) -> None:
    """Makes the names of new files in it durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
