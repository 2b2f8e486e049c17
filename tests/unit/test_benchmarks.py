"""The benchmark's own arithmetic and order, and its probes against a real Redis and a real etcd."""

from __future__ import annotations

import shutil
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks import etcd
from benchmarks.attempts import seconds_to_next_write
from benchmarks.bench import Bench, Measure, Sampler
from benchmarks.clustered import MEASURES as CLUSTERED
from benchmarks.crowds import ByHand, OverSockets
from benchmarks.deadlocks import break_one
from benchmarks.etcd_locks import Leases, lock_in_pairs, one_each, one_each_revoked, one_for_all
from benchmarks.grpc_calls import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    Call,
    Connection,
    frame,
)
from benchmarks.handover import handovers
from benchmarks.locking import CLUSTERED as LOCKS
from benchmarks.many_locks import Crowd
from benchmarks.measures import MEASURES
from benchmarks.open_loop import Generator, Plan, offering, quantile
from benchmarks.probes import (
    Endpoint,
    Load,
    MeasureFailed,
    Pace,
    ask,
    closed_loop,
    command,
    info,
    load_keys,
    memory_bytes,
    request,
)
from benchmarks.run_benchmarks import Result, take
from benchmarks.sharded import MEASURES as SHARDED
from tests.rings import Ring
from tests.servers import HOST, Server, wait_until

BENCH = Bench(outside=None, divisor=20)


def measure(ours: Sampler, beside: Sampler | None, target: float | None = 0.5, *, at_least: bool = True) -> Measure:
    @contextmanager
    def samplers(bench: Bench) -> Iterator[tuple[Sampler, Sampler | None]]:
        assert bench is BENCH
        yield ours, beside

    return Measure("m", "a measure", "/s", "redis" if beside else "", target, at_least, samplers)


@pytest.fixture
def full_redis(real_redis: Server) -> Iterator[Server]:
    """A Redis that refuses every write."""
    redis = Endpoint(HOST, real_redis.port)
    command(redis, "CONFIG", "SET", "maxmemory", "1")
    yield real_redis
    command(redis, "CONFIG", "SET", "maxmemory", "0")


def test_both_sides_take_turns() -> None:
    turns: list[str] = []

    def side(name: str) -> Sampler:
        def sample() -> float:
            turns.append(name)
            return float(len(turns))

        return sample

    result = take(measure(side("ours"), side("theirs")), BENCH, 3, lambda: None)
    assert turns == ["ours", "theirs"] * 3
    assert (result.ours, result.beside) == ([1, 3, 5], [2, 4, 6])


@pytest.mark.parametrize(
    ("target", "at_least", "ours", "beside", "figure", "met"),
    [
        (0.5, True, [1, 9, 5], [10, 10, 10], 0.5, True),
        (0.5, True, [4, 4, 40], [10, 10, 10], 0.4, False),
        (3, False, [6, 5, 7], [2, 2, 2], 3, True),
        (3, False, [7, 7, 1], [2, 2, 2], 3.5, False),
        (10, False, [9, 8, 30], [], 9, True),
        (None, True, [1], [2], 0.5, None),
        (0.5, True, [], [], None, None),
    ],
)
def test_a_target_bounds_the_ratio_of_medians_or_a_lone_median(
    target: float | None,
    at_least: bool,
    ours: list[float],
    beside: list[float],
    figure: float | None,
    met: bool | None,
) -> None:
    result = Result(measure(float, None, target, at_least=at_least), ours, beside)
    assert (result.figure, result.met) == (figure, met)


def test_what_cannot_be_measured_says_why_and_has_no_figure() -> None:
    def fails() -> float:
        raise MeasureFailed("no disk")

    result = take(measure(fails, None), BENCH, 3, lambda: None)
    assert (result.failed, result.figure, result.met) == ("no disk", None, None)


