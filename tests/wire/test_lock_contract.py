"""The contract of locks and of what is built like them, row by row, as redis-py and redis-cli see it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.redis_binaries import Redis
from tests.servers import Server, sepakat_server

FREE = {"mode": "free", "token": 0, "holders": [], "waiters": []}


def hold(owner: str, mode: str, holds: int, token: int, ttl_ms: int = 60_000) -> dict[str, object]:
    session = int(ttl_ms < 0)
    return {"owner": owner, "mode": mode, "holds": holds, "token": token, "ttl-ms": ttl_ms, "session": session}


def place(owner: str, count: int, token: int) -> dict[str, object]:
    return {"owner": owner, "count": count, "token": token, "ttl-ms": 60_000, "session": 0}


ROWS: tuple[tuple[str, object], ...] = (
    # a lock, alone and shared
    ("LOCK.INFO k", FREE),
    ("LOCK.ACQUIRE k ann PX 60000", 1),
    ("LOCK.ACQUIRE k bob PX 60000", None),
    ("LOCK.ACQUIRE k ann SHARED PX 60000", 1),
    ("LOCK.ACQUIRE k ann PX 60000 ID once", 1),
    ("lock.acquire k ann px 60000 id once", 1),
    ("LOCK.INFO k", {"mode": "exclusive", "token": 1, "holders": [hold("ann", "exclusive", 3, 1)], "waiters": []}),
    ("LOCK.RELEASE k ann TOKEN 1", 1),
    ("LOCK.RELEASE k ann TOKEN 2", 0),
    ("LOCK.RELEASE k bob", 0),
    ("LOCK.RELEASE k ann", 1),
    ("LOCK.DOWNGRADE k bob", None),
    ("LOCK.DOWNGRADE k ann", 1),
    ("LOCK.DOWNGRADE k ann", None),
    ("LOCK.ACQUIRE k bob SHARED PX 60000", 2),
    ("LOCK.ACQUIRE k bob EXCLUSIVE PX 60000", None),
    (
        "LOCK.INFO k",
        {
            "mode": "shared",
            "token": 2,
            "holders": [hold("ann", "shared", 1, 1), hold("bob", "shared", 1, 2)],
            "waiters": [],
        },
    ),
    ("LOCK.BREAK k ann", 1),
    ("LOCK.ACQUIRE k bob EXCLUSIVE PX 60000", 3),
    ("LOCK.INFO k", {"mode": "exclusive", "token": 3, "holders": [hold("bob", "exclusive", 1, 3)], "waiters": []}),
    ("LOCK.EXTEND k bob PX 60000", 1),
    ("LOCK.EXTEND k bob PX 60000 TOKEN 3", 1),
    ("LOCK.EXTEND k bob PX 1 TOKEN 2", 0),
    ("LOCK.EXTEND k ann PX 1", 0),
    # several
    ("LOCK.MACQUIRE 2 j k cid", None),
    ("LOCK.MACQUIRE 3 j i j cid SESSION", [4, 5, 4]),
    ("LOCK.INFO i", {"mode": "exclusive", "token": 5, "holders": [hold("cid", "exclusive", 1, 5, -1)], "waiters": []}),
    ("LOCK.OWNED bob", ["k"]),
    ("LOCK.OWNED ann", []),
    ("LOCK.SCAN 0 MATCH k", ["0", ["k"]]),
    ("LOCK.BREAK i", 1),
    ("LOCK.BREAK i", 0),
    ("LOCK.RELEASE j cid", 1),
    ("LOCK.GRAPH", {"edges": [], "deadlocks": 0, "last": None}),
    # what is written under it
    ("FENCE k 3 SET result done", "OK"),
    ("FENCE k 3 INCRBY count 5", 5),
    ("GET result", "done"),
    ("TYPE k", "lock"),
    ("EXISTS i j k", 1),
    ("LOCK.RELEASE k bob", 1),
    ("LOCK.INFO k", {**FREE, "token": 3}),
    ("FLUSHALL", "OK"),
    ("LOCK.ACQUIRE k ann", 6),
    ("DEL k", 1),
    ("LOCK.ACQUIRE k ann", 7),
    # places
    ("SEM.INFO s", {"limit": 0, "held": 0, "token": 0, "holders": [], "waiters": []}),
    ("SEM.ACQUIRE s ann LIMIT 3 COUNT 2 PX 60000", 8),
    ("SEM.ACQUIRE s bob LIMIT 3 COUNT 2 PX 60000", None),
    ("SEM.ACQUIRE s bob LIMIT 3 PX 60000", 9),
    (
        "SEM.INFO s",
        {"limit": 3, "held": 3, "token": 9, "holders": [place("ann", 2, 8), place("bob", 1, 9)], "waiters": []},
    ),
    ("SEM.RELEASE s ann COUNT 9", 2),
    ("SEM.RELEASE s ann", 0),
    ("SEM.RELEASE s bob TOKEN 9", 1),
    # latches
    ("LATCH.COUNT l", 0),
    ("LATCH.WAIT l", 1),
    ("LATCH.ADD l 2", 2),
    ("LATCH.WAIT l", None),
    ("LATCH.WAIT l BLOCK 1", None),
    ("LATCH.DONE l", 1),
    ("LATCH.INFO l", {"count": 1, "waiters": 0}),
    ("LATCH.DONE l 1", 0),
    # elections
    ("ELECT.LEADER e", None),
    ("ELECT.OBSERVE e", None),
    ("ELECT.CAMPAIGN e ann VALUE here PX 60000", 10),
    ("ELECT.CAMPAIGN e bob", None),
    ("ELECT.CAMPAIGN e ann", 10),
    ("ELECT.LEADER e", ["ann", 10, "here"]),
    ("ELECT.OBSERVE e", ["ann", 10, "here"]),
    ("ELECT.OBSERVE e TOKEN 10", None),
    ("ELECT.RESIGN e ann TOKEN 9", 0),
    ("ELECT.RESIGN e ann", 1),
    ("ELECT.CAMPAIGN e bob", 11),
    ("ELECT.LEADER e", ["bob", 11, None]),
    ("ELECT.UNOBSERVE e", 0),
)

ERRORS = (
    ("LOCK.ACQUIRE k bob PX 0", "ERR invalid expire time in 'lock.acquire' command"),
    ("LOCK.ACQUIRE k", "ERR wrong number of arguments for 'lock.acquire' command"),
    ("LOCK.ACQUIRE k bob SHARED EXCLUSIVE", "ERR syntax error"),
    ("LOCK.ACQUIRE text bob", "WRONGTYPE Operation against a key holding the wrong kind of value"),
    ("FENCE k 99 SET result late", "FENCED the lock is not held with token 99, nothing was changed"),
)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("contract")
    with sepakat_server(folder / "data", folder / "sepakat.log") as running:
        yield running


def as_sent(value: object, protocol: int) -> object:
    """A reply as the protocol has it: with RESP2 a map is an array of its names and values."""
    if isinstance(value, list):
        return [as_sent(one, protocol) for one in value]
    if not isinstance(value, dict):
        return value
    pairs = {name: as_sent(one, protocol) for name, one in value.items()}
    return pairs if protocol == 3 else [word for pair in pairs.items() for word in pair]


def without_times(value: Any) -> Any:
    """What is left of lives, as if no time had passed."""
    if isinstance(value, list):
        value = [without_times(one) for one in value]
        if "ttl-ms" in value:
            at = value.index("ttl-ms") + 1
            value[at] = as_if_no_time_had_passed(value[at])
    elif isinstance(value, dict):
        value = {name: without_times(one) for name, one in value.items()}
        if "ttl-ms" in value:
            value["ttl-ms"] = as_if_no_time_had_passed(value["ttl-ms"])
    return value


def as_if_no_time_had_passed(ttl_ms: int) -> int:
    return 60_000 if 0 < ttl_ms <= 60_000 else ttl_ms


@pytest.mark.parametrize("protocol", [2, 3])
def test_rows(server: Server, protocol: int) -> None:
    with redis.Redis(port=server.port, protocol=protocol, decode_responses=True) as client:
        for line, expected in ROWS:
            reply = without_times(client.execute_command(*line.split()))
            shown = "OK" if reply is True else reply
            assert shown == as_sent(expected, protocol), line
            if isinstance(shown, dict) and isinstance(expected, dict):
                assert list(shown) == list(expected), "in this order"
        client.execute_command("SET", "text", "1")
        for line, text in ERRORS:
            with pytest.raises(redis.ResponseError) as refused:
                client.execute_command(*line.split())
            assert str(refused.value) in (text, text.removeprefix("ERR ")), "redis-py takes the first word off some"


@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_what_people_see(server: Server, redis_programs: Redis, protocol: str) -> None:
    typed = "\n".join(
        ["LOCK.ACQUIRE k ann", "LOCK.ACQUIRE k bob", "LOCK.INFO free", "SET text 1", *(line for line, _ in ERRORS)]
    )
    command = [redis_programs.program("redis-cli"), protocol, "--no-raw", "-p", str(server.port)]
    ended = subprocess.run(
        command, env=redis_programs.environment(), input=typed, capture_output=True, text=True, timeout=60, check=True
    )
    lines = [line for line in ended.stdout.splitlines() if line]
    assert lines[:2] == ["(integer) 1", "(nil)"]
    names = ["mode", "token", "holders", "waiters"]
    if protocol == "-3":
        assert [line.split('"')[1] for line in lines[2:6]] == names
        assert '1# "mode" => "free"' in lines[2]
    else:
        assert [line.split('"')[1] for line in lines[2:10:2]] == names
    assert lines[-len(ERRORS) :] == [f"(error) {text}" for _, text in ERRORS]
