"""Fixtures every kind of test may use: our server as a process, and a real Redis beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest

from tests import redis_binaries
from tests.servers import Server, sepakat_server

# Machines differ and are shared: how long an example takes, or is made in, proves nothing.
hypothesis.settings.register_profile("sepakat", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("sepakat")


class StartSepakat(Protocol):
    """Starts a server with these flags of ``sepakat serve``; again on the same folder after it was killed."""

    def __call__(self, *flags: str) -> Server: ...


@pytest.fixture
def start_sepakat(tmp_path: Path) -> Iterator[StartSepakat]:
    """Starts servers that share one data folder, so one at a time; all are stopped when the test ends."""
    with ExitStack() as servers:

        def start(*flags: str) -> Server:
            return servers.enter_context(sepakat_server(tmp_path / "data", tmp_path / "sepakat.log", *flags))

        yield start


@pytest.fixture
def sepakat(start_sepakat: StartSepakat) -> Server:
    """A running server with default settings and an empty folder."""
    return start_sepakat()


@pytest.fixture(scope="session")
def redis_programs() -> redis_binaries.Redis:
    """The real Redis programs; skips the test, saying why, where they do not run."""
    try:
        return redis_binaries.find()
    except redis_binaries.NoRedis as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def real_redis(redis_programs: redis_binaries.Redis) -> Iterator[Server]:
    """A real redis-server, empty when the module's first test starts."""
    with redis_binaries.redis_server() as server:
        yield server
