"""RAFT: what the nodes agree on, and how far each of them is, as the node that is asked knows it."""

from __future__ import annotations

from typing import Any

from cluster.machine.arguments import integer
from cluster.machine.reply import WAITING, CommandError, Reply, syntax_error
from cluster.status import PeerStatus, ShardStatus, Status, ring_of, status_of
from resp_server.commands.command import Command, wrong_arity
from resp_server.commands.spreading import Merge
from resp_server.places import Gather, Place
from resp_server.session import Session

_FLAGS = ("loading", "stale")


def state_of(peer: PeerStatus) -> str:
    """``reachable`` or ``unreachable``."""
    return "reachable" if peer.reachable else "unreachable"


def shard_number(session: Session, text: bytes) -> int:
    """The number of a shard; raises unless there is one of it."""
    number, shards = integer(text, "shard is not an integer or out of range"), len(session.server.node.shards)
    if not 0 <= number < shards:
        numbers = "one, 0" if shards == 1 else f"{shards}, 0 to {shards - 1}"
        raise CommandError(f"no such shard: this cluster has {numbers}")
    return number


def await_answer(session: Session) -> None:
    """The cluster is about to be asked: its answer comes when it has agreed, and the next command waits for that."""
    if session.executing:
        raise CommandError("Command not allowed inside a transaction")
    session.pending += 1
    session.held = True
    session.settle()


def await_answers(session: Session, shares: int, merge: Merge) -> Gather:
    """The same of several answers, each to a `Share` of what this gives."""
    await_answer(session)
    place = Place(session)
    session.places.append(place)
    session.settle()
    return Gather(place, merge, shares)


def _names(nodes: tuple[str, ...]) -> list[bytes]:
    return [node.encode() for node in nodes]


def _name(node: str | None) -> bytes | None:
    return None if node is None else node.encode()


def _info(session: Session, args: list[bytes]) -> Reply:
    if len(args) > 2:
        raise wrong_arity("raft.info")
    status = status_of(session.server.node)
    shards = status.shards
    if len(args) == 2:
        number = shard_number(session, args[1])
        shards = tuple(shard for shard in shards if shard.shard == number)
        if not shards:
            raise CommandError(f"{status.node} has no replica of shard {number}: see RAFT.RING")
    return [_shard(session, shard, status) for shard in shards]


def _shard(session: Session, shard: ShardStatus, status: Status) -> dict[bytes, Any]:
    return {
        b"shard": shard.shard,
        b"leader": _name(session.server.node.leader_of(shard.shard)),
        b"term": shard.term,
        b"role": shard.role.encode(),
        b"commit": shard.commit,
        b"applied": shard.applied,
        b"last-index": shard.last_index,
        b"members": _names(shard.voters),
        b"learners": _names(shard.learners),
        b"peers": [_peer(peer, shard) for peer in status.peers],
    }


def role_in(shard: ShardStatus, node: str) -> str:
    """What another node is to a shard, as this one knows it."""
    if node == shard.leader:
        return "leader"
    return "follower" if node in shard.voters else "learner" if node in shard.learners else "none"


def lag_in(shard: ShardStatus, node: str) -> int | None:
    """How many log entries that are here are not yet known to be durable there."""
    match = shard.matches.get(node)
    return None if match is None else max(0, shard.last_index - match)


def _peer(peer: PeerStatus, shard: ShardStatus) -> dict[bytes, Any]:
    return {
        b"id": peer.id.encode(),
        b"address": peer.address.encode(),
        b"role": role_in(shard, peer.id).encode(),
        b"state": state_of(peer).encode(),
        b"last-contact-ms": peer.last_contact_ms,
        b"round-trip-us": peer.round_trip_us,
        b"match": shard.matches.get(peer.id),
        b"lag": lag_in(shard, peer.id),
    }


def _ring(session: Session, args: list[bytes]) -> Reply:
    return [
        {
            b"shard": row.shard,
            b"slots": [[row.first, row.last]],
            b"nodes": _names(row.nodes),
            b"leader": _name(row.leader),
            b"preferred": _name(row.preferred),
            b"moving": _names(row.moving),
        }
        for row in ring_of(session.server.node)
    ]


