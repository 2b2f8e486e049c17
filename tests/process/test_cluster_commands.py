"""Any node answers any command, as if it were the only one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis
import pytest

from tests.clusters import Cluster, Node, error_of, let_lead
from tests.raw_client import MIB, RawClient, packed
from tests.servers import wait_until

Chosen = Callable[[Cluster], Node]


def the_leader(cluster: Cluster) -> Node:
    return cluster.wait_for_leader()


def a_follower(cluster: Cluster) -> Node:
    return cluster.others(cluster.wait_for_leader())[0]


def another_follower(cluster: Cluster) -> Node:
    return cluster.others(cluster.wait_for_leader())[1]


on_every_kind = pytest.mark.parametrize("chosen", [the_leader, a_follower])


def lock_info(client: RawClient, lock: str) -> dict[bytes, Any]:
    """LOCK.INFO as a map."""
    flat = client.call("LOCK.INFO", lock)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def waits_for_lock(client: RawClient, lock: str, waiters: int) -> None:
    """Returns once so many wait for the lock."""
    wait_until(lambda: len(lock_info(client, lock)[b"waiters"]) == waiters)


def test_every_node_reads_at_once_what_another_wrote(three: Cluster) -> None:
    clients = [node.raw() for node in three.nodes.values()]
    for number in range(20):
        for writer in clients:
            value = f"{number} by {id(writer)}".encode()
            assert writer.call("SET", "read-at-once", value) == b"OK"
            assert [reader.call("GET", "read-at-once") for reader in clients] == [value] * len(clients)


@on_every_kind
def test_a_pipeline_is_answered_in_order(three: Cluster, chosen: Chosen) -> None:
    client = chosen(three).raw()
    client.call("DEL", "pipelined")
    count = 1000
    client.socket.sendall(
        b"".join(
            packed("INCR", "pipelined") + packed("ECHO", number) + packed("GET", "pipelined")
            for number in range(1, count + 1)
        )
    )
    for number in range(1, count + 1):
        text = str(number).encode()
        assert [client.read() for _ in range(3)] == [number, text, text]


@on_every_kind
def test_errors_are_those_of_one_node(three: Cluster, chosen: Chosen) -> None:
    client = chosen(three).raw()
    client.call("SET", "text", "no number")
    assert error_of(client, "INCR", "text") == "ERR value is not an integer or out of range"
    assert error_of(client, "SET", "text").startswith("ERR wrong number of arguments")
    assert error_of(client, "NO.SUCH", "text").startswith("ERR unknown command")
    assert client.call("GET", "text") == b"no number"


@on_every_kind
def test_a_large_value(three: Cluster, chosen: Chosen) -> None:
    value = bytes(range(256)) * (5 * MIB // 256)
    assert chosen(three).raw().call("SET", "large", value) == b"OK"
    for node in three.nodes.values():
        assert node.raw().call("GET", "large") == value
    three.nodes["n1"].raw().call("DEL", "large")


# Transactions


@on_every_kind
def test_a_transaction_is_one_step(three: Cluster, chosen: Chosen) -> None:
    client = chosen(three).raw()
    client.call("DEL", "account")
    for words in (("MULTI",), ("SET", "account", 5), ("INCR", "account"), ("GET", "account"), ("PING",)):
        client.call(*words)
    assert client.call("EXEC") == [b"OK", 6, b"6", b"PONG"]
    client.call("MULTI")
    client.call("INCR", "account")
    assert client.call("DISCARD") == b"OK"
    assert client.call("GET", "account") == b"6"


@on_every_kind
def test_a_watched_key_that_another_node_s_client_changed(three: Cluster, chosen: Chosen) -> None:
    node = chosen(three)
    client, other = node.raw(), three.others(node)[0].raw()
    for changed in (True, False):
        client.call("SET", "watched", 1)
        assert client.call("WATCH", "watched") == b"OK"
        if changed:
            other.call("SET", "watched", 2)
        client.call("MULTI")
        client.call("INCR", "watched")
        assert client.call("EXEC") == (None if changed else [2])


def test_counting_by_watch_on_every_node(three: Cluster) -> None:
    """Whatever an EXEC on one node answers is true of what all the others did meanwhile."""
    clients = [node.raw() for node in three.nodes.values()]
    clients[0].call("SET", "tally", 0)
    done = 0
    for _ in range(40):
        for client in clients:
            client.socket.sendall(packed("WATCH", "tally") + packed("GET", "tally"))
        seen = [[client.read() for _ in range(2)][1] for client in clients]
        for client, value in zip(clients, seen, strict=True):
            client.socket.sendall(packed("MULTI") + packed("SET", "tally", int(value) + 1) + packed("EXEC"))
        done += sum([client.read() for _ in range(3)][2] is not None for client in clients)
    assert int(clients[0].call("GET", "tally")) == done >= 40


@on_every_kind
def test_fencing(three: Cluster, chosen: Chosen) -> None:
    client = chosen(three).raw()
    token = client.call("LOCK.ACQUIRE", "fence", "ann")
    assert client.call("FENCE", "fence", token, "SET", "fenced", 1) == b"OK"
    assert error_of(client, "FENCE", "fence", token - 1, "SET", "fenced", 2).startswith("FENCED")
    assert client.call("LOCK.RELEASE", "fence", "ann") == 1
    assert error_of(client, "FENCE", "fence", token, "SET", "fenced", 2).startswith("FENCED")
    assert client.call("GET", "fenced") == b"1"


# Waiting


@on_every_kind
def test_a_lock_released_on_another_node(three: Cluster, chosen: Chosen) -> None:
    node = chosen(three)
    waiter, holder = node.raw(), three.others(node)[0].raw()
    token = holder.call("LOCK.ACQUIRE", "passed-on", "ann")
    waiter.send("LOCK.ACQUIRE", "passed-on", "bob", "BLOCK", 0)
    waits_for_lock(holder, "passed-on", 1)
    assert holder.call("LOCK.RELEASE", "passed-on", "ann") == 1
    assert waiter.read() > token
    assert waiter.call("LOCK.RELEASE", "passed-on", "bob") == 1


@on_every_kind
def test_a_job_pushed_on_another_node(three: Cluster, chosen: Chosen) -> None:
    node = chosen(three)
    consumer, producer = node.raw(), three.others(node)[0].raw()
    consumer.send("Q.POP", "jobs", "BLOCK", 0)
    wait_until(lambda: node.client().info("clients")["blocked_clients"] == 1)
    pushed = producer.call("Q.PUSH", "jobs", "payload")
    [[receipt, payload, deliveries, message]] = consumer.read()
    assert (payload, deliveries, message) == (b"payload", 1, pushed)
    assert producer.call("Q.ACK", "jobs", receipt) == 1


@on_every_kind
def test_a_wait_that_ends_by_itself(three: Cluster, chosen: Chosen) -> None:
    client = chosen(three).raw()
    assert client.call("Q.POP", "nothing-comes", "BLOCK", 50) is None
    assert client.call("LOCK.ACQUIRE", "kept", "ann", "BLOCK", 0) > 0
    assert client.call("LOCK.ACQUIRE", "kept", "bob", "BLOCK", 1) is None
    assert client.call("LOCK.EXTEND", "kept", "ann", "PX", 200) == 1
    assert client.call("LOCK.ACQUIRE", "kept", "bob", "BLOCK", 0, "PX", 10) > 0, "ann's hold expires"


def test_locks_are_granted_in_the_order_of_asking_on_any_node(three: Cluster) -> None:
    clients = [node.raw() for node in three.nodes.values()] * 2
    clients = [*clients[:3], *(node.raw() for node in three.nodes.values())]
    looks = three["n1"].raw()
    assert looks.call("LOCK.ACQUIRE", "in-order", "first") > 0
    for number, client in enumerate(clients):
        client.send("LOCK.ACQUIRE", "in-order", f"owner{number}", "BLOCK", 0)
        waits_for_lock(looks, "in-order", number + 1)
    last = "first"
    tokens = []
    for number, client in enumerate(clients):
        assert looks.call("LOCK.RELEASE", "in-order", last) == 1
        tokens.append(client.read())
        last = f"owner{number}"
    assert looks.call("LOCK.RELEASE", "in-order", last) == 1
    assert tokens == sorted(set(tokens))


def test_a_deadlock_over_two_nodes(three: Cluster) -> None:
    ann, bob = three["n1"].raw(), three["n2"].raw()
    assert ann.call("LOCK.ACQUIRE", "left", "ann") > 0
    assert bob.call("LOCK.ACQUIRE", "right", "bob") > 0
    ann.send("LOCK.ACQUIRE", "right", "ann", "BLOCK", 0)
    waits_for_lock(bob, "right", 1)
    assert error_of(bob, "LOCK.ACQUIRE", "left", "bob", "BLOCK", 0).startswith("DEADLOCK")
    assert bob.call("LOCK.RELEASE", "right", "bob") == 1
    assert ann.read() > 0
    assert [ann.call("LOCK.RELEASE", lock, "ann") for lock in ("left", "right")] == [1, 1]


@on_every_kind
def test_a_session_ends_with_its_connection(three: Cluster, chosen: Chosen) -> None:
    node = chosen(three)
    client, other = node.raw(), three.others(node)[0].raw()
    assert client.call("LOCK.ACQUIRE", "of-the-session", "ann", "SESSION") > 0
    assert other.call("LOCK.ACQUIRE", "of-the-session", "bob") is None
    client.reset()
    assert other.call("LOCK.ACQUIRE", "of-the-session", "bob", "BLOCK", 0) > 0
    assert other.call("LOCK.RELEASE", "of-the-session", "bob") == 1


@on_every_kind
def test_a_waiter_that_left_gets_nothing(three: Cluster, chosen: Chosen) -> None:
    node = chosen(three)
    gone, other = node.raw(), three.others(node)[0].raw()
    other.call("LOCK.ACQUIRE", "left-behind", "ann")
    gone.send("LOCK.ACQUIRE", "left-behind", "bob", "BLOCK", 0)
    waits_for_lock(other, "left-behind", 1)
    gone.reset()
    waits_for_lock(other, "left-behind", 0)
    assert other.call("LOCK.RELEASE", "left-behind", "ann") == 1
    assert lock_info(other, "left-behind")[b"mode"] == b"free"


# Time


@on_every_kind
def test_what_expired_for_one_node_is_gone_for_all(three: Cluster, chosen: Chosen) -> None:
    client = chosen(three).raw()
    others = [node.raw() for node in three.nodes.values()]
    for round_number in range(3):
        client.call("SET", "short", round_number, "PX", 100)
        wait_until(lambda: client.call("GET", "short") is None)
        assert [other.call("GET", "short") for other in others] == [None] * 3


# What belongs to one node


def test_clients_are_those_of_the_node_that_is_asked(three: Cluster) -> None:
    here, there = three["n1"].raw(), three["n2"].raw()
    assert here.call("CLIENT", "SETNAME", "only-here") == b"OK"
    assert here.call("CLIENT", "GETNAME") == b"only-here"
    assert b"name=only-here" in here.call("CLIENT", "LIST")
    assert b"name=only-here" not in there.call("CLIENT", "LIST")
    assert isinstance(there.call("CLIENT", "ID"), int)


@on_every_kind
def test_client_unblock(three: Cluster, chosen: Chosen) -> None:
    node = chosen(three)
    blocked, operator = node.raw(), node.raw()
    for reason, expected in (("TIMEOUT", type(None)), ("ERROR", hiredis.ReplyError)):
        number = blocked.call("CLIENT", "ID")
        blocked.send("Q.POP", "never-pushed", "BLOCK", 0)
        wait_until(partial(operator.call, "CLIENT", "UNBLOCK", number, reason))
        assert isinstance(blocked.read(), expected)


def test_settings_are_those_of_the_node_that_is_asked(three: Cluster) -> None:
    here, there = three["n1"].raw(), three["n2"].raw()
    assert here.call("CONFIG", "SET", "slowlog-max-len", 77) == b"OK"
    assert here.call("CONFIG", "GET", "slowlog-max-len")[1] == b"77"
    assert there.call("CONFIG", "GET", "slowlog-max-len")[1] == b"128"
    here.call("CONFIG", "SET", "slowlog-max-len", 128)


# The nodes themselves


@on_every_kind
def test_wait_counts_the_others(three: Cluster, chosen: Chosen) -> None:
    client = chosen(three).raw()
    client.call("SET", "waited-for", 1)
    assert client.call("WAIT", 2, 0) == 2
    wait_until(lambda: client.call("WAIT", 0, 0) == 2)  # a new leader has to learn it first


def test_the_nodes_agree_on_who_they_are(three: Cluster) -> None:
    def agree() -> bool:
        states = {name: node.raft() for name, node in three.nodes.items()}
        for state in states.values():
            assert sorted(state["members"]) == ["n1", "n2", "n3"]
            assert state["learners"] == []
        leading = [name for name, state in states.items() if state["role"] == "leader"]
        seen = [state["leader"] for state in states.values()]
        peers = {peer["state"] for state in states.values() for peer in state["peers"]}
        return len(leading) == 1 and seen == leading * 3 and peers == {"reachable"}

    three.wait_until(agree)


def test_leadership_goes_where_an_operator_wants_it(three: Cluster) -> None:
    for node in three.nodes.values():
        let_lead(node)
        three.wait_until(partial(leads, three, node))


def leads(cluster: Cluster, node: Node) -> bool:
    """Whether it does, as all the others know."""
    return cluster.leader() is node
