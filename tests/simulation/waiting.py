"""Who waits for whom, as the rules of locks have it: a plain graph, searched from end to end.

Written from the contract and not from the product, which asks for the edges of
one owner at a time: here every wait and every owner is a node. An owner goes on
when all its waits have ended; a wait ends when those it needs have given way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from cluster.machine.lock import Lock

if TYPE_CHECKING:
    from cluster.machine.machine import Machine
    from cluster.machine.waiters import Waiter

Node: TypeAlias = "bytes | tuple[int, int]"
"""An owner, or a wait by its shard and number."""

Graph: TypeAlias = "dict[Node, list[Node]]"

FOR_LOCKS = (b"LOCK.ACQUIRE", b"LOCK.MACQUIRE")


def owner_in(args: list[bytes]) -> bytes:
    """Who asks for locks, places or an office in a call."""
    return args[2 + int(args[1])] if args[0] == b"LOCK.MACQUIRE" else args[2]


def asks_alone(args: list[bytes]) -> bool:
    """Whether a call for locks wants them for itself."""
    return b"SHARED" not in args[args.index(owner_in(args), 2) + 1 :]


def has_enough(lock: object, owner: bytes, *, alone: bool) -> bool:
    """Whether the owner holds the lock as it wants to."""
    return type(lock) is Lock and lock.holder(owner) is not None and not (alone and lock.exclusive is None)


def holds(machine: Machine, key: bytes, owner: bytes) -> bool:
    """Whether the owner has something of a lock."""
    lock = machine.keyspace.values.get(key)
    return type(lock) is Lock and lock.holder(owner) is not None


def place(wait: Waiter, key: bytes) -> tuple[bool, int]:
    """What the line at a key is ordered by: upgrades first, then who came first."""
    return key not in wait.urgent, wait.number


def add_shard(graph: Graph, shard: int, machine: Machine, waits: Iterable[Waiter]) -> None:
    """Adds who waits for whom in one shard, these being all the waits for its locks."""
    lines: dict[bytes, list[Waiter]] = {}
    waits = list(waits)
    for wait in waits:
        for key in wait.keys:
            lines.setdefault(key, []).append(wait)
    for wait in waits:
        owner, alone = owner_in(wait.args), asks_alone(wait.args)
        node: Node = (shard, wait.number)
        graph.setdefault(owner, []).append(node)
        needs = graph.setdefault(node, [])
        for key in wait.keys:
            lock = machine.keyspace.values.get(key)
            if has_enough(lock, owner, alone=alone):
                continue
            before = [other for other in lines[key] if place(other, key) < place(wait, key)]
            needs += [(shard, other.number) for other in before]
            if type(lock) is not Lock:
                continue
            if alone or lock.exclusive is not None or any(asks_alone(other.args) for other in before):
                needs += [hold.owner for hold in lock.holders() if hold.owner != owner]


def waits_for_locks(machine: Machine) -> list[Waiter]:
    """Who waits for locks in a shard."""
    return [wait for wait in machine.waiters.everyone() if wait.kind == Lock.kind]


def comes_back(graph: Graph, node: Node) -> bool:
    """Whether a way from the node leads to it again."""
    seen: dict[Node, None] = {}
    ahead = list(graph.get(node, ()))
    while ahead:
        one = ahead.pop()
        if one == node:
            return True
        if one not in seen:
            seen[one] = None
            ahead += graph.get(one, ())
    return False


def in_cycles(graph: Graph) -> list[Node]:
    """The waits that are part of a cycle."""
    return [node for node in graph if isinstance(node, tuple) and comes_back(graph, node)]
