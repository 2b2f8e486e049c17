"""The reactor among Trio's other tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from resp_server.edge.clock import Clock
from resp_server.edge.disk import Disk
from resp_server.edge.poller import READ, EpollPoller
from resp_server.edge.reactor import Reactor
from resp_server.protocol.requests import Limits
from tests.front import Front

POLLS_MAX = 1_000_000
NOBODY = 1_000_000  # no socket of ours has this descriptor


class NearPoller(EpollPoller):
    """Never anything at once, always something within a moment: a client that sends one request after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.polls = 0
        self.poll = self.near

    def near(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """What `poll` gives."""
        self.polls += 1
        assert self.polls < POLLS_MAX, "nothing else ever had its turn"
        return [(NOBODY, READ)] if timeout else []


@pytest.fixture
def disk() -> Iterator[tuple[Front, Disk]]:
    front = Front()
    disk = Disk(front.server, front.storage)
    yield front, disk
    disk.close()


@pytest.mark.trio
async def test_a_client_that_never_pauses_starves_nothing_else(
    disk: tuple[Front, Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resp_server.edge.reactor.new_poller", NearPoller)
    front, work = disk
    reactor = Reactor(front.server, front.dispatcher, work, Clock(0), Limits(), 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        for _ in range(3):
            await trio.sleep(0)
        nursery.cancel_scope.cancel()
    reactor._poller.close()
