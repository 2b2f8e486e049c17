"""The cluster most cluster tests share: starting one takes longer than what is done to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters import UNHURRIED, Cluster, running_cluster


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
