"""The sockets between nodes: one for each direction, so that each has one who writes and one who reads.

A node dials every other and sends its messages on that `Link`; what the others
send comes in on theirs, an `Inbound` each, which were clients until they
proved to be peers. Nothing is answered on a link. Messages that do not get
through are the core's to repair, so a link never waits and keeps only so much.

A large letter, such as a payload of hundreds of megabytes, must not keep heartbeats
waiting. It goes out in parts whenever there is nothing else to send; what is
said meanwhile overtakes it, but for what is of no use before it: appends, and
batches handed over, of the same shard.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, TypeAlias

import hiredis
import trio

from cluster import wire
from cluster.raft.messages import AnyMessage, Append, Forward, Message
from resp_server.edge.poller import GONE, READ, WRITE, Poller
from resp_server.logs import LOGGER

RECEIVE_BYTES = 256 * 1024
UNSENT_BYTES_MAX = 64 * 1024 * 1024
"""A peer that leaves more than this unread, beside what goes in parts, is dropped; it is told again what matters."""

AHEAD_BYTES = 256 * 1024
"""Of what goes out in parts, the system is given no more than this before the network has taken it."""

PARTS_PER_DRAIN = 8
"""How many parts go out before the node looks after others."""

PIECES_PER_WRITE = 512  # the system's own limit is 1024

FRAME = b"*2\r\n$4\r\nPEER\r\n$%d\r\n%b\r\n"
FRAME_HEAD = b"*2\r\n$4\r\nPEER\r\n$%d\r\n"
PART_HEAD = b"*2\r\n$4\r\nPART\r\n$%d\r\n"
LAST_HEAD = b"*2\r\n$4\r\nLAST\r\n$%d\r\n"

CHAINED = (Append, Forward)
"""Each of these is of use only once the one before it has come."""

Mail: TypeAlias = tuple[str, int, AnyMessage]
"""(from whom, about which shard, what)."""

_NOTHING_WHOLE = object()


class Lost(Exception):
    """The link is of no more use; the message says why."""


class Told(Protocol):
    """Who hears of links that come and go: `cluster.node.Node`."""

    def connected(self, peer: str) -> None:
        """Messages to the peer get through from now on."""
        ...

    def disconnected(self, peer: str) -> None:
        """They do not any more."""
        ...

    def sending(self, peer: str, *, large: bool) -> None:
        """Something large is on its way out to the peer from now on, or nothing is any more."""
        ...


class Link:
    """The way to a peer. ``lost`` is set once it is gone, and ``reason`` says why.

    ``large`` are the letters that go out in parts, the first of them already;
    ``told_large`` is whether the node knows that there are any.
    """

    __slots__ = (
        "_kept_bytes",
        "_parts",
        "_unsent",
        "fd",
        "interest",
        "large",
        "lost",
        "peer",
        "reason",
        "socket",
        "told_large",
    )

    def __init__(self, peer: str, connected: socket.socket) -> None:
        self.peer = peer
        self.socket = connected
        self.fd = connected.fileno()
        self.interest = READ  # nothing is ever sent on it, but its end
        self.lost = trio.Event()
        self.reason = ""
        self.large: deque[tuple[int, list[bytes]]] = deque()
        self.told_large = False
        self._unsent: deque[bytes | memoryview] = deque()
        self._kept_bytes = 0
        self._parts: Iterator[tuple[memoryview, bool]] | None = None  # of the first large one
        if connected.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, AHEAD_BYTES)

    @property
    def unsent(self) -> bool:
        """Whether there is something the socket has not taken."""
        return bool(self._unsent or self.large)

    def put_aside(self, shard: int, pieces: list[bytes]) -> None:
        """Leaves a letter to go out in parts, by and by, after those that were put aside before.

        One that is among them already would bring nothing new.
        """
        if (shard, pieces) not in self.large:
            self.large.append((shard, pieces))

    def put_aside_any(self, shard: int) -> bool:
        """Whether there are such letters about the shard."""
        return any(about == shard for about, _ in self.large)

    def send(self, letters: list[wire.Letter]) -> None:
        """Sends a turn's letters, and keeps what the socket does not take; raises `Lost`."""
        waits = bool(self._unsent)
        for pieces in wire.frames(letters):
            if len(pieces) == 1:
                self._keep(FRAME % (len(pieces[0]), pieces[0]))
            else:
                self._keep(FRAME_HEAD % sum(map(len, pieces)))
                for piece in pieces:
                    self._keep(piece)
                self._keep(b"\r\n")
        if not waits:
            self.drain()
        if self._kept_bytes > UNSENT_BYTES_MAX:
            raise Lost("it does not read what it is sent")

    def _keep(self, piece: bytes | memoryview) -> None:
        self._unsent.append(piece)
        self._kept_bytes += len(piece)

    def drain(self) -> None:
        """Sends what was kept, as far as the socket takes it, and then some of what is large; raises `Lost`."""
        self._write()
        for _ in range(PARTS_PER_DRAIN):
            if self._unsent or not self.large:
                return
            self._keep_part()
            self._write()

    def _write(self) -> None:
        unsent = self._unsent
        while unsent:
            pieces = [unsent[0]] if len(unsent) == 1 else list(islice(unsent, PIECES_PER_WRITE))
            try:
                sent = os.writev(self.fd, pieces)
            except BlockingIOError:
                return
            except OSError as error:
                raise Lost(error.strerror or str(error)) from None
            self._kept_bytes -= sent
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if sent:
                unsent[0] = memoryview(unsent[0])[sent:]
                return

    def _keep_part(self) -> None:
        """Lets the next part go out."""
        if self._parts is None:
            self._parts = wire.parts(*self.large[0])
        part, last = next(self._parts)
        self._keep((LAST_HEAD if last else PART_HEAD) % len(part))
        self._keep(part)
        self._keep(b"\r\n")
        if last:
            self.large.popleft()
            self._parts = None

    def look(self) -> None:
        """The socket is readable: that can only be its end. Raises `Lost`."""
        try:
            data = os.read(self.fd, 64)
        except BlockingIOError:
            return
        except OSError as error:
            raise Lost(error.strerror or str(error)) from None
        raise Lost("it answers where nothing is to be answered" if data else "it closed the connection")


