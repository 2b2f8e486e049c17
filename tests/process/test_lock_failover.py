"""Locks, semaphores, latches and elections of a shard whose leader is killed, or hands over.

Clients use all nodes that live on, those without a replica of the shard among them.
"""

from __future__ import annotations

import time
from functools import partial

from tests.stages import LONG_MS, Stage, insist, is_blocked, nothing_said

SHORT_MS = 3_000  # it ends while the shard has no leader, or soon after
PACE = 1.01  # how much faster than ours the log's clock may go

# Order


def test_waiters_are_served_in_the_order_they_came(stage: Stage) -> None:
    """One of them closes its connection while nobody leads, and costs nobody anything."""
    token = stage.client(0).call("LOCK.ACQUIRE", stage.key("lock"), "ann", "PX", LONG_MS)
    waiting = stage.queue_up("lock", [[f"w{number}"] for number in range(10)])
    stage.depose()
    waiting.pop("w4").socket.close()
    stage.wait_for_successor()
    stage.wait_until_waiting("lock", list(waiting))
    assert nothing_said(waiting.values())
    assert stage.client(1).call("LOCK.RELEASE", stage.key("lock"), "ann", "TOKEN", token) == 1
    for owner, client in list(waiting.items()):
        granted = client.read()
        assert granted > token
        token = granted
        assert stage.owners("lock") == [owner]
        del waiting[owner]
        assert nothing_said(waiting.values())
        assert client.call("LOCK.RELEASE", stage.key("lock"), owner) == 1
    assert stage.info("LOCK.INFO", "lock") == {"mode": "free", "token": token, "holders": [], "waiters": []}


def test_sharers_and_those_who_want_it_alone_keep_their_places(stage: Stage) -> None:
    lock, ann = stage.key("lock"), stage.client(0)
    ann.call("LOCK.ACQUIRE", lock, "ann", "PX", LONG_MS)
    kinds = {"r1": "SHARED", "r2": "SHARED", "w1": "EXCLUSIVE", "r3": "SHARED", "w2": "EXCLUSIVE", "r4": "SHARED"}
    waiting = stage.queue_up("lock", kinds.items())
    stage.change_leader()
    assert insist(ann, "LOCK.DOWNGRADE", lock, "ann") > 0
    tokens = [waiting[owner].read() for owner in ("r1", "r2")]
    assert tokens == sorted(tokens)
    assert stage.owners("lock") == ["ann", "r1", "r2"], "who shares goes in with them, and nobody overtakes"
    assert stage.owners("lock", "waiters") == ["w1", "r3", "w2", "r4"]
    upgrade = stage.client(1)
    upgrade.send("LOCK.ACQUIRE", lock, "r1", "EXCLUSIVE", "BLOCK", 0)
    stage.wait_until_waiting("lock", ["r1", "w1", "r3", "w2", "r4"])
    for owner in ("ann", "r2"):
        assert ann.call("LOCK.RELEASE", lock, owner) == 1
    assert upgrade.read() > tokens[-1], "before all others"
    for owners in (["w1"], ["r3"], ["w2"], ["r4"]):
        for owner in stage.owners("lock"):
            assert ann.call("LOCK.RELEASE", lock, owner) == 1
        assert all(waiting[owner].read() > tokens[-1] for owner in owners)
        assert stage.owners("lock") == owners


def test_who_waits_for_several_is_served_once_all_are_free(stage: Stage) -> None:
    ann, both = stage.client(0), stage.client(1)
    a, b = stage.key("a"), stage.key("b")
    tokens = ann.call("LOCK.MACQUIRE", 2, a, b, "ann", "PX", LONG_MS)
    both.send("LOCK.MACQUIRE", 2, a, b, "bob", "PX", LONG_MS, "BLOCK", 0)
    for name in ("a", "b"):
        stage.wait_until_waiting(name, ["bob"])
    behind = stage.client(2)
    behind.send("LOCK.ACQUIRE", a, "cid", "BLOCK", 0)
    stage.wait_until_waiting("a", ["bob", "cid"])
    stage.change_leader()
    assert insist(ann, "LOCK.RELEASE", a, "ann") == 1
    assert stage.info("LOCK.INFO", "a")["mode"] == "free", "it is kept for bob, who holds nothing yet"
    assert nothing_said([both, behind])
    assert ann.call("LOCK.RELEASE", b, "ann") == 1
    granted = both.read()
    assert all(new > old for new, old in zip(granted, tokens, strict=True))
    assert nothing_said([behind])
    assert ann.call("LOCK.RELEASE", a, "bob") == 1
    assert behind.read() > granted[0]


# Lives


def test_a_life_is_not_shortened_and_goes_on(stage: Stage) -> None:
    """Whoever waits for the short one is served after its life, whoever leads then."""
    asks, waiter = stage.client(0), stage.client(1)
    began_s = time.monotonic()
    assert asks.call("LOCK.ACQUIRE", stage.key("short"), "ann", "PX", SHORT_MS) > 0
    waiter.send("LOCK.ACQUIRE", stage.key("short"), "bob", "PX", LONG_MS, "BLOCK", 0)
    assert asks.call("LOCK.ACQUIRE", stage.key("long"), "ann", "PX", LONG_MS) > 0
    looked_s = time.monotonic()
    before_ms = stage.ttl_ms("long")
    stage.change_leader()
    after_ms = stage.ttl_ms("long")
    passed_ms = (time.monotonic() - looked_s) * 1000
    assert before_ms - passed_ms * PACE - 2 <= after_ms < before_ms, "two roundings at the most"
    assert waiter.read() > 0
    assert (time.monotonic() - began_s) * 1000 >= SHORT_MS / PACE


