"""Three NATS nodes on this machine, to compare our queues with: a JetStream stream of three replicas in files.

The stream is a queue (retention ``workqueue``: what is acknowledged is gone)
with one durable pull consumer that all clients share.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.clusters import processor_seconds
from benchmarks.nats import Nats, Talk, must_be_kept, publish
from benchmarks.probes import POLL_SECONDS, Endpoint, MeasureFailed, Pace
from benchmarks.wires import carry
from tests.servers import HOST, START_SECONDS, free_ports

PROGRAM = "nats-server"
NODES = 3
CONNECTIONS = 50
ANSWER_SECONDS = 0.5
ACKNOWLEDGED = b"+ACK"
EXPIRES_NS = 600 * 10**9
"""No pull ends before its message comes."""

_numbers = count()


def producer(stream: str, inbox: bytes, payload: bytes, messages: int, batch: int, left: list[int]) -> Talk:
    """Publishes ``batch`` at a time, then waits until the stream has all; counts them in ``left``."""
    some = publish(stream.encode(), payload, inbox) * batch
    for _ in range(messages // batch):
        sent = some
        for _ in range(batch):
            must_be_kept((yield sent))
            sent = b""
        left[0] -= batch
    while True:
        yield b""


def pull(stream: str, inbox: bytes, batch: int) -> bytes:
    """Asks for so many messages of a stream."""
    wish = json.dumps({"batch": batch, "expires": EXPIRES_NS}).encode()
    return publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{stream}".encode(), wish, inbox)


def consumer(stream: str, inbox: bytes, left: list[int], batch: int) -> Talk:
    """Pulls up to ``batch`` messages and acknowledges each; nothing says that an acknowledgement arrived."""
    wish = sent = pull(stream, inbox, batch)
    while True:
        for number in range(batch):
            message = yield sent
            left[0] -= 1
            sent = publish(message.reply, ACKNOWLEDGED) + (wish if number == batch - 1 else b"")


def double_consumer(stream: str, inbox: bytes, left: list[int], batch: int) -> Talk:
    """The same, but each acknowledgement is answered, and the next pull waits for that (``AckSync``)."""
    wish = sent = pull(stream, inbox, batch)
    while True:
        due = 2 * batch
        while due:
            message = yield sent
            due -= 1
            sent = b"" if due else wish
            if message.reply:
                sent = publish(message.reply, ACKNOWLEDGED, inbox)
            else:
                left[0] -= 1


Consumer = Callable[[str, bytes, list[int], int], Talk]


@dataclass(frozen=True, slots=True)
class JetStream:
    """A running cluster."""

    endpoints: Sequence[Endpoint]
    processes: Sequence[int]

    def processor_seconds(self) -> float:
        """The processor time all nodes have used so far."""
        return sum(map(processor_seconds, self.processes))

    @contextmanager
    def stream(self) -> Iterator[tuple[Nats, str]]:
        """A new stream and its consumer of the same name, and a connection for calls."""
        name = f"flow{next(_numbers)}"
        with closing(Nats(self.endpoints[0])) as control:
            control.ask(
                f"$JS.API.STREAM.CREATE.{name}", name=name, subjects=[name], storage="file", num_replicas=NODES,
                retention="workqueue",
            )  # fmt: skip
            control.ask(
                f"$JS.API.CONSUMER.DURABLE.CREATE.{name}.{name}", stream_name=name,
                config={"durable_name": name, "ack_policy": "explicit"},
            )  # fmt: skip
            yield control, name
            control.ask(f"$JS.API.STREAM.DELETE.{name}")

    def pushed(self, clients: int, messages: int, payload: bytes) -> Pace:
        """In what time so many messages are published and answered, one at a time a client."""
        left = [messages]
        with self.stream() as (control, name):

            def talk(_: int, inbox: bytes) -> Talk:
                return producer(name, inbox, payload, messages // clients, 1, left)

            pace = self._talk(clients, talk, left)
            kept = control.ask(f"$JS.API.STREAM.INFO.{name}")["state"]["messages"]
        if kept != messages:
            raise MeasureFailed(f"NATS has {kept} messages of {messages}")
        return pace

    def worked_off(self, clients: int, messages: int, payload: bytes, batch: int, take: Consumer) -> Pace:
        """In what time half of the clients publish so many messages and the others ``take`` them."""
        half = clients // 2
        left = [2 * messages]
        with self.stream() as (_, name):

            def talk(client: int, inbox: bytes) -> Talk:
                if client < half:
                    return producer(name, inbox, payload, messages // half, batch, left)
                return take(name, inbox, left, batch)

            return self._talk(2 * half, talk, left)

    def _talk(self, clients: int, talk: Callable[[int, bytes], Talk], left: list[int]) -> Pace:
        """Lets clients talk until none of what they count is left."""
        with ExitStack() as until:
            connections = [
                until.enter_context(closing(Nats(self.endpoints[number % len(self.endpoints)])))
                for number in range(min(CONNECTIONS, clients))
            ]
            for client in range(clients):
                connection, number = connections[client % len(connections)], 1 + client // len(connections)
                connection.talks_as(number, talk(client, connection.inbox(number)))
            return carry([(one.socket, one) for one in connections], lambda: left[0] <= 0)

    def wakes(self, count: int, payload: bytes) -> list[float]:
        """Seconds from sending a message to one node to a consumer that waits at another, each time."""
        found = []
        with self.stream() as (control, name), ExitStack() as until:
            nodes = [until.enter_context(closing(Nats(endpoint))) for endpoint in self.endpoints]
            for node in nodes:
                node.add(1)
            for wake in range(count):
                waits, pushes = nodes[wake % len(nodes)], nodes[(wake + 1) % len(nodes)]
                waits.send(pull(name, waits.inbox(1), 1))
                while control.ask(f"$JS.API.CONSUMER.INFO.{name}.{name}")["num_waiting"] == 0:
                    time.sleep(POLL_SECONDS)
                started = time.perf_counter()
                pushes.send(publish(name.encode(), payload, pushes.inbox(1)))
                message = waits.hear(1)
                found.append(time.perf_counter() - started)
                must_be_kept(pushes.hear(1))
                waits.send(publish(message.reply, ACKNOWLEDGED, waits.inbox(1)))
                waits.hear(1)
        return found


@contextmanager
def jetstream_cluster(*, synced: bool = False) -> Iterator[JetStream]:
    """Runs three nodes with empty folders until the block ends; `MeasureFailed` where NATS is not installed.

    ``synced`` has them sync their files before a message is answered, which
    the first program on the PATH is taken for that can do it.
    """
    with ExitStack() as children:
        home = Path(children.enter_context(tempfile.TemporaryDirectory(prefix="sepakat-nats-")))
        nats_server = program(synced=synced)
        ports = free_ports(2 * NODES)
        routes = ", ".join(f"nats://{HOST}:{port}" for port in ports[NODES:])
        started = []
        for number in range(NODES):
            file = home / f"{number}.conf"
            file.write_text(
                f"server_name: n{number}\nlisten: {HOST}:{ports[number]}\nlog_file: {home / f'{number}.log'}\n"
                f"jetstream {{ {_storage(home / str(number), synced=synced)} }}\n"
                f"cluster {{ name: c, listen: {HOST}:{ports[NODES + number]}, routes: [{routes}] }}\n",
                encoding="ascii",
            )
            started.append(children.enter_context(_child([nats_server, "-c", str(file)])))
        endpoints = [Endpoint(HOST, port) for port in ports[:NODES]]
        for number, process in enumerate(started):
            _wait_until_ready(endpoints[number], process, home / f"{number}.log")
        yield JetStream(endpoints, [process.pid for process in started])


def program(*, synced: bool) -> str:
    """The first program on the PATH, or the first that can be told to sync; `MeasureFailed` where there is none."""
    with tempfile.TemporaryDirectory(prefix="sepakat-nats-") as folder:
        file = Path(folder, "asked.conf")
        file.write_text(f"jetstream {{ {_storage(folder, synced=synced)} }}\n", encoding="ascii")
        for place in os.get_exec_path():
            found = Path(place, PROGRAM)
            if (
                found.is_file()
                and not subprocess.run([found, "-t", "-c", file], capture_output=True, check=False).returncode
            ):
                return str(found)
    which = " that knows sync_interval: always (2.10 or later)" if synced else " (Debian: apt-get install nats-server)"
    raise MeasureFailed(f"no {PROGRAM} is on the PATH{which}")


def _storage(folder: str | Path, *, synced: bool) -> str:
    return f"store_dir: {folder}{', sync_interval: always' * synced}"


def _wait_until_ready(endpoint: Endpoint, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once the node answers for the cluster's JetStream, which takes a leader."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").strip()[-300:] if log.exists() else ""
            raise MeasureFailed(f"NATS ended with {process.returncode}: {last}")
        with suppress(OSError, MeasureFailed), closing(Nats(endpoint)) as connection:
            connection.socket.settimeout(ANSWER_SECONDS)  # without a leader nobody answers
            connection.ask("$JS.API.INFO")
            return
        time.sleep(POLL_SECONDS)
    raise MeasureFailed(f"NATS does not answer after {START_SECONDS:g} s")


@contextmanager
def _child(line: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed with the block."""
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
