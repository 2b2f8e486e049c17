"""`resp_server.client` against real servers: nobody believes to hold what another holds, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from resp_server.client import AsyncLocks, DeadlockError, LockError, LockLost, Locks, LockTimeout
from tests.holders import CLIENTS, HOLDS, LONG_S, SHORT_S, Threads, Visits, info, url, waits_for
from tests.servers import HOST, START_SECONDS, Server, wait_until

# What a hold is


def test_a_lock_is_held_for_as_long_as_the_block_runs(server: Server, locks: Locks) -> None:
    with locks.hold("lock", ttl=LONG_S) as lock, redis.Redis(port=server.port) as client:
        lock.check()
        assert lock.is_held
        assert not lock.lost.is_set()
        [holder] = info(server)["holders"]
        assert (holder["owner"], holder["token"], holder["holds"]) == (lock.owner, lock.token, 1)
        assert lock.owner.startswith("test:")
        assert client.execute_command("FENCE", lock.name, lock.token, "SET", "fenced", "1") in (True, b"OK")
        with pytest.raises(redis.ResponseError, match="FENCED"):
            client.execute_command("FENCE", lock.name, lock.token + 1, "SET", "fenced", "2")
        token = lock.token
    assert info(server)["mode"] == "free"
    with pytest.raises(LockLost, match="given back"):
        lock.check()
    with locks.hold("lock") as lock:
        assert lock.token > token


def test_a_lock_is_renewed(server: Server, locks: Locks) -> None:
    """It is still there after much more than its life."""
    with locks.hold("lock", ttl=SHORT_S) as lock:
        others = Locks(url(server))
        with pytest.raises(LockTimeout), others.hold("lock", timeout=2 * SHORT_S):
            raise AssertionError("two hold it")
        others.close()
        lock.check()


def test_a_thread_cannot_hold_a_lock_twice(locks: Locks) -> None:
    with locks.hold("lock"), pytest.raises(RuntimeError, match="already"), locks.hold("lock", shared=True):
        pass


def test_what_is_no_lock(server: Server, locks: Locks) -> None:
    with redis.Redis(port=server.port) as client:
        client.set("value", "1")
    with pytest.raises(LockError, match="WRONGTYPE"), locks.hold("value"):
        pass


@pytest.mark.parametrize("kind", ["client", "urls", "one that is gone"])
def test_servers_are_given_in_several_ways(server: Server, kind: str) -> None:
    with redis.Redis(port=server.port, decode_responses=True, socket_timeout=0.01) as client:
        given: dict[str, Any] = {
            "client": client,
            "urls": [url(server), url(server)],
            "one that is gone": ["redis://127.0.0.1:1", url(server)],
        }
        with contextlib.closing(Locks(given[kind])) as locks, locks.hold("lock", timeout=LONG_S):
            assert info(server)["mode"] == "exclusive"


def test_a_wrong_password_is_told_at_once(server: Server) -> None:
    locks = Locks(f"redis://:wrong@{HOST}:{server.port}")
    with pytest.raises(LockError), locks.hold("lock"):
        pass


def test_nobody_is_there() -> None:
    locks = Locks("redis://127.0.0.1:1")
    with pytest.raises(LockTimeout, match="refused"), locks.hold("lock", timeout=0.2):
        pass


# Many who want the same


def test_threads_never_hold_it_together(server: Server) -> None:
    visits, threads = Visits(), Threads()

    def work(locks: Locks) -> None:
        for _ in range(HOLDS):
            with locks.hold("lock") as lock, visits.visit(lock.token):
                pass

    own = [Locks(url(server)) for _ in range(2)]
    for number in range(CLIENTS):
        threads.start(work, own[number % 2])
    threads.join()
    for locks in own:
        locks.close()
    visits.check(CLIENTS * HOLDS)


def test_tasks_never_hold_it_together(server: Server) -> None:
    visits = Visits()

    async def work(locks: AsyncLocks) -> None:
        for _ in range(HOLDS):
            async with locks.hold("lock") as lock:
                with visits.visit(lock.token):
                    await asyncio.sleep(0)

    async def main() -> None:
        async with redis.asyncio.Redis(port=server.port) as client:
            locks = AsyncLocks(client)
            await asyncio.gather(*(work(locks) for _ in range(CLIENTS)))
            await locks.close()

    asyncio.run(main())
    visits.check(CLIENTS * HOLDS)


def test_readers_are_in_together_and_a_writer_alone(server: Server, locks: Locks) -> None:
    threads, together = Threads(), threading.Barrier(3, timeout=START_SECONDS)
    readers: list[int] = []

    def read() -> None:
        with locks.hold("lock", shared=True) as lock:
            together.wait()
            readers.append(lock.token)

    for _ in range(3):
        threads.start(read)
    threads.join()
    with locks.hold("lock") as lock:
        assert lock.token > max(readers)
        other = Locks(url(server))
        with pytest.raises(LockTimeout), other.hold("lock", shared=True, timeout=0):
            pass
        other.close()


def test_a_deadlock_of_threads_is_found(server: Server, locks: Locks) -> None:
    threads, both = Threads(), threading.Barrier(2, timeout=START_SECONDS)
    ends: list[str] = []

    def work(first: str, second: str) -> None:
        with contextlib.suppress(DeadlockError), locks.hold(first):
            both.wait()
            try:
                with locks.hold(second):
                    ends.append("held both")
            except DeadlockError as error:
                ends.append(f"deadlock: {error}")
                raise

    threads.start(work, "a", "b")
    threads.start(work, "b", "a")
    threads.join()
    assert sorted(end.partition(":")[0] for end in ends) == ["deadlock", "held both"]
    assert "waits for" in max(ends, key=len)


def test_a_deadlock_of_tasks_is_found(server: Server) -> None:
    async def main() -> list[bool]:
        locks = AsyncLocks(url(server))
        in_a, in_b = asyncio.Event(), asyncio.Event()

        async def work(first: str, second: str, here: asyncio.Event, there: asyncio.Event) -> bool:
            async with locks.hold(first):
                here.set()
                await there.wait()
                try:
                    async with locks.hold(second):
                        return True
                except DeadlockError:
                    return False

        ends = await asyncio.gather(work("a", "b", in_a, in_b), work("b", "a", in_b, in_a))
        await locks.close()
        return list(ends)

    assert sorted(asyncio.run(main())) == [False, True]


# Ends of all kinds


class Stopped(Exception):
    """What a block was left by."""


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_block_that_fails_gives_it_back(server: Server, locks: Locks, error: type[BaseException]) -> None:
    with pytest.raises(error), locks.hold("lock", ttl=LONG_S):
        raise error
    assert info(server)["mode"] == "free"


def test_a_block_that_is_cancelled_gives_it_back(server: Server) -> None:
    async def main() -> None:
        locks = AsyncLocks(url(server))
        inside = asyncio.Event()

        async def work() -> None:
            async with locks.hold("lock", ttl=LONG_S):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await locks.close()

    asyncio.run(main())
    assert info(server)["mode"] == "free"


def test_a_wait_that_is_cancelled_is_forgotten(server: Server, locks: Locks) -> None:
    async def waits() -> bool:
        return len((await asyncio.to_thread(info, server))["waiters"]) == 1

    async def main() -> None:
        others = AsyncLocks(url(server))

        async def work() -> None:
            async with others.hold("lock"):
                raise AssertionError("two hold it")

        task = asyncio.create_task(work())
        await until(waits)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await others.close()

    with locks.hold("lock", ttl=LONG_S):
        asyncio.run(main())
        wait_until(waits_for(server, 0))
    assert info(server)["mode"] == "free"


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(START_SECONDS):
        while not await condition():
            await asyncio.sleep(0.02)


def test_tasks_that_are_cancelled_at_any_moment_leave_nothing(server: Server) -> None:
    """What they left would live so long that the hold at the end would wait too long for it."""
    chance = random.Random(7)

    async def work(locks: AsyncLocks) -> None:
        while True:
            async with locks.hold("lock", ttl=LONG_S):
                await asyncio.sleep(0)

    async def main() -> None:
        locks = AsyncLocks(url(server))
        for _ in range(10):
            tasks = [asyncio.create_task(work(locks)) for _ in range(CLIENTS)]
            for task in tasks:
                await asyncio.sleep(chance.random() * 0.02)
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        async with locks.hold("lock", timeout=LONG_S / 4):
            pass
        await locks.close()

    asyncio.run(main())
    assert info(server)["waiters"] == []


def test_a_lock_that_is_broken_is_lost(server: Server, locks: Locks) -> None:
    def look() -> None:
        with locks.hold("lock", ttl=SHORT_S) as lock:
            break_lock(server)
            assert lock.lost.wait(START_SECONDS)
            assert not lock.is_held

    with pytest.raises(LockLost, match="lock 'lock' is lost"):
        look()
    with pytest.raises(LockLost, match="broken"), locks.hold("lock", ttl=LONG_S):
        break_lock(server)  # and nobody looks before the block ends


def test_a_task_is_told_that_its_lock_is_lost(server: Server) -> None:
    async def look(locks: AsyncLocks) -> None:
        async with locks.hold("lock", ttl=SHORT_S) as lock:
            await asyncio.to_thread(break_lock, server)
            await asyncio.wait_for(lock.lost.wait(), START_SECONDS)

    async def main() -> None:
        locks = AsyncLocks(url(server))
        with pytest.raises(LockLost):
            await look(locks)
        await locks.close()

    asyncio.run(main())


def test_an_error_of_the_block_is_what_is_raised(server: Server, locks: Locks) -> None:
    def fail() -> None:
        with locks.hold("lock", ttl=SHORT_S) as lock:
            break_lock(server)
            assert lock.lost.wait(START_SECONDS)
            raise Stopped

    with pytest.raises(Stopped) as raised:
        fail()
    assert raised.value.__notes__ == ["lock 'lock' was lost meanwhile"]


def break_lock(server: Server) -> None:
    with redis.Redis(port=server.port) as client:
        assert client.execute_command("LOCK.BREAK", "lock") == 1
