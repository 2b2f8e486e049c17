"""What a client does to hold a lock: every answer and every failure at every step, without a server or a clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies

from resp_server.holding import Claim, DeadlockError, LockError, LockLost, LockTimeout, Wish
from resp_server.steps import (
    CLOCKS_DIFFER,
    GIVE_BACK_S,
    PASSING,
    REPLY_S,
    Ask,
    Lost,
    Outcome,
    Pause,
    Refusal,
    Reply,
    Steps,
    Unreached,
    Word,
    Words,
)

TTL_S = 10.0
GRANTED = Reply(7)
NOT_GRANTED = Reply(None)
GONE = Lost("closed")
DOWN = Refusal("CLUSTERDOWN", "CLUSTERDOWN no leader for shard 0")
UNSURE = Refusal("UNCERTAIN", "UNCERTAIN the leader was lost")
WRONG_TYPE = Refusal("WRONGTYPE", "WRONGTYPE not a lock")
NOWHERE = Unreached("refused")
PASSES = [*(Refusal(code, f"{code} for now") for code in sorted(PASSING)), GONE, NOWHERE]


class World:
    """Time, and answers in the order they are listed, each after so many seconds."""

    def __init__(self, **wish: float | bool | None) -> None:
        self.now_s = 1000.0
        self.asked: list[Words] = []
        self.within_s: list[float] = []
        self.paused_s: list[float] = []
        self.claim = Claim(Wish("lock", **({"ttl_s": TTL_S} | wish)), "ann", "r1", lambda: self.now_s, lambda: 1.0)  # type: ignore[arg-type]

    def run(self, steps: Steps, *answers: Outcome | tuple[float, Outcome]) -> None:
        """Until the steps end, or would ask once more than there are answers."""
        left = list(answers)
        outcome: Outcome | None = None
        try:
            step = next(steps)
            while isinstance(step, Pause) or left:
                if isinstance(step, Pause):
                    self.paused_s.append(step.seconds)
                    self.now_s += step.seconds
                    outcome = None
                else:
                    self.asked.append(step.words)
                    self.within_s.append(step.within_s)
                    answer = left.pop(0)
                    took_s, outcome = answer if isinstance(answer, tuple) else (0.001, answer)
                    self.now_s += took_s
                step = steps.send(outcome)
        except StopIteration:
            assert not left, "it ended early"

    def held(self) -> World:
        """The same, with the lock."""
        self.run(self.claim.acquiring(), GRANTED)
        self.asked.clear()
        self.paused_s.clear()
        return self


def words(*asked: Words) -> list[str]:
    return [" ".join(map(str, one)) for one in asked]


# Acquiring


def test_what_is_asked_for() -> None:
    world = World()
    world.run(world.claim.acquiring(), GRANTED)
    assert words(*world.asked) == ["LOCK.ACQUIRE lock ann EXCLUSIVE PX 10000 BLOCK 30000 ID r1"]
    assert world.within_s == [30 + REPLY_S]
    assert world.claim.token == 7
    assert world.claim.is_held
    world.claim.check()


@pytest.mark.parametrize(
    ("wish", "asked"),
    [
        ({"shared": True, "timeout_s": 2.5}, "LOCK.ACQUIRE lock ann SHARED PX 10000 BLOCK 2500 ID r1"),
        ({"timeout_s": 0.0}, "LOCK.ACQUIRE lock ann EXCLUSIVE PX 10000 ID r1"),
        ({"timeout_s": 0.0001, "ttl_s": 0.0015}, "LOCK.ACQUIRE lock ann EXCLUSIVE PX 1 BLOCK 1 ID r1"),
        ({"ask_again_s": 3.0}, "LOCK.ACQUIRE lock ann EXCLUSIVE PX 10000 BLOCK 3000 ID r1"),
    ],
)
def test_options(wish: dict[str, float | bool], asked: str) -> None:
    world = World(**wish)
    world.run(world.claim.acquiring(), (0.0, GRANTED))
    assert words(*world.asked) == [asked]
    assert world.claim.is_held


@pytest.mark.parametrize("wish", [{"ttl_s": 0.0}, {"ttl_s": float("nan")}, {"timeout_s": -1.0}, {"ask_again_s": 0.0}])
def test_nonsense_is_refused(wish: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="has to be a number of seconds"):
        World(**wish)


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_what_may_pass_is_asked_again_with_the_same_id(failure: Outcome) -> None:
    world = World()
    world.run(world.claim.acquiring(), failure, failure, failure, GRANTED)
    assert len(set(words(*world.asked))) == 1
    assert world.claim.is_held
    assert 0 < world.paused_s[0] < world.paused_s[1] < world.paused_s[2]


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_a_wait_ends_in_time_whatever_is_answered(failure: Outcome) -> None:
    world = World(timeout_s=2.0)
    with pytest.raises(LockTimeout, match=r"within 2 s: "):
        world.run(world.claim.acquiring(), *[(0.3, failure)] * 100)
    assert 1002.0 <= world.now_s < 1002.3 + 0.001
    assert not world.claim.is_held
    assert world.claim.settled == (failure not in (GONE, Refusal("UNCERTAIN", "UNCERTAIN for now")))


def test_a_wait_that_goes_on_is_asked_for_again_at_once() -> None:
    world = World(ask_again_s=3.0, timeout_s=10.0)
    with pytest.raises(LockTimeout, match="others hold it"):
        world.run(world.claim.acquiring(), *[(3.0, NOT_GRANTED)] * 3, (1.0, NOT_GRANTED))
    assert [one[-3] for one in world.asked] == ["3000", "3000", "3000", "1000"]
    assert world.paused_s == []
    assert world.claim.settled


def test_a_deadlock_is_told_with_its_cycle() -> None:
    world = World()
    with pytest.raises(DeadlockError, match=r"^a waits for k held by b, b waits for j held by a$"):
        world.run(
            world.claim.acquiring(),
            Refusal("DEADLOCK", "DEADLOCK a waits for k held by b, b waits for j held by a"),
        )
    assert world.claim.settled


@pytest.mark.parametrize("before", [[], [GONE], [UNSURE]], ids=str)
def test_what_the_server_will_never_do_is_raised(before: list[Outcome]) -> None:
    world = World()
    with pytest.raises(LockError, match="lock 'lock': WRONGTYPE not a lock"):
        world.run(world.claim.acquiring(), *before, WRONG_TYPE)
    assert world.claim.settled == (not before)


def test_a_grant_of_unknown_age_is_asked_for_again() -> None:
    """It may have been given at the begin of the wait, and be over by now."""
    world = World()
    world.run(world.claim.acquiring(), (20.0, GRANTED), (1.0, GRANTED))
    assert len(set(words(*world.asked))) == 1, "with its ID, so that nothing is counted up"
    assert world.claim.is_held
    world.now_s = 1020.0 + TTL_S * (1 - CLOCKS_DIFFER) - 0.01
    assert world.claim.is_held
    world.now_s += 0.02
    assert not world.claim.is_held


def test_a_grant_that_was_over_is_waited_for_again() -> None:
    world = World()
    world.run(world.claim.acquiring(), (20.0, GRANTED), (0.1, NOT_GRANTED), (20.0, Reply(9)), Reply(9))
    assert world.claim.token == 9


def test_a_grant_that_cannot_be_confirmed_in_time_is_given_back() -> None:
    world = World(timeout_s=20.0)
    with pytest.raises(LockTimeout):
        world.run(world.claim.acquiring(), (20.0, GRANTED), DOWN)
    assert not world.claim.settled
    world.run(world.claim.releasing(), Reply(1))
    assert words(world.asked[-1]) == ["LOCK.RELEASE lock ann"]


def test_a_confirmation_does_not_wait_past_the_timeout() -> None:
    world = World(timeout_s=20.0)
    world.run(world.claim.acquiring(), (20.0, GRANTED), GRANTED)
    assert "BLOCK" not in world.asked[1]
    assert world.claim.is_held


# Being held


def test_a_hold_is_believed_in_from_before_it_was_asked_for() -> None:
    world = World()
    world.run(world.claim.acquiring(), (3.0, GRANTED))
    world.now_s = 1000.0 + TTL_S * (1 - CLOCKS_DIFFER) - 0.001
    world.claim.check()
    world.now_s += 0.002
    with pytest.raises(LockLost, match="lock 'lock' is lost: it was not renewed in time"):
        world.claim.check()
    world.now_s = 1000.0
    assert not world.claim.is_held, "once lost, always lost"


@pytest.mark.parametrize("name", [b"lock", b"\xff", "lock", 7])
def test_a_name_is_anything_that_can_be_a_key(name: Word) -> None:
    claim = Claim(Wish(name, 1.0), "ann", "r1", lambda: 0.0, lambda: 0.0)
    with pytest.raises(LockLost, match=r"lock '.*' is lost"):
        claim.check()


# Renewing


def test_it_is_renewed_every_third_of_its_life() -> None:
    world = World().held()
    world.run(world.claim.renewing(), *[Reply(1)] * 3)
    assert words(*world.asked) == ["LOCK.EXTEND lock ann PX 10000 TOKEN 7"] * 3
    assert [round(pause, 1) for pause in world.paused_s] == [3.3] * 4
    assert world.claim.is_held


@pytest.mark.parametrize("failure", [*PASSES, WRONG_TYPE], ids=str)
def test_a_renewal_that_fails_is_tried_again_until_it_works(failure: Outcome) -> None:
    world = World().held()
    world.run(world.claim.renewing(), failure, failure, (2.0, failure), Reply(1))
    assert world.claim.is_held
    assert len(set(words(*world.asked))) == 1


@pytest.mark.parametrize("failure", [*PASSES, WRONG_TYPE], ids=str)
@pytest.mark.parametrize("took_s", [0.0, 0.4, 3.0])
def test_a_hold_that_cannot_be_renewed_is_lost_when_its_time_is_over(failure: Outcome, took_s: float) -> None:
    world = World().held()
    failures = itertools.repeat((took_s, failure))
    steps = world.claim.renewing()
    step: Ask | Pause | None = next(steps)
    while step is not None:
        if isinstance(step, Ask):
            assert step.within_s <= 1000.0 + TTL_S - world.now_s, "it is lost on time also when nothing is answered"
            took, outcome = next(failures)
            world.now_s += min(took, step.within_s)
            step = next(steps, None) if outcome is None else _sent(steps, outcome)
        else:
            world.now_s += step.seconds
            step = _sent(steps, None)
    assert world.now_s == pytest.approx(1000.0 + TTL_S * (1 - CLOCKS_DIFFER), abs=0.01)
    with pytest.raises(LockLost, match="not renewed in time"):
        world.claim.conclude()


def _sent(steps: Steps, outcome: Outcome | None) -> Ask | Pause | None:
    try:
        return steps.send(outcome)
    except StopIteration:
        return None


def test_a_hold_that_the_server_does_not_know_is_lost() -> None:
    world = World().held()
    world.run(world.claim.renewing(), Reply(0))
    assert not world.claim.is_held
    with pytest.raises(LockLost, match="gave it to somebody else, or it was broken"):
        world.claim.conclude()


def test_who_sleeps_through_its_life_is_told_at_the_first_look() -> None:
    world = World().held()
    steps = world.claim.renewing()
    next(steps)
    world.now_s += TTL_S
    assert _sent(steps, None) is None, "there is nothing to renew"
    assert not world.claim.is_held


def test_a_renewal_that_was_answered_late_counts_from_when_it_was_sent() -> None:
    """The program was stopped while the answer waited in the socket."""
    world = World().held()
    steps = world.claim.renewing()
    next(steps)
    world.now_s += 3.0
    assert isinstance(_sent(steps, None), Ask)
    world.now_s += 8.0
    assert isinstance(_sent(steps, Reply(1)), Pause)
    assert world.claim.is_held, "it was renewed before its time was over, and 8 of 10 seconds are gone"
    world.now_s += 2.0
    assert not world.claim.is_held


# Giving back


def test_a_release_names_the_token() -> None:
    world = World().held()
    world.run(world.claim.releasing(), Reply(1))
    assert words(*world.asked) == ["LOCK.RELEASE lock ann TOKEN 7"]
    world.claim.conclude()
    assert world.claim.settled
    assert not world.claim.is_held
    with pytest.raises(LockLost, match="given back"):
        world.claim.check()


def test_nothing_is_released_where_nothing_was_granted() -> None:
    world = World(timeout_s=0.0)
    with pytest.raises(LockTimeout):
        world.run(world.claim.acquiring(), NOT_GRANTED)
    world.run(world.claim.releasing())
    assert len(world.asked) == 1


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_a_release_is_tried_again(failure: Outcome) -> None:
    world = World().held()
    world.run(world.claim.releasing(), failure, failure, Reply(1))
    assert len(set(words(*world.asked))) == 1
    world.claim.conclude()
    assert world.claim.settled


@pytest.mark.parametrize("failure", PASSES, ids=str)
def test_a_release_that_was_not_there_any_more(failure: Outcome) -> None:
    """It tells that the lock was lost, unless an earlier try may have released it."""
    world = World().held()
    world.run(world.claim.releasing(), failure, Reply(0))
    if failure in (GONE, Refusal("UNCERTAIN", "UNCERTAIN for now")):
        world.claim.conclude()
    else:
        with pytest.raises(LockLost, match="broken"):
            world.claim.conclude()
    assert world.claim.settled
    assert not world.claim.unreleased


def test_a_release_is_given_up_after_a_while() -> None:
    world = World(ttl_s=60.0).held()
    began_s = world.now_s
    world.run(world.claim.releasing(), *[(0.5, NOWHERE)] * 4)
    assert world.claim.unreleased == "", "it is still tried"
    world.run(world.claim.releasing(), (GIVE_BACK_S, NOWHERE))
    assert world.claim.unreleased == "refused"
    assert not world.claim.settled
    assert world.now_s - began_s < 2 * GIVE_BACK_S + 1
    world.claim.conclude()


def test_a_release_ends_with_what_will_not_work() -> None:
    world = World().held()
    world.run(world.claim.releasing(), WRONG_TYPE)
    assert world.claim.unreleased == WRONG_TYPE.text


def test_what_is_lost_by_the_clock_is_tried_to_be_released_once() -> None:
    """A renewal that is still on its way may have kept it."""
    world = World().held()
    world.now_s += TTL_S
    world.run(world.claim.releasing(), GONE)
    assert len(world.asked) == 1
    with pytest.raises(LockLost, match="not renewed"):
        world.claim.conclude()


@pytest.mark.parametrize("answers", [[0, 0], [0, 1], [1]], ids=str)
def test_a_claim_that_is_interrupted_gives_back_what_it_may_hold(answers: list[int]) -> None:
    """The wait may end, or be granted, only after the first release."""
    world = World()
    steps = world.claim.acquiring()
    assert isinstance(next(steps), Ask)
    steps.close()
    world.run(world.claim.releasing(), *map(Reply, answers))
    assert words(*world.asked) == ["LOCK.RELEASE lock ann"] * len(answers)
    assert not world.claim.settled, "the request may still be on its way: another claim needs another owner"
    assert not world.claim.unreleased


def test_a_claim_that_is_interrupted_between_requests_has_nothing_to_give_back() -> None:
    world = World()
    steps = world.claim.acquiring()
    next(steps)
    assert isinstance(_sent(steps, DOWN), Pause)
    steps.close()
    world.run(world.claim.releasing())
    assert world.asked == []


# Against a server that keeps locks


@dataclass
class Server:
    """One lock, as the contract has it, and a rival who takes it when it can."""

    now: Callable[[], float]
    holder: str = ""
    token: int = 0
    holds: int = 0
    until_s: float = 0.0
    seen: set[Word] = field(default_factory=set)
    granted: list[tuple[int, str]] = field(default_factory=list)

    def answer(self, asked: Words) -> int | None:
        self.expire()
        owner, options = str(asked[2]), dict(itertools.pairwise(asked[3:]))
        match asked[0]:
            case "LOCK.ACQUIRE":
                return self.acquire(owner, int(options["PX"]) / 1000, options["ID"])
            case "LOCK.EXTEND":
                if (self.holder, str(self.token)) != (owner, options["TOKEN"]):
                    return 0
                self.until_s = self.now() + int(options["PX"]) / 1000
                return 1
            case _:
                if self.holder != owner or options.get("TOKEN", str(self.token)) != str(self.token):
                    return 0
                self.holds -= 1
                self.holder = self.holder if self.holds else ""
                return 1

    def acquire(self, owner: str, life_s: float, request: Word) -> int | None:
        if not self.holder:
            self.holder, self.holds, self.seen = owner, 0, set()
            self.token += 1
            self.granted.append((self.token, owner))
            self.until_s = 0.0
        if self.holder != owner:
            return None
        self.holds += request not in self.seen
        self.seen.add(request)
        self.until_s = max(self.until_s, self.now() + life_s)
        return self.token

    def expire(self) -> None:
        if self.holder and self.now() >= self.until_s:
            self.holder = ""


HAPPENS = ["answers", "refuses", "uncertain, done", "uncertain, not done", "lost, done", "lost, not done", "unreached"]
FAILURES: dict[str, Outcome] = {"refuses": DOWN, "unreached": NOWHERE, "lost": GONE, "uncertain": UNSURE}
STRIDES_S = [0.001, 1.0, 4.0, 11.0]


class Play:
    """One claim from begin to end. What happens at each request, and how long it takes, is listed; then all is well."""

    def __init__(self, happenings: Iterable[tuple[str, float]], *, rival: bool) -> None:
        self.world = World(timeout_s=30.0)
        self.claim = self.world.claim
        self.server = Server(lambda: self.world.now_s)
        self._left = list(happenings)
        self._rival = rival

    def run(self, renewals: int) -> None:
        """Checks after every step that nobody believes to hold what another has, and in the end that it is free."""
        try:
            self._carry_out(self.claim.acquiring(), 1000)
            self._carry_out(self.claim.renewing(), renewals)
        except LockTimeout:
            assert not self.claim.is_held
        self._carry_out(self.claim.releasing(), 1000)
        assert self.claim.unreleased or self.server.holder != "ann", "it is given back"
        tokens = [token for token, _ in self.server.granted]
        assert tokens == sorted(set(tokens))

    def _carry_out(self, steps: Steps, requests: int) -> None:
        step: Ask | Pause | None = next(steps, None)
        while step is not None and (requests or isinstance(step, Pause)):
            outcome = None
            if isinstance(step, Pause):
                self.world.now_s += step.seconds
            else:
                outcome = self._ask(step)
                requests -= 1
            step = _sent(steps, outcome)
            if self.claim.is_held:
                self.server.expire()
                assert (self.server.holder, self.server.token) == ("ann", self.claim.token)
                assert self.server.holds == 1, "one release is enough"

    def _ask(self, asked: Ask) -> Outcome:
        what, took_s = self._left.pop(0) if self._left else ("answers", 0.001)
        took_s = min(took_s, asked.within_s)
        self.world.now_s += took_s / 2
        self.server.expire()
        if self._rival and not self.server.holder and len(self.server.granted) % 2 == 0:
            self.server.acquire("bob", 2.0, "r2")
        reply = self.server.answer(asked.words) if what == "answers" or what.endswith(", done") else None
        self.world.now_s += took_s / 2
        if what == "answers" and reply is None:
            self.world.now_s += int(dict(itertools.pairwise(asked.words[3:])).get("BLOCK", 0)) / 1000
        return FAILURES.get(what.partition(",")[0], Reply(reply))


@pytest.mark.parametrize("rival", [False, True])
@pytest.mark.parametrize("took_s", STRIDES_S)
@pytest.mark.parametrize("renewals", [0, 1])
def test_every_failure_at_every_step(renewals: int, took_s: float, rival: bool) -> None:
    for happenings in itertools.product(HAPPENS, repeat=3):
        Play([(what, took_s) for what in happenings], rival=rival).run(renewals)


@given(
    strategies.lists(strategies.tuples(strategies.sampled_from(HAPPENS), strategies.floats(0.0, 12.0)), max_size=12),
    strategies.integers(0, 4),
    strategies.booleans(),
)
def test_whatever_happens_whenever(happenings: list[tuple[str, float]], renewals: int, rival: bool) -> None:
    Play(happenings, rival=rival).run(renewals)
