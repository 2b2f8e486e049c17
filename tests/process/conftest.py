"""The cluster most cluster tests share: starting one takes longer than what is done to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters import UNHURRIED, Cluster, running_cluster
from tests.rings import running_ring


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for the tests of one file."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), 3, *UNHURRIED) as cluster:
        yield cluster


@pytest.fixture
def three(one_cluster: Cluster) -> Iterator[Cluster]:
    """Three nodes that run, whole and agreed, whatever the test before did to them."""
    one_cluster.settle()
    yield one_cluster
    one_cluster.hang_up()
    one_cluster.check_output()


@pytest.fixture(scope="module")
def one_ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five nodes with eight shards, each on three of them, for the tests of one file."""
    with running_ring(tmp_path_factory.mktemp("ring"), 5) as cluster:
        yield cluster


@pytest.fixture
def five(one_ring: Cluster) -> Iterator[Cluster]:
    """Those five; a test leaves them as they were."""
    yield one_ring
    one_ring.hang_up()
    one_ring.check_output()
