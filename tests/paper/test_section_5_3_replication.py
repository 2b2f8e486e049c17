"""Section 5.3: log replication."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import pytest

from cluster.raft.messages import Append, Appended, Conflict, Heartbeat
from tests.paper.group import Group, entries

FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}
"""Followers' logs, by terms; the leader's is the next."""
FIGURE_7_LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]


def follower(terms: list[int]) -> Group:
    """A group whose n2 has this log."""
    group = Group()
    group.load("n2", entries(terms))
    return group


def test_a_leader_appends_and_sends_to_everybody() -> None:
    """5.3: "the leader appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel"."""
    group = Group()
    group.elect("n1")
    index = group.write("n1", b"put")
    assert [(packet.to, packet.message) for packet in group.waiting(Append)] == [
        (to, Append(1, index - 1, 1, index - 1, [(1, b"put")])) for to in ("n2", "n3")
    ]


def test_an_entry_is_committed_once_a_majority_has_it() -> None:
    """5.3: "a log entry is committed once the leader ... has replicated it on a majority of the servers"."""
    group = Group(5)
    group.elect("n1")
    index = group.write("n1")
    group.save("n1")
    group["n1"].receive("n2", Appended(1, index))
    assert group["n1"].commit == index - 1
    group["n1"].receive("n2", Appended(1, index))
    assert group["n1"].commit == index - 1, "the same follower again is no majority"
    group["n1"].receive("n3", Appended(1, index))
    assert group["n1"].commit == index


def test_a_leader_s_own_disk_counts_as_one_of_the_majority_when_it_has_the_entry() -> None:
    """5.3, with the leader's write in parallel (dissertation 10.2.1): a majority of *disks*."""
    group = Group()
    group.elect("n1")
    index = group.write("n1")
    group["n1"].receive("n2", Appended(1, index))
    assert group["n1"].commit == index - 1
    group.save("n1")
    assert group["n1"].commit == index


def test_followers_may_commit_what_the_leader_s_own_disk_has_not_got() -> None:
    """Dissertation 10.2.1: the leader "may even commit an entry before it has been written to its own disk"."""
    group = Group()
    group.elect("n1")
    group.slow_disks.add("n1")
    index = group.write("n1")
    group.settle()
    assert group["n1"].commit == index
    assert group["n1"].log.saved_index < index


def test_entries_before_a_committed_one_are_committed_with_it() -> None:
    """5.3: "this also commits all preceding entries in the leader's log", and they are carried out in order."""
    group = Group()
    group.elect("n1")
    for payload in (b"1", b"2", b"3"):
        group.write("n1", payload)
    group.settle()
    assert group.payloads("n1") == [b"1", b"2", b"3"]


def test_followers_learn_what_is_committed_and_carry_it_out_in_order() -> None:
    """5.3: "once a follower learns that a log entry is committed, it applies the entry ... (in log order)"."""
    group = Group()
    group.elect("n1")
    for payload in (b"1", b"2", b"3"):
        group.write("n1", payload)
    group.settle()
    group.pass_ms(60)
    assert group.payloads("n2") == group.payloads("n3") == [b"1", b"2", b"3"]


def test_a_heartbeat_tells_a_follower_no_more_than_it_is_known_to_have() -> None:
    """Figure 2, 5: "commitIndex = min(leaderCommit, index of last new entry)": a heartbeat has no entries."""
    group = Group()
    group.elect("n1")
    group.cut("n3")
    index = group.write("n1")
    group.settle()
    group.heal()
    group.wait(group.timing.heartbeat_ms)
    group.tick("n1")
    beats = {packet.to: packet.message for packet in group.waiting(Heartbeat)}
    told = {to: beat.commit for to, beat in beats.items() if isinstance(beat, Heartbeat)}
    assert told == {"n2": index, "n3": index - 1}


