"""What the system group knows of the cluster beside its members: where shards are, who leaves or is lost or has no
memory left, which queues are spread over shards.

It is kept like any other data, as keys of the system's shard, written by
commands of its own. A shard's place is reported by its leader whenever its
configuration changed; the configuration itself is decided in the shard, so an
old report never replaces a newer one.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cluster.machine import queue_parts
from cluster.machine.machine import Call, Commands, Machine
from cluster.machine.queue_parts import Shape
from cluster.machine.reply import OK, Reply

LEAVING, LOST, UP = "leaving", "lost", "up"

_PLACE, _MARK, _PAUSED, _QUEUE, _FULL = b"place:", b"mark:", b"paused", b"queue:", b"full:"
_PLACED, _MARKED, _PAUSE, _FILLED = b"_SYSTEM.PLACED", b"_SYSTEM.MARKED", b"_SYSTEM.PAUSE", b"_SYSTEM.FILLED"


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a shard is: its configuration, and the index in the shard's log since which it is that."""

    index: int = -1
    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node with a replica, or about to have one."""
        return (*self.voters, *self.learners)


class Marks(NamedTuple):
    """The nodes that are to leave, and those that were silent for too long."""

    leaving: tuple[str, ...]
    lost: tuple[str, ...]

    def state_of(self, node: str) -> str:
        """`LEAVING`, `LOST` or `UP`."""
        return LEAVING if node in self.leaving else LOST if node in self.lost else UP


_NOWHERE = Place()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Place).decode


class Atlas:
    """One node's view of it, as far as its own replica of the system's shard is."""

    def __init__(self) -> None:
        self.places: dict[int, Place] = {}
        self.marks = Marks((), ())
        self.paused = False
        self.full: tuple[
            str, ...
        ] = ()  # the nodes that said they have no memory left; the same object until it changes
        self.queues: dict[bytes, Shape] = {}  # those that are spread over shards; the same object until that changes
        self._read_at = -1

    def read(self, machine: Machine, applied: int) -> None:
        """Looks at the system's state again, if it may have changed."""
        if applied == self._read_at:
            return
        self._read_at = applied
        values = {key: value for key, value in machine.keyspace.values.items() if type(value) is bytes}
        self.places = {int(key[len(_PLACE) :]): _decode(values[key]) for key in values if key.startswith(_PLACE)}
        marked = sorted((key[len(_MARK) :].decode(), values[key]) for key in values if key.startswith(_MARK))
        self.marks = Marks(
            tuple(node for node, mark in marked if mark == LEAVING.encode()),
            tuple(node for node, mark in marked if mark == LOST.encode()),
        )
        self.paused = _PAUSED in values
        full = tuple(sorted(key[len(_FULL) :].decode() for key in values if key.startswith(_FULL)))
        if full != self.full:
            self.full = full
        shaped = {key[len(_QUEUE) :]: queue_parts.decode(values[key]) for key in values if key.startswith(_QUEUE)}
        queues = {key: shape for key, shape in shaped.items() if shape.count}
        if queues != self.queues:
            self.queues = queues

    def place(self, shard: int) -> Place:
        """Where a shard was last reported to be."""
        return self.places.get(shard, _NOWHERE)

    def held_by(self, node: str) -> int:
        """How many shards have the node in their configuration."""
        return sum(node in place.nodes for place in self.places.values())


def placed(machine: Machine, shard: int, place: Place) -> Call:
    """The call that reports where a shard is."""
    args = [_PLACED, b"%d" % shard, _encode(place)]
    return machine.handler(_PLACED), args, b""


def marked(machine: Machine, node: str, mark: str) -> Call:
    """The call that marks a node as `LEAVING`, `LOST` or `UP`; one that is to leave stays so until it is gone."""
    return machine.handler(_MARKED), [_MARKED, node.encode(), mark.encode()], b""


def filled(machine: Machine, node: str, *, is_full: bool) -> Call:
    """The call by which a node says that it has no memory left, or has again."""
    return machine.handler(_FILLED), [_FILLED, node.encode(), b"1" if is_full else b"0"], b""


def paused(machine: Machine, *, pause: bool) -> Call:
    """The call that stops shards from being moved, or lets them go on."""
    return machine.handler(_PAUSE), [_PAUSE, b"1" if pause else b"0"], b""


def _on_placed(machine: Machine, args: list[bytes]) -> Reply:
    key = _PLACE + args[1]
    known = machine.keyspace.string(key)
    if known is None or _decode(known).index < _decode(args[2]).index:
        machine.keyspace.put(key, args[2])
    return OK


def _on_marked(machine: Machine, args: list[bytes]) -> Reply:
    key = _MARK + args[1]
    known = machine.keyspace.string(key)
    if args[2] == UP.encode():
        if known is not None:
            machine.keyspace.remove(key)
    elif known != LEAVING.encode():
        machine.keyspace.put(key, args[2])
    return OK


def _on_pause(machine: Machine, args: list[bytes]) -> Reply:
    if args[1] == b"1":
        machine.keyspace.put(_PAUSED, b"1")
    else:
        machine.keyspace.remove(_PAUSED)
    return OK


def _on_filled(machine: Machine, args: list[bytes]) -> Reply:
    key = _FULL + args[1]
    if args[2] == b"1":
        machine.keyspace.put(key, b"1")
    else:
        machine.keyspace.remove(key)
    return OK


def _on_queue(machine: Machine, args: list[bytes]) -> Reply:
    """That a queue is gone is kept for a while: what is older may still come."""
    key, shape = _QUEUE + args[1], queue_parts.decode(args[2])
    known = machine.keyspace.string(key)
    if known is None or queue_parts.decode(known).version < shape.version:
        if not shape.count:
            _forget_gone(machine)
            shape = msgspec.structs.replace(shape, gone_ms=machine.now_ms)
        machine.keyspace.put(key, _encode(shape))
    return OK


def _forget_gone(machine: Machine) -> None:
    for key, value in list(machine.keyspace.values.items()):
        if key.startswith(_QUEUE) and type(value) is bytes:
            shape = queue_parts.decode(value)
            if not shape.count and shape.gone_ms + queue_parts.REMEMBERED_MS < machine.now_ms:
                machine.keyspace.remove(key)


COMMANDS = Commands(
    handlers={
        queue_parts.SHAPED: _on_queue,
        _PLACED: _on_placed,
        _MARKED: _on_marked,
        _PAUSE: _on_pause,
        _FILLED: _on_filled,
    },
    retries={},
)
"""What the system's shard can carry out."""
