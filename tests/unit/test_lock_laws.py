"""Laws of locks: the machine against a naive model, over histories hypothesis makes up.

Every session has one owner of the same name, so a deadlock's victim is always
the one who closes it; owners with several sessions are in test_locks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import END_SESSION, Commands, Machine
from cluster.machine.reply import WAITING, CommandError, Reply
from cluster.storage.contract import Row
from resp_server.commands import keys, locks

TABLE = {command.name.encode(): command for command in (*locks.COMMANDS, *keys.COMMANDS)}
COMMANDS = Commands(
    {name: command.run for name, command in TABLE.items() if command.run is not None},
    {name: command.retry for name, command in TABLE.items() if command.retry is not None},
)
KEYS = (b"k1", b"k2")
OWNERS = (b"a", b"b", b"c", b"d")
START_MS = 1_000_000

Act: TypeAlias = "tuple[int, bytes, list[bytes]]"  # time (in a history: the pause before it), session, command
Shown: TypeAlias = "tuple[bytes, tuple[bool, int], int, int]"  # owner, (exclusive, holds), end, token
Info: TypeAlias = "tuple[list[Shown], list[bytes]]"  # holders, owners who wait


@dataclass
class Held:
    owner: bytes
    token: int
    ends_ms: int | None
    count: int = 1


@dataclass
class Wanted:
    number: int
    owner: bytes
    key: bytes
    exclusive: bool
    px_ms: int | None
    deadline_ms: int | None
    urgent: bool


@dataclass
class Model:
    """Locks as lists, searched from end to end."""

    now_ms: int = START_MS
    token: int = 0
    number: int = 0
    exclusive: dict[bytes, bool] = field(default_factory=dict)
    held: dict[bytes, list[Held]] = field(default_factory=lambda: {key: [] for key in KEYS})
    waiting: list[Wanted] = field(default_factory=list)
    woken: list[tuple[bytes, object]] = field(default_factory=list)

    def queue(self, key: bytes) -> list[Wanted]:
        return sorted((w for w in self.waiting if w.key == key), key=lambda w: (not w.urgent, w.number))

    def hold(self, key: bytes, owner: bytes) -> Held | None:
        return next((hold for hold in self.held[key] if hold.owner == owner), None)

    def grant(self, wanted: Wanted, *, first: bool) -> int | None:
        key, held = wanted.key, self.held[wanted.key]
        mine = self.hold(key, wanted.owner)
        ends_ms = None if wanted.px_ms is None else self.now_ms + wanted.px_ms
        if mine is None:
            if (not first and self.queue(key)) or (held and (wanted.exclusive or self.exclusive[key])):
                return None
            self.token += 1
            held.append(Held(wanted.owner, self.token, ends_ms))
            self.exclusive[key] = wanted.exclusive
            return self.token
        if wanted.exclusive and not self.exclusive[key]:
            if len(held) > 1:
                return None
            self.token += 1
            mine.token = self.token
            self.exclusive[key] = True
        else:
            mine.count += 1
        mine.ends_ms = None if ends_ms is None or mine.ends_ms is None else max(ends_ms, mine.ends_ms)
        return mine.token

    def is_stuck(self, owner: bytes) -> bool:
        reached: list[bytes] = []
        ahead = [owner]
        while ahead:
            one = ahead.pop()
            for wanted in self.waiting:
                if wanted.owner == one:
                    new = [h.owner for h in self.held[wanted.key] if h.owner != one and h.owner not in reached]
                    reached += new
                    ahead += new
        return owner in reached

    def acquire(self, owner: bytes, key: bytes, exclusive: bool, px_ms: int | None, block_ms: int | None) -> object:
        self.number += 1
        deadline_ms = self.now_ms + block_ms if block_ms else None
        wanted = Wanted(self.number, owner, key, exclusive, px_ms, deadline_ms, self.hold(key, owner) is not None)
        token = self.grant(wanted, first=False)
        if token is not None or block_ms is None:
            return token
        self.waiting.append(wanted)
        if self.is_stuck(owner):
            self.waiting.remove(wanted)
            return "DEADLOCK"
        return WAITING

    def leave(self, key: bytes, owner: bytes) -> None:
        """What it waits for there is no upgrade any more."""
        self.held[key] = [hold for hold in self.held[key] if hold.owner != owner]
        for wanted in self.waiting:
            if (wanted.key, wanted.owner) == (key, owner):
                wanted.urgent = False

    def leave_all(self, key: bytes) -> int:
        owners = [hold.owner for hold in self.held[key]]
        for owner in owners:
            self.leave(key, owner)
        return len(owners)

    def serve(self) -> None:
        for key in KEYS:
            while queue := self.queue(key):
                token = self.grant(queue[0], first=True)
                if token is None:
                    break
                self.waiting.remove(queue[0])
                self.woken.append((queue[0].owner, token))

    def pass_to(self, time_ms: int) -> None:
        self.now_ms = time_ms
        while due := self.due():
            _, kind, key, owner = min(due)
            if kind == 1:
                self.waiting = [w for w in self.waiting if w.owner != owner]
                self.woken.append((owner, None))
            else:
                self.leave(key, owner)
            self.serve()

    def due(self) -> list[tuple[int, int, bytes, bytes]]:
        waits = [(w.deadline_ms, 1, b"", w.owner) for w in self.waiting if w.deadline_ms is not None]
        holds = [(h.ends_ms, 2, key, h.owner) for key in KEYS for h in self.held[key] if h.ends_ms is not None]
        return [event for event in waits + holds if event[0] <= self.now_ms]

    def carry_out(self, owner: bytes, args: list[bytes]) -> object:
        name, key = args[0], args[1]
        mine = self.hold(key, owner) if key in KEYS else None
        match name:
            case b"LOCK.ACQUIRE":
                px_ms = int(args[args.index(b"PX") + 1]) if b"PX" in args else None
                block_ms = int(args[args.index(b"BLOCK") + 1]) if b"BLOCK" in args else None
                return self.acquire(owner, key, args[3] == b"EXCLUSIVE", px_ms, block_ms)
            case b"LOCK.RELEASE":
                if mine is not None:
                    mine.count -= 1
                    if not mine.count:
                        self.leave(key, owner)
                return int(mine is not None)
            case b"LOCK.EXTEND":
                if mine is not None:
                    mine.ends_ms = self.now_ms + int(args[4])
                return int(mine is not None)
            case b"LOCK.DOWNGRADE":
                if mine is None or not self.exclusive[key]:
                    return None
                self.exclusive[key] = False
                return mine.token
            case b"DEL" | b"LOCK.BREAK":
                count = self.leave_all(key)
                return min(count, 1) if name == b"DEL" else count
            case _:
                self.end(owner)
                return None

    def end(self, owner: bytes) -> None:
        self.waiting = [w for w in self.waiting if w.owner != owner]
        for key in KEYS:
            self.held[key] = [h for h in self.held[key] if h.owner != owner or h.ends_ms is not None]

    def info(self, key: bytes) -> Info:
        ends = (-1 if h.ends_ms is None else h.ends_ms for h in self.held[key])
        holds = zip(self.held[key], ends, strict=True)
        return (
            sorted((h.owner, (self.exclusive[key], h.count), ends_ms, h.token) for h, ends_ms in holds),
            [w.owner for w in self.queue(key)],
        )


class Live:
    """The machine, told the same as the model."""

    def __init__(self) -> None:
        self.machine = Machine(COMMANDS)
        self.woken: list[tuple[bytes, object]] = []

    def pass_to(self, time_ms: int) -> None:
        self.machine.begin(time_ms)
        self.woken += [(origin, reply) for origin, _, reply in self.machine.woken]
        self.machine.woken.clear()

    def step(self, act: Act) -> Reply:
        time_ms, session, args = act
        machine = self.machine
        machine.begin(time_ms)
        machine.origin = session
        reply = machine.run(machine.handler(args[0]), args)
        self.woken += [(origin, reply) for origin, _, reply in machine.woken]
        machine.woken.clear()
        return reply

    def raw_info(self, key: bytes) -> dict[bytes, object]:
        info = self.machine.run(self.machine.handler(b"LOCK.INFO"), [b"LOCK.INFO", key])
        assert isinstance(info, dict)
        return info

    def info(self, key: bytes) -> Info:
        info = self.raw_info(key)
        holders, waiters = info[b"holders"], info[b"waiters"]
        assert isinstance(holders, list)
        assert isinstance(waiters, list)
        assert [h[b"mode"] == info[b"mode"] for h in holders] == [True] * len(holders)
        assert bool(holders) == (info[b"mode"] != b"free")
        holds: list[Shown] = []
        for h in holders:
            ends_ms = -1 if h[b"session"] else h[b"ttl-ms"] + self.machine.now_ms
            holds.append((h[b"owner"], (h[b"mode"] == b"exclusive", h[b"holds"]), ends_ms, h[b"token"]))
        return sorted(holds), [w[b"owner"] for w in waiters]


def plain(reply: object) -> object:
    return reply.code if isinstance(reply, CommandError) else reply


TIMES = st.sampled_from([b"20", b"300", b"5000", b"5000"])
LIVES = st.one_of(st.just([b"SESSION"]), TIMES.map(lambda ms: [b"PX", ms]))
BLOCKS = st.sampled_from([[], [b"BLOCK", b"0"], [b"BLOCK", b"0"], [b"BLOCK", b"40"], [b"BLOCK", b"2000"]])
MODES = st.sampled_from([b"SHARED", b"EXCLUSIVE"])


@st.composite
def acts(draw: st.DrawFn) -> Act:
    """A pause, a session and what it does."""
    pause_ms = draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 20, 1500]))
    owner, key = draw(st.sampled_from(OWNERS)), draw(st.sampled_from(KEYS))
    name = draw(st.sampled_from([b"LOCK.ACQUIRE"] * 9 + [b"LOCK.RELEASE"] * 4 + RARELY))
    match name:
        case b"LOCK.ACQUIRE":
            args = [name, key, owner, draw(MODES), *draw(LIVES), *draw(BLOCKS)]
        case b"LOCK.EXTEND":
            args = [name, key, owner, b"PX", draw(TIMES)]
        case b"LOCK.BREAK" | b"DEL":
            args = [name, key]
        case b"_SESSION.END":
            args = [name, owner]
        case _:
            args = [name, key, owner]
    return pause_ms, owner, args


RARELY = [b"LOCK.EXTEND", b"LOCK.DOWNGRADE", b"LOCK.BREAK", b"DEL", END_SESSION]
HISTORIES = st.lists(acts(), min_size=20, max_size=60)


def performed(history: list[Act], model: Model, live: Live | None = None) -> Iterator[Act]:
    """The history with its times; a session that waits says nothing until it is answered or ends."""
    time_ms = model.now_ms
    for pause_ms, session, args in history:
        time_ms += pause_ms
        model.pass_to(time_ms)
        if live is not None:
            live.pass_to(time_ms)
        if args[0] == END_SESSION or all(wanted.owner != session for wanted in model.waiting):
            yield time_ms, session, args


class Tokens:
    """Which of the machine's tokens is which of the model's.

    When one entry frees several locks, they are served in an order that is the
    machine's own affair, so the two may number those grants differently.
    """

    def __init__(self) -> None:
        self.of_model: dict[int, int] = {}

    def same(self, model: int, live: int) -> bool:
        return self.of_model.setdefault(model, live) == live and len(set(self.of_model.values())) == len(self.of_model)

    def same_reply(self, model: object, live: object) -> bool:
        if type(model) is int and type(live) is int:
            return self.same(model, live)
        return model == live


@given(HISTORIES)
@settings(max_examples=150, deadline=None)
def test_the_machine_does_as_the_model(history: list[Act]) -> None:
    model, live, tokens = Model(), Live(), Tokens()
    for act in performed(history, model, live):
        expected = model.carry_out(act[1], act[2])
        model.serve()
        reply = plain(live.step(act))
        if act[2][0] in (b"LOCK.ACQUIRE", b"LOCK.DOWNGRADE"):
            assert tokens.same_reply(expected, reply), act
        else:
            assert expected == reply, act
        assert dict(model.woken).keys() == dict(live.woken).keys()
        assert all(tokens.same_reply(token, dict(live.woken)[owner]) for owner, token in model.woken)
        model.woken.clear()
        live.woken.clear()
        for key in KEYS:
            expected_holders, expected_waiters = model.info(key)
            holders, waiters = live.info(key)
            assert [hold[:3] for hold in holders] == [hold[:3] for hold in expected_holders]
            assert all(
                tokens.same(of_model[3], of_live[3])
                for of_model, of_live in zip(expected_holders, holders, strict=True)
            )
            assert waiters == expected_waiters
            check_laws(live.raw_info(key))
    check_nothing_stays(live)


def check_laws(info: dict[bytes, object]) -> None:
    holders, waiters, token = info[b"holders"], info[b"waiters"], info[b"token"]
    assert isinstance(holders, list)
    assert isinstance(token, int)
    assert info[b"mode"] != b"exclusive" or len(holders) == 1
    assert holders or not waiters, "somebody waits for a free lock"
    tokens = [hold[b"token"] for hold in holders]
    assert len(set(tokens)) == len(tokens)
    assert all(0 < one <= token for one in tokens)


def check_nothing_stays(live: Live) -> None:
    """When all is given back and every life is over, nothing is left."""
    machine = live.machine
    for owner in OWNERS:
        live.step((machine.now_ms, b"", [END_SESSION, owner]))
    for key in KEYS:
        live.step((machine.now_ms, b"", [b"LOCK.BREAK", key]))
    assert len(machine.waiters) == len(machine.keyspace) == len(machine.sessions.origins()) == 0
    machine.begin(machine.now_ms + 10_000)
    assert len(machine.clockwork) == 0


@given(HISTORIES, HISTORIES)
@settings(max_examples=50, deadline=None)
def test_tokens_grow_strictly_with_every_new_hold(history: list[Act], more: list[Act]) -> None:
    model, live = Model(), Live()
    known: dict[bytes, int] = dict.fromkeys(KEYS, 0)
    for act in performed(history + more, model, live):
        model.carry_out(act[1], act[2])
        model.serve()
        live.step(act)
        for key in KEYS:
            token = live.raw_info(key)[b"token"]
            assert isinstance(token, int)
            assert token >= known[key]
            known[key] = token
    assert live.machine.issued.counter == model.token == max(known.values())


@given(HISTORIES, HISTORIES)
@settings(max_examples=100, deadline=None)
def test_a_checkpoint_and_the_log_behind_it_give_the_same_state(before: list[Act], after: list[Act]) -> None:
    model, live = Model(), Live()
    for act in told(before, model):
        live.step(act)
    rows: dict[bytes, Row] = {}
    checkpoint, ledger = live.machine.begin_checkpoint()
    begin_writing(checkpoint, rows)
    later: list[Act] = []
    replies: list[Reply] = []
    for act in told(after, model):
        later.append(act)
        replies.append(live.step(act))
        write(checkpoint.slice(1), rows)  # the walk goes on while the locks change
    drain(checkpoint, rows)
    live.machine.keyspace.end_checkpoint(durable=True)

    restored = Live()
    restored.machine.restore(ledger, rows.values())
    assert [plain(restored.step(act)) for act in later] == [plain(reply) for reply in replies]
    assert [restored.raw_info(key) for key in KEYS] == [live.raw_info(key) for key in KEYS]
    check_nothing_stays(restored)

    checkpoint, ledger = live.machine.begin_checkpoint()  # the next one writes what changed since
    begin_writing(checkpoint, rows)
    drain(checkpoint, rows)
    again = Live()
    again.machine.restore(ledger, rows.values())
    assert [again.raw_info(key) for key in KEYS] == [live.raw_info(key) for key in KEYS]
    check_nothing_stays(again)


def told(history: list[Act], model: Model) -> Iterator[Act]:
    """The history as it can happen; the model follows it to know who waits."""
    for act in performed(history, model):
        model.carry_out(act[1], act[2])
        model.serve()
        yield act


def begin_writing(checkpoint: Checkpoint, rows: dict[bytes, Row]) -> None:
    if checkpoint.cleared:
        rows.clear()
    for key in checkpoint.erased:
        rows.pop(key, None)


def write(more: list[Row], rows: dict[bytes, Row]) -> None:
    rows.update({row.key: row for row in more})


def drain(checkpoint: Checkpoint, rows: dict[bytes, Row]) -> None:
    while more := checkpoint.slice(10):
        write(more, rows)
