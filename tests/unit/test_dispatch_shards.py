"""The front over several shards: who gets which command, in what order clients are answered, what many shards say."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine.reply import NULL_ARRAY, OK, WAITING, CommandError, Reply
from cluster.node import Answers
from cluster.ring.slots import SLOTS, shard_of_slots, slot_of
from resp_server.commands.command import ALL_KEYS, ONE_KEY
from resp_server.commands.spreading import (
    all_done,
    any_one,
    by_keys,
    by_keys_in_order,
    by_slot,
    one_after_the_other,
    total,
)
from resp_server.commands.strings import PAIRS
from resp_server.places import merged
from resp_server.session import Session
from resp_server.settings import load
from tests.front import Client, Front
from tests.unit.wire_front import WireFront

SHARDS = 4
SLOT_SHARD = shard_of_slots(SHARDS)
CROSSSLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"


def key_in(shard: int, number: int = 0) -> bytes:
    """The ``number``-th key of a shard."""
    keys = (key for key in (b"k%d" % tried for tried in range(1000)) if SLOT_SHARD[slot_of(key)] == shard)
    return [next(keys) for _ in range(number + 1)][-1]


A, B, C = key_in(0), key_in(1), key_in(2)


def words(line: str) -> list[bytes]:
    """A call in which A, B and C stand for keys of three shards, AA for another of A's."""
    keys = {b"A": A, b"AA": key_in(0, 1), b"B": B, b"C": C}
    return [keys.get(word, word) for word in line.encode().split()]


@pytest.fixture
def front() -> Front:
    return Front(settings=load({"shards": str(SHARDS)}, {}))


@pytest.fixture
def client(front: Front) -> Client:
    return front.connect()


def ask(client: Client, *lines: str) -> list[Any]:
    """The replies to one pipeline."""
    for line in lines[:-1]:
        client.ask(words(line))
    return client.call(*words(lines[-1]))


def failed(reply: Any) -> str:
    """The code of an error reply."""
    return str(reply).split()[0]


# Order


def asked(front: Front) -> list[deque[tuple[Any, Reply]]]:
    """What is open in each shard, as (client, reply): the reply to a command is its last argument."""
    return [deque(zip(shard.clients.open.clients, _echoes(shard), strict=True)) for shard in front.node.shards]


def _echoes(shard: Any) -> list[Reply]:
    return [args[-1] for args in shard.clients.open.logged]


def tell(front: Front, *answers: tuple[Any, Reply]) -> None:
    front.dispatcher.deliver(Answers(answers, []))


@given(commands=st.lists(st.tuples(st.sampled_from("SGPM"), st.integers(0, SHARDS - 1)), max_size=30), data=st.data())
def test_replies_keep_the_order_of_commands_in_whatever_order_shards_answer(
    commands: list[tuple[str, int]], data: st.DataObject
) -> None:
    front = Front(settings=load({"shards": str(SHARDS)}, {}))
    client = front.connect()
    client.call(b"SET", A, b"x")
    client.ask([b"SET", A, b"first"])  # so that nothing is answered at once
    expected: list[Any] = [b"first"]
    for number, (kind, shard) in enumerate(commands):
        key, value = key_in(shard), b"%d" % number
        if kind == "S":
            client.ask([b"SET", key, value])
            expected.append(value)
        elif kind == "G":
            client.ask([b"GET", key])
            expected.append(key)
        elif kind == "P":
            client.ask([b"ECHO", value])
            expected.append(value)
        else:
            client.ask([b"DEL", key_in(0), key_in(1)])
            expected.append(5)
    lines = asked(front)
    told: list[Any] = []
    while any(lines):
        line = data.draw(st.sampled_from([line for line in lines if line]))
        who, reply = line.popleft()
        if type(who).__name__ == "Share":
            reply = 2 if reply == key_in(0) else 3
        tell(front, (who, reply))
        told += client.replies()
        assert told == expected[: len(told)]
    assert told == expected
    session = client.session
    assert (session.pending, len(session.places)) == (0, 0)
    assert session.plain or session.held
    assert client.replies() == []


def test_commands_of_one_shard_need_no_places(front: Front, client: Client) -> None:
    client.ask(words("SET A 1"))
    client.ask(words("GET AA"))
    client.ask(words("SET AA 2"))
    assert (client.session.pending, len(client.session.places), client.session.lane) == (3, 0, front.node.shards[0])
    front.finish()
    assert client.replies() == [b"OK", None, b"OK"]


