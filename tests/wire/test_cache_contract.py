"""The contract of caches, row by row, as redis-py and redis-cli see it, on one node and on three."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.clusters import PATIENT_CACHES, Cluster, Node, calm_cluster, text_of
from tests.raw_client import RawClient
from tests.redis_binaries import Redis
from tests.servers import Server, sepakat_server, wait_until

SENT_SECONDS = 3.0
"""In so long what is sent has come."""

A_MINUTE = range(31, 61)
"""What is left of one, in seconds, however slow the machine is."""

ROWS: tuple[tuple[str, object], ...] = (
    # a line, and what makes it another
    ("CACHE.STATE k", "I"),
    ("CACHE.GET k", None),
    ("CACHE.STATE k", "E"),
    ("CACHE.SET k 1", "OK"),
    ("cache.state k", "M"),
    ("CACHE.GET k", "1"),
    ("GET k", "1"),
    ("CACHE.STATE k", "S"),
    ("CACHE.SET k 2", "OK"),
    ("CACHE.STATE k", "M"),
    ("CACHE.FLUSH", 1),
    ("CACHE.STATE k", "E"),
    ("CACHE.FLUSH", 0),
    ("CACHE.SET k 3", "OK"),
    ("CACHE.EVICT k", 1),
    ("CACHE.STATE k", "I"),
    ("CACHE.EVICT k", 0),
    ("GET k", "3"),
    ("CACHE.GET k", "3"),
    ("CACHE.STATE k", "E"),
    # plain commands on it
    ("APPEND k 4", 2),
    ("CACHE.STATE k", "I"),
    ("CACHE.GET k", "34"),
    ("INCR k", 35),
    ("CACHE.GET k", "35"),
    ("CACHE.SET k 36", "OK"),
    ("INCR k", 37),
    ("CACHE.SET k 38", "OK"),
    ("STRLEN k", 2),
    ("CACHE.SET k 39", "OK"),
    ("MGET k none", ["39", None]),
    ("CACHE.SET k 40", "OK"),
    ("RENAME k other", "OK"),
    ("CACHE.MGET k other", [None, "40"]),
    ("CACHE.SET other 41", "OK"),
    ("FLUSHALL", "OK"),
    ("CACHE.STATE other", "I"),
    ("CACHE.GET other", None),
    # conditions and lives
    ("CACHE.SET a 1 XX", None),
    ("EXISTS a", 0),
    ("CACHE.SET a 1 NX", "OK"),
    ("CACHE.SET a 2 NX", None),
    ("CACHE.GET a", "1"),
    ("CACHE.SET a 2 XX", "OK"),
    ("cache.set a 3 px 60000 xx sync", "OK"),
    ("GET a", "3"),
    ("CACHE.SET a 4 SYNC NX", None),
    ("CACHE.SET a 5 EX 60", "OK"),
    ("TTL a", A_MINUTE),
    ("CACHE.SET a 6 PX 60000", "OK"),
    ("TTL a", A_MINUTE),
    ("CACHE.SET a 7", "OK"),
    ("TTL a", -1),
    ("CACHE.GET a", "7"),
    ("PEXPIRE a 60000", 1),
    ("CACHE.GET a", "7"),
    ("CACHE.SET a 8 PX 1 SYNC", "OK"),
    ("BLOCKED UNTIL a", None),
    ("CACHE.GET a", None),
    ("CACHE.SET a 9", "OK"),
    ("CACHE.STATE a", "M"),
    # several
    ("CACHE.MGET a none a", ["9", None, "9"]),
    ("CACHE.DEL a none a", 1),
    ("CACHE.STATE a", "I"),
    ("CACHE.DEL a", 0),
    # one loads it
    ("CACHE.FETCH page", [None, 1]),
    ("CACHE.FILL page 2 other", None),
    ("CACHE.FILL page 1 html PX 60000", "OK"),
    ("CACHE.FETCH page", ["html", None]),
    ("CACHE.FETCH page PX 5000", ["html", None]),
    ("TTL page", A_MINUTE),
    ("CACHE.FILL page 1 late", None),
    ("CACHE.GET page", "html"),
    ("CACHE.FETCH page", ["html", None]),
    ("CACHE.FETCH news PX 60000", [None, 2]),
    ("SET news here", "OK"),
    ("CACHE.FILL news 2 late", None),
    ("CACHE.FETCH news", ["here", None]),
    # keys of another kind
    ("LOCK.ACQUIRE lock ann", 1),
    ("CACHE.STATE lock", "I"),
    ("CACHE.MGET lock page", [None, "html"]),
    ("CACHE.SET lock x NX", None),
    ("CACHE.DEL lock", 1),
    # they are string keys
    ("CACHE.SET lock x", "OK"),
    ("TYPE lock", "string"),
    # a step of several
    ("MULTI", "OK"),
    ("CACHE.SET a 1", "QUEUED"),
    ("CACHE.GET a", "QUEUED"),
    ("CACHE.MGET a none", "QUEUED"),
    ("CACHE.STATE a", "QUEUED"),
    ("CACHE.EVICT a", "QUEUED"),
    ("CACHE.FETCH a", "QUEUED"),
    ("CACHE.FETCH b", "QUEUED"),
    ("CACHE.SET a 2 XX SYNC", "QUEUED"),
    ("CACHE.SET a 3 NX", "QUEUED"),
    ("CACHE.DEL a none", "QUEUED"),
    ("CACHE.GET lock x", "ERR wrong number of arguments for 'cache.get' command"),
    ("EXEC", "EXECABORT Transaction discarded because of previous errors."),
    ("MULTI", "OK"),
    ("CACHE.SET a 1", "QUEUED"),
    ("CACHE.GET a", "QUEUED"),
    ("CACHE.MGET a none", "QUEUED"),
    ("CACHE.STATE a", "QUEUED"),
    ("CACHE.EVICT a", "QUEUED"),
    ("CACHE.FETCH a", "QUEUED"),
    ("CACHE.FETCH b PX 60000", "QUEUED"),
    ("CACHE.SET a 2 XX SYNC", "QUEUED"),
    ("CACHE.SET a 3 NX", "QUEUED"),
    ("CACHE.FLUSH", "QUEUED"),
    ("CACHE.DEL a none", "QUEUED"),
    ("EXEC", ["OK", "1", ["1", None], "I", 0, ["1", None], [None, 3], "OK", None, 0, 1]),
    ("CACHE.GET a", None),
    ("CACHE.FILL b 3 x EX 60", "OK"),
    # what is loaded may be older than a write, even if nothing is left of that
    ("CACHE.FETCH gone", [None, 4]),
    ("MULTI", "OK"),
    ("SET gone 1", "QUEUED"),
    ("DEL gone", "QUEUED"),
    ("EXEC", ["OK", 1]),
    ("CACHE.FILL gone 4 old", None),
    ("CACHE.FETCH gone", [None, 5]),
)

ERRORS = (
    ("CACHE.GET", "ERR wrong number of arguments for 'cache.get' command"),
    ("CACHE.GET held", "WRONGTYPE Operation against a key holding the wrong kind of value"),
    ("CACHE.FETCH held", "WRONGTYPE Operation against a key holding the wrong kind of value"),
    ("CACHE.MGET", "ERR wrong number of arguments for 'cache.mget' command"),
    ("CACHE.SET k", "ERR wrong number of arguments for 'cache.set' command"),
    ("CACHE.SET k 1 PX 0", "ERR invalid expire time in 'cache.set' command"),
    ("CACHE.SET k 1 EX x", "ERR value is not an integer or out of range"),
    ("CACHE.SET k 1 NX XX", "ERR syntax error"),
    ("CACHE.SET k 1 GET", "ERR syntax error"),
    ("CACHE.DEL", "ERR wrong number of arguments for 'cache.del' command"),
    ("CACHE.FETCH k PX x", "ERR value is not an integer or out of range"),
    ("CACHE.FETCH k EX 5", "ERR syntax error"),
    ("CACHE.FILL k 1", "ERR wrong number of arguments for 'cache.fill' command"),
    ("CACHE.FILL k one v", "ERR value is not an integer or out of range"),
    ("CACHE.FILL k 1 v NX", "ERR syntax error"),
    ("CACHE.STATE k other", "ERR wrong number of arguments for 'cache.state' command"),
    ("CACHE.EVICT", "ERR wrong number of arguments for 'cache.evict' command"),
    ("CACHE.FLUSH k", "ERR wrong number of arguments for 'cache.flush' command"),
    ("CACHE.STATS k", "ERR wrong number of arguments for 'cache.stats' command"),
    ("CACHE.TOP COUNT 0", "ERR value is not an integer or out of range"),
    ("CACHE.TOP 5", "ERR syntax error"),
    ("CACHE.TRAFFIC k", "ERR wrong number of arguments for 'cache.traffic' command"),
)

STATS = [
    "lines", "bytes", "max-bytes", "hits", "misses", "hit-ratio", "invalidations-sent", "invalidations-received",
    "write-backs", "evictions", "modified", "exclusive", "shared", "leases-lost",
]  # fmt: skip


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("contract")
    with sepakat_server(folder / "data", folder / "sepakat.log", *PATIENT_CACHES) as running:
        yield running


def ask(client: RawClient, line: str) -> Any:
    """The reply to a line of words, as text; an error is its text."""
    reply = client.call(*line.split())
    return str(reply) if isinstance(reply, Exception) else text_of(reply)


def gone(client: RawClient, key: str) -> None:
    """Waits until a key's life is over."""
    wait_until(lambda: ask(client, f"EXISTS {key}") == 0)


