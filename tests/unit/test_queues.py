"""The Q. commands, driven through the table's records on a machine without a node."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import Commands, Machine
from cluster.machine.message import MOVES, State
from cluster.machine.queue import Queue
from cluster.machine.queues import placed
from cluster.machine.reply import NULL_ARRAY, OK, WAITING, CommandError
from cluster.storage.contract import Row
from resp_server.commands.queues import COMMANDS

HANDLERS = {command.name.encode(): command.run for command in COMMANDS if command.run is not None}
RETRIES = {command.name.encode(): command.retry for command in COMMANDS if command.retry is not None}

START_MS = 1_700_000_000_000


class Shard:
    """One machine and its clock; ``call`` is one entry of one command, written as a line."""

    def __init__(self) -> None:
        self.machine = Machine(Commands(HANDLERS, RETRIES))
        self.machine.begin(START_MS)

    def call(self, line: str, *more: bytes, origin: bytes = b"n1.a.1") -> Any:
        args = [*line.encode().split(), *more]
        self.machine.origin = origin
        return self.machine.run(HANDLERS[args[0]], args)

    def refused(self, line: str, *more: bytes) -> str:
        reply = self.call(line, *more)
        assert isinstance(reply, CommandError), reply
        return reply.line.decode()

    def later(self, ms: int) -> None:
        self.machine.begin(self.machine.now_ms + ms)

    def info(self, key: str = "q") -> dict[str, Any]:
        return {name.decode(): value for name, value in self.call(f"Q.INFO {key}").items()}

    def pop(self, line: str = "q") -> bytes:
        """The receipt of the one message popped."""
        (message,) = self.call(f"Q.POP {line}")
        return bytes(message[0])

    def payloads(self, line: str = "Q.POP q COUNT 100") -> list[bytes]:
        reply = self.call(line)
        return [] if reply is NULL_ARRAY else [message[1] for message in reply]

    def woken(self) -> list[tuple[bytes, Any]]:
        woken = [(origin, reply) for origin, _, reply in self.machine.woken]
        self.machine.woken.clear()
        return woken

    def queue(self, key: bytes = b"q") -> Queue:
        queue = self.machine.keyspace.values[key]
        assert isinstance(queue, Queue)
        queue.check()
        return queue

    def alarms(self) -> int:
        """How many alarms are set; those about to ring do so first."""
        self.later(2048)
        return len(self.machine.clockwork)


@pytest.fixture
def shard() -> Shard:
    return Shard()


class TestBasics:
    def test_a_message_is_pushed_popped_and_acknowledged(self, shard: Shard) -> None:
        message_id = shard.call("Q.PUSH q hello")
        assert shard.call("Q.LEN q") == 1
        ((receipt, payload, deliveries, popped_id),) = shard.call("Q.POP q")
        assert (payload, deliveries, popped_id) == (b"hello", 1, message_id)
        assert shard.call("Q.POP q") is NULL_ARRAY
        assert shard.call("Q.ACK q", receipt) == 1
        assert shard.call("Q.ACK q", receipt) == 0
        info = shard.info()
        assert " ".join(list(info)[:6]) == "ready delayed in-flight dead pushed acked"
        assert " ".join(list(info)[6:12]) == "redelivered expired oldest-ms consumers partitions nodes"
        assert info == {
            "ready": 0,
            "delayed": 0,
            "in-flight": 0,
            "dead": 0,
            "pushed": 1,
            "acked": 1,
            "redelivered": 0,
            "expired": 0,
            "oldest-ms": 0,
            "consumers": 0,
            "partitions": 1,
            "nodes": 1,
            "visibility": 30000,
            "maxdeliveries": 16,
            "backoff": [100, 60000],
            "dlq": None,
            "maxlen": 0,
            "px": 0,
            "dedup": 300000,
        }

    def test_what_is_missing_is_null_or_zero_and_is_not_created(self, shard: Shard) -> None:
        for line in ("Q.POP q", "Q.PEEK q", "Q.PEEK q DEAD", "Q.INFO q", "Q.CONFIG q"):
            assert shard.call(line) is NULL_ARRAY, line
        for line in ("Q.LEN q", "Q.ACK q 1-1", "Q.NACK q 1-1", "Q.EXTEND q 1-1 5", "Q.REDRIVE q", "Q.PURGE q"):
            assert shard.call(line) == 0, line
        assert not shard.machine.keyspace.values

    def test_another_type_is_refused(self, shard: Shard) -> None:
        shard.machine.keyspace.put(b"q", b"text")
        for line in (
            *("Q.CREATE q", "Q.CONFIG q", "Q.PUSH q x", "Q.MPUSH q x", "Q.POP q", "Q.POP q BLOCK 0", "Q.ACK q 1-1"),
            *("Q.NACK q 1-1", "Q.EXTEND q 1-1 1", "Q.PEEK q", "Q.LEN q", "Q.INFO q", "Q.REDRIVE q", "Q.PURGE q"),
        ):
            assert shard.refused(line).startswith("WRONGTYPE"), line

    def test_mpush_and_count(self, shard: Shard) -> None:
        ids = shard.call("Q.MPUSH q a b c d")
        assert len(set(ids)) == 4
        assert shard.payloads("Q.POP q COUNT 3") == [b"a", b"b", b"c"]
        assert shard.payloads("Q.POP q COUNT 3") == [b"d"]

    def test_ids_sort_as_they_were_pushed(self, shard: Shard) -> None:
        ids = []
        for _ in range(30):
            ids.append(shard.call("Q.PUSH q x"))
            shard.later(1)
        parts = [tuple(map(int, one.split(b"-"))) for one in ids]
        assert parts == sorted(set(parts))

    @pytest.mark.parametrize(
        "receipt", [b"", b"-", b"1", b"1-2", b"01-1", b" 1-1", b"1-1 ", b"x", b"9" * 5000, b"\xff"]
    )
    def test_a_receipt_never_given_counts_nothing(self, shard: Shard, receipt: bytes) -> None:
        shard.call("Q.PUSH q x")
        given = shard.pop()
        assert given == b"1-1"
        assert shard.call("Q.ACK q", receipt) == 0
        assert shard.call("Q.NACK q", receipt) == 0
        assert shard.call("Q.ACK q", receipt, given, given) == 1

    def test_a_queue_stays_when_it_is_empty_and_its_receipts_end_with_it(self, shard: Shard) -> None:
        shard.call("Q.PUSH q x")
        receipt = shard.pop()
        shard.machine.keyspace.remove(b"q")
        shard.call("Q.PUSH q y")
        shard.pop()
        assert shard.call("Q.ACK q", receipt) == 0
        shard.later(40_000)
        shard.later(40_000)
        assert shard.payloads() == [b"y"]

    def test_list_is_sorted_and_matched(self, shard: Shard) -> None:
        for key in ("mail:b", "mail:a", "jobs"):
            shard.call(f"Q.CREATE {key}")
        shard.machine.keyspace.put(b"mail:text", b"")
        assert shard.call("Q.LIST") == [b"jobs", b"mail:a", b"mail:b"]
        assert shard.call("Q.LIST MATCH mail:*") == [b"mail:a", b"mail:b"]


class TestOptions:
    @pytest.mark.parametrize(
        ("line", "error"),
        [
            ("Q.PUSH q x NOPE 1", "ERR syntax error"),
            ("Q.PUSH q x DELAY", "ERR syntax error"),
            ("Q.PUSH q x DELAY -1", "ERR value is not an integer or out of range"),
            ("Q.PUSH q x DELAY 9223372036854775807", "ERR value is not an integer or out of range"),
            ("Q.PUSH q x PRIORITY 256", "ERR value is not an integer or out of range"),
            ("Q.PUSH q x PRIORITY high", "ERR value is not an integer or out of range"),
            ("Q.PUSH q x PX 0", "ERR invalid expire time in 'q.push' command"),
            ("Q.POP q COUNT 0", "ERR value is out of range, must be positive"),
            ("Q.POP q COUNT x", "ERR value is not an integer or out of range"),
            ("Q.POP q BLOCK -1", "ERR timeout is negative"),
            ("Q.POP q BLOCK x", "ERR timeout is not an integer or out of range"),
            ("Q.POP q VISIBILITY 0", "ERR value is not an integer or out of range"),
            ("Q.POP q LATER", "ERR syntax error"),
            ("Q.NACK q 1-1 DELAY -1", "ERR value is not an integer or out of range"),
            ("Q.NACK q 1-1 ALIVE", "ERR syntax error"),
            ("Q.EXTEND q 1-1 0", "ERR value is not an integer or out of range"),
            ("Q.PEEK q COUNT -1", "ERR value is out of range, must be positive"),
            ("Q.PEEK q ALIVE", "ERR syntax error"),
            ("Q.REDRIVE q ALL", "ERR syntax error"),
            ("Q.PURGE q ALL", "ERR syntax error"),
            ("Q.PURGE q DEAD DEAD", "ERR syntax error"),
            ("Q.LIST COUNT", "ERR syntax error"),
            ("Q.CREATE q BACKOFF 5", "ERR syntax error"),
            ("Q.CREATE q BACKOFF 5 4", "ERR value is not an integer or out of range"),
            ("Q.CREATE q PARTITIONS 0", "ERR value is not an integer or out of range"),
            ("Q.CREATE q DLQ q", "ERR a queue cannot be its own DLQ: name another queue, or '' for none"),
            ("Q.CONFIG q MAXLEN 1", "ERR no such key"),
        ],
    )
    def test_a_bad_option_is_refused_and_changes_nothing(self, shard: Shard, line: str, error: str) -> None:
        assert shard.refused(line) == error
        assert not shard.machine.keyspace.values

    def test_create_and_config(self, shard: Shard) -> None:
        assert (
            shard.call("Q.CREATE q partitions 3 VISIBILITY 10 MAXDELIVERIES 2 BACKOFF 1 8 DLQ d MAXLEN 4 PX 5 DEDUP 6")
            is OK
        )
        assert shard.refused("Q.CREATE q").startswith("BUSYKEY")
        expected = {
            b"partitions": 3,
            b"visibility": 10,
            b"maxdeliveries": 2,
            b"backoff": [1, 8],
            b"dlq": b"d",
            b"maxlen": 4,
            b"px": 5,
            b"dedup": 6,
        }
        assert shard.call("Q.CONFIG q") == expected
        assert shard.call("Q.CONFIG q MAXLEN 0 DLQ", b"") is OK
        assert shard.call("Q.CONFIG q") == {**expected, b"maxlen": 0, b"dlq": None}

    def test_ids_groups_and_consumers_are_binary(self, shard: Shard) -> None:
        strange = b"\x00\xff\r\n"
        assert shard.call("Q.PUSH q", strange, b"ID", strange, b"GROUP", b"") == strange
        ((receipt, payload, _, message_id),) = shard.call("Q.POP q CONSUMER", strange)
        assert (payload, message_id) == (strange, strange)
        assert shard.call("Q.ACK q", receipt) == 1

    def test_maxlen_stores_all_or_nothing(self, shard: Shard) -> None:
        shard.call("Q.CREATE q MAXLEN 3")
        assert shard.refused("Q.MPUSH q a b c d").startswith("QUEUEFULL ")
        shard.call("Q.MPUSH q a b")
        assert shard.call("Q.PUSH q c ID c") == b"c"
        receipt = shard.pop()
        assert shard.refused("Q.PUSH q d").startswith("QUEUEFULL ")
        assert shard.call("Q.PUSH q c ID c") == b"c"
        shard.call("Q.ACK q", receipt)
        shard.call("Q.PUSH q d")
        assert shard.info()["pushed"] == 4

    def test_an_id_is_known_for_its_window_and_no_longer(self, shard: Shard) -> None:
        shard.call("Q.CREATE q DEDUP 1000")
        shard.call("Q.PUSH q first ID x")
        shard.call("Q.ACK q", shard.pop())
        shard.later(999)
        assert shard.call("Q.PUSH q again ID x") == b"x"
        assert shard.call("Q.LEN q") == 0
        shard.later(1)
        assert shard.call("Q.PUSH q again ID x") == b"x"
        assert shard.payloads() == [b"again"]
        shard.later(1000)
        shard.call("Q.PUSH q other")
        assert not shard.queue()._sightings
        assert not shard.queue()._seen

    def test_remembered_ids_survive_a_purge(self, shard: Shard) -> None:
        shard.call("Q.PUSH q first ID x")
        assert shard.call("Q.PURGE q") == 1
        shard.call("Q.PUSH q again ID x")
        assert shard.call("Q.LEN q") == 0


class TestTime:
    def test_a_message_not_acknowledged_comes_back_to_its_place(self, shard: Shard) -> None:
        shard.call("Q.CREATE q VISIBILITY 1000 BACKOFF 0 0")
        shard.call("Q.MPUSH q a b")
        stale = shard.pop()
        shard.later(999)
        assert shard.call("Q.LEN q") == 1
        shard.later(1)
        ((receipt, payload, deliveries, _), (_, other, _, _)) = shard.call("Q.POP q COUNT 5")
        assert (payload, deliveries, other) == (b"a", 2, b"b")
        assert shard.call("Q.ACK q", stale) == 0
        assert shard.call("Q.ACK q", receipt) == 1
        assert shard.info()["redelivered"] == 1

    def test_the_back_off_doubles_after_refusals_and_time_outs(self, shard: Shard) -> None:
        shard.call("Q.CREATE q VISIBILITY 1000 BACKOFF 100 500")
        shard.call("Q.PUSH q x")
        for turn, pause_ms in enumerate((100, 200, 400, 500, 500)):
            receipt = shard.pop()
            if turn % 2:
                shard.later(1000)
            else:
                assert shard.call("Q.NACK q", receipt) == 1
            assert shard.info()["delayed"] == 1
            shard.later(pause_ms - 1)
            assert shard.call("Q.POP q") is NULL_ARRAY
            shard.later(1)
        assert shard.call("Q.NACK q", shard.pop(), b"DELAY", b"7") == 1
        shard.later(7)
        assert shard.call("Q.NACK q", shard.pop(), b"DELAY", b"0") == 1
        assert shard.call("Q.LEN q") == 1

    def test_extend_counts_from_now(self, shard: Shard) -> None:
        shard.call("Q.CREATE q VISIBILITY 1000 BACKOFF 0 0")
        shard.call("Q.PUSH q x")
        receipt = shard.pop()
        shard.later(900)
        assert shard.call("Q.EXTEND q", receipt, b"1000") == 1
        shard.later(999)
        assert shard.info()["in-flight"] == 1
        shard.later(1)
        assert shard.info()["ready"] == 1
        assert shard.call("Q.EXTEND q", receipt, b"1000") == 0

    def test_visibility_of_one_pop(self, shard: Shard) -> None:
        shard.call("Q.CREATE q BACKOFF 0 0")
        shard.call("Q.PUSH q x")
        shard.pop("q VISIBILITY 5")
        shard.later(5)
        assert shard.call("Q.LEN q") == 1

    def test_a_delayed_message_takes_the_place_of_its_push(self, shard: Shard) -> None:
        shard.call("Q.PUSH q late DELAY 100")
        shard.call("Q.PUSH q soon")
        assert shard.call("Q.LEN q") == 1
        shard.later(100)
        assert shard.payloads() == [b"late", b"soon"]

    def test_age_ends_ready_and_delayed_messages_at_once_and_taken_ones_on_their_return(self, shard: Shard) -> None:
        shard.call("Q.CREATE q PX 100 BACKOFF 0 0")
        shard.call("Q.PUSH q taken")
        receipt = shard.pop()
        shard.call("Q.PUSH q ready")
        shard.call("Q.PUSH q delayed DELAY 200")
        shard.call("Q.PUSH q own PX 500")
        shard.later(100)
        assert (shard.info()["expired"], shard.info()["in-flight"]) == (2, 1)
        assert shard.payloads("Q.PEEK q") == [b"own"]
        assert shard.call("Q.NACK q", receipt) == 1
        assert (shard.info()["expired"], shard.info()["in-flight"]) == (3, 0)

    def test_alarms_do_not_pile_up(self, shard: Shard) -> None:
        for _ in range(50):
            shard.call("Q.PUSH q x PX 90000 DELAY 10")
            shard.later(10)
            receipt = shard.pop()
            shard.call("Q.EXTEND q", receipt, b"70000")
            shard.call("Q.NACK q", receipt, b"DELAY", b"0")
            assert shard.alarms() == 1
            shard.call("Q.ACK q", shard.pop())
            assert shard.alarms() == 0
        shard.call("Q.MPUSH q a b c")
        shard.call("Q.PUSH q d DELAY 50000 PX 60000")
        shard.pop()
        shard.call("Q.PURGE q")
        assert shard.alarms() == 0

    def test_more_due_at_once_than_one_entry_rings(self, shard: Shard) -> None:
        shard.call("Q.CREATE q PX 10")
        shard.call("Q.MPUSH q", *[b"x"] * 2500)
        shard.later(10)
        assert shard.machine.behind
        assert shard.call("Q.POP q COUNT 3000") is NULL_ARRAY
        assert shard.info()["expired"] == 2500


class TestOrder:
    def test_priority_then_number(self, shard: Shard) -> None:
        for payload, priority in ((b"low", 0), (b"high", 255), (b"mid", 7), (b"high2", 255), (b"low2", 0)):
            shard.call("Q.PUSH q", payload, b"PRIORITY", b"%d" % priority)
        expected = [b"high", b"high2", b"mid", b"low", b"low2"]
        assert shard.payloads("Q.PEEK q") == expected
        assert shard.payloads("Q.PEEK q COUNT 2") == expected[:2]
        assert shard.payloads() == expected

    def test_a_group_goes_one_at_a_time_and_blocks_nobody_else(self, shard: Shard) -> None:
        for payload, group in ((b"a1", b"a"), (b"a2", b"a"), (b"b1", b"b"), (b"c", None), (b"a3", b"a")):
            shard.call("Q.PUSH q", payload, *([b"GROUP", group] if group else []))
        assert shard.payloads("Q.PEEK q") == [b"a1", b"a2", b"b1", b"c", b"a3"]
        popped = shard.call("Q.POP q COUNT 10")
        assert [message[1] for message in popped] == [b"a1", b"b1", b"c"]
        assert shard.payloads("Q.PEEK q") == []
        assert shard.call("Q.LEN q") == 2
        shard.call("Q.NACK q", popped[0][0])
        assert shard.call("Q.POP q") is NULL_ARRAY
        shard.later(100)
        receipt = shard.pop()
        shard.call("Q.NACK q", receipt, b"DEAD")
        assert shard.payloads() == [b"a2"]

    def test_a_delayed_head_holds_its_group_back(self, shard: Shard) -> None:
        shard.call("Q.PUSH q first GROUP g DELAY 50")
        shard.call("Q.PUSH q second GROUP g PRIORITY 9")
        assert shard.call("Q.POP q") is NULL_ARRAY
        shard.later(50)
        assert shard.payloads() == [b"first"]

    def test_a_group_goes_on_when_its_head_outlives_its_age(self, shard: Shard) -> None:
        shard.call("Q.PUSH q first GROUP g PX 10")
        shard.call("Q.PUSH q second GROUP g PX 10")
        shard.call("Q.PUSH q third GROUP g")
        assert shard.call("Q.POP q BLOCK 0 COUNT 1", origin=b"n1.b.1")[0][1] == b"first"
        assert shard.call("Q.POP q BLOCK 0", origin=b"n1.b.2") is WAITING
        shard.later(10)
        assert shard.call("Q.ACK q 1-1") == 1
        assert [(origin, reply[0][1]) for origin, reply in shard.woken()] == [(b"n1.b.2", b"third")]


class TestWaiting:
    def test_first_come_first_served(self, shard: Shard) -> None:
        assert shard.call("Q.POP q BLOCK 0 COUNT 2", origin=b"n1.a.1") is WAITING
        assert shard.call("Q.POP q BLOCK 0 CONSUMER me", origin=b"n1.a.2") is WAITING
        assert not shard.machine.keyspace.values
        shard.call("Q.MPUSH q a b c d", origin=b"n1.a.3")
        woken = [(origin, [message[1] for message in reply]) for origin, reply in shard.woken()]
        assert woken == [(b"n1.a.1", [b"a", b"b"]), (b"n1.a.2", [b"c"])]
        assert shard.queue().consumers == {b"n1.a.1": 2, b"me": 1}
        assert shard.payloads("Q.PEEK q") == [b"d"]

    def test_a_wait_ends_in_a_null_array(self, shard: Shard) -> None:
        assert shard.call("Q.POP q BLOCK 100") is WAITING
        shard.later(99)
        assert shard.woken() == []
        shard.later(1)
        assert shard.woken() == [(b"n1.a.1", NULL_ARRAY)]
        shard.call("Q.PUSH q x")
        assert shard.woken() == []

    @pytest.mark.parametrize("how", ["refused", "timed out", "delayed", "redriven", "acknowledged"])
    def test_whatever_makes_a_message_ready_wakes(self, shard: Shard, how: str) -> None:
        shard.call("Q.CREATE q VISIBILITY 5000")
        if how == "delayed":
            shard.call("Q.PUSH q x DELAY 100")
        else:
            shard.call("Q.PUSH q x GROUP g")
            receipt = shard.pop()
        if how == "acknowledged":
            shard.call("Q.PUSH q y GROUP g")
        assert shard.call("Q.POP q BLOCK 0", origin=b"n1.b.1") is WAITING
        if how == "refused":
            shard.call("Q.NACK q", receipt, b"DELAY", b"0")
        elif how == "redriven":
            shard.call("Q.NACK q", receipt, b"DEAD")
            assert shard.woken() == []
            shard.call("Q.REDRIVE q")
        elif how == "acknowledged":
            shard.call("Q.ACK q", receipt)
        else:
            shard.later(5000)
            shard.later(100)
        ((origin, reply),) = shard.woken()
        assert (origin, reply[0][1]) == (b"n1.b.1", b"y" if how == "acknowledged" else b"x")

    def test_a_waiter_outlasts_the_queue_and_another_type(self, shard: Shard) -> None:
        shard.call("Q.CREATE q")
        assert shard.call("Q.POP q BLOCK 0") is WAITING
        shard.machine.keyspace.remove(b"q")
        shard.machine.settle()
        shard.machine.keyspace.put(b"q", b"text")
        shard.machine.signal(b"q")
        shard.machine.settle()
        shard.machine.keyspace.remove(b"q")
        assert shard.woken() == []
        shard.call("Q.PUSH q x", origin=b"n1.b.1")
        assert [reply[0][1] for _, reply in shard.woken()] == [b"x"]

    def test_one_who_left_is_passed_over(self, shard: Shard) -> None:
        shard.call("Q.POP q BLOCK 0", origin=b"n1.a.1")
        shard.call("Q.POP q BLOCK 0", origin=b"n1.a.2")
        shard.machine.end_session(b"n1.a.1")
        shard.call("Q.PUSH q x", origin=b"n1.b.1")
        assert [origin for origin, _ in shard.woken()] == [b"n1.a.2"]

    def test_nobody_waits_inside_a_transaction(self, shard: Shard) -> None:
        shard.machine.may_wait = False
        assert shard.call("Q.POP q BLOCK 0") is NULL_ARRAY


class TestDeadLetters:
    def test_past_maxdeliveries_it_is_kept_with_its_story(self, shard: Shard) -> None:
        shard.call("Q.CREATE q MAXDELIVERIES 2 VISIBILITY 1000 BACKOFF 0 0")
        message_id = shard.call("Q.PUSH q x")
        shard.call("Q.NACK q", shard.pop())
        shard.pop()
        shard.later(1000)
        assert shard.call("Q.POP q") is NULL_ARRAY
        assert shard.call("Q.PEEK q DEAD") == [[None, b"x", 2, message_id]]
        assert shard.info()["dead"] == 1
        (dead,) = shard.queue().dead.values()
        assert (dead.pushed_ms, dead.at_ms, dead.note) == (START_MS, START_MS + 1000, b"timed out")

    def test_it_is_shown_with_its_story(self, shard: Shard) -> None:
        shard.call("Q.CREATE q MAXDELIVERIES 2 VISIBILITY 1000 BACKOFF 0 0")
        ids = shard.call("Q.MPUSH q a b c d")
        receipts = [message[0] for message in shard.call("Q.POP q COUNT 4")]
        shard.later(10)
        shard.call("Q.NACK q", receipts[1], b"REASON", b"no ink", b"DEAD")
        shard.call("Q.NACK q", receipts[0], b"DEAD")
        shard.call("Q.NACK q", receipts[2], b"REASON", b"forgotten: it goes on")
        shard.call("Q.NACK q", shard.pop(), b"REASON", b"")
        shard.later(1000)
        shard.call("Q.NACK q", shard.pop())
        expected = [(b"refused for good", 1, 10), (b"no ink", 1, 10), (b"", 2, 10), (b"refused", 2, 1010)]
        assert shard.call("Q.DEAD q") == [
            {
                b"id": ids[number],
                b"payload": b"abcd"[number : number + 1],
                b"queue": b"q",
                b"deliveries": deliveries,
                b"pushed-ms": START_MS,
                b"died-ms": START_MS + died_ms,
                b"reason": reason,
            }
            for number, (reason, deliveries, died_ms) in enumerate(expected)
        ]
        assert [letter[b"payload"] for letter in shard.call("Q.DEAD q COUNT 2")] == [b"a", b"b"]
        assert shard.call("Q.DEAD none") is NULL_ARRAY

    @pytest.mark.parametrize("restored", [False, True])
    def test_a_dlq_shows_whose_they_are(self, shard: Shard, restored: bool) -> None:
        shard.call("Q.CREATE q DLQ d")
        shard.call("Q.PUSH d own")
        shard.call("Q.NACK d", shard.pop("d"), b"DEAD")
        for payload in (b"x", b"y", b"z"):
            shard.call("Q.PUSH q", payload)
            shard.later(5)
            shard.call("Q.NACK q", shard.pop(), b"DEAD", b"REASON", b"torn " + payload)
        shard.call("Q.PUSH d ordinary")
        if restored:
            shard = again(shard)

        def shown(key: str) -> list[tuple[bytes, bytes, int, int, bytes]]:
            shard.queue(key.encode())
            names = (b"queue", b"payload", b"pushed-ms", b"died-ms", b"reason")
            return [tuple(one[name] for name in names) for one in shard.call(f"Q.DEAD {key}")]

        sent = [
            (b"q", bytes([letter]), START_MS + 5 * number, START_MS + 5 * number + 5, b"torn " + bytes([letter]))
            for number, letter in enumerate(b"xyz")
        ]
        own = (b"d", b"own", START_MS, START_MS, b"refused for good")
        assert shown("q") == []
        assert shown("d") == [own, *sent]
        assert shard.payloads("Q.PEEK d") == [b"x", b"y", b"z", b"ordinary"]
        shard.call("Q.ACK d", shard.pop("d"))
        assert shown("d") == [own, *sent[1:]]
        shard.call("Q.NACK d", shard.pop("d"), b"DEAD", b"REASON", b"again")
        assert shown("d") == [own, (b"d", b"y", START_MS + 10, START_MS + 15, b"again"), sent[2]]
        shard.call("Q.PURGE d DEAD")
        assert shown("d") == sent[2:]
        shard.call("Q.PURGE d")
        assert shown("d") == []

    def test_two_that_are_each_others_dlq_do_nothing_by_themselves(self, shard: Shard) -> None:
        shard.call("Q.CREATE a DLQ b")
        shard.call("Q.CREATE b DLQ a MAXDELIVERIES 1 VISIBILITY 10")
        shard.call("Q.PUSH a x ID one")
        shard.call("Q.NACK a", shard.pop("a"), b"DEAD", b"REASON", b"first")
        assert [letter[b"reason"] for letter in shard.call("Q.DEAD b")] == [b"first"]
        shard.pop("b")
        shard.later(10)
        assert (shard.info("a")["ready"], shard.info("b")["ready"]) == (1, 0)
        assert [(one[b"queue"], one[b"reason"]) for one in shard.call("Q.DEAD a")] == [(b"b", b"timed out")]
        assert shard.call("Q.POP a")[0][1:] == [b"x", 1, b"one"]
        assert not shard.queue(b"b").origins

    def test_redrive_begins_afresh_at_the_end(self, shard: Shard) -> None:
        shard.call("Q.CREATE q PX 1000")
        shard.call("Q.MPUSH q a b c")
        first, second, _ = shard.call("Q.POP q COUNT 3")
        shard.call("Q.NACK q", second[0], b"DEAD")
        shard.call("Q.NACK q", first[0], b"DEAD")
        shard.later(5000)
        shard.call("Q.PUSH q d PX 10000")
        assert shard.call("Q.REDRIVE q COUNT 1") == 1
        assert shard.payloads("Q.PEEK q DEAD") == [b"b"]
        assert shard.call("Q.REDRIVE q") == 1
        assert shard.call("Q.REDRIVE q") == 0
        assert shard.call("Q.ACK q", first[0]) == 0
        popped = shard.call("Q.POP q COUNT 5")
        assert [message[1:] for message in popped[1:]] == [[b"a", 1, first[3]], [b"b", 1, second[3]]]
        assert shard.info()["pushed"] == 4

    def test_redrive_stops_at_maxlen(self, shard: Shard) -> None:
        shard.call("Q.MPUSH q a b c")
        for message in shard.call("Q.POP q COUNT 3"):
            shard.call("Q.NACK q", message[0], b"DEAD")
        shard.call("Q.CONFIG q MAXLEN 2")
        assert shard.call("Q.REDRIVE q") == 2
        assert shard.info()["dead"] == 1

    def test_purge_of_the_dead_and_of_all(self, shard: Shard) -> None:
        shard.call("Q.MPUSH q a b c")
        shard.call("Q.NACK q", shard.pop(), b"DEAD")
        assert shard.call("Q.PURGE q DEAD") == 1
        shard.call("Q.NACK q", shard.pop(), b"DEAD")
        receipt = shard.pop()
        assert shard.call("Q.PURGE q") == 2
        assert shard.call("Q.ACK q", receipt) == 0
        assert (shard.info()["pushed"], shard.info()["consumers"]) == (3, 0)

    def test_a_dead_letter_goes_to_the_dlq_full_or_not(self, shard: Shard) -> None:
        shard.call("Q.CREATE q DLQ d")
        shard.call("Q.PUSH q x ID one PRIORITY 3 GROUP g")
        assert shard.call("Q.POP d BLOCK 0", origin=b"n1.b.1") is WAITING
        shard.call("Q.NACK q", shard.pop(), b"DEAD")
        ((_, reply),) = shard.woken()
        assert reply[0][1:] == [b"x", 1, b"one"]
        assert (shard.info("q")["dead"], shard.info("d")["pushed"]) == (1, 1)
        assert shard.call("Q.PEEK q DEAD") == []
        shard.call("Q.CONFIG d MAXLEN 1")
        shard.call("Q.PUSH q y")
        shard.call("Q.NACK q", shard.pop(), b"DEAD")
        assert len(shard.queue(b"d").living) == 2

    def test_a_dlq_of_another_type_leaves_the_dead_letter_here(self, shard: Shard) -> None:
        shard.call("Q.CREATE q DLQ d")
        shard.machine.keyspace.put(b"d", b"text")
        shard.call("Q.PUSH q x")
        shard.call("Q.NACK q", shard.pop(), b"DEAD")
        assert shard.payloads("Q.PEEK q DEAD") == [b"x"]
        assert shard.info()["dead"] == 1


class TestValue:
    def test_a_copy_is_exact_and_apart(self, shard: Shard) -> None:
        shard.call("Q.CREATE q VISIBILITY 1000 BACKOFF 0 0")
        shard.call("Q.MPUSH q a b c")
        shard.call("Q.PUSH q d ID d DELAY 500")
        receipt = shard.pop()
        shard.call("Q.NACK q", shard.pop(), b"DEAD")
        shard.machine.keyspace.put(b"copy", shard.queue().copy())
        placed(shard.machine, b"copy")
        assert state_of(shard.machine, b"copy") == state_of(shard.machine, b"q")
        assert shard.call("Q.ACK q", receipt) == 1
        assert shard.call("Q.LEN copy") == 1
        shard.later(1000)
        assert shard.payloads("Q.PEEK copy") == [b"a", b"c", b"d"]
        assert shard.payloads("Q.PEEK q") == [b"c", b"d"]
        shard.queue(b"copy")

    def test_size_follows_the_payloads(self, shard: Shard) -> None:
        shard.call("Q.CREATE q")
        empty_bytes = shard.queue().size_bytes()
        shard.call("Q.PUSH q", b"x" * 10_000)
        assert shard.queue().size_bytes() > empty_bytes + 10_000
        shard.call("Q.NACK q", shard.pop(), b"DEAD")
        assert shard.queue().size_bytes() > empty_bytes + 10_000
        shard.call("Q.REDRIVE q")
        shard.call("Q.ACK q", shard.pop())
        assert shard.queue().size_bytes() == empty_bytes

    def test_only_written_moves_exist(self) -> None:
        ends = {after for moves in MOVES.values() for after in moves.values()}
        assert ends == {State.READY, State.IN_FLIGHT, State.DELAYED, State.DEAD, State.GONE}
        assert all(State.GONE not in moves for moves in MOVES.values())
        assert all(callable(getattr(Queue, verb)) for verb in MOVES)

    def test_a_message_cannot_be_acknowledged_before_it_is_taken(self, shard: Shard) -> None:
        shard.call("Q.PUSH q x")
        (message,) = shard.queue().living.values()
        with pytest.raises(KeyError):
            shard.queue().acknowledge(message)

    def test_many_that_expire_in_the_middle_leave_no_trace(self, shard: Shard) -> None:
        shard.call("Q.PUSH q stays")
        for _ in range(200):
            shard.call("Q.MPUSH q stays stays")
            shard.call("Q.CONFIG q PX 1")
            shard.call("Q.MPUSH q", *[b"goes"] * 10)
            shard.call("Q.CONFIG q PX 0")
            shard.later(1)
        (line,) = shard.queue()._lines.values()
        assert len(line._fresh) <= 2 * shard.call("Q.LEN q") == 802


def state_of(machine: Machine, key: bytes) -> list[tuple[bytes, bytes | None]]:
    """Everything of a queue that a checkpoint keeps."""
    queue = machine.keyspace.values[key]
    assert isinstance(queue, Queue)
    return [(b"", queue.header()), *((part, queue.part(part)) for part in sorted(queue.parts()))]


def rows_of(shard: Shard, checkpoint: Checkpoint) -> dict[bytes, Row]:
    """What a checkpoint writes of the one queue, by part."""
    rows: dict[bytes, Row] = {}
    while drawn := checkpoint.slice(2):
        rows |= {row.part: row for row in drawn}
    shard.machine.keyspace.end_checkpoint(durable=True)
    return rows


def again(shard: Shard) -> Shard:
    """Another one, from a checkpoint of this one."""
    checkpoint, ledger = shard.machine.begin_checkpoint()
    rows: list[Row] = []
    while more := checkpoint.slice(10):
        rows += more
    other = Shard()
    other.machine.restore(ledger, sorted(rows, key=lambda row: (row.key, row.part)))
    return other


def restored(rows: dict[bytes, Row], ledger: bytes) -> Machine:
    machine = Machine(Commands(HANDLERS, RETRIES))
    machine.restore(ledger, [rows[part] for part in sorted(rows)])
    return machine


STEPS = (
    "Q.CONFIG q MAXLEN 100",
    "Q.PUSH q new",
    "Q.PUSH q new ID new",
    "Q.MPUSH q one two",
    "Q.POP q COUNT 9",
    "Q.ACK q 5-1",
    "Q.NACK q 5-1",
    "Q.NACK q 5-1 DEAD",
    "Q.EXTEND q 5-1 9000",
    "Q.REDRIVE q COUNT 1",
    "Q.PURGE q DEAD",
    "Q.PURGE q",
    "timed out",
    "delay over",
    "age over",
    "ids forgotten",
)


@pytest.mark.parametrize("step", STEPS)
def test_a_checkpoint_holds_what_was_when_it_began_and_the_next_what_changed(shard: Shard, step: str) -> None:
    shard.call("Q.CREATE q VISIBILITY 1000 BACKOFF 50 50 DEDUP 5000")
    shard.call("Q.MPUSH q back dead1 dead2")
    for receipt in (b"2-1", b"3-1"):
        shard.call("Q.POP q COUNT 3")
        shard.call("Q.NACK q", receipt, b"DEAD")
    shard.call("Q.NACK q 1-1 DELAY 0")
    shard.call("Q.PUSH q delayed DELAY 700")
    shard.call("Q.PUSH q taken PRIORITY 9 ID taken")
    shard.call("Q.PUSH q aged PX 500")
    assert shard.pop() == b"5-1"

    as_it_began = state_of(shard.machine, b"q")
    checkpoint, ledger = shard.machine.begin_checkpoint()
    if step == "ids forgotten":
        shard.later(5000)
        shard.call("Q.PUSH q new")
    elif step in ("timed out", "delay over", "age over"):
        shard.later({"timed out": 1000, "delay over": 700, "age over": 500}[step])
    else:
        shard.call(step)
    assert state_of(shard.machine, b"q") != as_it_began

    rows = rows_of(shard, checkpoint)
    assert state_of(restored(rows, ledger), b"q") == as_it_began

    checkpoint, ledger = shard.machine.begin_checkpoint()
    kept = {} if b"q" in checkpoint.erased else rows
    kept = kept | rows_of(shard, checkpoint)
    assert state_of(restored(kept, ledger), b"q") == state_of(shard.machine, b"q")


def test_rows_bring_a_queue_back(shard: Shard) -> None:
    shard.call("Q.CREATE q VISIBILITY 1000 BACKOFF 0 0 PX 5000")
    shard.call("Q.MPUSH q a b c")
    shard.call("Q.PUSH q d ID d DELAY 500 GROUP g")
    shard.call("Q.NACK q", shard.pop(), b"DEAD")
    receipt = shard.pop("q CONSUMER me")
    rows = [Row(b"q", part, Queue.kind, None, body) for part, body in state_of(shard.machine, b"q")]
    _, ledger = shard.machine.begin_checkpoint()
    again = Shard()
    again.machine = Machine(Commands(HANDLERS, RETRIES))
    again.machine.restore(ledger, rows)
    assert state_of(again.machine, b"q") == state_of(shard.machine, b"q")
    assert again.info() == shard.info()
    for one in (shard, again):
        assert one.call("Q.PUSH q d ID d") == b"d"
        one.later(1000)
        assert one.payloads("Q.PEEK q") == [b"b", b"c", b"d"]
        assert one.call("Q.ACK q", receipt) == 0
        one.later(4000)
        assert one.info()["expired"] == 3
