"""The measures of locks: pairs next to etcd's, hand-overs, deadlocks, and very many locks and waiters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from statistics import median

from benchmarks import etcd_locks, many_locks
from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.clusters import Cluster
from benchmarks.deadlocks import break_one
from benchmarks.etcd import etcd_cluster
from benchmarks.handover import handovers
from benchmarks.open_loop import quantile
from benchmarks.probes import Endpoint, MeasureFailed, Pace, closed_loop, command, request
from tests.rings import Ring

CLIENTS = 200
OUR_PAIRS = 150
ETCD_PAIRS = 25
"""How many pairs each client makes in a sample: a few seconds' worth on either side."""
WAITERS = 100
HANDOVERS = 3_000
SHARDS = 16
OWNERS = range(2, 9)
CYCLES = 10
"""Deadlocks of each number of owners."""
DISTURBED_CYCLES = 10
"""Deadlocks with a change of leader right before, in all."""

Pick = Callable[[Sequence[float]], float]
Change = Callable[[Cluster, Ring], tuple[Sequence[Endpoint], Callable[[], None]]]
"""Which nodes clients may be connected to, and what changes the leaders."""
Samples = Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]


def _pairs(endpoint: Endpoint, clients: int, rounds: int) -> Pace:
    """Clients that each take and give back a lock of their own."""
    names = [str(number) for number in range(clients)]
    scripts = [(request("LOCK.ACQUIRE", f"lock:{n}", n), request("LOCK.RELEASE", f"lock:{n}", n)) for n in names]
    return closed_loop(endpoint, scripts, rounds)


@contextmanager
def against_set(bench: Bench) -> Samplers:
    """Commands of 50 connections that each have a lock, against 50 that each set a key, through the same loop."""
    clients, rounds = 50, 1_000 // bench.divisor
    sets = [(request("SET", f"key:{number}", "xxx"),) for number in range(clients)]
    with bench.ours() as ours:
        yield (
            lambda: 2 * clients * rounds / _pairs(ours, clients, rounds).seconds,
            lambda: 2 * clients * rounds / closed_loop(ours, sets, 2 * rounds).seconds,
        )


def against_etcd(leases: etcd_locks.Leases) -> Samples:
    """Pairs through the leader of three nodes, against as many clients of the lock API of etcd's leader."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        rounds, theirs_rounds = max(1, OUR_PAIRS // bench.divisor), max(1, ETCD_PAIRS // bench.divisor)

        def rate(whose: str, pace: Pace, pairs: int) -> float:
            rate = CLIENTS * pairs / pace.seconds
            bench.notes.append(f"{whose} {rate:,.0f} pairs/s, the driver computed for {pace.driver_share:.0%} of it")
            return rate

        with bench.cluster() as ours, etcd_cluster() as theirs:
            yield (
                lambda: rate("ours", _pairs(ours.endpoint(ours.leader()), CLIENTS, rounds), rounds),
                lambda: rate("etcd", etcd_locks.lock_in_pairs(theirs, leases, CLIENTS, theirs_rounds), theirs_rounds),
            )

    return samplers


def _told(bench: Bench, what: str, seconds: Sequence[float]) -> None:
    """Notes how some times in seconds are spread."""
    ordered = [1000 * one for one in sorted(seconds)]
    bench.notes.append(
        f"{what}: median {quantile(ordered, 0.5):.3g} ms, p99 {quantile(ordered, 0.99):.3g} ms,"
        f" worst {ordered[-1]:.3g} ms of {len(ordered)}"
    )


@contextmanager
def handed_over(bench: Bench) -> Samplers:
    """p99, in milliseconds, of hand-overs of one lock that clients of all three nodes wait for."""
    with bench.cluster() as nodes:
        endpoints = [nodes.endpoint(name) for name in nodes.running]

        def sample() -> float:
            seconds = handovers(endpoints, WAITERS, HANDOVERS // bench.divisor)
            _told(bench, f"{WAITERS} waiters", seconds)
            return 1000 * quantile(sorted(seconds), 0.99)

        yield sample, None


def _cycle(owners: int, shards: int) -> Sequence[int]:
    """The shards of that many owners' locks."""
    return [number % shards for number in range(owners)]


