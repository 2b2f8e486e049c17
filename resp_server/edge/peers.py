"""Whom this node talks to: dials every other member, and dials again whoever was lost.

One task for each member. It proves this node to the other and has the other
prove itself (`resp_server.peering`), then leaves the socket to the reactor and
waits until the link is lost. Who cannot be reached is tried again, at longer
and longer intervals up to a second, and at once when it calls here.

A member is dialled where it last said it is, else where the cluster has it.
One that was removed keeps its link a while, to hear of that.
"""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Callable

import hiredis
import trio

from cluster.node import Node
from cluster.raft.membership import Config
from cluster.storage.contract import Identity
from resp_server.address import parse
from resp_server.edge.link import Links
from resp_server.logs import LOGGER
from resp_server.peering import (
    Dialer,
    Hello,
    Join,
    Refused,
    Sayings,
    Welcome,
    judge_disk,
    shape_of,
    unexpected,
    welcomed,
)

BACK_OFF_MIN_S = 0.05
BACK_OFF_MAX_S = 1.0
UNREACHABLE_AFTER = 4
"""So many attempts in a row that fail are worth a line in the log: fewer are a node that starts a little later."""

DIAL_S = 1.0
"""How long a connection and a handshake may take, at the least."""

REMOVED_LINGERS_S = 5.0
JOIN_S = 20.0
"""How long a cluster may take to agree to a new member, before it is asked again."""

ADDRESSES_MAX = 256
REASON_LENGTH_MAX = 512
ANSWERS_BYTES_MAX = 1024 * 1024


class Peers:
    """The tasks that keep links up. `look` and `called` tell them of what they cannot see."""

    def __init__(self, node: Node, links: Links, address: str, secret: Callable[[], str]) -> None:
        """``address`` is where the others reach this node, ``secret`` gives the cluster's."""
        self._node = node
        self._links = links
        self._address = address
        self._secret = secret
        self._dial_s = max(DIAL_S, 2 * node.timing.election_ms / 1000)
        self._chance = random.Random()
        self._sayings = Sayings()
        self._said: dict[str, str] = {}  # by member: how it stands, as far as the log knows
        self._keepers: dict[str, trio.CancelScope] = {}
        self._calls: dict[str, trio.Event] = {}
        self._seen: dict[str, str] = {}  # by node: where it last said it is
        self._callers: dict[str, None] = {}  # nodes that are no members, and may be the leader of those that are
        self._config = Config()
        self._changed = trio.Event()

    def look(self) -> None:
        """At the end of a turn: members may have come or gone."""
        if self._node.members is not self._config or (self._callers and self._node.has_leader):
            self._changed.set()

    def called(self, peer: str, address: str) -> None:
        """The peer proved itself here and said where it is: good reason to call it back at once."""
        if len(self._seen) < ADDRESSES_MAX:
            self._seen[peer] = address
        if peer not in self._node.members:
            self._callers[peer] = None
            self._changed.set()
        if peer in self._calls:
            self._calls[peer].set()

    async def run(self) -> None:
        """Keeps links to all members until it is cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                self._config = self._node.members
                self._follow(nursery, self._config)
                await self._changed.wait()

    def _follow(self, nursery: trio.Nursery, config: Config) -> None:
        """Starts and ends tasks as members come and go."""
        calling = set(self._links.callers())
        if self._node.has_leader:  # then it is known who is a member
            self._callers.clear()
        self._callers = {peer: None for peer in self._callers if peer in calling and peer not in config}
        wanted = [*self._node.addresses(), *self._callers]
        for peer in [one for one in self._keepers if one not in wanted]:
            self._keepers.pop(peer).deadline = trio.current_time() + REMOVED_LINGERS_S
            nursery.start_soon(self._part_with, peer)
        for peer in wanted:
            if peer not in self._keepers:
                scope = self._keepers[peer] = trio.CancelScope()
                nursery.start_soon(self._keep, peer, scope)

    async def _keep(self, peer: str, scope: trio.CancelScope) -> None:
        """Keeps a link to the peer while it is wanted, and then leaves it for a while."""
        with scope:
            failures = 0
            while self._keepers.get(peer) is scope:
                called = self._calls[peer] = trio.Event()
                lasted = await self._link(peer, failures)
                failures = 0 if lasted else failures + 1
                back_off_s = min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2**failures)
                with trio.move_on_after(back_off_s * self._chance.uniform(0.5, 1)):
                    await called.wait()

    async def _part_with(self, peer: str) -> None:
        """One that was removed may still say and hear so for a while."""
        await trio.sleep(REMOVED_LINGERS_S)
        if peer not in self._keepers:
            self._links.cut(peer, "it is no member any more")
            self._links.cut_from(peer)
            self._seen.pop(peer, None)
            self._said.pop(peer, None)

    async def _link(self, peer: str, failures: int) -> bool:
        """A link, until it is lost; whether it was there, and for more than a moment."""
        connected = await self._try(peer, failures)
        if connected is None:
            return False
        since_s = trio.current_time()
        link = self._links.up(peer, connected)
        self._say_connected(peer)
        await link.lost.wait()
        self._say(peer, "lost", link.reason)
        return trio.current_time() - since_s > BACK_OFF_MAX_S

    async def _try(self, peer: str, failures: int) -> socket.socket | None:
        """A connection to the peer, who has proved itself; None, which the log may tell of, when there is none."""
        address = self._seen.get(peer) or self._node.addresses().get(peer)
        if not address:
            return None
        try:
            with trio.fail_after(self._dial_s):
                return await self._dial(peer, address)
        except Refused as refused:
            self._say(peer, "refused", refused.reason)
        except (OSError, trio.TooSlowError) as error:
            self._seen.pop(peer, None)  # it may be where the cluster has it
            if failures >= UNREACHABLE_AFTER:
                self._say(peer, "unreachable", reason_of(error))
        return None

    async def _dial(self, peer: str, address: str) -> socket.socket:
        own = self._node.identity
        nonce = secrets.token_hex(16)
        hello = Hello(own.cluster, own.node, self._address, peer, own.disk, shape_of(own), nonce)
        dialer = Dialer(hello, self._secret())
        async with await Caller.connect(address) as caller:
            challenge = await caller.ask(dialer.hello())
            disk = dialer.check(await caller.ask(dialer.prove(challenge)))
            judge_disk(peer, disk, self._node)
            self._node.meet(peer, disk)
            return caller.take_socket(2 * self._dial_s)

    # What the log is told: how a member stands, when that changes; why, once a minute

    def _say(self, peer: str, state: str, reason: str) -> None:
        now_ms = int(trio.current_time() * 1000)
        if self._sayings.new(peer, f"{state} {reason}", now_ms) or self._said.get(peer, "connected") == "connected":
            LOGGER.warning(f"peer {state}", {"peer": peer, "reason": reason})
        self._said[peer] = state

    def _say_connected(self, peer: str) -> None:
        say = LOGGER.info if self._said.get(peer) is None else LOGGER.warning
        say("peer connected", {"peer": peer})
        self._said[peer] = "connected"


class Caller:
    """A connection to another node while the two still talk in questions and answers."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._reader = hiredis.Reader()
        self._received_bytes = 0

    @classmethod
    async def connect(cls, address: str) -> Caller:
        """Raises `OSError`."""
        where = parse(address)
        return cls(await trio.open_tcp_stream(where.host, where.port))

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._stream.socket.fileno() >= 0:
            await trio.aclose_forcefully(self._stream)

    async def ask(self, words: list[bytes]) -> object:
        """The reply to one command; raises `Refused` for an error reply, `OSError` when the connection breaks."""
        try:
            await self._stream.send_all(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]
            while (reply := self._reader.gets()) is False:
                data = await self._stream.receive_some()
                if not data:
                    raise ConnectionResetError("it closed the connection")
                self._received_bytes += len(data)
                if self._received_bytes > ANSWERS_BYTES_MAX:
                    raise unexpected()
                self._reader.feed(data)
        except trio.BrokenResourceError as error:
            raise ConnectionResetError(reason_of(error.__cause__ or error)) from None
        except hiredis.ProtocolError:
            raise unexpected() from None
        if isinstance(reply, hiredis.ReplyError):
            code, _, reason = str(reply).partition(" ")
            raise unexpected() if reason.startswith("unknown command") else Refused(code, reason[:REASON_LENGTH_MAX])
        return reply

    def take_socket(self, patience_s: float) -> socket.socket:
        """The connected socket, for somebody else; one whose other side takes nothing for so long breaks."""
        connected = socket.socket(fileno=self._stream.socket.detach())
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience_s * 1000))
        return connected


