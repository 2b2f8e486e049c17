"""What `tests.queue_history` finds in histories that break a law, and that it finds nothing in those that do not."""

from __future__ import annotations

import pytest

from tests.queue_history import Delivery, Ending, Item, QueueHistory, account


def item(
    name: str, *deliveries: tuple[bytes, float, float], group: str | None = None, place: int = 0, priority: int = 0
) -> Item:
    """Pushed at 0 and 1, given as (receipt, asked for, told), each acknowledged a moment later if it is the last."""
    made = Item("q", name.encode(), group=group, place=place, priority=priority, safe_s=1.0)
    for receipt, sent_s, told_s in deliveries:
        count = int(receipt.partition(b"-")[2])
        made.given.append(Delivery(receipt, count, sent_s, told_s, "somebody", sent_s + 5.0))
    if deliveries:
        receipt, _, told_s = deliveries[-1]
        made.endings.append(Ending("ack", receipt, told_s + 0.1, told_s + 0.2, 1))
    return made


def broken(*items: Item, calm: bool = False) -> list[str]:
    history = QueueHistory()
    history.items = {one.payload: one for one in items}
    return [found.splitlines()[0] for found in [*history.broken("q", calm=calm), *history.ordered("q")]]


def test_what_is_well() -> None:
    first = item("first", (b"1-1", 2.0, 2.5), group="g", place=1)
    second = item("second", (b"2-1", 2.0, 2.7), group="g", place=2)
    back = item("back", (b"3-1", 2.0, 2.5), (b"3-2", 7.1, 7.2))
    high = item("high", (b"5-1", 3.0, 3.1), priority=1)
    low = item("low", (b"4-1", 2.0, 3.2))
    assert broken(first, second, back, high, low) == []


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (item("m", (b"1-1", 2.0, 2.1), (b"1-1", 2.2, 2.3)), "one delivery was given to two"),
        (item("m", (b"1-1", 2.0, 2.1), (b"2-1", 8.0, 8.1)), "it was stored twice"),
        (item("m", (b"1-1", 2.0, 2.1), (b"1-2", 2.2, 2.3)), "it was given to another before its visibility ended"),
    ],
)
def test_one_message_that_breaks_a_law(wrong: Item, found: str) -> None:
    assert broken(wrong) == [found]


def test_a_message_after_its_acknowledgement() -> None:
    late = item("m", (b"1-1", 2.0, 2.1))
    late.given.append(Delivery(b"1-2", 2, 8.0, 8.1, "somebody", 13.0))
    assert broken(late) == ["it was delivered after it was acknowledged"]


def test_a_message_twice_in_peace() -> None:
    back = item("m", (b"1-1", 2.0, 2.1), (b"1-2", 8.0, 8.1))
    assert broken(back) == []
    assert broken(back, calm=True) == ["it was delivered twice, and nothing had happened"]
    back.endings.append(Ending("ack", b"1-1", 2.2))
    assert broken(back, calm=True) == [], "nobody knows what came of that"


def test_a_group_out_of_order() -> None:
    first = item("first", (b"1-1", 2.0, 2.5), group="g", place=1)
    hasty = item("second", (b"2-1", 2.0, 2.55), group="g", place=2)
    assert broken(first, hasty) == ["a group's message overtook another"]
    again = item("first", (b"1-1", 2.0, 2.5), (b"1-2", 8.0, 8.1), group="g", place=1)
    again.endings.insert(0, Ending("ack", b"1-1", 2.6))
    second = item("second", (b"2-1", 2.0, 2.7), group="g", place=2)
    assert broken(again, second) == ["a group's message came again after the next one"]


@pytest.mark.parametrize("priority", [0, -1])
def test_a_message_that_overtakes(priority: int) -> None:
    waits = item("waits", (b"1-1", 3.0, 3.1))
    assert broken(waits, item("other", (b"2-1", 2.0, 2.9), priority=priority)) == ["a message overtook another"]
    assert broken(waits, item("other", (b"2-1", 2.0, 3.05), priority=priority)) == [], (
        "they may have been handed out in order"
    )
    assert broken(waits, item("other", (b"2-1", 0.9, 2.9), priority=priority)) == [], "it may have come before"


INFO = {"ready": 0, "delayed": 0, "in-flight": 0, "dead": 0, "pushed": 1, "acked": 1, "expired": 0}


def told(one: Item, *dead: bytes, **more: int) -> list[str]:
    return [found.splitlines()[0] for found in account([one], {**INFO, **more}, dead)]


def test_what_the_cluster_says_at_the_end() -> None:
    done = item("m", (b"1-1", 2.0, 2.1))
    assert told(done) == []
    assert told(done, b"m", pushed=2, dead=1)[0] == "it was acknowledged and is dead"
    assert told(done, ready=1) == ["it is not worked off"]
    assert told(done, acked=0)[0].startswith("its counts do not add up")
    assert told(done, pushed=2, acked=2)[0].startswith("1 to 1 were pushed")
    assert told(item("m")) == ["it is lost"]
    done.endings.clear()
    assert told(done) == ["it is gone, and nobody acknowledged it"]
    done.is_poison = True
    assert told(done) == ["it should be dead"]
    assert told(done, b"m", acked=0, dead=1) == []
