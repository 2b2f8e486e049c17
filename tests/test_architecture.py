"""The rules of the house, read off the source: which way imports go, and what the core may not touch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("cluster", "resp_server") for path in (ROOT / package).rglob("*.py"))
MACHINE = [path for path in SOURCES if path.is_relative_to(ROOT / "cluster" / "machine")]
CORE = [path for path in SOURCES if path.is_relative_to(ROOT / "cluster")]

# Who may import whom. A package may always import itself; the longest prefix that matches decides, and there is one.
ARROWS = {
    "cluster.storage": {"cluster.storage"},
    "cluster.machine": {"cluster.machine", "cluster.storage.contract", "cluster.deadlock"},
    "cluster.raft": {"cluster.raft", "cluster.storage.contract"},
    "cluster.ring": {"cluster.ring", "cluster.machine.slots"},
    "cluster.wire": {"cluster.raft.messages", "cluster.ring.slots"},
    "cluster.cache": {"cluster.cache", "cluster.batch", "cluster.machine", "cluster.raft.messages"},
    "cluster.deadlock": set(),
    # Around a shard, from the inside out: nobody knows who stands further down.
    "cluster.contacts": {"cluster.raft.messages"},
    "cluster.credit": {"cluster.raft.messages"},
    "cluster.pace": set(),
    "cluster.snapshot_files": {"cluster.raft.messages", "cluster.storage.contract"},
    "cluster.snapshots": {"cluster.snapshot_files", "cluster.raft", "cluster.machine", "cluster.storage.contract"},
    "cluster.atlas": {"cluster.machine"},
    "cluster.outcomes": {"cluster.machine"},
    "cluster.batch": {"cluster.machine"},
    "cluster.outstanding": {"cluster.batch", "cluster.machine.reply"},
    "cluster.forwarding": {"cluster.batch", "cluster.raft.messages", "cluster.raft.patience"},
    "cluster.wishes": {"cluster.batch", "cluster.machine.reply", "cluster.raft"},
    "cluster.clients": {"cluster.outstanding", "cluster.batch", "cluster.machine"},
    "cluster.waits": {"cluster.clients", "cluster.outcomes", "cluster.machine", "cluster.raft.messages"},
    "cluster.carrying": {"cluster.waits", "cluster.clients", "cluster.outcomes", "cluster.batch", "cluster.machine",
                         "cluster.raft.membership", "cluster.storage.contract"},
    "cluster.hosting": {"cluster.carrying", "cluster.forwarding", "cluster.outcomes", "cluster.batch",
                        "cluster.machine", "cluster.raft"},
    "cluster.gate": {"cluster.cache", "cluster.batch", "cluster.raft.messages"},
    "cluster.leadership": {"cluster.gate", "cluster.cache", "cluster.hosting", "cluster.forwarding", "cluster.clients",
                           "cluster.batch", "cluster.machine", "cluster.raft"},
    "cluster.shard": {"cluster.leadership", "cluster.gate", "cluster.hosting", "cluster.carrying", "cluster.clients",
                      "cluster.waits", "cluster.wishes",
                      "cluster.forwarding", "cluster.batch", "cluster.outcomes", "cluster.snapshots", "cluster.atlas",
                      "cluster.contacts", "cluster.pace", "cluster.machine", "cluster.raft", "cluster.ring",
                      "cluster.storage.contract"},
    "cluster.doubt": {"cluster.shard", "cluster.cache", "cluster.raft"},
    "cluster.moves": {"cluster.node", "cluster.shard", "cluster.atlas", "cluster.ring", "cluster.raft"},
    "cluster.contention": {"cluster.shard", "cluster.machine", "cluster.raft.messages"},
    "cluster.detector": {"cluster.node", "cluster.contention", "cluster.deadlock", "cluster.machine",
                         "cluster.raft.messages", "cluster.ring"},
    "cluster.detection": {"cluster.node", "cluster.shard", "cluster.detector", "cluster.contention",
                          "cluster.raft.messages"},
    "cluster.courier": {"cluster.node", "cluster.shard", "cluster.machine", "cluster.ring"},
    "cluster.coherence": {"cluster.node", "cluster.shard", "cluster.cache", "cluster.clients", "cluster.batch",
                          "cluster.machine", "cluster.raft", "cluster.ring", "cluster.storage.contract"},
    "cluster.silence": {"cluster.node", "cluster.shard", "cluster.batch"},
    "cluster.node": {"cluster"},
    "cluster.status": {"cluster.node", "cluster.shard", "cluster.raft", "cluster.ring"},
    "resp_server.protocol": {"resp_server.protocol", "cluster.machine.reply"},
    "resp_server.edge": {"resp_server", "cluster"},
    "resp_server.cli": {"resp_server"},
    "resp_server": {"resp_server", "cluster"},
}  # fmt: skip

# The core is handed time, chance and sockets. Its storage alone touches the system, and no clock.
FORBIDDEN_IN_CORE = {"trio", "socket", "ssl", "select", "selectors", "time", "datetime", "random", "secrets", "uuid"}
DECIDING = {"resp_server.steps", "resp_server.holding", "resp_server.consuming"}  # for clients, what to ask next
STORAGE_MAY = {"sqlite3", "os", "fcntl", "pathlib"}
OUTSIDE_STORAGE = {"sqlite3", "os", "fcntl", "pathlib", "subprocess", "threading", "asyncio"}


def module_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module a file imports, as dotted names; names imported from a package count as its modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(importer: str, imported: str) -> bool:
    """Whether the arrow is one of `ARROWS`."""
    rule = max((name for name in ARROWS if f"{importer}.".startswith(f"{name}.")), key=len)
    return any(f"{imported}.".startswith(f"{name}.") for name in (*ARROWS[rule], rule))


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_arrows_go_one_way(path: Path) -> None:
    own = [name for name in imports_of(path) if name.split(".")[0] in ("cluster", "resp_server")]
    assert [name for name in own if not allowed(module_of(path), name)] == []


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_trio_is_imported_in_the_edge_only(path: Path) -> None:
    uses_trio = any(name.split(".")[0] == "trio" for name in imports_of(path))
    assert not uses_trio or module_of(path).startswith("resp_server.edge")


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_only_the_client_needs_a_client_library(path: Path) -> None:
    """Who runs a server need not have redis-py; what decides what to ask needs neither it nor sockets nor a clock."""
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert "redis" not in roots or module_of(path).startswith("resp_server.client")
    assert module_of(path) not in DECIDING or roots.isdisjoint(FORBIDDEN_IN_CORE | OUTSIDE_STORAGE)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_only_the_program_s_entry_imports_the_edge(path: Path) -> None:
    uses_edge = any(name.startswith("resp_server.edge") for name in imports_of(path))
    assert not uses_edge or module_of(path).startswith(("resp_server.edge", "resp_server.cli"))


@pytest.mark.parametrize("path", CORE, ids=module_of)
def test_the_core_has_no_clock_chance_or_socket(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert roots & FORBIDDEN_IN_CORE == set()
    if not module_of(path).startswith("cluster.storage"):
        assert roots & OUTSIDE_STORAGE == set()


@pytest.mark.parametrize("path", MACHINE, ids=module_of)
def test_the_machine_depends_on_no_hash_order(path: Path) -> None:
    """Sets of byte strings come in another order in every process, and so does anything built on ``hash``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "hash", f"hash() in line {node.lineno}"
        loops = [node.iter] if isinstance(node, ast.For | ast.comprehension) else []
        for looped in loops:
            is_set = isinstance(looped, ast.Set | ast.SetComp) or (
                isinstance(looped, ast.Call)
                and isinstance(looped.func, ast.Name)
                and looped.func.id in ("set", "frozenset")
            )
            assert not is_set, f"a set is iterated in line {looped.lineno}"


