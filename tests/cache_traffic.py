"""Clients of all nodes that use a few keys through caches and past them, and the judgement of all they were told.

Keys are of three kinds. What is written to a *firm* one is durable before the reply, and is never lost. A *loose*
one is written by CACHE.SET without SYNC too, which may go with the node it was told to: with one that a test
hurt, or that counts itself a lease it lost. A key that is *loaded* is fetched by many and filled by one at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from cluster.machine.loading import LOAD_MS
from tests.cached_models import FOREVER, PLAIN, CachedRegister, Loaded
from tests.callers import Caller, NotDone, Unsure, Wanderer
from tests.clusters import Cluster, Node
from tests.histories import History, Task, clients_of
from tests.servers import wait_until
from tests.simulation.findings import Report
from tests.simulation.linearizability import check
from tests.simulation.models import UNKNOWN, Call, Operation

KEYS = 4  # firm ones, and as many loose ones
LOADED = 2
READERS, LOADERS = 8, 4
REST_S = 0.004
TOLD_LOST = re.compile(r"^(\S+)Z warning \"what clients wrote to this node's cache may be lost\"", re.MULTILINE)
TOLD_LATE_NS = 5_000_000_000  # a node may say that long after others saw it what it lost
EARLY = 0.95  # of a life: the log's clock nears the wall clock a hundredth at a time
LIVES_MS = (20, 100, 400, 1500)
LOADS_MS = (150, 600)

Read = Callable[[Any], Sequence[Any]]
"""The outputs of the operations that a call is recorded as, from its reply."""


def _as_it_is(reply: Any) -> Sequence[Any]:
    return [reply]


def _each(reply: Any) -> Sequence[Any]:
    values: Sequence[Any] = reply
    return values


def _one_of_two(reply: Any) -> Sequence[Any]:
    """What a fetch answers: the value, or the token."""
    value, token = reply
    return [token if value is None else value]


def _not_at_all(reply: Any) -> Sequence[Any]:
    return []


@dataclass
class CacheHistory(History):
    """Every call on these keys, and what happened to nodes meanwhile that may have cost one its changes.

    What those lost that nobody hurt is in their logs.
    """

    firm: list[bytes] = field(default_factory=list)
    loose: list[bytes] = field(default_factory=list)
    loaded: list[bytes] = field(default_factory=list)
    losses: list[tuple[str, int, int]] = field(default_factory=list)
    commands: Counter[str] = field(default_factory=Counter)
    hurt: dict[str, int] = field(default_factory=dict)
    unhurt_losses: int = 0
    began: int = field(default_factory=time.monotonic_ns)
    places: dict[str, Node] = field(default_factory=dict)

    def hurts(self, *nodes: Node) -> None:
        """From now on these may lose what is changed in their caches, until `recovered`."""
        now = time.monotonic_ns()
        for node in nodes:
            self.hurt.setdefault(node.name, now)

    def recovered(self) -> None:
        """What was hurt loses nothing any more."""
        now = time.monotonic_ns()
        self.losses += [(name, since, now) for name, since in self.hurt.items()]
        self.hurt.clear()

    def look_at_logs(self) -> None:
        """What nodes say to have lost; one that was hurt may do so twice. Others may have seen it before."""
        hurt = self.losses.copy()
        for node in self.places.values():
            for told in _told_lost(node):
                if told < self.began:
                    continue
                if not any(name == node.name and since <= told <= until for name, since, until in hurt):
                    self.unhurt_losses += 1
                self.losses.append((node.name, told - TOLD_LATE_NS, told))

    def ask(self, name: str, caller: Wanderer, words: Call, recorded: Sequence[Call], read: Read = _as_it_is) -> Any:
        """Makes the call, and keeps what is known of it as these operations, of which ``read`` gives the outputs."""
        place = caller.place()
        self.places[place.name] = place
        client = f"{name} {words[0].decode()} at {place}"
        self.commands[words[0].decode()] += 1
        invoked = time.monotonic_ns()
        try:
            reply: Any = caller.call(*words)
        except Unsure:
            self.operations += [Operation(client, call, invoked) for call in recorded]
            raise
        returned = time.monotonic_ns()
        self.operations += [
            Operation(client, call, invoked, returned, output)
            for call, output in zip(recorded, read(reply), strict=True)
        ]
        return reply

    def happens(self, call: Call, from_ns: int) -> None:
        """Something no client calls may happen from then on."""
        self.operations.append(Operation("", call, from_ns))

    def judge(self) -> list[Report]:
        """What the search says of the registers, and of the keys that are loaded."""
        loaded, loose = set(self.loaded), set(self.loose)
        registers = [one for one in self.operations if one.call[1] not in loaded]
        used = {one.call[1] for one in registers} & loose
        registers += [
            Operation(name, (b"LOSE", key, name.encode()), since, until, UNKNOWN)
            for name, since, until in self.losses
            for key in sorted(used)
        ]
        loads = [one for one in self.operations if one.call[1] in loaded]
        return [check(registers, CachedRegister()), check(loads, Loaded())]


@dataclass
class _Numbers:
    """Of one client, in one history: no value and no tag is written twice."""

    client: int
    _next: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new(self) -> bytes:
        """The next one."""
        return b"%d-%d" % (self.client, next(self._next))


class _Client:
    """Makes calls on the keys of a history."""

    def __init__(self, history: CacheHistory, number: int, seed: int) -> None:
        self._history = history
        self._name = f"client{number}"
        self._numbers = _Numbers(number)
        self._chance = random.Random(seed)


class _Reader(_Client):
    """Reads and writes registers, nine of ten calls through the cache of the node it is at."""

    def __call__(self, caller: Caller) -> None:
        assert isinstance(caller, Wanderer)
        history, chance = self._history, self._chance
        loose = chance.random() < 0.5
        keys = history.loose if loose else history.firm
        key, node = chance.choice(keys), caller.place().name.encode()
        die = chance.random()
        if die < 0.50:
            history.ask(self._name, caller, (b"CACHE.GET", key), [_read(key, node, loose=loose)])
        elif die < 0.55:
            two = chance.sample(keys, 2)
            calls = [_read(one, node, loose=loose) for one in two]
            history.ask(self._name, caller, (b"CACHE.MGET", *two), calls, _each)
        elif die < 0.63:
            history.ask(self._name, caller, (b"GET", key), [_read(key, PLAIN, loose=loose)])
        elif die < 0.92:
            through = die < 0.85
            self._write(caller, key, node if through else PLAIN, durable=not loose or chance.random() < 0.1)
        elif die < 0.96:
            history.ask(self._name, caller, (b"CACHE.DEL" if die < 0.94 else b"DEL", key), [(b"DEL", key)])
        elif die < 0.98:
            life_ms, tag = chance.choice(LIVES_MS), self._numbers.new()
            self._lapses(key, tag, life_ms)
            history.ask(self._name, caller, (b"PEXPIRE", key, b"%d" % life_ms), [(b"EXPIRE", key, tag)])
        else:
            history.ask(self._name, caller, (b"CACHE.EVICT", key) if die < 0.99 else (b"CACHE.FLUSH",), [], _not_at_all)

    def _write(self, caller: Wanderer, key: bytes, node: bytes, *, durable: bool) -> None:
        chance = self._chance
        value, tag = self._numbers.new(), FOREVER
        words: list[bytes] = [b"CACHE.SET" if node else b"SET", key, value]
        condition: tuple[bytes, ...] = ()
        if chance.random() < 0.15:
            life_ms, tag = chance.choice(LIVES_MS), self._numbers.new()
            self._lapses(key, tag, life_ms)
            words += [b"PX", b"%d" % life_ms]
        if chance.random() < 0.1:
            condition = (chance.choice((b"NX", b"XX")),)
            words += condition
        if node and durable:
            words.append(b"SYNC")
        owner = PLAIN if durable else node
        self._history.ask(self._name, caller, tuple(words), [(b"SET", key, value, owner, tag, *condition)])

    def _lapses(self, key: bytes, tag: bytes, life_ms: int) -> None:
        self._history.happens((b"LAPSE", key, tag), time.monotonic_ns() + _early_ns(life_ms))


def _early_ns(life_ms: int) -> int:
    """When a life may end at the earliest: it is counted in whole milliseconds of the log's clock."""
    return int((life_ms * EARLY - 2) * 1e6)


