"""How nodes recognise each other: the handshake before one takes messages from another.

    dialer                                                          listener
    PEER HELLO version cluster from address to disk shape nonce    -->
                                                                   <--    nonce2
    PEER PROVE proof                                               -->
                                                                   <--    [proof2, disk2]
    messages, all of a turn in one ``PEER blob``                   -->

A node that is in no cluster yet begins with ``PEER JOIN version id address
disk zone nonce`` (an empty id lets the cluster choose). After the same two steps
``PEER MEMBERS`` asks how many shards there are, on how many nodes each, and who
the members are, and ``PEER ENTER`` to become one.

A proof is an HMAC-SHA256 by the cluster's secret over all that was said
before, and over who says it, so none can be replayed or sent back. The dialer
proves itself first: a stranger who calls gets nothing to guess the secret
from. Everything else is judged only then, so a stranger learns nothing of the
cluster either. Without a secret all proofs are empty.

Weak spot: what follows is neither signed nor encrypted. Whoever can change
packets on the way between nodes can change messages: the network there has to
be trusted.
"""

from __future__ import annotations

import hmac
import re
from typing import NamedTuple, Protocol, TypeAlias

from cluster.raft.membership import VOTERS_MAX, Config, Member
from cluster.ring.slots import SHARDS_MAX
from cluster.storage.contract import Identity
from cluster.wire import VERSION
from resp_server.address import parse

FIELD = re.compile(rb"[!-{}~]{0,255}")  # printable, and no "|": that stands between the fields of a proof
NONCE = re.compile(r"[0-9a-f]{32}")

SAY_AGAIN_MS = 60_000
SAID_MAX = 256


class Refused(Exception):
    """The other side is not taken as a peer. ``reason`` is one line that says what to do; ``kind`` is one word."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Hello(NamedTuple):
    """What a member says who calls another: both ids, its own address and data folder.

    ``shape`` is that of its cluster (`shape_of`), to name what is wrong if that is another.
    """

    cluster: str
    sender: str
    address: str
    receiver: str
    disk: str
    shape: str
    nonce: str


class Join(NamedTuple):
    """What a node says that wants to become a member."""

    node: str
    address: str
    disk: str
    zone: str
    nonce: str


class Welcome(NamedTuple):
    """What a node is told of the cluster it joins: the id, what was fixed at its founding, and who is in it."""

    cluster: str
    shards: int
    replicas: int
    members: Config


Claim: TypeAlias = Hello | Join

_VERBS: dict[bytes, type[Hello] | type[Join]] = {b"HELLO": Hello, b"JOIN": Join}


class Knows(Protocol):
    """What the handshake asks of `cluster.node.Node`."""

    @property
    def identity(self) -> Identity:
        """Who it is: cluster, node, data folder, and the cluster's shape."""
        ...

    @property
    def members(self) -> Config:
        """All nodes there are."""
        ...

    @property
    def has_leader(self) -> bool:
        """Whether it can serve now."""
        ...

    @property
    def leader(self) -> str | None:
        """Who leads, as far as it is in touch with a leader."""
        ...

    def disk_of(self, peer: str) -> str:
        """The data folder a member is known by, "" if it was never met."""
        ...


class Listener:
    """One connection's handshake, on the side that was called; ``proven`` once the caller knows the secret."""

    __slots__ = ("claim", "nonce", "proven")

    def __init__(self, args: list[bytes], nonce: str) -> None:
        """``args`` are those of PEER HELLO or PEER JOIN; raises `Refused`."""
        self.claim = _claim(args)
        self.nonce = nonce
        self.proven = False

    def judge(self, proof: bytes, secret: str) -> None:
        """Raises `Refused` unless the caller proved that it knows the secret."""
        if not hmac.compare_digest(proof, _proof(secret, "dialer", self.claim, self.nonce)):
            raise _wrong_secret("the caller")
        self.proven = True

    def answer(self, secret: str, disk: str) -> list[bytes]:
        """What the caller wants to see in return, of a listener with this data folder."""
        return [_proof(secret, "listener", self.claim, self.nonce, disk), disk.encode()]


