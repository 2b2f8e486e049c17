"""CLUSTER, as a Redis Cluster of one shard would answer: the leader is the master, all others are its replicas.

Every node answers every command, so a client that goes by this talks to the
leader only, which is where writes are quickest.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from cluster.machine import slots
from cluster.machine.reply import WAITING, CommandError, Reply, Verbatim, syntax_error
from cluster.machine.slots import SLOTS, slot_of
from cluster.status import PeerStatus, Status
from cluster.wishes import Change
from resp_server import address
from resp_server.address import Address
from resp_server.commands.command import Command, wrong_subcommand
from resp_server.commands.help import help_for
from resp_server.commands.raft import check_shard
from resp_server.session import Session

_STALE = ("stale",)
_EARLY = ("loading", "stale")
_ADMIN = ("admin", "stale", "no_async_loading")


class _Member(NamedTuple):
    """A node as Redis Cluster's clients see it; ``peer`` is None for the node that is asked."""

    name: str
    hex: bytes
    address: Address
    leads: bool
    learns: bool
    offset: int
    peer: PeerStatus | None

    @property
    def failed(self) -> bool:
        """Whether the node that is asked does not hear it."""
        return self.peer is not None and not self.peer.reachable


def hex_id(cluster: str, node: str) -> bytes:
    """A node's id in the form Redis gives to its own: 40 hexadecimal digits, the same on every node and for ever."""
    return hashlib.sha1(f"{cluster} {node}".encode(), usedforsecurity=False).hexdigest().encode()


def _members(session: Session, status: Status) -> list[_Member]:
    """All nodes, by name."""
    own = address.parse(status.address) if status.address else Address("", session.server.port)
    others = (_member(status, one.id, address.parse(one.address), one.match or 0, one) for one in status.peers)
    return sorted([_member(status, status.node, own, status.applied, None), *others])


def _member(status: Status, name: str, where: Address, offset: int, peer: PeerStatus | None) -> _Member:
    identity = hex_id(status.cluster, name)
    return _Member(name, identity, where, name == status.leader, name not in status.voters, offset, peer)


def _info(session: Session, args: list[bytes]) -> Reply:
    server = session.server
    status = server.node.status()
    fine = server.node.has_leader
    fields = {
        "cluster_state": "ok" if fine else "fail",
        "cluster_slots_assigned": SLOTS,
        "cluster_slots_ok": SLOTS if fine else 0,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": 0 if fine else SLOTS,
        "cluster_known_nodes": len(status.peers) + 1,
        "cluster_size": 1,
        "cluster_current_epoch": status.term,
        "cluster_my_epoch": status.term,
        "cluster_stats_messages_sent": server.stats.peer_messages_sent,
        "cluster_stats_messages_received": server.stats.peer_messages_received,
        "total_cluster_links_buffer_limit_exceeded": 0,
    }
    return Verbatim("".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode())


def _nodes(session: Session, args: list[bytes]) -> Reply:
    status = session.server.node.status()
    members = _members(session, status)
    master = next((one.hex for one in members if one.leads), b"-")
    now_ms = session.server.now_ms()
    lines = [_node_line(one, b"-" if one.leads else master, status.term, now_ms) for one in members]
    return Verbatim(b"".join(b"%b\n" % line for line in lines))


def _node_line(member: _Member, master: bytes, epoch: int, now_ms: int) -> bytes:
    """Redis's fields, and the slots behind them; the port of the cluster bus is the one for clients."""
    where, peer = member.address, member.peer
    flags = ["master" if member.leads else "slave"]
    heard_ms = 0
    if peer is None:
        flags.insert(0, "myself")
    elif peer.last_contact_ms is not None:
        heard_ms = now_ms - peer.last_contact_ms
    if member.failed:
        flags.append("fail?")
    fields = [
        f"{where.host}:{where.port}@{where.port}",
        ",".join(flags),
        master.decode(),
        heard_ms if member.failed else 0,  # since when an answer is awaited
        heard_ms,
        epoch,
        "disconnected" if member.failed else "connected",
    ]
    if member.leads:
        fields.append(f"0-{SLOTS - 1}")
    return member.hex + b" " + " ".join(map(str, fields)).encode()


def _my_id(session: Session, args: list[bytes]) -> Reply:
    identity = session.server.node.identity
    return hex_id(identity.cluster, identity.node)


def _slots(session: Session, args: list[bytes]) -> Reply:
    members = _members(session, session.server.node.status())
    masters = [_endpoint(one) for one in members if one.leads]
    replicas = [_endpoint(one) for one in members if not (one.leads or one.learns or one.failed)]
    return [[0, SLOTS - 1, *masters, *replicas]] if masters else []


def _endpoint(member: _Member) -> list[Any]:
    return [member.address.host.encode(), member.address.port, member.hex, {}]


def _shards(session: Session, args: list[bytes]) -> Reply:
    members = _members(session, session.server.node.status())
    members.sort(key=lambda one: not one.leads)
    return [{b"slots": [0, SLOTS - 1], b"nodes": [_details(one) for one in members]}]


def _details(member: _Member) -> dict[bytes, Any]:
    host = member.address.host.encode()
    return {
        b"id": member.hex,
        b"port": member.address.port,
        b"ip": host,
        b"endpoint": host,
        b"role": b"master" if member.leads else b"replica",
        b"replication-offset": member.offset,
        b"health": b"fail" if member.failed else b"loading" if member.learns else b"online",
    }


def _key_slot(session: Session, args: list[bytes]) -> Reply:
    return slot_of(args[2])


