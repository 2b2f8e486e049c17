"""Bad input for what can be held or waited for: refused with Redis's words, and nothing is changed by it.

Every call is made where it could do harm: one of each kind is held by `ann`,
and `bob` waits for it. Which words a command takes at all is tested beside the command.
"""

from __future__ import annotations

import re

import hiredis
import pytest

from resp_server.settings import load
from tests.front import Front, state

MILLION = bytes(1 << 20)
SERVERS: dict[str, tuple[int, dict[str, str]]] = {
    "resp2": (2, {}),
    "resp3 and eight shards": (3, {"shards": "8"}),
    "a life of its own": (2, {"lock_default_ttl": "5000"}),
}

HELD = (
    "LOCK.ACQUIRE {t}lock ann PX 60000",
    "LOCK.ACQUIRE {t}shared ann SHARED PX 60000",
    "LOCK.ACQUIRE {t}session ann SESSION",
    "SEM.ACQUIRE {t}sem ann LIMIT 2 COUNT 2 PX 60000",
    "ELECT.CAMPAIGN {t}election ann VALUE here PX 60000",
    "LATCH.ADD {t}latch 2",
    "SET {t}string text",
    "Q.PUSH {t}queue job",
)
WAITS = (
    "LOCK.ACQUIRE {t}lock bob BLOCK 0",
    "LOCK.ACQUIRE {t}shared bob BLOCK 0",
    "LOCK.MACQUIRE 2 {t}session {t}free bob BLOCK 0",
    "SEM.ACQUIRE {t}sem bob LIMIT 2 BLOCK 0",
    "ELECT.CAMPAIGN {t}election bob BLOCK 0",
    "LATCH.WAIT {t}latch BLOCK 0",
)
SHOWN = (
    "LOCK.INFO {t}lock",
    "LOCK.INFO {t}shared",
    "SEM.INFO {t}sem",
    "ELECT.LEADER {t}election",
    "LATCH.INFO {t}latch",
)


class Scene:
    """A server where something of every kind is held and waited for, and a client that behaves badly."""

    def __init__(self, protocol: int, settings: dict[str, str]) -> None:
        self.front = Front(settings=load(settings, {}))
        self.ann, self.client = self.front.connect(), self.front.connect()
        for line in HELD:
            [reply] = self.ann.call(*line.encode().split())
            assert not isinstance(reply, hiredis.ReplyError), reply
        for line in WAITS:
            assert self.front.connect().call(*line.encode().split()) == [], "it waits"
        self.client.call(b"HELLO", b"%d" % protocol)

    def call(self, call: str | list[bytes]) -> object:
        """The one reply to a call, made of words with blanks between."""
        [reply] = self.client.call(*(call.encode().split() if isinstance(call, str) else call))
        return reply

    def shown(self) -> list[object]:
        """What a client is told of all that is held."""
        return [self.call(line) for line in SHOWN]

    def known(self) -> list[object]:
        """The same, and all that the shards know."""
        return [*self.shown(), *(state(shard.machine) for shard in self.front.node.shards)]

    def refuses(self, call: str | list[bytes]) -> str:
        """The error a call ends with; it must change nothing."""
        before = self.known()
        reply = self.call(call)
        assert isinstance(reply, hiredis.ReplyError), (call, reply)
        assert re.match(r"[A-Z]+ \S", str(reply)), "an error begins with its code"
        assert self.known() == before, call
        return str(reply)

    def ignores(self, call: str | list[bytes]) -> object:
        """The reply to a call that must change nothing."""
        before = self.known()
        reply = self.call(call)
        assert self.known() == before, call
        return reply


@pytest.fixture(params=SERVERS)
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(*SERVERS[request.param])


# Times

NO_TIME = [b"", b"text", b"1e3", b"1.5", b"+1", b"01", b" 1", b"1 ", b"0x10", b"1_000", b"nan", b"9" * 400]
BEYOND = [b"%d" % 2**63, b"%d" % 2**64, b"%d" % (-(2**63) - 1)]
NEGATIVE = [b"-1", b"%d" % -(2**63)]
TOO_LATE = [b"%d" % (2**63 - 1), b"%d" % (2**63 - 1_000_000_000_000)]
"""Numbers, but no time: from now on they end after the last one there is."""