class Dialer:
    """One handshake, on the side that calls; its methods in this order, each given the reply to what it said before."""

    __slots__ = ("_claim", "_nonce", "_secret")

    def __init__(self, claim: Claim, secret: str) -> None:
        self._claim = claim
        self._secret = secret
        self._nonce = ""

    def hello(self) -> list[bytes]:
        """The first command."""
        verb = b"HELLO" if isinstance(self._claim, Hello) else b"JOIN"
        return [b"PEER", verb, b"%d" % VERSION, *(field.encode() for field in self._claim)]

    def prove(self, reply: object) -> list[bytes]:
        """The second one; raises `Refused`."""
        text = reply.decode("ascii", "replace") if isinstance(reply, bytes) else ""
        if not NONCE.fullmatch(text):
            raise unexpected()
        self._nonce = text
        return [b"PEER", b"PROVE", _proof(self._secret, "dialer", self._claim, text)]

    def check(self, reply: object) -> str:
        """The data folder of the listener, who proved that it knows the secret; raises `Refused`."""
        match reply:
            case [bytes() as proof, bytes() as disk] if FIELD.fullmatch(disk):
                name = disk.decode()
            case _:
                raise unexpected()
        if not hmac.compare_digest(proof, _proof(self._secret, "listener", self._claim, self._nonce, name)):
            raise _wrong_secret("the node that was called")
        return name


def judge_caller(hello: Hello, node: Knows) -> None:
    """Raises `Refused` unless messages of this caller, who knows the secret, should be taken.

    One who is no member may still be the leader of a cluster that has changed
    while this node was away. So it is refused only by a node that is in touch.
    """
    own = node.identity
    if hello.cluster != own.cluster:
        raise _another_cluster(hello, own)
    if hello.receiver != own.node:
        raise Refused("receiver", f"this is {own.node}, not {hello.receiver}: correct the address of one of them")
    if hello.sender == own.node:
        raise Refused("sender", f"two nodes call themselves {own.node}: give each its own --node-id")
    if hello.sender not in node.members and node.has_leader and node.leader != hello.sender:
        raise Refused(
            "stranger",
            f"{hello.sender} is no member of the cluster, or was removed: let it join with --join and an empty folder",
        )
    judge_disk(hello.sender, hello.disk, node)


def judge_disk(peer: str, disk: str, node: Knows) -> None:
    """Raises `Refused` when a member came back without what it had acknowledged.

    It may have been removed, and have joined again, while this node was away,
    and be the leader by now. So it is refused only by a node that is in touch,
    or where the cluster itself does not know its folder; what a member says for
    which it must be the one that is known, the core takes from nobody else.
    """
    known = node.disk_of(peer)
    if not known or disk == known:
        return
    member = node.members.members.get(peer)
    agreed = member is not None and member.disk != ""
    if not agreed or (node.has_leader and node.leader != peer):
        raise Refused("disk", f"{peer} came back with another data folder: remove {peer}, then let it join again")


# What a joiner is told

ROLES = ("voter", "learner")
MEMBER_FIELDS = 5


def welcome(node: Knows) -> list[bytes]:
    """As PEER MEMBERS answers: the cluster's id, shards and replicas, then each member, field by field."""
    config, own = node.members, node.identity
    fields = [own.cluster, str(own.shards), str(own.replicas)]
    for member in config.members.values():
        role = ROLES[0] if member.id in config.voters else ROLES[1]
        fields += [member.id, member.address, member.disk, member.zone, role]
    return [field.encode() for field in fields]


