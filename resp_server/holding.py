"""What a client does to hold a lock: what to send next, and what an answer means.

A `Claim` is one attempt to hold one lock, from the first request to the release,
in three procedures of `resp_server.steps`; `resp_server.client` drives them.

The rules:

* A request that may have been carried out is sent again with the same ``ID``,
  which counts nothing up; so an answer is got in the end, and it is the truth.
* A hold is believed in from before its last good request was *sent* until its
  time to live, less what clocks may differ, has passed here. The server, which
  started to count later, cannot have given the lock to anybody else by then. Not
  by this rule but by the answer to the next renewal does a holder learn that an
  operator broke its lock, or that the server's clock was set forward.
* A grant that was waited for is of unknown age, so it is asked for again before
  it is used. That tells whether it is still there and sets its life anew.
* Once lost, always lost.

The weak spot: a request that is still on its way when the claim is given up, over
a connection that broke, may be granted afterwards. Nobody renews that hold, so
the lock is free again after its time to live.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from resp_server.steps import (
    CLOCKS_DIFFER,
    GIVE_BACK_S,
    PASSING,
    RENEWALS,
    REPLY_S,
    Ask,
    Lost,
    Outcome,
    Pause,
    Pauses,
    Refusal,
    Reply,
    Steps,
    Unreached,
    Word,
    Words,
    shown,
    written,
)


class LockError(Exception):
    """A lock could not be had or kept; the message says why."""


class LockTimeout(LockError, TimeoutError):
    """The lock was not granted in time. It is not held."""


class LockLost(LockError):
    """The lock was held and may belong to somebody else by now."""


class DeadlockError(LockError):
    """Waiting would never have ended: owners wait for each other in a circle, which the message names."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: ``shared`` with others or alone, for ``ttl_s`` at a time, after at most ``timeout_s``.

    ``timeout_s`` 0 is at once or not at all, None is for ever. A wait that
    has gone on for ``ask_again_s`` is asked for again.
    """

    name: Word
    ttl_s: float
    shared: bool = False
    timeout_s: float | None = None
    ask_again_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0.001 <= self.ttl_s < math.inf:
            raise ValueError("ttl has to be a number of seconds, at least 0.001")
        if self.timeout_s is not None and not self.timeout_s >= 0:
            raise ValueError("timeout has to be a number of seconds that is not negative, or None")
        if not 0.001 <= self.ask_again_s < math.inf:
            raise ValueError("ask_again has to be a number of seconds, at least 0.001")

    @property
    def key(self) -> str | bytes:
        """As commands have it."""
        return written(self.name)

    @property
    def ttl_ms(self) -> int:
        """As commands have it."""
        return int(self.ttl_s * 1000)


class Claim:
    """One owner's claim to one lock.

    ``clock`` gives seconds that only grow, whatever is done to the wall clock;
    ``chance`` a number from 0 to 1.
    """

    def __init__(
        self, wish: Wish, owner: str, request: str, clock: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self.wish = wish
        self.owner = owner
        self.token = 0
        self.settled = True  # the server has nothing of this claim that nobody here knows of
        self.unreleased = ""  # why the release is not known to have happened
        self._request = request
        self._clock = clock
        self._pauses = Pauses(chance, wish.ttl_s / 10)
        self._is_doubtful = False  # an answer is missing
        self._is_granted = False  # as far as is known
        self._believed_s = wish.ttl_ms / 1000 * (1 - CLOCKS_DIFFER)
        self._until_s = -math.inf
        self._renew_at_s = -math.inf
        self._lost_because = ""
        self._ended = False

    # What is so

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have the lock just now."""
        if self.token and not self._lost_because and self._clock() >= self._until_s:
            self._lose("it was not renewed in time")
        return bool(self.token) and not self._lost_because and not self._ended

    def check(self) -> None:
        """Raises `LockLost` unless the lock is held."""
        if not self.is_held:
            raise LockLost(f"lock {shown(self.wish.name)} is lost: {self._lost_because or 'it was given back'}")

    def conclude(self) -> None:
        """After `releasing`: raises `LockLost` unless the lock was held to the end."""
        if self._lost_because:
            self.check()

    def _lose(self, why: str) -> None:
        self._lost_because = self._lost_because or why

    def _lives_from(self, sent_s: float) -> None:
        self._until_s = sent_s + self._believed_s
        self._renew_at_s = sent_s + self.wish.ttl_s / RENEWALS
        self._pauses.reset()

    # What to do

    def acquiring(self) -> Steps:
        """Until the lock is held; raises a `LockError` when it will not be."""
        wish = self.wish
        give_up_s = math.inf if wish.timeout_s is None else self._clock() + wish.timeout_s
        while not self.token:
            sent_s = self._clock()
            wait_s = max(0.0, min(wish.ask_again_s, give_up_s - sent_s))
            self.settled = False
            outcome = yield Ask(self._acquire(wait_s), wait_s + REPLY_S)
            if isinstance(outcome, Reply) and isinstance(outcome.value, int):
                self._granted(outcome.value, sent_s)
                continue
            why = self._not_granted(outcome)
            left_s = give_up_s - self._clock()
            if left_s <= 0:
                raise LockTimeout(f"lock {shown(wish.name)} was not granted within {wish.timeout_s:g} s: {why}")
            if not isinstance(outcome, Reply):
                yield Pause(min(self._pauses.next_s(), left_s))

    def _granted(self, token: int, sent_s: float) -> None:
        """Takes the grant, or leaves it to be asked for again when too much of its life may be over."""
        age_s = self._clock() - sent_s
        if age_s < (self._believed_s if self._is_granted else self.wish.ttl_s / RENEWALS):
            self.token = token
            self._lives_from(sent_s)
        self._is_granted = True

    def _not_granted(self, outcome: Outcome | None) -> str:
        """Why not; raises what will not change by asking again."""
        match outcome:
            case Refusal("UNCERTAIN", why) | Lost(why):
                self._is_doubtful = True
            case Refusal(_, why) | Unreached(why):
                pass
            case _:
                why = "others hold it"
                self._is_granted = False
                self._pauses.reset()
        self.settled = not (self._is_doubtful or self._is_granted)
        if isinstance(outcome, Refusal) and outcome.code not in PASSING:
            if outcome.code == "DEADLOCK":
                raise DeadlockError(why.removeprefix("DEADLOCK "))
            raise LockError(f"lock {shown(self.wish.name)}: {why}")
        return why

    def renewing(self) -> Steps:
        """Until the lock is lost, which may be never. Only after `acquiring`."""
        while self.is_held:
            yield Pause(max(0.0, self._renew_at_s - self._clock()))
            if not self.is_held:
                return
            sent_s = self._clock()
            outcome = yield Ask(self._extend(), min(REPLY_S, max(0.001, self._until_s - sent_s)))
            match outcome:
                case Reply(1):
                    self._lives_from(sent_s)
                case Reply():
                    self._lose("the server gave it to somebody else, or it was broken")
                case _:
                    self._renew_at_s = min(self._clock() + self._pauses.next_s(), self._until_s)

    def releasing(self) -> Steps:
        """Gives back what is held, or may be. Afterwards `conclude` tells whether it was held to the end.

        Does not raise. When no server answers in time, ``unreleased`` says why.
        """
        was_held = self.is_held
        self._ended = True
        if self.settled and not self.token:
            return
        self.settled = False
        give_up_s = self._clock() + GIVE_BACK_S
        if self.token:
            give_up_s = min(give_up_s, self._until_s)
        is_first = True  # no release before this one may have been carried out
        to_go = 1 if self.token else 2  # a wait that is given up may end only after the first, and be granted before
        while True:
            outcome = yield Ask(self._release(), REPLY_S)
            assert outcome is not None
            if isinstance(outcome, Reply):
                if was_held and is_first and not outcome.value:
                    self._lose("it was broken, or the server's clock was set forward")
                to_go = 0 if outcome.value else to_go - 1
                if to_go:
                    continue
                self.settled = bool(self.token) and not self._is_doubtful
                return
            match outcome:
                case Lost(why) | Refusal("UNCERTAIN", why):
                    is_first = False
                case Refusal(_, why) | Unreached(why):
                    pass
            is_final = isinstance(outcome, Refusal) and outcome.code not in PASSING
            if is_final or self._clock() >= give_up_s:
                self.unreleased = why
                return
            yield Pause(self._pauses.next_s())

    # Words

    def _acquire(self, wait_s: float) -> Words:
        wish = self.wish
        mode = "SHARED" if wish.shared else "EXCLUSIVE"
        block = ("BLOCK", str(math.ceil(wait_s * 1000))) if wait_s else ()
        return ("LOCK.ACQUIRE", wish.key, self.owner, mode, "PX", str(wish.ttl_ms), *block, "ID", self._request)

    def _extend(self) -> Words:
        return ("LOCK.EXTEND", self.wish.key, self.owner, "PX", str(self.wish.ttl_ms), "TOKEN", str(self.token))

    def _release(self) -> Words:
        token = ("TOKEN", str(self.token)) if self.token else ()
        return ("LOCK.RELEASE", self.wish.key, self.owner, *token)