def test_what_the_node_answers_by_itself_waits_for_what_was_asked_before(front: Front, client: Client) -> None:
    client.ask(words("SET A 1"))
    client.ask([b"ECHO", b"mine"])
    client.ask([b"NOSUCH"])
    assert client.session.out == []
    front.finish()
    assert client.replies()[:2] == [b"OK", b"mine"]


def test_places_of_a_client_that_left_are_filled_for_nobody(front: Front, client: Client) -> None:
    client.ask(words("SET A 1"))
    client.ask(words("SET B 2"))
    client.ask(words("MSET A 1 B 2"))
    front.disconnect(client)
    assert front.connect().call(b"GET", B) == [b"2"]


def test_what_stands_alone_waits_for_every_shard(front: Front, client: Client) -> None:
    assert ask(client, "SET A 1", "SET B 1", "MULTI", "GET B", "EXEC", "PING") == [
        b"OK", b"OK", b"OK", b"QUEUED", [b"1"], b"PONG"
    ]  # fmt: skip


# Waiting


def test_a_wait_behind_other_shards_ends_when_it_does(front: Front, client: Client) -> None:
    assert ask(client, "SET A 1", "SET C 1", "Q.POP B BLOCK 0", "GET A") == [b"OK", b"OK"]
    session = client.session
    assert session.waiting
    assert (session.pending, len(session.places)) == (0, 0)
    front.connect().call(b"Q.PUSH", B, b"job")
    assert [type(reply) for reply in client.replies()] == [list, bytes]


def test_a_wait_may_end_before_what_was_asked_before_is_answered(front: Front, client: Client) -> None:
    client.ask(words("SET A 1"))
    client.ask(words("Q.POP B BLOCK 0"))
    (first,), (waiting,) = asked(front)[0], asked(front)[1]
    tell(front, (waiting[0], WAITING))
    assert client.session.waiting
    front.dispatcher.deliver(Answers([], [(1, client.session.origin, b"woken")]))
    assert client.session.out == []
    tell(front, (first[0], OK))
    assert client.replies() == [b"OK", b"woken"]
    assert not client.session.held


def test_a_wake_up_of_another_shard_is_not_meant(front: Front, client: Client) -> None:
    ask(client, "Q.POP B BLOCK 0")
    front.dispatcher.deliver(Answers([], [(0, client.session.origin, b"woken")]))
    assert client.replies() == []
    assert client.session.waiting


def test_client_unblock_finds_the_shard(front: Front, client: Client) -> None:
    ask(client, "SET A 1", "Q.POP C BLOCK 0")
    other = front.connect()
    other.ask([b"CLIENT", b"UNBLOCK", b"%d" % client.session.id, b"ERROR"])
    assert other.replies() == [], "the shard knows whether it still waits"
    front.finish()
    assert other.replies() == [1]
    assert failed(client.replies()[-1]) == "UNBLOCKED"


def test_a_session_ends_in_every_shard_that_knows_of_it(front: Front, client: Client) -> None:
    ask(client, "LOCK.ACQUIRE A me SESSION", "LOCK.ACQUIRE B me SESSION", "WATCH C")
    other = front.connect()
    assert sorted(other.call(b"LOCK.OWNED", b"me")[0]) == sorted([A, B])
    front.disconnect(client)
    front.finish()
    assert other.call(b"LOCK.OWNED", b"me") == [[]]
    assert not any(shard.knows_session(client.session.origin) for shard in front.node.shards)


# Commands of several shards


def test_keys_of_several_shards(client: Client) -> None:
    assert ask(client, "MSET A 1 B 2 C 3 AA 4") == [b"OK"]
    assert ask(client, "MGET C nosuch A AA B A") == [[b"3", None, b"1", b"4", b"2", b"1"]]
    assert ask(client, "EXISTS A B A nosuch") == [3]
    assert ask(client, "DEL A nosuch", "TOUCH A B C", "UNLINK B C AA", "DBSIZE") == [1, 2, 3, 0]
    assert ask(client, "CACHE.SET A 1", "CACHE.SET B 2", "CACHE.MGET B C A", "CACHE.DEL A B C") == [
        b"OK", b"OK", [b"2", None, b"1"], 2
    ]  # fmt: skip


