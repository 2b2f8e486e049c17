"""Who joins, who leaves, and who is not let in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hiredis
import pytest

from cluster.wire import VERSION
from tests.clusters import CALM, EVERYWHERE, UNHURRIED, Cluster, Node, error_of, running_cluster, sepakat
from tests.histories import counting
from tests.raw_client import RawClient
from tests.servers import HOST, wait_until

NONCE = "00112233445566778899aabbccddeeff"
VALUE_BYTES = 4096
VALUES = 3000  # with their size more than the log keeps behind a checkpoint


def voters(node: Node) -> list[str]:
    """Of the only shard, as the node sees them: none where it has no replica."""
    shards: list[dict[str, Any]] = node.ask("RAFT.INFO")
    return sorted(shards[0]["members"]) if shards else []


def becomes_voter(cluster: Cluster, node: Node) -> None:
    """Returns once all nodes that serve count the node among the voters, and it has what they have."""
    cluster.wait_until(lambda: all(node.name in voters(one) for one in cluster.serving))
    cluster.wait_until_caught_up(node)


def are_voters(nodes: Sequence[Node]) -> bool:
    """Whether these nodes, and no others, vote, as each of them knows."""
    return all(voters(node) == sorted(one.name for one in nodes) for node in nodes)


def remove(node: Node, through: Node) -> None:
    """``sepakat remove``, which must work."""
    done = sepakat("remove", node.name, "--port", str(through.port))
    assert (done.returncode, done.stdout) == (0, f"{node.name} is removed\n"), done.stderr


def test_a_node_joins_and_leaves_under_load(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 3, *UNHURRIED, shape=EVERYWHERE) as cluster:
        leader = cluster.wait_for_leader()
        with counting(cluster, seed=41, prefix="join", clients=2) as count:
            count.goes_on()
            new = cluster.newcomer("n4", cluster.others(leader)[0])
            new.start()
            new.wait_until_ready()
            becomes_voter(cluster, new)
            count.goes_on()
            new.kill()
            count.goes_on()
            new.restart()
            cluster.wait_until_caught_up(new)
            count.goes_on()
        cluster.wait_until_caught_up()
        count.assert_all_there(new)
        remove(new, cluster.others(leader, new)[0])
        rest = cluster.others(new)
        cluster.wait_until(lambda: are_voters(rest))
        wait_until(lambda: error_of(new.raw(), "GET", "anything").startswith("CLUSTERDOWN"))
        wait_until(lambda: new.ask("RAFT.INFO") == [])
        wait_until(lambda: "Unknown node n4" in sepakat("remove", "n4", "--port", str(leader.port)).stderr)
        cluster.wait_for_leader(rest)


def test_a_newcomer_gets_what_the_log_no_longer_has(tmp_path: Path) -> None:
    """By a snapshot, while the link to it keeps breaking."""
    with running_cluster(tmp_path, 3, *UNHURRIED, "--checkpoint-log-bytes", "64kb", shape=EVERYWHERE) as cluster:
        leader = cluster.wait_for_leader()
        client: Any = leader.client()
        values = {f"key:{number}".encode(): bytes([number % 256]) * VALUE_BYTES for number in range(VALUES)}
        names = list(values)
        for first in range(0, VALUES, 100):
            client.mset({name: values[name] for name in names[first : first + 100]})
        client.execute_command("LOCK.ACQUIRE", "held", "ann", "PX", 3_600_000)
        wait_until(lambda: client.info("sepakat")["log_checkpoint_index"] > client.info("sepakat")["log_index"] // 2)
        new = cluster.newcomer("n4", leader)
        new.start()
        for _ in range(5):
            cluster.network.partition({leader.name}, {new.name})
            cluster.network.heal()
        new.wait_until_ready()
        becomes_voter(cluster, new)
        assert new.client().mget(names) == [values[name] for name in names]
        assert new.client().execute_command("LOCK.INFO", "held")[b"mode"] == b"exclusive"
        new.kill()
        new.restart()
        cluster.wait_until_caught_up(new)
        assert new.client().mget(names) == [values[name] for name in names]


def test_the_leader_is_removed(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 3, *UNHURRIED, shape=EVERYWHERE) as cluster:
        leader = cluster.wait_for_leader()
        rest = cluster.others(leader)
        assert rest[0].raw().call("SET", "a", 1) == b"OK"
        remove(leader, rest[0])
        new = cluster.wait_for_leader(rest)
        assert new is not leader
        cluster.wait_until(lambda: are_voters(rest))
        wait_until(lambda: error_of(leader.raw(), "GET", "a").startswith("CLUSTERDOWN"))
        assert leader.stop() == 0
        assert new.raw().call("INCR", "a") == 2
        assert sepakat("remove", "n9", "--port", str(new.port)).returncode == 1


def test_a_member_without_its_memory_is_not_trusted(tmp_path: Path) -> None:
    """What it had acknowledged is gone, so it must not count towards a majority; who hears a leader says so."""
    with running_cluster(tmp_path, 3, *CALM, shape=EVERYWHERE) as cluster:
        leader = cluster.wait_for_leader()
        one, two = cluster.others(leader)
        forgetful, other = (one, two) if system_leader(cluster) != one.name else (two, one)
        assert leader.raw().call("SET", "a", 1) == b"OK"
        wait_until(lambda: all(disks(leader).values()))
        cluster.wait_until_caught_up()
        forgetful.kill()
        forgetful.erase()
        forgetful.restart()
        wait_until(lambda: "came back with another data folder" in leader.said())
        wait_until(lambda: "another data folder" in forgetful.said())
        assert leader.raw().call("SET", "b", 1) == b"OK"
        other.kill()
        client = leader.raw()
        wait_until(lambda: error_of(client, "SET", "c", 1).startswith("CLUSTERDOWN"))
        assert error_of(forgetful.raw(), "GET", "a").startswith("CLUSTERDOWN")
        other.restart()
        cluster.wait_for_leader([leader, other])

        remove(forgetful, other)
        assert forgetful.stop() == 0
        forgetful.erase()
        again = cluster.newcomer(forgetful.name, leader, "--node-id", forgetful.name)
        again.start()
        again.wait_until_ready()
        becomes_voter(cluster, again)
        assert again.raw().call("MGET", "a", "b") == [b"1", b"1"]


def system_leader(cluster: Cluster) -> str:
    """Who leads the group of all nodes; such a one would be trusted for a moment longer."""
    found: list[str] = []

    def known() -> bool:
        found[:] = [node.client().info("sepakat")["system_leader"] for node in cluster.serving]
        return len(set(found)) == 1 and found[0] in cluster.nodes

    cluster.wait_until(known)
    return found[0]


def disks(node: Node) -> dict[str, str]:
    """The data folder each member is trusted with, as a node that wants to join is told."""
    with node.raw() as client:
        client.call("PEER", "JOIN", VERSION, "", f"{HOST}:1", "00", "", NONCE)
        client.call("PEER", "PROVE", "")
        _, _, _, *fields = client.call("PEER", "MEMBERS")
    return {name.decode(): disk.decode() for name, _, disk, _, _ in zip(*[iter(fields)] * 5, strict=True)}


# Who is not let in


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As the calm one in conftest.py, with a secret: who is not let in disturbs nobody."""
    with running_cluster(
        tmp_path_factory.mktemp("cluster"), 3, *CALM, "--cluster-secret", "right", shape=EVERYWHERE
    ) as cluster:
        yield cluster


