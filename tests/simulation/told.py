"""What clients of locks were told, beside what the log came to: at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cluster.machine.reply import CommandError, Reply
from tests.simulation.models import UNKNOWN
from tests.simulation.referee import ALARMS, Past, Referee
from tests.simulation.sessions import SESSION_COMMANDS, Op, key_of
from tests.simulation.waiting import owner_in
from tests.simulation.world import MS, Violation

if TYPE_CHECKING:
    from tests.simulation.groups import Group
    from tests.simulation.watch import Watch

JUDGED = (b"LOCK.", b"SEM.", b"LATCH.", b"ELECT.", b"FENCE")
LOOKS = (b"LOCK.INFO", b"ELECT.LEADER")
TAKES = (b"LOCK.ACQUIRE", b"SEM.ACQUIRE", b"ELECT.CAMPAIGN")

LIVED = 0.9
"""Of a life so much is certain: clocks may differ in pace by a tenth."""


CLOCK_MS = 61
"""The log counts whole milliseconds; and a leader's clock is handed on by heartbeats, the last of them a while ago."""


def judge_told(history: Iterable[Op], watch: Watch) -> int:
    """Raises `Violation` unless every answer is what the log came to; how many were judged."""
    judged = 0
    history = list(history)
    _judge_looks(history)
    for op in history:
        referee = watch.groups[op.shard].referee
        if referee is None or op.returned is None or op.void or not op.call[0].startswith(JUDGED):
            continue
        judged += 1
        if op.call[0] not in LOOKS:
            _judge_answer(op, referee)
        if op.call[0] in TAKES and isinstance(op.output, int):
            _judge_grant(op, op.output, watch.groups[op.shard], referee)
    return judged


def _judge_looks(history: Iterable[Op]) -> None:
    """Who looks at a lock or an office sees a token at least as great as any that somebody was told before."""
    events: list[tuple[int, bytes, int, Op | None]] = []  # when, key, token, and who looked
    for op in history:
        if op.returned is None or op.void:
            continue
        if op.call[0] in LOOKS and (seen := _token_seen(op)) is not None:
            events.append((op.invoked, key_of(op.call), seen, op))
        elif op.call[0] in TAKES and isinstance(op.output, int):
            events.append((op.returned, key_of(op.call), op.output, None))
    told: dict[bytes, int] = {}
    for _, key, token, looked in sorted(events, key=lambda event: event[0]):
        if looked is None:
            told[key] = max(token, told.get(key, 0))
        elif token < told.get(key, 0):
            raise Violation("tokens grow", f"{looked} saw {token} when {told[key]} had been told")


def _token_seen(op: Op) -> int | None:
    reply = op.reply
    found = reply[b"token"] if isinstance(reply, dict) else reply[1] if isinstance(reply, list) else None
    return found if isinstance(found, int) else None


def _judge_answer(op: Op, referee: Referee) -> None:
    origin = op.session.origin if op.call[0] in SESSION_COMMANDS else b""
    answers = referee.answers.get((origin, op.call), [])
    if op.output is not UNKNOWN and not any(_same(op.reply, answer) for answer in answers):
        raise Violation("told what happened", f"{op} got {op.reply!r}, and the log came to {answers}")


def _same(one: Reply, other: Reply) -> bool:
    if isinstance(one, CommandError) and isinstance(other, CommandError):
        return one.line == other.line
    return type(one) is type(other) and one == other


def _judge_grant(op: Op, token: int, group: Group, referee: Referee) -> None:
    """Who was granted something had it, for as long as it asked for."""
    key, owner = key_of(op.call), owner_in(list(op.call))
    if token not in referee.issued.get(key, ()) or referee.owners.get((key, token), owner) != owner:
        raise Violation("told what happened", f"{op} got {token}, which it never had")
    past = referee.pasts.get((key, token))
    if past is not None and past.by == ALARMS and not past.extended and b"PX" in op.call:
        if any(op.asked_us < started_us and at_us <= past.at_us for at_us, started_us in group.leaders_us):
            return  # whoever led may have begun with its wall clock
        _judge_life(op, int(op.call[op.call.index(b"PX") + 1]), past)


def _judge_life(op: Op, life_ms: int, past: Past) -> None:
    lived_us = past.at_us - op.asked_us
    if lived_us < LIVED * (life_ms - CLOCK_MS) * MS:
        raise Violation("a hold lives", f"{op} asked at {op.asked_us} us, its hold was over after {lived_us} us")
