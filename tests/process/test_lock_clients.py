"""`resp_server.client` on clusters: holds are renewed under any leader, and one at most believes to have the lock."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import pytest

from resp_server.client import AsyncLocks, DeadlockError, Locks, LockTimeout
from tests.clusters import Cluster, Node, own_environment
from tests.holders import LONG_S, Threads, Visits, info, url
from tests.rings import wait_for_ring
from tests.servers import STOP_SECONDS, Server, wait_until
from tests.stages import Stage

RENEWED_S = 6.0  # a life whose third is longer than any election takes
SHORT_S = 1.5
PROGRAMS = 4
VISITS = 40  # between two things that happen to those who contend
PAUSES = 3

only_killed = pytest.mark.parametrize("change", ["kill"], indirect=True)


@only_killed
@pytest.mark.parametrize("stage", ["three"], indirect=True)
def test_holds_are_renewed_under_another_leader(stage: Stage) -> None:
    """They are there, with the same token, when much more than their life has passed since the leader was killed."""
    urls = list(map(url, stage.nodes))
    threads = Threads()

    def compete(name: str) -> None:
        others = Locks(urls)
        with pytest.raises(LockTimeout), others.hold(stage.key(name), timeout=2 * RENEWED_S):
            raise AssertionError("two hold it")
        others.close()

    async def hold() -> tuple[str, int]:
        locks = AsyncLocks(urls)
        async with locks.hold(stage.key("task"), ttl=RENEWED_S) as lock:
            await asyncio.to_thread(stage.change_leader)
            await asyncio.to_thread(threads.start, compete, "task")
            await asyncio.to_thread(threads.join)
            lock.check()
            assert stage.owners("task") == [lock.owner]
        await locks.close()
        return lock.owner, lock.token

    with contextlib.closing(Locks(urls)) as locks, locks.hold(stage.key("thread"), ttl=RENEWED_S) as lock:
        threads.start(compete, "thread")
        _, token = asyncio.run(hold())
        lock.check()
        [holder] = stage.info("LOCK.INFO", "thread")["holders"]
        assert (holder["owner"], holder["token"], holder["holds"]) == (lock.owner, lock.token, 1)
    for name, last in (("thread", lock.token), ("task", token)):
        told = stage.info("LOCK.INFO", name)
        assert (told["mode"], told["token"]) == ("free", last), "nobody else ever had it"


# Who believes to have it


CONTENDER = """
import contextlib
import random
import signal
import sys
import time
from resp_server.client import Locks, LockLost

name, key, ttl, *urls = sys.argv[1:]
locks, chance, stop = Locks(urls, name=name, ask_again=5.0), random.Random(name), []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
while not stop:
    try:
        with locks.hold(key, ttl=float(ttl)) as lock:
            first = last = None
            leave_ns = time.monotonic_ns() + chance.randrange(80_000_000)
            while (before := time.monotonic_ns()) < leave_ns and lock.is_held:
                first, last = first or time.monotonic_ns(), before
                time.sleep(0.001)
            if first is not None:
                print("held", lock.token, min(first, last), last, flush=True)
    except LockLost:
        print("lost", flush=True)
"""
"""It says from when to when it is sure to have believed in each hold, by a clock all programs share."""


class Contender:
    """A program that takes the lock again and again."""

    def __init__(self, name: str, stage: Stage) -> None:
        self.name = name
        command = [sys.executable, "-c", CONTENDER, name, stage.key("lock"), str(SHORT_S), *map(url, stage.nodes)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own_environment())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> list[str]:
        """What it has said in all."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=STOP_SECONDS)
        assert self._process.returncode == 0
        return said.splitlines()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def contending(stage: Stage) -> Iterator[list[Contender]]:
    with ExitStack() as stack:
        contenders = []
        for number in range(PROGRAMS):
            contenders.append(Contender(f"c{number}", stage))
            stack.callback(contenders[-1].kill)
        yield contenders


