"""The measures of our queues against RabbitMQ's quorum queues and NATS JetStream's streams of three replicas.

Each is three nodes on this machine, with 50 clients on connections of their
own, spread over the nodes, in one loop (`wires`) of one thread, and messages of
100 bytes. What is awaited is the same:
a producer waits until its message is confirmed; a consumer has as many messages
under way as it takes at once, and either waits until its acknowledgement is
answered or takes more along with it, on both sides.

- RabbitMQ confirms no acknowledgement, so nobody waits for one there, nor does our
  consumer. It pushes messages without being asked, and 32 are acknowledged with one.
- NATS is measured both ways, waiting (``AckSync``) and not (``-ack``). It is asked for every message.
- NATS syncs its files every two minutes unless told otherwise. What it has
  confirmed is until then in the memory of three systems, which is not what
  RabbitMQ and we mean by durable: only the measures named ``synced`` are
  comparable (``sync_interval: always``, which Debian's 2.9 does not know yet).

Their own client libraries are what programs would use, but on a machine of few
processors whatever they use is taken from the servers. So both protocols are
spoken by as little as they need (`amqp`, `nats`), as is ours. Processor time
of the driver for a message that is pushed, and for one that is pushed and taken,
with 50 connections on two busy processors:

    RabbitMQ   amqplib (Node)   109 µs   113 µs      NATS   nats.js   160 µs   510 µs
               aiormq           174 µs   324 µs             nats-py    76 µs   325 µs
               this loop         17 µs    41 µs             this loop  19 µs    60 µs

All clients on one connection, as the tasks of one program can have it, cost the
servers less: NATS twice the pushes a second and more, RabbitMQ a sixth more. That
is not what is compared: our clients have a connection each, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Protocol, TypeVar

from benchmarks import flow, jetstream
from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.flow import BATCH, CLIENTS, PAYLOAD, Carried
from benchmarks.jetstream import JetStream, jetstream_cluster
from benchmarks.open_loop import quantile
from benchmarks.probes import Endpoint, Pace
from benchmarks.rabbit import Rabbit, rabbit_cluster

MESSAGES = 20_000
WAKES = 1_000
QUANTUM = CLIENTS * BATCH
"""What every number of messages is a multiple of, so that all clients have the same work in whole batches."""


class Broker(Protocol):
    """A cluster to compare with."""

    def processor_seconds(self) -> float:
        """The processor time all its nodes have used so far."""
        ...

    def wakes(self, count: int, payload: bytes) -> list[float]:
        """Seconds from sending a message to one node to a consumer that waits at another, each time."""
        ...


B = TypeVar("B", bound=Broker)
Samples = Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared, and what its samples cost beside time."""

    name: str
    work: Callable[[], Carried]
    processor_seconds: Callable[[], float]
    cost_us: list[float] = field(default_factory=list)
    driver_shares: list[float] = field(default_factory=list)

    def sample(self) -> float:
        """Messages a second."""
        before = self.processor_seconds()
        carried = self.work()
        self.cost_us.append(1e6 * (self.processor_seconds() - before) / carried.messages)
        self.driver_shares.append(carried.pace.driver_share)
        return carried.per_second

    def told(self) -> str:
        """The medians of what they cost."""
        cost_us, share = median(self.cost_us), median(self.driver_shares)
        return f"{self.name}: all nodes computed for {cost_us:.0f} µs a message, the driver for {share:.0%} of the time"