@pytest.mark.parametrize("protocol", [2, 3])
def test_rows(server: Server, protocol: int) -> None:
    with RawClient(server) as client:
        client.call("HELLO", protocol)
        for line, expected in ROWS:
            if line.startswith("BLOCKED UNTIL "):
                gone(client, line.split()[-1])
                continue
            reply = ask(client, line)
            assert reply in expected if isinstance(expected, range) else reply == expected, line


@pytest.mark.parametrize("protocol", [2, 3])
def test_errors(server: Server, protocol: int) -> None:
    with RawClient(server) as client:
        client.call("HELLO", protocol)
        client.call("LOCK.ACQUIRE", "held", "ann")
        for line, text in ERRORS:
            assert ask(client, line) == text, line
        assert ask(client, "EXISTS k") == 0


@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_what_people_see(server: Server, redis_programs: Redis, protocol: str) -> None:
    typed = ["CACHE.GET k", "CACHE.SET k 1", "CACHE.STATE k", "CACHE.FETCH k", "CACHE.FETCH new", "CACHE.STATS"]
    command = [redis_programs.program("redis-cli"), protocol, "--no-raw", "-p", str(server.port)]
    ended = subprocess.run(
        command,
        env=redis_programs.environment(),
        input="\n".join([*typed, *(line for line, _ in ERRORS if "held" not in line)]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line for line in ended.stdout.splitlines() if line]
    assert lines[:7] == ["(nil)", "OK", '"M"', '1) "1"', "2) (nil)", "1) (nil)", "2) (integer) 1"]
    names = lines[7:35:2] if protocol == "-2" else lines[7:21]
    assert [line.split('"')[1] for line in names] == STATS
    errors = [text for line, text in ERRORS if "held" not in line]
    assert lines[-len(errors) :] == [f"(error) {text}" for text in errors]


def test_redis_py_reads_them(server: Server) -> None:
    with redis.Redis(port=server.port, protocol=3, decode_responses=True) as client:
        assert client.execute_command("CACHE.SET", "k", "1") == "OK"
        with pytest.raises(redis.ResponseError, match="wrong kind of value"):
            client.execute_command("LOCK.ACQUIRE", "k", "ann")
        assert client.execute_command("CACHE.MGET", "k", "none") == ["1", None]
        assert list(client.execute_command("CACHE.STATS")) == STATS


# What a node counts


@pytest.mark.parametrize("protocol", [2, 3])
def test_counts(server: Server, protocol: int) -> None:
    with RawClient(server) as client:
        client.call("HELLO", protocol)
        for line in ("CACHE.GET a", "CACHE.GET a", "CACHE.SET a 1", "CACHE.GET a", "CACHE.GET a", "CACHE.SET b 1"):
            ask(client, line)
        told = stats(client)
        assert list(told) == STATS
        assert told["hit-ratio"] == (0.75 if protocol == 3 else "0.75")
        assert (told["hits"], told["misses"], told["lines"]) == (3, 1, 2)
        assert (told["modified"], told["exclusive"], told["shared"], told["write-backs"]) == (2, 0, 0, 0)
        assert told["max-bytes"] == 256 * 2**20
        assert ask(client, "CACHE.FLUSH") == 2
        assert ask(client, "GET a") == "1"
        assert ask(client, "DEL b") == 1
        told = stats(client)
        assert (told["modified"], told["exclusive"], told["shared"], told["write-backs"]) == (0, 0, 1, 2)
        assert (told["invalidations-sent"], told["invalidations-received"]) == (2, 1)
        assert (told["lines"], told["evictions"], told["leases-lost"]) == (1, 0, 0)
        [top] = [as_map(one) for one in ask(client, "CACHE.TOP")]
        assert top == {"key": "a", "state": "S", "reads": 3, "bytes": told["bytes"]}
        assert [as_map(one)["sent"] for one in ask(client, "CACHE.TRAFFIC")] == [0] * 14, "it is alone"


def as_map(reply: Any) -> dict[str, Any]:
    """A map, in whichever protocol."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def stats(client: RawClient) -> dict[str, Any]:
    return as_map(ask(client, "CACHE.STATS"))


def test_the_least_recently_used_line_goes_first_and_is_written_back(server: Server) -> None:
    with RawClient(server) as client:
        for number in range(10):
            assert ask(client, f"CACHE.SET k{number} {number}") == "OK"
        told = stats(client)
        assert ask(client, "CACHE.GET k0") == "0"
        assert ask(client, f"CONFIG SET cache-max-bytes {told['bytes'] // 2}") == "OK"
        assert [ask(client, f"CACHE.STATE k{number}") for number in range(10)] == ["M"] + 5 * ["I"] + 4 * ["M"]
        told = stats(client)
        assert (told["lines"], told["evictions"], told["write-backs"]) == (5, 5, 5)
        assert [ask(client, f"GET k{number}") for number in range(10)] == [str(number) for number in range(10)]


def test_what_is_too_large_for_the_cache_is_written_all_the_same(server: Server) -> None:
    with RawClient(server) as client:
        assert ask(client, "CONFIG SET cache-max-bytes 1000") == "OK"
        assert client.call("CACHE.SET", "k", bytes(2000)) == b"OK"
        assert ask(client, "CACHE.STATE k") == "I"
        assert client.call("CACHE.GET", "k") == bytes(2000)
        assert ask(client, "CACHE.STATE k") == "I"
        assert stats(client)["bytes"] == 0


def test_what_was_written_through_the_cache_outlives_the_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("again")
    for expected in (None, "1"):
        with (
            sepakat_server(folder / "data", folder / "sepakat.log", *PATIENT_CACHES) as server,
            RawClient(server) as client,
        ):
            assert ask(client, "CACHE.GET k") == expected
            assert ask(client, "CACHE.SET k 1") == "OK"
            assert ask(client, "CACHE.STATE k") == "M"


def test_a_write_is_durable_soon(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("soon")
    with sepakat_server(folder / "data", folder / "sepakat.log") as server, RawClient(server) as client:
        assert ask(client, "CACHE.SET k 1") == "OK"
        wait_until(lambda: ask(client, "CACHE.STATE k") == "E")
        assert stats(client)["write-backs"] == 1


def test_keys_of_several_shards(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("shards")
    with (
        sepakat_server(folder / "data", folder / "sepakat.log", "--shards", "8", *PATIENT_CACHES) as server,
        RawClient(server) as client,
    ):
        for number in range(20):
            assert ask(client, f"CACHE.SET k{number} {number}") == "OK"
        keys = " ".join(f"k{number}" for number in range(21))
        assert ask(client, f"CACHE.MGET {keys}") == [*map(str, range(20)), None]
        assert ask(client, f"MGET {keys}") == [*map(str, range(20)), None]
        assert ask(client, f"CACHE.DEL {keys}") == 20
        assert ask(client, f"CACHE.MGET {keys}") == [None] * 21
        assert ask(client, "CACHE.SET k1 x") == "OK"
        assert ask(client, "CACHE.FLUSH") == 1
        assert ask(client, "CACHE.SET k2 x") == "OK"
        assert ask(client, "FLUSHALL") == "OK"
        assert ask(client, f"CACHE.MGET {keys}") == [None] * 21


# Three nodes


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with calm_cluster(tmp_path_factory.mktemp("caches"), 3, *PATIENT_CACHES) as three:
        yield three


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[list[RawClient]]:
    """One of every node: first the leader's. Nobody has a line of ``k``, which does not exist."""
    leader = cluster.wait_for_leader()
    nodes: list[Node] = [leader, *cluster.others(leader)]
    found = [node.raw() for node in nodes]
    assert ask(found[0], "DEL k other") in (0, 1, 2)
    yield found
    for client in found:
        ask(client, "CACHE.EVICT k")
    for node in nodes:
        node.hang_up()


def states(clients: list[RawClient], key: str = "k") -> str:
    return "".join(ask(client, f"CACHE.STATE {key}") for client in clients)


@pytest.mark.parametrize("first", range(3))
def test_states_on_three_nodes(clients: list[RawClient], first: int) -> None:
    one, two, three = (clients[(first + number) % 3] for number in range(3))
    order = [one, two, three]
    assert states(order) == "III"
    assert ask(one, "CACHE.GET k") is None
    assert states(order) == "EII"
    assert ask(one, "CACHE.SET k 1") == "OK"
    assert states(order) == "MII"
    assert ask(two, "CACHE.GET k") == "1"
    assert states(order) == "SSI"
    assert ask(three, "CACHE.GET k") == "1"
    assert states(order) == "SSS"
    assert ask(two, "CACHE.SET k 2") == "OK"
    assert states(order) == "IMI"
    assert ask(three, "CACHE.SET k 3") == "OK"
    assert states(order) == "IIM"
    assert ask(three, "CACHE.FLUSH") == 1
    assert states(order) == "IIE"
    assert ask(one, "CACHE.GET k") == "3"
    assert states(order) == "SIS"
    assert ask(three, "CACHE.EVICT k") == 1
    assert ask(one, "CACHE.SET k 4 NX") is None
    assert ask(one, "CACHE.SET k 4 XX") == "OK"
    assert states(order) == "MII"
    assert ask(two, "CACHE.EVICT k") == 0
    assert [ask(client, "CACHE.MGET k none") for client in order] == [["4", None]] * 3


@pytest.mark.parametrize("owner", range(3))
@pytest.mark.parametrize(
    ("line", "reply", "left"),
    [
        ("GET k", "1", "1"), ("STRLEN k", 1, "1"), ("SET k 2", "OK", "2"), ("APPEND k 2", 2, "12"), ("DEL k", 1, None),
        ("INCR k", 2, "2"), ("CACHE.DEL k", 1, None), ("CACHE.SET k 2 SYNC", "OK", "2"), ("FLUSHALL", "OK", None),
        ("RENAME k {k}other", "OK", None), ("EXPIRE k 60", 1, "1"), ("PERSIST k", 0, "1"), ("EXISTS k", 1, "1"),
        ("CACHE.FETCH k", ["1", None], "1"), ("CACHE.FILL k 1 2", None, "1"), ("SET k 2 NX", None, "1"),
    ],
)  # fmt: skip
def test_any_command_at_any_node_sees_what_another_wrote_and_all_see_what_it_left(
    clients: list[RawClient], owner: int, line: str, reply: object, left: object
) -> None:
    assert ask(clients[owner], "CACHE.SET k 1") == "OK"
    assert ask(clients[owner], "CACHE.STATE k") == "M"
    assert ask(clients[(owner + 1) % 3], line) == reply
    assert ask(clients[owner], "CACHE.STATE k") in ("S", "I")
    assert [ask(client, "CACHE.GET k") for client in clients] == [left] * 3
    assert [ask(client, "GET k") for client in clients] == [left] * 3
    ask(clients[owner], "DEL {k}other")


def test_a_cached_copy_ends_with_its_key(clients: list[RawClient]) -> None:
    for line in ("CACHE.SET k 1 PX 300", "SET k 1 PX 300"):
        assert ask(clients[1], line) == "OK"
        assert ask(clients[0], "CACHE.GET k") in ("1", None)
        wait_until(lambda: ask(clients[2], "GET k") is None)
        assert [ask(client, "CACHE.GET k") for client in clients] == [None] * 3


def test_a_life_that_is_taken_away_or_cut_short(clients: list[RawClient]) -> None:
    assert ask(clients[0], "CACHE.SET k 1 PX 60000") == "OK"
    assert ask(clients[1], "CACHE.GET k") == "1"
    assert ask(clients[2], "PERSIST k") == 1
    assert [ask(client, "TTL k") for client in clients] == [-1] * 3
    assert ask(clients[1], "CACHE.GET k") == "1"
    assert ask(clients[2], "PEXPIRE k 1") == 1
    wait_until(lambda: ask(clients[2], "EXISTS k") == 0)
    assert [ask(client, "CACHE.GET k") for client in clients] == [None] * 3


def read_often_and_written(clients: list[RawClient], value: str) -> None:
    """All read the line several times, then one writes it plainly."""
    for client in clients:
        for _ in range(3):
            ask(client, "CACHE.GET k")
    assert states(clients) == "SSS"
    assert ask(clients[0], f"SET k {value}") == "OK"


def is_sent(clients: list[RawClient], value: str) -> bool:
    """Whether all have in their lines what is written, though they do not ask; one that stands still may not."""
    read_often_and_written(clients, value)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: states(clients) == "SSS", SENT_SECONDS)
        return True
    return False


