"""What the clients saw, judged: registers and locks each like one that only one client uses at a time.

What goes through caches is of the same registers: see `tests.simulation.cached`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tests.simulation.cached import Cached, loss, through
from tests.simulation.findings import Verdict
from tests.simulation.fleeting import Fleeting
from tests.simulation.linearizability import check
from tests.simulation.loaded import Loaded
from tests.simulation.models import Call, Lock, Model, Operation, Register
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
STEPS_MAX = 300_000

NO_REGISTERS = frozenset({b"WATCH", b"CACHE.EVICT", b"CACHE.FLUSH"})
READS = frozenset({b"GET", b"CACHE.GET", b"CACHE.FETCH"})
"""What says nothing if nobody saw the answer; a token that nobody saw might as well have ended."""


def judge(ops: Iterable[Op], watch: Watch) -> int:
    """Raises `Violation` unless every history is linearizable and tokens grow; how many operations were judged."""
    judged = [op for op in ops if op.call[0] not in NO_REGISTERS and op.call[1][:1] in JUDGED and not op.void]
    for prefix, model in JUDGED.items():
        those = [op for op in judged if op.call[1][:1] == prefix and _matters(op)]
        weak = {op: _is_weak(op, watch) for op in those}
        operations = [op.operation()._replace(call=_call(op, weak[op])) for op in those]
        operations += _losses([op for op in those if weak[op]], watch)
        report = check(operations, model, steps_max=STEPS_MAX)
        if report.verdict is Verdict.VIOLATED:
            raise Violation("linearizability", str(report))
    for shard in {op.shard: None for op in judged}:
        _judge_tokens([op.operation() for op in judged if op.call[0] == b"LOCK.ACQUIRE" and op.shard == shard])
    return len(judged)


def _matters(op: Op) -> bool:
    """A read nobody saw the answer of says nothing."""
    return op.returned is not None or op.call[0] not in READS


def _is_weak(op: Op, watch: Watch) -> bool:
    """Whether it wrote, or may have written, what memory never had."""
    if op.call[0] != b"CACHE.SET" or b"SYNC" in op.call or op.output is None:
        return False
    return not watch.has(op.call[2])


def _call(op: Op, weak: bool) -> Call:
    """The call as the register has it."""
    name, author = op.call[0], op.session.author
    if name == b"CACHE.SET":
        plain: Call = (b"SET", *(word for word in op.call[1:] if word != b"SYNC"))
        return plain if b"SYNC" in op.call else through(author, plain, weak=weak)
    if name in (b"CACHE.GET", b"CACHE.FETCH"):
        return through(author, op.call if name == b"CACHE.FETCH" else (b"GET", op.call[1]), weak=False)
    return (b"DEL", *op.call[1:]) if name == b"CACHE.DEL" else op.call


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