def test_what_a_measure_notes_is_kept_with_it() -> None:
    @contextmanager
    def samplers(bench: Bench) -> Iterator[tuple[Sampler, Sampler | None]]:
        bench.notes.append("by the way")
        yield float, None

    bench = Bench(outside=None, divisor=20)
    noted, silent = Measure("m", "", "", "", None, True, samplers), measure(float, None)
    assert take(noted, bench, 1, lambda: None).notes == ("by the way",)
    bench.notes.append("of before")
    assert take(replace(silent, samplers=lambda _: nullcontext((float, None))), bench, 1, lambda: None).notes == ()


def test_names_are_unique() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


@pytest.mark.usefixtures("any_pace")
def test_probes_against_redis(real_redis: Server) -> None:
    redis = Endpoint(HOST, real_redis.port)
    load_keys(redis, 1_500, 100)
    assert command(redis, "DBSIZE") == ":1500"
    assert memory_bytes(redis) > 1_500 * 100
    assert Load("get", clients=5, requests=500, keys=1_500).run(redis)["rps"] > 0
    assert command(redis, "DBSIZE") == ":1500"
    assert closed_loop(redis, [(request("INCR", "n"), request("INCR", "n"))] * 3, rounds=5).seconds > 0
    assert command(redis, "INCR", "n") == ":31"
    with pytest.raises(MeasureFailed, match="wrong number of arguments"):
        closed_loop(redis, [(request("INCR"),)], rounds=1)
    with pytest.raises(MeasureFailed, match="unknown command 'NOPE'"):
        command(redis, "NOPE")


@pytest.mark.parametrize(
    ("seconds", "computed", "limits"),
    [(10.0, 8.9, False), (10.0, 9.1, True), (0.1, 0.095, True), (0.002, 0.002, False)],
)
def test_a_driver_that_computes_all_the_time_is_what_limits_a_loop(
    monkeypatch: pytest.MonkeyPatch, seconds: float, computed: float, limits: bool
) -> None:
    readings = SimpleNamespace(perf_counter=iter([0.0, seconds]).__next__, process_time=iter([0.0, computed]).__next__)
    monkeypatch.setattr("benchmarks.probes.time", readings)
    pace = Pace()
    with pytest.raises(MeasureFailed, match="the driver is what limits") if limits else nullcontext():
        pace.stop()
    assert (pace.seconds, pace.driver_share) == (seconds, computed / seconds)


def test_a_load_that_fails_says_so(full_redis: Server) -> None:
    with pytest.raises(MeasureFailed, match="OOM"):
        load_keys(Endpoint(HOST, full_redis.port), 10, 3)


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [([7], 0.99, 7), ([1, 2], 0.5, 1), (range(1, 101), 0.99, 99), (range(1, 101), 1.0, 100), (range(101), 0.99, 99)],
)
def test_a_quantile_is_one_of_the_samples(samples: Sequence[float], share: float, expected: float) -> None:
    assert quantile(samples, share) == expected


def test_a_fixed_rate_sends_what_its_time_allows(real_redis: Server) -> None:
    redis = Endpoint(HOST, real_redis.port)
    command(redis, "FLUSHALL")
    with closing(Generator([redis], Plan(rate=1_000, connections=7, keys=10))) as generator:
        figures = generator.run(seconds=0.1)
    assert figures.requests == 100
    assert 0 < figures.p50_ms <= figures.p95_ms <= figures.p99_ms <= figures.max_ms
    assert 0 < figures.per_second <= 1_000
    assert command(redis, "DBSIZE") == ":10"


def test_reads_and_writes_in_bunches(real_redis: Server) -> None:
    redis = Endpoint(HOST, real_redis.port)
    command(redis, "FLUSHALL")
    command(redis, "CONFIG", "RESETSTAT")
    plan = Plan(rate=10_000, connections=3, keys=1_000, writes=0.2, bunch_ms=5)
    with closing(Generator([redis, redis], plan)) as generator:
        figures = generator.run(seconds=0.1)
    assert figures.requests == 1_000
    told = info(redis, "commandstats")
    calls = {name: int(told[f"cmdstat_{name}"].split(",")[0].removeprefix("calls=")) for name in ("get", "set")}
    assert sum(calls.values()) == 1_000
    assert 100 < calls["set"] < 300


