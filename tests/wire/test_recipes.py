"""The snippets of docs/recipes.md, each run as it is printed, but for the port and for how long a shell sleeps."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.clusters import own_environment
from tests.redis_binaries import Redis
from tests.servers import START_SECONDS, Server, sepakat_server, wait_until

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
RESULTS = {"{job:7}:result": b"done", "{scheduler}:last": b"now", "{leader}:last": b"now", "{catalogue}:version": b"2"}


def snippets(language: str) -> list[str]:
    """All of one language, in their order; "" for what belongs to none."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [text for named, text in blocks if named == language]


class Enough(Exception):
    """Ends a leader's term."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with sepakat_server(tmp_path / "data", tmp_path / "log") as server:
        yield server


def lead_twice() -> Iterator[None]:
    yield
    raise Enough


def test_python(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would paste them; nothing stays locked."""
    terms: list[Iterator[None]] = []

    def lead() -> None:
        terms[:] = terms or [lead_twice()]
        try:
            next(terms[0])
        except Enough:
            terms.clear()
            raise

    def work(*payload: bytes) -> str:
        if payload:
            names["jobs"].stop()
        return "done"

    names: dict[str, Any] = {"work": work, "lead": lead, "read": lambda: None, "write": lambda: None}
    monkeypatch.setattr("signal.signal", lambda *_: None)  # who runs the tests has handlers of its own
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
        names["queues"].close()
        assert other.get("{jobs}:resize:10") == b"done"
    check(server, *RESULTS)
    check_jobs(server)


# The shell


@pytest.fixture
def cli(server: Server, redis_programs: Redis) -> str:
    return f"{redis_programs.program('redis-cli')} -p {server.port}"