def broken(pick: Pick, shards: int) -> Samples:
    """Milliseconds until deadlocks of all numbers of owners are broken; owners are spread over so many shards."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        with bench.cluster(3, "--shards", str(SHARDS)) as nodes:
            ring = nodes.settle()
            endpoints = [nodes.endpoint(name) for name in nodes.running]

            def sample() -> float:
                taken: list[float] = []
                for owners in OWNERS:
                    cycle = _cycle(owners, shards)
                    some = [break_one(endpoints, ring, cycle) for _ in range(max(1, CYCLES // bench.divisor))]
                    _told(bench, f"{owners} owners", some)
                    taken += some
                _told(bench, "all", taken)
                return 1000 * pick(taken)

            yield sample, None

    return samplers


def broken_after(change: Change, pick: Pick, shards: int = SHARDS) -> Samples:
    """As `broken`, where leaders change right before the cycle is closed."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        with bench.cluster(3, "--shards", str(SHARDS)) as nodes:

            def sample() -> float:
                taken = []
                for number in range(max(1, DISTURBED_CYCLES // bench.divisor)):
                    ring = nodes.ring()
                    endpoints, disturb = change(nodes, ring)
                    cycle = _cycle(OWNERS[number % len(OWNERS)], shards)
                    taken.append(break_one(endpoints, ring, cycle, disturb))
                    nodes.start()
                _told(bench, "all", taken)
                return 1000 * pick(taken)

            yield sample, None

    return samplers


def handed_to_another(nodes: Cluster, ring: Ring) -> tuple[Sequence[Endpoint], Callable[[], None]]:
    """Another node than the first shard's leader becomes that of every shard."""
    other = next(name for name in nodes.running if name != ring.rows[0].leader)
    return [nodes.endpoint(name) for name in nodes.running], lambda: _lead(nodes.endpoint(other))


def _lead(endpoint: Endpoint) -> None:
    if command(endpoint, "CLUSTER", "FAILOVER") != "+OK":
        raise MeasureFailed("the leaders did not change")


def killed(nodes: Cluster, ring: Ring) -> tuple[Sequence[Endpoint], Callable[[], None]]:
    """kill -9 of the node that leads the first shard, and some others with it."""
    return _killing(nodes, str(ring.rows[0].leader))


def finder_killed(nodes: Cluster, _: Ring) -> tuple[Sequence[Endpoint], Callable[[], None]]:
    """kill -9 of the leader of the group of all nodes, which finds the cycles; it leads some shards as well."""
    return _killing(nodes, nodes.info(nodes.running[0])["system_leader"])


def _killing(nodes: Cluster, victim: str) -> tuple[Sequence[Endpoint], Callable[[], None]]:
    survivors = [nodes.endpoint(name) for name in nodes.running if name != victim]
    return survivors, lambda: nodes.kill(victim)


CLUSTERED = (
    Measure("lock-pairs", "3 nodes: LOCK pairs -c 200", "/s", "etcd", 10.0, True, against_etcd(etcd_locks.one_each)),
    Measure(
        "lock-pairs-revoke", "the same, leases revoked", "/s", "etcd", 10.0, True,
        against_etcd(etcd_locks.one_each_revoked),
    ),
    Measure(
        "lock-pairs-kept", "the same, leases kept", "/s", "etcd", None, True, against_etcd(etcd_locks.one_for_all)
    ),
    Measure("lock-handover", "100 waiters, hand-over: p99", "ms", "", 5.0, False, handed_over),
    Measure("lock-deadlock", "deadlock across shards, median", "ms", "", 50.0, False, broken(median, SHARDS)),
    Measure("lock-deadlock-worst", "the same, worst", "ms", "", 1000.0, False, broken(max, SHARDS)),
    Measure("lock-deadlock-local", "deadlock in one shard, median", "ms", "", 50.0, False, broken(median, 1)),
    Measure(
        "lock-deadlock-failover", "after CLUSTER FAILOVER, worst", "ms", "", 1000.0, False,
        broken_after(handed_to_another, max), repeats=False,
    ),
    Measure(
        "lock-deadlock-kill", "after kill -9 of a leader, worst", "ms", "", 1000.0, False,
        broken_after(killed, max), repeats=False,
    ),
    Measure(
        "lock-deadlock-kill-finder", "after kill -9 of the finder, worst", "ms", "", 1000.0, False,
        broken_after(finder_killed, max), repeats=False,
    ),
)  # fmt: skip

MEASURES = (
    Measure("lock-set", "LOCK pairs, commands", "/s", "our SET", 0.5, True, against_set),
    *CLUSTERED,
    *many_locks.MEASURES,
)