def test_a_fixed_rate_counts_from_when_a_request_was_due() -> None:
    """All are answered at once, and had been due one after the other."""
    wanted = 10

    def answer_all_at_once() -> None:
        connection, _ = listener.accept()
        with connection:
            received = b""
            while received.count(b"SET") < wanted:
                received += connection.recv(4096)
            connection.sendall(b"+OK\r\n" * wanted)

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=answer_all_at_once)
        thread.start()
        server = Endpoint(HOST, listener.getsockname()[1])
        with closing(Generator([server], Plan(rate=100, connections=1, keys=10))) as generator:
            figures = generator.run(seconds=0.1)
        thread.join()
    assert figures.requests == wanted
    assert figures.max_ms - figures.p50_ms == pytest.approx(50), "the first was due that long before the sixth"


def test_a_fixed_rate_ends_when_it_is_told_to(real_redis: Server) -> None:
    redis = Endpoint(HOST, real_redis.port)
    command(redis, "FLUSHALL")
    with offering([redis], Plan(rate=1_000), seconds=600) as load:
        wait_until(lambda: command(redis, "DBSIZE") != ":0")
        assert 0 < load.stop().requests < 600_000


def test_a_fixed_rate_tells_what_the_server_refuses(full_redis: Server) -> None:
    with (
        offering([Endpoint(HOST, full_redis.port)], Plan(rate=100), seconds=5) as load,
        pytest.raises(MeasureFailed, match="-OOM"),
    ):
        load.wait()


def test_writes_are_tried_until_one_succeeds() -> None:
    asked = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.request.recv(4096))
            self.request.sendall(b"+OK\r\n" if len(asked) > 5 else b"-CLUSTERDOWN no leader\r\n")

    with socketserver.TCPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            host, port = server.server_address[:2]
            started = time.perf_counter()
            assert 0 < seconds_to_next_write([Endpoint(str(host), port)], started) <= time.perf_counter() - started
        finally:
            server.shutdown()
            thread.join()
    assert len(asked) > 5


ANSWER = frame(HEADERS, 0x4, 1, b"\x88") + frame(DATA, 0, 1, b"\0\0\0\0\2ok") + frame(HEADERS, 0x5, 1, b"\x80")
REFUSAL = frame(HEADERS, 0x4 | END_STREAM, 3, b"\x88\x81")


def test_answers_to_calls_are_told_apart_however_they_arrive() -> None:
    data = frame(SETTINGS, 0, 0) + ANSWER + frame(PING, 0, 0, b"12345678") + frame(SETTINGS, ACK, 0) + ANSWER
    owed = frame(SETTINGS, ACK, 0) + frame(PING, ACK, 0, b"12345678")
    for size in (len(data), 1):
        calls = Connection()
        pieces = [calls.receive(data[at : at + size]) for at in range(0, len(data), size)]
        assert b"".join(pieces) == owed
        assert (calls.answered, calls.messages) == ([1, 1], 2)


def test_a_refused_call_is_answered_without_a_message() -> None:
    calls = Connection()
    calls.receive(ANSWER + REFUSAL)
    assert (calls.answered, calls.messages) == ([1, 3], 1)


@pytest.mark.parametrize(("kind", "what"), [(RST_STREAM, "a call"), (GOAWAY, "the connection")])
def test_a_connection_that_ends_is_told(kind: int, what: str) -> None:
    with pytest.raises(MeasureFailed, match=f"etcd ended {what}"):
        Connection().receive(frame(kind, 0, 0, b"why"))


GIVEN = {0x83: (b":method", b"POST"), 0x86: (b":scheme", b"http")}
GIVEN_NAMES = {0x41: b":authority", 0x44: b":path", 0x5F: b"content-type"}


