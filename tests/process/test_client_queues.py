"""`resp_server.client_queues` against a real server: how messages end, whatever ends the loop that works on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from resp_server.client_queues import (
    AsyncQueues,
    MessageLost,
    Queue,
    QueueError,
    QueueFull,
    Queues,
    QueueTimeout,
)
from tests import interrupts
from tests.clusters import own_environment
from tests.consumers import Deliveries, Worker, told
from tests.holders import LONG_S, SHORT_S, Threads, url
from tests.servers import HOST, START_SECONDS, Server, wait_until


@pytest.fixture
def queues(server: Server) -> Iterator[Queues]:
    with contextlib.closing(Queues(url(server), name="test")) as queues:
        yield queues


@pytest.fixture
def jobs(server: Server, queues: Queues) -> Iterator[Queue]:
    """An empty queue, whose messages come back at once."""
    with redis.Redis(port=server.port) as client:
        client.execute_command("Q.CREATE", "jobs", "BACKOFF", 0, 0)
        yield queues.queue("jobs")
        client.delete("jobs")


def counts(server: Server) -> dict[str, int]:
    """What is left of the queue, by what became of it."""
    info = told(server, "jobs")
    return {name: info[name] for name in ("ready", "delayed", "in-flight", "dead", "acked") if info[name]}


class Failed(Exception):
    """What a body was left by."""


# Loops


def test_what_the_loop_asks_past_is_acknowledged(server: Server, jobs: Queue) -> None:
    for number in range(5):
        jobs.push(f"payload {number}")
    seen = [(message.payload, message.deliveries) for message in jobs.consume(timeout=0)]
    assert seen == [(b"payload %d" % number, 1) for number in range(5)]
    assert counts(server) == {"acked": 5}


def test_messages_are_pushed_with_all_that_may_be_said_of_them(server: Server, jobs: Queue) -> None:
    assert jobs.push(b"last", id="own") == b"own"
    assert jobs.push("twice", id=b"own") == b"own"
    jobs.push("first", priority=9, ttl=LONG_S)
    jobs.push("one of a group", group="g", priority=1)
    jobs.push("next of it", group="g", priority=1)
    jobs.push("later", delay=LONG_S)
    taken = [message.payload for message in jobs.consume(timeout=0)]
    assert taken == [b"first", b"one of a group", b"next of it", b"last"]
    assert counts(server) == {"acked": 4, "delayed": 1}


def test_a_consumer_waits_for_what_comes(jobs: Queue) -> None:
    threads, seen = Threads(), list[bytes]()

    def work() -> None:
        for message in jobs.consume(timeout=LONG_S):
            seen.append(message.payload)
            if message.payload == b"end":
                jobs.stop()

    threads.start(work)
    jobs.push("one")
    wait_until(lambda: seen == [b"one"])
    jobs.push("end")
    threads.join()
    assert seen == [b"one", b"end"]


@pytest.mark.parametrize("leave", ["exception", "interrupt", "break", "close"])
def test_what_is_at_hand_when_the_loop_is_left_comes_back(server: Server, jobs: Queue, leave: str) -> None:
    for number in range(3):
        jobs.push(str(number))
    error = KeyboardInterrupt if leave == "interrupt" else Failed
    messages = jobs.consume(count=3)
    if leave == "close":
        next(messages)
        messages.close()
    else:
        del messages
        with contextlib.suppress(error):
            for _ in jobs.consume(count=3):
                if leave == "break":
                    break
                raise error
    assert counts(server) == {"ready": 3}
    again = [(message.payload, message.deliveries) for message in jobs.consume(timeout=0)]
    assert again == [(b"0", 2), (b"1", 2), (b"2", 2)]


def test_a_message_with_a_block_ends_with_it(server: Server, jobs: Queue, caplog: pytest.LogCaptureFixture) -> None:
    jobs.push("job", id="job")
    for message in jobs.consume(timeout=0):
        with contextlib.suppress(Failed), message:
            if message.deliveries == 1:
                raise Failed("no ink")
        assert counts(server) == ({"ready": 1} if message.deliveries == 1 else {"acked": 1})
    assert [record.message for record in caplog.records] == ["message b'job' is refused: Failed: no ink"]
    assert caplog.records[0].levelno == logging.WARNING


def test_what_is_said_of_a_message_wins(server: Server, jobs: Queue) -> None:
    def ack(name: bytes) -> None:
        for message in jobs.consume():
            assert message.payload == name
            message.ack()
            break

    def kill(name: bytes) -> None:
        for message in jobs.consume():
            assert message.payload == name
            message.refuse(dead=True)
            jobs.stop()

    def postpone(name: bytes) -> None:
        for message in jobs.consume():
            with message:
                assert message.payload == name
                message.refuse(delay=LONG_S)
            with pytest.raises(RuntimeError, match="already"):
                message.ack()
            jobs.stop()

    for end in (ack, kill, postpone):
        jobs.push(end.__name__)
        end(end.__name__.encode())
    assert counts(server) == {"acked": 1, "dead": 1, "delayed": 1}


def test_stop_ends_after_the_message_at_hand(server: Server, jobs: Queue) -> None:
    for number in range(5):
        jobs.push(str(number))
    for _ in jobs.consume(count=4):
        jobs.stop()
    assert counts(server) == {"acked": 1, "ready": 4}


def test_stop_ends_a_wait_at_once(server: Server, jobs: Queue) -> None:
    threads = Threads()
    for _ in range(3):
        threads.start(lambda: list(jobs.consume()))
    with redis.Redis(port=server.port) as client:
        wait_until(lambda: client.info("clients")["blocked_clients"] == 3)
        jobs.stop()
        threads.join()
        wait_until(lambda: client.info("clients")["blocked_clients"] == 0)


# Being held


def test_a_message_is_extended_while_it_is_worked_on(server: Server, jobs: Queue) -> None:
    """Those that wait behind it, too."""
    jobs.push("one")
    jobs.push("two")
    with contextlib.closing(Queues(url(server))) as others:
        for message in jobs.consume(visibility=SHORT_S, count=2, timeout=0):
            assert list(others.queue("jobs").consume(timeout=2 * SHORT_S)) == []
            message.check()
            assert message.deliveries == 1
    assert counts(server) == {"acked": 2}


def test_a_message_that_is_lost_is_told(server: Server, jobs: Queue, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("looked after", "acknowledged", "passed over"):
        jobs.push(name, id=name)
    with redis.Redis(port=server.port) as client:
        for message in jobs.consume(visibility=SHORT_S, timeout=0):
            client.execute_command("Q.NACK", "jobs", message.receipt, "DEAD")
            if message.id == b"looked after":
                wait_until(lambda: not message.is_held)  # noqa: B023
                with pytest.raises(MessageLost, match="given to somebody else"):
                    message.check()
            elif message.id == b"acknowledged":
                with pytest.raises(MessageLost, match="'acknowledged' of queue 'jobs' is lost"):
                    message.ack()
    told_of = [record.message.split("'")[1] for record in caplog.records]
    assert told_of == ["looked after", "passed over"]
    assert counts(server) == {"dead": 3}


# Programs


def test_a_program_that_is_interrupted_gives_all_back(server: Server, jobs: Queue) -> None:
    ids = [jobs.push(str(number)).decode() for number in range(5)]
    with Worker(server, "jobs") as worker:
        assert worker.says() == ids[0]
        worker.go_on()
        assert worker.says() == ids[1]
        worker.process.send_signal(signal.SIGINT)
        assert worker.says() == "interrupted"
    assert counts(server) == {"acked": 1, "ready": 4}


def test_a_program_that_is_interrupted_while_it_waits_is_gone(server: Server, jobs: Queue) -> None:
    with Worker(server, "jobs") as worker, redis.Redis(port=server.port) as client:
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        worker.process.send_signal(signal.SIGINT)
        assert worker.says() == "interrupted"
        wait_until(lambda: client.info("clients")["blocked_clients"] == 0)


def test_what_a_killed_program_had_comes_back_after_its_visibility(server: Server, jobs: Queue) -> None:
    program = WORKS_FOR_EVER.format(port=server.port, visibility=SHORT_S)
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=own_environment())
    assert worker.stdout is not None
    jobs.push("job")
    assert worker.stdout.readline() == b"job 1\n"
    worker.kill()
    worker.communicate()
    [(payload, deliveries)] = [(one.payload, one.deliveries) for one in one_of(jobs)]
    assert (payload, deliveries) == (b"job", 2)


WORKS_FOR_EVER = """
import threading
from resp_server.client_queues import Queues

