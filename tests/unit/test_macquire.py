"""LOCK.MACQUIRE: several locks in one step; and LOCK.GRAPH."""

from __future__ import annotations

import pytest

from cluster.deadlock import Edge, describe
from cluster.machine.reply import NULL_ARRAY, WAITING, Reply
from resp_server.commands.command import COUNTED_KEYS
from resp_server.commands.locks import graphs_joined
from tests.unit.machines import Talk, error
from tests.unit.wire_front import WireFront


@pytest.fixture
def talk() -> Talk:
    return Talk()


def holders(talk: Talk, *keys: str) -> list[list[object]]:
    return [talk.owners(f"LOCK.INFO {key}") for key in keys]


def waiters(talk: Talk, *keys: str) -> list[list[object]]:
    return [talk.owners(f"LOCK.INFO {key}", b"waiters") for key in keys]


# All or nothing


def test_all_of_them_with_a_token_each_in_order(talk: Talk) -> None:
    assert talk("s", "LOCK.MACQUIRE 3 z a m me PX 5000") == [1, 2, 3]
    assert holders(talk, "z", "a", "m") == [[b"me"]] * 3
    assert talk.map("LOCK.INFO a")[b"token"] == 2
    talk.pass_ms(5000)
    assert holders(talk, "z", "a", "m") == [[]] * 3


