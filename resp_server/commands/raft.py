"""RAFT: what the nodes agree on, and how far each of them is, as the node that is asked knows it."""

from __future__ import annotations

from typing import Any

from cluster.machine.arguments import integer
from cluster.machine.reply import CommandError, Reply
from cluster.machine.slots import SLOTS
from cluster.status import PeerStatus, Status
from resp_server.commands.command import Command, wrong_arity
from resp_server.session import Session

_FLAGS = ("loading", "stale")


def state_of(peer: PeerStatus) -> str:
    """``reachable`` or ``unreachable``."""
    return "reachable" if peer.reachable else "unreachable"


def lag_of(peer: PeerStatus, status: Status) -> int | None:
    """How many log entries that are here are not yet known to be durable there."""
    return None if peer.match is None else max(0, status.last_index - peer.match)


def check_shard(session: Session, text: bytes) -> None:
    """Raises unless ``text`` is the number of a shard this node has."""
    shard = session.server.node.shard
    if integer(text, "shard is not an integer or out of range") != shard:
        raise CommandError(f"no such shard: this cluster has one, {shard}")


def _names(nodes: tuple[str, ...]) -> list[bytes]:
    return [node.encode() for node in nodes]


def _leader(session: Session, status: Status) -> bytes | None:
    """Who leads, as long as the leader is being heard."""
    return status.leader.encode() if status.leader is not None and session.server.node.has_leader else None


def _info(session: Session, args: list[bytes]) -> Reply:
    if len(args) > 2:
        raise wrong_arity("raft.info")
    if len(args) == 2:
        check_shard(session, args[1])
    node = session.server.node
    status = node.status()
    return [
        {
            b"shard": node.shard,
            b"leader": _leader(session, status),
            b"term": status.term,
            b"role": status.role.encode(),
            b"commit": status.commit,
            b"applied": status.applied,
            b"last-index": status.last_index,
            b"members": _names(status.voters),
            b"learners": _names(status.learners),
            b"peers": [_peer(peer, status) for peer in status.peers],
        }
    ]


def _peer(peer: PeerStatus, status: Status) -> dict[bytes, Any]:
    return {
        b"id": peer.id.encode(),
        b"address": peer.address.encode(),
        b"role": peer.role.encode(),
        b"state": state_of(peer).encode(),
        b"last-contact-ms": peer.last_contact_ms,
        b"round-trip-us": peer.round_trip_us,
        b"match": peer.match,
        b"lag": lag_of(peer, status),
    }


def _ring(session: Session, args: list[bytes]) -> Reply:
    node = session.server.node
    status = node.status()
    return [
        {
            b"shard": node.shard,
            b"slots": [[0, SLOTS - 1]],
            b"nodes": _names(status.voters),
            b"leader": _leader(session, status),
            b"preferred": None,
            b"moving": _names(status.learners),
        }
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
        " node: `id address role state last-contact-ms round-trip-us match lag`, null where nothing is known.",
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
        " `[first, last]`, `leader` null while none is heard, `preferred` null where no node is, and `moving` the nodes"
        " that are being brought up to date to become replicas.",
        flags=_FLAGS,
        example="RAFT.RING",
        serve=_ring,
    ),
)
