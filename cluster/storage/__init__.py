"""Where a node keeps its log and its checkpoint: the contract, SQLite, and the twin in memory."""

from cluster.storage.contract import (
    Entry,
    FolderError,
    HardState,
    Identity,
    Recovered,
    Row,
    Snapshot,
    Storage,
    StorageError,
    SyncPolicy,
)
from cluster.storage.memory import MemoryStorage
from cluster.storage.sqlite import SqliteStorage

__all__ = [
    "Entry",
    "FolderError",
    "HardState",
    "Identity",
    "MemoryStorage",
    "Recovered",
    "Row",
    "Snapshot",
    "SqliteStorage",
    "Storage",
    "StorageError",
    "SyncPolicy",
]