def test_who_reads_often_is_sent_what_was_written_unless_that_is_turned_off(clients: list[RawClient]) -> None:
    wait_until(lambda: is_sent(clients, "1"))
    try:
        for client in clients:
            assert ask(client, "CONFIG SET cache-propagation no") == "OK"
        asked = [stats(client)["misses"] for client in clients]
        read_often_and_written(clients, "2")
        assert [stats(client)["misses"] for client in clients] == asked
        assert [ask(client, "CACHE.GET k") for client in clients] == ["2"] * 3
        assert [stats(client)["misses"] for client in clients] == [count + 1 for count in asked]
    finally:
        for client in clients:
            assert ask(client, "CONFIG SET cache-propagation yes") == "OK"
    wait_until(lambda: is_sent(clients, "3"))
    assert [ask(client, "CACHE.GET k") for client in clients] == ["3"] * 3


def test_flush_is_of_one_node(clients: list[RawClient]) -> None:
    keys = [f"flush:{number}" for number in range(7)]
    for key in keys:
        assert ask(clients[1], f"CACHE.SET {key} 1") == "OK"
    assert ask(clients[2], "CACHE.FLUSH") == 0
    assert ask(clients[1], "CACHE.FLUSH") == 7
    assert ask(clients[1], "CACHE.FLUSH") == 0
    assert ask(clients[2], f"DEL {' '.join(keys)}") == 7