def _read(key: bytes, node: bytes, *, loose: bool) -> Call:
    return (b"READ", key, node) if loose else (b"GET", key)


class _Loader(_Client):
    """Fetches keys; with a token it fills, or comes too late, or leaves."""

    def __call__(self, caller: Caller) -> None:
        assert isinstance(caller, Wanderer)
        history, chance = self._history, self._chance
        key = chance.choice(history.loaded)
        life_ms = chance.choice(LOADS_MS) if chance.random() < 0.6 else None
        px = (b"PX", b"%d" % life_ms) if life_ms is not None else ()
        invoked = time.monotonic_ns()
        value, token = history.ask(
            self._name, caller, (b"CACHE.FETCH", key, *px), [(b"FETCH", key, *px[1:])], _one_of_two
        )
        if token is None:
            if chance.random() < 0.4:
                history.ask(self._name, caller, (b"DEL", key), [(b"DEL", key)])
            elif chance.random() < 0.1:
                value = self._numbers.new()
                history.ask(self._name, caller, (b"SET", key, value), [(b"SET", key, value)])
            return
        end: Call = (b"END", key, b"%d" % token)
        history.happens(end, invoked + _early_ns(life_ms if life_ms is not None else LOAD_MS))
        die = chance.random()
        if die < 0.2 or not caller.connected:
            history.happens(end, time.monotonic_ns() if caller.connected else invoked)
            caller.leave()
            return
        if die < 0.4 and life_ms is not None:
            history.stop.wait(life_ms * 1.3 / 1000)
        fill: Call = (b"FILL", key, b"%d" % token, self._numbers.new())
        before, visit = time.monotonic_ns(), caller.visits
        try:
            history.ask(self._name, caller, (b"CACHE.FILL", *fill[1:]), [fill])
        except (Unsure, NotDone):
            history.happens(end, before)
            caller.leave()
            raise
        if caller.visits != visit:  # its node was removed: the session that had the token was over before it filled
            history.happens(end, before)