def welcomed(reply: object) -> Welcome:
    """What the reply to PEER MEMBERS says; raises `Refused`."""
    if not isinstance(reply, list) or len(reply) % MEMBER_FIELDS != 3:
        raise unexpected()
    if not all(isinstance(field, bytes) and FIELD.fullmatch(field) for field in reply):
        raise unexpected()
    cluster, shards, replicas, *fields = [field.decode() for field in reply]
    members: dict[str, Member] = {}
    having: dict[str, list[str]] = {role: [] for role in ROLES}
    for name, address, disk, zone, role in zip(*[iter(fields)] * MEMBER_FIELDS, strict=True):
        if role not in having:
            raise unexpected()
        members[name] = Member(name, address, disk, zone)
        having[role].append(name)
    config = Config(tuple(having["voter"]), tuple(having["learner"]), members)
    return Welcome(cluster, _number(shards, SHARDS_MAX), _number(replicas, VOTERS_MAX), config)


def _number(text: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise unexpected()
    return int(text)


class Sayings:
    """What is worth a line in the log: what has not just been said.

    Callers choose ``about`` from few values; should there be many after all,
    everything waits its minute.
    """

    def __init__(self) -> None:
        self._said_ms: dict[tuple[str, str], int] = {}

    def new(self, about: str, kind: str, now_ms: int) -> bool:
        """Whether this kind of thing was not said of it within the last minute; it counts as said now."""
        key = (about, kind)
        last_ms = self._said_ms.get(key)
        if last_ms is None and len(self._said_ms) >= SAID_MAX:
            self._forget(now_ms)
            if len(self._said_ms) >= SAID_MAX:
                return False
        if last_ms is not None and now_ms - last_ms < SAY_AGAIN_MS:
            return False
        self._said_ms[key] = now_ms
        return True

    def _forget(self, now_ms: int) -> None:
        self._said_ms = {key: said for key, said in self._said_ms.items() if now_ms - said < SAY_AGAIN_MS}


def _claim(args: list[bytes]) -> Claim:
    """What PEER HELLO or PEER JOIN says; the version is looked at first, since it decides what follows."""
    verb, version, fields = args[1].upper(), args[2], args[3:]
    if version != b"%d" % VERSION:
        raise Refused(
            "version",
            f"this node speaks version {VERSION} of the peer protocol, not the caller's: run one release on all nodes",
        )
    kind = _VERBS[verb]
    if len(fields) != len(kind._fields) or not all(map(FIELD.fullmatch, fields)):
        raise _malformed()
    claim = kind(*(field.decode() for field in fields))
    if not NONCE.fullmatch(claim.nonce):
        raise _malformed()
    try:
        parse(claim.address)
    except ValueError as error:
        raise Refused("address", f"{error}: correct --announce") from None
    return claim


def _proof(secret: str, speaker: str, claim: Claim, nonce: str, *more: str) -> bytes:
    if not secret:
        return b""
    said = "|".join([speaker, type(claim).__name__, str(VERSION), *claim, nonce, *more])
    return hmac.digest(secret.encode("utf-8", "surrogateescape"), said.encode(), "sha256").hex().encode()


def shape_of(identity: Identity) -> str:
    """What was fixed when the cluster was founded, as `Hello` says it."""
    return f"{identity.shards}x{identity.replicas}"


def _another_cluster(hello: Hello, own: Identity) -> Refused:
    shape = shape_of(own)
    if hello.shape == shape:
        return Refused(
            "cluster",
            f"{own.node} belongs to cluster {own.cluster}, {hello.sender} to cluster {hello.cluster}:"
            " start both with the folders, or with the --cluster list, of one cluster",
        )
    return Refused(
        "shape",
        f"{own.node} belongs to a cluster of {shape} (shards x replicas), {hello.sender} to one of {hello.shape}:"
        " start both with the same --cluster list, --shards and --replicas, and empty folders",
    )


def _wrong_secret(who: str) -> Refused:
    return Refused("secret", f"{who} did not prove the cluster's secret: set the same --cluster-secret on all nodes")


def _malformed() -> Refused:
    return Refused("malformed", "malformed handshake: run one release on all nodes")


def unexpected() -> Refused:
    """For an answer that is none of this protocol."""
    return Refused("unexpected", "what answers there is no node of this program: correct the address")
