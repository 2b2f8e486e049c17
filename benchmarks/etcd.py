"""Three etcd nodes on this machine, to compare with: three processes, each with a folder of its own.

etcd is given what serves it best. Its nodes run with the defaults, logging
errors only. The load goes to its leader, by gRPC: through its JSON gateway
each put would cost it two conversions and a call to itself. The load's client
is our own (`grpc_calls`), as light as the protocol allows, because on a
machine of few processors whatever the client uses is taken from the servers:
with `etcdctl check perf` etcd comes to half of the rate. And the 200 clients
share one connection, as the goroutines of one Go client do. On two busy
processors, one after the other, with 200 puts under way:

    1 connection   10,000/s        etcdctl check perf --load=l    5,100/s (8,000 offered)
    10             10,000/s        etcdctl check perf --load=xl   4,200/s (15,000 offered)
    50              9,500/s
    200             8,100/s
"""

from __future__ import annotations

import http.client
import json
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import grpc_calls
from benchmarks.grpc_calls import Call, short
from benchmarks.probes import POLL_SECONDS, SILENCE_SECONDS, Endpoint, MeasureFailed, Pace
from tests.servers import HOST, START_SECONDS, free_ports

PROGRAM = "etcd"
NODES = 3
CONNECTIONS = 1
PUT = b"/etcdserverpb.KV/Put"


class NotYet(Exception):
    """A node does not answer, or knows of no leader."""


@dataclass(frozen=True, slots=True)
class Node:
    """One process: where it listens for clients, and the file its output goes to."""

    endpoint: Endpoint
    process: subprocess.Popen[bytes]
    log: Path

    def status(self) -> dict[str, Any]:
        """What it says of itself; raises `NotYet`, and `MeasureFailed` when it has ended."""
        if self.process.poll() is not None:
            last = self.log.read_text(encoding="utf-8", errors="replace").strip()[-300:]
            raise MeasureFailed(f"etcd ended with {self.process.returncode}: {last}")
        connection = http.client.HTTPConnection(self.endpoint.host, self.endpoint.port, timeout=SILENCE_SECONDS)
        try:
            connection.request("POST", "/v3/maintenance/status", "{}")
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotYet(str(error)) from None
        finally:
            connection.close()
        if "leader" not in answer:
            raise NotYet("no leader")
        return answer

    @property
    def leads(self) -> bool:
        """Whether it is the leader, as it sees it itself."""
        status = self.status()
        return bool(status["leader"] == status["header"]["member_id"])


@dataclass(frozen=True, slots=True)
class Etcd:
    """A running cluster."""

    nodes: Sequence[Node]

    def leader(self) -> Node:
        """Its leader, once there is one."""
        give_up = time.monotonic() + START_SECONDS
        why = "none leads"
        while time.monotonic() < give_up:
            try:
                for node in self.nodes:
                    if node.leads:
                        return node
            except NotYet as reason:
                why = str(reason)
            time.sleep(POLL_SECONDS)
        raise MeasureFailed(f"etcd has no leader after {START_SECONDS:g} s: {why}")

    def puts_per_second(self, clients: int, requests: int) -> float:
        """The rate of puts through the leader with so many under way at all times; every one is counted in the end."""
        callers = [_puts(number, len(range(number, requests, clients))) for number in range(clients)]
        return requests / self.carry_out(callers, requests).seconds

    def carry_out(self, clients: Sequence[Iterator[Call]], changes: int) -> Pace:
        """In what time the leader carries out what the clients call for, which must change keys so many times."""
        leader = self.leader()
        before = int(leader.status()["header"]["revision"])
        pace = grpc_calls.closed_loop(leader.endpoint, clients, CONNECTIONS)
        done = int(leader.status()["header"]["revision"]) - before
        if done != changes:
            raise MeasureFailed(f"etcd made {done} changes of {changes}")
        return pace


def _puts(number: int, count: int, keys: int = 100_000) -> Iterator[Call]:
    """What one client puts: redis-benchmark's keys (``key:`` and twelve digits, drawn from ``keys``) and values."""
    chance = random.Random(number)
    for _ in range(count):
        yield Call(PUT, b"\x0a" + short(b"key:%012d" % int(chance.random() * keys)) + b"\x12" + short(b"xxx"))


@contextmanager
def etcd_cluster() -> Iterator[Etcd]:
    """Runs three nodes with empty folders until the block ends; `MeasureFailed` where etcd is not installed."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise MeasureFailed(f"{PROGRAM} is not on the PATH (Debian: apt-get install etcd-server)")
    with ExitStack() as children:
        home = Path(children.enter_context(tempfile.TemporaryDirectory(prefix="sepakat-etcd-")))
        ports = free_ports(2 * NODES)
        peers = {f"e{number}": f"http://{HOST}:{port}" for number, port in enumerate(ports[NODES:])}
        members = ",".join(f"{name}={url}" for name, url in peers.items())
        nodes = []
        for (name, url), port in zip(peers.items(), ports, strict=False):
            client = f"http://{HOST}:{port}"
            words = {
                "name": name, "data-dir": home / name, "log-level": "error", "logger": "zap", "log-outputs": "stderr",
                "listen-client-urls": client, "advertise-client-urls": client,
                "listen-peer-urls": url, "initial-advertise-peer-urls": url,
                "initial-cluster": members, "initial-cluster-state": "new",
            }  # fmt: skip
            log = home / f"{name}.log"
            line = [program, *(f"--{word}={value}" for word, value in words.items())]
            nodes.append(Node(Endpoint(HOST, port), children.enter_context(_child(line, log)), log))
        etcd = Etcd(nodes)
        etcd.leader()
        yield etcd


@contextmanager
def _child(line: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed with the block: what it keeps is of no use, and asked to end it waits for the others."""
    with log.open("wb") as output:
        process = subprocess.Popen(line, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
