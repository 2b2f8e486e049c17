"""Copies and prints of what production classes hold, so that a search may go on from one state many ways.

A *twin* is a deep copy that shares what never changes: messages, machines, functions. A *print* is a hashable
value that is equal for states from which the same can happen: times count by how far off they are.
"""

from __future__ import annotations

import copy
import types
from collections import OrderedDict, deque
from collections.abc import Hashable
from enum import Enum
from typing import Any

from msgspec import Raw, Struct

from cluster.cache.office import REPEAT_MS
from cluster.machine.machine import Machine
from cluster.raft.messages import Message
from tests.simulation.small_log import Log

ATOMS = (int, str, bytes, float, bool, type(None), Enum, Message, Machine, Log, Raw, types.FunctionType, type)

UNTIL = frozenset({"until_ms", "end_ms", "_next_ms", "_next_renewal_ms", "_leased_ms", "_began_ms"})
REPEATED = frozenset({"asked_ms", "sent_ms", "_census_asked_ms", "_dirty"})
AFTER = frozenset({"_wants", "_fan_after", "commit"})
IDLE = frozenset(
    {
        "traffic",
        "recalls_sent",
        "since_ms",
        "now_ms",
        "turn",
        "applied",
        "last_index",
        "lease_ms",
        "machine",
        "replica",
        "_holdings",
        "_held",
    }
)
"""What nothing depends on here, or is told otherwise."""

TIMED = UNTIL | REPEATED | AFTER
PLAIN = frozenset({int, str, bytes, float, bool, type(None)})

_slots: dict[type, tuple[str, ...]] = {}
_atomic: dict[type, bool] = {}


def twin(thing: Any, memo: dict[int, Any]) -> Any:
    """A copy of it and all it refers to; ``memo`` has the twins that were made before, by the id of the original."""
    kind = type(thing)
    if _is_atom(kind):
        return thing
    known = memo.get(id(thing))
    if known is not None:
        return known
    if isinstance(thing, tuple):
        parts = tuple(twin(one, memo) for one in thing)
        if all(new is old for new, old in zip(parts, thing, strict=True)):
            return thing
        return parts if kind is tuple else kind(*parts)
    if kind in (list, deque):
        made: Any = kind(twin(one, memo) for one in thing)
    elif kind in (dict, OrderedDict):
        made = kind((twin(key, memo), twin(value, memo)) for key, value in thing.items())
    elif kind is types.MethodType:
        made = types.MethodType(thing.__func__, twin(thing.__self__, memo))
    elif kind is types.BuiltinMethodType:
        made = getattr(twin(thing.__self__, memo), thing.__name__)
    else:
        made = copy.copy(thing) if isinstance(thing, Struct) else object.__new__(kind)
        memo[id(thing)] = made
        for name in fields(thing):
            value = getattr(thing, name)
            setattr(made, name, value if type(value) in PLAIN else twin(value, memo))
        return made
    memo[id(thing)] = made
    return made


def _is_atom(kind: type) -> bool:
    atomic = _atomic.get(kind)
    if atomic is None:
        atomic = _atomic[kind] = issubclass(kind, ATOMS)
    return atomic


def fields(thing: Any) -> tuple[str, ...]:
    """The names of an object's attributes."""
    kind = type(thing)
    names = _slots.get(kind)
    if names is None:
        found = [name for one in kind.__mro__ for name in getattr(one, "__slots__", ())]
        names = _slots[kind] = tuple(name for name in found if name != "__dict__")
    return (*names, *thing.__dict__) if hasattr(thing, "__dict__") else names


def print_of(thing: Any, now_ms: float, applied: int = 0, name: str = "") -> Hashable:
    """What tells it from others, for one whose clock says ``now_ms`` and that has ``applied`` so many entries."""
    if type(thing) in PLAIN:
        return _plain(thing, now_ms, applied, name)
    if isinstance(thing, Enum):
        return thing
    if isinstance(thing, Message):
        return type(thing).__name__, *(print_of(getattr(thing, one), now_ms) for one in thing.__struct_fields__)
    if isinstance(thing, Raw):
        return bytes(thing)
    if isinstance(thing, (list, tuple, deque)):
        return tuple([print_of(one, now_ms, applied, name) for one in thing])
    if isinstance(thing, dict):
        return tuple([(print_of(key, now_ms), print_of(value, now_ms, applied, name)) for key, value in thing.items()])
    if isinstance(thing, (types.MethodType, types.BuiltinMethodType, types.FunctionType, Machine)):
        return None
    found = [(one, getattr(thing, one)) for one in fields(thing) if one not in IDLE]
    return tuple(
        [
            value if type(value) in PLAIN and one not in TIMED else print_of(value, now_ms, applied, one)
            for one, value in found
        ]
    )


def _plain(thing: Any, now_ms: float, applied: int, name: str) -> Hashable:
    if name in UNTIL:
        return max(0.0, float(thing) - now_ms)
    if name in REPEATED:
        return max(0.0, float(thing) + REPEAT_MS - now_ms)
    plain: Hashable = max(0, thing - applied) if name in AFTER and isinstance(thing, int) else thing
    return plain