def _forget(session: Session, args: list[bytes]) -> Reply:
    status = session.server.node.status()
    for member in _members(session, status):
        if args[2] in (member.hex, member.name.encode()):
            return _change(session, Change("remove", member.name))
    raise CommandError(b"Unknown node %b" % args[2][:128])


def _fail_over(session: Session, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise wrong_subcommand(args)
    if len(args) == 3:
        if args[2].upper() in (b"FORCE", b"TAKEOVER"):
            raise CommandError("a leader cannot be made without the others' votes: leave FORCE and TAKEOVER out")
        if not args[2].lstrip(b"-").isdigit():
            raise syntax_error()
        check_shard(session, args[2])
    return _change(session, Change("lead", session.server.node.name))


def _change(session: Session, change: Change) -> Reply:
    """Asks the cluster; its answer comes when it has agreed, and the session's next command waits for that."""
    node = session.server.node
    if not node.machine.may_wait:
        raise CommandError("Command not allowed inside a transaction")
    session.pending += 1
    session.held = True
    session.settle()
    node.change(session, change)
    return WAITING


_SUBCOMMANDS = (
    Command(
        name="CLUSTER INFO",
        arity=2,
        group="cluster",
        since="3.0.0",
        summary="Tells whether the cluster can serve, and of how many nodes it is.",
        reply="Text: a `field:value` line each. `cluster_state` is `ok` while this node hears a leader.",
        flags=_STALE,
        example="CLUSTER INFO",
        serve=_info,
    ),
    Command(
        name="CLUSTER NODES",
        arity=2,
        group="cluster",
        since="3.0.0",
        summary="Lists the nodes. The leader is the master of all slots, the others are its replicas.",
        reply="Text: a line each, of `id host:port@port flags master ping-sent pong-received epoch link-state slots`.",
        complexity="O(N) where N is the total number of Cluster nodes",
        flags=_STALE,
        example="CLUSTER NODES",
        serve=_nodes,
    ),
    Command(
        name="CLUSTER SLOTS",
        arity=2,
        group="cluster",
        since="3.0.0",
        summary="Tells where the slots are: all at the leader, with the other nodes that can be reached as replicas.",
        reply="Array: one array of first and last slot and the nodes, leader first, each `[host, port, id, metadata]`;"
        " empty while no leader is known.",
        complexity="O(N) where N is the total number of Cluster nodes",
        flags=_EARLY,
        example="CLUSTER SLOTS",
        serve=_slots,
    ),
    Command(
        name="CLUSTER SHARDS",
        arity=2,
        group="cluster",
        since="7.0.0",
        summary="Tells where the slots are, and how the nodes are.",
        reply="Array of one map: `slots nodes`; a node is a map `id port ip endpoint role replication-offset health`.",
        complexity="O(N) where N is the total number of cluster nodes",
        flags=_EARLY,
        example="CLUSTER SHARDS",
        serve=_shards,
    ),
    Command(
        name="CLUSTER MYID",
        arity=2,
        group="cluster",
        since="3.0.0",
        summary="Returns the id of this node, as the other subcommands name it.",
        reply="40 hexadecimal digits.",
        flags=_STALE,
        example="CLUSTER MYID",
        serve=_my_id,
    ),
    Command(
        name="CLUSTER KEYSLOT",
        arity=3,
        group="cluster",
        since="3.0.0",
        summary="Returns the slot of a key.",
        syntax="key",
        reply="Integer.",
        complexity="O(N) where N is the number of bytes in the key",
        flags=_STALE,
        example="CLUSTER KEYSLOT job{7}",
        serve=_key_slot,
    ),
    Command(
        name="CLUSTER COUNTKEYSINSLOT",
        arity=3,
        group="cluster",
        since="3.0.0",
        summary="Counts the keys in a slot. It looks at every key there is.",
        syntax="slot",
        reply="Integer.",
        complexity="O(N) where N is the number of keys",
        flags=_STALE,
        example="CLUSTER COUNTKEYSINSLOT 7000",
        run=slots.count_keys,
    ),
    Command(
        name="CLUSTER GETKEYSINSLOT",
        arity=4,
        group="cluster",
        since="3.0.0",
        summary="Returns keys in a slot. It looks at every key there is, until it has as many as wanted.",
        syntax="slot count",
        reply="Array of keys.",
        complexity="O(N) where N is the number of keys",
        flags=_STALE,
        example="CLUSTER GETKEYSINSLOT 7000 10",
        run=slots.keys,
    ),
    Command(
        name="CLUSTER FORGET",
        arity=3,
        group="cluster",
        since="3.0.0",
        summary="Removes a node from the cluster, as soon as a majority agrees.",
        syntax="node-id",
        reply="`OK` once it is removed; an error when there is no such node or it is the last voter. The node may be"
        " named as in `RAFT.INFO` or as in `CLUSTER NODES`.",
        flags=_ADMIN,
        example="CLUSTER FORGET n4",
        serve=_forget,
        alone=True,
    ),
    Command(
        name="CLUSTER FAILOVER",
        arity=-2,
        group="cluster",
        since="3.0.0",
        summary="Makes the node that is asked the leader: the one before hands over once this node has all it has.",
        syntax="[shard]",
        reply="`OK` once it leads.",
        flags=_ADMIN,
        example="CLUSTER FAILOVER",
        serve=_fail_over,
        alone=True,
    ),
)

COMMANDS = (
    Command(
        name="CLUSTER",
        arity=-2,
        group="cluster",
        since="3.0.0",
        summary="Commands about the cluster.",
        reply="Depends on the subcommand.",
        complexity="Depends on subcommand.",
        subcommands=(*_SUBCOMMANDS, help_for("CLUSTER", _SUBCOMMANDS, group="cluster", since="3.0.0")),
    ),
)
