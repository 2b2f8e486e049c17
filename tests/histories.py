"""Load on a cluster while it suffers, and what must be true of everything its clients were told.

`registers_and_locks` keeps a history of calls and replies that a search for a
linear order judges (tests.simulation.linearizability). `counting` keeps what was
acknowledged, which must all be there afterwards.

A reply of ``-CLUSTERDOWN`` or ``-MISCONF`` means that it did not happen: the
call is left out. ``-UNCERTAIN``, a connection that broke and a reply that did
not come in time leave the outcome open.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import hiredis

from tests.clusters import Cluster, Node
from tests.raw_client import RawClient
from tests.servers import wait_until
from tests.simulation.findings import Report, Verdict
from tests.simulation.linearizability import check
from tests.simulation.models import Call, Lock, Operation, Output, Register

CLIENTS = 6
REPLY_SECONDS = 4.0  # longer than a pause of a test, so that what a paused node says afterwards is judged
BACK_OFF_SECONDS = 0.02
MOVE_CHANCE = 0.05  # of a client going to another node after a reply
LOCK_LIFE_MS = 3_600_000  # the model knows of no expiry
DID_NOT_HAPPEN = ("CLUSTERDOWN", "MISCONF")
MAY_HAVE_HAPPENED = ("UNCERTAIN",)


class Unsure(Exception):
    """Nobody knows whether the call had an effect."""


class NotDone(Exception):
    """The call certainly had none."""


class Wanderer:
    """A client that goes from node to node, and says of every call whether it happened, did not, or may have."""

    def __init__(self, nodes: Sequence[Node], chance: random.Random) -> None:
        self._nodes = nodes
        self._chance = chance
        self._connection: RawClient | None = None

    def call(self, *words: bytes) -> Output:
        """The reply, errors as text with a leading ``-``; raises `Unsure` and `NotDone`."""
        connection = self._connected()
        try:
            reply = connection.call(*words)
        except OSError as error:  # a timeout is one
            self.leave()
            raise Unsure(str(error)) from None
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith(DID_NOT_HAPPEN):
                self.leave()
                raise NotDone(text)
            if text.startswith(MAY_HAVE_HAPPENED):
                self.leave()
                raise Unsure(text)
            return f"-{text}"
        if self._chance.random() < MOVE_CHANCE:
            self.leave()
        return "OK" if reply == b"OK" else reply

    def leave(self) -> None:
        """Goes to some node the next time."""
        if self._connection is not None:
            self._connection.socket.close()
            self._connection = None

    def _connected(self) -> RawClient:
        if self._connection is None:
            node = self._chance.choice([one for one in self._nodes if one.runs] or list(self._nodes))
            try:
                self._connection = RawClient(node.server)
            except OSError as error:
                raise NotDone(str(error)) from None
            self._connection.socket.settimeout(REPLY_SECONDS)
        return self._connection


@dataclass
class Load:
    """Clients that run until the block ends; ``done`` counts their replies."""

    stop: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def goes_on(self, replies: int = 50) -> None:
        """Returns once this many more replies have come: the cluster serves."""
        wanted = self.done + replies
        wait_until(lambda: self.done >= wanted or self.failures)
        self.check_clients()

    def check_clients(self) -> None:
        """Raises what a client failed with."""
        for failure in self.failures:
            raise failure


def _run(load: Load, serve: Callable[[Wanderer], None], nodes: Sequence[Node], seed: int) -> None:
    wanderer = Wanderer(nodes, random.Random(seed))
    try:
        while not load.stop.is_set():
            try:
                serve(wanderer)
                load.done += 1
            except NotDone:
                load.stop.wait(BACK_OFF_SECONDS)
            except Unsure:
                continue
    except BaseException as failure:
        load.failures.append(failure)
        raise
    finally:
        wanderer.leave()


@contextlib.contextmanager
def _running(
    load: Load, tasks: Sequence[Callable[[Wanderer], None]], nodes: Sequence[Node], seed: int
) -> Iterator[None]:
    threads = [
        threading.Thread(target=_run, args=(load, task, nodes, seed * 1000 + number), daemon=True)
        for number, task in enumerate(tasks)
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

    def record(self, client: str, wanderer: Wanderer, call: Call) -> Output:
        """Makes the call and keeps what is known of it."""
        invoked = time.monotonic_ns()
        try:
            output = wanderer.call(*call)
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


def _register_client(history: History, name: str, seed: int, keys: Sequence[bytes]) -> Callable[[Wanderer], None]:
    chance = random.Random(seed)
    numbers = itertools.count(1)

    def serve(wanderer: Wanderer) -> None:
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
        history.record(name, wanderer, call)

    return serve


def _lock_client(history: History, name: str, seed: int, locks: Sequence[bytes]) -> Callable[[Wanderer], None]:
    chance = random.Random(seed)
    px = (b"PX", b"%d" % LOCK_LIFE_MS)

    def serve(wanderer: Wanderer) -> None:
        key, die = chance.choice(locks), chance.random()
        owner = name.encode() + b"-of-" + key[-1:]  # one that holds nothing else, so that no cycle can close
        if die < 0.35:
            history.record(name, wanderer, (b"LOCK.ACQUIRE", key, owner, *px))
        elif die < 0.45:
            history.record(name, wanderer, (b"LOCK.ACQUIRE", key, owner, *px, b"BLOCK", b"20"))
        else:
            history.record(name, wanderer, (b"LOCK.RELEASE", key, owner))

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
    with _running(history, tasks, nodes or list(cluster.nodes.values()), seed):
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


def _counting_client(told: _Told) -> Callable[[Wanderer], None]:
    numbers = itertools.count()

    def serve(wanderer: Wanderer) -> None:
        number = next(numbers)
        key, value = f"{told.name}:{number}", str(number).encode()
        if wanderer.call(b"SET", key.encode(), value) == "OK":
            told.values[key] = value
        try:
            count = wanderer.call(b"INCR", f"count:{told.name}".encode())
        except Unsure:
            told.unsure += 1
            raise
        assert isinstance(count, int)
        assert count > told.last, "a counter went back"
        told.last = count
        told.counted += 1
        message = wanderer.call(b"Q.PUSH", f"queue:{told.name}".encode(), value)
        assert isinstance(message, bytes)
        told.pushed[message] = value

    return serve


@contextlib.contextmanager
def counting(
    cluster: Cluster, *, seed: int, prefix: str, clients: int = CLIENTS, nodes: Sequence[Node] | None = None
) -> Iterator[Counting]:
    """Clients that set keys of their own, count and push, on random nodes, until the block ends."""
    load = Counting(told=[_Told(f"{prefix}:{number}") for number in range(clients)])
    tasks = [_counting_client(told) for told in load.told]
    with _running(load, tasks, nodes or list(cluster.nodes.values()), seed):
        yield load
