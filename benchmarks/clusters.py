"""Our clusters on this machine: the tests' nodes, but with nothing between them that would cost time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.probes import POLL_SECONDS, TIMEOUT_SECONDS, Endpoint, MeasureFailed, info
from tests.clusters import TRACEBACK, Node
from tests.rings import REPLICAS, Ring, reached, ring_of
from tests.servers import HOST, START_SECONDS, ServerFailed, free_ports

ANSWER_SECONDS = 5.0
LOOK_SECONDS = 0.2
"""Between two looks at all nodes: often enough, and little beside what they do."""


class Cluster:
    """Nodes by name, n1 and so on; ``flags`` are what the first of them are told."""

    def __init__(self, folder: Path, size: int, *flags: str) -> None:
        ports = {f"n{number}": port for number, port in enumerate(free_ports(size), 1)}
        listed = ",".join(f"{name}={HOST}:{port}" for name, port in ports.items())
        self._folder = folder
        self._nodes = {
            name: Node(name, port, f"{HOST}:{port}", folder, ("--node-id", name, "--cluster", listed, *flags))
            for name, port in ports.items()
        }

    def start(self) -> None:
        """Starts all that do not run, and returns when they answer and every shard has a leader."""
        started = [node for node in self._nodes.values() if not node.runs]
        for node in started:
            node.start()
        for node in started:
            try:
                node.wait_until_ready()
            except ServerFailed:
                raise MeasureFailed(f"{node.name} does not start; {_end_of(node)}") from None
        self._wait_for_leaders()

    def join(self) -> None:
        """Starts one more, which enters by itself; returns as soon as it runs."""
        (port,) = free_ports(1)
        name = f"n{len(self._nodes) + 1}"
        through = self._nodes[self.running[0]].address
        self._nodes[name] = Node(name, port, f"{HOST}:{port}", self._folder, ("--join", through))
        self._nodes[name].start()

    def kill(self, name: str) -> None:
        """kill -9."""
        self._nodes[name].kill()

    def endpoint(self, name: str) -> Endpoint:
        """Where a node listens."""
        return Endpoint(HOST, self._nodes[name].port)

    def info(self, name: str) -> Mapping[str, str]:
        """What a node says of the cluster; nothing while it does not answer."""
        node = self._nodes[name]
        if not node.runs:
            raise MeasureFailed(f"{name} does not run; {_end_of(node)}")
        try:
            return info(self.endpoint(name), "sepakat", ANSWER_SECONDS)
        except OSError:
            return {}

    def _wait_for_leaders(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while any(self.info(name).get("shards_without_leader") != "0" for name in self.running):
            if time.monotonic() > give_up:
                raise MeasureFailed(f"some shards have no leader after {START_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)

    def leader(self) -> str:
        """The node that all nodes that run say leads the only shard, once they do."""
        give_up = time.monotonic() + START_SECONDS
        named: set[str] = set()
        while time.monotonic() < give_up:
            named = {self.info(name).get("raft_leader", "") for name, node in self._nodes.items() if node.runs}
            if len(named) == 1 and "" not in named:
                return named.pop()
            time.sleep(POLL_SECONDS)
        raise MeasureFailed(f"no leader that all agree on after {START_SECONDS:g} s; named: {sorted(named)}")

    @property
    def running(self) -> list[str]:
        """The names of the nodes that run."""
        return [name for name, node in self._nodes.items() if node.runs]

    def settle(self) -> Ring:
        """Returns once every shard is where it belongs, and led by whom it should be, as all nodes know."""
        zones = dict.fromkeys(self.running, "")
        give_up = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < give_up:
            with suppress(OSError):
                rings = [ring_of(self._nodes[name]) for name in self.running]
                if all(reached(ring, zones, REPLICAS, leaders=True) for ring in rings):
                    return rings[0]
            time.sleep(LOOK_SECONDS)
        raise MeasureFailed(f"shards are not where they belong after {TIMEOUT_SECONDS:g} s")

    def ring(self) -> Ring:
        """Where every shard is, as a node knows that runs; each has a leader."""
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            with suppress(OSError):
                ring = ring_of(self._nodes[self.running[0]])
                if all(row.leader for row in ring.rows):
                    return ring
            time.sleep(POLL_SECONDS)
        raise MeasureFailed(f"some shards have no leader after {START_SECONDS:g} s")

    def processor_seconds(self) -> dict[str, float]:
        """The processor time each node has used so far."""
        return {name: processor_seconds(self._nodes[name].server.process.pid) for name in self.running}

    def followers(self) -> list[str]:
        """All nodes that run but the leader."""
        leader = self.leader()
        return [name for name, node in self._nodes.items() if node.runs and name != leader]

    def close(self) -> None:
        """Ends all processes."""
        for node in self._nodes.values():
            if node.runs:
                node.kill()

    def check_output(self) -> None:
        """Raises when a node wrote a traceback."""
        for node in self._nodes.values():
            _, traceback, rest = node.said().partition(TRACEBACK)
            if traceback:
                error = next((line for line in rest.splitlines()[1:] if line and not line.startswith(" ")), "")
                raise MeasureFailed(f"{node.name} wrote a traceback: {error}")


def processor_seconds(process: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end_of(node: Node) -> str:
    """The last line of its output, for a message."""
    return f"it said last: {''.join(node.said().splitlines()[-1:])}"


@contextmanager
def several_nodes(size: int, *flags: str) -> Iterator[Cluster]:
    """So many nodes with empty folders; who leads is who should, so nobody else comes to in the middle of a measure."""
    with tempfile.TemporaryDirectory(prefix="sepakat-bench-") as folder:
        cluster = Cluster(Path(folder), size, *flags)
        try:
            cluster.start()
            cluster.settle()
            yield cluster
        finally:
            cluster.close()
        cluster.check_output()
