"""Clusters of real processes: started, killed, paused, cut from each other, and always ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.proxy import Network
from tests.raw_client import RawClient, Word
from tests.servers import HOST, START_SECONDS, Server, ServerFailed, answered, free_ports, is_stopped, wait_until

ROOT = Path(__file__).parents[1]
ASK_SECONDS = 20.0  # how long a node that runs may take to say how it is
CHANGE_SECONDS = 180.0  # how long the command line may take: `remove` waits until shards have moved
UNHURRIED = ("--election-timeout", "700", "--heartbeat-interval", "70")
"""On a machine that is busy with other things a node may well be silent for a third of a second."""

CALM_ELECTION_SECONDS = 2.0
CALM = ("--election-timeout", "2000", "--heartbeat-interval", "70")
"""Where nobody may be elected but by the test's own doing: not even when the machine lets a process wait for long."""

LONG_LEASES = ("--cache-lease-ms", "60000")
"""Who stands still for a moment loses no line of its cache."""

PATIENT_CACHES = ("--cache-writeback-ms", "3600000", *LONG_LEASES)
"""Lines stay as they are until something is done with them."""

EVERYWHERE = ("--replicas", "5")
"""The shape of a cluster whose only shard is on every node, of up to five."""

TRACEBACK = "Traceback (most recent call last)"


def own_environment() -> dict[str, str]:
    """The environment without settings of ours, in which the program finds this source."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("SEPAKAT_")}
    return {**foreign, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def sepakat(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end, as an operator would."""
    command = [sys.executable, "-m", "resp_server", *map(str, words)]
    return subprocess.run(command, env=own_environment(), capture_output=True, text=True, timeout=CHANGE_SECONDS)


