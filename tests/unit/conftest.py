"""What unit tests are given: storages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.storage import (
    MemoryStorage,
    SqliteStorage,
    Storage,
    SyncPolicy,
)
from tests.unit.storages import Disk


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