def test_an_append_commits_no_further_than_its_own_last_entry() -> None:
    """Figure 2, 5: what a follower has behind that may be another leader's."""
    group = follower([1, 1, 1])
    group["n2"].receive("n1", Append(2, 1, 1, 3, [(1, entries([1, 1])[1].payload)]))
    assert group["n2"].commit == 2


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "agrees"),
    [(0, 0, True), (1, 1, True), (2, 2, True), (3, 2, True), (3, 3, False), (2, 1, False), (4, 2, False)],
)
def test_an_append_is_refused_unless_the_entry_before_it_is_there(
    prev_index: int, prev_term: int, agrees: bool
) -> None:
    """5.3: a follower without "an entry in its log with the same index and term ... refuses the new entries"."""
    group = follower([1, 2, 2])
    group["n2"].receive("n1", Append(3, prev_index, prev_term, 0, [(3, b"new")]))
    group.save("n2")
    assert bool(group.sent("n2", Appended)) == agrees
    assert bool(group.sent("n2", Conflict)) != agrees
    assert (group["n2"].log.term(prev_index + 1) == 3) == agrees


def test_entries_that_conflict_go_with_all_that_follow_them() -> None:
    """Figure 2, 3: "delete the existing entry and all that follow it"."""
    group = follower([1, 2, 2, 2])
    group["n2"].receive("n1", Append(3, 1, 1, 0, [(3, b"new")]))
    group.save("n2")
    assert [term for term, _ in group.log_of("n2")] == [1, 3]
    assert [entry.term for entry in group.on_disk("n2")[1]] == [1, 3]


def test_entries_that_are_there_already_stay_with_all_that_follow_them() -> None:
    """Figure 2, 4: "append any new entries not already in the log": a late message must take nothing back."""
    group = follower([1, 1, 1, 1])
    before = group.log_of("n2")
    group["n2"].receive("n1", Append(1, 0, 0, 0, before[:2]))
    assert group.log_of("n2") == before
    assert group.sent("n2", Appended) == [Appended(1, 2)]


@pytest.mark.parametrize("case", FIGURE_7)
def test_a_leader_makes_followers_logs_like_its_own(case: str) -> None:
    """5.3 and figure 7: "the leader handles inconsistencies by forcing the followers' logs to duplicate its own"."""
    group = Group()
    leader = entries(FIGURE_7_LEADER)
    group.load("n1", leader, term=7)
    group.load("n3", leader, term=7)
    group.load("n2", entries(FIGURE_7[case]))
    group.elect("n1")
    assert group.log_of("n2") == group.log_of("n1")
    assert [entry.term for entry in group.on_disk("n2")[1]] == [*FIGURE_7_LEADER, group["n1"].term]
    group.pass_ms(60)
    assert group.applied["n2"] == group.applied["n1"]


def test_a_leader_never_overwrites_or_deletes_its_own_entries() -> None:
    """5.3 and figure 3, leader append-only: whatever a follower says."""
    group = Group()
    group.load("n1", entries([1, 1, 1]))
    group.elect("n1")
    group.write("n1")
    before = group.log_of("n1")
    for index in range(7):
        group["n1"].receive("n2", Conflict(2, index, 0, 0))
        group["n1"].receive("n2", Append(2, 0, 0, 0, [(2, b"not mine")]))
        assert group.log_of("n1") == before


@pytest.mark.parametrize(
    ("leader", "follower_terms", "rounds"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1], 1),
        ([1] * 50, [], 1),
        ([1] * 3 + [5] * 20, [1] * 3 + [2] * 20, 1),
        ([1] * 3 + [4] * 20, [1] * 3 + [2] * 10 + [3] * 10, 2),
        ([1] * 3 + [2] * 10 + [6] * 10, [1] * 3 + [2] * 5 + [3] * 5 + [4] * 5 + [5] * 5, 2),
    ],
    ids=["behind", "empty", "one other term", "two other terms", "terms in between"],
)
def test_conflicts_go_back_a_term_at_a_time(leader: list[int], follower_terms: list[int], rounds: int) -> None:
    """5.3: one append "for each term with conflicting entries, rather than one RPC per entry"."""
    group = Group()
    group.load("n1", entries(leader), term=9)
    group.load("n3", entries(leader), term=9)
    group.load("n2", entries(follower_terms))
    conflicts: list[Conflict] = []
    receive = group["n1"].receive

    def watch(peer: str, message: object) -> None:
        if isinstance(message, Conflict):
            conflicts.append(message)
        receive(peer, message)  # type: ignore[arg-type]

    group["n1"].receive = watch  # type: ignore[method-assign]
    group.elect("n1")
    assert group.log_of("n2") == group.log_of("n1")
    assert len(conflicts) <= rounds


