"""A disk that takes nothing more, on one node of three: the cluster goes on, and the node makes up for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clusters import UNHURRIED, running_cluster
from tests.histories import counting
from tests.process.test_disk_full import full


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_full_disk_on_one_node(tmp_path: Path, leads: bool) -> None:
    with running_cluster(tmp_path, 3, *UNHURRIED) as cluster:
        leader = cluster.wait_for_leader()
        ill = leader if leads else cluster.others(leader)[0]
        healthy = cluster.others(ill)
        with counting(cluster, seed=51, prefix="full", clients=3) as count:
            count.goes_on()
            with full(ill.server):
                count.goes_on(200)
                cluster.wait_for_leader(healthy)
                assert ill.runs
            cluster.wait_for_leader()
            count.goes_on()
        cluster.wait_until_caught_up()
        count.assert_all_there(ill)
        ill.kill()
        ill.restart()
        healthy[0].kill()
        cluster.wait_for_leader()
        count.assert_all_there(ill)


def test_a_leader_that_is_killed_while_its_disk_is_full(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 3, *UNHURRIED) as cluster:
        ill = cluster.wait_for_leader()
        with counting(cluster, seed=52, prefix="full", clients=3) as count:
            count.goes_on()
            with full(ill.server):
                count.goes_on(200)
                ill.kill()
            count.goes_on()
        ill.restart()
        cluster.wait_for_leader()
        cluster.wait_until_caught_up()
        count.assert_all_there(ill)
