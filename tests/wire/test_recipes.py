"""The snippets of docs/recipes.md, each run as it is printed, but for the port and for how long a shell sleeps."""

from __future__ import annotations

import contextlib
import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.clusters import own_environment
from tests.redis_binaries import Redis
from tests.servers import START_SECONDS, Server, sepakat_server

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
RESULTS = {"{job:7}:result": b"done", "{scheduler}:last": b"now", "{leader}:last": b"now", "{catalogue}:version": b"2"}


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


class Enough(Exception):
    """Ends a leader's term."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with sepakat_server(tmp_path / "data", tmp_path / "log") as server:
        yield server


def lead_twice() -> Iterator[None]:
    yield
    raise Enough


def test_python(server: Server) -> None:
    """One after the other, as a reader would paste them; nothing stays locked."""
    terms: list[Iterator[None]] = []

    def lead() -> None:
        terms[:] = terms or [lead_twice()]
        try:
            next(terms[0])
        except Enough:
            terms.clear()
            raise

    names: dict[str, Any] = {"work": lambda: "done", "lead": lead, "read": lambda: None, "write": lambda: None}
    with warnings.catch_warnings(), redis.Redis(port=server.port) as other:
        warnings.simplefilter("ignore", ResourceWarning)  # of clients the reader goes on using
        for snippet in snippets("python"):
            if "OBSERVE" in snippet:
                other.execute_command("ELECT.CAMPAIGN", "leader", "another")
            with contextlib.suppress(Enough):
                exec(compile(snippet.replace("6379", str(server.port)), "recipes.md", "exec"), names)
        assert names["candidate"] == b"another"
        other.execute_command("ELECT.RESIGN", "leader", "another")
        names["locks"].close()
    check(server, *RESULTS)


def test_shell(server: Server, redis_programs: Redis, tmp_path: Path) -> None:
    """The leader is deposed while it sleeps."""
    cli = f"{redis_programs.program('redis-cli')} -p {server.port}"
    for snippet in snippets("sh"):
        script = tmp_path / "script"
        deposed = snippet.replace("sleep 5", 'redis-cli ELECT.RESIGN leader "$me"')
        script.write_text("work() { echo done; }\n" + deposed.replace("redis-cli", cli))
        ended = subprocess.run(
            ["sh", str(script)],
            env={**own_environment(), **redis_programs.environment()},
            capture_output=True, text=True, timeout=START_SECONDS,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, ""), snippet
    check(server, "{job:7}:result", "{leader}:last")


def check(server: Server, *written: str) -> None:
    """What the snippets were to write is there, and no lock is."""
    with redis.Redis(port=server.port) as client:
        assert client.execute_command("LOCK.SCAN", 0, "COUNT", 1000)[1] == []
        assert client.execute_command("ELECT.LEADER", "leader") is None
        assert {key: client.get(key) for key in written} == {key: RESULTS[key] for key in written}
