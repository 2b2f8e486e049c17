"""Storages under test: both kinds, how they are started again, and what is written to them."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.storage import (
    Entry,
    MemoryStorage,
    Row,
    SqliteStorage,
    Storage,
    StorageError,
    SyncPolicy,
)


class Disk:
    """One kind of storage, and how it is started again."""

    def __init__(self, first: Storage, restarted: Callable[[Storage], Storage]) -> None:
        self.storage = first
        self._restarted = restarted

    def restart(self) -> Storage:
        """Closes the storage and opens what it left."""
        self.storage.close()
        self.storage = self._restarted(self.storage)
        return self.storage


def entry(index: int, term: int = 1, shard: int = 0) -> Entry:
    return Entry(shard, index, term, b"%d/%d/%d" % (shard, index, term))


def row(key: bytes, part: bytes = b"", body: bytes | None = b"body", deadline_ms: int | None = None) -> Row:
    return Row(key, part, b"s", deadline_ms, body)


def write_checkpoint(
    storage: Storage,
    *rows: Row,
    index: int = 1,
    term: int = 1,
    shard: int = 0,
    cleared: bool = False,
    erased: tuple[bytes, ...] = (),
) -> None:
    storage.begin_checkpoint(shard, cleared=cleared, erased=erased)
    storage.write_rows(shard, rows)
    storage.finish_checkpoint(shard, index, term, b"ledger %d" % index)


def install(storage: Storage, *rows: Row, index: int, term: int) -> None:
    storage.begin_checkpoint(0, cleared=True, erased=())
    storage.write_rows(0, rows)
    storage.finish_checkpoint(0, index, term, b"ledger", installed=True)


def keys(storage: Storage, shard: int = 0) -> list[bytes]:
    return [row.key for row in storage.rows(shard)]


@contextmanager
def the_log_refusing_its_reset(storage: Storage) -> Iterator[None]:
    """Whatever an install or a repair would write to the log fails; nothing else does."""
    if isinstance(storage, MemoryStorage):
        storage.fail_next["reset_log"] = StorageError("asked", definite=False)
        yield
    else:
        assert isinstance(storage, SqliteStorage)
        storage._log.execute(
            "CREATE TEMP TRIGGER refusing BEFORE INSERT ON main.emptied BEGIN SELECT RAISE(ABORT, 'asked'); END"
        )
        yield
        storage._log.execute("DROP TRIGGER refusing")


def opened(folder: Path, policy: SyncPolicy = SyncPolicy.ALWAYS) -> SqliteStorage:
    return SqliteStorage(folder, policy)


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """Every write past that size fails as an I/O error, in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def as_after_a_kill(folder: Path, to: Path) -> Path:
    """A copy of the files as they are, write-ahead logs and all; made by another process to spare our locks."""
    subprocess.run(["cp", "-r", folder, to], check=True)
    return to