LIVES = (
    "LOCK.ACQUIRE {t}lock ann PX TIME",
    "LOCK.ACQUIRE {t}lock cid PX TIME BLOCK 0",
    "LOCK.ACQUIRE {t}shared ann PX TIME ID again",
    "LOCK.ACQUIRE {t}new cid SHARED PX TIME",
    "LOCK.MACQUIRE 2 {t}lock {t}new ann PX TIME",
    "LOCK.EXTEND {t}lock ann PX TIME",
    "LOCK.EXTEND {t}lock ann PX TIME TOKEN 1",
    "LOCK.EXTEND {t}session ann PX TIME",
    "LOCK.EXTEND {t}new nobody PX TIME",
    "SEM.ACQUIRE {t}sem cid LIMIT 9 PX TIME",
    "SEM.ACQUIRE {t}new cid LIMIT 9 PX TIME",
    "ELECT.CAMPAIGN {t}election ann VALUE elsewhere PX TIME",
    "ELECT.CAMPAIGN {t}new cid PX TIME",
)
BLOCKS = (
    "LOCK.ACQUIRE {t}lock cid BLOCK TIME",
    "LOCK.ACQUIRE {t}new cid BLOCK TIME",
    "LOCK.MACQUIRE 2 {t}lock {t}new cid BLOCK TIME",
    "SEM.ACQUIRE {t}sem cid LIMIT 9 BLOCK TIME",
    "ELECT.CAMPAIGN {t}election cid BLOCK TIME",
    "ELECT.OBSERVE {t}election BLOCK TIME",
    "LATCH.WAIT {t}latch BLOCK TIME",
)


def with_time(line: str, time: bytes) -> list[bytes]:
    return [time if word == b"TIME" else word for word in line.encode().split()]


@pytest.mark.parametrize("line", LIVES)
def test_a_life_is_a_positive_number_of_milliseconds_that_ends(scene: Scene, line: str) -> None:
    command = line.partition(" ")[0].lower()
    for time in [b"0", *NEGATIVE, *TOO_LATE]:
        assert scene.refuses(with_time(line, time)) == f"ERR invalid expire time in '{command}' command", time
    for time in NO_TIME + BEYOND:
        assert scene.refuses(with_time(line, time)) == "ERR value is not an integer or out of range", time


@pytest.mark.parametrize("line", BLOCKS)
def test_a_wait_is_a_number_of_milliseconds_that_ends(scene: Scene, line: str) -> None:
    for time in NEGATIVE:
        assert scene.refuses(with_time(line, time)) == "ERR timeout is negative", time
    for time in TOO_LATE:
        assert scene.refuses(with_time(line, time)) == "ERR timeout is out of range", time
    for time in NO_TIME + BEYOND:
        assert scene.refuses(with_time(line, time)) == "ERR timeout is not an integer or out of range", time


def test_the_longest_life_there_is(scene: Scene) -> None:
    longest_ms = 2**63 - 1 - scene.front.now_ms
    assert scene.call(f"LOCK.EXTEND {{t}}lock ann PX {longest_ms}") == 1
    assert scene.refuses(f"LOCK.EXTEND {{t}}lock ann PX {longest_ms + 1}").startswith("ERR invalid expire time")


# Names

TAKERS = (
    "LOCK.ACQUIRE {t}new NAME",
    "LOCK.ACQUIRE {t}lock NAME BLOCK 0",
    "LOCK.MACQUIRE 2 {t}lock {t}new NAME BLOCK 0",
    "SEM.ACQUIRE {t}sem NAME LIMIT 9",
    "ELECT.CAMPAIGN {t}election NAME BLOCK 0",
    "LOCK.ACQUIRE {t}shared ann ID NAME",
    "SEM.ACQUIRE {t}sem ann LIMIT 2 ID NAME",
)
OTHERS = (
    "LOCK.RELEASE {t}lock NAME",
    "LOCK.EXTEND {t}lock NAME PX 1",
    "LOCK.BREAK {t}lock NAME",
    "SEM.RELEASE {t}sem NAME",
    "ELECT.RESIGN {t}election NAME",
)


