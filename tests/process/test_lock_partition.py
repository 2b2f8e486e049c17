"""Locks on the wrong side of a cut: nothing is granted, extended or released there, and nothing taken away early."""

from __future__ import annotations

import time

import pytest

from tests.clusters import Cluster, Node, error_of
from tests.raw_client import RawClient, Word
from tests.stages import LONG_MS

LIFE_MS = 4_000
PACE = 1.01  # how much faster than ours the log's clock may go

HELD: tuple[tuple[Word, ...], ...] = (
    ("LOCK.ACQUIRE", "lock", "ann", "PX", LONG_MS),
    ("SEM.ACQUIRE", "sem", "ann", "LIMIT", 2, "PX", LONG_MS),
    ("LATCH.ADD", "latch", 2),
    ("ELECT.CAMPAIGN", "election", "ann", "VALUE", "here", "PX", LONG_MS),
)
CALLS: tuple[tuple[Word, ...], ...] = (
    ("LOCK.ACQUIRE", "free", "bob"),
    ("LOCK.ACQUIRE", "free", "bob", "SESSION", "BLOCK", 0),
    ("LOCK.ACQUIRE", "lock", "ann"),
    ("LOCK.MACQUIRE", 2, "free", "other", "bob"),
    ("LOCK.EXTEND", "lock", "ann", "PX", 10 * LONG_MS),
    ("LOCK.DOWNGRADE", "lock", "ann"),
    ("LOCK.RELEASE", "lock", "ann"),
    ("LOCK.BREAK", "lock"),
    ("LOCK.INFO", "lock"),
    ("LOCK.OWNED", "ann"),
    ("FENCE", "lock", 1, "SET", "fenced", 1),
    ("SEM.ACQUIRE", "sem", "bob", "LIMIT", 9),
    ("SEM.RELEASE", "sem", "ann"),
    ("LATCH.DONE", "latch"),
    ("LATCH.WAIT", "latch", "BLOCK", 0),
    ("ELECT.CAMPAIGN", "election", "ann", "VALUE", "elsewhere"),
    ("ELECT.RESIGN", "election", "ann"),
    ("ELECT.LEADER", "election"),
    ("ELECT.OBSERVE", "election", "BLOCK", 0),
)


def is_down(node: Node) -> bool:
    """Whether it refuses a write for want of a leader: what comes now certainly does not happen."""
    return error_of(node.raw(), "SET", "refused", 1).startswith("CLUSTERDOWN ")


def known(node: Node) -> list[object]:
    """What a node says of all that is held, but for lives, which go on."""
    told = [node.ask("LOCK.INFO", "lock"), node.ask("SEM.INFO", "sem")]
    for one in told:
        for holder in one["holders"]:
            assert 0 < holder.pop("ttl-ms") <= LONG_MS
    free = [node.ask("LOCK.INFO", key)["mode"] for key in ("free", "other")]
    return [
        *told,
        *free,
        node.ask("LATCH.INFO", "latch"),
        node.ask("ELECT.LEADER", "election"),
        node.ask("GET", "fenced"),
    ]


def test_without_a_majority_nothing_happens(three: Cluster) -> None:
    """No node is in touch with another, and all of them say so in time."""
    client = three.wait_for_leader().raw()
    for words in HELD:
        assert client.call(*words) > 0
    before = known(three["n1"])
    three.network.partition({"n1"}, {"n2"}, {"n3"})
    for node in three.nodes.values():
        three.wait_until(lambda: is_down(node))  # noqa: B023 - it is called at once
        asks = node.raw()
        for words in CALLS:
            assert error_of(asks, *words) == "CLUSTERDOWN no leader for shard 0", words
    three.network.heal()
    three.wait_for_leader()
    assert known(three["n1"]) == before


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
def test_a_holder_on_the_minority_side_loses_nothing_before_its_time(three: Cluster, leads: bool) -> None:
    """It cannot keep the lock for longer either, and what it does with it afterwards is refused."""
    key = f"cut:{leads}"
    leader = three.wait_for_lasting_leader()
    away = leader if leads else three.others(leader)[0]
    ann: RawClient = away.raw()
    bob = three.others(away)[0].raw()
    began_s = time.monotonic()
    token = ann.call("LOCK.ACQUIRE", key, "ann", "PX", LIFE_MS)
    bob.send("LOCK.ACQUIRE", key, "bob", "PX", LONG_MS, "BLOCK", 0)
    three.wait_until(lambda: away.ask("LOCK.INFO", key)["waiters"])
    three.network.isolate(away.name)
    granted = bob.read()
    assert (time.monotonic() - began_s) * 1000 >= LIFE_MS / PACE
    assert granted > token
    assert error_of(ann, "LOCK.EXTEND", key, "ann", "PX", LIFE_MS, "TOKEN", token).startswith(
        ("CLUSTERDOWN", "UNCERTAIN")
    )
    three.network.heal()
    three.wait_for_leader()
    assert ann.call("LOCK.EXTEND", key, "ann", "PX", LIFE_MS, "TOKEN", token) == 0
    assert ann.call("LOCK.RELEASE", key, "ann", "TOKEN", token) == 0
    assert error_of(ann, "FENCE", key, token, "SET", "late", 1).startswith("FENCED ")
    assert [one["owner"] for one in away.ask("LOCK.INFO", key)["holders"]] == ["bob"]
