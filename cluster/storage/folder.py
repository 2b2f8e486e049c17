"""The data folder: who may use it, and what its files must be.

A folder is claimed before any file in it is opened: one process holds an
exclusive lock on ``lock`` for its whole life, and the kernel drops that lock
however the process ends. Every other file is an SQLite database that names
this program in its ``application_id`` and its format in ``user_version``.
Whatever is not so is left untouched and refused in one line.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from cluster.storage.contract import FolderError, StorageError

FORMAT: Final = 3
APPLICATION_ID: Final = 0x53504B54  # "SPKT"
LOCK_NAME: Final = "lock"

# Codes that mean SQLite gave up before the last frame of a transaction was written.
NOTHING_WRITTEN: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_TOOBIG}
)
PRIMARY_CODE: Final = 0xFF  # SQLite keeps the detail of an error in the bits above
BUSY_TIMEOUT_SECONDS: Final = 1.0


def claim(folder: Path, files: tuple[str, ...]) -> int:
    """Makes the folder if need be and locks it; gives the lock's descriptor.

    ``files`` are the names of which at least one must be there unless the
    folder is empty. Raises `FolderError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise _unusable(folder, error) from error
    strangers = [name for name in found if name not in (LOCK_NAME, "lost+found")]
    if strangers and not set(strangers) & set(files):
        raise FolderError(
            f"{folder} holds {strangers[0]!r} and no data of this program: choose an empty or a new folder with --dir"
        )
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise FolderError(
            f"{folder} is in use by another server (pid {holder}): stop it or choose another --dir"
        ) from error
    except OSError as error:
        os.close(lock)
        raise _unusable(folder, error) from error
    return lock


def prepare(path: Path, schema: tuple[str, ...]) -> None:
    """Creates the database at ``path``, or makes sure that it is one of ours. Raises `FolderError`."""
    with damage_refused(path), closing(connect(path)) as connection:
        _create_or_check(connection, path, schema)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in explicit-transaction mode, which any one thread at a time may use.

    The last one to close copies the write-ahead log into the file, however
    long that takes, unless it is ``read_only``.
    """
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
    )
    # Some builds overwrite what is deleted with zeros: pages we are about to reuse, written twice.
    connection.execute("PRAGMA secure_delete = OFF")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, name: str) -> Iterator[None]:
    """Commits what the block writes, all or nothing; ``name`` is the file's, for the message.

    Raises `StorageError`. It is definite unless the commit itself failed in a
    way that may have left its last frame in the write-ahead log, where a crash
    would find it.
    """
    committing = False
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        committing = True
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise refused(error, name, definite=not committing) from error
    finally:
        # A failing ROLLBACK changes nothing: the next BEGIN on this connection then fails as well.
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def refused(error: sqlite3.Error | OSError, name: str, *, definite: bool) -> StorageError:
    """The `StorageError` for a write that failed."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
    detail = getattr(error, "sqlite_errorname", "")
    text = f"{name}: {error}" + (f" ({detail})" if detail else "")
    return StorageError(text, definite=definite or code & PRIMARY_CODE in NOTHING_WRITTEN)


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Turns a failing read, or a write there is no going on without, into a `FolderError` that says what to do."""
    try:
        yield
    except (sqlite3.Error, OSError, StorageError) as error:
        raise _damaged(path, error) from error


def _create_or_check(connection: sqlite3.Connection, path: Path, schema: tuple[str, ...]) -> None:
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner == APPLICATION_ID and version > FORMAT:
        raise FolderError(
            f"{path} was written by a newer version (format {version}, this program reads up to {FORMAT}): "
            "upgrade the program or choose another --dir"
        )
    if owner == APPLICATION_ID and version < FORMAT:
        raise FolderError(
            f"{path} was written by an older version (format {version}), which this program does not read:"
            " start with an empty folder, or run the version that wrote it"
        )
    if owner != APPLICATION_ID and (owner or version or tables):
        raise FolderError(f"{path} is another program's database: choose another --dir")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise FolderError(f"{path.parent} is on a file system without shared memory: choose a local disk with --dir")
    if owner == APPLICATION_ID:
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement in schema:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def _damaged(path: Path, error: sqlite3.Error | OSError | StorageError) -> FolderError:
    match getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE:
        case sqlite3.SQLITE_NOTADB:
            return FolderError(f"{path} is not a database of this program: move it away or choose another --dir")
        case sqlite3.SQLITE_CORRUPT:
            return FolderError(f"{path} is damaged ({error}): restore the folder from a copy or choose another --dir")
        case _:
            return FolderError(f"{path} cannot be used ({error}): check the disk and its permissions, or choose --dir")


def _unusable(folder: Path, error: OSError) -> FolderError:
    reason = error.strerror or str(error)
    return FolderError(f"{folder} cannot be used ({reason}): make it a writable folder or choose another --dir")
