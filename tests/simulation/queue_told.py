"""What clients of queues were told, beside what the log came to: at the end of a run, when the queues were emptied.

Nothing that was acknowledged to a producer is lost; nothing is delivered after
its acknowledgement was acknowledged; a delivery is one client's; letters arrive.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cluster.machine.queue import Queue
from tests.simulation.sessions import Op
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.queue_referee import Given, QueueReferee
    from tests.simulation.watch import Watch

ONCE_MORE = frozenset({"pushed", "driven back"})
"""What begins a message's life in a queue."""

FATES = frozenset({"acked", "expired", "purged", "deleted", "sent", "moved", "came back", "driven back", "died"})
"""What may have become of a message, where it is not on its way to somebody."""

PARTS_OF_INFO = (b"acked", b"expired", b"ready", b"delayed", b"in-flight", b"dead")


def judge_queues(history: Iterable[Op], watch: Watch) -> int:
    """Raises `Violation` unless every answer is what the log came to and nothing is lost; how many were judged."""
    referees = [group.referee.queues for group in watch.groups.values() if group.referee is not None]
    told = [op for op in history if op.call[0].startswith(b"Q.") and op.returned is not None and not op.void]
    judging = Told(referees)
    for op in told:
        judging.judge(op)
    judging.judge_late_deliveries(told)
    judging.judge_letters()
    return len(told)


class Told:
    """All that the referees of one run know, by queue."""

    def __init__(self, referees: list[QueueReferee]) -> None:
        self._referees = referees
        self._given: dict[tuple[bytes, bytes], Given] = {}
        self._acked: dict[tuple[bytes, bytes], None] = {}
        self._ids: dict[tuple[bytes, bytes], list[bytes]] = {}
        self._fates: dict[tuple[bytes, bytes], list[str]] = {}
        self._there: dict[tuple[bytes, bytes], None] = {}
        self._holders: dict[tuple[bytes, bytes], Op] = {}  # who was told of a delivery
        self._acknowledged: dict[tuple[bytes, bytes], Op] = {}
        for referee in referees:
            self._given |= referee.given
            self._acked |= referee.acked
            for name, payloads in referee.ids.items():
                self._ids.setdefault(name, []).extend(payloads)
            for name, fates in referee.fates.items():
                self._fates.setdefault(name, []).extend(fates)
            for key, value in referee.values():
                self._there |= dict.fromkeys((key, payload) for payload in _payloads(value))

    def judge(self, op: Op) -> None:
        """One answer."""
        name, key, reply = op.call[0], op.call[1], op.reply
        if name == b"Q.PUSH" and isinstance(reply, bytes):
            self._judge_pushed(op, reply, [op.call[2]])
        elif name == b"Q.MPUSH" and isinstance(reply, list):
            for named, payload in zip(reply, op.call[2:], strict=True):
                self._judge_pushed(op, named, [payload])
        elif name == b"Q.POP" and isinstance(reply, list):
            self._judge_taken(op, reply)
        elif name == b"Q.ACK" and isinstance(reply, int):
            self._judge_acknowledged(op, reply)
        elif name == b"Q.INFO" and isinstance(reply, dict):
            accounted = sum(reply[name] for name in PARTS_OF_INFO)
            gone = any({"purged"} & {*fates} for (queue, _), fates in self._fates.items() if queue == key)
            if accounted > reply[b"pushed"] or (accounted < reply[b"pushed"] and not gone):
                raise Violation("the counts add up", f"{op} got {reply}")

    def _judge_pushed(self, op: Op, named: bytes, payloads: list[bytes]) -> None:
        """What was acknowledged is there, or something became of it that a rule says."""
        key = op.call[1]
        if not {*payloads} & {*self._ids.get((key, named), ())}:
            raise Violation("told what happened", f"{op} got {named!r}, and that was never pushed")
        for payload in payloads:
            if (key, payload) not in self._there and not FATES & {*self._fates.get((key, payload), ())}:
                raise Violation("no message is lost", f"{payload!r}, which {op} was told to be in {key!r} as {named!r}")

    def _judge_taken(self, op: Op, messages: list[list[Any]]) -> None:
        key = op.call[1]
        for receipt, payload, deliveries, named in messages:
            given = self._given.get((key, receipt))
            if given is None or given[:3] != (payload, deliveries, named):
                raise Violation("told what happened", f"{op} got {receipt!r}, which was given for {given}")
            if self._holders.setdefault((key, receipt), op) is not op:
                raise Violation("a delivery is one client's", f"{op} and {self._holders[key, receipt]} got {receipt!r}")

    def _judge_acknowledged(self, op: Op, count: int) -> None:
        key = op.call[1]
        acked = [receipt for receipt in dict.fromkeys(op.call[2:]) if (key, receipt) in self._acked]
        if count > len(acked):
            raise Violation("told what happened", f"{op} got {count}, and {acked} were acknowledged")
        if len(op.call) == 3 and count:
            other = self._acknowledged.setdefault((key, op.call[2]), op)
            if other is not op:
                raise Violation("a receipt is of one delivery", f"{op} and {other} both acknowledged it")

    def judge_late_deliveries(self, told: list[Op]) -> None:
        """Whoever asked after an acknowledgement was acknowledged does not get that message any more."""
        over: dict[tuple[bytes, bytes], int] = {}  # by queue and payload: when that was known
        for (key, receipt), op in self._acknowledged.items():
            payload = self._given[key, receipt].payload
            lives = sum(fate in ONCE_MORE for fate in self._fates[key, payload])
            if lives == 1 and op.returned is not None:
                over[key, payload] = op.returned
        for op in told:
            if op.call[0] == b"Q.POP" and isinstance(op.reply, list):
                late = [one for one in op.reply if over.get((op.call[1], one[1]), op.invoked) < op.invoked]
                if late:
                    raise Violation("nothing is delivered after its acknowledgement", f"{op} got {late}")

    def judge_letters(self) -> None:
        """What was sent to another shard came there, or came back; and nothing else came."""
        sent = {letter: count for referee in self._referees for letter, count in referee.sent.items()}
        arrived = {letter: count for referee in self._referees for letter, count in referee.arrived.items()}
        back = {letter: count for referee in self._referees for letter, count in referee.back.items()}
        lost = [letter for letter in sent if letter not in arrived and letter not in back]
        if lost:
            raise Violation("letters arrive", f"these did not: {lost}")
        if strange := [letter for letter in (*arrived, *back) if letter not in sent]:
            raise Violation("letters arrive", f"nobody sent {strange}")
        if any(count > 1 for count in back.values()):
            raise Violation("letters arrive", f"these came back more than once: {back}")


def _payloads(queue: Queue) -> list[bytes]:
    return [message.payload for message in (*queue.living.values(), *queue.dead.values())]
