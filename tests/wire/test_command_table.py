"""What the table says of Redis's commands is what Redis says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hiredis
import pytest

from resp_server.commands.table import Table
from tests.servers import Server, sepakat_server

OURS = (
    "LOCK.",
    "SEM.",
    "LATCH.",
    "ELECT.",
    "Q.",
    "CACHE.",
    "RAFT.",
    "PEER",
    "FENCE",
    "DEBUG|",
)  # in Redis DEBUG's subcommands are no commands


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("table")
    with sepakat_server(folder / "data", folder / "sepakat.log") as running:
        yield running


def ask(server: Server, *words: str) -> Any:
    """One reply in RESP2."""
    reader = hiredis.Reader(encoding="utf-8")
    with server.connect() as connection:
        connection.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub takes one word
        while (reply := reader.gets()) is False:
            reader.feed(connection.recv(65536))
    return reply


def facts(server: Server, names: list[str]) -> dict[str, Any]:
    """Arity, flags, key positions and categories by name, of the commands the server knows."""
    entries = [entry for entry in ask(server, "COMMAND", "INFO", *names) if entry is not None]
    return {entry[0]: (entry[1], sorted(entry[2]), *entry[3:6], sorted(entry[6])) for entry in entries}


def test_commands_of_redis_are_described_as_redis_describes_them(server: Server, real_redis: Server) -> None:
    names = [route.command.full_name for route in Table().everything()]
    theirs = facts(real_redis, names)
    ours = facts(server, names)
    assert sorted(ours) == sorted(names)
    assert {name: ours[name] for name in theirs} == theirs
    unknown = [name.upper() for name in names if name not in theirs]
    assert [name for name in unknown if not name.startswith(OURS)] == []


def documentation(server: Server, name: str) -> dict[str, Any]:
    """What COMMAND DOCS says of one command."""
    fields = ask(server, "COMMAND", "DOCS", name)[1]
    return dict(zip(fields[::2], fields[1::2], strict=True))


@pytest.mark.parametrize("name", ["ping", "set", "client|kill", "config"])
def test_documentation_has_the_same_fields(server: Server, real_redis: Server, name: str) -> None:
    ours, theirs = documentation(server, name), documentation(real_redis, name)
    assert list(ours) == [field for field in theirs if field != "history"]
    assert (ours["since"], ours["group"]) == (theirs["since"], theirs["group"])