@only_killed
@pytest.mark.parametrize("stage", ["five"], indirect=True)
def test_one_at_most_believes_to_have_it(stage: Stage) -> None:
    """Holders sleep for longer than their life, and the leader is killed meanwhile."""
    with contending(stage) as contenders:
        for number in range(PAUSES):
            token = stage.info("LOCK.INFO", "lock")["token"]
            stage.cluster.wait_until(lambda: stage.info("LOCK.INFO", "lock")["token"] > token + VISITS)  # noqa: B023
            token, sleeper = put_to_sleep(stage, contenders)
            if number == 1:
                stage.change_leader()
            stage.cluster.wait_until(lambda: stage.info("LOCK.INFO", "lock")["token"] > token + VISITS)  # noqa: B023
            sleeper.signal(signal.SIGCONT)
        said = [contender.end() for contender in contenders]
    visits = Visits()
    for line in (line for lines in said for line in lines if line.startswith("held")):
        token, first, last = map(int, line.split()[1:])
        visits.seen.append((token, first, last))
    visits.check(len(visits.seen))
    assert len(visits.seen) > PAUSES * VISITS
    assert any("lost" in lines for lines in said), "who slept knows"


def put_to_sleep(stage: Stage, contenders: Sequence[Contender]) -> tuple[int, Contender]:
    """Stops a program while it holds the lock; its token."""
    found: list[tuple[int, Contender]] = []

    def is_asleep() -> bool:
        holders = stage.info("LOCK.INFO", "lock")["holders"]
        if not holders:
            return False
        sleeper = next(one for one in contenders if holders[0]["owner"].startswith(f"{one.name}:"))
        sleeper.signal(signal.SIGSTOP)
        again = stage.info("LOCK.INFO", "lock")["holders"]
        if [one["token"] for one in again] == [holders[0]["token"]]:
            found.append((holders[0]["token"], sleeper))
            return True
        sleeper.signal(signal.SIGCONT)
        return False

    stage.cluster.wait_until(is_asleep)
    return found[0]


# Deadlocks


def waits(server: Server | Node, name: str) -> bool:
    return len(info(server, name)["waiters"]) == 1


@pytest.mark.parametrize("shards", [(2, 2, 2), (1, 4, 6)], ids=["in one shard", "over three"])
def test_who_closes_the_circle_is_told(five: Cluster, shards: Sequence[int]) -> None:
    """Three programs, each at another node; the two that waited before are served."""
    ring, nodes, threads = wait_for_ring(five), list(five.nodes.values()), Threads()
    names = [ring.key_in(shard, f"{letter}{len({*shards})}") for shard, letter in zip(shards, "abc", strict=True)]
    ends: dict[str, str] = {}

    def work(number: int) -> None:
        mine, next_one = names[number], names[(number + 1) % 3]
        with contextlib.closing(Locks(url(nodes[number]), name=mine)) as locks, locks.hold(mine, ttl=LONG_S):
            if number == 2:
                five.wait_until(lambda: waits(nodes[0], names[1]) and waits(nodes[0], names[2]))
            else:
                five.wait_until(lambda: info(nodes[0], next_one)["holders"])
            try:
                with locks.hold(next_one, ttl=LONG_S):
                    ends[mine] = "served"
            except DeadlockError as error:
                ends[mine] = str(error)

    for number in range(3):
        threads.start(work, number)
    threads.join()
    assert [ends[name] for name in names[:2]] == ["served", "served"]
    assert ends[names[2]].count(" waits for ") == 3
    for name in names:
        assert f"waits for {name} held by {name}:" in ends[names[2]]


def test_the_task_that_closes_the_circle_is_told(server: Server) -> None:
    async def main() -> Sequence[str | BaseException]:
        locks, a_waits = AsyncLocks(url(server)), partial(waits, server, "b")

        async def first(started: asyncio.Event) -> str:
            async with locks.hold("a", ttl=LONG_S):
                await started.wait()
                async with locks.hold("b", ttl=LONG_S):
                    return "served"

        async def second(started: asyncio.Event) -> str:
            async with locks.hold("b", ttl=LONG_S):
                started.set()
                await asyncio.to_thread(wait_until, a_waits)
                async with locks.hold("a", ttl=LONG_S):
                    return "served"

        started = asyncio.Event()
        ends = await asyncio.gather(first(started), second(started), return_exceptions=True)
        await locks.close()
        return ends

    served, told = asyncio.run(main())
    assert served == "served"
    assert isinstance(told, DeadlockError)
