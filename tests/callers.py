"""Clients of several kinds, of which each says of every call whether it happened, did not, or may have.

A reply of ``-CLUSTERDOWN``, ``-MISCONF``, ``-TRYAGAIN`` or ``-LOADING`` means that it did not. ``-UNCERTAIN``, a
connection that broke and a reply that did not come in time leave it open.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import hiredis
import redis
from redis import cluster as redis_cluster

from tests.clusters import Node
from tests.raw_client import RawClient
from tests.redis_binaries import find
from tests.servers import HOST
from tests.simulation.models import Output

REPLY_SECONDS = 4.0  # longer than a pause of a test, so that what a paused node says afterwards is judged
PATIENCE_SECONDS = 30.0  # of clients that never ask a paused node: an election and a busy machine are waited for
MOVE_CHANCE = 0.05  # of a client going to another node after a reply
DID_NOT_HAPPEN = ("CLUSTERDOWN", "MISCONF", "TRYAGAIN", "LOADING")
MAY_HAVE_HAPPENED = ("UNCERTAIN",)
LEADER_LOST = "the leader was lost while it was under way"  # why, where a leader was killed


class Unsure(Exception):
    """Nobody knows whether the call had an effect; the message says what there was instead of a reply."""


class NotDone(Exception):
    """The call certainly had none; the message says why not."""


class Caller(Protocol):
    """A client of a cluster; ``repeats`` says whether it may send a call more than once by itself."""

    repeats: ClassVar[bool]

    def call(self, *words: bytes) -> Output:
        """The reply, errors as text with a leading ``-``; raises `Unsure` and `NotDone`."""

    def leave(self) -> None:
        """Closes its connections; the next call makes others."""


NewCaller = Callable[[Sequence[Node], random.Random], Caller]


def judged(error: str) -> str:
    """What a caller answers for this error; raises `Unsure` and `NotDone` where it is one that leaves no reply."""
    if error.startswith(DID_NOT_HAPPEN):
        raise NotDone(error)
    if error.startswith(MAY_HAVE_HAPPENED):
        raise Unsure(error)
    return f"-{error}"


def some_node(nodes: Sequence[Node], chance: random.Random) -> Node:
    """Any that runs, if one does."""
    return chance.choice([one for one in nodes if one.runs] or list(nodes))


class Wanderer:
    """A client without a library that goes from node to node; ``visits`` counts its sessions."""

    repeats: ClassVar = False

    def __init__(self, nodes: Sequence[Node], chance: random.Random) -> None:
        self._nodes = nodes
        self._chance = chance
        self._connection: RawClient | None = None
        self._node: Node | None = None  # where the connection is
        self.visits = 0

    @property
    def connected(self) -> bool:
        """Whether the session of the last call goes on: it ends when the client goes to another node."""
        return self._connection is not None

    def place(self) -> Node:
        """The node that the next call goes to; raises `NotDone` when it cannot be reached."""
        if self._node not in self._nodes:
            self.leave()
        self._connected()
        assert self._node is not None
        return self._node

    def call(self, *words: bytes) -> Output:
        """As `Caller`'s."""
        connection = self._connected()
        try:
            reply = connection.call(*words)
        except OSError as error:  # a timeout is one
            self.leave()
            raise Unsure(str(error)) from None
        if isinstance(reply, hiredis.ReplyError):
            try:
                return judged(str(reply))
            except (NotDone, Unsure):
                self.leave()
                raise
        if self._chance.random() < MOVE_CHANCE:
            self.leave()
        return "OK" if reply == b"OK" else reply

    def leave(self) -> None:
        """Goes to some node the next time."""
        if self._connection is not None:
            self._connection.socket.close()
            self._connection = None

    def _connected(self) -> RawClient:
        if self._connection is None:
            node = some_node(self._nodes, self._chance)
            try:
                self._connection = RawClient(node.server)
            except OSError as error:
                raise NotDone(str(error)) from None
            self._node = node
            self.visits += 1
            self._connection.socket.settimeout(REPLY_SECONDS)
        return self._connection