def with_name(line: str, name: bytes) -> list[bytes]:
    return [name if word == b"NAME" else word for word in line.encode().split()]


@pytest.mark.parametrize("name", [b"", bytes(4097), MILLION], ids=["none", "too long", "a million"])
def test_a_name_that_is_kept_is_neither_empty_nor_long(scene: Scene, name: bytes) -> None:
    for line in TAKERS:
        assert re.fullmatch(
            r"ERR (owner|candidate|ID) must be 1 to 4096 bytes long", scene.refuses(with_name(line, name))
        )
    for line in OTHERS:
        assert scene.ignores(with_name(line, name)) == 0, "nobody of this name holds anything"
    assert scene.ignores([b"LOCK.DOWNGRADE", b"{t}lock", name]) is None
    assert scene.ignores([b"LOCK.OWNED", name]) == []


@pytest.mark.parametrize("owner", [b"\r\n", b"\x00\xff", b"a b", bytes(4096)])
def test_any_other_bytes_are_a_name(scene: Scene, owner: bytes) -> None:
    assert isinstance(scene.call([b"LOCK.ACQUIRE", b"{t}new", owner]), int)
    assert scene.call([b"LOCK.OWNED", owner]) == [b"{t}new"]
    assert scene.call([b"LOCK.RELEASE", b"{t}new", owner]) == 1


@pytest.mark.parametrize("key", [b"", b"\r\n", MILLION], ids=["none", "a line's end", "a million"])
def test_any_bytes_are_a_key(scene: Scene, key: bytes) -> None:
    before = scene.shown()
    for take, give in (
        ([b"LOCK.ACQUIRE", key, b"cid"], [b"LOCK.RELEASE", key, b"cid"]),
        ([b"SEM.ACQUIRE", key, b"cid", b"LIMIT", b"2"], [b"SEM.RELEASE", key, b"cid", b"COUNT", b"2"]),
        ([b"ELECT.CAMPAIGN", key, b"cid"], [b"ELECT.RESIGN", key, b"cid"]),
    ):
        token = scene.call(take)
        assert isinstance(token, int)
        assert scene.call([b"FENCE", key, b"%d" % token, *take]) == token, "the same hold"
        while scene.call([b"EXISTS", key]):
            assert scene.call(give)
    assert scene.shown() == before


# Tokens


@pytest.mark.parametrize("token", ["0", "-1", "9999", str(2**63 - 1)])
def test_a_token_of_another_gives_nothing_back(scene: Scene, token: str) -> None:
    for line in ("LOCK.RELEASE {t}lock ann", "LOCK.EXTEND {t}lock ann PX 1", "LOCK.RELEASE {t}shared ann"):
        assert scene.ignores(f"{line} TOKEN {token}") == 0
    assert scene.ignores(f"SEM.RELEASE {{t}}sem ann COUNT 2 TOKEN {token}") == 0
    assert scene.ignores(f"ELECT.RESIGN {{t}}election ann TOKEN {token}") == 0
    assert scene.refuses(f"FENCE {{t}}lock {token} SET {{t}}string changed") == (
        f"FENCED the lock is not held with token {token}, nothing was changed"
    )


@pytest.mark.parametrize("token", [b"", b"x", b"1.0", b"%d" % 2**63])
def test_a_token_is_a_number(scene: Scene, token: bytes) -> None:
    for line in (
        "LOCK.RELEASE {t}lock ann TOKEN NAME",
        "LOCK.EXTEND {t}lock ann PX 1 TOKEN NAME",
        "SEM.RELEASE {t}sem ann TOKEN NAME",
        "ELECT.RESIGN {t}election ann TOKEN NAME",
        "FENCE {t}lock NAME SET {t}string changed",
    ):
        assert scene.refuses(with_name(line, token)) == "ERR value is not an integer or out of range"


