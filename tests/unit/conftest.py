"""What unit tests are given: storages, and the program on a command line."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import (
    MemoryStorage,
    SqliteStorage,
    Storage,
    SyncPolicy,
)
from resp_server import cli
from tests.unit.storages import Disk
from tests.unit.terminal import Run


@pytest.fixture(params=["sqlite", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "sqlite":
        folder = tmp_path / "data"
        disk = Disk(SqliteStorage(folder, SyncPolicy.ALWAYS), lambda _: SqliteStorage(folder, SyncPolicy.ALWAYS))
    else:

        def power_cut(storage: Storage) -> Storage:
            assert isinstance(storage, MemoryStorage)
            return storage.crash()

        disk = Disk(MemoryStorage(), power_cut)
    yield disk
    disk.storage.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def any_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever limits a loop of a benchmark: a test is after what it does, and its own process may be the slower one."""
    monkeypatch.setattr("benchmarks.probes.JUDGED_SECONDS", math.inf)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The whole program, in this process."""

    def run(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["sepakat", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run