def _rebalance(session: Session, args: list[bytes]) -> Reply:
    if len(args) > 2:
        raise wrong_arity("raft.rebalance")
    node = session.server.node
    if len(args) == 1:
        return _rebalancing(session)
    word = args[1].upper()
    if word not in (b"PAUSE", b"RESUME"):
        raise syntax_error()
    await_answer(session)
    node.pause(session, pause=word == b"PAUSE")
    return WAITING


def _rebalancing(session: Session) -> dict[bytes, Any]:
    node = session.server.node
    status = status_of(node)
    states = {status.node: status.state, **{peer.id: peer.state for peer in status.peers}}
    return {
        b"paused": int(status.paused),
        b"moving": [row.shard for row in ring_of(node) if row.moving],
        b"leaving": [name.encode() for name, state in sorted(states.items()) if state == "leaving"],
        b"lost": [name.encode() for name, state in sorted(states.items()) if state == "lost"],
        b"bandwidth": session.server.settings.rebalance_bandwidth,
    }


def _nodes(session: Session, args: list[bytes]) -> Reply:
    """A map for each node; the one that is asked is its own judge."""
    status = status_of(session.server.node)
    state = "removed" if status.left else status.state
    own = PeerStatus(
        id=status.node,
        address=status.address,
        zone=status.zone,
        role="",
        reachable=True,
        last_contact_ms=0,
        round_trip_us=0,
        leading=status.leading,
        replicas=status.replicas,
        state=state,
    )
    return [
        {
            b"id": node.id.encode(),
            b"address": node.address.encode(),
            b"zone": node.zone.encode(),
            b"state": node.state.encode(),
            b"reachable": int(node.reachable),
            b"leads": node.leading,
            b"replicas": node.replicas,
            b"last-contact-ms": node.last_contact_ms,
            b"round-trip-us": node.round_trip_us,
        }
        for node in sorted((own, *status.peers))
    ]


COMMANDS = (
    Command(
        name="RAFT.INFO",
        arity=-1,
        group="raft",
        summary="Tells what this node knows of each shard it has a replica of, and of the other nodes.",
        syntax="[shard]",
        reply="Array of maps, one per shard: `shard leader term role commit applied last-index members learners peers`."
        " `leader` is null while none is heard, `members` are the voters. `peers` is an array of maps, one per other"
        " node: `id address role state last-contact-ms round-trip-us match lag`, null where nothing is known; `role` is"
        " `none` where that has no replica. An error for a shard this node has no replica of.",
        flags=_FLAGS,
        example="RAFT.INFO",
        serve=_info,
    ),
    Command(
        name="RAFT.RING",
        arity=1,
        group="raft",
        summary="Tells which nodes have which shard.",
        reply="Array of maps, one per shard: `shard slots nodes leader preferred moving`. `slots` is an array of"
        " `[first, last]`, `leader` null while none is heard, `preferred` the node that leads when all is well, and"
        " `moving` the nodes that are being brought up to date to become replicas, and those that will be none soon.",
        flags=_FLAGS,
        example="RAFT.RING",
        serve=_ring,
    ),
    Command(
        name="RAFT.NODES",
        arity=1,
        group="raft",
        summary="Tells which nodes there are, and how they are as this one sees them.",
        reply="Array of maps, one per node: `id address zone state reachable leads replicas last-contact-ms"
        " round-trip-us`. `state` is `up`, `leaving` while its shards are brought to others, `lost` when it was silent"
        " for longer than `node-timeout`, or `removed`; `reachable` is 1 or 0.",
        flags=_FLAGS,
        example="RAFT.NODES",
        serve=_nodes,
    ),
    Command(
        name="RAFT.REBALANCE",
        arity=-1,
        group="raft",
        summary="Tells whether shards are moving, or stops them from moving, on all nodes, until they may again.",
        syntax="[PAUSE | RESUME]",
        reply="Without a word a map `paused moving leaving lost bandwidth`: 1 while it is paused, the numbers of the"
        " shards that are moving, the nodes that are being drained, those that are taken for lost, and the bytes a"
        " second this node may send for it. With one `OK`, when the cluster has agreed.",
        flags=("admin", "stale"),
        example="RAFT.REBALANCE PAUSE",
        serve=_rebalance,
        alone=True,
    ),
)
