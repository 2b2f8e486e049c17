"""The reactor's wait: it ends when its descriptor is readable, when its time is over, and when it is cancelled."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from resp_server.edge.alarm import Alarm, DeadlineAlarm, new_alarm

FAR_S = 3600.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture(params=[new_alarm, DeadlineAlarm])
def alarm(request: pytest.FixtureRequest, pipe: tuple[int, int]) -> Iterator[Alarm]:
    make: Callable[[int], Alarm] = request.param
    made = make(pipe[0])
    yield made
    made.close()


@pytest.mark.parametrize("seconds", [FAR_S, math.inf])
def test_it_ends_when_there_is_something_to_read(alarm: Alarm, pipe: tuple[int, int], seconds: float) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alarm.wait, seconds)
            await trio.testing.wait_all_tasks_blocked()
            os.write(pipe[1], b"x")
        await alarm.wait(seconds)  # it is still readable

    trio.run(main)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.02])
def test_it_ends_when_its_time_is_over_and_not_before(alarm: Alarm, seconds: float) -> None:
    async def main() -> None:
        for _ in range(3):
            started_s = time.monotonic()
            await alarm.wait(seconds)
            assert time.monotonic() - started_s >= seconds * 0.99

    trio.run(main)


def test_a_time_that_was_over_does_not_end_the_next_wait(alarm: Alarm, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        await alarm.wait(0.001)
        for seconds in (FAR_S, math.inf):
            with trio.move_on_after(0.02) as scope:
                await alarm.wait(seconds)
            assert scope.cancelled_caught

    trio.run(main)


def test_others_have_their_turn_even_if_nothing_is_to_be_waited_for(alarm: Alarm, pipe: tuple[int, int]) -> None:
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    async def main() -> None:
        os.write(pipe[1], b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await alarm.wait(0)
            await alarm.wait(FAR_S)
            turns.append("alarm")

    trio.run(main)
    assert turns == ["other", "alarm"]
