"""Many shards, one keyspace: any node answers for any key, and a cluster-aware client is told where it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from redis import cluster as redis_cluster

from tests.clusters import Cluster, Node, error_of, let_lead
from tests.raw_client import RawClient, packed
from tests.redis_binaries import find
from tests.rings import REPLICAS, Ring, ring_of, wait_for_ring
from tests.servers import HOST, wait_until

SHARDS = 8
KEYS = [f"key:{number}" for number in range(200)]  # some in every shard


@pytest.fixture
def client(five: Cluster) -> RawClient:
    """A connection to one of them, on an empty keyspace."""
    client = five["n1"].raw()
    assert client.call("FLUSHALL") == b"OK"
    return client


def far(cluster: Cluster, ring: Ring, key: str) -> Node:
    """A node that has no replica of the key's shard."""
    return next(node for node in cluster.serving if node.name not in ring.of(key).nodes)


# Who has what


def test_each_shard_is_on_three_of_five(five: Cluster) -> None:
    ring = wait_for_ring(five)
    assert len(ring.rows) == SHARDS
    assert all(len(set(row.nodes)) == REPLICAS for row in ring.rows)
    assert all(row.leader in row.nodes for row in ring.rows)
    assert set(ring.replicas()) == set(five.nodes), "every node has some"


def test_leaders_go_where_they_belong(five: Cluster) -> None:
    ring = wait_for_ring(five, leaders=True)
    assert max(ring.leaders().values()) <= 2, "eight leaders on five nodes"


def test_a_node_tells_of_the_shards_it_has(five: Cluster) -> None:
    ring = wait_for_ring(five)
    for node in five.nodes.values():
        told = {one["shard"]: one for one in node.ask("RAFT.INFO")}
        for row in ring.rows:
            assert (row.shard in told) == (node.name in row.nodes), (node, row)
            if row.shard in told:
                assert sorted(told[row.shard]["members"]) == sorted(row.nodes)
                assert node.ask("RAFT.INFO", row.shard)[0]["shard"] == row.shard


# Any node, any key


def test_any_node_answers_for_any_key(five: Cluster, client: RawClient) -> None:
    clients = [node.raw() for node in five.nodes.values()]
    for number, key in enumerate(KEYS):
        assert clients[number % 5].call("SET", key, number) == b"OK"
        assert [one.call("GET", key) for one in clients] == [str(number).encode()] * 5, "read at once, everywhere"


def test_a_pipeline_over_all_shards_is_answered_in_order(five: Cluster, client: RawClient) -> None:
    for node in five.nodes.values():
        asks = node.raw()
        asks.socket.sendall(
            b"".join(packed("SET", key, key) + packed("GET", key) + packed("ECHO", key) for key in KEYS * 5)
        )
        for key in KEYS * 5:
            assert [asks.read() for _ in range(3)] == [b"OK", key.encode(), key.encode()]