def test_what_somebody_else_holds_is_not_given_back(scene: Scene) -> None:
    for line in ("LOCK.RELEASE {t}lock", "LOCK.BREAK {t}lock", "SEM.RELEASE {t}sem", "ELECT.RESIGN {t}election"):
        assert scene.ignores(f"{line} bob") == 0, "it waits, and holds nothing"
    assert scene.ignores("LOCK.EXTEND {t}lock bob PX 100") == 0
    assert scene.ignores("LOCK.DOWNGRADE {t}lock bob") is None
    assert scene.ignores("LOCK.DOWNGRADE {t}shared ann") is None, "it is shared already"


# Options

SYNTAX = (
    "LOCK.ACQUIRE {t}lock ann SHARED SHARED",
    "LOCK.ACQUIRE {t}lock ann EXCLUSIVE EXCLUSIVE",
    "LOCK.ACQUIRE {t}lock ann EXCLUSIVE SHARED",
    "LOCK.ACQUIRE {t}lock ann PX 5 PX 5",
    "LOCK.ACQUIRE {t}lock ann EX 5",
    "LOCK.ACQUIRE {t}lock ann SESSION PX 5",
    "LOCK.ACQUIRE {t}lock ann SESSION SESSION",
    "LOCK.ACQUIRE {t}lock ann BLOCK 0 BLOCK 0",
    "LOCK.ACQUIRE {t}lock ann ID a ID a",
    "LOCK.ACQUIRE {t}lock ann PX",
    "LOCK.ACQUIRE {t}lock ann BLOCK",
    "LOCK.ACQUIRE {t}lock ann ID",
    "LOCK.ACQUIRE {t}lock ann TOKEN 1",
    "LOCK.MACQUIRE 1 {t}lock {t}new ann",
    "LOCK.MACQUIRE 1 {t}lock ann SHARED EXCLUSIVE",
    "LOCK.RELEASE {t}lock ann TOKEN",
    "LOCK.RELEASE {t}lock ann TOKEN 1 TOKEN 1",
    "LOCK.RELEASE {t}lock ann PX 5",
    "LOCK.RELEASE {t}lock ann 1",
    "LOCK.EXTEND {t}lock ann TOKEN 1",
    "LOCK.EXTEND {t}lock ann PX 5 PX 5",
    "LOCK.EXTEND {t}lock ann PX 5 SESSION",
    "LOCK.EXTEND {t}lock ann PX 5 TOKEN",
    "LOCK.BREAK {t}lock ann bob",
    "SEM.ACQUIRE {t}sem cid COUNT 1",
    "SEM.ACQUIRE {t}sem cid LIMIT 9 LIMIT 9",
    "SEM.ACQUIRE {t}sem cid LIMIT 9 SHARED",
    "SEM.ACQUIRE {t}sem cid LIMIT 9 PX 5 SESSION",
    "SEM.RELEASE {t}sem ann COUNT 1 COUNT 1",
    "SEM.RELEASE {t}sem ann LIMIT 1",
    "ELECT.CAMPAIGN {t}election ann VALUE a VALUE b",
    "ELECT.CAMPAIGN {t}election ann SESSION PX 5",
    "ELECT.CAMPAIGN {t}election ann ID a",
    "ELECT.RESIGN {t}election ann PX 5",
    "ELECT.OBSERVE {t}election TOKEN 1 TOKEN 1",
    "ELECT.OBSERVE {t}election ann",
    "LATCH.WAIT {t}latch 5",
    "LATCH.WAIT {t}latch BLOCK 5 BLOCK 5",
)


@pytest.mark.parametrize("line", SYNTAX)
def test_options_that_are_unknown_doubled_or_against_each_other(scene: Scene, line: str) -> None:
    assert scene.refuses(line) == "ERR syntax error"


