"""A shard's steps towards its target: each rule by example, and walks through everything that can be on the way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.ring.rebalance import Add, Remove, Step, Transfer, View, eligible, next_step

EVERYBODY = frozenset("abcdefgh")


def view(
    voters: str, target: str, *, learners: str = "", leader: str = "", out_of_touch: str = "", behind: str = ""
) -> View:
    """What the leader, else the first voter, sees. Nodes are letters; a target's first is preferred."""
    return View(
        name=leader or voters[0],
        voters=tuple(voters),
        learners=tuple(learners),
        target=tuple(target),
        preferred=target[:1],
        reachable=EVERYBODY - set(out_of_touch),
        caught_up=EVERYBODY - set(behind),
        may_change=True,
        arriving={},
        arriving_max=2,
    )


# The rules, by example.


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        # nothing to do
        (view("abc", "abc"), None),
        (view("a", "a"), None),
        # a swap: add, catch up, remove
        (view("abc", "abd"), Add("d")),
        (view("abc", "abd", learners="d"), None),
        (view("abcd", "abd"), Remove("c")),
        # one comes before the next goes, however many change
        (view("abc", "ade"), Add("d")),
        (view("abcd", "ade"), Remove("b")),
        (view("acd", "ade"), Add("e")),
        # more replicas, or fewer
        (view("a", "abc"), Add("b")),
        (view("ab", "abc"), Add("c")),
        (view("abcde", "abc"), Remove("d")),
        # out of touch: the target is waited for, others meanwhile added, a surplus voter goes first
        (view("abc", "abd", out_of_touch="d"), None),
        (view("abc", "ade", out_of_touch="d"), Add("e")),
        (view("abc", "ade", learners="d", out_of_touch="d"), Add("e")),
        (view("abcd", "ade", out_of_touch="c"), Remove("c")),
        (view("abcd", "ade", behind="c"), Remove("c")),
        # never fewer than can serve
        (view("abcd", "abd", out_of_touch="bd"), None),
        (view("abcd", "abd", behind="bd"), None),
        (view("abcd", "abd", out_of_touch="bc"), Remove("c")),
        (view("cad", "ab", out_of_touch="a"), Add("b")),
        (view("cabd", "ab", out_of_touch="a"), Remove("d")),
        # learners nobody wants
        (view("abc", "abc", learners="d"), Remove("d")),
        (view("abc", "abc", learners="d", out_of_touch="d"), Remove("d")),
        (view("abc", "abe", learners="de"), Remove("d")),
        # the leader is surplus: it hands over, when it is its turn to go
        (view("abcd", "bcd"), Transfer("b")),
        (view("abcd", "bcd", behind="b"), Transfer("c")),
        (view("abcd", "bcd", out_of_touch="bc"), Transfer("d")),
        (view("abcd", "bcd", out_of_touch="bcd"), None),
        (view("ab", "b"), Transfer("b")),
        (view("ab", "b", leader="b"), Remove("a")),
        (view("abc", "def"), Add("d")),
        (view("abcd", "def"), Remove("b")),
        # to the preferred, when nothing moves
        (view("abc", "bac"), Transfer("b")),
        (view("abc", "bac", behind="b"), None),
        (view("abc", "bac", out_of_touch="b"), None),
        (view("abc", "bad"), Add("d")),
        (view("abc", "bad", learners="d"), None),
        (view("abc", "bad", out_of_touch="d"), Transfer("b")),
        (view("abcd", "bad"), Remove("c")),
        (view("abc", "dab"), Add("d")),
    ],
)  # fmt: skip
def test_the_next_step(seen: View, step: Step | None) -> None:
    assert next_step(seen) == step


def test_nothing_is_begun_before_the_last_change_is_committed_nor_by_who_is_no_voter() -> None:
    for seen in (view("abc", "abd"), view("abcd", "abd"), view("abc", "bac"), view("abc", "abc", learners="d")):
        assert next_step(seen) is not None
        assert next_step(replace(seen, may_change=False)) is None
        assert next_step(replace(seen, name="h")) is None
        assert next_step(replace(seen, target=())) is None


def test_a_node_takes_in_only_so_many_shards_at_once() -> None:
    seen = view("abc", "ade")
    assert next_step(replace(seen, arriving={"d": 1})) == Add("d")
    assert next_step(replace(seen, arriving={"d": 2})) == Add("e"), "another can be had meanwhile"
    assert next_step(replace(seen, arriving={"d": 2, "e": 3})) is None


def test_a_leader_chosen_by_hand_stays() -> None:
    assert next_step(replace(view("abc", "bac"), preferred="")) is None
    assert next_step(replace(view("abcd", "bcd"), preferred="")) == Transfer("b"), "unless it has to go"


# Walks.