def headers(block: bytes, table: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """What a block of headers says to a peer whose own table, newest first, this is (RFC 7541)."""
    found = []
    while block:
        first, block = block[0], block[1:]
        if first in GIVEN:
            found.append(GIVEN[first])
        elif first & 0x80:
            found.append(table[(first & 0x7F) - 62])
        else:
            name = GIVEN_NAMES.get(first, b"")
            if not name:
                name, block = block[1 : 1 + block[0]], block[1 + block[0] :]
            value, block = block[1 : 1 + block[0]], block[1 + block[0] :]
            table.insert(0, (name, value))
            found.append((name, value))
    assert [name[:1] == b":" for name, _ in found] == [True] * 4 + [False] * 2
    return dict(found)


def test_headers_of_calls_are_told_once_and_referred_to_afterwards() -> None:
    calls = Connection()
    table: list[tuple[bytes, bytes]] = []
    methods = (b"/put", b"/put", b"/lock", b"/put", b"/lock", b"/unlock", b"/lock", b"/put", b"/unlock")
    lengths = []
    for number, method in enumerate(methods):
        stream, data = calls.call(Call(method, b"message"))
        length = int.from_bytes(data[:3], "big")
        lengths.append(length)
        assert stream == 2 * number + 1
        assert data[9 + length :] == frame(DATA, END_STREAM, stream, b"\0\0\0\0\7message")
        assert headers(data[9 : 9 + length], table) == {
            b":method": b"POST", b":scheme": b"http", b":path": method, b":authority": b"etcd",
            b"content-type": b"application/grpc", b"te": b"trailers",
        }  # fmt: skip
    assert [length == 6 for length in lengths] == [False, True, False, True, True, False, True, True, True]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(etcd.PROGRAM) is None, reason="etcd is not installed")
@pytest.mark.usefixtures("any_pace")
def test_every_put_reaches_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    with etcd.etcd_cluster() as cluster:
        assert cluster.puts_per_second(clients=20, requests=999) > 0
        monkeypatch.setattr(etcd, "CONNECTIONS", 7)
        assert cluster.puts_per_second(clients=20, requests=999) > 0


def test_without_etcd_the_measure_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "PROGRAM", "no-such-etcd")
    with pytest.raises(MeasureFailed, match="no-such-etcd is not on the PATH"), etcd.etcd_cluster():
        pass


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(etcd.PROGRAM) is None, reason="etcd is not installed")
@pytest.mark.parametrize("leases", [one_each, one_each_revoked, one_for_all])
@pytest.mark.usefixtures("any_pace")
def test_every_lock_is_taken_and_given_back_in_etcd(leases: Leases) -> None:
    with etcd.etcd_cluster() as cluster:
        assert lock_in_pairs(cluster, leases, clients=7, pairs=3).seconds > 0


@pytest.mark.parametrize("in_line", [False, True])
def test_a_crowd_stays_as_it_is_however_often_it_is_asked(in_line: bool) -> None:
    crowd = Crowd(ByHand(), 200, in_line=in_line)
    before = [what for what, _ in crowd.costs()]
    assert len({*before}) == len(before) > 10
    for _ in range(5):
        costs = dict(crowd.costs())
        assert [*costs] == before
        assert all(seconds is not None and seconds > 0 for seconds in costs.values())


@pytest.mark.slow
def test_locks_over_sockets(sepakat: Server) -> None:
    endpoint = Endpoint(HOST, sepakat.port)
    for _ in range(2):
        assert all(seconds > 0 for seconds in handovers([endpoint], waiters=5, count=20))
    row = {"shard": 0, "slots": [[0, 16383]], "nodes": [], "leader": "", "preferred": "", "moving": []}
    for owners in (2, 5):
        assert break_one([endpoint], Ring.read([row]), [0] * owners) > 0
    cursor, left = ask(endpoint, "LOCK.SCAN", "0")
    assert (cursor, [key.partition(b":")[0] for key in left]) == (b"0", [b"contended"] * 2)
    with ExitStack() as until:
        crowd = Crowd(OverSockets(endpoint, until), 100, in_line=False)
        timed = [{what for what, seconds in crowd.costs() if seconds is not None} for _ in range(2)]
    assert {"ACQUIRE", "RELEASE that hands over", "a holder's connection ends"} < timed[0] == timed[1]


@pytest.mark.parametrize("one", [*CLUSTERED, *SHARDED, *LOCKS], ids=lambda one: one.name)
def test_a_cluster_is_never_an_outside_server(one: Measure) -> None:
    result = take(one, Bench(outside=Endpoint(HOST, 1), divisor=20), 1, lambda: None)
    assert "leave out --server" in result.failed
