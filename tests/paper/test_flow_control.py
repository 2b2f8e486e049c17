"""Flow control: what may be on its way to a follower, and what becomes of lost appends (5.3; dissertation, 10.2)."""

from __future__ import annotations

from cluster.raft.leading import Leading
from cluster.raft.messages import Append, Heartbeat
from cluster.raft.patience import extra_ms
from tests.paper.group import Group


def leading(group: Group, name: str) -> Leading:
    """What a leader knows."""
    found = group[name].leading
    assert found is not None
    return found


def test_a_follower_of_which_nothing_is_known_is_probed_one_append_at_a_time() -> None:
    """10.2.1 of the dissertation pipelines; before it is known where the logs agree that would be in vain."""
    group = Group()
    group.elect("n1", settled=False)
    for _ in range(5):
        group.write("n1")
    assert len(group.waiting(Append, to="n2")) == 1


def test_appends_follow_each_other_without_waiting_up_to_a_number_and_a_size() -> None:
    """10.2.1: pipelining, and never more on its way than a slow follower can be asked to bear."""
    group = Group()
    group.elect("n1")
    for _ in range(1000):
        group.write("n1")
    assert len(group.waiting(Append, to="n2")) == 256
    group.settle()
    assert group["n1"].commit == group["n1"].log.last_index
    for _ in range(40):
        group.write("n1", bytes(1024 * 1024))
    in_flight = sum(len(payload) for append in group.sent("n1", Append, to="n2") for _, payload in append.entries)
    assert 8 * 1024 * 1024 <= in_flight <= 9 * 1024 * 1024
    group.settle()
    assert group["n1"].commit == group["n1"].log.last_index


def test_many_small_entries_share_one_append_and_a_large_one_has_its_own() -> None:
    """10.2.2: batching; a follower that is behind does not cost a message an entry."""
    group = Group()
    group.elect("n1")
    group.cut("n3")
    for _ in range(500):
        group.write("n1", bytes(100))
    group.settle()
    group.write("n1", bytes(3 * 1024 * 1024))
    group.settle()
    group.heal()
    sizes: list[int] = []
    for _ in range(200):
        group.now_ms += 20
        group.tick()
        sizes += [len(append.entries) for append in group.sent("n1", Append, to="n3") if append.entries]
        group.settle()
    assert group["n3"].log.last_index == group["n1"].log.last_index
    assert max(sizes) >= 500
    assert len(sizes) < 10


def test_appends_that_were_lost_are_sent_again_after_an_election_timeout() -> None:
    """5.3: also when nothing else comes that would show the gap."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    index = group.write("n1", b"last")
    group.lose(Append)
    group.settle()
    assert group["n1"].commit == index - 1
    group.pass_ms(group.timing.election_ms + 2 * group.timing.heartbeat_ms)
    assert group["n1"].commit == index


LARGE = bytes(8 * 1024 * 1024)


def test_a_large_append_is_given_the_time_it_takes() -> None:
    """Ours: sent again while it is on its way it would never get through."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    index = group.write("n1", LARGE)
    group.lose(Append)
    group.pass_ms(extra_ms(len(LARGE)))
    assert group.sent("n1", Append) == []
    assert group["n1"].commit == index - 1
    group.pass_ms(group.timing.election_ms + 2 * group.timing.heartbeat_ms)
    assert group["n1"].commit == index


def test_so_is_a_large_probe() -> None:
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    for name in ("n2", "n3"):
        progress = leading(group, "n1").progress[name]
        progress.probe(progress.next)
    index = group.write("n1", LARGE)
    group.lose(Append)
    group.pass_ms(extra_ms(len(LARGE)))
    assert group["n1"].commit == index - 1
    group.pass_ms(group.timing.election_ms + 2 * group.timing.heartbeat_ms)
    assert group["n1"].commit == index


def test_what_is_still_on_its_way_out_is_not_sent_again() -> None:
    """Ours: the driver says so, and patience counts from then on."""
    group = Group()
    group.elect("n1")
    group.pass_ms(60)
    index = group.write("n1", b"behind something large")
    group.lose(Append)
    for _ in range(5):
        for name in ("n2", "n3"):
            leading(group, "n1").still_sending(name)
        group.pass_ms(group.timing.election_ms - group.timing.heartbeat_ms)
        assert group["n1"].commit == index - 1
    group.pass_ms(group.timing.election_ms + 2 * group.timing.heartbeat_ms)
    assert group["n1"].commit == index


def test_a_broken_link_is_made_good_without_waiting() -> None:
    """Ours: the driver says that what was on its way may be lost."""
    group = Group()
    group.elect("n1")
    index = group.write("n1", b"x")
    group.lose(Append)
    for name in ("n2", "n3"):
        leading(group, "n1").progress[name].lost()
        leading(group, "n1").replicate(name)
    group.settle()
    assert group["n1"].commit == index


def test_heartbeats_go_on_whatever_is_on_its_way() -> None:
    """5.2: no append may hold up what keeps a leader in office."""
    group = Group()
    group.elect("n1")
    group.slow_disks |= {"n2", "n3"}
    for _ in range(300):
        group.write("n1")
    group.settle()
    group.pass_ms(2000)
    assert (group.leader(), group["n1"].term) == ("n1", 1)
    group.wait(100)
    group.tick("n1")
    assert len(group.sent("n1", Heartbeat)) == 2
