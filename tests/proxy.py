"""A network between nodes that can be cut: a proxy in front of each node's announced address.

Links go one way only: n1 dials n2, and only n1's messages flow on that link. Its
first frame, ``PEER HELLO version cluster n1 …``, says who dials, and the port
that was dialled says whom. So every link has its pair, and a pair can be cut in
one direction. What does not begin with that frame is passed on untouched.

A cut is *closed* (links are reset, new ones too, as by a firewall that rejects)
or *silent* (links stall and nobody is told, as by one that drops). What stalled
comes through late once the cut is healed, as TCP would have it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Final

import hiredis

from tests.servers import HOST

CHUNK_BYTES = 256 * 1024
PENDING_BYTES_MAX = 1024 * 1024  # what is not passed on yet; the rest waits in the sender's socket
CONNECT_SECONDS = 1.0
SETTLE_SECONDS = 10.0  # how long the proxy's thread may take to do as it is told
NETWORK: Final = "network"
"""The name of the proxies' threads, which live as long as their clusters."""

RESET: Final = struct.pack("ii", 1, 0)


class _Way:
    """One direction of a connection: what was read at one end and is not yet written to the other."""

    def __init__(self, source: socket.socket) -> None:
        self.source = source
        self.target: socket.socket | None = None
        self.ended = False
        self._pending: deque[tuple[float, memoryview]] = deque()
        self._pending_bytes = 0
        self._told_end = False

    @property
    def wants_more(self) -> bool:
        """Whether more should be read."""
        return not self.ended and self._pending_bytes < PENDING_BYTES_MAX

    @property
    def due_s(self) -> float | None:
        """When the first of what is pending may go on."""
        return self._pending[0][0] if self._pending else None

    @property
    def over(self) -> bool:
        """Whether everything, and its end, was passed on."""
        return self._told_end

    def take(self, due_s: float) -> bytes:
        """Reads what is there, to be passed on at ``due_s``; raises `OSError` when the connection broke."""
        data = self.source.recv(CHUNK_BYTES)
        if data:
            self._pending.append((due_s, memoryview(data)))
            self._pending_bytes += len(data)
        else:
            self.ended = True
        return data

    def give(self, now_s: float) -> None:
        """Writes what is due, as far as the socket takes it; raises `OSError` when the connection broke."""
        if self.target is None:
            return
        while self._pending and self._pending[0][0] <= now_s:
            due_s, data = self._pending[0]
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                return
            self._pending_bytes -= sent
            if sent < len(data):
                self._pending[0] = (due_s, data[sent:])
                return
            self._pending.popleft()
        if self.ended and not self._pending and not self._told_end:
            self._told_end = True
            self.target.shutdown(socket.SHUT_WR)


class _Connection:
    """A connection that was accepted for ``receiver``, and, once its sender is known, the one made to it."""

    def __init__(self, receiver: str, caller: socket.socket) -> None:
        self.receiver = receiver
        self.sender = ""  # not known yet, or no node
        self.introduced = False
        self.forth = _Way(caller)
        self.back: _Way | None = None
        self._reader = hiredis.Reader()

    @property
    def ways(self) -> list[_Way]:
        """Both directions, or the one there is."""
        return [self.forth] if self.back is None else [self.forth, self.back]

    def hear(self, data: bytes) -> None:
        """Looks for the first frame, which names the sender."""
        self._reader.feed(data)
        try:
            frame = self._reader.gets()
        except hiredis.ProtocolError:
            frame = None
        if frame is False:
            return
        self.introduced = True
        match frame:
            case [bytes() as command, bytes() as verb, _, _, bytes() as sender, *_] if (
                command.upper() == b"PEER" and verb.upper() == b"HELLO"
            ):
                self.sender = sender.decode()

    def attach(self, port: int) -> None:
        """Connects to the node; raises `OSError`."""
        there = socket.create_connection((HOST, port), timeout=CONNECT_SECONDS)
        there.setblocking(False)
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.forth.target = there
        self.back = _Way(there)
        self.back.target = self.forth.source

    def close(self) -> None:
        """Resets both ends."""
        for way in self.ways:
            with contextlib.suppress(OSError):
                way.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            way.source.close()


