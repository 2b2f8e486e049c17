"""Bad input for caches: refused with Redis's words, and nothing is changed by it, in lines or in memory."""

from __future__ import annotations

import re

import hiredis
import pytest

from resp_server.settings import load
from tests.bad_cache_calls import ARITY, HELD, LIVES, NO_LIFE, NO_NUMBER, SHOWN, SYNTAX, with_word
from tests.front import Client, Front

SERVERS: dict[str, tuple[int, dict[str, str]]] = {
    "resp2": (2, {}),
    "resp3 and eight shards": (3, {"shards": "8"}),
}
STEP_MS = 10


class Scene:
    """A server with lines in its cache, a key that somebody loads, and a client that behaves badly."""

    def __init__(self, protocol: int, settings: dict[str, str]) -> None:
        self.front = Front(settings=load(settings, {}))
        self.ann, self.client = self.front.connect(), self.front.connect()
        for line in HELD:
            reply = self._reply(self.ann, line.encode().split())
            assert not isinstance(reply, hiredis.ReplyError), reply
        assert isinstance(reply, list)
        self.token: int = reply[1]
        self.client.call(b"HELLO", b"%d" % protocol)

    def _reply(self, client: Client, words: list[bytes]) -> object:
        """The one reply, which may take some turns."""
        replies = client.call(*words)
        for _ in range(20):
            if replies:
                break
            self.front.advance(STEP_MS)
            self.front.finish()
            replies = client.replies()
        [reply] = replies
        return reply

    def call(self, call: str | list[bytes]) -> object:
        """The one reply to a call, made of words with blanks between."""
        return self._reply(self.client, call.encode().split() if isinstance(call, str) else call)

    def known(self) -> list[object]:
        """What a client reads, through the cache and beside it, how long it lives, and who loads what."""
        calls = [[b"CACHE.MGET", *SHOWN], [b"MGET", *SHOWN], *([b"PTTL", key] for key in SHOWN), [b"DBSIZE"]]
        told = [self._reply(self.ann, call) for call in calls]
        return [*told, *(dict(shard.machine.loaders) for shard in self.front.node.shards)]

    def refuses(self, call: str | list[bytes]) -> str:
        """The error a call ends with; it must change nothing."""
        before = self.known()
        reply = self.call(call)
        assert isinstance(reply, hiredis.ReplyError), (call, reply)
        assert re.match(r"[A-Z]+ \S", str(reply)), "an error begins with its code"
        assert self.known() == before, call
        return str(reply)


@pytest.fixture(params=SERVERS)
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(*SERVERS[request.param])


# Times and numbers


@pytest.mark.parametrize("line", LIVES)
def test_a_life_is_a_positive_number_that_ends(scene: Scene, line: str) -> None:
    command, line = line.partition(" ")[0].lower(), line.replace("LAST", str(scene.token))
    for time in NO_LIFE:
        assert scene.refuses(with_word(line, time)) == f"ERR invalid expire time in '{command}' command", time
    for time in NO_NUMBER:
        assert scene.refuses(with_word(line, time)) == "ERR value is not an integer or out of range", time


@pytest.mark.parametrize("key", ["new", "plain", "loading"])
def test_the_time_to_load_is_a_positive_number_that_ends(scene: Scene, key: str) -> None:
    for time in NO_LIFE:
        text = scene.refuses(with_word(f"CACHE.FETCH {{t}}{key} PX TIME", time))
        assert text == "ERR invalid expire time in 'cache.fetch' command", time
    for time in NO_NUMBER:
        text = scene.refuses(with_word(f"CACHE.FETCH {{t}}{key} PX TIME", time))
        assert text == "ERR value is not an integer or out of range", time


def test_a_token_is_a_number(scene: Scene) -> None:
    for token in NO_NUMBER:
        text = scene.refuses(with_word("CACHE.FILL {t}loading TOKEN v", token))
        assert text == "ERR value is not an integer or out of range", token


@pytest.mark.parametrize("token", ["0", "-1", "999", "9223372036854775807"])
def test_a_token_of_another_fills_nothing(scene: Scene, token: str) -> None:
    before = scene.known()
    for key in ("loading", "new", "plain", "lock"):
        assert scene.call(f"CACHE.FILL {{t}}{key} {token} v") is None
    assert scene.known() == before