def refusals(node: Node, text: str) -> list[str]:
    """The lines of a node's log that tell of a refused peer, for this reason."""
    return [line for line in node.said().splitlines() if "refused" in line and text in line]


def hello(client: RawClient, cluster: Cluster, version: int = VERSION) -> Any:
    """Introduces the caller as n2 to n1; the reply."""
    identity = cluster["n1"].client().info("sepakat")["cluster_id"]
    return client.call("PEER", "HELLO", version, identity, "n2", cluster["n2"].address, "n1", "00", "1x5", NONCE)


def test_another_version_of_the_protocol(three: Cluster) -> None:
    client = three["n1"].raw()
    error = str(hello(client, three, version=0))
    assert "version" in error
    assert "run one release on all nodes" in error
    wait_until(lambda: refusals(three["n1"], "version"))
    assert error_of(client, "PEER", "PROVE", "")


def test_an_impostor(three: Cluster) -> None:
    client = three["n1"].raw()
    three.wait_for_lasting_leader()
    term = three.term()
    assert isinstance(hello(client, three), bytes)
    assert "--cluster-secret" in error_of(client, "PEER", "PROVE", "ab" * 32)
    wait_until(lambda: refusals(three["n1"], "--cluster-secret"))
    assert isinstance(client.call("PEER", b"\x00"), hiredis.ReplyError)
    assert three.term() == term


def test_a_member_with_the_wrong_secret(three: Cluster) -> None:
    leader = three.wait_for_lasting_leader()
    term = three.term()
    wrong = three.others(leader)[0]
    assert wrong.stop() == 0
    wrong.restart("--cluster-secret", "wrong")
    wait_until(lambda: refusals(wrong, "--cluster-secret"))
    wait_until(lambda: error_of(wrong.raw(), "GET", "a").startswith("CLUSTERDOWN"))
    wait_until(lambda: refusals(leader, "--cluster-secret"))
    assert leader.raw().call("SET", "a", 1) == b"OK"
    assert leader.raft()["term"] == term
    assert wrong.stop() == 0
    wrong.restart()
    assert three.wait_for_leader() is leader


def test_a_newcomer_with_the_wrong_secret(three: Cluster, tmp_path: Path) -> None:
    through = f"{HOST}:{three['n1'].port}"
    done = sepakat("serve", "--port", "1", "--join", through, "--cluster-secret", "wrong", "--dir", tmp_path / "data")
    assert done.returncode == 1
    assert done.stderr.startswith("sepakat: ")
    assert "--cluster-secret" in done.stderr
    assert done.stderr.count("\n") == 1
    assert voters(three["n1"]) == ["n1", "n2", "n3"]


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [("x1", EVERYWHERE, "belongs to cluster"), ("x2", (), "belongs to a cluster of 1x")],
    ids=["list", "shape"],
)
def test_a_node_of_another_cluster(three: Cluster, name: str, shape: tuple[str, ...], reason: str) -> None:
    """It was given the address of a node that belongs elsewhere, or another number of replicas."""
    stranger = three.stranger(name)
    stranger.flags = [
        *("--node-id", name, "--cluster", f"{name}={stranger.address},n1={three['n1'].address}"),
        *("--cluster-secret", "right"),
        *shape,
    ]
    try:
        stranger.start()
        wait_until(lambda: refusals(three["n1"], reason))
        wait_until(lambda: refusals(stranger, reason))
        assert error_of(stranger.raw(), "GET", "a").startswith("CLUSTERDOWN")
    finally:
        stranger.hang_up()
        stranger.kill()
        del three.nodes[name]
    three.wait_for_leader()
    assert three["n1"].raw().call("PING") == b"PONG"
