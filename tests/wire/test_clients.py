"""Ordinary Redis clients and tools talk to this server with no option set for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis._parsers import _HiredisParser, _RESP2Parser

from tests.redis_binaries import Redis
from tests.servers import HOST, Server, sepakat_server

SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all of these clients."""
    folder = tmp_path_factory.mktemp("clients")
    with sepakat_server(folder / "data", folder / "sepakat.log") as running:
        yield running


# redis-py


@pytest.mark.parametrize("parser", [_HiredisParser, _RESP2Parser], ids=["hiredis", "python"])
@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}], ids=["default", "resp2", "resp3"])
def test_redis_py(server: Server, options: dict[str, Any], parser: Any) -> None:
    pool = redis.ConnectionPool(host=HOST, port=server.port, parser_class=parser, client_name="test", **options)
    with redis.Redis(connection_pool=pool) as client:
        assert client.ping()
        assert client.flushall()
        assert client.set("greeting", "hello", ex=100)
        assert client.get("greeting") == b"hello"
        assert client.get("missing") is None
        assert client.mset({"a": 1, "b": 2})
        assert client.incr("a") == 2
        assert sorted(client.scan_iter()) == [b"a", b"b", b"greeting"]
        assert client.client_getname() in ("test", b"test")
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert client.info()["redis_version"] == "7.4.1"
        assert [one["name"] for one in client.client_list() if one["lib-name"].startswith("redis-py")] == ["test"]
        with client.pipeline(transaction=True) as pipeline:
            assert pipeline.set("c", 1).incr("c").get("missing").execute() == [True, 2, None]
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.lpush("a", 1)
    pool.disconnect()


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}], ids=["default", "resp2", "resp3"])
def test_redis_py_asyncio(server: Server, options: dict[str, Any]) -> None:
    async def use() -> None:
        client = redis.asyncio.Redis(host=HOST, port=server.port, client_name="test", **options)
        try:
            assert await client.ping()
            assert await client.set("async", "1")
            values = await asyncio.gather(*(client.incr("async") for _ in range(20)))
            assert sorted(values) == list(range(2, 22))
            assert await client.get("missing") is None
        finally:
            await client.aclose()

    asyncio.run(use())


def test_a_password_reaches_the_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("password")
    with sepakat_server(folder / "data", folder / "log") as server:
        admin = redis.Redis(host=HOST, port=server.port)
        admin.config_set("requirepass", "secret")
        for protocol in (2, 3):
            with redis.Redis(host=HOST, port=server.port, password="secret", protocol=protocol) as client:
                assert client.ping()
            with redis.Redis(host=HOST, port=server.port, protocol=protocol) as client, pytest.raises(redis.RedisError):
                client.ping()
        admin.config_set("requirepass", "")  # for the probe that stops the server in the end
        admin.close()


# redis-cli


def cli(programs: Redis, server: Server, *arguments: str, typed: str = "") -> str:
    """What redis-cli prints; it must succeed."""
    done = subprocess.run(
        [programs.program("redis-cli"), "-p", str(server.port), *arguments],
        env=programs.environment(),
        input=typed,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS_MAX,
    )
    return done.stdout


@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_redis_cli(redis_programs: Redis, server: Server, protocol: str) -> None:
    assert cli(redis_programs, server, protocol, "SET", "cli", "1") == "OK\n"
    assert cli(redis_programs, server, protocol, "GET", "cli") == "1\n"
    assert cli(redis_programs, server, protocol, "GET", "missing") == "\n"
    assert cli(redis_programs, server, protocol, "INFO", "cluster").splitlines()[0] == "# Cluster"
    typed = "SET typed 1\nGET typed\nMULTI\nINCR typed\nEXEC\n"
    assert cli(redis_programs, server, protocol, typed=typed) == "OK\n1\nOK\nQUEUED\n2\n"


def test_redis_cli_explains_our_commands(redis_programs: Redis, server: Server) -> None:
    shown = cli(redis_programs, server, typed="help lock.acquire\nhelp client kill\n")
    assert "key owner [SHARED|EXCLUSIVE] [PX ms|SESSION] [BLOCK ms] [ID request]" in shown
    assert "[SKIPME YES|NO]" in shown


def test_redis_cli_stat(redis_programs: Redis, server: Server) -> None:
    """It goes on for ever, and prints line by line only to a terminal."""
    reader, terminal = os.openpty()
    command = [redis_programs.program("redis-cli"), "-p", str(server.port), "--stat", "-i", "0.1"]
    process = subprocess.Popen(command, stdout=terminal, stderr=terminal, env=redis_programs.environment())
    os.close(terminal)
    try:
        shown = b""
        while shown.count(b"\n") < 4:
            shown += os.read(reader, 4096)
    finally:
        process.terminate()
        process.wait(SECONDS_MAX)
        os.close(reader)
    title, columns, first, second, *_ = shown.decode().splitlines()
    assert "data" in title
    assert columns.split()[:2] == ["keys", "mem"]
    for line in (first, second):
        assert "M" in line
        assert int(line.split()[0]) >= 0


@pytest.mark.parametrize("mode", ["--bigkeys", "--memkeys"])
def test_redis_cli_walks_the_keys(redis_programs: Redis, server: Server, mode: str) -> None:
    cli(redis_programs, server, "FLUSHALL")
    cli(redis_programs, server, "MSET", "a", "x" * 1000, "b", "y")
    shown = cli(redis_programs, server, mode)
    assert "Sampled 2 keys in the keyspace!" in shown
    assert 'found "a" has' in shown


# redis-benchmark


@pytest.mark.parametrize("options", [[], ["-P", "16"], ["-3"]], ids=["plain", "pipelined", "resp3"])
def test_redis_benchmark(redis_programs: Redis, server: Server, options: list[str]) -> None:
    tests = "ping,set,get,incr,mset"
    command = [redis_programs.program("redis-benchmark"), "-h", HOST, "-p", str(server.port), "-n", "1000", "-c", "20"]
    done = subprocess.run(
        [*command, "-t", tests, "--csv", *options],
        env=redis_programs.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS_MAX,
    )
    assert done.stderr == ""
    rows = [line.split(",") for line in done.stdout.splitlines()]
    names = [row[0].strip('"') for row in rows[1:]]
    assert names == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"]
    assert all(float(row[1].strip('"')) > 0 for row in rows[1:])
