"""What clients of queues saw, and the laws that must hold of it whatever happened to the cluster meanwhile.

Times are of one clock that all clients share. What a call did, it did between
being *sent* and being *told*, so a law is broken only where no moment in between
could explain what was seen: a client or a node that is slow is never a finding.

A message is known by its payload, which is given to one push only. A *delivery*
is what one receipt stands for.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

CLOCKS_DIFFER_S = 0.2
"""A message may seem to be back before its visibility ended by no more than this: leaders' clocks are not one."""

NEVER_S = math.inf


@dataclass(slots=True)
class Delivery:
    """One receipt, as somebody got it."""

    receipt: bytes
    deliveries: int
    sent_s: float
    told_s: float
    by: str
    visible_again_s: float  # not before, by this clock, unless it is refused

    @property
    def number(self) -> int:
        """Of the message in its queue: its place there."""
        return int(self.receipt.partition(b"-")[0])


@dataclass(slots=True)
class Ending:
    """A try to acknowledge or to refuse a delivery; ``reply`` is None when what came of it is not known."""

    what: str
    receipt: bytes
    sent_s: float
    told_s: float = NEVER_S
    reply: int | None = None


@dataclass(slots=True)
class Item:
    """One message and all that is known of it.

    ``place`` counts within its group. ``safe_s`` is when its push was
    acknowledged; one that is ``doubtful`` may or may not have been pushed.
    ``is_poison``: nobody acknowledges it, so it must die.
    """

    queue: str
    payload: bytes
    group: str | None = None
    place: int = 0
    priority: int = 0
    delay_ms: int = 0
    is_poison: bool = False
    safe_s: float = NEVER_S
    doubtful: bool = False
    events: list[tuple[float, str]] = field(default_factory=list)
    given: list[Delivery] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[Ending]:
        """Those that certainly ended it."""
        return [one for one in self.endings if one.what == "ack" and one.reply == 1]

    @property
    def is_refused(self) -> bool:
        """Whether anybody tried to."""
        return any(one.what != "ack" for one in self.endings)

    def note(self, at_s: float, what: str) -> None:
        self.events.append((at_s, what))

    def story(self) -> str:
        """All that happened to it, line by line."""
        kind = f"group {self.group} place {self.place}" if self.group else f"priority {self.priority}"
        head = f"{self.queue} {self.payload!r} ({kind}{' poison' if self.is_poison else ''})"
        return "\n".join([head, *(f"    {at_s:10.4f} {what}" for at_s, what in sorted(self.events))])


class QueueHistory:
    """Everything about some queues. ``faults`` are noted for whoever reads the stories."""

    def __init__(self) -> None:
        self.items: dict[bytes, Item] = {}
        self.foreign: list[str] = []
        self.faults: list[tuple[float, str]] = []

    def of(self, queue: str) -> list[Item]:
        """The messages of one queue."""
        return [item for item in self.items.values() if item.queue == queue]

    def broken(self, queue: str, *, calm: bool) -> list[str]:
        """Every breach of a law that the clients alone can see; ``calm``: nothing happened to the cluster."""
        items = self.of(queue)
        findings = [*self.foreign]
        for item in items:
            breaches = [*_alone(item), *_early(item), *(_unasked(item) if calm else ())]
            findings += [f"{what}\n{item.story()}" for what in breaches]
        findings += _groups(items)
        return findings

    def ordered(self, queue: str) -> list[str]:
        """Breaches of the order of a queue in one part: by priority, then first in, first out."""
        return list(_order(self.of(queue)))


def _alone(item: Item) -> Iterator[str]:
    """What one message's story breaks."""
    receipts = Counter(one.receipt for one in item.given)
    if receipts and max(receipts.values()) > 1:
        yield "one delivery was given to two"
    if len({one.number for one in item.given}) > 1:
        yield "it was stored twice"
    if item.given and math.isinf(item.safe_s) and not item.doubtful:
        yield "it was delivered, and its push never came back"
    ended = [int(one.receipt.rpartition(b"-")[2]) for one in item.acknowledged]
    if len(ended) > 1:
        yield "it was acknowledged twice"
    if ended and any(one.deliveries > min(ended) for one in item.given):
        yield "it was delivered after it was acknowledged"
    if item.is_poison and ended:
        yield "nobody acknowledged it, and it was"


def _early(item: Item) -> Iterator[str]:
    """What is not acknowledged comes back, and not too soon."""
    refused = {one.receipt for one in item.endings if one.what in ("nack", "dead")}
    for first, second in pairwise(sorted(item.given, key=lambda one: one.deliveries)):
        follows = second.deliveries == first.deliveries + 1
        if follows and first.receipt not in refused and second.told_s < first.visible_again_s:
            yield "it was given to another before its visibility ended"