class Inbound:
    """The way from a peer."""

    __slots__ = ("_gathered", "_reader", "fd", "peer", "socket")

    def __init__(self, peer: str, connected: socket.socket) -> None:
        self.peer = peer
        self.socket = connected
        self.fd = connected.fileno()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING_WHOLE)
        self._gathered = bytearray()  # the parts of a large letter

    def read(self, buffer: bytearray) -> list[tuple[int, AnyMessage]]:
        """What one look at the socket brings: (shard, message). Raises `Lost`, and `wire.WireError` for what is none.

        ``buffer`` is where they come in, so that no memory is asked for at every look.
        """
        try:
            size = os.readv(self.fd, [buffer])
        except BlockingIOError:
            return []
        except OSError as error:
            raise Lost(error.strerror or str(error)) from None
        if not size:
            raise Lost("it closed the connection")
        reader = self._reader
        reader.feed(buffer, 0, size)  # type: ignore[arg-type]  # its stub has left out bytearray
        mail: list[tuple[int, AnyMessage]] = []
        try:
            while (frame := reader.gets()) is not _NOTHING_WHOLE:
                match frame:
                    case [b"PEER", bytes() as blob]:
                        mail += wire.decode(blob)
                    case [b"PART", bytes() as part]:
                        self._gathered += part
                    case [b"LAST", bytes() as part]:
                        self._gathered += part
                        whole, self._gathered = self._gathered, bytearray()
                        mail += wire.decode(whole)
                    case _:
                        raise wire.WireError("no frame of messages")
        except hiredis.HiredisError as error:
            raise wire.WireError(str(error)) from None
        return mail