class Plain:
    """A `redis.Redis` that knows one node, and is pointed to another when that fails it."""

    repeats: ClassVar = False

    def __init__(self, nodes: Sequence[Node], chance: random.Random) -> None:
        self._nodes = nodes
        self._chance = chance
        self._client: Any = None

    def call(self, *words: bytes) -> Output:
        """As `Caller`'s."""
        if self._client is None:
            self._client = some_node(self._nodes, self._chance).client()
        try:
            return _output(self._client.execute_command(*words))
        except redis.ResponseError as error:
            try:
                return judged(_words_of(error))
            except (NotDone, Unsure):
                self.leave()
                raise
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self.leave()
            judged(_words_of(error))  # redis-py makes a connection error of -LOADING
            raise Unsure(str(error)) from None

    def leave(self) -> None:
        """As `Caller`'s."""
        if self._client is not None:
            self._client.close()
            self._client = None


class ClusterAware:
    """redis-py's `RedisCluster`, with all that it does by itself when something fails.

    It may have sent a command more than once before it gives up, so that an error leaves everything open.
    """

    repeats: ClassVar = True

    def __init__(self, nodes: Sequence[Node], chance: random.Random) -> None:
        self._nodes = nodes
        self._chance = chance
        self._client: Any = None

    def call(self, *words: bytes) -> Output:
        """As `Caller`'s."""
        try:
            if self._client is None:
                library: Any = redis_cluster
                known = [library.ClusterNode(HOST, node.port) for node in self._nodes if node.runs]
                self._client = library.RedisCluster(startup_nodes=known, socket_timeout=PATIENCE_SECONDS)
            return _output(self._client.execute_command(words[0].decode(), *words[1:]))
        except (redis.ConnectionError, redis.TimeoutError, redis.RedisClusterException) as error:
            self.leave()
            raise Unsure(str(error)) from None
        except redis.ResponseError as error:
            text = _words_of(error)
            if text.startswith((*DID_NOT_HAPPEN, *MAY_HAVE_HAPPENED)):
                raise Unsure(text) from None
            return f"-{text}"

    def leave(self) -> None:
        """As `Caller`'s."""
        if self._client is not None:
            with contextlib.suppress(redis.RedisError):
                self._client.close()
            self._client = None


class CommandLine:
    """``redis-cli -c``, once for each call."""

    repeats: ClassVar = False

    def __init__(self, nodes: Sequence[Node], chance: random.Random) -> None:
        self._nodes = nodes
        self._chance = chance

    def call(self, *words: bytes) -> Output:
        """As `Caller`'s."""
        programs = find()
        node = some_node(self._nodes, self._chance)
        line = [programs.program("redis-cli"), "-c", "-e", "--no-raw", "-p", str(node.port)]
        try:
            ended = subprocess.run(
                [*(word.encode() for word in line), *words],
                env=programs.environment(), capture_output=True, timeout=PATIENCE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unsure("redis-cli was not done in time") from None
        lines = (ended.stdout + ended.stderr).decode().splitlines()
        said = "\n".join(line for line in lines if not line.startswith("-> Redirected")).strip()
        if said.startswith("Could not connect"):
            raise NotDone(said)
        if ended.returncode and not said.startswith("(error) "):
            raise Unsure(said)
        return shown(said)

    def leave(self) -> None:
        """As `Caller`'s: nothing stays open."""


def shown(said: str) -> Output:
    """The reply redis-cli shows like this."""
    kind, _, rest = said.partition(" ")
    match kind:
        case "(error)":
            return judged(rest)
        case "(integer)":
            return int(rest)
        case "(nil)":
            return None
    if said.startswith('"'):
        return said[1:-1].encode()
    return said


def _words_of(error: redis.RedisError) -> str:
    """The error reply behind it: redis-py takes the first word off some that it knows."""
    known = {
        redis.exceptions.ClusterDownError: "CLUSTERDOWN",
        redis.exceptions.MasterDownError: "MASTERDOWN",
        redis.exceptions.TryAgainError: "TRYAGAIN",
        redis.exceptions.BusyLoadingError: "LOADING",
        redis.exceptions.MovedError: "MOVED",
    }
    text = str(error)
    word = next((word for kind, word in known.items() if isinstance(error, kind)), "")
    return text if text.startswith(word) else f"{word} {text}"


def _output(reply: Any) -> Output:
    if reply is True or reply == b"OK":
        return "OK"
    value: Output = reply
    return value
