"""Three RabbitMQ nodes on this machine, to compare our queues with: one quorum queue that all three keep."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.amqp import Amqp, Confirmed, Delivered, Talk, ack, publish
from benchmarks.clusters import processor_seconds
from benchmarks.probes import POLL_SECONDS, SILENCE_SECONDS, Endpoint, MeasureFailed, Pace
from benchmarks.wires import carry
from tests.servers import HOST, free_ports

PROGRAM = "rabbitmq-server"
SCRIPTS = Path("/usr/lib/rabbitmq/lib")
"""Where Debian has RabbitMQ's own scripts: the one on the PATH becomes another user and has paths of its own."""
NODES = 3
START_SECONDS = 120.0
CONNECTIONS = 50

_numbers = count()


def producer(channel: int, queue: str, payload: bytes, messages: int, batch: int, left: list[int]) -> Talk:
    """Publishes ``batch`` at a time, then waits until all are confirmed; counts them in ``left``."""
    some = publish(channel, queue, payload) * batch
    last = 0
    for _ in range(messages // batch):
        first, last = last + 1, last + batch
        due = set(range(first, last + 1))
        sent = some
        while due:
            event = yield sent
            sent = b""
            assert isinstance(event, Confirmed)
            if event.multiple:
                due = {tag for tag in due if tag > event.tag}
            else:
                due.discard(event.tag)
        left[0] -= batch
    while True:
        yield b""


def consumer(channel: int, left: list[int], batch: int) -> Talk:
    """Acknowledges what it is given, ``batch`` at once; nothing ever says that an acknowledgement arrived."""
    sent = b""
    for number in count(1):
        event = yield sent
        assert isinstance(event, Delivered)
        left[0] -= 1
        sent = ack(channel, event.tag, multiple=batch > 1) if number % batch == 0 else b""


@dataclass(frozen=True, slots=True)
class Rabbit:
    """A running cluster; ``processes`` are its Erlang machines."""

    endpoints: Sequence[Endpoint]
    processes: Sequence[int]

    def processor_seconds(self) -> float:
        """The processor time all nodes have used so far."""
        return sum(map(processor_seconds, self.processes))

    @contextmanager
    def queue(self) -> Iterator[tuple[Amqp, str]]:
        """A new queue, led by the first node, and a connection to that whose first channel is open."""
        name = f"flow:{next(_numbers)}"
        with closing(Amqp(self.endpoints[0])) as control:
            control.open_channel(1)
            control.declare_quorum_queue(1, name)
            yield control, name
            control.delete(1, name)

    def pushed(self, clients: int, messages: int, payload: bytes) -> Pace:
        """In what time so many messages are published and confirmed, one at a time a client."""
        left = [messages]
        with self.queue() as (control, name):
            talks = [
                lambda channel: producer(channel, name, payload, messages // clients, 1, left) for _ in range(clients)
            ]
            pace = self._talk(talks, lambda connection, channel, _: connection.confirm(channel), left)
            waiting = control.waiting(1, name)
        if waiting != messages:
            raise MeasureFailed(f"RabbitMQ has {waiting} messages of {messages}")
        return pace

    def worked_off(self, clients: int, messages: int, payload: bytes, batch: int) -> Pace:
        """In what time half of the clients publish so many messages, confirmed, and the others acknowledge them."""
        half = clients // 2
        left = [2 * messages]
        with self.queue() as (_, name):
            talks = [
                *[lambda channel: producer(channel, name, payload, messages // half, batch, left)] * half,
                *[lambda channel: consumer(channel, left, batch)] * half,
            ]

            def prepare(connection: Amqp, channel: int, client: int) -> None:
                if client < half:
                    connection.confirm(channel)
                else:
                    connection.consume(channel, name, prefetch=batch)

            return self._talk(talks, prepare, left)

    def _talk(
        self, talks: Sequence[Callable[[int], Talk]], prepare: Callable[[Amqp, int, int], None], left: list[int]
    ) -> Pace:
        """Lets clients talk, each on a channel of its own, until none of what they count is left."""
        with ExitStack() as until:
            connections = [
                until.enter_context(closing(Amqp(self.endpoints[number % len(self.endpoints)])))
                for number in range(min(CONNECTIONS, len(talks)))
            ]
            for client, talk in enumerate(talks):
                connection, channel = connections[client % len(connections)], 1 + client // len(connections)
                connection.open_channel(channel)
                prepare(connection, channel, client)
                connection.talks_on(channel, talk(channel))
            return carry([(one.socket, one) for one in connections], lambda: left[0] <= 0)

    def wakes(self, count: int, payload: bytes) -> list[float]:
        """Seconds from sending a message to one node to a consumer that waits at another, each time."""
        found = []
        with self.queue() as (_, name), ExitStack() as until:
            nodes = [until.enter_context(closing(Amqp(endpoint))) for endpoint in self.endpoints]
            for node in nodes:
                node.open_channel(1)
                node.open_channel(2)
                node.confirm(1)
            for wake in range(count):
                waits, pushes = nodes[wake % len(nodes)], nodes[(wake + 1) % len(nodes)]
                waits.consume(2, name, prefetch=1)
                started = time.perf_counter()
                pushes.send(publish(1, name, payload))
                delivered = waits.event()
                found.append(time.perf_counter() - started)
                pushes.event()
                waits.send(ack(2, delivered.tag))
                waits.cancel(2)
        return found


@contextmanager
def rabbit_cluster() -> Iterator[Rabbit]:
    """Runs three nodes with empty folders until the block ends; `MeasureFailed` where RabbitMQ is not installed."""
    program = script()
    with ExitStack() as children:
        home = Path(children.enter_context(tempfile.TemporaryDirectory(prefix="sepakat-rabbit-")))
        (home / ".erlang.cookie").write_text(PROGRAM, encoding="ascii")
        (home / ".erlang.cookie").chmod(0o400)
        (home / "plugins").write_text("[].", encoding="ascii")
        names_port, *ports = free_ports(1 + 2 * NODES)
        environment = {**os.environ, "HOME": str(home), "ERL_EPMD_PORT": str(names_port), "ERL_EPMD_ADDRESS": HOST}
        children.enter_context(_child(["epmd", "-port", str(names_port)], environment, home / "epmd.log"))
        names = [f"rabbit{number}@localhost" for number in range(NODES)]
        started = []
        for number, name in enumerate(names):
            folder = home / f"node{number}"
            folder.mkdir()
            environment |= _settings(folder, name, names, client_port=ports[number], peer_port=ports[NODES + number])
            log = folder / "output"
            started.append((children.enter_context(_child([str(program)], environment, log)), log))
        endpoints = [Endpoint(HOST, port) for port in ports[:NODES]]
        for endpoint, (process, log) in zip(endpoints, started, strict=True):
            _wait_until_ready(endpoint, process, log)
        yield Rabbit(endpoints, [process.pid for process, _ in started])


def script() -> Path:
    """RabbitMQ's own script, which becomes no other user."""
    found = sorted(SCRIPTS.glob(f"rabbitmq_server-*/sbin/{PROGRAM}"))
    if not found or shutil.which("epmd") is None:
        raise MeasureFailed(f"{PROGRAM} is not in {SCRIPTS} (Debian: apt-get install rabbitmq-server)")
    return found[-1]


def _settings(folder: Path, name: str, names: Sequence[str], *, client_port: int, peer_port: int) -> dict[str, str]:
    """The environment of a node that finds the others by itself; all else is as RabbitMQ comes."""
    members = "".join(f"cluster_formation.classic_config.nodes.{at} = {one}\n" for at, one in enumerate(names, 1))
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.local = {HOST}:{client_port}\n"
        f"cluster_formation.peer_discovery_backend = classic_config\n{members}"
        "log.console = true\nlog.console.level = error\nlog.file = false\n",
        encoding="ascii",
    )
    return {
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_DIST_PORT": str(peer_port),
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_ALLOW_INPUT": "1",  # without it, the script stays between us and its Erlang machine
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder.parent / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-noinput -kernel inet_dist_use_interface {{{HOST.replace('.', ',')}}}",
    }


def _wait_until_ready(endpoint: Endpoint, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once it takes connections, which it does when it is in the cluster."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").strip()[-300:]
            raise MeasureFailed(f"RabbitMQ ended with {process.returncode}: {last}")
        with suppress(OSError):
            endpoint.connect(SILENCE_SECONDS).close()
            return
        time.sleep(POLL_SECONDS)
    raise MeasureFailed(f"RabbitMQ does not answer after {START_SECONDS:g} s")


@contextmanager
def _child(line: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed with the block, and with it what it started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            line, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
