"""``sepakat locks``: who holds what, who waits for it, and who waits for whom.

The locks are walked with ``LOCK.SCAN`` and asked about one by one, so what is
shown was true of each of them at a slightly different moment. A circle that is
seen so is said to be seen, not to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cluster.machine.glob import matcher
from resp_server.address import Address
from resp_server.ask import AskError, ask, ask_owner
from resp_server.tables import bytes_of, counted, duration, new_table, print_table, printable

SCANNED_AT_ONCE = 1000
ASKED_AT_ONCE = 100
LOCKS_SHOWN_MAX = 100
HOLDERS_SHOWN_MAX = 10
WAITS_SHOWN_MAX = 100

NOT_ALONE = frozenset({"MOVED", "WRONGTYPE"})
"""Errors of one key among those that were asked about together: another node has it, or it is no lock any more."""


@dataclass(frozen=True, slots=True)
class Locks:
    """What was seen. ``locks`` is LOCK.INFO by key, those that most wait for first.

    ``broken`` is how many deadlocks were broken and ``last`` the last of them,
    None where the server does not tell. There may be more when not ``complete``.
    """

    locks: dict[str, dict[str, Any]]
    edges: list[dict[str, str]]
    broken: int | None
    last: dict[str, Any] | None
    complete: bool

    def as_json(self) -> dict[str, Any]:
        """For programs, under the names of LOCK.INFO and LOCK.GRAPH."""
        return {
            "locks": [{"key": key, **told} for key, told in self.locks.items()],
            "edges": self.edges,
            "deadlocks": self.broken,
            "last": self.last,
            "complete": self.complete,
        }


# Looking


def look(where: Address, password: str, match: str, limit: int) -> Locks:
    """Asks a node about the locks of the whole cluster, ``limit`` at most; `AskError` when it does not answer."""
    pattern = bytes_of(match)
    keys, complete = _held(where, password, pattern, limit)
    graph = _graph(where, password)
    is_wanted = matcher(pattern)
    edges = None if graph is None else [edge for edge in graph["edges"] if is_wanted(bytes_of(edge["key"]))]
    for edge in edges or ():  # a key can be waited for while it is kept free for somebody
        if len(keys) < limit:
            keys.setdefault(edge["key"])
    told = dict(_told(where, password, list(keys)))
    order = sorted(told, key=lambda key: (-len(told[key]["waiters"]), key))
    locks = {key: told[key] for key in order if told[key]["holders"] or told[key]["waiters"]}
    if edges is None:
        edges = list(_edges(locks))
    broken, last = (None, None) if graph is None else (graph["deadlocks"], graph["last"])
    return Locks(locks, edges, broken, last, complete)


def _held(where: Address, password: str, pattern: bytes, limit: int) -> tuple[dict[str, None], bool]:
    """The keys of locks that are held, in no order and each once; whether these are all."""
    keys: dict[str, None] = {}
    cursor = "0"
    while True:
        words = ("LOCK.SCAN", cursor, "MATCH", pattern, "COUNT", str(SCANNED_AT_ONCE))
        ((cursor, found),) = ask(where, words, password=password)
        keys.update(dict.fromkeys(found))
        if len(keys) > limit:
            return dict.fromkeys(islice(keys, limit)), False
        if cursor == "0":
            return keys, True


def _graph(where: Address, password: str) -> dict[str, Any] | None:
    """LOCK.GRAPH; None from a server that does not know it."""
    ((known,),) = ask(where, ("COMMAND", "INFO", "LOCK.GRAPH"), password=password)
    if known is None:
        return None
    (graph,) = ask(where, ("LOCK.GRAPH",), password=password)
    found: dict[str, Any] = graph
    return found


def _told(where: Address, password: str, keys: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """LOCK.INFO of each, unless it is no lock any more."""
    for first in range(0, len(keys), ASKED_AT_ONCE):
        some = keys[first : first + ASKED_AT_ONCE]
        try:
            yield from zip(some, ask(where, *map(_info, some), password=password), strict=True)
        except AskError as error:
            if error.code not in NOT_ALONE:
                raise
            for key in some:
                yield from _told_alone(where, password, key)


def _told_alone(where: Address, password: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        yield key, ask_owner(where, _info(key), password=password)
    except AskError as error:
        if error.code != "WRONGTYPE":
            raise


def _info(key: str) -> tuple[str, bytes]:
    return "LOCK.INFO", bytes_of(key)


def _edges(locks: dict[str, dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Whom each waiter waits for, as LOCK.GRAPH has it."""
    for key, told in locks.items():
        for waiter in told["waiters"]:
            for holder in told["holders"]:
                if holder["owner"] != waiter["owner"]:
                    yield {"waiter": waiter["owner"], "holder": holder["owner"], "key": key}


# Showing


def show(seen: Locks) -> None:
    """Prints it for people: the locks, then who stands in whose way. No name is cut short."""
    console = Console()
    console.print(Text(_headline(seen)), soft_wrap=True)
    if seen.last is not None:
        console.print(Text(f"the last deadlock: {printable(seen.last['cycle'])}"), soft_wrap=True)
    if seen.locks:
        print_table(console, _table(seen.locks))
        if len(seen.locks) > LOCKS_SHOWN_MAX:
            console.print(f"{len(seen.locks) - LOCKS_SHOWN_MAX} more, which fewer wait for: --json or --match")
    for tree in Waits(seen).trees():
        console.print(tree, soft_wrap=True)