def test_no_drawers() -> None:
    """No module is named for having no subject."""
    drawer = re.compile(r"(^|_)(util|utils|helper|helpers|manager|common|base|misc)(_|$)")
    assert [module_of(path) for path in SOURCES if drawer.search(path.stem)] == []


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    """The reader of imports finds each form, so that the tests above cannot pass by blindness."""
    sample = tmp_path / "sample.py"
    sample.write_text("import trio.lowlevel\nfrom random import choice\ndef f():\n    from cluster import node\n")
    assert list(imports_of(sample)) == ["trio.lowlevel", "random.choice", "cluster.node"]
    assert not allowed("cluster.machine.locks", "resp_server.session")
    assert not allowed("cluster.machine.locks", "cluster.node")
    assert not allowed("cluster.raft.core", "cluster.machine.machine"), "entries are opaque to Raft"
    assert not allowed("cluster.machine.machine", "cluster.raft.core")
    assert not allowed("cluster.ring.placement", "cluster.raft.core"), "who is where is arithmetic"
    assert not allowed("cluster.shard", "cluster.moves"), "a shard does not know where it should be"
    assert not allowed("cluster.outcomes", "cluster.hosting")
    assert not allowed("resp_server.protocol.replies", "resp_server.session")
    assert allowed("resp_server.edge.app", "cluster.node")
