"""Whose folder it is, and which files are taken for ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cluster.storage import (
    Entry,
    FolderError,
)
from tests.unit.storages import (
    entry,
    opened,
    row,
    write_checkpoint,
)


def test_a_folder_in_use_is_refused_until_it_is_closed(folder: Path) -> None:
    first = opened(folder)
    first.append([entry(1)])
    with pytest.raises(FolderError, match=r"in use by another server \(pid \d+\)"):
        opened(folder)
    first.append([entry(2)])
    first.close()
    with closing(opened(folder)) as second:
        assert second.load(0).last_index == 2


@pytest.mark.parametrize("name", ["log.sqlite", "keyspace.sqlite"])
def test_a_newer_format_is_refused_and_left_alone(folder: Path, name: str) -> None:
    opened(folder).close()
    with closing(sqlite3.connect(folder / name)) as database:
        database.execute("PRAGMA user_version = 99")
    before = (folder / name).read_bytes()
    with pytest.raises(FolderError, match=r"newer version \(format 99, this program reads up to 3\): upgrade"):
        opened(folder)
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("name", ["log.sqlite", "keyspace.sqlite"])
def test_an_older_format_is_refused_and_left_alone(folder: Path, name: str) -> None:
    opened(folder).close()
    with closing(sqlite3.connect(folder / name)) as database:
        database.execute("PRAGMA user_version = 2")
    before = (folder / name).read_bytes()
    with pytest.raises(
        FolderError, match=rf"{name} was written by an older version \(format 2\).*: start with an empty"
    ):
        opened(folder)
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("name", ["log.sqlite", "keyspace.sqlite"])
@pytest.mark.parametrize(
    ("statement", "complaint"),
    [("PRAGMA application_id = 7", "another program's"), ("CREATE TABLE t (x)", "another program's")],
)
def test_another_programs_database_is_refused_and_left_alone(
    folder: Path, name: str, statement: str, complaint: str
) -> None:
    opened(folder).close()
    (folder / name).unlink()
    with closing(sqlite3.connect(folder / name)) as database:
        database.execute(statement)
    before = (folder / name).read_bytes()
    with pytest.raises(FolderError, match=complaint):
        opened(folder)
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("name", ["log.sqlite", "keyspace.sqlite"])
def test_a_file_that_is_no_database_is_refused(folder: Path, name: str) -> None:
    opened(folder).close()
    (folder / name).write_bytes(b"this is text, not a database" * 100)
    with pytest.raises(FolderError, match=rf"{name} is not a database of this program: .*--dir"):
        opened(folder)


def test_a_damaged_log_is_refused_when_read(folder: Path) -> None:
    with closing(opened(folder)) as storage:
        storage.append([Entry(0, index, 1, b"x" * 3000) for index in range(1, 200)])
    path = folder / "log.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xa5" * (len(content) - 8192))
    with pytest.raises(FolderError, match=r"log.sqlite is damaged .* restore"), closing(opened(folder)) as storage:
        list(storage.entries(0, 1))


def test_a_foreign_folder_is_refused_and_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("chapter one")
    with pytest.raises(FolderError, match=r"'thesis\.txt'.*--dir"):
        opened(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_hidden_files_and_lost_and_found_do_not_make_a_folder_foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / ".gitkeep").touch()
    (folder / "lost+found").mkdir()
    opened(folder).close()
    assert (folder / "log.sqlite").exists()


@pytest.mark.parametrize("missing", ["log.sqlite", "keyspace.sqlite"])
def test_a_folder_that_lost_one_of_its_files_is_refused(folder: Path, missing: str) -> None:
    with closing(opened(folder)) as storage:
        storage.append([entry(1)])
        write_checkpoint(storage, row(b"a"))
    (folder / missing).unlink()
    with pytest.raises(FolderError, match=rf"{missing} is missing"):
        opened(folder)


def test_a_start_cut_short_between_making_the_files_is_taken_up(folder: Path) -> None:
    opened(folder).close()
    (folder / "log.sqlite").unlink()
    with closing(opened(folder)) as storage:
        storage.append([entry(1)])
        assert storage.load(0).last_index == 1


def test_a_folder_that_cannot_be_made_or_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(FolderError, match=r"cannot be used \(.*--dir"):
            opened(folder)
    blocked = tmp_path / "blocked"
    opened(blocked).close()
    (blocked / "log.sqlite").unlink()
    (blocked / "log.sqlite").mkdir()
    with pytest.raises(FolderError, match=r"log\.sqlite"):
        opened(blocked)


def test_a_refused_folder_is_not_left_locked(folder: Path) -> None:
    opened(folder).close()
    content = (folder / "log.sqlite").read_bytes()
    (folder / "log.sqlite").write_bytes(b"nonsense " * 1000)
    with pytest.raises(FolderError):
        opened(folder)
    (folder / "log.sqlite").write_bytes(content)
    opened(folder).close()