ARITY = (
    "LOCK.ACQUIRE {t}lock", "LOCK.MACQUIRE 1 {t}lock", "LOCK.RELEASE {t}lock", "LOCK.EXTEND {t}lock ann PX",
    "LOCK.DOWNGRADE {t}lock", "LOCK.DOWNGRADE {t}lock ann more", "LOCK.INFO", "LOCK.INFO {t}lock more", "LOCK.OWNED",
    "LOCK.OWNED ann more", "LOCK.SCAN", "LOCK.BREAK", "LOCK.GRAPH more", "FENCE {t}lock 1",
    "SEM.ACQUIRE {t}sem ann LIMIT", "SEM.RELEASE {t}sem", "SEM.INFO", "LATCH.ADD {t}latch", "LATCH.ADD {t}latch 1 1",
    "LATCH.DONE", "LATCH.WAIT", "LATCH.COUNT {t}latch more", "ELECT.CAMPAIGN {t}election", "ELECT.RESIGN {t}election",
    "ELECT.LEADER", "ELECT.OBSERVE",
)  # fmt: skip


@pytest.mark.parametrize("line", ARITY)
def test_too_few_or_too_many_arguments(scene: Scene, line: str) -> None:
    command = line.partition(" ")[0].lower()
    assert scene.refuses(line) == f"ERR wrong number of arguments for '{command}' command"


NUMBERS = (
    ("LOCK.MACQUIRE 0 {t}lock ann", "ERR numkeys should be greater than 0"),
    ("LOCK.MACQUIRE -1 {t}lock ann", "ERR numkeys should be greater than 0"),
    ("LOCK.MACQUIRE 1e0 {t}lock ann", "ERR numkeys should be greater than 0"),
    (f"LOCK.MACQUIRE {2**64} {{t}}lock ann", "ERR numkeys should be greater than 0"),
    ("LOCK.MACQUIRE 2 {t}lock {t}ann", "ERR Number of keys can't be greater than number of args"),
    ("LOCK.MACQUIRE 5 {t}lock ann PX 5", "ERR Number of keys can't be greater than number of args"),
    ("SEM.ACQUIRE {t}sem cid LIMIT 0", "ERR value is out of range, must be positive"),
    ("SEM.ACQUIRE {t}sem cid LIMIT 9 COUNT -2", "ERR value is out of range, must be positive"),
    (f"SEM.ACQUIRE {{t}}sem cid LIMIT {2**63}", "ERR value is not an integer or out of range"),
    ("SEM.ACQUIRE {t}sem cid LIMIT 8 COUNT 9", "ERR COUNT 9 is more than LIMIT 8"),
    ("SEM.RELEASE {t}sem ann COUNT 0", "ERR value is out of range, must be positive"),
    ("LATCH.ADD {t}latch 0", "ERR value is out of range, must be positive"),
    (f"LATCH.ADD {{t}}latch {2**63 - 1}", "ERR increment or decrement would overflow"),
    ("LATCH.DONE {t}latch 3", "ERR the latch is at 2 and cannot go below zero"),
    ("LATCH.DONE {t}latch -1", "ERR value is out of range, must be positive"),
    ("ELECT.OBSERVE {t}election TOKEN 99 BLOCK 0", "ERR TOKEN is not one that was given"),
    ("LOCK.SCAN x", "ERR invalid cursor"),
    ("LOCK.SCAN 0 COUNT 0", "ERR syntax error"),
    ("LOCK.SCAN 0 COUNT x", "ERR value is not an integer or out of range"),
    ("LOCK.SCAN 0 TYPE lock", "ERR syntax error"),
)


@pytest.mark.parametrize(("line", "text"), NUMBERS)
def test_numbers_that_make_no_sense(scene: Scene, line: str, text: str) -> None:
    assert scene.refuses(line) == text


# Keys of another kind, or elsewhere

