"""What the clients saw, judged: registers and locks each like one that only one client uses at a time.

What goes through caches is of the same registers: see `tests.simulation.cached`.
A command of several keys is as many of one key each, all in its time: so are
CACHE.MGET, and FLUSHALL of every register that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulation.cached import Cached, loss, through
from tests.simulation.findings import Verdict
from tests.simulation.fleeting import Fleeting
from tests.simulation.linearizability import check
from tests.simulation.loaded import Loaded
from tests.simulation.models import Call, Lock, Model, Operation, Output, Register, Unknown
from tests.simulation.sessions import Op
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.watch import Watch

JUDGED: dict[bytes, Model[Any]] = {
    b"r": Cached(Register()),
    b"y": Cached(Register()),
    b"c": Cached(Register()),
    b"f": Cached(Fleeting()),
    b"g": Cached(Loaded()),
    b"l": Lock(),
}
REGISTERS = frozenset(JUDGED) - {b"l"}
STEPS_MAX = 300_000

NO_REGISTERS = frozenset({b"WATCH", b"CACHE.EVICT", b"CACHE.FLUSH"})
CLEARS = frozenset({b"FLUSHALL", b"FLUSHDB"})
READS = frozenset({b"GET", b"CACHE.GET", b"CACHE.FETCH"})
"""What says nothing if nobody saw the answer; a token that nobody saw might as well have ended."""


class Part(NamedTuple):
    """What an operation is to one key: the ``call``, and what that answered."""

    op: Op
    call: Call
    output: Output | Unknown

    def operation(self, call: Call) -> Operation:
        """As a history has it, under that name."""
        return self.op.operation()._replace(call=call, output=self.output)


def judge(ops: Iterable[Op], watch: Watch) -> int:
    """Raises `Violation` unless every history is linearizable and tokens grow; how many operations were judged."""
    judged = list(_parts([op for op in ops if op.call[0] not in NO_REGISTERS and not op.void]))
    for prefix, model in JUDGED.items():
        those = [part for part in judged if part.call[1][:1] == prefix and _matters(part)]
        weak = {part: _is_weak(part, watch) for part in those}
        operations = [part.operation(_call(part, weak[part])) for part in those]
        operations += _losses([part.op for part in those if weak[part]], watch)
        report = check(operations, model, steps_max=STEPS_MAX)
        if report.verdict is Verdict.VIOLATED:
            raise Violation("linearizability", str(report))
    grants = [part.op for part in judged if part.call[0] == b"LOCK.ACQUIRE"]
    for shard in {op.shard: None for op in grants}:
        _judge_tokens([op.operation() for op in grants if op.shard == shard])
    return len(judged)


def _parts(ops: list[Op]) -> Iterator[Part]:
    """What these are to each key that is judged."""
    named = [op for op in ops if op.call[0] not in CLEARS]
    registers = dict.fromkeys(key for op in named for key in _keys(op) if key[:1] in REGISTERS)
    for op in ops:
        if op.call[0] in CLEARS:
            yield from (Part(op, (b"FLUSHALL", key), op.output) for key in registers)
        elif op.call[0] == b"CACHE.MGET":
            keys = _keys(op)
            seen = op.reply if op.returned is not None and isinstance(op.reply, list) else [op.output] * len(keys)
            yield from (Part(op, (b"CACHE.GET", key), value) for key, value in zip(keys, seen, strict=True))
        elif op.call[1][:1] in JUDGED:
            yield Part(op, op.call, op.output)


def _keys(op: Op) -> Call:
    return op.call[1:] if op.call[0] == b"CACHE.MGET" else op.call[1:2]


def _matters(part: Part) -> bool:
    """A read nobody saw the answer of says nothing."""
    return part.op.returned is not None or part.call[0] not in READS


def _is_weak(part: Part, watch: Watch) -> bool:
    """Whether it wrote, or may have written, what memory never had."""
    if part.call[0] != b"CACHE.SET" or b"SYNC" in part.call or part.output is None:
        return False
    return not watch.has(part.call[2])


def _call(part: Part, weak: bool) -> Call:
    """The call as the register has it."""
    call, author = part.call, part.op.session.author
    name = call[0]
    if name == b"CACHE.SET":
        plain: Call = (b"SET", *(word for word in call[1:] if word != b"SYNC"))
        return plain if b"SYNC" in call else through(author, plain, weak=weak)
    if name in (b"CACHE.GET", b"CACHE.FETCH"):
        return through(author, call if name == b"CACHE.FETCH" else (b"GET", call[1]), weak=False)
    return (b"DEL", *call[1:]) if name == b"CACHE.DEL" else call


def _losses(weak: list[Op], watch: Watch) -> Iterator[Operation]:
    """What caches lost of a kind of keys."""
    for lost in watch.caches.losses:
        begins: dict[bytes, int] = {}
        for op in weak:
            concerned = op.session.author == lost.author and lost.shard in (None, op.shard)
            if concerned and op.invoked < lost.at and (op.returned is None or op.returned > lost.after):
                begins.setdefault(op.call[1], max(op.invoked, lost.after))
        for key, begin in begins.items():
            yield loss(key, lost.author, begin, lost.at)


def _judge_tokens(operations: list[Operation]) -> None:
    """Fencing tokens grow over all locks of a shard: who is granted later has a greater one, which nobody else has."""
    granted = [one for one in operations if isinstance(one.output, int)]
    holder: dict[int, tuple[bytes, bytes]] = {}
    first: dict[int, Operation] = {}
    for one in sorted(granted, key=lambda operation: operation.returned or 0):
        token = one.output
        assert isinstance(token, int)
        whose = (one.call[1], one.call[2])
        if holder.setdefault(token, whose) != whose:
            raise Violation("fencing tokens", f"{holder[token]} and {whose} were both given {token}")
        first.setdefault(token, one)
    greatest, passed = 0, sorted(first.values(), key=lambda one: one.returned or 0)
    starts = sorted(first.items(), key=lambda item: item[1].invoked)
    place = 0
    for token, one in starts:
        while place < len(passed) and (passed[place].returned or 0) < one.invoked:
            output = passed[place].output
            assert isinstance(output, int)
            greatest = max(greatest, output)
            place += 1
        if token <= greatest:
            raise Violation("fencing tokens", f"{one} was given {token} after {greatest}")
