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


def setter(messages: int, left: list[int]) -> Talk:
    """Sets a key, again and again; what is done is counted in ``left``, which all share."""
    for _ in range(messages):
        yield request("SET", f"key:{next(_names) % 1000}", PAYLOAD)
        left[0] -= 1


def producer(queue: str, messages: int, left: list[int], batch: int = 1) -> Talk:
    """Pushes so many messages, ``batch`` with each command."""
    one = request("Q.PUSH", queue, PAYLOAD) if batch == 1 else request("Q.MPUSH", queue, *[PAYLOAD] * batch)
    for _ in range(messages // batch):
        yield one
        left[0] -= batch


def consumer(queue: str, left: list[int], batch: int = 1) -> Talk:
    """Takes up to ``batch`` messages and acknowledges them, and takes more once it knows that this was in time."""
    pop = request("Q.POP", queue, "COUNT", str(batch), "BLOCK", "0")
    while True:
        messages = yield pop
        acknowledged = yield request("Q.ACK", queue, *(message[0] for message in messages))
        left[0] -= acknowledged


def pipelined_consumer(queue: str, left: list[int], batch: int = 1) -> Talk:
    """The same, but takes more along with the acknowledgement, whose answer comes first."""
    pop = request("Q.POP", queue, "COUNT", str(batch), "BLOCK", "0")
    sent = pop
    while True:
        messages = yield sent
        acknowledged = yield request("Q.ACK", queue, *(message[0] for message in messages)) + pop
        left[0] -= acknowledged
        sent = b""


Consumer: TypeAlias = "Callable[[str, list[int], int], Talk]"
"""Of a queue, counting in what all share, so many at a time."""


class Resp:
    """A client's connection: its talk in RESP, which is sent each reply."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)

    def start(self) -> bytes:
        """The first command."""
        return next(self._talk)

    def receive(self, data: bytes) -> bytes:
        """What is sent upon the replies that are whole now; nothing when the talk has ended."""
        self._reader.feed(data)
        sent = b""
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.ReplyError):
                raise MeasureFailed(f"a client was told -{reply}")
            with suppress(StopIteration):  # whose client has done its part
                sent += self._talk.send(reply)
        return sent


def talk(endpoints: Sequence[Endpoint], talks: Sequence[Talk], left: list[int]) -> Pace:
    """Lets each client talk through a connection of its own, to a node of its turn, until nothing is left to do."""
    with ExitStack() as until:
        links = [
            (until.enter_context(endpoints[number % len(endpoints)].connect(SILENCE_SECONDS)), Resp(one))
            for number, one in enumerate(talks)
        ]
        return carry(links, lambda: left[0] <= 0)


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
    left = [each * CLIENTS]
    return Carried(left[0], talk(endpoints, [producer(queue, each, left) for _ in range(CLIENTS)], left))


def were_set(endpoints: Sequence[Endpoint], messages: int) -> Carried:
    """Keys that as many clients set."""
    each = messages // CLIENTS
    left = [each * CLIENTS]
    return Carried(left[0], talk(endpoints, [setter(each, left) for _ in range(CLIENTS)], left))


def worked_off(
    endpoints: Sequence[Endpoint], messages: int, batch: int, *, partitions: int = 1, take: Consumer = consumer
) -> Carried:
    """Messages from half of the clients to the other half, which ``take`` and acknowledge them."""
    queue, half = _queue(), CLIENTS // 2
    if partitions > 1:
        create_parts(endpoints, queue, partitions)
    each = messages // half // batch * batch
    left = [2 * each * half]
    talks = [
        *(producer(queue, each, left, batch) for _ in range(half)),
        *(take(queue, left, batch) for _ in range(half)),
    ]
    return Carried(each * half, talk(endpoints, talks, left))


def create_parts(endpoints: Sequence[Endpoint], queue: str, partitions: int) -> None:
    """A queue of so many partitions, of which all nodes know."""
    ask(endpoints[0], "Q.CREATE", queue, "PARTITIONS", str(partitions))
    for endpoint in endpoints:
        _wait_until_known(endpoint, queue)


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
        _against_set(lambda endpoints, messages: worked_off(endpoints, messages, 1, partitions=8), "--shards", "16"),
    ),
    Measure("queue-wake", "push to a waiting consumer: p99", "ms", "", 5.0, False, woken),
)  # fmt: skip