def test_transactions_and_caches(clients: list[RawClient]) -> None:
    assert ask(clients[1], "CACHE.SET k 1") == "OK"
    for line in ("MULTI", "CACHE.GET k", "CACHE.SET k 2", "INCR k"):
        assert ask(clients[2], line) in ("OK", "QUEUED")
    assert ask(clients[2], "EXEC") == ["1", "OK", 3]
    assert ask(clients[1], "CACHE.GET k") == "3"
    assert ask(clients[2], "WATCH k") == "OK"
    assert ask(clients[1], "CACHE.SET k 4") == "OK"
    assert ask(clients[2], "MULTI") == "OK"
    assert ask(clients[2], "SET k 5") == "QUEUED"
    assert ask(clients[2], "EXEC") is None
    assert ask(clients[2], "CACHE.GET k") == "4"


# One loads, the others wait


def waiting(clients: list[RawClient], count: int) -> None:
    """Waits until so many are told to be blocked, on all nodes together."""

    def blocked() -> int:
        return sum(int(ask(one, "INFO clients").partition("blocked_clients:")[2].split()[0]) for one in clients)

    wait_until(lambda: blocked() == count)


def others(cluster: Cluster) -> list[RawClient]:
    """Another client of every node."""
    return [node.raw() for node in cluster.nodes.values()]


