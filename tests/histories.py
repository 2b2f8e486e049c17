"""Load on a cluster while it suffers, and what must be true of everything its clients were told.

`registers_and_locks` keeps a history of calls and replies that a search for a
linear order judges (tests.simulation.linearizability). `counting` keeps what was
acknowledged, which must all be there afterwards. `growing` checks each reply when
it comes, and so can go on for long.

A call that certainly did not happen (tests.callers) is left out; one that may
have leaves the outcome open.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.callers import Caller, NewCaller, NotDone, Unsure, Wanderer
from tests.clusters import Cluster, Node
from tests.servers import wait_until
from tests.simulation.findings import Report, Verdict
from tests.simulation.linearizability import check
from tests.simulation.models import Call, Lock, Operation, Output, Register

CLIENTS = 6
BACK_OFF_SECONDS = 0.02
LOCK_LIFE_MS = 3_600_000  # the model knows of no expiry
Task = Callable[[Caller], None]
"""What a client does again and again, each time one call or a few."""


@dataclass
class Load:
    """Clients that run until the block ends; ``done`` counts their replies, ``excuses`` what came instead of one.

    They rest for ``rest_s`` after each reply, so as to leave the machine to what is tested.
    """

    rest_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    excuses: Counter[str] = field(default_factory=Counter)
    failures: list[BaseException] = field(default_factory=list)

    def goes_on(self, replies: int = 50) -> None:
        """Returns once this many more replies have come: the cluster serves."""
        wanted = self.done + replies
        before = self.excuses.copy()
        try:
            wait_until(lambda: self.done >= wanted or self.failures)
        except AssertionError:
            told = (self.excuses - before).most_common(10)
            raise AssertionError(f"the clients do not go on; they were told {told}") from None
        self.check_clients()

    def check_clients(self) -> None:
        """Raises what a client failed with."""
        for failure in self.failures:
            raise failure


def _run(load: Load, task: Task, caller: Caller) -> None:
    try:
        while not load.stop.is_set():
            try:
                task(caller)
                load.done += 1
                load.stop.wait(load.rest_s)
            except (NotDone, Unsure) as excuse:
                load.excuses[str(excuse)] += 1
                if isinstance(excuse, NotDone):
                    load.stop.wait(BACK_OFF_SECONDS)
    except BaseException as failure:
        load.failures.append(failure)
        raise
    finally:
        caller.leave()


@contextlib.contextmanager
def clients_of(
    load: Load, tasks: Sequence[Task], nodes: Sequence[Node], seed: int, new_caller: NewCaller = Wanderer
) -> Iterator[None]:
    """Each task has a client of its own, at any of these nodes, until the block ends; raises what one failed with."""
    callers = [new_caller(nodes, random.Random(seed * 1000 + number)) for number in range(len(tasks))]
    threads = [
        threading.Thread(target=_run, args=(load, task, caller), daemon=True)
        for task, caller in zip(tasks, callers, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()
    load.check_clients()


# Histories for the search


@dataclass
class History(Load):
    """Every call of every client, and what is known of its reply."""

    operations: list[Operation] = field(default_factory=list)

    def record(self, client: str, caller: Caller, call: Call, words: Call | None = None) -> Output:
        """Makes the call and keeps what is known of it; ``words`` is another that should do the same."""
        invoked = time.monotonic_ns()
        try:
            output = caller.call(*(words or call))
        except Unsure:
            self.operations.append(Operation(client, call, invoked))
            raise
        self.operations.append(Operation(client, call, invoked, time.monotonic_ns(), output))
        return output

    def judge(self) -> list[Report]:
        """What the search says of the registers and of the locks."""
        locks = [one for one in self.operations if one.call[0].startswith(b"LOCK.")]
        registers = [one for one in self.operations if not one.call[0].startswith(b"LOCK.")]
        return [check(registers, Register()), check(locks, Lock())]

    def assert_linearizable(self) -> None:
        """Fails, and shows where, when no order of the calls explains all replies."""
        assert self.operations
        for report in self.judge():
            assert report.verdict is Verdict.LINEARIZABLE, str(report)


def _register_client(history: History, name: str, seed: int, keys: Sequence[bytes]) -> Task:
    chance = random.Random(seed)
    numbers = itertools.count(1)

    def serve(caller: Caller) -> None:
        key, die = chance.choice(keys), chance.random()
        if die < 0.45:
            call: Call = (b"GET", key)
        elif die < 0.75:
            call = (
                b"SET",
                key,
                b"%d" % (seed * 10**9 + next(numbers) * 1000),
            )  # no two alike, nor within reach of INCR
        elif die < 0.95:
            call = (b"INCR", key)
        else:
            call = (b"DEL", key)
        history.record(name, caller, call)

    return serve


def _lock_client(history: History, name: str, seed: int, locks: Sequence[bytes]) -> Task:
    chance = random.Random(seed)
    px = (b"PX", b"%d" % LOCK_LIFE_MS)

    def serve(caller: Caller) -> None:
        key, die = chance.choice(locks), chance.random()
        owner = name.encode() + b"-of-" + key[-1:]  # one that holds nothing else, so that no cycle can close
        if die < 0.35:
            history.record(name, caller, (b"LOCK.ACQUIRE", key, owner, *px))
        elif die < 0.45:
            history.record(name, caller, (b"LOCK.ACQUIRE", key, owner, *px, b"BLOCK", b"20"))
        else:
            history.record(name, caller, (b"LOCK.RELEASE", key, owner))

    return serve


@contextlib.contextmanager
def registers_and_locks(
    cluster: Cluster, *, seed: int, prefix: str, clients: int = CLIENTS, nodes: Sequence[Node] | None = None
) -> Iterator[History]:
    """Half of the clients use a few registers, half a few locks, on random nodes, until the block ends.

    ``prefix`` keeps the keys apart from those of another history on the same cluster.
    """
    history = History()
    registers = [f"{prefix}:register:{number}".encode() for number in range(3)]
    locks = [f"{prefix}:lock:{number}".encode() for number in range(2)]
    tasks = [
        _lock_client(history, f"{prefix}-owner{number}", seed * 100 + number, locks)
        if number % 2
        else _register_client(history, f"{prefix}-client{number}", seed * 100 + number, registers)
        for number in range(clients)
    ]
    with clients_of(history, tasks, nodes or list(cluster.nodes.values()), seed):
        yield history


# Acknowledged, so it is there


@dataclass
class _Told:
    """What one client of `counting` was told."""

    name: str
    values: dict[str, bytes] = field(default_factory=dict)
    counted: int = 0
    unsure: int = 0
    last: int = 0
    pushed: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class Counting(Load):
    """Unique keys, counters and pushes that were acknowledged."""

    told: list[_Told] = field(default_factory=list)

    def assert_all_there(self, node: Node) -> None:
        """Fails when something acknowledged is missing on this node, or a counter counted what nobody asked."""
        client: Any = node.client()
        for told in self.told:
            names = list(told.values)
            for first in range(0, len(names), 500):
                some = names[first : first + 500]
                assert client.mget(some) == [told.values[name] for name in some], told.name
            count = int(client.get(f"count:{told.name}") or 0)
            assert told.counted <= count <= told.counted + told.unsure, told.name
            queue = client.execute_command("Q.PEEK", f"queue:{told.name}", "COUNT", 1_000_000) or ()
            there = {message[3]: message[1] for message in queue}
            assert told.pushed.items() <= there.items(), told.name
        client.close()

    @property
    def acknowledged(self) -> int:
        """How many writes were."""
        return sum(len(told.values) + told.counted + len(told.pushed) for told in self.told)


def _counting_client(told: _Told) -> Task:
    numbers = itertools.count()

    def serve(caller: Caller) -> None:
        number = next(numbers)
        key, value = f"{told.name}:{number}", str(number).encode()
        if caller.call(b"SET", key.encode(), value) == "OK":
            told.values[key] = value
        try:
            count = caller.call(b"INCR", f"count:{told.name}".encode())
        except Unsure:
            told.unsure += 1
            raise
        assert isinstance(count, int)
        assert count > told.last, "a counter went back"
        told.last = count
        told.counted += 1
        message = caller.call(b"Q.PUSH", f"queue:{told.name}".encode(), value)
        assert isinstance(message, bytes)
        told.pushed[message] = value

    return serve


@contextlib.contextmanager
def counting(
    cluster: Cluster,
    *,
    seed: int,
    prefix: str,
    clients: int = CLIENTS,
    nodes: Sequence[Node] | None = None,
    new_caller: NewCaller = Wanderer,
    rest_s: float = 0.0,
) -> Iterator[Counting]:
    """Clients that set keys of their own, count and push, on random nodes, until the block ends."""
    load = Counting(rest_s=rest_s, told=[_Told(f"{prefix}:{number}") for number in range(clients)])
    tasks = [_counting_client(told) for told in load.told]
    with clients_of(load, tasks, nodes or list(cluster.nodes.values()), seed, new_caller):
        yield load


# One writer for each key


@dataclass
class _Grown:
    """A key whose values grow: what its writer was told and has tried, and the most that any reader has seen."""

    key: bytes
    acknowledged: int = 0
    tried: int = 0
    seen: int = 0

    def check(self, value: int, floor: int) -> None:
        """Fails unless a read that began at ``floor`` may see this."""
        assert floor <= value <= self.tried, f"{self.key!r} was {floor} or more, is {value}, and {self.tried} at most"

    @property
    def floor(self) -> int:
        """What a read that begins now must see at least."""
        return max(self.acknowledged, self.seen)


@dataclass
class Growing(Load):
    """Keys with one writer each, which others read, and locks with one owner each."""

    keys: list[_Grown] = field(default_factory=list)

    def assert_all_there(self, node: Node) -> None:
        """Fails when a key is not what its writer made it, as this node says."""
        client: Any = node.client()
        for one in self.keys:
            one.check(int(client.get(one.key) or 0), one.floor)
        client.close()

    @property
    def acknowledged(self) -> int:
        """How many writes were."""
        return sum(one.acknowledged for one in self.keys)


class _Grower:
    """One client of `growing`: it writes a few keys of its own, reads everybody's, and takes and gives back a lock."""

    OWN = 8

    def __init__(self, load: Growing, name: str, chance: random.Random) -> None:
        self._load = load
        self._name = name
        self._chance = chance
        self._numbers = itertools.count()
        self._own = [self._new_key() for _ in range(self.OWN)]
        self._lock = b""
        self._token = 0
        self._held = False

    def __call__(self, caller: Caller) -> None:
        die = self._chance.random()
        if die < 0.35:
            self._write(caller)
        elif die < 0.8:
            self._read(caller)
        else:
            self._use_lock(caller)

    def _new_key(self) -> _Grown:
        one = _Grown(f"{self._name}:{next(self._numbers)}".encode())
        self._load.keys.append(one)
        return one

    def _write(self, caller: Caller) -> None:
        place = self._chance.randrange(self.OWN)
        one = self._own[place]
        one.tried = value = one.acknowledged + 1
        try:
            reply = caller.call(b"SET", one.key, b"%d" % value)
        except Unsure:
            self._own[place] = self._new_key()  # this write may still come through, after any later one
            raise
        assert reply == "OK", reply
        one.acknowledged = value

    def _read(self, caller: Caller) -> None:
        one = self._chance.choice(self._load.keys)
        floor = one.floor
        reply = caller.call(b"GET", one.key)
        assert reply is None or (isinstance(reply, bytes) and reply.isdigit()), reply
        value = int(reply or 0)
        one.check(value, floor)
        one.seen = max(one.seen, value)

    def _use_lock(self, caller: Caller) -> None:
        if not self._lock:
            self._lock, self._token, self._held = f"{self._name}:lock:{next(self._numbers)}".encode(), 0, False
        owner, request = self._name.encode(), b"%d" % next(self._numbers)
        try:
            if self._held:
                reply = caller.call(b"LOCK.RELEASE", self._lock, owner)
                assert reply == 1 or (caller.repeats and reply == 0), reply
            else:
                life = b"%d" % LOCK_LIFE_MS
                token = caller.call(b"LOCK.ACQUIRE", self._lock, owner, b"PX", life, b"ID", request)
                assert isinstance(token, int), token
                assert token > self._token, "a fencing token did not grow"
                self._token = token
        except Unsure:
            self._lock = b""
            raise
        self._held = not self._held


@contextlib.contextmanager
def growing(
    nodes: Sequence[Node],
    *,
    seed: int,
    prefix: str,
    clients: int = CLIENTS,
    new_caller: NewCaller = Wanderer,
    rest_s: float = 0.0,
) -> Iterator[Growing]:
    """Clients that write keys of their own, read those of all, and use locks, until the block ends.

    They use these nodes, and those that are added to the list meanwhile.
    """
    load = Growing(rest_s=rest_s)
    tasks = [_Grower(load, f"{prefix}:{number}", random.Random(seed * 100 + number)) for number in range(clients)]
    with clients_of(load, tasks, nodes, seed, new_caller):
        yield load
