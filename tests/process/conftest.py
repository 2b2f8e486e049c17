"""The clusters and the server that many tests share: starting one takes longer than what is done to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import redis

from resp_server.client import Locks
from tests.clusters import CALM, UNHURRIED, Cluster, lent, running_cluster
from tests.holders import url
from tests.proxy import NETWORK
from tests.rings import running_ring
from tests.servers import START_SECONDS, Server, sepakat_server, wait_until
from tests.stages import CHANGES, Stage

NOTICE_SECONDS = 10.0
"""How long a server may take to see that connections were closed: less than any lock lives that was given a life."""


@pytest.fixture(autouse=True)
def _nobody_lives_on() -> Iterator[None]:
    """What a test started in threads has ended when it has, also when it failed: others are not disturbed by it."""
    before = set(threading.enumerate())
    yield
    started = [one for one in threading.enumerate() if one not in before and one.name != NETWORK]
    give_up_s = time.monotonic() + START_SECONDS
    for thread in started:
        thread.join(max(0.0, give_up_s - time.monotonic()))
    assert [thread for thread in started if thread.is_alive()] == []


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for the tests of one file."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), 3, *UNHURRIED) as cluster:
        yield cluster


@pytest.fixture
def three(one_cluster: Cluster) -> Iterator[Cluster]:
    """Three nodes that run, whole and agreed, whatever the test before did to them."""
    one_cluster.settle()
    with lent(one_cluster):
        yield one_cluster


@pytest.fixture(scope="module")
def one_calm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes more, whose leader stays unless a test deposes it."""
    with running_cluster(tmp_path_factory.mktemp("calm"), 3, *CALM) as cluster:
        yield cluster


@pytest.fixture
def calm(one_calm_cluster: Cluster) -> Iterator[Cluster]:
    """As `three`, for tests of what must not bring about an election."""
    one_calm_cluster.settle()
    with lent(one_calm_cluster):
        yield one_calm_cluster


@pytest.fixture(scope="module")
def ring_flags() -> Sequence[str]:
    """Flags of the nodes of `five` besides the usual; files whose tests need some have a fixture of this name."""
    return ()


@pytest.fixture(scope="module")
def one_ring(tmp_path_factory: pytest.TempPathFactory, ring_flags: Sequence[str]) -> Iterator[Cluster]:
    """Five nodes with eight shards, each on three of them, for the tests of one file."""
    with running_ring(tmp_path_factory.mktemp("ring"), 5, *ring_flags) as cluster:
        yield cluster


@pytest.fixture
def five(one_ring: Cluster) -> Iterator[Cluster]:
    """Those five; a test leaves them as they were."""
    with lent(one_ring):
        yield one_ring


@pytest.fixture(params=["three", "five"])
def stage(request: pytest.FixtureRequest, change: str) -> Iterator[Stage]:
    """A shard of either cluster, about to lose its leader; the next test finds all nodes running."""
    cluster: Cluster = request.getfixturevalue(request.param)
    yield Stage(cluster, change)
    cluster.start()


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> str:
    """How a shard loses its leader."""
    how: str = request.param
    return how


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests of one file."""
    folder = tmp_path_factory.mktemp("client")
    with sepakat_server(folder / "data", folder / "log") as server:
        yield server


@pytest.fixture
def server(one_server: Server) -> Iterator[Server]:
    """A server; no test may leave a lock in it, but those of sessions that it is still to notice the end of."""
    yield one_server
    with redis.Redis(port=one_server.port) as client:
        wait_until(lambda: client.execute_command("LOCK.SCAN", 0, "COUNT", 1000)[1] == [], NOTICE_SECONDS)


@pytest.fixture
def locks(server: Server) -> Iterator[Locks]:
    """Its locks."""
    with contextlib.closing(Locks(url(server), name="test")) as locks:
        yield locks
