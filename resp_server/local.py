"""``sepakat local``: a whole cluster on this machine, a process for each node, in one terminal.

The nodes are what ``sepakat serve`` runs, with nothing special about them: each
has its own folder and can be killed and started again by hand. Each is in a
session of its own, so that Ctrl-C in the terminal reaches this program alone,
which then ends the nodes.
"""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_S = 60.0
"""How long a node may take to end, its last checkpoint included, before it is killed."""

READ_BYTES = 65536
OWN_VARIABLES = ("NODE_ID", "CLUSTER", "JOIN", "ANNOUNCE", "BIND", "PORT", "UNIXSOCKET", "DIR", "LOGFILE", "CONFIG")
"""Settings that differ from node to node, so that a variable for all of them would be wrong; others are passed on."""


class LocalError(Exception):
    """The cluster cannot be started; the message is one line for a person."""


@dataclass(slots=True)
class Child:
    """One node: ``command`` starts it, and starts it again."""

    name: str
    port: int
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    unfinished: bytes = b""  # of a line it is writing


@dataclass(frozen=True, slots=True)
class Shape:
    """How the keys are spread, where the nodes' own defaults are not meant: ``zones`` are dealt out in turn."""

    shards: str | None = None
    replicas: str | None = None
    zones: int | None = None

    def flags(self, number: int) -> list[str]:
        """What the node of this number, from 1 on, is started with."""
        zone = None if self.zones is None else f"z{(number - 1) % self.zones + 1}"
        wanted = {"--shards": self.shards, "--replicas": self.replicas, "--zone": zone}
        return [word for flag, value in wanted.items() if value is not None for word in (flag, value)]


def plan(nodes: int, port: int, folder: Path, environment: Mapping[str, str], shape: Shape = Shape()) -> list[Child]:
    """The nodes of the cluster, not started yet. Raises `LocalError` when they cannot all be."""
    ports = range(port, port + nodes)
    if ports[-1] > 65535:
        raise LocalError(f"{nodes} nodes from port {port} on would go past port 65535: choose a lower --port")
    for one in ports:
        _check_free(one)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"{folder} cannot be used ({error.strerror}): choose another --dir") from None
    members = ",".join(f"n{number}={HOST}:{one}" for number, one in enumerate(ports, 1))
    talk = [] if "SEPAKAT_LOGLEVEL" in environment else ["--loglevel", "notice"]
    children = []
    for number, one in enumerate(ports, 1):
        name = f"n{number}"
        own = ["--node-id", name, "--cluster", members, "--dir", str(folder.absolute() / name), *shape.flags(number)]
        children.append(Child(name, one, [*_program(), "serve", *own, *talk]))
    return children


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LocalError(
                f"port {port} cannot be had: {error.strerror}; stop what uses it or choose another --port"
            ) from None


def _program() -> list[str]:
    """This program as a person can start it from anywhere."""
    script = Path(sys.argv[0])
    if script.name == "sepakat":
        return ["sepakat"] if shutil.which("sepakat") == str(script) else [str(script.absolute())]
    return [sys.executable, "-m", "resp_server"]


def run(children: list[Child], environment: Mapping[str, str]) -> bool:
    """Runs the nodes until a signal says stop; False when they all ended by themselves."""
    inherited = {name: text for name, text in environment.items() if name not in _own_names()}
    terminal = Terminal(children, {**inherited, "PYTHONUNBUFFERED": "1"})
    with _signals_on_a_socket() as bell:
        return terminal.run(bell)


def _own_names() -> set[str]:
    return {f"SEPAKAT_{name}" for name in OWN_VARIABLES}


@contextmanager
def _signals_on_a_socket() -> Iterator[socket.socket]:
    """A socket that becomes readable when one of `STOP_SIGNALS` arrives, which then does nothing else."""
    bell, rope = socket.socketpair()
    with bell, rope:
        rope.setblocking(False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in STOP_SIGNALS}
        wakeup = signal.set_wakeup_fd(rope.fileno(), warn_on_full_buffer=False)
        try:
            yield bell
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)


class Terminal:
    """Starts the nodes, shows what they say, and ends them."""

    def __init__(self, children: list[Child], environment: Mapping[str, str]) -> None:
        self._children = children
        self._environment = environment
        self._width = max(len(child.name) for child in children)
        self._selector = selectors.DefaultSelector()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = False
        self._kill_at_s = 0.0
        self._deaf = False  # nobody reads what is said

    def run(self, bell: socket.socket) -> bool:
        """Until all nodes have ended; whether they were told to. ``bell`` is readable when they shall."""
        self._introduce()
        try:
            with self._selector:
                self._selector.register(bell, selectors.EVENT_READ)
                for child in self._children:
                    self._start(child)
                while self._running:
                    self._turn(bell)
        finally:
            for process in self._running.values():
                process.kill()
                process.wait()
        return self._stopping

    def _turn(self, bell: socket.socket) -> None:
        limit_s = max(0.0, self._kill_at_s - time.monotonic()) if self._stopping else None
        for key, _ in self._selector.select(limit_s):
            if key.fileobj is bell:
                bell.recv(READ_BYTES)
                self._stop()
            else:
                self._hear(key.data, key.fd)
        if self._stopping and time.monotonic() >= self._kill_at_s:
            for name, process in self._running.items():
                self._say(f"{name} does not end: it is killed")
                process.kill()
            self._kill_at_s = time.monotonic() + STOP_S

    def _introduce(self) -> None:
        first, last = self._children[0], self._children[-1]
        ports = f"port {first.port}" if first is last else f"ports {first.port} to {last.port}"
        self._say(
            f"{len(self._children)} nodes on {HOST}, {ports}. Talk to any of them, as with redis-cli -p {first.port};"
            f" sepakat status --port {first.port} shows them all; Ctrl-C here ends them."
        )
        for child in self._children:
            self._say(f"{child.name} can be started again by: {shlex.join(child.command)}")

    def _start(self, child: Child) -> None:
        process = subprocess.Popen(
            child.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )
        assert process.stdout is not None
        self._running[child.name] = process
        self._selector.register(process.stdout, selectors.EVENT_READ, child)

    def _hear(self, child: Child, fd: int) -> None:
        """Shows the lines a node has finished; its silence for good means that it has ended."""
        data = os.read(fd, READ_BYTES)
        *lines, child.unfinished = (child.unfinished + data).split(b"\n")
        if not data and child.unfinished:
            lines.append(child.unfinished)
        self._write(b"".join(b"%-*b | %b\n" % (self._width, child.name.encode(), line) for line in lines))
        if not data:
            self._bury(child)

    def _bury(self, child: Child) -> None:
        process = self._running.pop(child.name)
        assert process.stdout is not None
        self._selector.unregister(process.stdout)
        process.stdout.close()
        ended = f"{child.name} {_ending(process.wait())}"
        again = "" if self._stopping else f"; start it again by: {shlex.join(child.command)}"
        self._say(ended + again)

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._kill_at_s = time.monotonic() + STOP_S
        self._say("ending all nodes")
        for process in self._running.values():
            process.terminate()
            process.send_signal(signal.SIGCONT)  # one that was stopped would not notice

    def _say(self, line: str) -> None:
        self._write(line.encode("utf-8", "surrogateescape") + b"\n")

    def _write(self, data: bytes) -> None:
        """To standard output; when nobody reads that any more, the nodes have no terminal left and end."""
        while data and not self._deaf:
            try:
                data = data[os.write(sys.stdout.fileno(), data) :]
            except OSError:
                self._deaf = True
                self._stop()


def _ending(code: int) -> str:
    return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
