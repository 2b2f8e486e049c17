"""What SQLite does when the disk refuses, when it is killed, and what reaches the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cluster.storage import (
    Entry,
    HardState,
    Identity,
    SqliteStorage,
    StorageError,
    SyncPolicy,
)
from cluster.storage import sqlite as sqlite_storage
from cluster.storage.sqlite import RESET_AT_ONCE
from tests.unit.storages import (
    as_after_a_kill,
    entry,
    files_limited_to,
    install,
    keys,
    opened,
    row,
    write_checkpoint,
)


def test_a_full_disk_keeps_nothing_of_an_append_and_heals(folder: Path) -> None:
    with closing(opened(folder)) as storage:
        storage.append([entry(1)])
        storage._log.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size as the least
        with pytest.raises(StorageError, match="full") as refusal:
            storage.append([entry(2), Entry(0, 3, 1, b"x" * 100_000)])
        assert refusal.value.definite
        assert storage.load(0).last_index == 1
        storage.reopen()
        storage.append([entry(2)])
        assert list(storage.entries(0, 1)) == [entry(1), entry(2)]


def test_a_failing_replacement_keeps_what_it_would_have_replaced(folder: Path) -> None:
    with closing(opened(folder)) as storage:
        storage.append([entry(1), entry(2)])
        storage._log.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StorageError):
            storage.append([Entry(0, 2, 2, b"x" * 100_000)], [(0, HardState(2, "b"))])
        storage.reopen()
        assert list(storage.entries(0, 1)) == [entry(1), entry(2)]
        assert storage.load(0).hard_state == HardState()


def test_an_input_output_error_is_not_definite_and_reopen_tells(folder: Path, tmp_path: Path) -> None:
    with closing(opened(folder)) as storage:
        storage.append([entry(1)])
        with files_limited_to(1024):
            with pytest.raises(StorageError) as refusal:
                storage.append([Entry(0, 2, 1, b"x" * 100_000)])
            assert not refusal.value.definite
            with pytest.raises(StorageError):
                storage.reopen()
            with pytest.raises(StorageError):
                storage.append([entry(2)])
            with pytest.raises(StorageError):
                storage.cut_log(0, 1, 1)
        storage.reopen()
        assert storage.load(0).last_index == 1
        storage.append([entry(2)])
        storage.sync()
        with closing(opened(as_after_a_kill(folder, tmp_path / "copy"))) as copy:
            assert list(copy.entries(0, 1)) == [entry(1), entry(2)]


def test_a_sync_while_the_log_is_closed_fails_as_a_storage_error(folder: Path) -> None:
    with closing(opened(folder, SyncPolicy.EVERYSEC)) as storage:
        storage._close_log()
        with pytest.raises(StorageError) as refusal:
            storage.sync()
        assert not refusal.value.definite
        storage.set_policy(SyncPolicy.ALWAYS)
        storage.reopen()
        assert storage._log.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        storage.sync()


@pytest.mark.parametrize("step", ["begin", "write", "finish"])
def test_a_failing_checkpoint_leaves_the_former_and_can_be_tried_again(folder: Path, step: str) -> None:
    rows = [row(b"%05d" % n, body=b"x" * 1000) for n in range(100)]
    with closing(opened(folder)) as storage:
        write_checkpoint(storage, row(b"old"))
        former = storage.load(0)
        if step == "begin":
            with closing(sqlite3.connect(folder / "keyspace.sqlite")) as stranger:
                stranger.execute("BEGIN IMMEDIATE")
                with pytest.raises(StorageError, match="locked"):
                    storage.begin_checkpoint(0, cleared=True, erased=[])
        else:
            storage.begin_checkpoint(0, cleared=True, erased=[])
            if step == "write":
                assert storage._checkpoint is not None
                storage._checkpoint[1].execute("PRAGMA max_page_count = 1")
                with pytest.raises(StorageError, match="full"):
                    storage.write_rows(0, rows)
            else:
                storage.write_rows(0, rows)
                with files_limited_to(1024), pytest.raises(StorageError):
                    storage.finish_checkpoint(0, 2, 1, b"")
        with pytest.raises(RuntimeError):
            storage.write_rows(0, rows)
        storage.abandon_checkpoint()
        assert (keys(storage), storage.load(0)) == ([b"old"], former)
        write_checkpoint(storage, *rows, index=2)
        assert len(keys(storage)) == 101


def test_small_checkpoints_leave_their_write_ahead_log_to_the_next(folder: Path) -> None:
    """Copying it costs three syncs: too many where each of a hundred shards has a little to write."""
    keyspace, wal = folder / "keyspace.sqlite", folder / "keyspace.sqlite-wal"
    with closing(opened(folder)) as storage:
        before = keyspace.read_bytes()
        for shard in range(20):
            write_checkpoint(storage, row(b"a"), shard=shard)
        assert keyspace.read_bytes() == before
        assert 0 < wal.stat().st_size < 1_000_000
        snapshot = storage.snapshot(3)
        assert snapshot is not None
        assert list(snapshot.rows) == [row(b"a")]
    assert not wal.exists() or wal.stat().st_size == 0
    with closing(opened(folder)) as storage:
        assert [keys(storage, shard) for shard in range(20)] == [[b"a"]] * 20


def test_a_checkpoint_gives_back_its_write_ahead_log(folder: Path) -> None:
    rows = [row(b"%05d" % n, body=b"x" * 1000) for n in range(5000)]
    with closing(opened(folder)) as storage:
        wal = folder / "keyspace.sqlite-wal"
        for finished in (False, True):
            storage.begin_checkpoint(0, cleared=False, erased=[])
            storage.write_rows(0, rows)
            if finished:
                storage.finish_checkpoint(0, 1, 1, b"")
            else:
                storage.abandon_checkpoint()
            assert not wal.exists() or wal.stat().st_size == 0


def test_what_was_finished_beside_a_snapshot_is_copied_by_the_next_checkpoint(folder: Path) -> None:
    """Not by closing the snapshot: the loop does that, and has no time for it."""
    rows = [row(b"%05d" % n, body=b"x" * 1000) for n in range(1000)]
    keyspace, wal = folder / "keyspace.sqlite", folder / "keyspace.sqlite-wal"
    with closing(opened(folder)) as storage:
        write_checkpoint(storage, row(b"a"))
        snapshot = storage.snapshot(0)
        assert snapshot is not None
        write_checkpoint(storage, *rows, index=2)
        before = keyspace.read_bytes()
        snapshot.close()
        assert keyspace.read_bytes() == before
        assert wal.stat().st_size > 1_000_000
        write_checkpoint(storage, row(b"b"), index=3)
        assert not wal.exists() or wal.stat().st_size == 0
        assert len(keys(storage)) == 1002


def test_a_kill_after_the_keys_of_an_install_is_repaired(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files as a killed process leaves them, before and after each of the two commits."""
    copies = [tmp_path / name for name in ("before", "between", "after")]
    reset = SqliteStorage._reset_log

    def copy_and_reset(storage: SqliteStorage, shard: int, index: int, term: int) -> None:
        as_after_a_kill(folder, copies[1])
        reset(storage, shard, index, term)

    with closing(opened(folder)) as storage:
        storage.append([entry(index) for index in range(1, 12)])
        write_checkpoint(storage, row(b"old"), index=2)
        storage.begin_checkpoint(0, cleared=True, erased=())
        storage.write_rows(0, [row(b"new")])
        as_after_a_kill(folder, copies[0])
        with monkeypatch.context() as patched:
            patched.setattr(SqliteStorage, "_reset_log", copy_and_reset)
            storage.finish_checkpoint(0, 9, 4, b"ledger", installed=True)
        as_after_a_kill(folder, copies[2])
    found = []
    for copy in copies:
        with closing(opened(copy)) as survivor:
            entries_found = len(list(survivor.entries(0, 1)))
            last_index = survivor.load(0).last_index
            found.append((keys(survivor), entries_found, last_index, len(list(survivor.entries(0, 1)))))
    assert found == [([b"old"], 11, 11, 11), ([b"new"], 11, 9, 1), ([b"new"], 1, 9, 1)]