def _headline(seen: Locks) -> str:
    waiters = sum(len(told["waiters"]) for told in seen.locks.values())
    words = f"{counted(len(seen.locks), 'lock')}, {counted(waiters, 'waiter')}"
    broken = "" if seen.broken is None else f"; {counted(seen.broken, 'deadlock')} broken so far"
    return words + broken + ("" if seen.complete else "; there are more: choose with --match, or raise --limit")


def _table(locks: dict[str, dict[str, Any]]) -> Table:
    table = new_table(("lock", "mode", "held by"), ("token", "ends in", "waiting"))
    for key, told in islice(locks.items(), LOCKS_SHOWN_MAX):
        start = (printable(key), told["mode"])
        waiting = str(len(told["waiters"]) or "")
        style = "yellow" if waiting else ""
        holders = told["holders"]
        if not holders:
            table.add_row(*map(Text, (*start, "-", str(told["token"]), "-", waiting)), style=style)
        for holder in holders[:HOLDERS_SHOWN_MAX]:
            owner = printable(holder["owner"]) + (f" ({holder['holds']} times)" if holder["holds"] > 1 else "")
            ends = "its connection" if holder["session"] else duration(holder["ttl-ms"])
            table.add_row(*map(Text, (*start, owner, str(holder["token"]), ends, waiting)), style=style)
            start, waiting = ("", ""), ""
        if len(holders) > HOLDERS_SHOWN_MAX:
            table.add_row("", "", f"and {len(holders) - HOLDERS_SHOWN_MAX} more", "", "", "", style=style)
    return table


class Waits:
    """Who waits for whom, as trees: below an owner stand those who wait for what it holds, in the order they came.

    Who waits for several holders of one lock stands below the first of them.
    Owners that stand in no tree wait for each other in circles.
    """

    def __init__(self, seen: Locks) -> None:
        self._seen = seen
        self._told = {(waiter["owner"], key): waiter for key, told in seen.locks.items() for waiter in told["waiters"]}
        self._holders: dict[tuple[str, str], list[str]] = {}
        for edge in seen.edges:
            self._holders.setdefault((edge["waiter"], edge["key"]), []).append(edge["holder"])
        self._below: dict[str, list[tuple[str, str]]] = {}
        for wait, holders in self._holders.items():
            self._below.setdefault(holders[0], []).append(wait)
        self._shown: set[tuple[str, str]] = set()

    def trees(self) -> Iterator[Tree | Text]:
        """What to print, of a bounded length."""
        waiting = {owner for owner, _ in self._holders}
        for owner in self._below:
            if owner not in waiting and len(self._shown) < WAITS_SHOWN_MAX:
                yield self._tree(owner, Tree(Text(printable(owner), style="bold"), guide_style="dim"))
        yield from self._circles()
        if hidden := len(self._holders) - len(self._shown):
            yield Text(f"{counted(hidden, 'wait')} more: --json shows all")

    def _tree(self, owner: str, root: Tree) -> Tree:
        """Not recursive: a chain may be as long as there are owners."""
        open_: list[tuple[str, Tree]] = [(owner, root)]
        while open_:
            owner, tree = open_.pop()
            for wait in self._below.get(owner, ()):
                if wait not in self._shown and len(self._shown) < WAITS_SHOWN_MAX:
                    self._shown.add(wait)
                    open_.append((wait[0], tree.add(Text(self._line(*wait)))))
        return root

    def _line(self, waiter: str, key: str) -> str:
        told = self._told.get((waiter, key))
        how = f", {told['mode']}, for {duration(told['waited-ms'])}" if told else ""
        others = len(self._holders[waiter, key]) - 1
        return f"{printable(waiter)} waits for {printable(key)}{how}{f', held by {others} more' if others else ''}"

    def _circles(self) -> Iterator[Tree | Text]:
        """Owners that no tree begins above; what hangs on a circle is shown below the first of it."""
        for wait in self._holders:
            if wait not in self._shown and len(self._shown) < WAITS_SHOWN_MAX:
                circle = self._circle(wait)
                words = [
                    f"{printable(one)} waits for {printable(key)} held by {printable(by)}" for one, key, by in circle
                ]
                yield Text(f"a circle was seen: {', '.join(words)}", style="bold red")
                owner = circle[0][0]
                yield self._tree(owner, Tree(Text(printable(owner), style="bold"), guide_style="dim"))

    def _circle(self, wait: tuple[str, str]) -> list[tuple[str, str, str]]:
        """Where one comes to who goes from a wait that is in no tree to the holder, to its wait, and so on."""
        path: dict[str, tuple[str, str, str]] = {}
        waits = {waiter: (waiter, key) for waiter, key in self._holders if (waiter, key) not in self._shown}
        while wait[0] not in path:
            holder = self._holders[wait][0]
            path[wait[0]] = (*wait, holder)
            wait = waits[holder]
        owners = list(path)
        return [path[owner] for owner in owners[owners.index(wait[0]) :]]
