"""CLUSTER, as a Redis Cluster would answer: a node is the master of the slots it leads, or somebody's replica.

Every node answers every command (unless it is told to redirect), so a client
that goes by this talks to leaders, which is where commands are quickest.
"""

from __future__ import annotations

from typing import Any

from cluster.machine import slots
from cluster.machine.reply import OK, WAITING, CommandError, Reply, Verbatim, syntax_error
from cluster.machine.slots import SLOTS, slot_of
from cluster.status import ring_of, status_of
from cluster.wishes import Change
from resp_server import address
from resp_server.address import Address
from resp_server.commands.command import Command, wrong_subcommand
from resp_server.commands.help import help_for
from resp_server.commands.raft import await_answer, await_answers, shard_number
from resp_server.commands.spreading import by_slot
from resp_server.commands.topology import NOWHERE, Place, Range, Topology, count, hex_id
from resp_server.places import Share
from resp_server.session import Session

_STALE = ("stale",)
_EARLY = ("loading", "stale")
_ADMIN = ("admin", "stale", "no_async_loading")


def _topology(session: Session) -> Topology:
    node = session.server.node
    return Topology(status_of(node), ring_of(node), _own_address(session))


def _own_address(session: Session) -> Address:
    """Where the client reached this node: what a node that listens everywhere knows of its address."""
    try:
        host = address.parse(session.local_address).host
    except ValueError:
        host = NOWHERE
    return Address(host, session.server.port)


def _epoch(session: Session) -> int:
    status = status_of(session.server.node)
    return max(status.term, *(shard.term for shard in status.shards), 0)


def _info(session: Session, args: list[bytes]) -> Reply:
    server = session.server
    topology = _topology(session)
    led = count([(one.first, one.last) for one in topology.ranges if one.led])
    epoch = _epoch(session)
    fields = {
        "cluster_state": "ok" if server.node.has_leader else "fail",
        "cluster_slots_assigned": SLOTS,
        "cluster_slots_ok": led,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": SLOTS - led,
        "cluster_known_nodes": len(topology.places),
        "cluster_size": topology.masters,
        "cluster_current_epoch": epoch,
        "cluster_my_epoch": epoch,
        "cluster_stats_messages_sent": server.stats.peer_messages_sent,
        "cluster_stats_messages_received": server.stats.peer_messages_received,
        "total_cluster_links_buffer_limit_exceeded": 0,
    }
    return Verbatim("".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode())


def _nodes(session: Session, args: list[bytes]) -> Reply:
    topology, epoch, now_ms = _topology(session), _epoch(session), session.server.now_ms()
    lines = [_node_line(topology, place, epoch, now_ms) for place in topology.places.values()]
    return Verbatim(b"".join(b"%b\n" % line for line in lines))


def _node_line(topology: Topology, place: Place, epoch: int, now_ms: int) -> bytes:
    """Redis's fields, and the slots behind them; the port of the cluster bus is the one for clients."""
    where, peer = place.address, place.peer
    slots_here = topology.slots_of(place)
    master = None if slots_here else topology.master_of(place)
    flags = ["master" if master is None else "slave"]
    heard_ms = 0
    if peer is None:
        flags.insert(0, "myself")
    elif peer.last_contact_ms is not None:
        heard_ms = now_ms - peer.last_contact_ms
    if place.failed:
        flags.append("fail" if peer is not None and peer.state == "lost" else "fail?")
    fields = [
        f"{where.host}:{where.port}@{where.port}",
        ",".join(flags),
        "-" if master is None else master.hex.decode(),
        heard_ms if place.failed else 0,  # since when an answer is awaited
        heard_ms,
        epoch,
        "disconnected" if place.failed else "connected",
        *(f"{first}-{last}" if last > first else first for first, last in slots_here),
    ]
    return place.hex + b" " + " ".join(map(str, fields)).encode()


def _my_id(session: Session, args: list[bytes]) -> Reply:
    identity = session.server.node.identity
    return hex_id(identity.cluster, identity.node)


def _slots(session: Session, args: list[bytes]) -> Reply:
    return [
        [one.first, one.last, *map(_endpoint, (one.master, *(place for place in one.replicas if not place.failed)))]
        for one in _topology(session).ranges
        if one.master is not None
    ]


def _endpoint(place: Place) -> list[Any]:
    return [place.address.host.encode(), place.address.port, place.hex, {}]


def _shards(session: Session, args: list[bytes]) -> Reply:
    return [_shard(session, one) for one in _topology(session).ranges]


