"""The benchmark's own arithmetic and order, and its probes against a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.measures import MEASURES, Bench, Measure, Sampler
from benchmarks.probes import Endpoint, Load, MeasureFailed, closed_loop, command, load_keys, memory_bytes, request
from benchmarks.run_benchmarks import Result, take
from tests.servers import HOST, Server

BENCH = Bench(outside=None, divisor=20)


def measure(ours: Sampler, beside: Sampler | None, target: float | None = 0.5, *, at_least: bool = True) -> Measure:
    @contextmanager
    def samplers(bench: Bench) -> Iterator[tuple[Sampler, Sampler | None]]:
        assert bench is BENCH
        yield ours, beside

    return Measure("m", "a measure", "/s", "redis" if beside else "", target, at_least, samplers)


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


def test_names_are_unique() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


def test_probes_against_redis(real_redis: Server) -> None:
    redis = Endpoint(HOST, real_redis.port)
    load_keys(redis, 1_500, 100)
    assert command(redis, "DBSIZE") == ":1500"
    assert memory_bytes(redis) > 1_500 * 100
    assert Load("get", clients=5, requests=500, keys=1_500).run(redis)["rps"] > 0
    assert command(redis, "DBSIZE") == ":1500"
    assert closed_loop(redis, [(request("INCR", "n"), request("INCR", "n"))] * 3, rounds=5) > 0
    assert command(redis, "INCR", "n") == ":31"
    with pytest.raises(MeasureFailed, match="wrong number of arguments"):
        closed_loop(redis, [(request("INCR"),)], rounds=1)
    with pytest.raises(MeasureFailed, match="unknown command 'NOPE'"):
        command(redis, "NOPE")


def test_a_load_that_fails_says_so(real_redis: Server) -> None:
    with real_redis.connect() as connection:
        connection.sendall(request("CONFIG", "SET", "maxmemory", "1"))
        assert connection.recv(64) == b"+OK\r\n"
        with pytest.raises(MeasureFailed, match="OOM"):
            load_keys(Endpoint(HOST, real_redis.port), 10, 3)
        connection.sendall(request("CONFIG", "SET", "maxmemory", "0"))
        assert connection.recv(64) == b"+OK\r\n"
