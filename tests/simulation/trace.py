"""The trace of a run as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.node import Work
from cluster.raft.messages import Append, Chunk, Forward, Message
from cluster.storage.contract import Recovered
from tests.simulation.groups import shard_of
from tests.simulation.sessions import Op
from tests.simulation.world import Event

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

TAIL_LINES = 120


def lines(events: Iterable[Event]) -> Iterator[str]:
    """One line for each event."""
    for event in events:
        yield f"{event.at_us / 1_000_000:10.6f}  {event.who:<12} {event.what:<14} {_about(event.about)}".rstrip()


def tail(simulation: Simulation) -> str:
    """The end of a failed run, and where everybody stood."""
    world = simulation.world
    found = [f"seed {world.seed}, turn {simulation.turns}, the last events:"]
    found += lines(list(world.trace)[-TAIL_LINES:])
    for process in simulation.processes.values():
        if process.node is None:
            found.append(f"{process}: down")
            continue
        found.append(f"{process}: {process.node.atlas.marks}")
        found += [f"    {shard_of(shard)}" for shard in process.node.each()]
    return "\n".join(found)


def _about(about: Any) -> str:
    match about:
        case (str() as name, int() as shard, Message() as message):
            return f"{name} {shard}: {_message(message)}"
        case (Op() as op, reply):
            return f"{_words(op.call)} -> {reply!r}"
        case tuple() if about and all(isinstance(word, bytes) for word in about):
            return _words(about)
        case Work():
            entries = " ".join(f"{entry.shard}:{entry.index}" for entry in about.entries)
            return f"{entries or 'no entries'} {about.hard_states or ''}"
        case (int() as shard, Recovered() as found):
            return f"{shard}: {found.hard_state} checkpoint {found.checkpoint_index} log to {found.last_index}"
        case _:
            return str(about)


def _words(call: tuple[bytes, ...]) -> str:
    return " ".join(word.decode("latin-1")[:24] for word in call)


def _message(message: Message) -> str:
    name = type(message).__name__
    fields = {field: getattr(message, field) for field in message.__struct_fields__}
    if isinstance(message, Append):
        fields["entries"] = [term for term, _ in message.entries]
    elif isinstance(message, Chunk):
        fields["rows"] = len(message.rows)
        fields["ledger"] = len(message.ledger)
    elif isinstance(message, Forward):
        fields["body"] = msgspec.msgpack.decode(message.body)[0]
    return f"{name} {' '.join(f'{key}={value}' for key, value in fields.items())}"
