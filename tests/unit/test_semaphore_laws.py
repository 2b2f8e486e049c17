"""Laws of semaphores: the machine against a naive model, over histories hypothesis makes up.

Every session has one owner of the same name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.machine.machine import END_SESSION
from cluster.machine.reply import WAITING, CommandError, Reply
from tests.unit.machines import START_MS, Talk

OWNERS = ("a", "b", "c", "d")

Act: TypeAlias = "tuple[int, str, list[bytes]]"  # the pause before it, the session, the command


@dataclass
class Held:
    owner: str
    token: int
    count: int
    ends_ms: int | None
    requests: list[bytes]


@dataclass
class Wanted:
    owner: str
    limit: int
    count: int
    px_ms: int | None
    request: bytes
    deadline_ms: int | None = None


@dataclass
class Model:
    """A semaphore as lists, searched from end to end."""

    now_ms: int = START_MS
    limit: int = 0
    token: int = 0
    held: list[Held] = field(default_factory=list)
    waiting: list[Wanted] = field(default_factory=list)
    woken: list[tuple[str, object]] = field(default_factory=list)

    def used(self) -> int:
        return sum(hold.count for hold in self.held)

    def hold(self, owner: str) -> Held | None:
        return next((hold for hold in self.held if hold.owner == owner), None)

    def grant(self, wanted: Wanted, *, first: bool) -> object:
        mine = self.hold(wanted.owner)
        ends_ms = None if wanted.px_ms is None else self.now_ms + wanted.px_ms
        is_known = mine is not None and wanted.request in mine.requests
        if not is_known:
            if not first or self.used() + wanted.count > self.limit:
                return "ERR" if first and wanted.count > self.limit else None
            if mine is None:
                self.token += 1
                self.held.append(Held(wanted.owner, self.token, wanted.count, ends_ms, [wanted.request]))
                return self.token
            mine.count += wanted.count
            mine.requests.append(wanted.request)
        assert mine is not None
        mine.ends_ms = None if ends_ms is None or mine.ends_ms is None else max(ends_ms, mine.ends_ms)
        return mine.token

    def acquire(self, wanted: Wanted, block_ms: int | None) -> object:
        if wanted.count > wanted.limit:
            return "ERR"
        self.limit = wanted.limit  # of the latest who came, whatever comes of it
        reply = self.grant(wanted, first=not self.waiting)
        if reply is not None or block_ms is None:
            return reply
        wanted.deadline_ms = self.now_ms + block_ms if block_ms else None
        self.waiting.append(wanted)
        return WAITING

    def serve(self) -> None:
        if not self.held and self.waiting:
            self.limit = self.waiting[-1].limit  # what nobody holds is no key, and remembers nothing
        while self.waiting and (reply := self.grant(self.waiting[0], first=True)) is not None:
            self.woken.append((self.waiting.pop(0).owner, reply))

    def release(self, owner: str, count: int) -> int:
        mine = self.hold(owner)
        if mine is None:
            return 0
        given = min(count, mine.count)
        mine.count -= given
        self.held = [hold for hold in self.held if hold.count]
        return given

    def end(self, owner: str) -> None:
        self.waiting = [wanted for wanted in self.waiting if wanted.owner != owner]
        self.held = [hold for hold in self.held if hold.owner != owner or hold.ends_ms is not None]

    def pass_ms(self, ms: int) -> None:
        self.now_ms += ms
        while due := self.due():
            _, kind, owner = min(due)
            if kind == 1:
                self.waiting = [wanted for wanted in self.waiting if wanted.owner != owner]
                self.woken.append((owner, None))
            else:
                self.held = [hold for hold in self.held if hold.owner != owner]
            self.serve()

    def due(self) -> list[tuple[int, int, str]]:
        waits = [(one.deadline_ms, 1, one.owner) for one in self.waiting if one.deadline_ms is not None]
        holds = [(one.ends_ms, 2, one.owner) for one in self.held if one.ends_ms is not None]
        return [event for event in waits + holds if event[0] <= self.now_ms]

    def carry_out(self, owner: str, args: list[bytes]) -> object:
        match args[0]:
            case b"SEM.ACQUIRE":
                options = dict(zip(args[3::2], args[4::2], strict=False))
                px_ms = int(options[b"PX"]) if b"PX" in options else None
                block_ms = int(options[b"BLOCK"]) if b"BLOCK" in options else None
                limit, count = int(options[b"LIMIT"]), int(options[b"COUNT"])
                return self.acquire(Wanted(owner, limit, count, px_ms, options[b"ID"]), block_ms)
            case b"SEM.RELEASE":
                return self.release(owner, int(args[4]))
            case b"DEL":
                was, self.held = len(self.held), []
                return min(was, 1)
            case _:
                self.end(owner)
                return None

    def info(self) -> object:
        ends = [(hold, -1 if hold.ends_ms is None else hold.ends_ms - self.now_ms) for hold in self.held]
        return (
            self.limit if self.held else 0,
            [(hold.owner.encode(), hold.count, hold.token, ttl_ms) for hold, ttl_ms in ends],
            [(wanted.owner.encode(), wanted.count) for wanted in self.waiting],
        )


def info(talk: Talk) -> object:
    shown = talk.map("SEM.INFO k")
    holders, waiters = shown[b"holders"], shown[b"waiters"]
    assert isinstance(holders, list)
    assert isinstance(waiters, list)
    assert shown[b"held"] == sum(hold[b"count"] for hold in holders)
    return (
        shown[b"limit"],
        [(hold[b"owner"], hold[b"count"], hold[b"token"], hold[b"ttl-ms"]) for hold in holders],
        [(waiter[b"owner"], waiter[b"count"]) for waiter in waiters],
    )


@st.composite
def acts(draw: st.DrawFn) -> Act:
    pause_ms = draw(st.sampled_from([0, 0, 0, 0, 1, 20, 1500]))
    owner = draw(st.sampled_from(OWNERS))
    name = draw(st.sampled_from([b"SEM.ACQUIRE"] * 9 + [b"SEM.RELEASE"] * 5 + [b"DEL", END_SESSION]))
    count = draw(st.sampled_from([b"1", b"1", b"2", b"3"]))
    match name:
        case b"SEM.ACQUIRE":
            # SESSION is an option without a value: it comes last, so that the model can read pairs.
            life = draw(st.sampled_from([[b"PX", b"20"], [b"PX", b"5000"], [b"PX", b"5000"], [b"SESSION"]]))
            block = draw(st.sampled_from([[], [b"BLOCK", b"0"], [b"BLOCK", b"0"], [b"BLOCK", b"40"]]))
            limit = draw(st.sampled_from([b"2", b"3", b"3", b"3", b"4"]))
            request = draw(st.sampled_from([b"r1", b"r2", b"r3"]))
            args = [name, b"k", owner.encode(), b"LIMIT", limit, b"COUNT", count, b"ID", request, *block, *life]
        case b"SEM.RELEASE":
            args = [name, b"k", owner.encode(), b"COUNT", count]
        case b"DEL":
            args = [name, b"k"]
        case _:
            args = [name, owner.encode()]
    return pause_ms, owner, args


HISTORIES = st.lists(acts(), min_size=15, max_size=50)


def plain(reply: Reply) -> object:
    return reply.code if isinstance(reply, CommandError) else reply


@given(HISTORIES)
@settings(max_examples=150, deadline=None)
def test_the_machine_does_as_the_model_also_after_a_restart(history: list[Act]) -> None:
    model, talk, copy = Model(), Talk(), Talk()
    for number, (pause_ms, owner, args) in enumerate(history):
        if number % 5 == 0:
            copy = talk.restored()
        for one in (model, talk, copy):
            one.pass_ms(pause_ms)
        token = model.token
        woken = {one: one.woken() for one in (talk, copy)}  # before the session asks for something else
        if args[0] == END_SESSION or all(wanted.owner != owner for wanted in model.waiting):
            expected = model.carry_out(owner, args)
            model.serve()
            assert [plain(one(owner, args)) for one in (talk, copy)] == [expected] * 2
        for one in (talk, copy):
            assert [(who, plain(reply)) for who, reply in woken[one] + one.woken()] == model.woken
            assert info(one) == model.info()
        model.woken.clear()
        assert model.token >= token
        assert len({hold.token for hold in model.held}) == len(model.held)
        if model.waiting:
            assert model.waiting[0].count + model.used() > model.limit, "nobody waits for what is free"
    check_nothing_stays(talk)


def check_nothing_stays(talk: Talk) -> None:
    for owner in OWNERS:
        talk.end(owner)
    talk.pass_ms(100_000)
    machine = talk.machine
    assert len(machine.waiters) == len(machine.keyspace) == len(machine.clockwork) == 0
    assert not machine.sessions.origins()


LIMITED = st.lists(st.tuples(st.sampled_from(OWNERS), st.integers(1, 3), st.booleans()), min_size=10, max_size=60)


@given(LIMITED, st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_never_more_than_the_limit_and_first_come_first_served(
    history: list[tuple[str, int, bool]], limit: int
) -> None:
    """Whatever owners do, in sessions of their own, while all of them say the same limit."""
    talk = Talk()
    line: list[str] = []
    last = 0
    for number, (owner, count, takes) in enumerate(history):
        session = f"s{number}"
        if takes and talk(session, f"SEM.ACQUIRE k {owner} LIMIT {limit} COUNT {min(count, limit)} BLOCK 0") is WAITING:
            line.append(session)
        elif not takes:
            talk(session, f"SEM.RELEASE k {owner} COUNT {count}")
        for served, token in talk.woken():
            assert served == line.pop(0)
            assert isinstance(token, int)
        shown = talk.map("SEM.INFO k")
        assert isinstance(shown[b"held"], int)
        assert shown[b"held"] <= limit
        assert isinstance(shown[b"token"], int)
        assert shown[b"token"] >= last
        last = shown[b"token"]