OF_A_KIND = {
    "lock": (
        "LOCK.ACQUIRE KEY ann", "LOCK.ACQUIRE KEY ann BLOCK 0", "LOCK.MACQUIRE 2 {t}new KEY ann BLOCK 0",
        "LOCK.MACQUIRE 2 {t}lock KEY cid", "LOCK.RELEASE KEY ann", "LOCK.EXTEND KEY ann PX 5", "LOCK.DOWNGRADE KEY ann",
        "LOCK.INFO KEY", "LOCK.BREAK KEY",
    ),
    "sem": ("SEM.ACQUIRE KEY ann LIMIT 9 BLOCK 0", "SEM.RELEASE KEY ann", "SEM.INFO KEY"),
    "election": (
        "ELECT.CAMPAIGN KEY ann BLOCK 0", "ELECT.RESIGN KEY ann", "ELECT.LEADER KEY", "ELECT.OBSERVE KEY BLOCK 0",
    ),
    "latch": ("LATCH.ADD KEY 1", "LATCH.DONE KEY", "LATCH.WAIT KEY BLOCK 0", "LATCH.COUNT KEY", "LATCH.INFO KEY"),
    "string": ("GET KEY", "INCR KEY", "APPEND KEY x"),
    "queue": ("Q.PUSH KEY job", "Q.POP KEY BLOCK 0", "Q.LEN KEY"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OF_A_KIND)
def test_a_key_of_another_kind(scene: Scene, kind: str) -> None:
    for line in OF_A_KIND[kind]:
        for other in OF_A_KIND.keys() - {kind}:
            call = line.replace("KEY", f"{{t}}{other}")
            assert scene.refuses(call) == "WRONGTYPE Operation against a key holding the wrong kind of value", call


def test_a_fence_is_held(scene: Scene) -> None:
    for key in ("string", "queue", "latch", "new"):
        assert scene.refuses(f"FENCE {{t}}{key} 1 SET {{t}}string changed").startswith("FENCED ")


@pytest.mark.parametrize("protocol", [2, 3])
def test_keys_of_several_shards(protocol: int) -> None:
    scene = Scene(protocol, {"shards": "8"})
    for line in (
        "LOCK.MACQUIRE 2 {t}lock {u}lock ann",
        "LOCK.MACQUIRE 2 {t}new {u}new ann BLOCK 0 SESSION",
        "FENCE {t}lock 1 SET {u}string changed",
        "FENCE {t}lock 1 LOCK.ACQUIRE {u}lock ann",
        "FENCE {t}lock 1 FLUSHALL",
    ):
        assert scene.refuses(line).startswith("CROSSSLOT "), line


# Steps where nobody may wait


@pytest.mark.parametrize("line", WAITS[:5])
def test_what_would_have_to_wait_in_a_transaction_does_not(scene: Scene, line: str) -> None:
    before = scene.known()
    assert scene.call("MULTI") == b"OK"
    assert scene.call(line.replace("bob", "cid")) == b"QUEUED"
    assert scene.call("EXEC") == [None]
    assert scene.known() == before


def test_in_a_fence_nothing_waits_either(scene: Scene) -> None:
    for line in ("LOCK.ACQUIRE {t}lock cid BLOCK 0", "SEM.ACQUIRE {t}sem cid LIMIT 2 BLOCK 0"):
        assert scene.ignores(f"FENCE {{t}}lock 1 {line}") is None


def test_a_bad_call_in_a_transaction_leaves_the_others_alone(scene: Scene) -> None:
    """As in Redis: what cannot be queued spoils all, what fails when it is carried out only itself."""
    scene.call("MULTI")
    assert isinstance(scene.call("LOCK.ACQUIRE {t}lock"), hiredis.ReplyError)
    assert str(scene.call("EXEC")).startswith("EXECABORT ")
    scene.call("MULTI")
    for line in ("LOCK.ACQUIRE {t}new cid", "LOCK.EXTEND {t}new cid PX 0", "LOCK.RELEASE {t}new cid"):
        assert scene.call(line) == b"QUEUED"
    told = scene.call("EXEC")
    assert isinstance(told, list)
    assert isinstance(told[0], int)
    assert str(told[1]) == "ERR invalid expire time in 'lock.extend' command"
    assert told[2] == 1


# A wait is not longer than its connection


@pytest.mark.parametrize("line", WAITS)
def test_a_wait_ends_with_its_connection(scene: Scene, line: str) -> None:
    before, leaving = scene.known(), scene.front.connect()
    assert leaving.call(*line.replace("bob", "cid").encode().split()) == [], "it waits"
    scene.front.disconnect(leaving)
    assert scene.shown() == before[: len(SHOWN)]
    assert sum(len(shard.machine.waiters) for shard in scene.front.node.shards) == len(WAITS)