def test_commands_of_all_shards(client: Client) -> None:
    assert ask(client, "RANDOMKEY") == [None]
    ask(client, "MSET A 1 B 2 C 3")
    ask(client, "LOCK.ACQUIRE {B}l me")
    assert [sorted(reply) for reply in ask(client, "KEYS k*")] == [sorted([A, B, C])]
    assert ask(client, "RANDOMKEY")[0] in (A, B, C, b"{B}l")
    ask(client, "Q.CREATE qb", "Q.CREATE qa")
    assert ask(client, "Q.LIST") == [[b"qa", b"qb"]]
    assert ask(client, "FLUSHALL", "DBSIZE", "FLUSHDB nonsense")[:2] == [b"OK", 0]


@pytest.mark.parametrize("count", [b"1", b"10", b"100000"])
def test_scan_walks_over_all_shards(front: Front, client: Client, count: bytes) -> None:
    keys = [key_in(shard, number) for shard in range(SHARDS) for number in range(5)]
    for key in keys:
        client.call(b"SET", key, b"")
    cursor, met = b"0", []
    while True:
        ((cursor, found),) = client.call(b"SCAN", cursor, b"COUNT", count)
        met += found
        if cursor == b"0":
            break
        assert 0 < int(cursor) < 1 << 64
    assert sorted(met) == sorted(keys)


def test_scan_takes_any_cursor(client: Client) -> None:
    assert isinstance(client.call(b"SCAN", b"18446744073709551615")[0], list)
    assert failed(client.call(b"SCAN", b"18446744073709551616")[0]) == "ERR"
    assert failed(client.call(b"SCAN", b"x")[0]) == "ERR"


def test_commands_that_cannot_be_shared_out_name_one_shard() -> None:
    front = WireFront(shards=str(SHARDS))
    session = front.connect()
    for line in ("RENAME A B", "COPY A B", "MSETNX A 1 B 2", "WATCH A B", "LCS A B", "FENCE A 1 SET B 1"):
        assert front.send(session, words(line)) == CROSSSLOT, line
    assert front.send(session, words("RENAME A AA")) == b"-ERR no such key\r\n"
    assert front.send(session, words("FENCE A 1 FLUSHALL")).startswith(b"-CROSSSLOT 'flushall' concerns all shards")
    assert front.send(session, words("MSET A 1 B")) == b"-ERR wrong number of arguments for 'mset' command\r\n"


def test_with_one_shard_nothing_is_too_far_apart() -> None:
    front = WireFront()
    session = front.connect()
    assert front.send(session, words("MSETNX A 1 B 2"), words("RENAME A B")) == b":1\r\n+OK\r\n"
    transaction = [words(line) for line in ("MULTI", "MGET A B", "DBSIZE", "EXEC")]
    assert front.send(session, *transaction).endswith(b"*2\r\n*2\r\n$-1\r\n$1\r\n1\r\n:1\r\n")
    for line in ("READONLY", "READWRITE", "ASKING"):
        assert front.send(session, line) == b"-ERR This instance has cluster support disabled\r\n"


def test_readonly_is_for_clusters() -> None:
    front = WireFront(shards=str(SHARDS))
    session = front.connect()
    assert front.send(session, "READONLY", "ASKING") == b"+OK\r\n+OK\r\n"
    assert session.readonly
    assert b" flags=r " in front.send(session, "CLIENT INFO")
    assert front.send(session, "READWRITE") == b"+OK\r\n"
    assert not session.readonly


def test_what_is_due_while_the_disk_is_full_keeps_no_reader(front: Front, client: Client) -> None:
    ask(client, "SET A 1 PX 5", "SET B 2")
    front.server.refuse_writes(CommandError("the disk is full", "MISCONF"))
    front.advance(10)
    assert ask(client, "MGET A B", "EXISTS A B") == [[None, b"2"], 1]


def shared(spread: Any, keys: Any, line: str) -> list[tuple[int, list[bytes]]]:
    return list(spread(keys, words(line), SLOT_SHARD).parts)


def test_a_share_is_the_call_with_the_keys_of_one_shard() -> None:
    assert shared(by_keys(total), ALL_KEYS, "DEL A B AA") == [(0, words("DEL A AA")), (1, words("DEL B"))]
    assert shared(by_keys(all_done), PAIRS, "MSET A 1 B 2 A 3") == [(0, words("MSET A 1 A 3")), (1, words("MSET B 2"))]
    assert shared(by_keys(all_done), PAIRS, "MSET A 1 B") == [(0, words("MSET A 1 B"))], "one shard refuses it whole"
    assert by_keys(total)(ALL_KEYS, words("DEL A AA"), SLOT_SHARD).merge is None, "as any command of one shard"


