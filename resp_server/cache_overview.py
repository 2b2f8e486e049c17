"""``sepakat cache``: what the caches of all nodes hold, how well they do, and what they say to each other.

Each node is asked by itself about its own cache, so what is shown together need
not have been true in the same moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resp_server import address
from resp_server.address import Address
from resp_server.ask import AskError, ask
from resp_server.tables import counted, new_table, print_table, printable

PEER_TIMEOUT_S = 1.0
"""How long each of the others has to answer."""

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Cache:
    """One node's: CACHE.STATS, CACHE.TRAFFIC and CACHE.TOP, all None when the node did not answer."""

    node: str
    address: str
    stats: dict[str, Any] | None = None
    traffic: list[dict[str, Any]] | None = None
    top: list[dict[str, Any]] | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Hot:
    """A line that is read much: how often on all nodes, its size, and where it is, as ``n1 S``."""

    key: str
    reads: int
    bytes: int
    where: list[str]


# Looking


def look(where: Address, password: str, top: int) -> list[Cache]:
    """Asks a node who belongs to its cluster, then all about their caches; `AskError` when that one does not answer."""
    calls = _questions(top)
    text, nodes, *own = ask(where, ("INFO", "sepakat"), ("RAFT.NODES",), *calls, password=password)
    told = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def seen(node: dict[str, Any]) -> Cache:
        name = node["id"]
        if name == told["node_id"]:
            return Cache(name, node["address"], *own)
        try:
            answers = ask(address.parse(node["address"]), *calls, password=password, timeout_s=PEER_TIMEOUT_S)
        except (AskError, ValueError):
            return Cache(name, node["address"])
        return Cache(name, node["address"], *answers)

    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        return list(pool.map(seen, nodes))


def _questions(top: int) -> tuple[tuple[str, ...], ...]:
    return ("CACHE.STATS",), ("CACHE.TRAFFIC",), ("CACHE.TOP", "COUNT", str(top))


def hottest(caches: list[Cache], top: int) -> list[Hot]:
    """The lines that were read most on all nodes together, as far as they are among the most read of any."""
    found: dict[str, Hot] = {}
    for cache in caches:
        for line in cache.top or ():
            key, here = line["key"], f"{cache.node} {line['state']}"
            known = found.get(key, Hot(key, 0, 0, []))
            size_bytes = max(known.bytes, line["bytes"])
            found[key] = Hot(key, known.reads + line["reads"], size_bytes, [*known.where, here])
    return sorted(found.values(), key=lambda one: (-one.reads, one.key))[:top]


# Showing


def show(caches: list[Cache], top: int) -> None:
    """Prints it for people: the nodes, the messages between them, the lines that are read most."""
    console = Console()
    console.print(Text(_headline(caches)), soft_wrap=True)
    print_table(console, _nodes(caches))
    silent = [cache.node for cache in caches if cache.stats is None]
    if silent:
        console.print(Text(f"no answer from {', '.join(silent)}", style="yellow"), soft_wrap=True)
    if any(sum(_exchanged(row)) for cache in caches for row in cache.traffic or ()):
        print_table(console, _messages([cache for cache in caches if cache.traffic is not None]))
    hot = hottest(caches, top)
    if hot:
        print_table(console, _lines(hot))


def _headline(caches: list[Cache]) -> str:
    told = [cache.stats for cache in caches if cache.stats is not None]
    lines, hits, misses = (sum(stats[name] for stats in told) for name in ("lines", "hits", "misses"))
    return f"{counted(lines, 'line')} on {counted(len(told), 'node')}, hit ratio {_ratio(hits, misses)}"


def _ratio(hits: int, misses: int) -> str:
    return f"{100 * hits / (hits + misses):.1f} %" if hits + misses else "-"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes >= MIB else f"{size_bytes / 1024:.1f} KiB"


_COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("lines", lambda stats: str(stats["lines"])),
    ("M", lambda stats: str(stats["modified"])),
    ("E", lambda stats: str(stats["exclusive"])),
    ("S", lambda stats: str(stats["shared"])),
    ("bytes", lambda stats: f"{_size(stats['bytes'])} of {_size(stats['max-bytes'])}"),
    ("hits", lambda stats: str(stats["hits"])),
    ("misses", lambda stats: str(stats["misses"])),
    ("ratio", lambda stats: _ratio(stats["hits"], stats["misses"])),
    ("written back", lambda stats: str(stats["write-backs"])),
    ("evicted", lambda stats: str(stats["evictions"])),
    ("invalidated", lambda stats: str(stats["invalidations-received"])),
    ("leases lost", lambda stats: str(stats["leases-lost"])),
)


def _nodes(caches: list[Cache]) -> Table:
    table = new_table(("node",), tuple(name for name, _ in _COLUMNS))
    for cache in caches:
        stats = cache.stats
        cells = ["-" if stats is None else shown(stats) for _, shown in _COLUMNS]
        table.add_row(*map(Text, (printable(cache.node), *cells)), style="yellow" if stats is None else "")
    return table


def _messages(caches: list[Cache]) -> Table:
    """Sent and received of each kind; a kind that nobody sent or got is left out."""
    table = new_table(("messages, sent / received",), tuple(printable(cache.node) for cache in caches))
    by_kind: dict[str, dict[str, tuple[int, int]]] = {}
    for cache in caches:
        for row in cache.traffic or ():
            by_kind.setdefault(row["kind"], {})[cache.node] = _exchanged(row)
    for kind, counts in by_kind.items():
        if any(sum(pair) for pair in counts.values()):
            cells = (" / ".join(map(str, counts.get(cache.node, (0, 0)))) for cache in caches)
            table.add_row(*map(Text, (kind, *cells)))
    return table


def _exchanged(row: dict[str, Any]) -> tuple[int, int]:
    return row["sent"], row["received"]


def _lines(hot: list[Hot]) -> Table:
    table = new_table(("most read", "where"), ("reads", "bytes"))
    for cells in _rows(hot):
        table.add_row(*map(Text, cells))
    return table


def _rows(hot: list[Hot]) -> Iterator[tuple[str, ...]]:
    for line in hot:
        yield printable(line.key), ", ".join(map(printable, line.where)), str(line.reads), str(line.bytes)