@pytest.mark.parametrize("index", [0, 9, 20])
def test_a_kill_while_a_long_log_is_emptied_is_repaired(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    """The files as a killed process leaves them between two of the pieces it goes by; index 0 gives the replica up."""
    monkeypatch.setattr(sqlite_storage, "RESET_AT_ONCE", 4)
    copies: list[Path] = []
    delete = SqliteStorage._delete_first

    def copy_and_delete(storage: SqliteStorage, shard: int, last: int, limit: int) -> bool:
        copies.append(as_after_a_kill(folder, tmp_path / f"before piece {len(copies)}"))
        return delete(storage, shard, last, limit)

    with closing(opened(folder)) as storage:
        storage.append([entry(number) for number in range(1, 12)], [(0, HardState(2, "a"))])
        monkeypatch.setattr(SqliteStorage, "_delete_first", copy_and_delete)
        install(storage, *([row(b"new")] if index else []), index=index, term=4 if index else 0)
        left = list(storage.entries(0, 1))
    assert len(copies) == 2
    assert [one.index for one in left] == ([index] if index else [])
    monkeypatch.undo()
    for copy in copies:
        with closing(opened(copy)) as survivor:
            assert survivor.load(0).last_index == index
            assert (list(survivor.entries(0, 1)), keys(survivor)) == (left, [b"new"] if index else [])
            assert survivor.load(0).hard_state == HardState(2, "a")


def test_appends_come_between_while_a_long_log_is_emptied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits has the log as soon as the piece under way is deleted."""
    monkeypatch.setattr(sqlite_storage, "RESET_AT_ONCE", 4)
    tails: list[int] = []  # of the other shard, before each piece
    appending: list[threading.Thread] = []
    delete = SqliteStorage._delete

    def delete_while_another_waits(storage: SqliteStorage, places: list[int]) -> None:
        tails.append(storage._known_order().tail(1))
        if not appending:
            appending.append(threading.Thread(target=append))
            appending[0].start()
            while not storage._log_use._next.locked():
                assert appending[0].is_alive()
        delete(storage, places)

    def append() -> None:
        storage.append([entry(1, shard=1)])

    with closing(opened(folder)) as storage:
        storage.append([entry(number) for number in range(1, 20)])
        monkeypatch.setattr(SqliteStorage, "_delete", delete_while_another_waits)
        install(storage, row(b"new"), index=30, term=1)
        appending[0].join()
        assert list(storage.entries(1, 1)) == [entry(1, shard=1)]
    assert tails == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("policy", SyncPolicy)
def test_what_must_be_durable_is_synced_whatever_the_policy(folder: Path, policy: SyncPolicy) -> None:
    """SQLite's own levels at each commit (2 is FULL); in between the policy's is back."""
    of_the_policy = 2 if policy is SyncPolicy.ALWAYS else 1
    with closing(opened(folder, policy)) as storage:

        def levels(step: Callable[[], object]) -> list[int]:
            found: list[int] = []
            level = of_the_policy

            def watch(statement: str) -> None:
                nonlocal level
                if statement.startswith("PRAGMA synchronous"):
                    level = 2 if statement.endswith("FULL") else 1
                elif statement == "COMMIT":
                    found.append(level)

            storage._log.set_trace_callback(watch)
            step()
            storage._log.set_trace_callback(None)
            assert storage._log.execute("PRAGMA synchronous").fetchone() == (of_the_policy,)
            return found

        assert levels(lambda: storage.claim(Identity("c", "n1", "d"))) == [2]
        assert levels(lambda: storage.append([entry(1)])) == [of_the_policy]
        assert levels(lambda: storage.append([], [(0, HardState(1, "n1"))])) == [2]
        assert levels(lambda: storage.append([entry(2)], [(0, HardState(2, "n1"))])) == [2]
        assert levels(lambda: storage.append([entry(1, shard=1), entry(1, shard=2)])) == [of_the_policy]
        assert levels(lambda: install(storage, row(b"a"), index=9, term=4)) == [2]
        write_checkpoint(storage, row(b"a"), index=20, term=4)
        assert levels(lambda: storage.load(0)) == [2]
        assert levels(lambda: storage.load(0)) == []
        storage.append([entry(number) for number in range(21, 22 + RESET_AT_ONCE)])
        assert levels(lambda: storage.cut_log(0, 30, 100)) == [1], "the next append's sync is for this, too"
        assert levels(lambda: install(storage, row(b"a"), index=9999, term=5)) == [1, 2], "what is written lasts"


def test_an_install_while_the_log_is_closed_fails_as_a_storage_error(folder: Path) -> None:
    with closing(opened(folder)) as storage:
        storage.append([entry(1)])
        storage._close_log()
        with pytest.raises(StorageError):
            install(storage, row(b"a"), index=9, term=4)
        storage.reopen()
        install(storage, row(b"b"), index=9, term=4)
        assert (keys(storage), list(storage.entries(0, 1))) == ([b"b"], [Entry(0, 9, 4, b"")])


def test_the_log_file_stays_small_when_it_is_cut(folder: Path) -> None:
    with closing(opened(folder, SyncPolicy.NO)) as storage:
        for index in range(1, 2001):
            storage.append([Entry(0, index, 1, b"x" * 3000)])
            if index % 100 == 0:
                storage.cut_log(0, index - 50, 1000)
    assert (folder / "log.sqlite").stat().st_size < 200 * 3000 * 2


def test_a_kill_loses_nothing_acknowledged_and_drops_the_checkpoint_under_way(folder: Path, tmp_path: Path) -> None:
    with closing(opened(folder)) as storage:
        write_checkpoint(storage, row(b"old"), index=1)
        storage.append([entry(index) for index in range(2, 10)], [(0, HardState(1, "a"))])
        storage.begin_checkpoint(0, cleared=True, erased=[])
        storage.write_rows(0, [row(b"%06d" % n, body=b"x" * 100) for n in range(1_000)])
        copy = as_after_a_kill(folder, tmp_path / "copy")
    with closing(opened(copy)) as survivor:
        assert keys(survivor) == [b"old"]
        assert [entry.index for entry in survivor.entries(0, 1)] == list(range(2, 10))
        assert survivor.load(0).hard_state == HardState(1, "a")


def test_sync_reaches_the_write_ahead_log_that_is_in_use(folder: Path) -> None:
    """However often SQLite reuses the file, the descriptor held for `sync` is still the one with the name."""
    with closing(opened(folder, SyncPolicy.EVERYSEC)) as storage:
        for index in range(1, 30):
            storage.append([Entry(0, index, 1, b"x" * 500_000)])
            storage.sync()
        held, named = resource_of(storage._wal), (folder / "log.sqlite-wal").stat()
        assert held == (named.st_dev, named.st_ino)


def resource_of(descriptor: int) -> tuple[int, int]:
    status = Path(f"/dev/fd/{descriptor}").stat()
    return status.st_dev, status.st_ino