class Network:
    """The links between nodes. Everything here may be called from any thread and holds once it returns.

    ``ports`` of the nodes by name; `address` is what each must announce. A node
    that is `add`-ed later starts with whole links.
    """

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self._listeners: dict[str, socket.socket] = {}
        self._connections: list[_Connection] = []
        self._cuts: dict[tuple[str, str], bool] = {}  # whether the cut is silent
        self._delay_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._watched: dict[socket.socket, int] = {}
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=NETWORK, daemon=True)
        self._thread.start()

    def add(self, node: str, port: int) -> str:
        """Opens a way to the node that listens on ``port``; the address it must announce."""
        listener = socket.create_server((HOST, 0), backlog=128)
        listener.setblocking(False)

        def listen() -> None:
            self._ports[node] = port
            self._listeners[node] = listener
            self._selector.register(listener, selectors.EVENT_READ)

        self._order(listen)
        return f"{HOST}:{listener.getsockname()[1]}"

    # What a test does to it

    def cut(self, sender: str, receiver: str, *, silent: bool = False) -> None:
        """Nothing that ``sender`` sends reaches ``receiver`` any more; the other direction stays as it is."""
        self.cut_all([(sender, receiver)], silent=silent)

    def cut_all(self, pairs: Iterable[tuple[str, str]], *, silent: bool = False) -> None:
        """Cuts many, at one instant."""
        now_cut = dict.fromkeys(pairs, silent)
        self._order(lambda: self._cuts.update(now_cut))

    def isolate(self, node: str, *, silent: bool = False) -> None:
        """Cuts one node from all others, in both directions."""
        self.partition({node}, self._ports.keys() - {node}, silent=silent)

    def partition(self, *sides: Iterable[str], silent: bool = False) -> None:
        """Cuts all links between nodes of different ``sides``."""
        groups = [list(side) for side in sides]
        self.cut_all(
            [(one, two) for left in groups for right in groups if left is not right for one in left for two in right],
            silent=silent,
        )

    def heal(self) -> None:
        """Ends all cuts and the delay."""
        self._order(self._heal)

    def delay(self, seconds: float) -> None:
        """Everything that is sent from now on arrives this much later."""

        def change() -> None:
            self._delay_s = seconds

        self._order(change)

    def close(self) -> None:
        """Ends everything; a second time does nothing."""
        if self._thread.is_alive():
            self._order(self._end)
            self._thread.join(SETTLE_SECONDS)
            self._rope.close()  # not by the thread: it may end before it is rung for
            self._bell.close()
        assert not self._thread.is_alive()

    # The thread

    def _order(self, order: Callable[[], None]) -> None:
        done = threading.Event()

        def carry_out() -> None:
            order()
            self._enforce()
            done.set()

        self._orders.put(carry_out)
        self._rope.send(b"!")
        assert done.wait(SETTLE_SECONDS), "the network's thread does not answer"

    def _run(self) -> None:
        while not self._closed:
            for key, events in self._selector.select(self._pause_s()):
                if key.fileobj is self._bell:
                    self._bell.recv(4096)
                elif isinstance(key.data, _Connection):
                    self._serve(key.data, key.fileobj, events)
                elif key.fileobj in self._listeners.values():
                    self._accept(key.fileobj)
            for connection in self._delayed():
                self._pass_on(connection)
            while not self._orders.empty():
                self._orders.get()()
        self._selector.close()

    def _pause_s(self) -> float | None:
        """How long until something delayed is due, at most."""
        due = [way.due_s for one in self._connections if not self._held(one) for way in one.ways if way.target]
        times = [time_s for time_s in due if time_s is not None and time_s > time.monotonic()]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _delayed(self) -> Iterator[_Connection]:
        now_s = time.monotonic()
        for one in list(self._connections):
            if any(way.due_s is not None and way.due_s <= now_s for way in one.ways):
                yield one

    def _accept(self, listener: object) -> None:
        node = next(name for name, one in self._listeners.items() if one is listener)
        with contextlib.suppress(OSError):
            caller, _ = self._listeners[node].accept()
            caller.setblocking(False)
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(node, caller)
            self._connections.append(connection)
            self._watch(connection)

    def _serve(self, connection: _Connection, end: object, events: int) -> None:
        if connection not in self._connections:
            return
        try:
            if events & selectors.EVENT_READ:
                for way in connection.ways:
                    if way.source is end and way.wants_more:
                        data = way.take(time.monotonic() + self._delay_s)
                        if not connection.introduced and not way.ended:
                            connection.hear(data)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        self._pass_on(connection)

    def _pass_on(self, connection: _Connection) -> None:
        """Lets go on what may, or ends a connection that is cut or over."""
        if connection not in self._connections:
            return
        if self._cuts.get((connection.sender, connection.receiver)) is False:
            self._drop(connection)
            return
        try:
            if not self._held(connection):
                if connection.introduced and connection.back is None:
                    connection.attach(self._ports[connection.receiver])
                for way in connection.ways:
                    way.give(time.monotonic())
        except OSError:
            self._drop(connection)
            return
        unheard = connection.forth.ended and not connection.introduced
        if unheard or all(way.over for way in connection.ways):
            self._drop(connection)
            return
        self._watch(connection)

    def _held(self, connection: _Connection) -> bool:
        """Whether a silent cut keeps it from going on."""
        return self._cuts.get((connection.sender, connection.receiver), False)

    def _watch(self, connection: _Connection) -> None:
        """Waits for what can happen on its sockets now."""
        now_s = time.monotonic()
        held = self._held(connection)
        for way in connection.ways:
            interest = 0
            if way.wants_more and not held:
                interest |= selectors.EVENT_READ
            for other in connection.ways:
                due_s = other.due_s
                if other.target is way.source and due_s is not None and due_s <= now_s and not held:
                    interest |= selectors.EVENT_WRITE
            self._set_interest(way.source, interest, connection)

    def _set_interest(self, sock: socket.socket, interest: int, connection: _Connection) -> None:
        before = self._watched.get(sock, 0)
        if interest == before:
            return
        if not before:
            self._selector.register(sock, interest, connection)
        elif interest:
            self._selector.modify(sock, interest, connection)
        else:
            self._selector.unregister(sock)
        if interest:
            self._watched[sock] = interest
        else:
            del self._watched[sock]

    def _enforce(self) -> None:
        for connection in list(self._connections):
            self._pass_on(connection)

    def _heal(self) -> None:
        self._cuts.clear()
        self._delay_s = 0.0

    def _drop(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        for way in connection.ways:
            self._set_interest(way.source, 0, connection)
        connection.close()

    def _end(self) -> None:
        for connection in list(self._connections):
            self._drop(connection)
        for listener in self._listeners.values():
            self._selector.unregister(listener)
            listener.close()
        self._closed = True
