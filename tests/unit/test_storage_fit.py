"""What keeps the log and the checkpoint in step: markers, repairs, installed snapshots, replicas given up."""

from __future__ import annotations

import pytest

from cluster.storage import (
    Entry,
    FolderError,
    HardState,
    Recovered,
    Storage,
    StorageError,
    SyncPolicy,
)
from tests.unit.storages import (
    Disk,
    entry,
    install,
    keys,
    row,
    the_log_refusing_its_reset,
    write_checkpoint,
)


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


def test_an_installed_snapshot_replaces_keys_and_log(disk: Disk) -> None:
    disk.storage.append([entry(index) for index in range(1, 12)] + [entry(1, shard=1)], [(0, HardState(4, "n2"))])
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
    disk.storage.append([entry(index) for index in range(1, last + 1)], [(0, HardState(4, "n2"))])
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


def give_up(storage: Storage, shard: int = 0) -> None:
    storage.begin_checkpoint(shard, cleared=True, erased=())
    storage.finish_checkpoint(shard, 0, 0, b"without us", installed=True)


GIVEN_UP = Recovered(HardState(4, "n2"), 0, 0, b"without us", 0)


@pytest.mark.parametrize("policy", SyncPolicy)
def test_a_replica_that_was_given_up_is_found_so(disk: Disk, policy: SyncPolicy) -> None:
    disk.storage.set_policy(policy)
    disk.storage.append([entry(1), entry(2), entry(3), entry(1, shard=1)], [(0, HardState(4, "n2"))])
    write_checkpoint(disk.storage, row(b"a"), index=2)
    write_checkpoint(disk.storage, row(b"b"), shard=1)
    give_up(disk.storage)
    for at_once in (True, False):
        storage = disk.storage if at_once else disk.restart()
        assert storage.load(0) == GIVEN_UP
        assert (keys(storage), list(storage.entries(0, 1))) == ([], [])
        assert (keys(storage, 1), list(storage.entries(1, 1))) == ([b"b"], [entry(1, shard=1)])


@pytest.mark.parametrize("how", ["by entries", "by a snapshot"])
def test_a_replica_that_was_given_up_may_come_back(disk: Disk, how: str) -> None:
    disk.storage.append([entry(index) for index in range(1, 6)])
    write_checkpoint(disk.storage, row(b"a"), index=4)
    give_up(disk.storage)
    if how == "by a snapshot":
        install(disk.storage, row(b"new"), index=9, term=4)
        kept = [Entry(0, 9, 4, b"")]
    else:
        kept = [entry(1, term=2), entry(2, term=3)]
        disk.storage.append(kept)
    assert list(disk.restart().entries(0, 1)) == kept
    disk.storage.load(0)
    write_checkpoint(disk.storage, row(b"b"), index=kept[-1].index, term=kept[-1].term)
    storage = disk.restart()
    assert storage.load(0).last_index == kept[-1].index
    assert list(storage.entries(0, 1)) == kept
    give_up(storage)
    assert list(disk.restart().entries(0, 1)) == []


@pytest.mark.parametrize("first", [1, 3])
def test_a_replica_given_up_in_part_goes_on_with_nothing(disk: Disk, first: int) -> None:
    """The keys are gone and the log is not: what it would go on with does not count, before and after a crash."""
    disk.storage.append([entry(index) for index in range(first, 6)], [(0, HardState(4, "n2"))])
    if first > 1:
        write_checkpoint(disk.storage, row(b"a"), index=first)
    with the_log_refusing_its_reset(disk.storage), pytest.raises(StorageError):
        give_up(disk.storage)
    with pytest.raises(StorageError, match="given up in part") as refusal:
        disk.storage.append([entry(1, shard=1), entry(6)])
    assert refusal.value.definite
    disk.storage.append([entry(1, shard=1)], [(0, HardState(4, "n2"))])
    storage = disk.restart()
    assert storage.load(0) == GIVEN_UP
    assert list(storage.entries(0, 1)) == []
    assert list(storage.entries(1, 1)) == [entry(1, shard=1)]
    storage.append([entry(1, term=7)])
    assert list(disk.restart().entries(0, 1)) == [entry(1, term=7)]


@pytest.mark.parametrize("how", ["given up again", "installed", "loaded"])
def test_what_was_given_up_in_part_is_finished_in_the_same_run(disk: Disk, how: str) -> None:
    disk.storage.append([entry(index) for index in range(1, 6)])
    with the_log_refusing_its_reset(disk.storage), pytest.raises(StorageError):
        give_up(disk.storage)
    match how:
        case "given up again":
            give_up(disk.storage)
        case "installed":
            install(disk.storage, row(b"new"), index=9, term=4)
        case "loaded":
            disk.storage.load(0)
    kept = [Entry(0, 9, 4, b"")] if how == "installed" else []
    assert list(disk.storage.entries(0, 1)) == kept
    disk.storage.append([entry(10 if kept else 1, term=4)])
    assert len(list(disk.restart().entries(0, 1))) == len(kept) + 1
