"""Messages on their way: clients that push, and clients that take and acknowledge, each after its last reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count as numbers
from typing import Any, TypeAlias

import hiredis

from benchmarks.bench import Bench, Measure, Samplers
from benchmarks.open_loop import quantile
from benchmarks.probes import (
    POLL_SECONDS,
    RECEIVE_BYTES,
    SILENCE_SECONDS,
    Endpoint,
    MeasureFailed,
    Pace,
    ask,
    info,
    request,
)
from benchmarks.wires import carry

PAYLOAD = b"x" * 100
CLIENTS = 50
MESSAGES = 40_000
BATCH = 32
WAKES = 1_000

Talk: TypeAlias = "Generator[bytes, Any, None]"
"""What a client sends, given the reply to what it sent before; it ends with the client's work."""

_names = numbers()


def _queue() -> str:
    return f"flow:{next(_names)}"


def setter(messages: int) -> Talk:
    """Sets a key, again and again."""
    for _ in range(messages):
        yield request("SET", f"key:{next(_names) % 1000}", PAYLOAD)


def producer(queue: str, messages: int, batch: int = 1) -> Talk:
    """Pushes so many messages, ``batch`` with each command."""
    one = request("Q.PUSH", queue, PAYLOAD) if batch == 1 else request("Q.MPUSH", queue, *[PAYLOAD] * batch)
    for _ in range(messages // batch):
        yield one


def consumer(queue: str, left: list[int], batch: int = 1) -> Talk:
    """Takes up to ``batch`` messages and acknowledges them, until ``left[0]``, which all share, is none."""
    pop = request("Q.POP", queue, "COUNT", str(batch), "BLOCK", "50")
    while left[0] > 0:
        messages = yield pop
        if messages:
            acknowledged = yield request("Q.ACK", queue, *(message[0] for message in messages))
            left[0] -= acknowledged


class Resp:
    """A client's connection: its talk in RESP, one command under way."""

    def __init__(self, talk: Talk, open_talks: list[int]) -> None:
        self._talk = talk
        self._open = open_talks
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)

    def start(self) -> bytes:
        """The first command."""
        return next(self._talk)

    def receive(self, data: bytes) -> bytes:
        """The next command once the reply is whole; counts itself out with the last."""
        self._reader.feed(data)
        reply = self._reader.gets()
        if isinstance(reply, hiredis.ReplyError):
            raise MeasureFailed(f"a client was told -{reply}")
        if reply is False:
            return b""
        try:
            return self._talk.send(reply)
        except StopIteration:
            self._open[0] -= 1
            return b""


def talk(endpoints: Sequence[Endpoint], talks: Sequence[Talk]) -> Pace:
    """Lets each client talk through a connection of its own, to a node of its turn, until all are done."""
    open_talks = [len(talks)]
    with ExitStack() as until:
        links = [
            (until.enter_context(endpoints[number % len(endpoints)].connect(SILENCE_SECONDS)), Resp(one, open_talks))
            for number, one in enumerate(talks)
        ]
        return carry(links, lambda: open_talks[0] == 0)


@dataclass(frozen=True, slots=True)
class Carried:
    """So many messages (or keys), and how long they took."""

    messages: int
    pace: Pace

    @property
    def per_second(self) -> float:
        """The rate."""
        return self.messages / self.pace.seconds


def pushed(endpoints: Sequence[Endpoint], messages: int) -> Carried:
    """What so many producers push."""
    queue, each = _queue(), messages // CLIENTS
    return Carried(each * CLIENTS, talk(endpoints, [producer(queue, each) for _ in range(CLIENTS)]))


def were_set(endpoints: Sequence[Endpoint], messages: int) -> Carried:
    """Keys that as many clients set."""
    each = messages // CLIENTS
    return Carried(each * CLIENTS, talk(endpoints, [setter(each) for _ in range(CLIENTS)]))


def worked_off(endpoints: Sequence[Endpoint], messages: int, batch: int, partitions: int = 1) -> Carried:
    """Messages from half of the clients to the other half, acknowledged."""
    queue, half = _queue(), CLIENTS // 2
    if partitions > 1:
        ask(endpoints[0], "Q.CREATE", queue, "PARTITIONS", str(partitions))
        for endpoint in endpoints:
            _wait_until_known(endpoint, queue)
    each = messages // half // batch * batch
    left = [each * half]
    talks = [producer(queue, each, batch) for _ in range(half)] + [consumer(queue, left, batch) for _ in range(half)]
    return Carried(each * half, talk(endpoints, talks))