def possible(mine: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    """Whether two logs can be in one group: those that share an entry share all before it."""
    shared = [place for place, (one, other) in enumerate(zip(mine, theirs, strict=False)) if one == other]
    return not shared or mine[: shared[-1] + 1] == theirs[: shared[-1] + 1]


def test_conflicts_end_where_both_logs_agree_whatever_they_are() -> None:
    """5.3: the leader may go back too far, never not far enough: every pair of logs of up to 4 entries of 3 terms."""
    logs = [log for length in range(5) for log in combinations_with_replacement((1, 2, 3), length)]
    for mine, theirs in product(logs, logs):
        if possible(mine, theirs):
            group = Group(2)
            group.load("n1", entries(mine), term=8)
            group.load("n2", entries(theirs))
            one = group["n1"]
            one.enter(9)
            one.lead()
            group.settle()
            assert group.log_of("n2") == group.log_of("n1"), (mine, theirs)
            assert one.commit == len(mine) + 1


def test_a_late_conflict_does_not_take_a_follower_back() -> None:
    """5.3: what is known to agree goes on agreeing; the answer to an append of long ago says nothing new."""
    group = Group()
    group.elect("n1")
    for _ in range(3):
        group.write("n1")
    group.settle()
    leading = group["n1"].leading
    assert leading is not None
    progress = leading.progress["n2"]
    before = (progress.match, progress.next, progress.state)
    for index in range(progress.match + 1):
        group["n1"].receive("n2", Conflict(1, index, 0, 0))
    assert (progress.match, progress.next, progress.state) == before


def test_logs_that_share_an_entry_share_all_before_it() -> None:
    """Figure 3, log matching: over elections, cuts and crashes without any order."""
    group = Group(5)
    cuts = [("n1",), ("n2", "n3"), ("n4",), ("n5", "n1"), ("n2",)]
    for number, cut in enumerate(cuts):
        group.cut(*cut)
        group.pass_ms(2000, until=lambda: group.leader() is not None and group.leader() not in cut)  # noqa: B023
        for name in group.names:
            if group[name].leading is not None:
                group.write(name, f"{number} by {name}".encode())
        group.pass_ms(100)
        group.heal()
    group.pass_ms(1000)
    for one in group.names:
        for other in group.names:
            mine, theirs = group.log_of(one), group.log_of(other)
            shared = [index for index, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a[0] == b[0]]
            if shared:
                assert mine[: shared[-1] + 1] == theirs[: shared[-1] + 1]


def test_an_unreachable_follower_is_sent_its_entries_until_it_has_them() -> None:
    """5.3: "if followers crash or run slowly, or if network packets are lost, the leader retries ... indefinitely"."""
    group = Group()
    group.elect("n1")
    group.cut("n3")
    for number in range(5):
        group.write("n1", b"%d" % number)
    group.pass_ms(1500)
    assert group.payloads("n1") == [b"0", b"1", b"2", b"3", b"4"]
    group.heal()
    group.pass_ms(1000, until=lambda: group.payloads("n3") == group.payloads("n1"))


def test_one_lost_append_is_noticed_and_made_good() -> None:
    """5.3: the next one does not fit, so the follower says where it ends."""
    group = Group()
    group.elect("n1")
    group.write("n1", b"lost")
    group.lose(Append, to="n2")
    group.write("n1", b"arrives")
    group.settle()
    group.pass_ms(60)
    assert group.payloads("n2") == [b"lost", b"arrives"]


def test_one_slow_follower_holds_up_nobody() -> None:
    """5.3: "a single slow follower will not impact performance"."""
    group = Group()
    group.elect("n1")
    group.slow_disks.add("n3")
    group.write("n1", b"x")
    group.settle()
    assert group.payloads("n1") == [b"x"]