for message in Queues("redis://127.0.0.1:{port}").queue("jobs").consume(visibility={visibility}):
    print(message.payload.decode(), message.deliveries, flush=True)
    threading.Event().wait()
"""


def one_of(jobs: Queue) -> Iterator[Any]:
    for message in jobs.consume(timeout=START_SECONDS):
        yield message
        jobs.stop()


INTERRUPTED = """
from resp_server.client_queues import Queues

jobs = Queues(sys.argv[1]).queue("jobs")
acked = set()
for number in range(100):
    jobs.push(str(number))
    try:
        interrupt_soon()
        for message in jobs.consume(visibility=float(sys.argv[2]), count=3):
            if message.id in acked:
                sys.exit(f"{message} came after it was acknowledged")
            message.ack()
            acked.add(message.id)
    except KeyboardInterrupt:
        pass
"""


def test_an_interrupt_at_any_moment_loses_nothing(server: Server, jobs: Queue) -> None:
    """On a slow machine a message may well be taken and given back more often than a queue lets it be by default."""
    with redis.Redis(port=server.port) as client:
        client.execute_command("Q.CONFIG", "jobs", "MAXDELIVERIES", 1_000_000)
    interrupts.run(INTERRUPTED, url(server), str(SHORT_S))
    threads = Threads()
    threads.start(lambda: list(jobs.consume()))
    wait_until(lambda: counts(server) == {"acked": 100})
    jobs.stop()
    threads.join()


# Many


def test_threads_share_a_queue(server: Server, queues: Queues, jobs: Queue) -> None:
    seen, threads = Deliveries(), Threads()

    def work(count: int) -> None:
        for message in jobs.consume(count=count):
            seen.given(message)
            message.ack()
            seen.done(message)
            if len(seen.acked) == 120:
                jobs.stop()

    for count in (1, 2, 5):
        threads.start(work, count)
    with redis.Redis(port=server.port) as client:
        wait_until(lambda: client.info("clients")["blocked_clients"] == 3)  # `stop` means those that have begun
    for number in range(3):
        threads.start(lambda first: [jobs.push(str(first + one)) for one in range(40)], number * 40)
    threads.join()
    seen.check()
    assert counts(server) == {"acked": 120}


# What goes wrong


def test_a_full_queue_says_so(server: Server, jobs: Queue) -> None:
    with redis.Redis(port=server.port) as client:
        client.execute_command("Q.CONFIG", "jobs", "MAXLEN", 1)
    jobs.push("one")
    with pytest.raises(QueueFull, match="queue 'jobs': the queue holds 1 of MAXLEN 1 messages"):
        jobs.push("two")


def test_what_is_no_queue(server: Server, queues: Queues) -> None:
    with redis.Redis(port=server.port) as client:
        client.set("value", "1")
    with pytest.raises(QueueError, match="WRONGTYPE"):
        queues.queue("value").push("x")
    with pytest.raises(QueueError, match="WRONGTYPE"):
        next(queues.queue("value").consume())


def test_a_wrong_password_is_told_at_once(server: Server) -> None:
    queue = Queues(f"redis://:wrong@{HOST}:{server.port}").queue("jobs")
    with pytest.raises(QueueError):
        queue.push("x")
    with pytest.raises(QueueError):
        next(queue.consume())


def test_nobody_is_there() -> None:
    queue = Queues("redis://127.0.0.1:1").queue("jobs")
    with pytest.raises(QueueTimeout, match="refused"):
        queue.push("x", timeout=0.2)
    with pytest.raises(QueueTimeout, match="refused"):
        next(queue.consume(timeout=0.2))


@pytest.mark.parametrize(
    "wrong", [lambda jobs: jobs.consume(count=0), lambda jobs: jobs.push("x", priority=256), lambda jobs: jobs.push(7)]
)
def test_nonsense_is_told_before_anything_is_done(server: Server, jobs: Queue, wrong: Callable[[Queue], Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        wrong(jobs)
    assert counts(server) == {}


# With asyncio


def run(server: Server, main: Callable[[Any], Any]) -> None:
    """``main`` with the queue, for a task."""

    async def work() -> None:
        queues = AsyncQueues(url(server))
        await main(queues.queue("jobs"))
        await queues.close()

    asyncio.run(work())


def test_a_task_works_a_queue_off(server: Server, jobs: Queue) -> None:
    async def main(queue: Any) -> None:
        for number in range(5):
            await queue.push(str(number), priority=number)
        seen = [message.payload async for message in queue.consume(timeout=0, count=2)]
        assert seen == [b"4", b"3", b"2", b"1", b"0"]

    run(server, main)
    assert counts(server) == {"acked": 5}


def test_a_message_of_a_task_with_a_block_ends_with_it(server: Server, jobs: Queue) -> None:
    jobs.push("job")

    async def main(queue: Any) -> None:
        async for message in queue.consume(timeout=0):
            with contextlib.suppress(Failed):
                async with message:
                    if message.deliveries < 3:
                        raise Failed
            assert message.deliveries < 3 or not message.is_held

    run(server, main)
    assert counts(server) == {"acked": 1}


def test_a_task_that_is_cancelled_gives_all_back(server: Server, jobs: Queue) -> None:
    """While it works, and while it waits."""
    for number in range(4):
        jobs.push(str(number))

    async def main(queue: Any) -> None:
        at_work = asyncio.Event()

        async def work() -> None:
            async with contextlib.aclosing(queue.consume(count=3)) as messages:
                async for message in messages:
                    async with message:
                        at_work.set()
                        await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await at_work.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counts(server) == {"ready": 4}
        with redis.Redis(port=server.port) as client:
            client.execute_command("Q.PURGE", "jobs")
            waiting = asyncio.create_task(work())
            await asyncio.to_thread(wait_until, lambda: client.info("clients")["blocked_clients"] == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.to_thread(wait_until, lambda: client.info("clients")["blocked_clients"] == 0)

    run(server, main)
    assert counts(server) == {}


def test_stop_ends_the_loops_of_tasks(server: Server, jobs: Queue) -> None:
    for number in range(3):
        jobs.push(str(number))

    async def main(queue: Any) -> None:
        async for _ in queue.consume(count=3):
            queue.stop()
        assert counts(server) == {"acked": 1, "ready": 2}
        with redis.Redis(port=server.port) as client:
            client.execute_command("Q.PURGE", "jobs")
            waiting = asyncio.create_task(collect(queue))
            await asyncio.to_thread(wait_until, lambda: client.info("clients")["blocked_clients"] == 1)
            queue.stop()
            assert await waiting == []

    async def collect(queue: Any) -> list[Any]:
        return [message async for message in queue.consume()]

    run(server, main)


def test_a_message_of_a_task_is_extended(server: Server, jobs: Queue) -> None:
    jobs.push("one")

    async def main(queue: Any) -> None:
        async for message in queue.consume(visibility=SHORT_S, timeout=0):
            others = [one async for one in queue.consume(timeout=2 * SHORT_S)]
            assert others == []
            message.check()

    run(server, main)
    assert counts(server) == {"acked": 1}


def test_a_loop_that_is_never_ended_ends_with_its_thread(server: Server, jobs: Queue) -> None:
    """Nobody closes the generator; it goes when nothing knows it any more."""
    jobs.push("one")
    threads, left = Threads(), threading.Event()

    def work() -> None:
        next(jobs.consume())
        left.set()

    threads.start(work)
    threads.join()
    assert left.is_set()
    assert counts(server) == {"ready": 1}