def test_extending_sets_what_is_left_of_a_life(stage: Stage) -> None:
    lock, ann = stage.key("lock"), stage.client(0)
    token = ann.call("LOCK.ACQUIRE", lock, "ann", "PX", 1_000_000)
    for _ in range(3):
        assert ann.call("LOCK.EXTEND", lock, "ann", "PX", 500_000) == 1
        assert 400_000 < stage.ttl_ms("lock") <= 500_000
    stage.change_leader()
    for px_ms in (300_000, 300_000, 900_000, 600_000):
        assert insist(ann, "LOCK.EXTEND", lock, "ann", "PX", px_ms, "TOKEN", token) == 1
        assert px_ms - 100_000 < stage.ttl_ms("lock") <= px_ms
    for words in (("bob", "PX", 10), ("ann", "PX", 10, "TOKEN", token + 1)):
        assert ann.call("LOCK.EXTEND", lock, *words) == 0
    assert 500_000 < stage.ttl_ms("lock") <= 600_000
    assert ann.call("LOCK.RELEASE", lock, "ann") == 1
    assert ann.call("LOCK.EXTEND", lock, "ann", "PX", 10) == 0
    assert stage.info("LOCK.INFO", "lock")["mode"] == "free"


def test_a_session_that_ends_while_nobody_leads_holds_nothing_afterwards(stage: Stage) -> None:
    holder, kept, waiter = stage.client(0), stage.client(1), stage.client(2)
    for client, owner in ((holder, "ann"), (kept, "cid")):
        assert client.call("LOCK.ACQUIRE", stage.key(owner), owner, "SESSION") > 0
    waiter.send("LOCK.ACQUIRE", stage.key("ann"), "bob", "BLOCK", 0)
    stage.wait_until_waiting("ann", ["bob"])
    stage.depose()
    holder.reset()
    assert waiter.read() > 0
    assert stage.owners("cid") == ["cid"], "its connection is there"


# Beyond locks


def test_places_are_given_in_order(stage: Stage) -> None:
    """Who wants few does not overtake who wants many."""
    sem, ann = stage.key("sem"), stage.client(0)
    assert ann.call("SEM.ACQUIRE", sem, "ann", "LIMIT", 4, "COUNT", 4, "PX", LONG_MS) > 0
    wishes = [("one", 1), ("three", 3), ("two", 2), ("last", 1)]
    waiting = stage.queue_up("sem", [(owner, "LIMIT", 4, "COUNT", count) for owner, count in wishes], "SEM")
    stage.change_leader()
    told = stage.info("SEM.INFO", "sem")
    assert (told["limit"], told["held"]) == (4, 4)
    assert [(one["owner"], one["count"]) for one in told["waiters"]] == wishes
    release = partial(ann.call, "SEM.RELEASE", sem)
    assert insist(ann, "SEM.RELEASE", sem, "ann", "COUNT", 3) == 3
    token = waiting.pop("one").read()
    assert nothing_said(waiting.values()), "two are free, and three are wanted"
    assert release("one") == 1
    assert waiting.pop("three").read() > token
    assert release("three", "COUNT", 3) == 3
    assert waiting.pop("two").read() > token
    assert waiting.pop("last").read() > token
    assert stage.owners("sem", command="SEM.INFO") == ["ann", "two", "last"]


def test_a_latch_keeps_its_count_and_who_waits(stage: Stage) -> None:
    latch, clients = stage.key("latch"), [stage.client(number) for number in range(4)]
    assert clients[0].call("LATCH.ADD", latch, 3) == 3
    assert clients[0].call("LATCH.DONE", latch) == 2
    for client in clients[1:]:
        client.send("LATCH.WAIT", latch, "BLOCK", 0)
    stage.cluster.wait_until(lambda: stage.info("LATCH.INFO", "latch") == {"count": 2, "waiters": 3})
    stage.change_leader()
    assert stage.info("LATCH.INFO", "latch") == {"count": 2, "waiters": 3}
    assert clients[0].call("LATCH.DONE", latch) == 1
    assert nothing_said(clients[1:])
    assert clients[0].call("LATCH.DONE", latch) == 0
    assert [client.read() for client in clients[1:]] == [1, 1, 1]


def test_candidates_are_elected_in_the_order_they_came(stage: Stage) -> None:
    election, looks = stage.key("election"), stage.client(0)
    token = looks.call("ELECT.CAMPAIGN", election, "ann", "VALUE", "here", "PX", LONG_MS)
    candidates = {f"c{number}": stage.client(number) for number in range(4)}
    for number, (name, client) in enumerate(candidates.items()):
        client_id = client.call("CLIENT", "ID")
        client.send("ELECT.CAMPAIGN", election, name, "VALUE", name.upper(), "PX", LONG_MS, "BLOCK", 0)
        stage.cluster.wait_until(partial(is_blocked, stage.client(number), client_id))
    stage.change_leader()
    assert looks.call("ELECT.LEADER", election) == [b"ann", token, b"here"]
    leader = "ann"
    for name, client in candidates.items():
        assert insist(looks, "ELECT.RESIGN", election, leader) == 1
        granted = client.read()
        assert granted > token
        leader, token = name, granted
        assert looks.call("ELECT.LEADER", election) == [name.encode(), token, name.upper().encode()]