def test_errors_come_from_afar_as_they_are(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    for node in five.nodes.values():
        asks, key = node.raw(), ring.key_away_from(node, "text")
        assert asks.call("SET", key, "no number") == b"OK"
        assert error_of(asks, "INCR", key) == "ERR value is not an integer or out of range"
        assert error_of(asks, "Q.LEN", key).startswith("WRONGTYPE")


def test_large_values_go_and_come(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    node = five["n2"]
    value = bytes(range(256)) * 4096 * 3
    asks, key = node.raw(), ring.key_away_from(node, "large")
    assert asks.call("SET", key, value) == b"OK"
    assert asks.call("GET", key) == value


# Commands over many shards


def test_commands_of_many_keys_are_split(five: Cluster, client: RawClient) -> None:
    pairs = [word for number, key in enumerate(KEYS) for word in (key, number)]
    assert client.call("MSET", *pairs) == b"OK"
    asks = five["n4"].raw()
    assert asks.call("MGET", *KEYS, "missing") == [*(str(number).encode() for number in range(len(KEYS))), None]
    assert asks.call("EXISTS", *KEYS, "missing", KEYS[0]) == len(KEYS) + 1
    assert asks.call("TOUCH", *KEYS, "missing") == len(KEYS)
    assert asks.call("DEL", *KEYS[:50], "missing") == 50
    assert asks.call("UNLINK", *KEYS) == len(KEYS) - 50
    assert client.call("MGET", *KEYS) == [None] * len(KEYS)


def test_the_keyspace_is_that_of_the_cluster(five: Cluster, client: RawClient) -> None:
    client.call("MSET", *(word for key in KEYS for word in (key, 1)))
    wanted = sorted(key.encode() for key in KEYS)
    for node in five.nodes.values():
        asks = node.raw()
        assert asks.call("DBSIZE") == len(KEYS)
        assert sorted(asks.call("KEYS", "*")) == wanted
        assert sorted(asks.call("KEYS", "key:1?")) == [b"key:1%d" % number for number in range(10)]
        assert sorted(scanned(asks)) == wanted, "each once, as nothing changes meanwhile"
        assert sorted(scanned(asks, "MATCH", "key:1?")) == [b"key:1%d" % number for number in range(10)]
        assert asks.call("RANDOMKEY") in wanted
        assert node.client().info("keyspace")["db0"]["keys"] == len(KEYS)
    assert five["n5"].raw().call("FLUSHALL") == b"OK"
    assert [node.raw().call("DBSIZE") for node in five.nodes.values()] == [0] * 5
    assert client.call("RANDOMKEY") is None


def scanned(client: RawClient, *options: str) -> Iterator[bytes]:
    """What a whole SCAN gives."""
    cursor = b"0"
    while True:
        cursor, keys = client.call("SCAN", cursor, "COUNT", 17, *options)
        yield from keys
        if cursor == b"0":
            return


def test_locks_and_queues_are_listed_over_all_shards(five: Cluster, client: RawClient) -> None:
    locks, queues = [f"lock:{number}" for number in range(30)], [f"queue:{number}" for number in range(30)]
    for lock, queue in zip(locks, queues, strict=True):
        assert client.call("LOCK.ACQUIRE", lock, "ann") > 0
        assert client.call("Q.PUSH", queue, "payload")
    asks = five["n3"].raw()
    assert sorted(asks.call("LOCK.OWNED", "ann")) == sorted(lock.encode() for lock in locks)
    assert sorted(asks.call("Q.LIST")) == sorted(queue.encode() for queue in queues)
    assert {asks.call("LOCK.RELEASE", lock, "ann") for lock in locks} == {1}


def test_other_commands_over_two_shards_are_refused(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    one, two = ring.key_in(1, "one"), ring.key_in(6, "two")
    for node in five.nodes.values():
        asks = node.raw()
        assert error_of(asks, "RENAME", one, two).startswith("CROSSSLOT")
        assert error_of(asks, "MSETNX", one, 1, two, 1).startswith("CROSSSLOT")
        assert asks.call("MULTI") == b"OK"
        asks.call("SET", one, 1)
        asks.call("SET", two, 1)
        assert error_of(asks, "EXEC").startswith(("CROSSSLOT", "EXECABORT"))
        assert asks.call("MGET", one, two) == [None, None], "nothing of it happened"


def test_keys_with_one_tag_are_in_one_shard(five: Cluster, client: RawClient) -> None:
    for node in five.nodes.values():
        asks = node.raw()
        assert asks.call("SET", "{tag}a", 1) == b"OK"
        assert asks.call("RENAME", "{tag}a", "{tag}b") == b"OK"
        assert asks.call("MSETNX", "{tag}c", 2, "{tag}d", 3) == 1
        assert asks.call("MGET", "{tag}a", "{tag}b", "{tag}c", "{tag}d") == [None, b"1", b"2", b"3"]
        assert asks.call("DEL", "{tag}b", "{tag}c", "{tag}d") == 3


# Through a node that has nothing of the shard


def test_a_transaction_from_afar(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    for node in five.nodes.values():
        asks, key = node.raw(), ring.key_away_from(node, "account")
        for words in (("MULTI",), ("SET", key, 5), ("INCR", key), ("GET", key), ("PING",)):
            asks.call(*words)
        assert asks.call("EXEC") == [b"OK", 6, b"6", b"PONG"]


def test_watching_from_afar(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    for node in five.nodes.values():
        asks, other, key = node.raw(), five.others(node)[0].raw(), ring.key_away_from(node, "watched")
        for changed in (True, False):
            asks.call("SET", key, 1)
            assert asks.call("WATCH", key) == b"OK"
            if changed:
                other.call("SET", key, 2)
            asks.call("MULTI")
            asks.call("INCR", key)
            assert asks.call("EXEC") == (None if changed else [2])


def test_blocking_from_afar(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    for node in five.nodes.values():
        waiter, other = node.raw(), five.others(node)[0].raw()
        queue, lock = ring.key_away_from(node, "jobs"), ring.key_away_from(node, "lock")
        assert waiter.call("Q.POP", queue, "BLOCK", 30) is None
        waiter.send("Q.POP", queue, "BLOCK", 0)
        wait_until(partial(has_blocked, node))
        pushed = other.call("Q.PUSH", queue, "payload")
        [[receipt, payload, deliveries, message]] = waiter.read()
        assert (payload, deliveries, message) == (b"payload", 1, pushed)
        assert other.call("Q.ACK", queue, receipt) == 1

        token = other.call("LOCK.ACQUIRE", lock, "ann")
        waiter.send("LOCK.ACQUIRE", lock, "bob", "BLOCK", 0)
        wait_until(partial(has_waiters, other, lock))
        assert other.call("LOCK.RELEASE", lock, "ann") == 1
        assert waiter.read() > token
        assert waiter.call("LOCK.RELEASE", lock, "bob") == 1


def has_blocked(node: Node) -> bool:
    """Whether a client waits at this node."""
    return bool(node.client().info("clients")["blocked_clients"])


def has_waiters(client: RawClient, lock: str) -> bool:
    """Whether anybody waits for the lock."""
    return bool(lock_info(client, lock)[b"waiters"])


def lock_info(client: RawClient, lock: str) -> dict[bytes, Any]:
    """LOCK.INFO as a map."""
    flat = client.call("LOCK.INFO", lock)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_a_waiter_far_away_that_left_gets_nothing(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    node = five["n5"]
    gone, other, lock = node.raw(), five["n1"].raw(), ring.key_away_from(node, "left-behind")
    other.call("LOCK.ACQUIRE", lock, "ann")
    gone.send("LOCK.ACQUIRE", lock, "bob", "BLOCK", 0)
    wait_until(partial(has_waiters, other, lock))
    gone.reset()
    wait_until(lambda: not has_waiters(other, lock))
    assert other.call("LOCK.RELEASE", lock, "ann") == 1
    assert lock_info(other, lock)[b"mode"] == b"free"


def test_a_session_s_locks_end_with_its_connection_wherever_they_are(five: Cluster, client: RawClient) -> None:
    for node in five.nodes.values():
        holder, other = node.raw(), five.others(node)[0].raw()
        locks = [f"session:{node.name}:{number}" for number in range(20)]
        for lock in locks:
            assert holder.call("LOCK.ACQUIRE", lock, "ann", "SESSION") > 0
            assert other.call("LOCK.ACQUIRE", lock, "bob") is None
        holder.reset()
        for lock in locks:
            assert other.call("LOCK.ACQUIRE", lock, "bob", "BLOCK", 0) > 0
            assert other.call("LOCK.RELEASE", lock, "bob") == 1


def test_fencing_from_afar(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    for node in five.nodes.values():
        asks, tag = node.raw(), ring.key_away_from(node, "fence")
        lock, key = f"{{{tag}}}lock", f"{{{tag}}}key"
        token = asks.call("LOCK.ACQUIRE", lock, "ann")
        assert asks.call("FENCE", lock, token, "SET", key, 1) == b"OK"
        assert asks.call("LOCK.RELEASE", lock, "ann") == 1
        assert error_of(asks, "FENCE", lock, token, "SET", key, 2).startswith("FENCED")
        assert asks.call("GET", key) == b"1"


def test_a_client_is_unblocked_from_afar(five: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(five)
    node = five["n2"]
    blocked, operator = node.raw(), node.raw()
    queue = ring.key_away_from(node, "never-pushed")
    number = blocked.call("CLIENT", "ID")
    blocked.send("Q.POP", queue, "BLOCK", 0)
    wait_until(lambda: operator.call("CLIENT", "UNBLOCK", number))
    assert blocked.read() is None
    assert blocked.call("SET", queue, 1) == b"OK", "it can go on"


# Cluster-aware clients


def names_leaders_first(cluster: Cluster, asks: RawClient) -> bool:
    """Whether CLUSTER SLOTS tells the ring as every node sees it: the leader of each shard, then its other nodes."""
    ring = wait_for_ring(cluster)
    ports = {name: node.port for name, node in cluster.nodes.items()}
    rows = sorted(asks.call("CLUSTER", "SLOTS"))
    assert [(first, last) for first, last, *_ in rows] == [(row.first, row.last) for row in ring.rows]
    for row, (_, _, master, *replicas) in zip(ring.rows, rows, strict=True):
        assert {port for _, port, *_ in (master, *replicas)} == {ports[name] for name in row.nodes}
        assert len(replicas) == len(row.nodes) - 1
        assert master[0] == HOST.encode()
        if master[1] != ports[str(row.leader)]:
            return False
    return True


def test_slots_are_answered_as_redis_does(five: Cluster, client: RawClient) -> None:
    for node in five.nodes.values():
        asks = node.raw()
        five.wait_until(partial(names_leaders_first, five, asks))
        rows = asks.call("CLUSTER", "SLOTS")
        lines = asks.call("CLUSTER", "NODES").decode().splitlines()
        assert len(lines) == 5
        ids = {identity.decode() for _, _, *members in rows for _, _, identity, *_ in members}
        assert ids <= {line.split()[0] for line in lines}, "the ids of SLOTS are those of NODES"
        mine = [line for line in lines if "myself" in line]
        assert [line.split()[0] for line in mine] == [asks.call("CLUSTER", "MYID").decode()]
        assert f":{node.port}@" in mine[0]
        five.wait_until(partial(is_whole, node))
        assert node.client().info("cluster")["cluster_enabled"] == 1


def is_whole(node: Node) -> bool:
    """Whether CLUSTER INFO says that all slots can be served, by five nodes."""
    info = node.client().execute_command("CLUSTER INFO")
    assert info["cluster_known_nodes"] == "5"
    return (info["cluster_state"], info["cluster_slots_ok"]) == ("ok", "16384")


def test_what_is_in_a_slot(five: Cluster, client: RawClient) -> None:
    keys = [f"{{tag}}{number}" for number in range(10)]
    client.call("MSET", *(word for key in keys for word in (key, 1)))
    slot = client.call("CLUSTER", "KEYSLOT", "{tag}1")
    assert slot == 8338
    for node in five.nodes.values():
        asks = node.raw()
        assert asks.call("CLUSTER", "COUNTKEYSINSLOT", slot) == 10
        assert sorted(asks.call("CLUSTER", "GETKEYSINSLOT", slot, 100)) == sorted(key.encode() for key in keys)


def test_a_shard_is_led_by_whom_an_operator_wants(five: Cluster) -> None:
    row = wait_for_ring(five, leaders=True).rows[2]
    for name in (next(name for name in row.nodes if name != row.leader), row.leader):
        assert name is not None
        let_lead(five[name], row.shard)
        wait_until(partial(all_say_it_leads, five, row.shard, name))


def all_say_it_leads(cluster: Cluster, shard: int, name: str) -> bool:
    """Whether every node takes this one for the shard's leader."""
    return {ring_of(node).rows[shard].leader for node in cluster.serving} == {name}


def test_redis_py_goes_to_the_leaders(five: Cluster, client: RawClient) -> None:
    library: Any = redis_cluster
    aware = library.RedisCluster(host=HOST, port=five["n3"].port)
    for key in KEYS:
        assert aware.set(key, key)
    assert [aware.get(key) for key in KEYS] == [key.encode() for key in KEYS]
    assert aware.mget_nonatomic(*KEYS[:20]) == [key.encode() for key in KEYS[:20]]
    assert aware.execute_command("LOCK.ACQUIRE", "aware", "ann") > 0
    assert aware.execute_command("LOCK.RELEASE", "aware", "ann") == 1
    assert aware.execute_command("Q.PUSH", "aware-queue", "payload")
    five.wait_until(partial(knows_leaders, five, aware))
    aware.close()


def knows_leaders(cluster: Cluster, aware: Any) -> bool:
    """Whether a client that asks anew would send every key to who leads its shard."""
    ring = wait_for_ring(cluster, leaders=True)
    aware.nodes_manager.initialize()
    return all(aware.get_node_from_key(key).port == cluster[str(ring.of(key).leader)].port for key in KEYS)


@pytest.fixture
def redirecting(five: Cluster) -> Iterator[Cluster]:
    """The five, while they send clients to the leaders."""
    for node in five.nodes.values():
        assert node.raw().call("CONFIG", "SET", "routing", "redirect") == b"OK"
    yield five
    for node in five.nodes.values():
        assert node.raw().call("CONFIG", "SET", "routing", "proxy") == b"OK"


def moved_to(client: RawClient, *words: str) -> str:
    """Where a command is sent, after its slot; "" when it is not."""
    error = error_of(client, *words)
    assert error == "" or error.startswith("MOVED "), error
    return error.removeprefix("MOVED ")


def test_redirects_name_the_leader(redirecting: Cluster, client: RawClient) -> None:
    for node in redirecting.nodes.values():
        redirecting.wait_until(partial(sends_to_leaders, redirecting, node))


def sends_to_leaders(cluster: Cluster, node: Node) -> bool:
    """Whether a node answers for the keys it leads, and names the leader for all others."""
    ring = wait_for_ring(cluster, leaders=True)
    asks = node.raw()
    for key in KEYS[:40]:
        row = ring.of(key)
        assert row.leader is not None
        slot = asks.call("CLUSTER", "KEYSLOT", key)
        told = "" if row.leader == node.name else f"{slot} {cluster[row.leader].address}"
        if {moved_to(asks, "SET", key, "1"), moved_to(asks, "GET", key)} != {told}:
            return False
    return True


def test_replicas_read_for_those_who_ask_them_to(redirecting: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(redirecting, leaders=True)
    row = ring.of("read-me")
    assert row.leader is not None
    assert redirecting[row.leader].raw().call("SET", "read-me", "1") == b"OK"
    for name in row.nodes:
        asks = redirecting[name].raw()
        assert asks.call("READONLY") == b"OK"
        assert asks.call("GET", "read-me") == b"1"
        if name != row.leader:
            assert moved_to(asks, "SET", "read-me", "2"), "it only reads"
            assert asks.call("READWRITE") == b"OK"
            assert moved_to(asks, "GET", "read-me")
    stranger = far(redirecting, ring, "read-me").raw()
    assert stranger.call("READONLY") == b"OK"
    assert moved_to(stranger, "GET", "read-me"), "it has no replica"


def test_asking_is_taken(redirecting: Cluster, client: RawClient) -> None:
    assert client.call("ASKING") == b"OK"


@pytest.mark.parametrize("program", ["redis-cli", "redis-benchmark", "redis-py"])
def test_clients_that_are_redirected(redirecting: Cluster, client: RawClient, program: str) -> None:
    tools = find()

    def run(*words: str) -> str:
        line = [tools.program(program), "-p", str(redirecting["n2"].port), *words]
        ended = subprocess.run(line, env=tools.environment(), capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended
        return ended.stdout

    match program:
        case "redis-cli":
            for key in KEYS[:20]:
                assert "OK" in run("-c", "SET", key, key)
                assert key in run("-c", "GET", key)
        case "redis-benchmark":
            said = run("--cluster", "-t", "set,get", "-n", "2000", "-r", "1000", "-c", "20", "-q")
            assert "requests per second" in said
            assert "rror" not in said
        case _:
            library: Any = redis_cluster
            aware = library.RedisCluster(host=HOST, port=redirecting["n2"].port)
            for key in KEYS:
                assert aware.set(key, key)
                assert aware.get(key) == key.encode()
            aware.close()


def test_a_plain_client_is_told_where_to_go(redirecting: Cluster, client: RawClient) -> None:
    ring = wait_for_ring(redirecting)
    node = redirecting["n1"]
    key = ring.key_away_from(node, "elsewhere")
    with pytest.raises(redis.exceptions.MovedError):
        node.client().set(key, 1)


Chosen = Callable[[Ring, Node, str], str]


@pytest.mark.parametrize("chosen", [Ring.key_led_by, Ring.key_away_from], ids=["led here", "far away"])
def test_a_key_that_expires_is_gone_everywhere(five: Cluster, client: RawClient, chosen: Chosen) -> None:
    wait_for_ring(five, leaders=True)
    for node in five.nodes.values():
        ring = ring_of(node)
        if chosen is Ring.key_led_by and not ring.leaders()[node.name]:
            continue
        asks, key = node.raw(), chosen(ring, node, "short")
        assert asks.call("SET", key, 1, "PX", 100) == b"OK"
        wait_until(partial(is_gone, asks, key))
        assert [one.raw().call("EXISTS", key) for one in five.nodes.values()] == [0] * 5


def is_gone(client: RawClient, key: str) -> bool:
    """Whether there is no such key."""
    return client.call("GET", key) is None