def test_one_loads_and_all_others_get_what_it_filled(cluster: Cluster, clients: list[RawClient]) -> None:
    [value, token] = ask(clients[1], "CACHE.FETCH k PX 60000")
    assert value is None
    crowd = [*others(cluster), *others(cluster)]
    for one in crowd:
        one.send("CACHE.FETCH", "k")
    waiting(clients, len(crowd))
    assert ask(clients[0], f"CACHE.FILL k {token + 1} other") is None
    assert ask(clients[2], f"CACHE.FILL k {token} html PX 60000") == "OK", "whoever has the token may fill"
    assert [text_of(one.read()) for one in crowd] == [["html", None]] * 6
    assert ask(clients[1], f"CACHE.FILL k {token} late") is None
    assert [ask(one, "CACHE.GET k") for one in clients] == ["html"] * 3


def test_when_the_loader_leaves_the_next_has_the_token(cluster: Cluster, clients: list[RawClient]) -> None:
    first, second, third = others(cluster)
    [_, token] = ask(first, "CACHE.FETCH k PX 600000")
    second.send("CACHE.FETCH", "k", "PX", "600000")
    waiting(clients, 1)
    third.send("CACHE.FETCH", "k", "PX", "600000")
    waiting(clients, 2)
    first.socket.close()
    [value, next_token] = text_of(second.read())
    assert value is None
    assert next_token > token
    assert ask(clients[0], f"CACHE.FILL k {token} late") is None
    second.reset()
    [value, last_token] = text_of(third.read())
    assert value is None
    assert last_token > next_token
    assert ask(third, f"CACHE.FILL k {last_token} html") == "OK"
    assert ask(clients[0], "GET k") == "html"