async def join(address: str, wish: Join, secret: str, judge: Callable[[Welcome], None]) -> tuple[Identity, Config]:
    """Becomes a member of the cluster that ``address`` belongs to: (who this node is there, all members).

    ``judge`` may raise `Refused` before it does. Tries until the cluster answers; raises `Refused` when the
    answer is no.
    """
    sayings = Sayings()
    back_off_s = BACK_OFF_MIN_S
    while True:
        try:
            with trio.fail_after(JOIN_S):
                return await _ask_to_join(address, wish._replace(nonce=secrets.token_hex(16)), secret, judge)
        except Refused as refused:
            if refused.kind not in ("CLUSTERDOWN", "UNCERTAIN", "LOADING"):
                raise
            reason = refused.reason
        except (OSError, trio.TooSlowError) as error:
            reason = reason_of(error)
        if sayings.new(address, reason, int(trio.current_time() * 1000)):
            LOGGER.warning("the cluster cannot be joined yet", {"member": address, "reason": reason})
        await trio.sleep(back_off_s)
        back_off_s = min(BACK_OFF_MAX_S, back_off_s * 2)


async def _ask_to_join(
    address: str, wish: Join, secret: str, judge: Callable[[Welcome], None]
) -> tuple[Identity, Config]:
    dialer = Dialer(wish, secret)
    async with await Caller.connect(address) as caller:
        challenge = await caller.ask(dialer.hello())
        dialer.check(await caller.ask(dialer.prove(challenge)))
        judge(welcomed(await caller.ask([b"PEER", b"MEMBERS"])))
        name = await caller.ask([b"PEER", b"ENTER"])
        cluster, shards, replicas, members = welcomed(await caller.ask([b"PEER", b"MEMBERS"]))
        if not isinstance(name, bytes) or name.decode("ascii", "replace") not in members:
            raise Refused("UNCERTAIN", "the member that was asked does not know yet")
        return Identity(cluster, name.decode(), wish.disk, shards, replicas), members


def reason_of(error: BaseException) -> str:
    """One line for the log: what is at the bottom of it."""
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    while (cause := error.__cause__) is not None:
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