def _shard(session: Session, one: Range) -> dict[bytes, Any]:
    """A shard as Redis has it: its master first."""
    offsets = _offsets(session, one.shard)
    places = [*([] if one.master is None else [one.master]), *one.replicas, *one.learners]
    nodes = [
        {
            b"id": place.hex,
            b"port": place.address.port,
            b"ip": place.address.host.encode(),
            b"endpoint": place.address.host.encode(),
            b"role": b"master" if place is one.master else b"replica",
            b"replication-offset": offsets.get(place.name, 0),
            b"health": b"fail" if place.failed else b"loading" if place in one.learners else b"online",
        }
        for place in places
    ]
    return {b"slots": [one.first, one.last], b"nodes": nodes}


def _offsets(session: Session, number: int) -> dict[str, int]:
    """How far the nodes are with a shard, as far as this one knows."""
    status = status_of(session.server.node)
    known = next((shard for shard in status.shards if shard.shard == number), None)
    return {} if known is None else {**known.matches, status.node: known.applied}


def _key_slot(session: Session, args: list[bytes]) -> Reply:
    return slot_of(args[2])


def _forget(session: Session, args: list[bytes]) -> Reply:
    place = _topology(session).find(args[2])
    if place is None:
        raise CommandError(b"Unknown node %b" % args[2][:128])
    await_answer(session)
    session.server.node.change(session, Change("remove", place.name))
    return WAITING


def _fail_over(session: Session, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise wrong_subcommand(args)
    node = session.server.node
    held = [shard.shard for shard in status_of(node).shards if node.name in shard.voters]
    if len(args) == 3:
        if args[2].upper() in (b"FORCE", b"TAKEOVER"):
            raise CommandError("a leader cannot be made without the others' votes: leave FORCE and TAKEOVER out")
        if not args[2].lstrip(b"-").isdigit():
            raise syntax_error()
        number = shard_number(session, args[2])
        if number not in held:
            raise CommandError(f"{node.name} has no replica of shard {number}: see RAFT.RING")
        held = [number]
    if not held:
        raise CommandError(f"{node.name} has no replica of any shard: see RAFT.RING")
    gather = await_answers(session, len(held), _all_led)
    for share, number in enumerate(held):
        session.server.shard(number).change(Share(gather, share), Change("lead", node.name))
    return WAITING


def _all_led(replies: list[Reply]) -> Reply:
    """OK, or what speaks against it in one shard, and in how many of them."""
    errors = [reply for reply in replies if type(reply) is CommandError]
    if not errors:
        return OK
    if len(replies) == 1:
        return errors[0]
    return CommandError(f"{len(errors)} of {len(replies)} shards: {errors[0].message}", errors[0].code)


_SUBCOMMANDS = (
    Command(
        name="CLUSTER INFO",
        arity=2,
        group="cluster",
        since="3.0.0",
        summary="Tells whether the cluster can serve, and of how many nodes it is.",
        reply="Text: a `field:value` line each. `cluster_state` is `ok` while this node hears a leader of every shard.",
        flags=_STALE,
        example="CLUSTER INFO",
        serve=_info,
    ),
    Command(
        name="CLUSTER NODES",
        arity=2,
        group="cluster",
        since="3.0.0",
        summary="Lists the nodes. One that leads is the master of the slots it leads, another the replica of one.",
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
        summary="Tells where the slots are, shard by shard.",
        reply="Array of arrays, one per shard: first and last slot and the nodes, each `[host, port, id, metadata]`:"
        " the leader first, then those of its replicas that can be reached. While no leader is known, the node that is"
        " likeliest to know of the next stands in its place.",
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
        reply="Array of maps, one per shard: `slots nodes`; a node is a map `id port ip endpoint role"
        " replication-offset health`, the leader first.",
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
        spread=by_slot(2),
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
        spread=by_slot(2),
    ),
    Command(
        name="CLUSTER FORGET",
        arity=3,
        group="cluster",
        since="3.0.0",
        summary="Removes a node from the cluster, once its shards were brought to others.",
        syntax="node-id",
        reply="`OK` once it is removed; an error when there is no such node or it is the last one, `-TRYAGAIN` when it"
        " still has shards after a while: it goes on, ask again. The node may be named as in `RAFT.NODES` or as in"
        " `CLUSTER NODES`.",
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
        summary="Makes the node that is asked the leader of a shard, or of all it has a replica of: the leader before"
        " hands over once this node has all it has.",
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