@dataclass
class Shard:
    """A shard as Raft would run it: learners that are in touch get their vote, transfers succeed."""

    target: str
    voters: list[str]
    leader: str
    learners: list[str] = field(default_factory=list)
    out_of_touch: set[str] = field(default_factory=set)
    behind: set[str] = field(default_factory=set)
    steps: int = 0

    def ready(self) -> list[str]:
        return [node for node in self.voters if node == self.leader or node not in self.out_of_touch | self.behind]

    def step(self) -> Step | None:
        """Takes the next step, if any; checks what must hold of every one."""
        step = next_step(
            view(
                "".join(self.voters), self.target, learners="".join(self.learners), leader=self.leader,
                out_of_touch="".join(self.out_of_touch), behind="".join(self.behind),
            )
        )  # fmt: skip
        before, could_serve = len(self.voters), self.serves()
        match step:
            case Add(node):
                assert node in self.target
                assert node not in self.voters + self.learners
                self.learners.append(node)
            case Remove(node) if node in self.learners:
                assert node not in self.target
                self.learners.remove(node)
            case Remove(node):
                assert node not in self.target
                assert node != self.leader
                self.voters.remove(node)
                assert len(self.voters) >= min(before, len(self.target)), "below the number of replicas"
                assert self.serves(), "who stays cannot serve"
            case Transfer(node):
                assert node in self.ready()
                assert node in self.target
                self.leader = node
            case None:
                pass
        assert not could_serve or self.serves(), "no step makes a shard that serves one that does not"
        self.steps += 1
        return step

    def serves(self) -> bool:
        return len(self.ready()) > len(self.voters) // 2

    def promote(self) -> bool:
        """A learner in touch has caught up."""
        for node in self.learners:
            if node not in self.out_of_touch:
                self.learners.remove(node)
                self.voters.append(node)
                self.behind.discard(node)
                return True
        return False

    def settle(self) -> None:
        """Steps and promotions until there are no more."""
        for _ in range(60):
            if self.step() is None and not self.promote():
                return
        raise AssertionError("it walks for ever")


SOME = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True)
FEW = st.sets(st.sampled_from("abcdefgh"), max_size=3)


@st.composite
def shards(draw: st.DrawFn) -> Shard:
    """Any configuration, on its way to any target."""
    voters = draw(SOME)
    learners = [
        node for node in draw(st.lists(st.sampled_from("abcdefgh"), max_size=2, unique=True)) if node not in voters
    ]
    return Shard("".join(draw(SOME)), voters, draw(st.sampled_from(voters)), learners)


@given(shard=shards())
def test_every_walk_ends_at_the_target(shard: Shard) -> None:
    started_with = len(shard.voters) + len(shard.learners)
    shard.settle()
    assert sorted(shard.voters) == sorted(shard.target)
    assert shard.learners == []
    assert shard.leader == shard.target[0]
    assert shard.steps <= 4 * (started_with + len(shard.target)) + 4


@given(shard=shards(), faults=st.lists(st.tuples(FEW, FEW, SOME, st.booleans(), st.integers(1, 4)), max_size=6))
def test_faults_and_changing_targets_on_the_way_do_no_harm(
    shard: Shard, faults: list[tuple[set[str], set[str], list[str], bool, int]]
) -> None:
    """Nodes come and go, lag and lead, and the target changes; each step is checked, and at the end all is well."""
    for out_of_touch, behind, target, retarget, steps in faults:
        shard.out_of_touch, shard.behind = out_of_touch - {shard.leader}, behind - {shard.leader}
        if retarget:
            shard.target = "".join(target)
        for _ in range(steps):
            if shard.serves():  # else nothing is committed, and no step is taken
                shard.step()
                shard.promote()
    shard.out_of_touch, shard.behind = set(), set()
    shard.settle()
    assert sorted(shard.voters) == sorted(shard.target)
    assert shard.leader == shard.target[0]


@given(shard=shards())
def test_a_new_leader_goes_on_where_the_last_one_died(shard: Shard) -> None:
    """After every single step another voter leads."""
    for turn in range(60):
        shard.leader = shard.voters[turn % len(shard.voters)]
        if shard.step() is None and not shard.promote() and sorted(shard.voters) == sorted(shard.target):
            break
    else:
        raise AssertionError("it walks for ever")


@given(shard=shards())
def test_there_is_never_more_than_one_voter_too_many(shard: Shard) -> None:
    most = max(len(shard.voters) + len(shard.learners), len(shard.target) + 1)
    while True:
        step = shard.step()
        promoted = step is None and shard.promote()
        assert len(shard.voters) <= most
        if step is None and not promoted:
            return


@given(shard=shards(), lost=st.sampled_from("abcdefgh"))
def test_one_lost_node_stops_nobody_else(shard: Shard, lost: str) -> None:
    """What of the target can be had becomes voter, and whoever is not needed goes, as far as replicas allow."""
    if shard.leader == lost or len([node for node in shard.voters if node != lost]) <= len(shard.voters) // 2:
        return
    shard.out_of_touch = {lost}
    shard.settle()
    assert set(shard.target) - {lost} <= set(shard.voters)
    assert shard.serves()
    if len(shard.target) >= 3:  # of two nodes, one is no majority: those may have to keep a third
        waited_for = lost in shard.target and lost not in shard.voters and len(shard.voters) < len(shard.target)
        assert len(shard.voters) == len(shard.target) - waited_for


# Who may be in a target.


def test_nodes_that_leave_or_are_lost_are_left_out() -> None:
    members = {"a": "x", "b": "", "c": "y", "d": "", "e": ""}
    assert eligible(members, (), (), 3) == members
    assert eligible(members, ("a",), (), 3) == {"b": "", "c": "y", "d": "", "e": ""}
    assert eligible(members, ("a",), ("c",), 3) == {"b": "", "d": "", "e": ""}


def test_lost_nodes_are_kept_when_there_are_too_few_others() -> None:
    members = dict.fromkeys("abcde", "")
    assert list(eligible(members, (), ("b",), 5)) == ["a", "c", "d", "e", "b"]
    assert set(eligible(members, (), ("b", "c", "d"), 3)) == set("aeb"), "as many as it takes"
    assert set(eligible(members, ("a",), ("b", "c"), 3)) == set("deb"), "but not who leaves"
    assert set(eligible(members, tuple("abc"), (), 3)) == set("de"), "fewer replicas then"
    assert set(eligible(members, tuple("abcde"), (), 3)) == set("abcde"), "somebody must have the keys"
