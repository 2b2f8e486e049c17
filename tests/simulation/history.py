"""What the clients saw, judged: registers and locks each like one that only one client uses at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.simulation.findings import Verdict
from tests.simulation.fleeting import Fleeting
from tests.simulation.linearizability import check
from tests.simulation.models import Lock, Model, Operation, Register
from tests.simulation.sessions import Op
from tests.simulation.world import Violation

JUDGED: dict[bytes, Model[Any]] = {b"r": Register(), b"c": Register(), b"f": Fleeting(), b"l": Lock()}
STEPS_MAX = 300_000


def judge(ops: Iterable[Op]) -> int:
    """Raises `Violation` unless every history is linearizable and tokens grow; how many operations were judged."""
    judged = [op for op in ops if op.call[1][:1] in JUDGED and op.call[0] != b"WATCH" and not op.void]
    for prefix, model in JUDGED.items():
        operations = [op.operation() for op in judged if op.call[1][:1] == prefix and _matters(op)]
        report = check(operations, model, steps_max=STEPS_MAX)
        if report.verdict is Verdict.VIOLATED:
            raise Violation("linearizability", str(report))
    for shard in {op.shard: None for op in judged}:
        _judge_tokens([op.operation() for op in judged if op.call[0] == b"LOCK.ACQUIRE" and op.shard == shard])
    return len(judged)


def _matters(op: Op) -> bool:
    """A read nobody saw the answer of says nothing."""
    return op.returned is not None or op.call[0] != b"GET"


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
