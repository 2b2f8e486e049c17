"""Bad input for queues: refused with Redis's words, or counted as nothing, and nothing is changed by it.

Every call is made where it could do harm: on a queue with messages in every state,
for which somebody waits, as on one that is spread over shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest

from resp_server.settings import load
from tests.front import Front, state

MILLION = bytes(1 << 20)
TURNS_MAX = 100
"""Of the node, until it has told itself and its parts what it has to."""
PLAIN, PARTS = b"{t}queue", b"parts"
SERVERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "resp2": (2, {}, PLAIN),
    "resp3": (3, {}, PLAIN),
    "resp2 and parts": (2, {"shards": "8"}, PARTS),
    "resp3 and parts": (3, {"shards": "8"}, PARTS),
}
OTHERS = (
    "SET {t}string text",
    "LOCK.ACQUIRE {t}lock ann PX 600000",
    "SEM.ACQUIRE {t}semaphore ann LIMIT 2 PX 600000",
    "LATCH.ADD {t}latch 2",
    "ELECT.CAMPAIGN {t}election ann PX 600000",
)


class Scene:
    """A server with a queue that has everything, and a client that behaves badly; ``KEY`` in a call is the queue."""

    def __init__(self, protocol: int, settings: dict[str, str], key: bytes) -> None:
        self.front = Front(settings=load(settings, {}))
        self.key = key
        self.client = self.front.connect()
        self.client.call(b"HELLO", b"%d" % protocol)
        for line in OTHERS:
            self.call(line)
        assert self.call(f"Q.CREATE KEY VISIBILITY 600000 {'PARTITIONS 4' if key == PARTS else ''}") == b"OK"
        assert self.call("Q.CREATE {t}other VISIBILITY 600000") == b"OK"
        for line in (
            "dead GROUP g",
            "taken GROUP g",
            "later DELAY 600000",
            "aged PX 600000 ID known",
            "plain PRIORITY 0",
        ):
            assert isinstance(self.call(f"Q.PUSH KEY {line}"), bytes)
        self.refused = self.take()
        assert self.call([b"Q.NACK", key, self.refused, b"DEAD"]) == 1
        self.receipt = self.take()
        assert isinstance(self.call("Q.PUSH {t}other x"), bytes)
        self.waiter = self.front.connect()
        assert self.waiter.call(b"Q.POP", b"{t}empty", b"BLOCK", b"0") == [], "it waits"

    def take(self) -> bytes:
        """The receipt of the message that is first."""
        return bytes(self.first("Q.POP KEY CONSUMER ann")[0])

    def call(self, call: str | list[bytes]) -> object:
        """The one reply to a call, made of words with blanks between."""
        words = call.encode().split() if isinstance(call, str) else call
        self.client.ask([self.key if word == b"KEY" else word for word in words])
        for _ in range(TURNS_MAX):
            self.front.finish()
            if replies := self.client.replies():
                break
        [reply] = replies
        return reply

    def first(self, call: str | list[bytes]) -> Any:
        """The first message of those that are answered."""
        reply = self.call(call)
        assert isinstance(reply, list)
        return reply[0]

    def known(self) -> list[object]:
        """All that the shards know."""
        return [state(shard.machine) for shard in self.front.node.shards]

    def refuses(self, call: str | list[bytes]) -> str:
        """The error a call ends with; it must change nothing."""
        reply = self.ignores(call)
        assert isinstance(reply, hiredis.ReplyError), (call, reply)
        assert re.match(r"[A-Z]+ \S", str(reply)), "an error begins with its code"
        return str(reply)

    def ignores(self, call: str | list[bytes]) -> object:
        """The reply to a call that must change nothing."""
        before = self.known()
        reply = self.call(call)
        assert self.known() == before, call
        return reply


@pytest.fixture(params=SERVERS)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(*SERVERS[request.param])
    yield scene
    for shard in scene.front.node.shards:
        for value in shard.machine.keyspace.values.values():
            if not isinstance(value, bytes) and value.kind == b"queue":
                value.check()  # type: ignore[attr-defined]  # of queues


# Numbers

NO_NUMBER = [b"", b"text", b"1e3", b"1.5", b"+1", b"01", b" 1", b"1 ", b"0x10", b"1_000", b"nan", b"inf", b"9" * 400]
BEYOND = [b"%d" % 2**63, b"%d" % 2**64, b"%d" % (-(2**63) - 1)]
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
TOO_MUCH = [b"%d" % (2**63 - 1), b"%d" % (2**48 + 1)]
NEGATIVE = [b"-1", b"%d" % -(2**63)]

BOUNDED = {
    "Q.CREATE {t}new PARTITIONS N": [b"0", b"-1", b"16385", *TOO_MUCH],
    "Q.CREATE {t}new VISIBILITY N": [b"0", *NEGATIVE, *TOO_MUCH],
    "Q.CREATE {t}new MAXDELIVERIES N": [b"0", *NEGATIVE, *TOO_MUCH],
    "Q.CREATE {t}new BACKOFF N 5": [b"6", *NEGATIVE, *TOO_MUCH],
    "Q.CREATE {t}new BACKOFF 5 N": [b"4", *NEGATIVE, *TOO_MUCH],
    "Q.CREATE {t}new MAXLEN N": [*NEGATIVE, *TOO_MUCH],
    "Q.CREATE {t}new PX N": [*NEGATIVE, *TOO_MUCH],
    "Q.CREATE {t}new DEDUP N": [*NEGATIVE, *TOO_MUCH],
    "Q.CONFIG KEY VISIBILITY N": [b"0", *NEGATIVE, *TOO_MUCH],
    "Q.CONFIG KEY MAXLEN 5 DEDUP N": [*NEGATIVE, *TOO_MUCH],
    "Q.CONFIG KEY BACKOFF N N": [*NEGATIVE, *TOO_MUCH],
    "Q.PUSH KEY x DELAY N": [*NEGATIVE, *TOO_MUCH],
    "Q.PUSH KEY x PRIORITY N": [b"256", *NEGATIVE, *TOO_MUCH],
    "Q.PUSH {t}new x PRIORITY N": [b"256", *NEGATIVE, *TOO_MUCH],
    "Q.POP KEY VISIBILITY N": [b"0", *NEGATIVE, *TOO_MUCH],
    "Q.NACK KEY 1-1 DELAY N": [*NEGATIVE, *TOO_MUCH],
    "Q.EXTEND KEY 1-1 N": [b"0", *NEGATIVE, *TOO_MUCH],
}
COUNTED = ("Q.POP KEY COUNT N", "Q.PEEK KEY COUNT N", "Q.DEAD KEY COUNT N", "Q.REDRIVE KEY COUNT N")


@pytest.mark.parametrize("line", BOUNDED)
def test_a_number_has_bounds(scene: Scene, line: str) -> None:
    for number in [*BOUNDED[line], *NO_NUMBER, *BEYOND]:
        assert scene.refuses(with_number(line, number)) == NOT_AN_INTEGER, number


@pytest.mark.parametrize("line", COUNTED)
def test_a_count_is_at_least_one_and_may_be_as_large_as_it_likes(scene: Scene, line: str) -> None:
    for number in NO_NUMBER + BEYOND:
        assert scene.refuses(with_number(line, number)) == NOT_AN_INTEGER, number
    for number in (b"0", *NEGATIVE):
        assert scene.refuses(with_number(line, number)) == "ERR value is out of range, must be positive", number
    reply = scene.call(with_number(line, b"%d" % (2**63 - 1)))
    assert reply == 1 if "REDRIVE" in line else isinstance(reply, list)


def test_times_that_are_none(scene: Scene) -> None:
    for number in [b"0", *NEGATIVE, *TOO_MUCH]:
        call = with_number("Q.PUSH KEY x PX N", number)
        assert scene.refuses(call) == "ERR invalid expire time in 'q.push' command", number
    for number in NEGATIVE:
        assert scene.refuses(with_number("Q.POP KEY BLOCK N", number)) == "ERR timeout is negative", number
    for number in [*NO_NUMBER, *BEYOND[:2], *TOO_MUCH]:
        call = with_number("Q.POP KEY BLOCK N", number)
        assert scene.refuses(call) == "ERR timeout is not an integer or out of range", number


def with_number(line: str, number: bytes) -> list[bytes]:
    return [number if word == b"N" else word for word in line.encode().split()]


# Options

SYNTAX = (
    "Q.CREATE {t}new VISIBILITY",
    "Q.CREATE {t}new VISIBILITY 5 VISIBILITY 5",
    "Q.CREATE {t}new BACKOFF 5",
    "Q.CREATE {t}new COLOUR red",
    "Q.CREATE {t}new 5",
    "Q.CONFIG KEY VISIBILITY",
    "Q.CONFIG KEY MAXLEN 5 MAXLEN 5",
    "Q.CONFIG KEY MAXLEN 5 COLOUR red",
    "Q.PUSH KEY x ID",
    "Q.PUSH KEY x ID a ID a",
    "Q.PUSH KEY x PX 5 EX 5",
    "Q.PUSH KEY x GROUP",
    "Q.PUSH KEY x y",
    "Q.PUSH KEY x BLOCK 5",
    "Q.POP KEY COUNT",
    "Q.POP KEY COUNT 1 COUNT 1",
    "Q.POP KEY BLOCK 0 BLOCK 0",
    "Q.POP KEY CONSUMER",
    "Q.POP KEY 5",
    "Q.POP KEY COUNT 1 DEAD",
    "Q.NACK KEY 1-1 DELAY",
    "Q.NACK KEY 1-1 DEAD DEAD",
    "Q.NACK KEY 1-1 DEAD REASON",
    "Q.NACK KEY 1-1 1-1",
    "Q.PEEK KEY DEAD DEAD",
    "Q.PEEK KEY COUNT",
    "Q.DEAD KEY 5",
    "Q.DEAD KEY COUNT 1 COUNT 1",
    "Q.REDRIVE KEY 5",
    "Q.REDRIVE KEY COUNT",
    "Q.PURGE KEY ALL",
    "Q.PURGE KEY DEAD DEAD",
    "Q.LIST *",
    "Q.LIST MATCH",
    "Q.LIST MATCH a MATCH a",
)
ARITY = (
    "Q.CREATE", "Q.CONFIG", "Q.PUSH KEY", "Q.MPUSH KEY", "Q.POP", "Q.ACK KEY", "Q.NACK KEY", "Q.EXTEND KEY 1-1",
    "Q.EXTEND KEY 1-1 5 5", "Q.PEEK", "Q.DEAD", "Q.LEN", "Q.LEN KEY more", "Q.INFO", "Q.INFO KEY more", "Q.REDRIVE",
    "Q.PURGE",
)  # fmt: skip


@pytest.mark.parametrize("line", SYNTAX)
def test_options_that_are_unknown_doubled_or_without_a_value(scene: Scene, line: str) -> None:
    assert scene.refuses(line) == "ERR syntax error"


@pytest.mark.parametrize("line", ARITY)
def test_too_few_or_too_many_arguments(scene: Scene, line: str) -> None:
    command = line.partition(" ")[0].lower()
    assert scene.refuses(line) == f"ERR wrong number of arguments for '{command}' command"


def test_settings_that_make_no_sense(scene: Scene) -> None:
    assert scene.refuses("Q.CREATE KEY") == "BUSYKEY Target queue already exists."
    assert scene.refuses("Q.CREATE KEY PARTITIONS 2") == "BUSYKEY Target queue already exists."
    assert scene.refuses("Q.CONFIG {t}new MAXLEN 5") == "ERR no such key"
    assert "PARTITIONS cannot be changed" in scene.refuses("Q.CONFIG KEY PARTITIONS 7")
    for line in ("Q.CREATE {t}new DLQ {t}new", "Q.CONFIG KEY DLQ KEY"):
        assert scene.refuses(line).startswith("ERR a queue cannot be its own DLQ")


def test_a_reason_is_not_longer_than_can_be_kept(scene: Scene) -> None:
    for reason in (bytes(4097), MILLION):
        call = [b"Q.NACK", b"KEY", scene.receipt, b"DEAD", b"REASON", reason]
        assert scene.refuses(call) == "ERR REASON must be at most 4096 bytes long"
    assert scene.call([b"Q.NACK", b"KEY", scene.receipt, b"DEAD", b"REASON", bytes(4096)]) == 1


# Receipts

STALE = (b"", b"-", b"x", b"1", b"1-", b"-1", b"1-1-1", b"0-0", b"-1-1", b"1.0-1", b"01-1", b"9" * 19 + b"-1",
         b"9" * 400 + b"-1", b"\xff\x00-1", b"\xd9\xa1-\xd9\xa1", MILLION)  # fmt: skip


@pytest.mark.parametrize("number", range(len(STALE) + 5))
def test_a_receipt_that_is_no_delivery_counts_nothing(scene: Scene, number: int) -> None:
    own = [
        scene.refused,  # a delivery that was refused
        scene.receipt + b"0",
        scene.receipt.replace(b"-", b" -"),
        scene.receipt + b" ",
        b"0" + scene.receipt,
    ]
    receipt = [*STALE, *own][number]
    assert scene.ignores([b"Q.ACK", b"KEY", receipt, receipt]) == 0
    assert scene.ignores([b"Q.NACK", b"KEY", receipt]) == 0
    assert scene.ignores([b"Q.NACK", b"KEY", receipt, b"DEAD", b"REASON", b"no"]) == 0
    assert scene.ignores([b"Q.EXTEND", b"KEY", receipt, b"5"]) == 0


def test_a_receipt_is_good_for_its_queue(scene: Scene) -> None:
    for key in (b"{t}other", b"{t}new", b"{t}empty"):
        for call in (
            [b"Q.ACK", key, scene.receipt],
            [b"Q.NACK", key, scene.receipt],
            [b"Q.EXTEND", key, scene.receipt, b"5"],
        ):
            assert scene.ignores(call) == 0
    assert scene.call([b"Q.ACK", b"KEY", scene.receipt, scene.receipt]) == 1


# Names and bytes


@pytest.mark.parametrize("key", [b"", b"\r\n", b"\x00\xff", b"{", b"{}", b"a b", MILLION], ids=range(7))
def test_any_bytes_are_a_name(scene: Scene, key: bytes) -> None:
    assert scene.call([b"Q.PUSH", key, key, b"ID", key, b"GROUP", key]) == key
    assert scene.call([b"Q.PUSH", key, key, b"ID", key]) == key
    receipt, payload, deliveries, own = scene.first([b"Q.POP", key, b"CONSUMER", key, b"COUNT", b"9"])
    assert (payload, deliveries, own) == (key, 1, key)
    assert scene.call([b"Q.ACK", key, receipt]) == 1
    assert scene.call([b"DEL", key]) == 1


# Keys of another kind

ON_A_KEY = (
    "Q.CREATE X", "Q.CONFIG X", "Q.CONFIG X MAXLEN 5", "Q.PUSH X x", "Q.MPUSH X x y", "Q.POP X", "Q.POP X BLOCK 0",
    "Q.ACK X 1-1", "Q.NACK X 1-1", "Q.EXTEND X 1-1 5", "Q.PEEK X", "Q.DEAD X", "Q.LEN X", "Q.INFO X", "Q.REDRIVE X",
    "Q.PURGE X",
)  # fmt: skip
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


@pytest.mark.parametrize("line", ON_A_KEY)
def test_keys_of_another_kind(scene: Scene, line: str) -> None:
    for kind in ("string", "lock", "semaphore", "latch", "election"):
        assert scene.refuses(line.replace(" X", f" {{t}}{kind}")) == WRONG_TYPE, kind


def test_a_queue_is_nothing_else(scene: Scene) -> None:
    for line in (
        "GET {t}other",
        "INCR {t}other",
        "APPEND {t}other x",
        "LOCK.ACQUIRE {t}other ann",
        "LATCH.ADD {t}other 1",
    ):
        assert scene.refuses(line) == WRONG_TYPE, line


def test_a_dlq_that_is_no_queue_takes_nothing(scene: Scene) -> None:
    assert scene.call("Q.CONFIG {t}other DLQ {t}string") == b"OK"
    receipt, *_ = scene.first("Q.POP {t}other")
    assert scene.call([b"Q.NACK", b"{t}other", receipt, b"DEAD"]) == 1
    assert len(scene.call("Q.DEAD {t}other")) == 1  # type: ignore[arg-type]
    assert scene.call("GET {t}string") == b"text"


def test_two_that_are_each_others_dlq_end(scene: Scene) -> None:
    for name, dlq in (("a", "b"), ("b", "a")):
        assert scene.call(f"Q.CREATE {{t}}{name} DLQ {{t}}{dlq} MAXDELIVERIES 1 VISIBILITY 10") == b"OK"
    scene.call("Q.PUSH {t}a x ID one")
    for name in "abab":
        message = scene.first(f"Q.POP {{t}}{name}")
        assert message[1:] == [b"x", 1, b"one"]
        scene.front.advance(10)
        scene.front.finish()
    assert scene.call("Q.LEN {t}a") == 1
    assert scene.call("Q.LEN {t}b") == 0


# Steps where nobody may wait


def test_in_a_transaction_nobody_waits(scene: Scene) -> None:
    before = scene.known()
    assert scene.call("MULTI") == b"OK"
    for line in ("Q.POP {t}none BLOCK 0", "Q.POP {t}none BLOCK x", "Q.PUSH {t}string x", "Q.POP {t}none"):
        assert scene.call(line) == b"QUEUED"
    found = scene.call("EXEC")
    assert isinstance(found, list)
    assert found[0] is found[3] is None
    assert str(found[1]) == "ERR timeout is not an integer or out of range"
    assert str(found[2]) == WRONG_TYPE
    assert scene.known() == before
    scene.call("MULTI")
    assert str(scene.call("Q.PUSH {t}other")).startswith("ERR wrong number of arguments")
    assert str(scene.call("EXEC")).startswith("EXECABORT")


def test_the_steps_of_a_worker_are_one(scene: Scene) -> None:
    receipt, *_ = scene.first("Q.POP {t}other")
    scene.call("MULTI")
    for words in (
        [b"Q.ACK", b"{t}other", receipt],
        [b"Q.PUSH", b"{t}next", b"x", b"ID", b"n"],
        [b"SET", b"{t}result", b"1"],
    ):
        assert scene.call(words) == b"QUEUED"
    assert scene.call("EXEC") == [1, b"n", b"OK"]


def test_in_a_fence_nobody_waits_either(scene: Scene) -> None:
    found = scene.call("LOCK.INFO {t}lock")
    told = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))  # type: ignore[index]
    token = told[b"token"]
    assert scene.ignores(f"FENCE {{t}}lock {token} Q.POP {{t}}none BLOCK 0") is None
    assert scene.refuses(f"FENCE {{t}}lock {token} Q.PUSH {{t}}string x") == WRONG_TYPE
    assert scene.refuses(f"FENCE {{t}}lock {token} Q.PUSH {{t}}other x PRIORITY 256") == NOT_AN_INTEGER
    assert scene.refuses(f"FENCE {{t}}lock {token + 1} Q.PUSH {{t}}other x").startswith("FENCED ")
    assert scene.refuses(f"FENCE {{t}}lock {token} Q.PUSH {{t}}other").startswith("ERR wrong number of arguments")
    assert scene.call(f"FENCE {{t}}lock {token} Q.PUSH {{t}}other x ID fenced") == b"fenced"


def test_a_full_queue_takes_none_of_several(scene: Scene) -> None:
    assert scene.call("Q.CONFIG {t}other MAXLEN 2") == b"OK"
    assert scene.refuses("Q.MPUSH {t}other a b").startswith("QUEUEFULL ")
    assert isinstance(scene.call("Q.PUSH {t}other a"), bytes)
    assert scene.refuses("Q.PUSH {t}other b").startswith("QUEUEFULL ")
    assert scene.call("Q.LEN {t}other") == 2
