"""How much may be sent a second, and how soon a change of that is felt."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from resp_server.edge.allowance import BURST_S, Allowance


class Rate:
    """Bytes a second, until they are changed."""

    def __init__(self, bytes_a_second: int) -> None:
        self.bytes_a_second = bytes_a_second

    def __call__(self) -> int:
        return self.bytes_a_second


async def spend(allowance: Allowance, size_bytes: int) -> float:
    """Sends a piece; how long it was until the next may be sent."""
    since_s = trio.current_time()
    allowance.spend(size_bytes)
    await allowance.wait()
    return trio.current_time() - since_s


@pytest.mark.trio
async def test_pieces_take_as_long_as_they_may(autojump_clock: MockClock) -> None:
    allowance = Allowance(Rate(1000))
    await spend(allowance, int(1000 * BURST_S))  # what had gathered
    assert [await spend(allowance, size) for size in (100, 1000, 5000)] == pytest.approx([0.1, 1.0, 5.0])


@pytest.mark.trio
async def test_no_more_gathers_than_a_moment_s_worth(autojump_clock: MockClock) -> None:
    allowance = Allowance(Rate(1000))
    await trio.sleep(1000)
    assert await spend(allowance, 1100) == pytest.approx(1.1 - BURST_S)


@pytest.mark.trio
async def test_a_change_is_felt_at_once(autojump_clock: MockClock) -> None:
    rate = Rate(1)
    allowance = Allowance(rate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spend, allowance, 10_000)
        await trio.sleep(10)
        rate.bytes_a_second = 10_000
    assert trio.current_time() < 13