def test_how_many_lines_are_shown(scene: Scene) -> None:
    for count in [*NO_NUMBER, b"0", b"-1", b"10001"]:
        assert scene.refuses([b"CACHE.TOP", b"COUNT", count]) == "ERR value is not an integer or out of range"


# Options


@pytest.mark.parametrize("line", SYNTAX)
def test_options_that_are_unknown_doubled_or_against_each_other(scene: Scene, line: str) -> None:
    assert scene.refuses(line) == "ERR syntax error"


@pytest.mark.parametrize("line", ARITY)
def test_too_few_or_too_many_arguments(scene: Scene, line: str) -> None:
    command = line.partition(" ")[0].lower()
    assert scene.refuses(line) == f"ERR wrong number of arguments for '{command}' command"


# Keys


@pytest.mark.parametrize("kind", ["queue", "lock"])
def test_a_key_of_another_kind(scene: Scene, kind: str) -> None:
    for line in ("CACHE.GET {t}KEY", "CACHE.FETCH {t}KEY", "CACHE.FETCH {t}KEY PX 5"):
        call = line.replace("KEY", kind)
        assert scene.refuses(call) == "WRONGTYPE Operation against a key holding the wrong kind of value", call
    assert scene.call(f"CACHE.MGET {{t}}{kind} {{t}}plain") == [None, b"text"]
    assert scene.call(f"CACHE.STATE {{t}}{kind}") == b"I"
    assert scene.call(f"CACHE.EVICT {{t}}{kind}") == 0


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 1 << 20])
def test_any_bytes_are_a_key_and_a_value(scene: Scene, size: int) -> None:
    key, value = (b"\r\n\x00\xff" * (size // 4 + 1))[:size], bytes(size)
    assert scene.call([b"CACHE.GET", key]) is None
    assert scene.call([b"CACHE.SET", key, value]) == b"OK"
    assert scene.call([b"CACHE.GET", key]) == value
    assert scene.call([b"GET", key]) == value
    assert scene.call([b"CACHE.FETCH", key]) == [value, None]
    assert scene.call([b"CACHE.MGET", key, b"none", key]) == [value, None, value]
    held = scene.call([b"CACHE.STATE", key])
    assert held == (b"I" if size > 64 * 1024 else b"S"), "long keys are not held"
    assert scene.call([b"CACHE.DEL", key]) == 1
    told = scene.call([b"CACHE.FETCH", key])
    assert isinstance(told, list)
    assert scene.call([b"CACHE.FILL", key, b"%d" % told[1], value]) == b"OK"
    assert scene.call([b"CACHE.GET", key]) == value


# Transactions


def test_in_a_transaction_nothing_waits(scene: Scene) -> None:
    assert scene.call("MULTI") == b"OK"
    for line in ("CACHE.FETCH {t}loading", "CACHE.SET {t}new v", "CACHE.SET {t}new v PX 0", "CACHE.DEL {t}new"):
        assert scene.call(line) == b"QUEUED"
    told = scene.call("EXEC")
    assert isinstance(told, list)
    assert told[:2] == [None, b"OK"]
    assert str(told[2]) == "ERR invalid expire time in 'cache.set' command"
    assert told[3] == 1


def test_what_cannot_be_queued_spoils_all_of_it(scene: Scene) -> None:
    scene.call("MULTI")
    assert isinstance(scene.call("CACHE.GET"), hiredis.ReplyError)
    assert str(scene.call("EXEC")).startswith("EXECABORT ")


# A wait is not longer than its connection


@pytest.mark.parametrize("line", ["CACHE.FETCH {t}loading", "CACHE.GET {t}new", "CACHE.SET {t}new v"])
def test_a_client_that_leaves_while_it_waits(scene: Scene, line: str) -> None:
    leaving = scene.front.connect()
    leaving.ask(line.encode().split())
    scene.front.disconnect(leaving)
    for _ in range(20):
        scene.front.advance(STEP_MS)
        scene.front.finish()
    assert sum(len(shard.machine.waiters) for shard in scene.front.node.shards) == 0
    assert scene.call("CACHE.MGET {t}plain {t}dirty") == [b"text", b"text"]