def _unasked(item: Item) -> Iterator[str]:
    """Where nothing happened there is no reason to come again, unless nobody knows what came of a try to end it."""
    if any(math.isinf(one.told_s) for one in item.endings):
        return
    if not item.is_refused and len(item.given) > 1:
        yield "it was delivered twice, and nothing had happened"
    if any(one.what == "ack" and one.reply == 0 for one in item.endings):
        yield "its acknowledgement counted nothing, and nothing had happened"


def _groups(items: Iterable[Item]) -> Iterator[str]:
    """A group's next message is handed out when the one before it is over, and not before."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        if item.group is not None:
            groups.setdefault(item.group, []).append(item)
    for members in groups.values():
        members.sort(key=lambda item: item.place)
        for first, second in pairwise(members):
            begins_s = min((one.told_s for one in second.given), default=NEVER_S)
            ends_s = min((one.sent_s for one in first.endings if one.what in ("ack", "dead")), default=NEVER_S)
            if begins_s < ends_s:
                yield f"a group's message overtook another\n{first.story()}\n{second.story()}"
            if any(one.sent_s > begins_s for one in first.given):
                yield f"a group's message came again after the next one\n{first.story()}\n{second.story()}"


def _order(items: Iterable[Item]) -> Iterator[str]:
    """Of those that nothing happened to: whoever was there before a call began goes before what it got.

    They are looked at from the end of the line to its head. Of those behind a
    message the one told first, among all that were asked for after its push was
    safe, must not have been told before the message itself was asked for.
    """
    there = [item for item in items if _is_undisturbed(item)]
    there.sort(key=lambda item: (item.priority, -item.given[0].number))
    times = sorted(item.given[0].sent_s for item in there)
    behind = _Earliest(len(times))
    for item in there:
        [first] = item.given
        after = bisect_right(times, item.safe_s)
        found = behind.among(after)
        if found is not None and found.given[0].told_s < first.sent_s:
            yield f"a message overtook another\n{item.story()}\n{found.story()}"
        behind.add(bisect_right(times, first.sent_s) - 1, item)


def _is_undisturbed(item: Item) -> bool:
    plain = item.group is None and not item.delay_ms and not item.is_poison
    return plain and len(item.given) == 1 and item.given[0].deliveries == 1 and not math.isinf(item.safe_s)


class _Earliest:
    """Items by place; of those from some place on, which was told first: a tree of minima."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._tree: list[Item | None] = [None] * (2 * size)

    def add(self, place: int, item: Item) -> None:
        at = place + self._size
        while at >= 1:
            self._tree[at] = _earlier(self._tree[at], item)
            at //= 2

    def among(self, first: int) -> Item | None:
        """Of all at ``first`` and after it."""
        low, high = first + self._size, 2 * self._size
        found: Item | None = None
        while low < high:
            if low % 2:
                found = _earlier(found, self._tree[low])
                low += 1
            if high % 2:
                high -= 1
                found = _earlier(found, self._tree[high])
            low //= 2
            high //= 2
        return found


def _earlier(one: Item | None, other: Item | None) -> Item | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other, key=lambda item: item.given[0].told_s)


# What the cluster says at the end


def account(items: Sequence[Item], info: Mapping[str, Any], dead: Sequence[bytes]) -> list[str]:
    """Breaches of what Q.INFO of a queue that is worked off, and the payloads of its dead letters, must say.

    ``dead`` may have one twice where they are sent to another shard.
    """
    buried = set(dead)
    findings = [f"{what}\n{item.story()}" for item in items if (what := _fate(item, item.payload in buried))]
    safe = sum(not item.doubtful for item in items)
    acked = sum(bool(item.acknowledged) for item in items)
    pushed = info["pushed"]
    if not safe <= pushed <= len(items):
        findings.append(f"{safe} to {len(items)} were pushed, and the queue says {pushed}")
    if info["ready"] or info["delayed"] or info["in-flight"]:
        findings.append("it is not worked off")
    if pushed != info["acked"] + info["dead"] + info["expired"]:
        findings.append(f"its counts do not add up: {dict(info)}")
    if info["dead"] != len(buried):
        findings.append(f"{len(buried)} are dead, and the queue says {info['dead']}")
    if info["acked"] < acked:
        findings.append(f"{acked} were acknowledged, and the queue says {info['acked']}")
    return findings


def _fate(item: Item, is_dead: bool) -> str:
    """What is wrong with where a message is in the end; "" for nothing."""
    if is_dead:
        return "it was acknowledged and is dead" if item.acknowledged else ""
    if item.doubtful:
        return ""
    if item.is_poison:
        return "it should be dead"
    if not item.given:
        return "it is lost"
    return "" if any(one.what == "ack" for one in item.endings) else "it is gone, and nobody acknowledged it"
