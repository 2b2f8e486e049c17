"""Section 7: log compaction."""

from __future__ import annotations

from cluster.raft.log import Log
from cluster.raft.membership import Member, Membership
from cluster.raft.messages import Append, Appended
from cluster.storage.contract import HardState
from tests.paper.group import Group, entries
from tests.paper.snapshots import behind, first_piece


def test_what_a_checkpoint_contains_is_cut_off_the_log() -> None:
    """7: "the entire log up to that point is discarded"; its last index and term are kept."""
    group = Group()
    group.elect("n1")
    for _ in range(5):
        group.write("n1")
    group.settle()
    log = group["n1"].log
    index, term, last = group["n1"].applied, log.last_term, log.last_index
    group["n1"].compact(index, 0)
    assert (log.base_index, log.base_term, log.last_index, log.last_term) == (index, term, last, term)
    assert log.holds(index, term)
    group.write("n1", b"after")
    group.settle()
    assert group["n1"].commit == last + 1


def test_some_entries_are_kept_for_followers_that_are_a_little_behind() -> None:
    """Ours: those bytes spare a snapshot."""
    group = Group()
    group.elect("n1")
    for _ in range(10):
        group.write("n1", bytes(100))
    group.settle()
    group["n1"].compact(group["n1"].applied, 300)
    assert group["n1"].log.last_index - group["n1"].log.base_index == 3


def test_entries_the_disk_has_not_taken_are_not_cut_off() -> None:
    """Ours: they may be committed and carried out before that, and the log on the disk must have no gap."""
    group = Group()
    group.elect("n1")
    group.slow_disks.add("n1")
    group.write("n1")
    group.settle()
    one = group["n1"]
    assert one.applied > one.log.saved_index
    one.compact(one.applied, 0)
    assert one.log.base_index == one.log.saved_index


def test_what_must_follow_a_snapshot_on_its_way_is_kept() -> None:
    """7: else the follower would need another snapshot at once, and another."""
    group, courier = behind()
    first_piece(group, courier)
    for number in range(5):
        group.write("n1", b"later %d" % number)
    group.pass_ms(100)
    newer = courier.checkpoint("n1")
    assert group["n1"].log.base_index < newer
    courier.move()
    group.pass_ms(200)
    assert [name for name, _ in courier.installed] == ["n3"]
    assert courier.state("n3") == courier.state("n1")


def test_a_configuration_outlives_the_entry_it_was_in() -> None:
    """7: "the snapshot also includes the latest configuration in the log as of last included index"."""
    group = Group()
    group.elect("n1")
    leading = group["n1"].leading
    assert leading is not None
    group.join("n4")
    leading.change(group["n1"].config.with_learner(Member("n4", "n4:1")))
    group.settle()
    since = group["n1"].membership.since
    for _ in range(3):
        group.write("n1")
    group.settle()
    config = group["n1"].membership.at(since)
    group["n1"].compact(since + 1, 0)
    assert group["n1"].membership.at(since + 1) == config


def test_a_member_that_starts_behind_a_snapshot_goes_on_from_it() -> None:
    """7: its state, and the index and the term the log begins behind."""
    group = Group()
    raft = group["n2"]
    raft.recover(Log(7, 3, entries([3, 4], 8)), Membership(7, group.config), HardState(4, "n1"))
    assert (raft.commit, raft.applied, raft.log.last_index, raft.term, raft.vote) == (7, 7, 9, 4, "n1")
    raft.receive("n1", Append(5, 7, 3, 0, []))
    group.save("n2")
    assert group.sent("n2", Appended) == [Appended(5, 7)]