def test_a_slot_is_in_one_shard() -> None:
    spread = by_slot(2)
    for slot, shard in ((0, 0), (SLOTS - 1, SHARDS - 1), (SLOTS, 0), (-1, 0)):
        assert spread(ONE_KEY, words(f"CLUSTER COUNTKEYSINSLOT {slot}"), SLOT_SHARD).parts[0][0] == shard


def test_answers_that_have_an_order_get_it_back() -> None:
    shares = by_keys_in_order(ALL_KEYS, words("MGET B A C AA A"), SLOT_SHARD)
    assert [shard for shard, _ in shares.parts] == [1, 0, 2]
    assert shares.merge is not None
    assert shares.merge([[b"b"], [b"a", b"aa", b"a again"], [b"c"]]) == [b"b", b"a", b"c", b"aa", b"a again"]


def test_the_cursor_goes_from_shard_to_shard() -> None:
    shares = one_after_the_other(ONE_KEY, [b"SCAN", b"0"], SLOT_SHARD)
    assert shares.merge is not None
    first = shares.merge([[b"77", []]])
    following = shares.merge([[b"0", []]])
    assert isinstance(first, list)
    assert isinstance(following, list)
    assert first[0] == b"77"
    shares = one_after_the_other(ONE_KEY, [b"SCAN", following[0]], SLOT_SHARD)
    assert shares.parts[0][0] == 1
    last = one_after_the_other(ONE_KEY, [b"SCAN", b"%d" % (3 * 16384 + 5)], SLOT_SHARD)
    assert last.parts[0][0] == 3
    assert last.merge is not None
    assert last.merge([[b"0", [b"x"]]]) == [b"0", [b"x"]]


# What is true when some shards failed

DOWN = CommandError("no leader for shard 1", "CLUSTERDOWN")
UNCERTAIN = CommandError("it may or may not have happened", "UNCERTAIN")


@pytest.mark.parametrize(
    ("replies", "logged", "code"),
    [
        ([1, DOWN], False, "CLUSTERDOWN"),
        ([DOWN, DOWN], True, "CLUSTERDOWN"),
        ([1, DOWN], True, "UNCERTAIN"),
        ([DOWN, UNCERTAIN], True, "UNCERTAIN"),
        ([UNCERTAIN, UNCERTAIN], True, "UNCERTAIN"),
    ],
)
def test_an_error_of_a_share_says_what_is_true_of_all(replies: list[Reply], logged: bool, code: str) -> None:
    answer = merged(total, logged=logged)(replies)
    assert isinstance(answer, CommandError)
    assert answer.code == code


def test_without_an_error_answers_are_merged() -> None:
    assert merged(total, logged=True)([1, 2]) == 3
    assert merged(any_one, logged=False)([None, b"k", None]) == b"k"


# Transactions


def test_a_transaction_is_in_one_shard(client: Client) -> None:
    replies = ask(client, "MULTI", "SET A 1", "GET AA", "ECHO mine", "INCR A", "EXEC", "GET A")
    assert replies[-2:] == [[b"OK", None, b"mine", 2], b"2"]
    replies = ask(client, "MULTI", "SET A 3", "SET B 1", "EXEC", "GET A")
    assert [failed(reply) for reply in replies[2:4]] == ["CROSSSLOT", "EXECABORT"]
    assert replies[4] == b"2"
    for line in ("DBSIZE", "SCAN 0", "MSET A 1 B 2", "FLUSHALL"):
        assert failed(ask(client, "MULTI", line, "DISCARD")[1]) == "CROSSSLOT", line
    assert ask(client, "MULTI", "MSET A 1 AA 2", "MGET AA A", "EXEC")[-1] == [b"OK", [b"2", b"1"]]


def test_a_transaction_of_reads_and_one_of_nothing(front: Front, client: Client) -> None:
    ask(client, "SET B 1")
    index = [shard.last_index for shard in front.node.shards]
    assert ask(client, "MULTI", "GET B", "PING", "STRLEN B", "EXEC")[-1] == [b"1", b"PONG", 1]
    assert ask(client, "MULTI", "PING", "EXEC")[-1] == [b"PONG"]
    assert ask(client, "MULTI", "EXEC")[-1] == []
    assert [shard.last_index for shard in front.node.shards] == index, "nothing is logged for them"


