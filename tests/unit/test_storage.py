"""The storage contract's laws, run over SQLite and its twin in memory, then what only one of them has."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest

from cluster.storage import (
    Entry,
    FolderError,
    HardState,
    Identity,
    MemoryStorage,
    Recovered,
    Row,
    SqliteStorage,
    Storage,
    StorageError,
    SyncPolicy,
)

NOTHING = Recovered(HardState(), checkpoint_index=0, checkpoint_term=0, ledger=b"", last_index=0)


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


@pytest.fixture(params=["sqlite", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "sqlite":
        folder = tmp_path / "data"
        disk = Disk(SqliteStorage(folder, SyncPolicy.ALWAYS), lambda _: SqliteStorage(folder, SyncPolicy.ALWAYS))
    else:

        def power_cut(storage: Storage) -> Storage:
            assert isinstance(storage, MemoryStorage)
            return storage.crash()

        disk = Disk(MemoryStorage(), power_cut)
    yield disk
    disk.storage.close()


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


def keys(storage: Storage, shard: int = 0) -> list[bytes]:
    return [row.key for row in storage.rows(shard)]


# The log


def test_a_new_storage_holds_nothing(disk: Disk) -> None:
    assert disk.storage.load(0) == NOTHING
    assert list(disk.storage.rows(0)) == []
    assert list(disk.storage.entries(0, 1)) == []


def test_entries_come_back_in_order_from_any_index(disk: Disk) -> None:
    entries = [entry(index) for index in range(1, 101)]
    disk.storage.append(entries[:60])
    disk.storage.append(entries[60:])
    for first in (0, 1, 33, 64, 100, 101):
        assert list(disk.storage.entries(0, first)) == entries[max(first - 1, 0) :]
    storage = disk.restart()
    assert storage.load(0).last_index == 100
    for first in (0, 1, 33, 64, 100, 101):
        assert list(storage.entries(0, first)) == entries[max(first - 1, 0) :]


def test_shards_keep_to_themselves(disk: Disk) -> None:
    mixed = [entry(1, shard=0), entry(1, shard=16383), entry(2, shard=0), entry(1, shard=1)]
    disk.storage.append(mixed)
    write_checkpoint(disk.storage, row(b"a"), shard=1)
    storage = disk.restart()
    assert list(storage.entries(0, 1)) == [mixed[0], mixed[2]]
    assert list(storage.entries(16383, 1)) == [mixed[1]]
    assert (keys(storage, 0), keys(storage, 1)) == ([], [b"a"])
    assert storage.load(2) == NOTHING


def test_an_entry_replaces_its_index_and_all_after_it_in_its_shard(disk: Disk) -> None:
    disk.storage.append([entry(index) for index in range(1, 6)] + [entry(9, shard=1)])
    disk.storage.append([entry(3, term=2)])
    expected = [entry(1), entry(2), entry(3, term=2)]
    assert list(disk.storage.entries(0, 1)) == expected
    disk.storage.append([entry(4, term=2), entry(4, term=3)])
    expected.append(entry(4, term=3))
    storage = disk.restart()
    assert list(storage.entries(0, 1)) == expected
    assert list(storage.entries(1, 1)) == [entry(9, shard=1)]
    assert storage.load(0).last_index == 4


def test_hard_state_is_kept_with_and_without_entries(disk: Disk) -> None:
    disk.storage.append([entry(1)], (0, HardState(3, "node-a")))
    disk.storage.append([], (1, HardState(7, "")))
    disk.storage.append([])
    assert disk.storage.load(0).hard_state == HardState(3, "node-a")
    disk.storage.append([], (0, HardState(4, "node-b")))
    storage = disk.restart()
    assert storage.load(0).hard_state == HardState(4, "node-b")
    assert storage.load(1).hard_state == HardState(7, "")
    assert list(storage.entries(0, 1)) == [entry(1)]


def test_the_log_is_cut_in_slices(disk: Disk) -> None:
    disk.storage.append([entry(index) for index in range(1, 11)] + [entry(1, shard=1)])
    left = []
    while True:
        more = disk.storage.cut_log(0, last=8, limit=3)
        left.append([entry.index for entry in disk.storage.entries(0, 1)])
        if not more:
            break
    assert left == [[4, 5, 6, 7, 8, 9, 10], [7, 8, 9, 10], [9, 10]]
    assert disk.storage.cut_log(0, last=8, limit=3) is False
    assert disk.storage.cut_log(5, last=8, limit=3) is False
    storage = disk.restart()
    assert [entry.index for entry in storage.entries(0, 1)] == [9, 10]
    assert list(storage.entries(1, 1)) == [entry(1, shard=1)]


def test_the_entry_the_checkpoint_ends_with_is_never_cut(disk: Disk) -> None:
    disk.storage.append([entry(index) for index in range(1, 5)])
    write_checkpoint(disk.storage, row(b"a"), index=3)
    assert disk.storage.cut_log(0, last=9, limit=100) is False
    assert list(disk.restart().entries(0, 1)) == [entry(3), entry(4)]


def test_a_checkpoint_ahead_of_its_log_leaves_a_marker(disk: Disk) -> None:
    """What was carried out before this disk had it is in the checkpoint; what the log would go on with is not."""
    disk.storage.append([entry(index) for index in range(1, 3)])
    write_checkpoint(disk.storage, row(b"a"), index=7)
    storage = disk.restart()
    assert storage.load(0).last_index == 7
    assert list(storage.entries(0, 1)) == [Entry(0, 7, 1, b"")]
    storage.append([entry(8)])
    assert list(disk.restart().entries(0, 1)) == [Entry(0, 7, 1, b""), entry(8)]


def test_a_log_of_another_term_does_not_continue_the_checkpoint(disk: Disk) -> None:
    disk.storage.append([entry(1), entry(2), entry(3)])
    write_checkpoint(disk.storage, row(b"a"), index=2, term=5)
    storage = disk.restart()
    assert storage.load(0).last_index == 2
    assert list(storage.entries(0, 1)) == [Entry(0, 2, 5, b"")]


@contextmanager
def the_log_refusing_its_reset(storage: Storage) -> Iterator[None]:
    """Whatever an install or a repair would write to the log fails; nothing else does."""
    if isinstance(storage, MemoryStorage):
        storage.fail_next["reset_log"] = StorageError("asked", definite=False)
        yield
    else:
        assert isinstance(storage, SqliteStorage)
        storage._log.execute(
            "CREATE TEMP TRIGGER refusing BEFORE INSERT ON main.log WHEN length(NEW.payload) = 0"
            " BEGIN SELECT RAISE(ABORT, 'asked'); END"
        )
        yield
        storage._log.execute("DROP TRIGGER refusing")


def install(storage: Storage, *rows: Row, index: int, term: int) -> None:
    storage.begin_checkpoint(0, cleared=True, erased=())
    storage.write_rows(0, rows)
    storage.finish_checkpoint(0, index, term, b"ledger", installed=True)


def test_an_installed_snapshot_replaces_keys_and_log(disk: Disk) -> None:
    disk.storage.append([entry(index) for index in range(1, 12)] + [entry(1, shard=1)], (0, HardState(4, "n2")))
    write_checkpoint(disk.storage, row(b"old"), index=2)
    install(disk.storage, row(b"new"), index=9, term=4)
    storage = disk.restart()
    assert storage.load(0) == Recovered(HardState(4, "n2"), 9, 4, b"ledger", 9)
    assert list(storage.rows(0)) == [row(b"new")]
    assert list(storage.entries(0, 1)) == [Entry(0, 9, 4, b"")]
    assert list(storage.entries(1, 1)) == [entry(1, shard=1)]


@pytest.mark.parametrize("policy", SyncPolicy)
@pytest.mark.parametrize("last", [0, 5, 9, 11])
def test_an_install_that_fails_between_its_two_files_is_repaired(disk: Disk, policy: SyncPolicy, last: int) -> None:
    """Wherever the former log ends: `load` mends it, at once or after the crash, and that holds from then on."""
    disk.storage.set_policy(policy)
    disk.storage.append([entry(index) for index in range(1, last + 1)], (0, HardState(4, "n2")))
    with the_log_refusing_its_reset(disk.storage), pytest.raises(StorageError):
        install(disk.storage, row(b"new"), index=9, term=4)
    marker = [Entry(0, 9, 4, b"")]
    for at_once in (True, False):
        storage = disk.storage if at_once else disk.restart()
        assert storage.load(0) == Recovered(HardState(4, "n2"), 9, 4, b"ledger", 9)
        assert list(storage.entries(0, 1)) == marker
        assert list(storage.rows(0)) == [row(b"new")]
    disk.storage.append([entry(10, term=4)])
    assert list(disk.restart().entries(0, 1)) == [*marker, entry(10, term=4)]


@pytest.mark.parametrize("how", ["installed again", "loaded", "written whole"])
def test_nothing_is_added_to_a_snapshot_its_node_does_not_know(disk: Disk, how: str) -> None:
    """The install failed behind its first commit, so its node still has the state, and the changes, from before."""
    disk.storage.append([entry(index) for index in range(1, 6)])
    write_checkpoint(disk.storage, row(b"old"), index=2)
    with the_log_refusing_its_reset(disk.storage), pytest.raises(StorageError):
        install(disk.storage, row(b"new"), index=9, term=4)
    with pytest.raises(StorageError, match="installed in part") as refusal:
        disk.storage.begin_checkpoint(0, cleared=False, erased=())
    assert refusal.value.definite
    write_checkpoint(disk.storage, row(b"elsewhere"), shard=1)
    match how:
        case "installed again":
            install(disk.storage, row(b"newer"), index=10, term=4)
        case "loaded":
            disk.storage.load(0)
        case "written whole":
            write_checkpoint(disk.storage, row(b"whole"), index=5, cleared=True)
    write_checkpoint(disk.storage, row(b"z"), index=11, term=4)
    expected = {"installed again": b"newer", "loaded": b"new", "written whole": b"whole"}[how]
    assert keys(disk.restart()) == [expected, b"z"]


def test_a_repair_that_cannot_be_written_refuses_the_folder(disk: Disk) -> None:
    disk.storage.append([entry(1)])
    write_checkpoint(disk.storage, row(b"a"), index=7)
    with the_log_refusing_its_reset(disk.storage), pytest.raises(FolderError, match="cannot be used"):
        disk.storage.load(0)
    assert disk.restart().load(0).last_index == 7
    assert list(disk.storage.entries(0, 1)) == [Entry(0, 7, 1, b"")]


def test_an_install_goes_on_where_one_was_abandoned(disk: Disk) -> None:
    disk.storage.append([entry(index) for index in range(1, 4)])
    write_checkpoint(disk.storage, row(b"old"), index=2)
    disk.storage.begin_checkpoint(0, cleared=True, erased=())
    disk.storage.write_rows(0, [row(b"half")])
    storage = disk.restart()
    assert (keys(storage), storage.load(0).last_index) == ([b"old"], 3)
    assert list(storage.entries(0, 1)) == [entry(1), entry(2), entry(3)]
    install(storage, row(b"new"), index=9, term=4)
    storage.append([entry(10, term=4)])
    assert storage.cut_log(0, last=10, limit=100) is False
    assert list(disk.restart().entries(0, 1)) == [Entry(0, 9, 4, b""), entry(10, term=4)]


def test_a_log_that_catches_up_with_its_checkpoint_is_kept(disk: Disk) -> None:
    """Entries carried out before this disk had them: once it has them there is nothing to repair."""
    disk.storage.append([entry(1), entry(2)])
    write_checkpoint(disk.storage, row(b"a"), index=4)
    assert disk.storage.cut_log(0, last=4, limit=100) is False
    disk.storage.append([entry(3), entry(4), entry(5)])
    storage = disk.restart()
    assert storage.load(0).last_index == 5
    assert list(storage.entries(0, 1)) == [entry(3), entry(4), entry(5)]


def test_a_checkpoint_before_the_first_entry_needs_no_marker(disk: Disk) -> None:
    write_checkpoint(disk.storage, row(b"a"), index=0, term=0)
    storage = disk.restart()
    assert storage.load(0).last_index == 0
    assert list(storage.entries(0, 0)) == []
    storage.append([entry(1)])
    assert storage.cut_log(0, last=1, limit=100) is False
    assert list(disk.restart().entries(0, 1)) == [entry(1)]


def test_a_snapshot_is_one_view(disk: Disk) -> None:
    assert disk.storage.snapshot(0) is None
    disk.storage.append([entry(index) for index in range(1, 10)])
    write_checkpoint(disk.storage, row(b"a"), row(b"b"), index=3)
    snapshot = disk.storage.snapshot(0)
    assert snapshot is not None
    write_checkpoint(disk.storage, row(b"c"), index=5)
    assert (snapshot.index, snapshot.term) == (3, 1)
    assert list(snapshot.rows) == [row(b"a"), row(b"b")]
    snapshot.close()
    later = disk.storage.snapshot(0)
    assert later is not None
    assert (later.index, [one.key for one in later.rows]) == (5, [b"a", b"b", b"c"])
    assert disk.storage.snapshot(1) is None


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_snapshot_is_read_and_closed_by_any_thread(disk: Disk, taken: int) -> None:
    write_checkpoint(disk.storage, *(row(b"%d" % n) for n in range(5)))
    snapshot = disk.storage.snapshot(0)
    assert snapshot is not None
    found: list[Row] = []
    reader = threading.Thread(target=lambda: found.extend(islice(snapshot.rows, taken)))
    reader.start()
    reader.join()
    assert found == [row(b"%d" % n) for n in range(taken)]
    closer = threading.Thread(target=snapshot.close)
    closer.start()
    closer.join()
    assert list(snapshot.rows) == []
    write_checkpoint(disk.storage, row(b"later"), index=2)
    assert len(keys(disk.restart())) == 6


def test_a_folder_is_one_node_s(disk: Disk) -> None:
    assert disk.storage.identity() is None
    disk.storage.claim(Identity("c", "n1", "d"))
    storage = disk.restart()
    assert storage.identity() == Identity("c", "n1", "d")
    storage.claim(Identity("c", "n1", "d"))
    for other in (Identity("c", "n2", "d"), Identity("c2", "n1", "d"), Identity("c", "n1", "d2")):
        with pytest.raises(FolderError, match="belongs to node n1 of cluster c"):
            storage.claim(other)
    assert disk.restart().identity() == Identity("c", "n1", "d")


@pytest.mark.parametrize("policy", SyncPolicy)
def test_a_vote_alone_is_kept(disk: Disk, policy: SyncPolicy) -> None:
    disk.storage.set_policy(policy)
    disk.storage.append([], (0, HardState(3, "n2")))
    if policy is SyncPolicy.NO:
        disk.storage.sync()
    assert disk.restart().load(0).hard_state == HardState(3, "n2")


@pytest.mark.parametrize("policy", SyncPolicy)
def test_every_policy_keeps_entries_over_a_restart(disk: Disk, policy: SyncPolicy) -> None:
    disk.storage.append([entry(1)])
    disk.storage.set_policy(policy)
    disk.storage.append([entry(2)])
    disk.storage.sync()
    disk.storage.append([entry(3)])
    assert list(disk.restart().entries(0, 1)) == [entry(1), entry(2), entry(3)]


def test_reopening_keeps_everything_and_takes_writes(disk: Disk) -> None:
    disk.storage.append([entry(1), entry(2)], (0, HardState(1, "a")))
    disk.storage.reopen()
    disk.storage.append([entry(3)])
    disk.storage.sync()
    storage = disk.restart()
    assert list(storage.entries(0, 1)) == [entry(1), entry(2), entry(3)]
    assert storage.load(0).hard_state == HardState(1, "a")


def test_binary_and_large_payloads_are_untouched(disk: Disk) -> None:
    payloads = [b"", bytes(range(256)), b"\x00" * 3_000_000]
    entries = [Entry(0, index, 1, payload) for index, payload in enumerate(payloads, 1)]
    disk.storage.append(entries)
    write_checkpoint(disk.storage, *(row(b"k%d" % n, body=body) for n, body in enumerate(payloads)))
    storage = disk.restart()
    assert list(storage.entries(0, 1)) == entries
    assert [row.body for row in storage.rows(0)] == payloads


# The checkpoint


def test_a_checkpoint_shows_when_finished_and_not_before(disk: Disk) -> None:
    write_checkpoint(disk.storage, row(b"old"), index=5)
    former = disk.storage.load(0)
    disk.storage.begin_checkpoint(0, cleared=False, erased=[b"old"])
    disk.storage.write_rows(0, [row(b"new")])
    assert (keys(disk.storage), disk.storage.load(0)) == ([b"old"], former)
    disk.storage.finish_checkpoint(0, 9, 2, b"later")
    assert keys(disk.storage) == [b"new"]
    expected = Recovered(HardState(), checkpoint_index=9, checkpoint_term=2, ledger=b"later", last_index=9)
    assert disk.storage.load(0) == expected
    assert (keys(disk.restart()), disk.storage.load(0)) == ([b"new"], expected)


@pytest.mark.parametrize("how", ["abandoned", "closed"])
def test_an_unfinished_checkpoint_leaves_the_former(disk: Disk, how: str) -> None:
    write_checkpoint(disk.storage, row(b"old"), index=5)
    former = disk.storage.load(0)
    disk.storage.begin_checkpoint(0, cleared=True, erased=[])
    disk.storage.write_rows(0, [row(b"new%d" % n) for n in range(500)])
    if how == "abandoned":
        disk.storage.abandon_checkpoint()
        disk.storage.abandon_checkpoint()
    else:
        disk.restart()
    assert (keys(disk.storage), disk.storage.load(0)) == ([b"old"], former)
    write_checkpoint(disk.storage, row(b"third"), index=6)
    assert keys(disk.restart()) == [b"old", b"third"]


def test_only_the_checkpoint_under_way_can_be_written(disk: Disk) -> None:
    with pytest.raises(RuntimeError):
        disk.storage.write_rows(0, [row(b"a")])
    disk.storage.begin_checkpoint(0, cleared=False, erased=[])
    with pytest.raises(RuntimeError):
        disk.storage.begin_checkpoint(0, cleared=False, erased=[])
    with pytest.raises(RuntimeError):
        disk.storage.finish_checkpoint(1, 1, 1, b"")
    disk.storage.finish_checkpoint(0, 1, 1, b"")
    with pytest.raises(RuntimeError):
        disk.storage.finish_checkpoint(0, 1, 1, b"")


def test_rows_are_added_replaced_and_deleted_in_the_order_given(disk: Disk) -> None:
    write_checkpoint(disk.storage, row(b"a"), row(b"b"), row(b"c", deadline_ms=10))
    write_checkpoint(
        disk.storage,
        row(b"a", body=b"again", deadline_ms=2**53),
        row(b"b", body=None),
        row(b"d"),
        row(b"d", body=None),
        row(b"e", body=None),
        row(b"e", body=b"back"),
        index=2,
    )
    expected = [row(b"a", body=b"again", deadline_ms=2**53), row(b"c", deadline_ms=10), row(b"e", body=b"back")]
    assert list(disk.restart().rows(0)) == expected


def test_erased_keys_lose_all_their_parts_and_cleared_drops_the_shard(disk: Disk) -> None:
    write_checkpoint(disk.storage, row(b"q"), row(b"q", b"1"), row(b"q", b"2"), row(b"qq"))
    write_checkpoint(disk.storage, row(b"x"), shard=1)
    write_checkpoint(disk.storage, row(b"q", b"3"), index=2, erased=(b"q", b"absent"))
    assert [(row.key, row.part) for row in disk.storage.rows(0)] == [(b"q", b"3"), (b"qq", b"")]
    write_checkpoint(disk.storage, row(b"z"), index=3, cleared=True)
    storage = disk.restart()
    assert (keys(storage, 0), keys(storage, 1)) == ([b"z"], [b"x"])


def test_rows_come_by_key_then_part(disk: Disk) -> None:
    names = [b"\xff", b"b", b"", b"a\x00", b"a", b"ab", b"\x00"]
    rows = [row(key, part) for key in names for part in (b"2", b"", b"10")]
    write_checkpoint(disk.storage, *rows)
    found = list(disk.restart().rows(0))
    assert found == sorted(rows, key=lambda row: (row.key, row.part))
    assert all(type(row) is Row for row in found)


def test_a_reader_keeps_its_view_while_a_checkpoint_is_finished(disk: Disk) -> None:
    write_checkpoint(disk.storage, *(row(b"%03d" % n, body=b"old") for n in range(200)))
    reader = disk.storage.rows(0)
    first = next(reader)
    write_checkpoint(disk.storage, *(row(b"%03d" % n, body=b"new") for n in range(300)), index=2)
    assert {row.body for row in [first, *reader]} == {b"old"}
    assert [row.body for row in disk.storage.rows(0)] == [b"new"] * 300


def test_the_log_is_written_while_another_thread_writes_a_checkpoint(disk: Disk) -> None:
    begun, appended = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def checkpoint() -> None:
        try:
            disk.storage.begin_checkpoint(0, cleared=False, erased=[])
            begun.set()
            disk.storage.write_rows(0, [row(b"%05d" % n) for n in range(5000)])
            assert appended.wait(30)
            disk.storage.finish_checkpoint(0, 1, 1, b"")
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    worker = threading.Thread(target=checkpoint)
    worker.start()
    assert begun.wait(30)
    for index in range(1, 51):
        disk.storage.append([entry(index)])
    disk.storage.sync()
    appended.set()
    worker.join()
    assert failures == []
    storage = disk.restart()
    assert (len(keys(storage)), storage.load(0).last_index) == (5000, 50)


# Only SQLite: the folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def opened(folder: Path, policy: SyncPolicy = SyncPolicy.ALWAYS) -> SqliteStorage:
    return SqliteStorage(folder, policy)


def test_a_folder_in_use_is_refused_until_it_is_closed(folder: Path) -> None:
    first = opened(folder)
    first.append([entry(1)])
    with pytest.raises(FolderError, match=r"in use by another server \(pid \d+\)"):
        opened(folder)
    first.append([entry(2)])
    first.close()
    with closing(opened(folder)) as second:
        assert second.load(0).last_index == 2


@pytest.mark.parametrize("name", ["log.sqlite", "keyspace.sqlite"])
def test_a_newer_format_is_refused_and_left_alone(folder: Path, name: str) -> None:
    opened(folder).close()
    with closing(sqlite3.connect(folder / name)) as database:
        database.execute("PRAGMA user_version = 99")
    before = (folder / name).read_bytes()
    with pytest.raises(FolderError, match=r"newer version \(format 99, this program reads up to 2\): upgrade"):
        opened(folder)
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("name", ["log.sqlite", "keyspace.sqlite"])
def test_an_older_format_is_refused_and_left_alone(folder: Path, name: str) -> None:
    opened(folder).close()
    with closing(sqlite3.connect(folder / name)) as database:
        database.execute("PRAGMA user_version = 1")
    before = (folder / name).read_bytes()
    with pytest.raises(
        FolderError, match=rf"{name} was written by an older version \(format 1\).*: start with an empty"
    ):
        opened(folder)
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("name", ["log.sqlite", "keyspace.sqlite"])
@pytest.mark.parametrize(
    ("statement", "complaint"),
    [("PRAGMA application_id = 7", "another program's"), ("CREATE TABLE t (x)", "another program's")],
)
def test_another_programs_database_is_refused_and_left_alone(
    folder: Path, name: str, statement: str, complaint: str
) -> None:
    opened(folder).close()
    (folder / name).unlink()
    with closing(sqlite3.connect(folder / name)) as database:
        database.execute(statement)
    before = (folder / name).read_bytes()
    with pytest.raises(FolderError, match=complaint):
        opened(folder)
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("name", ["log.sqlite", "keyspace.sqlite"])
def test_a_file_that_is_no_database_is_refused(folder: Path, name: str) -> None:
    opened(folder).close()
    (folder / name).write_bytes(b"this is text, not a database" * 100)
    with pytest.raises(FolderError, match=rf"{name} is not a database of this program: .*--dir"):
        opened(folder)


def test_a_damaged_log_is_refused_when_read(folder: Path) -> None:
    with closing(opened(folder)) as storage:
        storage.append([Entry(0, index, 1, b"x" * 3000) for index in range(1, 200)])
    path = folder / "log.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xa5" * (len(content) - 8192))
    with pytest.raises(FolderError, match=r"log.sqlite is damaged .* restore"), closing(opened(folder)) as storage:
        list(storage.entries(0, 1))


def test_a_foreign_folder_is_refused_and_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("chapter one")
    with pytest.raises(FolderError, match=r"'thesis\.txt'.*--dir"):
        opened(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_hidden_files_and_lost_and_found_do_not_make_a_folder_foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / ".gitkeep").touch()
    (folder / "lost+found").mkdir()
    opened(folder).close()
    assert (folder / "log.sqlite").exists()


@pytest.mark.parametrize("missing", ["log.sqlite", "keyspace.sqlite"])
def test_a_folder_that_lost_one_of_its_files_is_refused(folder: Path, missing: str) -> None:
    with closing(opened(folder)) as storage:
        storage.append([entry(1)])
        write_checkpoint(storage, row(b"a"))
    (folder / missing).unlink()
    with pytest.raises(FolderError, match=rf"{missing} is missing"):
        opened(folder)


def test_a_start_cut_short_between_making_the_files_is_taken_up(folder: Path) -> None:
    opened(folder).close()
    (folder / "log.sqlite").unlink()
    with closing(opened(folder)) as storage:
        storage.append([entry(1)])
        assert storage.load(0).last_index == 1


def test_a_folder_that_cannot_be_made_or_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(FolderError, match=r"cannot be used \(.*--dir"):
            opened(folder)
    blocked = tmp_path / "blocked"
    opened(blocked).close()
    (blocked / "log.sqlite").unlink()
    (blocked / "log.sqlite").mkdir()
    with pytest.raises(FolderError, match=r"log\.sqlite"):
        opened(blocked)


def test_a_refused_folder_is_not_left_locked(folder: Path) -> None:
    opened(folder).close()
    content = (folder / "log.sqlite").read_bytes()
    (folder / "log.sqlite").write_bytes(b"nonsense " * 1000)
    with pytest.raises(FolderError):
        opened(folder)
    (folder / "log.sqlite").write_bytes(content)
    opened(folder).close()


# Only SQLite: what the disk refuses


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
            storage.append([Entry(0, 2, 2, b"x" * 100_000)], (0, HardState(2, "b")))
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
            with files_limited_to(1024), pytest.raises(StorageError):
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

        of_a_vote = of_the_policy if policy is SyncPolicy.NO else 2
        assert levels(lambda: storage.claim(Identity("c", "n1", "d"))) == [2]
        assert levels(lambda: storage.append([entry(1)])) == [of_the_policy]
        assert levels(lambda: storage.append([], (0, HardState(1, "n1")))) == [of_a_vote]
        assert levels(lambda: storage.append([entry(2)], (0, HardState(2, "n1")))) == [of_a_vote]
        assert levels(lambda: install(storage, row(b"a"), index=9, term=4)) == [2]
        write_checkpoint(storage, row(b"a"), index=20, term=4)
        assert levels(lambda: storage.load(0)) == [2]
        assert levels(lambda: storage.load(0)) == []


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
        storage.append([entry(index) for index in range(2, 10)], (0, HardState(1, "a")))
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


# Only memory: faults and the power cut


# Two are kept with ``everysec``, where a vote does not wait for the next sync, nor what was appended with it.
@pytest.mark.parametrize(("policy", "kept"), [(SyncPolicy.ALWAYS, 3), (SyncPolicy.EVERYSEC, 2), (SyncPolicy.NO, 1)])
def test_a_power_cut_loses_what_was_not_synced(policy: SyncPolicy, kept: int) -> None:
    storage = MemoryStorage(policy)
    storage.append([entry(1)])
    storage.sync()
    storage.append([entry(2)], (0, HardState(5, "b")))
    storage.append([entry(3)])
    storage.begin_checkpoint(0, cleared=False, erased=[])
    storage.write_rows(0, [row(b"a")])
    after = storage.crash()
    assert after.load(0).last_index == kept
    assert after.load(0).hard_state == (HardState(5, "b") if kept > 1 else HardState())
    assert keys(after) == []
    assert storage.crash(surviving=1).load(0).last_index == min(kept + 1, 3)
    storage.append([entry(4)])
    assert after.load(0).last_index == kept


@pytest.mark.parametrize("survives", [False, True])
@pytest.mark.parametrize("definite", [False, True])
def test_an_asked_failure_happens_once_and_reopen_tells_what_is_kept(definite: bool, survives: bool) -> None:
    storage = MemoryStorage()
    storage.append([entry(1)])
    storage.uncertain_survives = survives
    storage.fail_next["append"] = StorageError("asked", definite=definite)
    with pytest.raises(StorageError, match="asked"):
        storage.append([entry(2)])
    assert storage.load(0).last_index == 1
    expected = 2 if survives and not definite else 1
    assert storage.crash().load(0).last_index == expected
    storage.reopen()
    assert storage.load(0).last_index == expected
    storage.append([entry(expected + 1)])
    assert storage.crash().load(0).last_index == expected + 1


def test_asked_failures_of_a_checkpoint_drop_it() -> None:
    storage = MemoryStorage()
    write_checkpoint(storage, row(b"old"))
    storage.begin_checkpoint(0, cleared=True, erased=[])
    storage.fail_next["finish_checkpoint"] = StorageError("asked", definite=False)
    with pytest.raises(StorageError):
        storage.finish_checkpoint(0, 2, 1, b"")
    assert keys(storage) == [b"old"]
    write_checkpoint(storage, row(b"new"), index=2)
    assert keys(storage) == [b"new", b"old"]


@pytest.mark.parametrize("policy", SyncPolicy)
def test_a_power_cut_does_not_undo_an_install_a_repair_or_a_claim(policy: SyncPolicy) -> None:
    storage = MemoryStorage(policy)
    storage.claim(Identity("c", "n1", "d"))
    storage.append([entry(index) for index in range(1, 12)])
    install(storage, row(b"new"), index=9, term=4)
    assert list(storage.crash().entries(0, 1)) == [Entry(0, 9, 4, b"")]
    write_checkpoint(storage, index=20, term=4)
    storage.load(0)
    after = storage.crash()
    assert list(after.entries(0, 1)) == [Entry(0, 20, 4, b"")]
    assert after.identity() == Identity("c", "n1", "d")


def test_a_claim_that_cannot_be_written_leaves_the_folder_nobody_s() -> None:
    storage = MemoryStorage()
    storage.fail_next["claim"] = StorageError("asked", definite=True)
    with pytest.raises(FolderError, match="asked"):
        storage.claim(Identity("c", "n1", "d"))
    assert storage.crash().identity() is None
    storage.claim(Identity("c", "n2", "d"))


def test_a_power_cut_copies_no_entry_and_no_row_and_shares_nothing_that_changes() -> None:
    storage = MemoryStorage()
    storage.append([entry(1), entry(2)])
    write_checkpoint(storage, row(b"a"), index=1)
    after = storage.crash()
    assert all(one is other for one, other in zip(storage.entries(0, 1), after.entries(0, 1), strict=True))
    assert all(one is other for one, other in zip(storage.rows(0), after.rows(0), strict=True))
    storage.append([entry(2, term=2), entry(3, term=2)], (0, HardState(2, "a")))
    write_checkpoint(storage, row(b"b"), index=2, erased=(b"a",))
    assert list(after.entries(0, 1)) == [entry(1), entry(2)]
    assert (keys(after), after.load(0).hard_state) == ([b"a"], HardState())