def _wait_until_known(endpoint: Endpoint, queue: str) -> None:
    """Returns once the node knows of the queue's partitions."""
    give_up = time.monotonic() + SILENCE_SECONDS
    while time.monotonic() < give_up:
        with suppress(MeasureFailed):
            ask(endpoint, "Q.LEN", queue)
            return
        time.sleep(POLL_SECONDS)
    raise MeasureFailed(f"the partitions are not known after {SILENCE_SECONDS:g} s")


Rate: TypeAlias = "Callable[[Sequence[Endpoint], int], Carried]"


def _against_set(rate: Rate, *flags: str, batch: int = 1) -> Callable[[Bench], Any]:
    """A rate of messages on three durable nodes, against that of SET with as many clients, through the same loop."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        messages = max(CLIENTS * batch, MESSAGES // bench.divisor)
        with bench.cluster(3, *flags) as nodes:
            endpoints = [nodes.endpoint(name) for name in nodes.running]
            yield lambda: rate(endpoints, messages).per_second, lambda: were_set(endpoints, messages).per_second

    return samplers


@contextmanager
def woken(bench: Bench) -> Samplers:
    """p99, in milliseconds, from sending a push to the reply of a consumer that waits at another node."""
    with bench.cluster(3) as nodes:
        endpoints = [nodes.endpoint(name) for name in nodes.running]

        def sample() -> float:
            seconds = sorted(wakes(endpoints, WAKES // bench.divisor))
            bench.notes.append(f"median {1000 * quantile(seconds, 0.5):.3g} ms, worst {1000 * seconds[-1]:.3g} ms")
            return 1000 * quantile(seconds, 0.99)

        yield sample, None


def wakes(endpoints: Sequence[Endpoint], count: int) -> list[float]:
    """Seconds from sending a push to one node to the reply of a consumer that waits at another, each time."""
    queue = _queue()
    found = []
    with ExitStack() as until:
        connections = [until.enter_context(endpoint.connect(SILENCE_SECONDS)) for endpoint in endpoints]
        readers = [hiredis.Reader() for _ in connections]

        def hear(number: int) -> Any:
            while (reply := readers[number].gets()) is False:
                readers[number].feed(connections[number].recv(RECEIVE_BYTES))
            return reply

        for wake in range(count):
            waits, pushes = wake % len(endpoints), (wake + 1) % len(endpoints)
            connections[waits].sendall(request("Q.POP", queue, "BLOCK", "0"))
            while info(endpoints[pushes], "sepakat")["waiting_commands"] == "0":
                time.sleep(POLL_SECONDS)
            started = time.perf_counter()
            connections[pushes].sendall(request("Q.PUSH", queue, PAYLOAD))
            [[receipt, *_]] = hear(waits)
            found.append(time.perf_counter() - started)
            hear(pushes)
            connections[waits].sendall(request("Q.ACK", queue, receipt))
            hear(waits)
    return found


MEASURES = (
    Measure("queue-push", "3 nodes: Q.PUSH -c 50", "/s", "our SET", 0.7, True, _against_set(pushed)),
    Measure(
        "queue-flow", "the same, push, pop, ack", "/s", "our SET", 0.2, True,
        _against_set(lambda endpoints, messages: worked_off(endpoints, messages, 1)),
    ),
    Measure(
        "queue-flow-32", "the same, 32 at a time", "/s", "our SET", 0.5, True,
        _against_set(lambda endpoints, messages: worked_off(endpoints, messages, BATCH), batch=BATCH),
    ),
    Measure(
        "queue-flow-parts", "16 shards, 8 partitions: push, pop, ack", "/s", "our SET", 0.2, True,
        _against_set(lambda endpoints, messages: worked_off(endpoints, messages, 1, 8), "--shards", "16"),
    ),
    Measure("queue-wake", "push to a waiting consumer: p99", "ms", "", 5.0, False, woken),
)  # fmt: skip