class Script:
    """A snippet as a program of its own, in a process group of its own; ``work`` is what it does with the lock."""

    def __init__(self, snippet: str, cli: str, programs: Redis, folder: Path, work: str) -> None:
        path = folder / "script"
        path.write_text(f"work() {{ {work}; }}\n{snippet}".replace("redis-cli", cli))
        self._complaints = folder / "complaints"  # no pipe: what outlives the script would keep it open
        with self._complaints.open("w") as complaints:
            self.process = subprocess.Popen(
                ["sh", str(path)],
                env={**own_environment(), **programs.environment()},
                stdout=subprocess.DEVNULL, stderr=complaints, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_gone():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self) -> tuple[int, str]:
        """Its exit code and what it complained of."""
        return self.process.wait(START_SECONDS), self._complaints.read_text()

    def is_gone(self) -> bool:
        """Whether nothing that it started runs any more."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


def test_shell(server: Server, cli: str, redis_programs: Redis, tmp_path: Path) -> None:
    """The leader is deposed while it sleeps."""
    for snippet in snippets("sh"):
        deposed = snippet.replace("sleep 5", 'redis-cli ELECT.RESIGN leader "$me"')
        with Script(deposed, cli, redis_programs, tmp_path, "echo done") as script:
            assert script.wait() == (0, ""), snippet
    check(server, "{job:7}:result", "{leader}:last")
    check_jobs(server)


@pytest.fixture
def renewing() -> str:
    """The script that renews its lock, in more of a hurry."""
    [snippet] = [snippet for snippet in snippets("sh") if "LOCK.EXTEND" in snippet]
    assert "sleep 20" in snippet
    return snippet.replace("sleep 20", "sleep 0.05").replace("60000", "5000")


def test_a_shell_script_renews(server: Server, cli: str, redis_programs: Redis, renewing: str, tmp_path: Path) -> None:
    """It works until the lock was renewed three times."""
    work = "until redis-cli INFO commandstats | grep -q lock.extend:calls=3; do sleep 0.05; done; echo done"
    with Script(renewing, cli, redis_programs, tmp_path, work) as script:
        assert script.wait() == (0, "")
    check(server, "{job:7}:result")


@pytest.mark.parametrize("end", ["the lock is broken", "killed"])
def test_nothing_of_a_shell_script_outlives_it(
    server: Server, cli: str, redis_programs: Redis, renewing: str, tmp_path: Path, end: str
) -> None:
    """Or it would renew the lock for ever."""
    work = "while kill -0 $$ 2>/dev/null; do sleep 0.05; done"
    with redis.Redis(port=server.port) as client, Script(renewing, cli, redis_programs, tmp_path, work) as script:
        wait_until(lambda: client.execute_command("LOCK.SCAN", 0)[1])
        if end == "killed":
            script.process.kill()
        else:
            assert client.execute_command("LOCK.BREAK", "job:7") == 1
        code, _ = script.wait()
        assert code == (-signal.SIGKILL if end == "killed" else -signal.SIGTERM)
        wait_until(script.is_gone)
        wait_until(lambda: not client.execute_command("LOCK.SCAN", 0)[1])
        assert client.get("{job:7}:result") is None


def test_what_is_typed(server: Server, cli: str, redis_programs: Redis) -> None:
    """The lock is there as long as the program it was typed into."""
    [typed] = snippets("")
    program = subprocess.Popen(
        cli.split(), env=redis_programs.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(typed)
    program.stdin.flush()
    assert int(program.stdout.readline()) > 0
    with redis.Redis(port=server.port) as client:
        assert client.execute_command("LOCK.SCAN", 0)[1] == [b"maintenance"]
        program.kill()
        program.communicate()
        wait_until(lambda: not client.execute_command("LOCK.SCAN", 0)[1])


# Node.js

STUBS = """
class Enough extends Error {}
let terms = 0;
const read = async () => {}, write = async () => {}, work = async () => "done";
const lead = async () => { if (terms++) throw new Enough(); };
"""
EACH = """
try {
%s
} catch (error) { if (!(error instanceof Enough)) throw error; }
"""


def modules(folder: Path) -> Path:
    """Where Node.js finds ioredis; skips the test, saying why, where it does not."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("no node and npm on the PATH")
    shared = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, timeout=START_SECONDS).stdout.strip()
    known = [Path(place) for place in [*os.environ.get("NODE_PATH", "").split(os.pathsep), shared] if place]
    for place in [*known, *(parent / "node_modules" for parent in folder.parents)]:
        if (place / "ioredis").is_dir():
            return place
    pytest.skip("ioredis is neither installed globally nor on NODE_PATH")


def test_node(server: Server, tmp_path: Path) -> None:
    """The leader ends its second term itself."""
    (tmp_path / "node_modules").symlink_to(modules(Path(__file__)))
    program = [EACH % snippet if snippet.startswith("await ") else snippet for snippet in snippets("js")]
    program[0] = program[0].replace("6379", str(server.port))
    script = tmp_path / "script.mjs"
    script.write_text("".join([program[0], STUBS, *program[1:], "redis.disconnect();\n"]))
    ended = subprocess.run(["node", str(script)], capture_output=True, text=True, timeout=START_SECONDS)
    assert (ended.returncode, ended.stderr) == (0, "")
    check(server, "{job:7}:result", "{scheduler}:last")
    check_jobs(server)
    with redis.Redis(port=server.port) as client:
        assert client.get("{catalogue}:version") == b"1"


def check(server: Server, *written: str) -> None:
    """What the snippets were to write is there, and no lock is."""
    with redis.Redis(port=server.port) as client:
        assert client.execute_command("LOCK.SCAN", 0, "COUNT", 1000)[1] == []
        assert client.execute_command("ELECT.LEADER", "leader") is None
        assert {key: client.get(key) for key in written} == {key: RESULTS[key] for key in written}


def check_jobs(server: Server) -> None:
    """Every job is done."""
    with redis.Redis(port=server.port, protocol=3) as client:
        told = client.execute_command("Q.INFO", "jobs")
        assert told[b"acked"] == told[b"pushed"] > 0
