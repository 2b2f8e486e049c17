"""The checkpoint's laws, over SQLite and its twin in memory."""

from __future__ import annotations

import threading
from itertools import islice

import pytest

from cluster.storage import (
    HardState,
    Recovered,
    Row,
)
from tests.unit.storages import (
    Disk,
    entry,
    keys,
    row,
    write_checkpoint,
)


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