def test_when_its_time_is_over_the_next_has_the_token(cluster: Cluster, clients: list[RawClient]) -> None:
    [_, token] = ask(clients[0], "CACHE.FETCH k PX 100")
    [value, next_token] = ask(clients[1], "CACHE.FETCH k PX 600000")
    assert value is None
    assert next_token > token
    assert ask(clients[0], f"CACHE.FILL k {token} late") is None
    assert ask(clients[1], f"CACHE.FILL k {next_token} html EX 60") == "OK"
    assert ask(clients[0], "CACHE.FETCH k") == ["html", None]
    assert ask(clients[0], "TTL k") in A_MINUTE


@pytest.mark.parametrize("line", ["SET k here", "CACHE.SET k here SYNC", "APPEND k here", "RENAME {k}new k"])
def test_any_command_that_makes_the_key_be_there_wakes_all(
    cluster: Cluster, clients: list[RawClient], line: str
) -> None:
    assert ask(clients[0], "SET {k}new here") == "OK"
    [_, token] = ask(clients[0], "CACHE.FETCH k PX 600000")
    crowd = others(cluster)
    for one in crowd:
        one.send("CACHE.FETCH", "k")
    waiting(clients, 3)
    assert ask(clients[2], line) in ("OK", 4)
    assert [text_of(one.read()) for one in crowd] == [["here", None]] * 3
    assert ask(clients[0], f"CACHE.FILL k {token} late") is None
    assert ask(clients[1], "CACHE.GET k") == "here"
    assert ask(clients[0], "DEL {k}new") in (0, 1)


