"""HELLO, AUTH, SELECT, RESET, QUIT and CLIENT, with Redis 7.4's own replies."""

from __future__ import annotations

import pytest

from cluster.machine.reply import CommandError
from tests.unit.wire_front import WireFront

OK = b"+OK\r\n"
NULL = b"$-1\r\n"


@pytest.fixture
def front() -> WireFront:
    return WireFront()


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        ("PING", b"+PONG\r\n"),
        ("PING hello", b"$5\r\nhello\r\n"),
        ("PING a b", b"-ERR wrong number of arguments for 'ping' command\r\n"),
        ("ECHO hello", b"$5\r\nhello\r\n"),
        ("SELECT 0", OK),
        ("SELECT 1", b"-ERR DB index is out of range\r\n"),
        ("SELECT x", b"-ERR value is not an integer or out of range\r\n"),
        ("HELLO 4", b"-NOPROTO unsupported protocol version\r\n"),
        ("HELLO 03", b"-ERR Protocol version is not an integer or out of range\r\n"),
        ("HELLO 3 AUTH only", b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
        ("HELLO 3 nonsense", b"-ERR Syntax error in HELLO option 'nonsense'\r\n"),
        ("AUTH default anything", OK),
        ("AUTH root anything", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("AUTH a b c", b"-ERR syntax error\r\n"),
        ("CLIENT", b"-ERR wrong number of arguments for 'client' command\r\n"),
        ("CLIENT NOSUCH", b"-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n"),
        ("CLIENT GETREDIR", b":-1\r\n"),
        ("CLIENT TRACKING OFF", OK),
        ("CLIENT NO-EVICT maybe", b"-ERR syntax error\r\n"),
        ("CLIENT LIST ID", b"-ERR syntax error\r\n"),
        ("CLIENT LIST ID x", b"-ERR Invalid client ID\r\n"),
        ("CLIENT LIST TYPE robot", b"-ERR Unknown client type 'robot'\r\n"),
        ("CLIENT LIST TYPE pubsub", b"$0\r\n\r\n"),
        ("CLIENT KILL 10.0.0.1:1", b"-ERR No such client\r\n"),
        ("CLIENT KILL ID 0", b"-ERR client-id should be greater than 0\r\n"),
        ("CLIENT KILL ID 999", b":0\r\n"),
        ("CLIENT KILL USER nobody", b"-ERR No such user 'nobody'\r\n"),
        ("CLIENT KILL MAXAGE 0", b"-ERR maxage should be greater than 0\r\n"),
        ("CLIENT UNBLOCK 999", b":0\r\n"),
        ("CLIENT UNBLOCK 999 NOW", b"-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n"),
        ("CLIENT SETINFO colour blue", b"-ERR Unrecognized option 'colour'\r\n"),
    ],
)
def test_replies(front: WireFront, call: str, reply: bytes) -> None:
    assert front.ask(call) == reply