class Links:
    """All links of one node."""

    def __init__(self, poller: Poller, node: Told) -> None:
        self._poller = poller
        self._node = node
        self._to: dict[str, Link] = {}
        self._to_by_fd: dict[int, Link] = {}
        self._from: dict[int, Inbound] = {}
        self._buffer = bytearray(RECEIVE_BYTES)

    @property
    def some(self) -> bool:
        """Whether there are any."""
        return bool(self._from or self._to)

    def up(self, peer: str, connected: socket.socket) -> Link:
        """Sends to the peer on this socket from now on."""
        self.cut(peer, "another connection took its place")
        link = Link(peer, connected)
        self._to[peer] = self._to_by_fd[link.fd] = link
        self._poller.watch(link.fd, READ)
        self._node.connected(peer)
        return link

    def cut(self, peer: str, reason: str) -> None:
        """Ends the link to the peer, if there is one."""
        if peer in self._to:
            self._drop(self._to[peer], reason)

    def adopt(self, peer: str, connected: socket.socket) -> None:
        """Takes the peer's messages from this socket, which the poller watches already, and from no other any more."""
        self.cut_from(peer)
        inbound = Inbound(peer, connected)
        self._from[inbound.fd] = inbound
        self._poller.change(inbound.fd, READ)

    def cut_from(self, peer: str) -> None:
        """Takes no more messages from the peer until it proves itself again."""
        for inbound in [one for one in self._from.values() if one.peer == peer]:
            self._forget(inbound)

    def callers(self) -> list[str]:
        """The peers whose messages are taken."""
        return [inbound.peer for inbound in self._from.values()]

    def hear(self, ready: Iterable[tuple[int, int]]) -> list[Mail]:
        """Looks after the links that are ready; the messages that came."""
        mail: list[Mail] = []
        for fd, event in ready:
            if (inbound := self._from.get(fd)) is not None:
                self._read(inbound, mail)
            elif (link := self._to_by_fd.get(fd)) is not None:
                self._look_after(link, event)
        return mail

    def send(self, messages: list[tuple[str, int, Message]]) -> None:
        """Sends a turn's messages, (to, the shard, what): one write for each link. Without a link they are lost."""
        turn: dict[Link, list[wire.Letter]] = {}
        packed: dict[int, bytes] = {}  # by the message's identity: the same append often goes to several
        for peer, shard, message in messages:
            link = self._to.get(peer)
            if link is None:
                continue
            letters = turn.get(link)
            if letters is None:
                letters = turn[link] = []
            found = packed.get(id(message))
            if found is None:
                if (pieces := wire.pieces_of(message)) is not None:
                    link.put_aside(shard, pieces)
                    continue
                found = packed[id(message)] = wire.pack(message)
            if len(found) > wire.LARGE_BYTES or (
                link.large and isinstance(message, CHAINED) and link.put_aside_any(shard)
            ):
                link.put_aside(shard, [found])
            else:
                letters.append((shard, found))
        for link, letters in turn.items():
            try:
                link.send(letters)
            except Lost as lost:
                self._drop(link, str(lost))
                continue
            self._look_out(link)

    def has(self, fd: int) -> bool:
        """Whether this is the descriptor of one."""
        return fd in self._from or fd in self._to_by_fd

    def close(self) -> None:
        """Ends all of them, after one more try to send what is unsent."""
        for link in list(self._to.values()):
            try:
                link.drain()
            except Lost as lost:
                LOGGER.debug("a peer left before this node did", {"peer": link.peer, "reason": lost})
            self._drop(link, "this node stops")
        for inbound in list(self._from.values()):
            self._forget(inbound)

    def _read(self, inbound: Inbound, mail: list[Mail]) -> None:
        peer = inbound.peer
        try:
            mail += [(peer, shard, message) for shard, message in inbound.read(self._buffer)]
        except Lost as lost:
            LOGGER.debug("a peer closed its link", {"peer": inbound.peer, "reason": lost})
            self._forget(inbound)
        except wire.WireError as error:
            LOGGER.warning("closed a peer that sent no message", {"peer": inbound.peer, "reason": error})
            self._forget(inbound)

    def _look_after(self, link: Link, event: int) -> None:
        try:
            if event & (READ | GONE):
                link.look()
            if event & WRITE:
                link.drain()
        except Lost as lost:
            self._drop(link, str(lost))
            return
        self._look_out(link)

    def _look_out(self, link: Link) -> None:
        large = bool(link.large)
        if large is not link.told_large:
            link.told_large = large
            self._node.sending(link.peer, large=large)
        interest = READ | WRITE if link.unsent else READ
        if interest != link.interest:
            link.interest = interest
            self._poller.change(link.fd, interest)

    def _drop(self, link: Link, reason: str) -> None:
        link.reason = reason
        del self._to[link.peer], self._to_by_fd[link.fd]
        self._poller.forget(link.fd)
        link.socket.close()
        link.lost.set()
        self._node.disconnected(link.peer)

    def _forget(self, inbound: Inbound) -> None:
        del self._from[inbound.fd]
        self._poller.forget(inbound.fd)
        inbound.socket.close()
