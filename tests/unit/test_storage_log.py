"""The log's laws, over SQLite and its twin in memory."""

from __future__ import annotations

import pytest

from cluster.ring.slots import SYSTEM
from cluster.storage import (
    Entry,
    FolderError,
    HardState,
    Identity,
    Recovered,
    SyncPolicy,
)
from tests.unit.storages import (
    Disk,
    entry,
    keys,
    row,
    write_checkpoint,
)

NOTHING = Recovered(HardState(), checkpoint_index=0, checkpoint_term=0, ledger=b"", last_index=0)


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
    mixed = [entry(1, shard=0), entry(1, shard=SYSTEM), entry(2, shard=0), entry(1, shard=1)]
    disk.storage.append(mixed)
    write_checkpoint(disk.storage, row(b"a"), shard=1)
    storage = disk.restart()
    assert list(storage.entries(0, 1)) == [mixed[0], mixed[2]]
    assert list(storage.entries(SYSTEM, 1)) == [mixed[1]]
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
    disk.storage.append([entry(1)], [(0, HardState(3, "node-a"))])
    disk.storage.append([], [(1, HardState(7, ""))])
    disk.storage.append([])
    assert disk.storage.load(0).hard_state == HardState(3, "node-a")
    disk.storage.append([], [(0, HardState(4, "node-b", 3, 17))])
    storage = disk.restart()
    assert storage.load(0).hard_state == HardState(4, "node-b", 3, 17)
    assert storage.load(1).hard_state == HardState(7, "")
    assert list(storage.entries(0, 1)) == [entry(1)]


def test_all_shards_of_a_turn_are_one_append(disk: Disk) -> None:
    entries = [entry(1, shard=shard) for shard in (SYSTEM, 3, 0)]
    disk.storage.append(entries, [(3, HardState(2, "n1")), (SYSTEM, HardState(9, "n2"))])
    storage = disk.restart()
    assert [list(storage.entries(shard, 1)) for shard in (SYSTEM, 3, 0)] == [[one] for one in entries]
    assert [storage.load(shard).hard_state for shard in (0, 3, SYSTEM)] == [
        HardState(),
        HardState(2, "n1"),
        HardState(9, "n2"),
    ]


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


@pytest.mark.parametrize("policy", SyncPolicy)
def test_a_vote_alone_is_kept(disk: Disk, policy: SyncPolicy) -> None:
    disk.storage.set_policy(policy)
    disk.storage.append([], [(0, HardState(3, "n2"))])
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
    disk.storage.append([entry(1), entry(2)], [(0, HardState(1, "a"))])
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


def test_a_folder_is_one_node_s(disk: Disk) -> None:
    assert disk.storage.identity() is None
    disk.storage.claim(Identity("c", "n1", "d", shards=16, replicas=5, founders="n1=a:1,n2=a:2"))
    storage = disk.restart()
    assert storage.identity() == Identity("c", "n1", "d", shards=16, replicas=5, founders="n1=a:1,n2=a:2")
    storage.claim(Identity("c", "n1", "d", shards=16, replicas=5, founders="n1=a:1,n2=a:2"))
    for other in (Identity("c", "n2", "d"), Identity("c2", "n1", "d"), Identity("c", "n1", "d2")):
        with pytest.raises(FolderError, match="belongs to node n1 of cluster c"):
            storage.claim(other)
    assert disk.restart().identity() == Identity("c", "n1", "d", shards=16, replicas=5, founders="n1=a:1,n2=a:2")
