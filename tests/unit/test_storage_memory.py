"""Only the twin in memory: faults on request and the power cut."""

from __future__ import annotations

import pytest

from cluster.storage import (
    Entry,
    FolderError,
    HardState,
    Identity,
    MemoryStorage,
    StorageError,
    SyncPolicy,
)
from tests.unit.storages import (
    entry,
    install,
    keys,
    row,
    write_checkpoint,
)


@pytest.mark.parametrize(("policy", "kept"), [(SyncPolicy.ALWAYS, 3), (SyncPolicy.EVERYSEC, 2), (SyncPolicy.NO, 2)])
def test_a_power_cut_loses_what_was_not_synced(policy: SyncPolicy, kept: int) -> None:
    """A vote does not wait for the next sync, nor what was appended with it."""
    storage = MemoryStorage(policy)
    storage.append([entry(1)])
    storage.sync()
    storage.append([entry(2)], [(0, HardState(5, "b"))])
    storage.append([entry(3)])
    storage.begin_checkpoint(0, cleared=False, erased=[])
    storage.write_rows(0, [row(b"a")])
    after = storage.crash()
    assert after.load(0).last_index == kept
    assert after.load(0).hard_state == HardState(5, "b")
    assert keys(after) == []
    assert storage.crash(surviving=1).load(0).last_index == min(kept + 1, 3)
    storage.append([entry(4)])
    assert after.load(0).last_index == kept


def test_votes_wait_for_a_driver_that_syncs_before_it_acknowledges() -> None:
    storage = MemoryStorage(SyncPolicy.NO, votes_wait=True)
    storage.append([entry(1)], [(0, HardState(5, "b"))])
    assert storage.crash().load(0).hard_state == HardState()
    assert storage.crash(surviving=1).load(0).hard_state == HardState(5, "b")
    storage.sync()
    assert storage.crash().load(0).hard_state == HardState(5, "b")


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
    storage.append([entry(2, term=2), entry(3, term=2)], [(0, HardState(2, "a"))])
    write_checkpoint(storage, row(b"b"), index=2, erased=(b"a",))
    assert list(after.entries(0, 1)) == [entry(1), entry(2)]
    assert (keys(after), after.load(0).hard_state) == ([b"a"], HardState())