def _told_lost(node: Node) -> list[int]:
    """When it said so, on this machine's monotonic clock, in ns."""
    ahead_ns = time.time_ns() - time.monotonic_ns()
    stamps = [datetime.fromisoformat(stamp).replace(tzinfo=UTC) for stamp in TOLD_LOST.findall(node.said())]
    return [int(stamp.timestamp() * 1e9) + 1_000_000 - ahead_ns for stamp in stamps]


@contextlib.contextmanager
def cache_traffic(cluster: Cluster, nodes: list[Node], *, seed: int, prefix: str) -> Iterator[CacheHistory]:
    """Clients of these nodes, and of those that are added to them, until the block ends.

    All must run then; every key is read through each of them, past all deadlines.
    """
    history = CacheHistory(
        REST_S,
        firm=[f"{prefix}:firm:{number}".encode() for number in range(KEYS)],
        loose=[f"{prefix}:loose:{number}".encode() for number in range(KEYS)],
        loaded=[f"{prefix}:loaded:{number}".encode() for number in range(LOADED)],
    )
    tasks: list[Task] = [
        *(_Reader(history, number, seed * 100 + number) for number in range(READERS)),
        *(_Loader(history, number, seed * 100 + number) for number in range(READERS, READERS + LOADERS)),
    ]
    with clients_of(history, tasks, nodes, seed):
        yield history
    _read_through_all(history, nodes)
    history.recovered()
    history.look_at_logs()


def _read_through_all(history: CacheHistory, nodes: Sequence[Node]) -> None:
    """No deadline is left, nobody waits for ever to load a key, and what each node says is judged with the rest."""
    registers = [*history.firm, *history.loose]

    def no_deadline_is_left() -> bool:
        with contextlib.suppress(OSError):
            return all(nodes[0].ask("PTTL", key) < 0 for key in registers)
        return False

    wait_until(no_deadline_is_left)
    for node in nodes:
        caller, name = Wanderer([node], random.Random(node.name)), node.name.encode()
        with contextlib.ExitStack() as leaving:
            leaving.callback(caller.leave)
            for key in registers:
                loose = key in history.loose
                _insist(partial(history.ask, "last", caller, (b"CACHE.GET", key), [_read(key, name, loose=loose)]))
                _insist(partial(history.ask, "last", caller, (b"GET", key), [_read(key, PLAIN, loose=loose)]))
            for key in history.loaded:
                value, token = _insist(
                    partial(history.ask, "last", caller, (b"CACHE.FETCH", key), [(b"FETCH", key)], _one_of_two)
                )
                if value is None:
                    fill: Call = (b"FILL", key, b"%d" % token, b"at-last")
                    before, visit = time.monotonic_ns(), caller.visits
                    _insist(partial(history.ask, "last", caller, (b"CACHE.FILL", *fill[1:]), [fill]))
                    if caller.visits != visit:  # the session that had the token was over before it filled
                        history.happens((b"END", key, b"%d" % token), before)


def _insist(ask: Callable[[], Any]) -> Any:
    """The reply, when there is one."""
    replies: list[Any] = []
    excuses: Counter[str] = Counter()

    def answered() -> bool:
        try:
            replies.append(ask())
        except (Unsure, NotDone) as excuse:
            excuses[str(excuse)] += 1
        return bool(replies)

    try:
        wait_until(answered)
    except AssertionError:
        raise AssertionError(f"{ask} has no answer but {excuses.most_common(5)}") from None
    return replies[0]