def test_nobody_owns_what_is_being_loaded(cluster: Cluster, clients: list[RawClient]) -> None:
    """So a write that is not durable does not leave those waiting who would have its value."""
    [_, token] = ask(clients[0], "CACHE.FETCH k PX 600000")
    waiter = others(cluster)[0]
    waiter.send("CACHE.FETCH", "k")
    waiting(clients, 1)
    assert [ask(one, "CACHE.GET k") for one in clients] == [None] * 3
    assert states(clients) == "SSS"
    assert ask(clients[1], "CACHE.SET k here") == "OK"
    assert text_of(waiter.read()) == ["here", None]
    assert ask(clients[0], f"CACHE.FILL k {token} late") is None
    assert ask(clients[0], "CACHE.GET k") == "here"


def test_a_watched_key_is_owned_by_nobody(clients: list[RawClient]) -> None:
    assert ask(clients[0], "WATCH k") == "OK"
    assert ask(clients[1], "CACHE.GET k") is None
    assert ask(clients[1], "CACHE.STATE k") == "S"
    assert ask(clients[1], "CACHE.SET k 1") == "OK"
    assert ask(clients[1], "CACHE.STATE k") != "M"
    assert ask(clients[0], "UNWATCH") == "OK"
    assert ask(clients[1], "CACHE.SET k 2") == "OK"
    assert ask(clients[1], "CACHE.STATE k") == "M"


def test_who_waits_can_be_unblocked(cluster: Cluster, clients: list[RawClient]) -> None:
    [_, token] = ask(clients[1], "CACHE.FETCH k PX 600000")
    node = cluster.wait_for_leader()
    waiter = node.raw()
    number = ask(waiter, "CLIENT ID")
    waiter.send("CACHE.FETCH", "k")
    waiting(clients, 1)
    assert ask(clients[0], f"CLIENT UNBLOCK {number}") == 1
    assert waiter.read() is None
    waiter.send("CACHE.FETCH", "k")
    waiting(clients, 1)
    assert ask(clients[0], f"CLIENT UNBLOCK {number} ERROR") == 1
    assert str(waiter.read()) == "UNBLOCKED client unblocked via CLIENT UNBLOCK"
    assert ask(clients[1], f"CACHE.FILL k {token} html") == "OK"