def test_hello_answers_in_the_protocol_it_chose(front: WireFront) -> None:
    session = front.connect()
    assert front.send(session, "HELLO 3").startswith(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n")
    assert front.send(session, "GET missing") == b"_\r\n"
    assert front.send(session, "HELLO 2 SETNAME me").startswith(b"*14\r\n")
    assert front.send(session, "GET missing", "CLIENT GETNAME") == NULL + b"$2\r\nme\r\n"


def test_what_was_sent_before_hello_is_answered_in_the_old_protocol(front: WireFront) -> None:
    received = front.send(front.connect(), "SET a 1", "GET missing", "HELLO 3", "GET missing")
    assert received.startswith(OK + NULL + b"%7\r\n")
    assert received.endswith(b"_\r\n")


def test_a_refused_hello_changes_nothing(front: WireFront) -> None:
    session = front.connect()
    assert front.send(session, [b"HELLO", b"3", b"SETNAME", b"two words"]).startswith(b"-ERR Client names cannot")
    assert front.send(session, "GET missing", "CLIENT GETNAME") == NULL + NULL


def test_without_a_password_auth_says_what_is_wrong(front: WireFront) -> None:
    assert front.ask("AUTH secret").startswith(b"-ERR AUTH <password> called without any password configured")


def test_a_password_is_asked_for(front: WireFront) -> None:
    front = WireFront(requirepass="secret")
    session = front.connect()
    assert front.send(session, "PING") == b"-NOAUTH Authentication required.\r\n"
    assert front.send(session, "HELLO 3").startswith(b"-NOAUTH HELLO must be called with the client already auth")
    assert front.send(session, "AUTH wrong").startswith(b"-WRONGPASS ")
    assert front.send(session, "AUTH default secret", "PING") == OK + b"+PONG\r\n"
    assert front.send(session, "RESET", "PING") == b"+RESET\r\n-NOAUTH Authentication required.\r\n"
    assert front.send(session, "HELLO 3 AUTH default secret").startswith(b"%7\r\n")


def test_a_pipeline_may_log_in_and_go_on(front: WireFront) -> None:
    front = WireFront(requirepass="secret")
    assert front.send(front.connect(), "AUTH secret", "SET a 1", "AUTH wrong", "GET a") == (
        OK + OK + b"-WRONGPASS invalid username-password pair or user is disabled.\r\n" + b"$1\r\n1\r\n"
    )


def test_reset_ends_transaction_watches_name_and_protocol(front: WireFront) -> None:
    session = front.connect()
    front.send(session, "HELLO 3 SETNAME me", "WATCH a", "MULTI")
    assert (
        front.send(session, "RESET", "CLIENT GETNAME", "EXEC") == b"+RESET\r\n" + NULL + b"-ERR EXEC without MULTI\r\n"
    )
    assert not front.shard.knows_session(session.origin)


def test_quit_answers_what_came_before_and_nothing_after(front: WireFront) -> None:
    session = front.connect()
    assert front.send(session, "SET a 1", "QUIT", "SET a 2") == OK + OK
    assert session.closing
    assert front.ask("GET a") == b"$1\r\n1\r\n"


def test_transactions_may_follow_writes_in_one_pipeline(front: WireFront) -> None:
    queued = b"+QUEUED\r\n"
    assert front.send(front.connect(), "SET a 1", "MULTI", "INCR a", "PING", "EXEC", "GET a") == (
        OK + OK + queued + queued + b"*2\r\n:2\r\n+PONG\r\n" + b"$1\r\n2\r\n"
    )


def test_multi_and_watch_inside_a_transaction_leave_it_good(front: WireFront) -> None:
    received = front.send(front.connect(), "MULTI", "MULTI", "WATCH a", "PING", "EXEC")
    assert received == (
        OK + b"-ERR MULTI calls can not be nested\r\n-ERR WATCH inside MULTI is not allowed\r\n"
        b"+QUEUED\r\n*1\r\n+PONG\r\n"
    )


@pytest.mark.parametrize("call", ["UNWATCH", "MULTI\nDISCARD", "MULTI\nUNWATCH\nPING\nEXEC"])
def test_what_has_nothing_to_log_is_not_logged(front: WireFront, call: str) -> None:
    session = front.connect()
    before = front.shard.last_index
    assert front.send(session, *call.split("\n")).startswith(OK)
    assert front.shard.last_index == before
    front.server.refuse_writes(CommandError("full", "MISCONF"))
    assert b"MISCONF" not in front.send(session, *call.split("\n")), "a disk that takes nothing does not matter"


@pytest.mark.parametrize("call", ["UNWATCH", "MULTI\nDISCARD", "RESET"])
def test_watches_end_before_the_next_transaction(front: WireFront, call: str) -> None:
    session = front.connect()
    front.send(session, "WATCH a")
    front.ask("SET a 1")
    assert front.send(session, *call.split("\n"), "MULTI", "GET a", "EXEC").endswith(b"*1\r\n$1\r\n1\r\n")
    assert not front.shard.knows_session(session.origin)


def test_a_pipeline_that_watches_and_unwatches(front: WireFront) -> None:
    session = front.connect()
    assert front.send(session, "WATCH a", "SET a 1", "UNWATCH", "MULTI", "INCR a", "EXEC").endswith(b"*1\r\n:2\r\n")


def test_reply_off_and_on(front: WireFront) -> None:
    session = front.connect()
    assert front.send(session, "SET a 1", "CLIENT REPLY OFF", "SET a 2", "GET a", "CLIENT REPLY ON", "GET a") == (
        OK + OK + b"$1\r\n2\r\n"
    )


def test_reply_skip_leaves_out_one_reply_and_its_own(front: WireFront) -> None:
    session = front.connect()
    assert front.send(session, "SET a 1", "CLIENT REPLY SKIP", "SET a 2", "GET a") == OK + b"$1\r\n2\r\n"
    assert front.send(session, "CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "ECHO x") == b"$1\r\nx\r\n"
    assert front.send(session, "CLIENT REPLY OFF", "CLIENT REPLY SKIP", "PING", "PING") == b""


@pytest.mark.parametrize("name", [b"two words", b"line\nbreak", b"\xff"])
def test_names_that_would_break_a_line_are_refused(front: WireFront, name: bytes) -> None:
    expected = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
    assert front.ask([b"CLIENT", b"SETNAME", name]) == expected
    assert front.ask([b"CLIENT", b"SETINFO", b"lib-ver", name]).startswith(b"-ERR lib-ver cannot contain")


def test_client_list_tells_the_truth(front: WireFront) -> None:
    first, second = front.connect(), front.connect()
    front.send(first, "HELLO 3 SETNAME worker", "CLIENT SETINFO lib-name mine", "WATCH a b", "MULTI", "PING")
    front.send(second, "CLIENT NO-EVICT ON", "CLIENT NO-TOUCH ON")
    lines = front.ask("CLIENT LIST").decode().splitlines()[1:]
    fields = [dict(pair.split("=", 1) for pair in line.split()) for line in lines if line]
    assert [one["id"] for one in fields] == ["1", "2", "3"]
    told = {name: fields[0][name] for name in ("name", "addr", "flags", "multi", "watch", "resp", "lib-name", "user")}
    assert told == {
        "name": "worker", "addr": first.address, "flags": "x", "multi": "1", "watch": "2", "resp": "3",
        "lib-name": "mine", "user": "default",
    }  # fmt: skip
    assert fields[1]["flags"] == "eT"
    assert fields[2] | {"flags": "N", "cmd": "client|list", "multi": "-1", "watch": "0"} == fields[2]


def test_client_list_by_id(front: WireFront) -> None:
    for _ in range(3):
        front.connect()
    listed = front.ask("CLIENT LIST ID 3 1 99").decode()
    assert [line.split()[0] for line in listed.splitlines()[1:] if line] == ["id=1", "id=3"]


def test_kill_by_filters_spares_the_one_who_asks(front: WireFront) -> None:
    me, other, third = front.connect(), front.connect(), front.connect()
    assert front.send(me, f"CLIENT KILL ADDR {other.address} TYPE normal") == b":1\r\n"
    assert front.edge.closed == [other]
    assert front.send(me, f"CLIENT KILL LADDR {me.local_address} USER default") == b":2\r\n"
    assert front.edge.closed[1:] == [other, third]
    assert not me.closing


def test_kill_may_end_the_one_who_asks(front: WireFront) -> None:
    me = front.connect()
    assert front.send(me, f"CLIENT KILL {me.address}") == OK
    assert me.closing
    other = front.connect()
    assert front.send(other, f"CLIENT KILL ID {other.id} SKIPME no", "PING") == b":1\r\n"


def test_kill_by_age(front: WireFront) -> None:
    old, me = front.connect(), front.connect()
    old.created_ms -= 10_000
    assert front.send(me, "CLIENT KILL MAXAGE 9") == b":1\r\n"
    assert front.edge.closed == [old]


def test_unblock_ends_a_wait_as_its_timeout_or_with_an_error(front: WireFront) -> None:
    waiting, me = front.connect(), front.connect()
    for reason, reply in (("", b"*-1\r\n"), (" ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")):
        assert front.send(waiting, "Q.POP mail BLOCK 0", "PING") == b""
        assert front.send(me, "CLIENT LIST ID 1").count(b"flags=b") == 1
        assert front.send(me, f"CLIENT UNBLOCK {waiting.id}{reason}") == b":1\r\n"
        assert front.send(waiting) == reply + b"+PONG\r\n"
        assert front.send(me, f"CLIENT UNBLOCK {waiting.id}") == b":0\r\n"


def test_tracking_cannot_be_turned_on(front: WireFront) -> None:
    assert front.ask("CLIENT TRACKING ON").startswith(b"-ERR CLIENT TRACKING is not supported")
    session = front.connect()
    front.send(session, "HELLO 3")
    assert front.send(session, "CLIENT TRACKINGINFO") == (
        b"%3\r\n$5\r\nflags\r\n~1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n"
    )