def test_none_of_them_when_one_is_held(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE b other")
    assert talk("s2", "LOCK.MACQUIRE 3 a b c me") is NULL_ARRAY
    assert holders(talk, "a", "b", "c") == [[], [b"other"], []]
    assert talk("s", "LOCK.ACQUIRE a x") == 2, "no token was lost on it"


def test_one_that_is_no_lock_refuses_all_even_behind_one_that_is_held(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE a other")
    talk("s1", "SET c text")
    for end in ("", " BLOCK 0"):
        assert error(talk("s2", f"LOCK.MACQUIRE 3 a b c me{end}")).startswith("WRONGTYPE")
    assert holders(talk, "a", "b") == [[b"other"], []]
    assert len(talk.machine.waiters) == 0


def test_a_key_named_twice_is_one_key(talk: Talk) -> None:
    assert talk("s", "LOCK.MACQUIRE 3 k j k me") == [1, 2, 1]
    assert talk("s", "LOCK.RELEASE k me") == 1
    assert holders(talk, "k", "j") == [[], [b"me"]]
    talk("s1", "LOCK.ACQUIRE k other")
    assert talk("s2", "LOCK.MACQUIRE 2 k k you BLOCK 0") is WAITING
    talk("s1", "LOCK.RELEASE k other")
    assert talk.woken() == [("s2", [4, 4])]


def test_held_ones_count_up_and_a_resent_request_does_not(talk: Talk) -> None:
    talk("s", "LOCK.ACQUIRE b me")
    for _ in range(3):
        assert talk("s", "LOCK.MACQUIRE 2 a b me ID r") == [2, 1]
    assert [talk("s", "LOCK.RELEASE a me") for _ in range(2)] == [1, 0]
    assert [talk("s", "LOCK.RELEASE b me") for _ in range(3)] == [1, 1, 0]


def test_a_request_resent_while_it_waits_is_one_hold_of_each(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE a other")
    assert talk("s2", "LOCK.MACQUIRE 2 a b me BLOCK 0 ID r") is WAITING
    assert talk("s3", "LOCK.MACQUIRE 2 a b me BLOCK 0 ID r") is WAITING
    talk("s1", "LOCK.RELEASE a other")
    assert talk.woken() == [("s2", [2, 3]), ("s3", [2, 3])]
    assert [talk("s", f"LOCK.RELEASE {key} me") for key in "aabb"] == [1, 0, 1, 0]


def test_shared_ones_are_shared_and_a_sole_sharer_is_upgraded(talk: Talk) -> None:
    assert talk("s1", "LOCK.MACQUIRE 2 a b x SHARED") == [1, 2]
    assert talk("s2", "LOCK.MACQUIRE 2 b c y SHARED") == [3, 4]
    assert talk("s1", "LOCK.MACQUIRE 2 a b x") is NULL_ARRAY, "b is shared with another"
    assert talk.map("LOCK.INFO a")[b"mode"] == b"shared", "so a was not upgraded either"
    talk("s2", "LOCK.RELEASE b y")
    assert talk("s1", "LOCK.MACQUIRE 2 a b x") == [5, 6]
    assert [talk("s1", f"LOCK.RELEASE {key} x") for key in "aabb"] == [1, 0, 1, 0]


def test_session_holds_end_with_the_session(talk: Talk) -> None:
    talk("s1", "LOCK.MACQUIRE 2 a b x SESSION")
    assert talk("s2", "LOCK.MACQUIRE 2 b c y SESSION BLOCK 0") is WAITING
    talk.end("s1")
    assert talk.woken() == [("s2", [3, 4])]
    talk.end("s2")
    assert len(talk.machine.keyspace) == 0
    assert not talk.machine.sessions.origins()


def test_in_a_transaction_nothing_waits(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE a x")
    talk.machine.may_wait = False
    assert talk("s2", "LOCK.MACQUIRE 2 a b y BLOCK 0") is NULL_ARRAY
    assert len(talk.machine.waiters) == 0


# Waiting


@pytest.mark.parametrize("ending", ["LOCK.RELEASE b x", "LOCK.BREAK b", "DEL b", "FLUSHALL", "expiry", "session"])
def test_whatever_frees_the_last_of_them_serves_who_waits(talk: Talk, ending: str) -> None:
    talk("s1", f"LOCK.ACQUIRE b x {'SESSION' if ending == 'session' else 'PX 100'}")
    assert talk("s2", "LOCK.MACQUIRE 3 a b c y BLOCK 0") is WAITING
    if ending == "expiry":
        talk.pass_ms(100)
    elif ending == "session":
        talk.end("s1")
    else:
        talk("s", ending)
    assert talk.woken() == [("s2", [2, 3, 4])]
    assert waiters(talk, "a", "b", "c") == [[]] * 3


def test_it_holds_nothing_while_it_waits_but_is_not_overtaken(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE b x")
    assert talk("s2", "LOCK.MACQUIRE 2 a b y BLOCK 0") is WAITING
    assert holders(talk, "a", "b") == [[], [b"x"]]
    assert talk("s3", "LOCK.ACQUIRE a z") is None, "a is free and kept for who came first"
    assert talk("s3", "LOCK.ACQUIRE a z BLOCK 0") is WAITING
    assert talk("s4", "LOCK.MACQUIRE 2 c a w BLOCK 0") is WAITING
    assert talk("s5", "LOCK.ACQUIRE c v BLOCK 0") is WAITING
    assert waiters(talk, "a", "b", "c") == [[b"y", b"z", b"w"], [b"y"], [b"w", b"v"]]
    talk("s1", "LOCK.RELEASE b x")
    assert talk.woken() == [("s2", [2, 3])]
    talk("s2", "LOCK.RELEASE a y")
    assert talk.woken() == [("s3", 4)]
    talk("s3", "LOCK.RELEASE a z")
    assert talk.woken() == [("s4", [5, 6])]
    talk("s4", "LOCK.RELEASE c w")
    assert talk.woken() == [("s5", 7)]


@pytest.mark.parametrize("leaving", ["timeout", "session"])
def test_those_it_kept_waiting_go_on_when_it_leaves(talk: Talk, leaving: str) -> None:
    talk("s1", "LOCK.ACQUIRE b x")
    talk("s2", "LOCK.MACQUIRE 3 a b c y BLOCK 100")
    talk("s3", "LOCK.ACQUIRE a z BLOCK 0")
    talk("s4", "LOCK.ACQUIRE c w SHARED BLOCK 0")
    if leaving == "timeout":
        talk.pass_ms(100)
        assert talk.woken() == [("s2", NULL_ARRAY), ("s3", 2), ("s4", 3)]
    else:
        talk.end("s2")
        assert talk.woken() == [("s3", 2), ("s4", 3)]


def test_sharers_behind_one_who_shares_several_go_on_when_it_is_served(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE a x")
    assert talk("s2", "LOCK.MACQUIRE 2 a b y SHARED BLOCK 0") is WAITING
    assert talk("s3", "LOCK.ACQUIRE b z SHARED BLOCK 0") is WAITING
    talk("s1", "LOCK.RELEASE a x")
    assert talk.woken() == [("s2", [2, 3]), ("s3", 4)]


def test_many_short_holds_do_not_starve_who_wants_both(talk: Talk) -> None:
    """Without its place in both lines it would never see both free."""
    talk("a0", "LOCK.ACQUIRE a a0")
    talk("b0", "LOCK.ACQUIRE b b0")
    assert talk("both", "LOCK.MACQUIRE 2 a b both BLOCK 0") is WAITING
    for number in range(1, 6):
        assert talk(f"a{number}", f"LOCK.ACQUIRE a a{number} BLOCK 0") is WAITING
        assert talk(f"b{number}", f"LOCK.ACQUIRE b b{number} BLOCK 0") is WAITING
    talk("a0", "LOCK.RELEASE a a0")
    assert talk.woken() == []
    talk("b0", "LOCK.RELEASE b b0")
    assert [session for session, _ in talk.woken()] == ["both"]


def test_an_upgrade_among_them_is_served_before_others_there_and_only_there(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE a me SHARED")
    talk("s2", "LOCK.ACQUIRE b x")
    assert talk("s3", "LOCK.ACQUIRE a y BLOCK 0") is WAITING
    assert talk("s4", "LOCK.ACQUIRE b z BLOCK 0") is WAITING
    assert talk("s1", "LOCK.MACQUIRE 2 a b me BLOCK 0") is WAITING
    assert waiters(talk, "a", "b") == [[b"me", b"y"], [b"z", b"me"]]
    talk("s2", "LOCK.RELEASE b x")
    assert [session for session, _ in talk.woken()] == ["s4"]
    talk("s4", "LOCK.RELEASE b z")
    assert [session for session, _ in talk.woken()] == ["s1"]
    assert holders(talk, "a", "b") == [[b"me"], [b"me"]]


def test_who_holds_enough_of_one_of_them_keeps_its_place_there(talk: Talk) -> None:
    """Else each of two would be first where the other one is not, and both locks free for nobody."""
    talk("s1", "LOCK.ACQUIRE k1 a SHARED SESSION")
    talk("s2", "LOCK.ACQUIRE k2 c SESSION")
    talk("s3", "LOCK.MACQUIRE 2 k1 k2 b SHARED SESSION BLOCK 0")
    talk("s1", "LOCK.MACQUIRE 2 k1 k2 a SHARED SESSION BLOCK 0")
    talk("s2", "LOCK.RELEASE k2 c")
    assert [origin for origin, _ in talk.woken()] == ["s3", "s1"]


def test_waits_and_holds_survive_a_restart(talk: Talk) -> None:
    talk("s1", "LOCK.MACQUIRE 2 a b x SESSION")
    talk("s2", "LOCK.MACQUIRE 2 b c y BLOCK 5000")
    talk("s3", "LOCK.ACQUIRE c z BLOCK 0")
    talk("s4", "LOCK.ACQUIRE d w")
    assert error(talk("s1", "LOCK.MACQUIRE 2 c d x BLOCK 0")).startswith("DEADLOCK")
    again = talk.restored()
    for key in "abc":
        assert again.map(f"LOCK.INFO {key}") == talk.map(f"LOCK.INFO {key}")
    assert again.map("LOCK.GRAPH") == talk.map("LOCK.GRAPH")
    assert sorted(again("s", "LOCK.OWNED x")) == [b"a", b"b"]  # type: ignore[arg-type]
    for one in (talk, again):
        one.end("s1")
        assert one.woken() == [("s2", [4, 5])]
        one("s2", "LOCK.RELEASE c y")
        assert one.woken() == [("s3", 6)]


# Deadlocks


def test_who_wants_what_somebody_ahead_in_line_is_to_get_can_close_a_cycle(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE k2 b")
    assert talk("s2", "LOCK.MACQUIRE 2 k1 k2 w BLOCK 0") is WAITING
    assert error(talk("s1", "LOCK.ACQUIRE k1 b BLOCK 0")) == (
        "DEADLOCK b waits for k1 behind w, w waits for k2 held by b"
    )
    assert talk.map("LOCK.GRAPH") == {
        b"edges": [{b"waiter": b"w", b"holder": b"b", b"key": b"k2"}],
        b"deadlocks": 1,
        b"last": {
            b"cycle": b"b waits for k1 behind w, w waits for k2 held by b",
            b"victim": b"b",
            b"key": b"k1",
            b"time-ms": talk.machine.now_ms,
        },
    }
    talk("s1", "LOCK.RELEASE k2 b")
    assert talk.woken() == [("s2", [2, 3])]


def test_a_cycle_through_several_lines(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE k4 b")
    assert talk("s2", "LOCK.MACQUIRE 2 k3 k4 u BLOCK 0") is WAITING
    assert talk("s3", "LOCK.MACQUIRE 2 k2 k3 v BLOCK 0") is WAITING
    assert talk("s4", "LOCK.MACQUIRE 2 k1 k2 w BLOCK 0") is WAITING
    assert error(talk("s1", "LOCK.MACQUIRE 1 k1 b BLOCK 0")) == (
        "DEADLOCK b waits for k1 behind w, w waits for k2 behind v, v waits for k3 behind u, u waits for k4 held by b"
    )


def test_one_who_wants_several_closes_a_cycle_over_any_of_them(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE k1 a")
    talk("s2", "LOCK.ACQUIRE k2 b")
    assert talk("s1", "LOCK.ACQUIRE k2 a BLOCK 0") is WAITING
    assert error(talk("s2", "LOCK.MACQUIRE 3 k0 k1 k9 b BLOCK 0")) == (
        "DEADLOCK b waits for k1 held by a, a waits for k2 held by b"
    )


def test_two_in_the_opposite_order_are_no_deadlock(talk: Talk) -> None:
    """What LOCK.MACQUIRE is for."""
    talk("s0", "LOCK.ACQUIRE b first")
    assert talk("s1", "LOCK.MACQUIRE 2 a b x BLOCK 0") is WAITING
    assert talk("s2", "LOCK.MACQUIRE 2 b a y BLOCK 0") is WAITING
    talk("s0", "LOCK.RELEASE b first")
    assert talk.woken() == [("s1", [2, 3])]
    for key in "ab":
        talk("s1", f"LOCK.RELEASE {key} x")
    assert talk.woken() == [("s2", [4, 5])]


def test_a_grant_that_closes_a_cycle_through_a_line_fails_who_began_last(talk: Talk) -> None:
    talk("s0", "LOCK.ACQUIRE k1 x")
    talk("s1", "LOCK.ACQUIRE k2 d")
    assert talk("c1", "LOCK.ACQUIRE k1 c BLOCK 0") is WAITING
    assert talk("c2", "LOCK.MACQUIRE 2 k2 k3 c BLOCK 0") is WAITING
    assert talk("s1", "LOCK.MACQUIRE 2 k1 k4 d BLOCK 0") is WAITING
    talk("s0", "LOCK.RELEASE k1 x")
    by_session = dict(talk.woken())
    assert by_session["c1"] == 3
    assert error(by_session["s1"]) == "DEADLOCK c waits for k2 held by d, d waits for k1 held by c"
    assert talk.machine.waiters.of(b"c2") is not None


def test_a_hold_that_ends_makes_its_owner_wait_for_that_key_too(talk: Talk) -> None:
    """x and y share k1 and both want it with what the other holds or waits for: nobody waits for k1 as yet."""
    talk("x0", "LOCK.ACQUIRE k1 x SHARED PX 100")
    talk("y0", "LOCK.ACQUIRE k1 y SHARED")
    talk("x0", "LOCK.ACQUIRE k4 x")
    talk("z0", "LOCK.ACQUIRE k2 z")
    assert talk("y1", "LOCK.MACQUIRE 2 k1 k4 y SHARED BLOCK 0") is WAITING
    assert talk("x1", "LOCK.MACQUIRE 2 k1 k2 x SHARED BLOCK 0") is WAITING
    assert talk.woken() == []
    talk.pass_ms(100)
    [(session, reply)] = talk.woken()
    assert session == "x1"
    assert error(reply) == "DEADLOCK x waits for k1 behind y, y waits for k4 held by x"


def test_who_shares_does_not_wait_for_sharers(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE k1 h SHARED")
    talk("s2", "LOCK.ACQUIRE k2 z")
    talk("s3", "LOCK.ACQUIRE k3 w")
    assert talk("s3", "LOCK.MACQUIRE 2 k1 k2 w SHARED BLOCK 0") is WAITING
    assert talk("s4", "LOCK.ACQUIRE k1 v SHARED BLOCK 0") is WAITING, "behind w, not for h"
    assert talk("s1", "LOCK.ACQUIRE k3 h BLOCK 0") is WAITING, "w does not wait for h"
    assert talk.map("LOCK.GRAPH")[b"edges"] == [
        {b"waiter": b"w", b"holder": b"z", b"key": b"k2"},
        {b"waiter": b"v", b"holder": b"w", b"key": b"k1"},
        {b"waiter": b"h", b"holder": b"w", b"key": b"k3"},
    ]
    assert talk("s5", "LOCK.ACQUIRE k1 x BLOCK 0") is WAITING
    text = error(talk("s2", "LOCK.ACQUIRE k1 z SHARED BLOCK 0"))
    assert text == "DEADLOCK z waits for k1 behind w, w waits for k2 held by z"


def test_a_phantom_is_no_deadlock(talk: Talk) -> None:
    """Who stands behind one wait of an owner does not wait for that owner's other waits."""
    talk("s1", "LOCK.ACQUIRE k1 h")
    talk("s2", "LOCK.ACQUIRE k9 z")
    assert talk("y1", "LOCK.ACQUIRE k1 y BLOCK 0") is WAITING
    assert talk("y2", "LOCK.ACQUIRE k9 y BLOCK 0") is WAITING, "another wait of that owner"
    assert talk("s2", "LOCK.ACQUIRE k1 z BLOCK 0") is WAITING, "z stands behind y's wait for k1, not for k9"


def test_the_graph_shows_lines_for_free_keys_and_waits_of_no_other_kind(talk: Talk) -> None:
    talk("s1", "LOCK.ACQUIRE b x")
    talk("s2", "LOCK.MACQUIRE 2 a b y BLOCK 0")
    talk("s3", "LOCK.ACQUIRE a z BLOCK 0")
    talk("s4", "Q.POP q BLOCK 0")
    assert talk.map("LOCK.GRAPH")[b"edges"] == [
        {b"waiter": b"y", b"holder": b"x", b"key": b"b"},
        {b"waiter": b"z", b"holder": b"y", b"key": b"a"},
    ]


def test_graphs_of_several_shards_are_one() -> None:
    def graph(number: int, last: int) -> dict[bytes, object]:
        edge = {b"waiter": b"w%d" % number, b"holder": b"h", b"key": b"k"}
        return {b"edges": [edge], b"deadlocks": number, b"last": {b"cycle": b"", b"time-ms": last} if last else None}

    joined = graphs_joined([graph(1, 5), graph(2, 9), graph(0, 0)])
    assert isinstance(joined, dict)
    assert len(joined[b"edges"]) == 3
    assert joined[b"deadlocks"] == 3
    assert joined[b"last"][b"time-ms"] == 9
    assert graphs_joined([graph(0, 0)])[b"last"] is None  # type: ignore[index, call-overload]


def test_long_cycles_are_cut_short_in_words() -> None:
    text = describe([Edge(b"a%d" % n, b"a%d" % (n + 1), b"k", ((b"j", b"m"),)) for n in range(20)])
    assert text.endswith(b", and 24 more")


# Arguments


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("LOCK.MACQUIRE 0 k a", "ERR numkeys should be greater than 0"),
        ("LOCK.MACQUIRE -1 k a", "ERR numkeys should be greater than 0"),
        ("LOCK.MACQUIRE x k a", "ERR numkeys should be greater than 0"),
        ("LOCK.MACQUIRE 99999999999999999999 k a", "ERR numkeys should be greater than 0"),
        ("LOCK.MACQUIRE 2 k a", "ERR Number of keys can't be greater than number of args"),
        ("LOCK.MACQUIRE 9223372036854775807 k a", "ERR Number of keys can't be greater than number of args"),
        ("LOCK.MACQUIRE 1 k a b", "ERR syntax error"),
        ("LOCK.MACQUIRE 1 k a PX 0", "ERR invalid expire time in 'lock.macquire' command"),
        ("LOCK.MACQUIRE 1 k a PX 1 SESSION", "ERR syntax error"),
        ("LOCK.MACQUIRE 1 k a BLOCK -1", "ERR timeout is negative"),
    ],
)
def test_bad_arguments_are_refused_and_change_nothing(talk: Talk, line: str, text: str) -> None:
    assert error(talk("s", line)) == text
    assert len(talk.machine.keyspace) == len(talk.machine.waiters) == talk.machine.issued.counter == 0


@pytest.mark.parametrize("owner", [b"", bytes(1 << 20)])
def test_an_owner_of_no_bytes_or_a_million_is_refused(talk: Talk, owner: bytes) -> None:
    calls: list[list[bytes]] = [
        [b"LOCK.ACQUIRE", b"k", owner],
        [b"LOCK.ACQUIRE", b"k", owner, b"BLOCK", b"0"],
        [b"LOCK.MACQUIRE", b"1", b"k", owner],
        [b"LOCK.ACQUIRE", b"k", b"me", b"ID", owner],
    ]
    for call in calls:
        assert error(talk("s", call)).endswith("must be 1 to 4096 bytes long")
    assert len(talk.machine.keyspace) == talk.machine.issued.counter == 0


# Where its keys are


@pytest.mark.parametrize(
    ("line", "positions"),
    [
        ("LOCK.MACQUIRE 2 a b me", [2, 3]),
        ("LOCK.MACQUIRE 1 a me PX 5", [2]),
        ("LOCK.MACQUIRE 9 a b me", []),
        ("LOCK.MACQUIRE 0 a b me", []),
        ("LOCK.MACQUIRE -1 a b me", []),
        ("LOCK.MACQUIRE x a b me", []),
        ("LOCK.MACQUIRE", []),
    ],
)
def test_the_keys_are_as_many_as_the_call_says(line: str, positions: list[int]) -> None:
    assert COUNTED_KEYS.positions(line.encode().split()) == positions


def test_clients_can_ask_for_its_keys() -> None:
    front = WireFront()
    assert front.ask("COMMAND GETKEYS LOCK.MACQUIRE 2 a b me PX 5") == b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"
    assert front.ask("COMMAND GETKEYS FENCE j 1 LOCK.MACQUIRE 1 a me") == b"*2\r\n$1\r\nj\r\n$1\r\na\r\n"
    assert front.ask("COMMAND GETKEYS LOCK.MACQUIRE 7 a b me").startswith(b"-ERR Invalid arguments specified")
    info = front.ask("COMMAND INFO LOCK.MACQUIRE")
    assert b"+movablekeys\r\n" in info
    assert b"keynumidx" in info


def test_all_keys_are_in_one_shard() -> None:
    front = WireFront(shards="8")
    assert front.ask("LOCK.MACQUIRE 2 {t}a {t}b me") == b"*2\r\n:1\r\n:2\r\n"
    assert front.ask("LOCK.MACQUIRE 3 a b c me").startswith(b"-CROSSSLOT ")
    assert front.ask("LOCK.MACQUIRE 9 a b me") == b"-ERR Number of keys can't be greater than number of args\r\n"
    assert front.ask("LOCK.GRAPH").startswith(b"*6\r\n$5\r\nedges\r\n*0\r\n")


def test_a_client_that_waits_is_answered_on_the_wire() -> None:
    front = WireFront()
    one, two = front.connect(), front.connect()
    assert front.send(one, "LOCK.ACQUIRE a x") == b":1\r\n"
    assert front.send(two, "LOCK.MACQUIRE 2 a b y") == b"*-1\r\n"
    assert front.send(two, "LOCK.MACQUIRE 2 a b y BLOCK 0") == b""
    front.send(one, "LOCK.RELEASE a x")
    assert front.send(two) == b"*2\r\n:2\r\n:3\r\n"


def sorted_reply(reply: Reply) -> list[object]:
    assert isinstance(reply, list)
    return sorted(reply)


def test_owned_knows_what_every_way_of_ending_ends(talk: Talk) -> None:
    talk("s", "LOCK.MACQUIRE 5 a b c d e x SHARED PX 100")
    talk("s", "LOCK.MACQUIRE 1 f x SESSION")
    talk("s", "LOCK.ACQUIRE a other SHARED")
    assert sorted_reply(talk("s", "LOCK.OWNED x")) == [b"a", b"b", b"c", b"d", b"e", b"f"]
    talk("s", "LOCK.RELEASE a x")
    talk("s", "DEL b")
    talk("s", "LOCK.BREAK c x")
    talk("s", "SET d text")
    assert sorted_reply(talk("s", "LOCK.OWNED x")) == [b"e", b"f"]
    talk.pass_ms(100)
    assert talk("s", "LOCK.OWNED x") == [b"f"]
    talk.end("s")
    assert talk("s", "LOCK.OWNED x") == []
    assert not talk.machine.lock_waits._held.keys() - {b"other"}


def test_a_lock_taken_again_in_the_step_that_gave_it_back_ends_in_time(talk: Talk) -> None:
    """As MULTI does: what became of the former lock is looked at when the new one is there."""
    machine = talk.machine
    machine.origin = b"s"
    for line in ("LOCK.ACQUIRE k a PX 100", "LOCK.RELEASE k a", "LOCK.ACQUIRE k a PX 100"):
        machine.step(machine.handler(line.encode().split()[0]), line.encode().split())
    machine.settle()
    assert talk("s", "LOCK.OWNED a") == [b"k"]
    assert talk("s2", "LOCK.ACQUIRE k b BLOCK 0") is WAITING
    talk.pass_ms(100)
    assert talk.woken() == [("s2", 3)]