def test_watched_keys_are_in_the_shard_of_the_transaction(front: Front, client: Client) -> None:
    other = front.connect()
    ask(client, "WATCH B")
    assert failed(ask(client, "WATCH A")[0]) == "CROSSSLOT"
    assert failed(ask(client, "MULTI", "SET A 1", "EXEC")[1]) == "CROSSSLOT"
    ask(client, "WATCH A")
    other.call(b"SET", A, b"changed")
    assert ask(client, "MULTI", "PING", "EXEC")[-1] is None, "though it names no key"
    ask(client, "WATCH C")
    assert ask(client, "UNWATCH") == [b"OK"]
    assert not front.node.shards[2].knows_session(client.session.origin)
    assert ask(client, "WATCH B", "MULTI", "SET B 1", "EXEC")[-1] == [b"OK"]


def test_local_commands_of_a_transaction_that_was_not_carried_out_are_not_run(front: Front, client: Client) -> None:
    ask(client, "WATCH A")
    front.connect().call(b"SET", A, b"changed")
    assert ask(client, "MULTI", "SET A 1", "CLIENT SETNAME me", "EXEC")[-1] is None
    assert client.session.name == b""
    assert ask(client, "MULTI", "SET A 1", "CLIENT SETNAME me", "EXEC")[-1] == [b"OK", b"OK"]
    assert client.session.name == b"me"


def test_nobody_waits_inside_a_transaction(client: Client) -> None:
    assert ask(client, "MULTI", "Q.POP A BLOCK 0", "WAIT 5 0", "EXEC")[-1] == [None, 0]
    assert not client.session.held


def test_a_transaction_behind_other_shards(front: Front, client: Client) -> None:
    session = client.session
    client.ask(words("MULTI"))
    client.ask(words("SET A 1"))
    client.ask([b"ECHO", b"mine"])
    client.ask(words("EXEC"))
    client.ask(words("SET B 1"))
    (execution,), (write,) = asked(front)[0], asked(front)[1]
    client.replies()
    tell(front, (write[0], OK))
    assert session.out == []
    tell(front, (execution[0], NULL_ARRAY))
    assert client.replies() == [None, b"OK"]


def test_the_answer_of_the_log_is_left_as_it_is(front: Front, client: Client) -> None:
    client.ask(words("MULTI"))
    client.ask([b"ECHO", b"mine"])
    client.ask(words("SET A 1"))
    client.ask(words("EXEC"))
    ((place, _),) = asked(front)[0]
    client.replies()
    remembered: list[Reply] = [OK]
    tell(front, (place, remembered))
    assert (client.replies(), remembered) == ([[b"mine", b"OK"]], [OK])


# Whom a client is sent to


def test_redirected_clients_are_told_where_to_go(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    front = Front(settings=load({"shards": str(SHARDS), "routing": "redirect"}, {}))
    client = front.connect()
    assert ask(client, "SET A 1", "GET A") == [b"OK", b"1"]
    elsewhere: dict[int, str | None] = {0: "n1", 1: "n2", 2: None, 3: "n1"}
    monkeypatch.setattr(type(front.node), "leader_of", lambda _, number: elsewhere[number])
    monkeypatch.setattr(type(front.node), "address_of", lambda _, node: f"10.0.0.9:{node[1:]}")
    monkeypatch.setattr(type(front.node.shards[0]), "leader", property(lambda shard: elsewhere[shard.number]))
    moved, down = ask(client, "SET B 1", "GET C")
    assert str(moved) == f"MOVED {slot_of(B)} 10.0.0.9:2"
    assert str(down) == "CLUSTERDOWN no leader for shard 2"
    replies = ask(client, "MULTI", "SET B 1", "EXEC")
    assert [failed(reply) for reply in replies[1:]] == ["MOVED", "EXECABORT"]
    assert ask(client, "READONLY", "GET B") == [b"OK", None], "this node has the shard"
    assert failed(ask(client, "SET B 1")[0]) == "MOVED"
    assert ask(client, "DBSIZE", "MGET A B") == [1, [b"1", None]], "what is shared out has no one place to go to"


def test_wait_is_about_the_shard_written_last(front: Front, client: Client) -> None:
    ask(client, "SET A 1", "SET B 1")
    assert client.session.written is front.node.shards[1]
    assert ask(client, "WAIT 0 0", "WAIT 1 0") == [0, 0], "there is nobody else"


def test_sessions_of_one_shard_stay_on_the_fast_way() -> None:
    front = Front()
    client = front.connect()
    client.ask([b"SET", b"a", b"1"])
    client.ask([b"PING"])
    session: Session = client.session
    assert (session.simple, session.plain) == (True, False)
    front.finish()
    assert client.replies() == [b"OK", b"PONG"]
    assert session.plain