def rates(
    name: str,
    cluster: Callable[[], AbstractContextManager[B]],
    ours: Callable[[Sequence[Endpoint], int], Carried],
    theirs: Callable[[B, int], Pace],
) -> Samples:
    """Messages a second through three nodes of each."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        messages = max(1, MESSAGES // bench.divisor // QUANTUM) * QUANTUM
        with bench.cluster(3) as nodes, cluster() as broker:
            endpoints = [nodes.endpoint(one) for one in nodes.running]
            sides = (
                Side("ours", lambda: ours(endpoints, messages), lambda: sum(nodes.processor_seconds().values())),
                Side(name, lambda: Carried(messages, theirs(broker, messages)), broker.processor_seconds),
            )
            yield sides[0].sample, sides[1].sample
            bench.notes.extend(side.told() for side in sides)

    return samplers


def woken(name: str, cluster: Callable[[], AbstractContextManager[Broker]]) -> Samples:
    """p99, in milliseconds, from sending a message to a consumer that waits at another node."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        count = WAKES // bench.divisor

        def p99(whose: str, seconds: Sequence[float]) -> float:
            ordered = [1000 * one for one in sorted(seconds)]
            bench.notes.append(f"{whose}: median {quantile(ordered, 0.5):.3g} ms, worst {ordered[-1]:.3g} ms")
            return quantile(ordered, 0.99)

        with bench.cluster(3) as nodes, cluster() as broker:
            endpoints = [nodes.endpoint(one) for one in nodes.running]
            yield lambda: p99("ours", flow.wakes(endpoints, count)), lambda: p99(name, broker.wakes(count, PAYLOAD))

    return samplers


def _worked_off(take: flow.Consumer, batch: int, endpoints: Sequence[Endpoint], messages: int) -> Carried:
    return flow.worked_off(endpoints, messages, batch, take=take)


def _rabbit_works_off(batch: int, rabbit: Rabbit, messages: int) -> Pace:
    return rabbit.worked_off(CLIENTS, messages, PAYLOAD, batch)


def _nats_works_off(take: jetstream.Consumer, batch: int, nats: JetStream, messages: int) -> Pace:
    return nats.worked_off(CLIENTS, messages, PAYLOAD, batch, take)


def _rate(name: str, title: str, beside: str, samples: Samples) -> Measure:
    return Measure(name, title, "/s", beside, 1.0, True, samples)


def _wake(name: str, beside: str, cluster: Callable[[], AbstractContextManager[Broker]]) -> Measure:
    return Measure(name, "push to a waiting consumer: p99", "ms", beside, 1.0, False, woken(beside, cluster))


def _against_rabbit() -> list[Measure]:
    name, cluster, not_waiting = "RabbitMQ", rabbit_cluster, flow.pipelined_consumer
    return [
        _rate(
            "queue-rabbit-push", "50 push", name,
            rates(name, cluster, flow.pushed, lambda rabbit, messages: rabbit.pushed(CLIENTS, messages, PAYLOAD)),
        ),
        *(
            _rate(
                f"queue-rabbit-flow{end}", f"25 push, 25 take{what}", name,
                rates(name, cluster, partial(_worked_off, not_waiting, batch), partial(_rabbit_works_off, batch)),
            )
            for end, what, batch in (("", ", not waiting", 1), ("-32", ", 32, not waiting", BATCH))
        ),
        _wake("queue-rabbit-wake", name, cluster),
    ]  # fmt: skip


def _against_nats(prefix: str, name: str, *, synced: bool) -> list[Measure]:
    cluster = partial(jetstream_cluster, synced=synced)
    waiting = flow.consumer, jetstream.double_consumer
    not_waiting = flow.pipelined_consumer, jetstream.consumer
    loads = [
        ("flow", "", 1, *waiting),
        ("flow-ack", ", not waiting", 1, *not_waiting),
        ("flow-32", ", 32 at a time", BATCH, *waiting),
        ("flow-32-ack", ", 32, not waiting", BATCH, *not_waiting),
    ]
    return [
        _rate(
            f"{prefix}-push", "50 push", name,
            rates(name, cluster, flow.pushed, lambda nats, messages: nats.pushed(CLIENTS, messages, PAYLOAD)),
        ),
        *(
            _rate(
                f"{prefix}-{load}", f"25 push, 25 take{what}", name,
                rates(name, cluster, partial(_worked_off, ours, batch), partial(_nats_works_off, theirs, batch)),
            )
            for load, what, batch, ours, theirs in loads
        ),
        _wake(f"{prefix}-wake", name, cluster),
    ]  # fmt: skip


MEASURES = (
    *_against_rabbit(),
    *_against_nats("queue-nats", "NATS", synced=False),
    *_against_nats("queue-nats-synced", "NATS, synced", synced=True),
)