class Node:
    """One member: where it listens and where the others reach it, its folder, its output, and its process if it runs.

    Clients connect to ``port``; ``address`` is the proxy's, which the other nodes use.
    """

    def __init__(self, name: str, port: int, address: str, folder: Path, flags: Iterable[str]) -> None:
        self.name = name
        self.port = port
        self.address = address
        self.folder = folder / name
        self.log = folder / f"{name}.log"
        self.flags = list(flags)
        self.paused = False
        self._server: Server | None = None
        self._clients: list[RawClient] = []

    def __repr__(self) -> str:
        return self.name

    @property
    def server(self) -> Server:
        """Its process; only while there is one."""
        assert self._server is not None, f"{self.name} was not started"
        return self._server

    @property
    def runs(self) -> bool:
        """Whether there is a process, paused or not."""
        return self._server is not None and self._server.process.poll() is None

    @property
    def serves(self) -> bool:
        """Whether there is a process that is not paused."""
        return self.runs and not self.paused

    def start(self, *flags: str) -> None:
        """Starts the process, with these flags besides its own; `wait_until_ready` is another matter."""
        assert not self.runs
        own = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.folder), *self.flags, *flags]
        command = [sys.executable, "-m", "resp_server", "serve", *own]
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=own_environment()
            )
        self.paused = False
        self._server = Server(self.port, process, self.log)

    def wait_until_ready(self) -> None:
        """Returns when it answers PING; it may know no leader yet."""
        self.server.wait_until_ready(START_SECONDS)

    def restart(self, *flags: str) -> None:
        """Starts it again after it was killed or stopped, and waits until it answers."""
        self.start(*flags)
        self.wait_until_ready()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.resume()
        return self.server.stop()

    def kill(self) -> None:
        """SIGKILL, as the power would."""
        self.server.process.kill()
        self.server.process.wait()
        self.paused = False

    def pause(self) -> None:
        """SIGSTOP: it does nothing, and nobody is told; returns once that is so."""
        self.server.process.send_signal(signal.SIGSTOP)
        self.paused = True
        wait_until(partial(is_stopped, self.server.process.pid))

    def resume(self) -> None:
        """SIGCONT."""
        if self.runs:
            self.server.process.send_signal(signal.SIGCONT)
        self.paused = False

    def erase(self) -> None:
        """Throws the data folder away."""
        assert not self.runs
        shutil.rmtree(self.folder)

    def client(self) -> Any:
        """A client that repeats nothing by itself; Any, as redis-py's types depend on options they cannot see."""
        return redis.Redis(port=self.port, protocol=3, socket_timeout=START_SECONDS, retry=Retry(NoBackoff(), 0))

    def raw(self) -> RawClient:
        """A connection to this node that does exactly as told, until `hang_up`."""
        client = RawClient(self.server)
        self._clients.append(client)
        return client

    def hang_up(self) -> None:
        """Closes the connections that `raw` gave."""
        while self._clients:
            self._clients.pop().socket.close()

    def said(self) -> str:
        """Everything it has written so far, in all its lives."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def ask(self, *words: Word) -> Any:
        """One reply in RESP3, bytes of it as text; raises `OSError` when there is none, or an error."""
        with RawClient(self.server) as client:
            client.socket.settimeout(ASK_SECONDS)
            client.call("HELLO", 3)
            reply = client.call(*words)
        if isinstance(reply, hiredis.ReplyError):
            raise ConnectionError(str(reply))
        return text_of(reply)

    def insist(self, *words: Word) -> Any:
        """As `ask`, of what may be asked more than once: the first reply that is no error."""
        return answered(partial(self.ask, *words), OSError)

    def raft(self) -> dict[str, Any]:
        """What RAFT.INFO says of the first shard; raises `OSError` when it does not answer or has no replica of it."""
        shards: list[dict[str, Any]] = self.ask("RAFT.INFO")
        for one in shards:
            if one["shard"] == 0:
                return one
        raise ConnectionError(f"{self.name} has no replica of shard 0")


def text_of(value: Any) -> Any:
    """The same reply with text for bytes, all through."""
    match value:
        case bytes():
            return value.decode()
        case list():
            return [text_of(item) for item in value]
        case dict():
            return {text_of(name): text_of(item) for name, item in value.items()}
    return value


class Cluster:
    """N nodes named n1, n2 …, with a `Network` between them, or with ``direct`` links that cannot be cut.

    A cluster for clients that go where a node sends them is ``direct``: they
    would be sent to the proxy otherwise. ``shape`` is what the first nodes are
    told besides ``flags``, and who joins later is not; ``zones`` are theirs, in
    their order.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        *flags: str,
        shape: Sequence[str] = (),
        zones: Sequence[str] = (),
        direct: bool = False,
    ) -> None:
        self.folder = folder
        self.network = Network()
        self.flags = flags
        self.direct = direct
        self.nodes: dict[str, Node] = {}
        ports = {f"n{number}": port for number, port in enumerate(free_ports(size), 1)}
        addresses = {name: self._address(name, port) for name, port in ports.items()}
        listed = ",".join(f"{name}={address}" for name, address in addresses.items())
        for (name, port), zone in zip(ports.items(), zones or [""] * size, strict=True):
            own = ("--node-id", name, "--cluster", listed, *flags, *shape, *(("--zone", zone) if zone else ()))
            self.nodes[name] = Node(name, port, addresses[name], folder, own)

    def _address(self, name: str, port: int) -> str:
        """What the node announces."""
        return f"{HOST}:{port}" if self.direct else self.network.add(name, port)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def start(self) -> None:
        """Starts all that do not run, at once, and waits until they answer."""
        started = [node for node in self.nodes.values() if not node.runs]
        for node in started:
            node.start()
        for node in started:
            node.wait_until_ready()

    def newcomer(self, name: str, through: Node, *flags: str) -> Node:
        """A node that will join through one that runs; it is not started. A name that was in use keeps its ports."""
        if name in self.nodes:
            self.nodes[name].hang_up()
            port, address = self.nodes[name].port, self.nodes[name].address
        else:
            [port] = free_ports(1)
            address = self._address(name, port)
        own = ("--join", f"{HOST}:{through.port}", "--announce", address, *self.flags, *flags)
        node = Node(name, port, address, self.folder, own)
        self.nodes[name] = node
        return node

    def stranger(self, name: str, *flags: str) -> Node:
        """A node with flags of its own, which knows nothing of this cluster; it is not started."""
        [port] = free_ports(1)
        node = Node(name, port, f"{HOST}:{port}", self.folder, flags)
        self.nodes[name] = node
        return node

    @property
    def serving(self) -> list[Node]:
        """The nodes that run and are not paused."""
        return [node for node in self.nodes.values() if node.serves]

    def others(self, *left_out: Node) -> list[Node]:
        """All nodes that serve but these."""
        return [node for node in self.serving if node not in left_out]

    # Looking

    def leader(self, among: Iterable[Node] | None = None) -> Node | None:
        """The node that leads in the highest term anybody knows of; None when there is none."""
        states = _states(self.serving if among is None else among)
        leading = [(state["term"], name) for name, state in states.items() if state["role"] == "leader"]
        if not leading:
            return None
        term, name = max(leading)
        return self[name] if term == max(state["term"] for state in states.values()) else None

    def wait_for_leader(self, among: Iterable[Node] | None = None) -> Node:
        """The node that all of ``among`` (all that serve) agree to be the leader, once it has taken a write."""
        nodes = self.serving if among is None else list(among)
        found: list[Node] = []

        def agreed() -> bool:
            states = _states(nodes)
            views = {(state["leader"], state["term"]) for state in states.values()}
            leader = self.leader(nodes)
            if len(states) < len(nodes) or leader is None or {name for name, _ in views} != {leader.name}:
                return False
            found[:] = [leader]
            return len(views) == 1 and _takes_writes(leader)

        self.wait_until(agreed)
        return found[0]

    def wait_for_lasting_leader(self) -> Node:
        """The leader the ring wants for the first shard, once it leads: nobody is asked to hand over to another one."""

        def lasting() -> bool:
            with contextlib.suppress(OSError):
                first = self.serving[0].ask("RAFT.RING")[0]
                return bool(first["leader"] == first["preferred"])
            return False

        self.wait_until(lasting)
        return self.wait_for_leader()

    def term(self) -> int:
        """The highest term any node that serves knows of."""
        return max(int(state["term"]) for state in _states(self.serving).values())

    def wait_until_caught_up(self, *nodes: Node) -> None:
        """Returns once these nodes (all that serve) have applied all that any node knows to be committed by now."""
        waited_for = list(nodes) or self.serving
        committed = max(int(state["commit"]) for state in _states(self.serving).values())

        def caught_up() -> bool:
            states = _states(waited_for)
            return len(states) == len(waited_for) and all(state["applied"] >= committed for state in states.values())

        self.wait_until(caught_up)

    def wait_until(self, condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
        """As `servers.wait_until`; the failure tells how every node is."""
        try:
            wait_until(condition, seconds)
        except AssertionError:
            raise AssertionError(f"what the test waits for did not come\n{self.account()}") from None

    def account(self) -> str:
        """What each node knows and the end of what it said, for a failure's message."""
        states: Mapping[str, Any] = _states(self.serving)
        lines = []
        for name, node in self.nodes.items():
            state = "paused" if node.paused else "gone" if not node.runs else states.get(name, "does not answer")
            lines += [f"== {name} on {node.port}: {state}", *node.said().splitlines()[-12:]]
        return "\n".join(lines)

    # Mending

    def settle(self) -> Node:
        """Makes it whole again, whatever a test did to it: all nodes run, all links hold. The leader."""
        self.network.heal()
        for node in self.nodes.values():
            node.resume()
        self.start()
        leader = self.wait_for_leader()
        self.wait_until_caught_up()
        return leader

    def check_output(self) -> None:
        """Raises `ServerFailed` when a node wrote a traceback, at any time so far."""
        for node in self.nodes.values():
            if TRACEBACK in node.said():
                raise ServerFailed(f"{node.name} wrote a traceback:\n{node.said()}")

    def hang_up(self) -> None:
        """Closes all connections that `Node.raw` gave."""
        for node in self.nodes.values():
            node.hang_up()

    def close(self) -> None:
        """Ends all processes and the network."""
        self.hang_up()
        for node in self.nodes.values():
            if node.runs:
                node.kill()
        self.network.close()


def _states(nodes: Iterable[Node]) -> dict[str, dict[str, Any]]:
    """RAFT.INFO by node, of those that answer."""
    states = {}
    for node in nodes:
        with contextlib.suppress(OSError):
            states[node.name] = node.raft()
    return states


def _takes_writes(node: Node) -> bool:
    with contextlib.suppress(OSError), RawClient(node.server) as client:
        client.socket.settimeout(ASK_SECONDS)
        return not error_of(client, "SET", "the-cluster-takes-writes", node.name)
    return False


def let_lead(node: Node, shard: int = 0) -> None:
    """CLUSTER FAILOVER; once more when the leader has not heard the node of late, as it then refuses at once."""
    client = node.raw()

    def leads() -> bool:
        error = error_of(client, "CLUSTER", "FAILOVER", shard)
        assert not error or "does not answer" in error, error
        return not error

    wait_until(leads)


@contextlib.contextmanager
def new_cluster(
    folder: Path, size: int, *flags: str, shape: Sequence[str] = (), zones: Sequence[str] = (), direct: bool = False
) -> Iterator[Cluster]:
    """A cluster that is not started. All its processes end with the block; a traceback in their output is a failure."""
    cluster = Cluster(folder, size, *flags, shape=shape, zones=zones, direct=direct)
    try:
        yield cluster
    finally:
        cluster.close()
    cluster.check_output()


@contextlib.contextmanager
def running_cluster(folder: Path, size: int, *flags: str, shape: Sequence[str] = ()) -> Iterator[Cluster]:
    """The same, started, with a leader."""
    with new_cluster(folder, size, *flags, shape=shape) as cluster:
        cluster.start()
        cluster.wait_for_leader()
        yield cluster


@contextlib.contextmanager
def calm_cluster(folder: Path, size: int, *flags: str) -> Iterator[Cluster]:
    """A cluster whose nodes are all there, with a leader that stays; links are direct."""
    with new_cluster(folder, size, *CALM, *flags, direct=True) as cluster:
        cluster.start()
        cluster.wait_for_lasting_leader()
        yield cluster


@contextlib.contextmanager
def lent(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of several tests, for one: clients leave at its end, and no node may have said what it should not."""
    yield cluster
    cluster.hang_up()
    cluster.check_output()


def error_of(client: RawClient, *words: Word) -> str:
    """The error a command ends with, word for word; "" for none."""
    reply = client.call(*words)
    return str(reply) if isinstance(reply, hiredis.ReplyError) else ""
