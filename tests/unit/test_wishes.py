"""Changes of membership and leadership, from the wish to the answer."""

from __future__ import annotations

import pytest

from cluster.machine.reply import OK, CommandError, Reply
from cluster.raft.membership import Member
from cluster.raft.messages import Wish, WishRefused
from cluster.wishes import PATIENCE_MS, Change, Wishes
from tests.paper.group import Group


class Town:
    """A group that n1 leads, and the wishes made at each of its members."""

    def __init__(self, size: int = 3) -> None:
        self.group = Group(size)
        self.group.elect("n1")
        self.group.pass_ms(60)
        self.wishes = {name: Wishes(self.group[name]) for name in self.group.names}

    def wish(self, change: Change, *, at: str = "n1") -> list[Reply]:
        """Makes a wish and pursues it for a while; the answers."""
        self.wishes[at].make("client", change)
        return self.pursue(at)

    def pursue(self, *names: str, ms: float = 500) -> list[Reply]:
        """Lets time pass, and carries wishes and refusals as nodes do; what was answered at ``names``."""
        until_ms = self.group.now_ms + ms
        while self.group.now_ms < until_ms:
            for name, wishes in self.wishes.items():
                leader = self.group[name].leader
                for message in wishes.pursue():
                    if leader is not None:
                        self._carry(name, leader, message)
            self.group.pass_ms(50)
        answers = []
        for name in names:
            answers += [reply for client, reply in self.wishes[name].answers if client is not None]
            self.wishes[name].answers.clear()
        return answers

    def _carry(self, name: str, leader: str, message: Wish) -> None:
        answer = self.wishes[leader].hear(name, message)
        if isinstance(answer, WishRefused):
            self.wishes[name].refused(answer)
        elif answer is not None:
            self.wishes[name].granted(answer)

    def config(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        config = self.group["n1"].config
        return config.voters, config.learners


def refusal(answers: list[Reply]) -> str:
    """The one answer, which says no."""
    (answer,) = answers
    assert isinstance(answer, CommandError)
    return answer.message


@pytest.mark.parametrize("at", ["n1", "n2"])
def test_a_node_is_taken_in_and_told_its_name(at: str) -> None:
    town = Town()
    town.group.join("n4")
    assert town.wish(Change("add", "", "host4:1", "disk 4"), at=at) == [b"n4"]
    assert town.group["n1"].config.members["n4"] == Member("n4", "host4:1", "disk 4")


def test_a_node_may_choose_its_name() -> None:
    town = Town()
    assert town.wish(Change("add", "berlin", "host4:1", "disk 4")) == [b"berlin"]


def test_asking_again_is_answered_and_changes_nothing() -> None:
    town = Town()
    change = Change("add", "", "host4:1", "disk 4")
    assert town.wish(change) == [b"n4"]
    before = town.config(), town.group["n1"].membership.since
    assert town.wish(change) == [b"n4"]
    assert (town.config(), town.group["n1"].membership.since) == before


def test_a_member_that_moved_is_known_by_its_new_address() -> None:
    town = Town()
    town.wish(Change("add", "n4", "host4:1", "disk 4"))
    assert town.wish(Change("add", "n4", "elsewhere:9", "disk 4")) == [b"n4"]
    assert town.group["n2"].config.members["n4"].address == "elsewhere:9"
    assert town.config()[1] == ("n4",)


def test_who_was_removed_does_not_come_back_by_saying_where_it_is_now() -> None:
    """It may not know yet, and the leader may hear it while it is out of touch in another shard."""
    town = Town()
    assert town.wish(Change("add", "n4", "host4:1", "disk 4")) == [b"n4"]
    assert town.wish(Change("remove", "n4")) == [OK]
    moved = Wish(0, 1, "add", "n4", "elsewhere:9", "disk 4")
    assert town.wishes["n1"].hear("n4", moved) is None
    town.pursue(ms=200)
    assert town.config() == (("n1", "n2", "n3"), ())
    assert town.wishes["n1"].hear("n4", Wish(0, 2, "remove", "n2", "", "")) is None
    town.pursue(ms=200)
    assert town.config() == (("n1", "n2", "n3"), ())
    town.wishes["n1"].hear("n2", moved)
    assert town.config()[1] == ("n4",), "somebody else has to let it in"


def test_who_has_no_part_in_a_group_may_wish_for_its_leader() -> None:
    """A node has some shards, and not the others."""
    town = Town()
    town.wishes["n1"].hear("n9", Wish(0, 1, "lead", "n2", "", ""))
    town.group.pass_ms(500)
    assert town.group.leader() == "n2"


def test_a_member_that_was_never_met_is_believed_once() -> None:
    """Founders are listed before anybody has seen their folders."""
    town = Town()
    assert town.wish(Change("add", "n2", "host2:9", "disk 2")) == [b"n2"]
    assert town.group["n1"].config.members["n2"] == Member("n2", "host2:9", "disk 2")
    assert "another data folder" in refusal(town.wish(Change("add", "n2", "host2:9", "another disk")))


def test_one_that_died_before_it_knew_that_it_joined_leaves_no_ghost() -> None:
    """It comes back from the same place with another folder, and the one it was before never will."""
    town = Town()
    assert town.wish(Change("add", "", "host4:1", "lost")) == [b"n4"]
    assert town.config()[1] == ("n4",), "it never answers, so it is never promoted"
    assert town.wish(Change("add", "", "host4:1", "kept")) == [b"n4"]
    assert town.config()[1] == ("n4",)
    assert town.group["n1"].config.members["n4"] == Member("n4", "host4:1", "kept")


def test_there_are_never_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.wishes.MEMBERS_MAX", 4)
    town = Town(1)
    for number in range(2, 5):
        town.group.join(f"n{number}")
        assert town.wish(Change("add", "", f"host{number}:1", f"disk {number}")) == [b"n%d" % number]
    assert "the most it takes" in refusal(town.wish(Change("add", "", "host:1", "another disk")))
    assert town.wish(Change("add", "n4", "elsewhere:1", "disk 4")) == [b"n4"], "one that is there may move"


@pytest.mark.parametrize("at", ["n1", "n2", "n3"])
@pytest.mark.parametrize("who", ["n1", "n2", "n3"])
def test_any_member_is_removed_wherever_that_is_asked(who: str, at: str) -> None:
    town = Town()
    assert town.wish(Change("remove", who), at=at) == [OK]
    leader = town.group.leader()
    assert leader is not None
    assert who not in town.group[leader].config


def test_who_is_no_member_is_removed_already() -> None:
    assert Town().wish(Change("remove", "n9")) == [OK]


def test_the_last_voter_stays() -> None:
    town = Town(1)
    assert "last voter" in refusal(town.wish(Change("remove", "n1")))


def test_the_last_voter_stays_also_beside_a_learner() -> None:
    town = Town(1)
    town.wish(Change("add", "n2", "host2:1", "disk 2"))  # which never answers, so gets no vote
    assert town.config() == (("n1",), ("n2",))
    assert "last voter" in refusal(town.wish(Change("remove", "n1")))
    assert town.wish(Change("remove", "n2")) == [OK]


@pytest.mark.parametrize("at", ["n1", "n2", "n3"])
def test_leadership_goes_to_whom_it_is_wished_for(at: str) -> None:
    town = Town()
    assert town.wish(Change("lead", "n3"), at=at) == [OK]
    assert town.group.leader() == "n3"


def test_who_leads_already_is_the_leader_at_once() -> None:
    town = Town()
    town.wishes["n1"].make("client", Change("lead", "n1"))
    assert town.wishes["n1"].pursue() == []
    assert town.wishes["n1"].answers == [("client", OK)]


@pytest.mark.parametrize("who", ["n9", "n4"], ids=["stranger", "learner"])
@pytest.mark.parametrize("at", ["n1", "n2"])
def test_only_a_voter_can_lead(who: str, at: str) -> None:
    town = Town()
    town.wish(Change("add", "n4", "host4:1", "disk 4"))
    assert "no voter" in refusal(town.wish(Change("lead", who), at=at))


def test_a_node_that_does_not_answer_is_not_made_leader() -> None:
    """Every write would wait for it."""
    town = Town()
    town.group.crash("n3")
    town.group.pass_ms(400)
    assert "does not answer" in refusal(town.wish(Change("lead", "n3"), at="n2"))
    leading = town.group["n1"].leading
    assert leading is not None
    assert leading.successor is None


def test_changes_are_made_one_after_the_other() -> None:
    town = Town()
    town.group.join("n4")
    town.wishes["n1"].make("first", Change("add", "n4", "host4:1", "disk 4"))
    town.wishes["n2"].make("second", Change("remove", "n3"))
    town.pursue(ms=1500)
    assert town.wishes["n1"].answers == [("first", b"n4")]
    assert town.wishes["n2"].answers == [("second", OK)]
    assert town.config() == (("n1", "n2", "n4"), ())


def test_a_wish_outlives_a_change_of_leader() -> None:
    town = Town()
    town.group.cut("n1")
    town.wishes["n2"].make("client", Change("add", "", "host4:1", "disk 4"))
    town.group.elect("n3")
    assert town.pursue("n2") == [b"n4"]


def test_a_wish_that_nobody_grants_is_given_up() -> None:
    town = Town()
    town.group.crash("n2")
    town.group.crash("n3")
    town.wishes["n1"].make("client", Change("remove", "n3"))
    assert town.pursue("n1", ms=PATIENCE_MS - 1000) == []
    (answer,) = town.pursue("n1", ms=2000)
    assert isinstance(answer, CommandError)
    assert answer.code == "UNCERTAIN"
    assert len(town.wishes["n1"].pending) == 0


def test_a_refusal_that_is_late_ends_no_other_wish() -> None:
    town = Town()
    wishes = town.wishes["n2"]
    wishes.make("client", Change("add", "", "host4:1", "disk 4"))
    wishes.refused(WishRefused(0, 77, "no"))
    assert wishes.answers == []
    assert len(wishes.pending) == 1


def test_who_only_hopes_is_not_told() -> None:
    town = Town()
    town.wishes["n1"].make(None, Change("remove", "n9"))
    town.pursue()
    assert town.wishes["n1"].answers == []
    assert len(town.wishes["n1"].pending) == 0


def test_a_node_that_follows_passes_wishes_on_and_grants_none() -> None:
    town = Town()
    wishes = town.wishes["n2"]
    wishes.make("client", Change("remove", "n3"))
    assert wishes.pursue() == [Wish(0, 1, "remove", "n3", "", "")]
    assert wishes.hear("n1", Wish(0, 1, "remove", "n9", "", "")) is None
    assert town.config()[0] == ("n1", "n2", "n3")


def test_no_change_is_begun_while_leadership_is_handed_over() -> None:
    town = Town()
    leading = town.group["n1"].leading
    assert leading is not None
    town.group.slow_disks.add("n3")
    town.group.write("n1")
    leading.hand_over("n3")
    town.wishes["n1"].make("client", Change("remove", "n2"))
    town.wishes["n1"].pursue()
    assert town.config()[0] == ("n1", "n2", "n3")


# Nodes that have to be free of shards before they go


class Drain:
    """Frees nodes, one shard at a time."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.asked: list[str] = []

    def let_go(self, node: str) -> bool:
        """It may go once it holds nothing any more."""
        self.asked.append(node)
        return self.shards == 0

    def left_on(self, node: str) -> int:
        return self.shards


@pytest.mark.parametrize("at", ["n1", "n2"])
def test_a_node_is_removed_once_it_is_free_of_shards(at: str) -> None:
    town, drain = Town(), Drain(2)
    for wishes in town.wishes.values():
        wishes.departures = drain
    assert town.wish(Change("remove", "n3"), at=at) == []
    assert "n3" in town.group["n1"].config
    assert set(drain.asked) == {"n3"}
    drain.shards = 0
    assert town.pursue(at, ms=1000) == [OK]
    assert "n3" not in town.group["n1"].config


def test_who_waits_too_long_for_that_is_told_how_much_is_left() -> None:
    town = Town()
    town.wishes["n1"].departures = Drain(2)
    town.wishes["n1"].make("client", Change("remove", "n3"))
    (answer,) = town.pursue("n1", ms=PATIENCE_MS + 1000)
    assert isinstance(answer, CommandError)
    assert (answer.code, answer.message) == ("TRYAGAIN", "n3 is being drained: 2 shards are left; ask again")


def test_nobody_is_drained_who_is_no_member_or_the_last() -> None:
    town, drain = Town(1), Drain(2)
    town.wishes["n1"].departures = drain
    assert town.wish(Change("remove", "n9")) == [OK]
    assert "last voter" in refusal(town.wish(Change("remove", "n1")))
    assert drain.asked == []


# Zones


def test_a_member_may_change_its_zone() -> None:
    town = Town()
    assert town.wish(Change("add", "n4", "host4:1", "disk 4", "east")) == [b"n4"]
    assert town.wish(Change("add", "n4", "host4:1", "disk 4", "west"), at="n2") == [b"n4"]
    assert town.group["n3"].config.members["n4"] == Member("n4", "host4:1", "disk 4", "west")
