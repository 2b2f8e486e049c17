"""Which cluster this node belongs to: what its folder says, else what its settings ask for.

A new folder is made part of a cluster once: of one of its own, of a new one
that ``cluster`` lists, or of one that ``join`` leads to. Whoever founds a
cluster of one gives it the id of the folder, which is how that folder knows
later that its node may begin alone; one that was listed keeps the list; a node
that joined waits to be called.

Founders decide how many shards there are and on how many nodes each is, which
is part of the id of a cluster that is listed. Whoever joins is told. Settings
that say something else than that, and not what they say by default, are refused.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import NamedTuple

import trio

from cluster.raft.membership import Config, static
from cluster.storage.contract import Identity, Storage
from resp_server.edge.peers import join
from resp_server.logs import LOGGER
from resp_server.peering import Join, Refused, Welcome
from resp_server.settings import Settings, named

FIRST_NODE = "n1"


class NotTaken(Exception):
    """This node cannot be part of the cluster it was told to be part of; the message is one line for a person."""


class Belonging(NamedTuple):
    """Who this node is, and the members it knows of as long as the folder does not know better.

    ``founders`` are those the cluster began with, none as far as a node knows that joined.
    """

    identity: Identity
    members: Config
    founders: Config


async def belong(settings: Settings, storage: Storage) -> Belonging:
    """Finds out, and makes a new folder part of its cluster; raises `NotTaken`."""
    known = storage.identity()
    if known is not None:
        return _known(settings, known)
    disk = secrets.token_hex(8)
    if settings.join:
        found = await _join(settings, disk)
    elif settings.cluster:
        founders = _listed(settings)
        cluster = cluster_of(founders, settings.shards, settings.replicas)
        identity = Identity(cluster, settings.node_id, disk, settings.shards, settings.replicas, founders)
        found = _founded(identity, settings)
    else:
        identity = Identity(disk, settings.node_id or FIRST_NODE, disk, settings.shards, settings.replicas)
        found = _founded(identity, settings)
    storage.claim(found.identity)
    LOGGER.info("a new data folder", found.identity._asdict())
    return found


def cluster_of(founders: str, shards: int, replicas: int) -> str:
    """The id of the cluster that these nodes found; with another shape it is another."""
    return hashlib.sha256(f"{founders},{shards}x{replicas}".encode()).hexdigest()[:16]


def _listed(settings: Settings) -> str:
    """The nodes of ``cluster`` as `Identity.founders`, whatever their order."""
    return ",".join(sorted(f"{node}={address}" for node, address in settings.cluster))


def _known(settings: Settings, identity: Identity) -> Belonging:
    if settings.node_id not in ("", identity.node):
        raise NotTaken(
            f"the data folder is that of {identity.node}, not of {settings.node_id}:"
            " correct --node-id or choose another --dir"
        )
    try:
        _judge_shape(settings, identity.shards, identity.replicas)
    except Refused as refused:
        raise NotTaken(f"{refused.reason}, or choose another --dir") from None
    if settings.join:
        LOGGER.info("not joining: the data folder is in a cluster already", {"cluster": identity.cluster})
    if settings.cluster and _listed(settings) != identity.founders:
        LOGGER.info("the list of nodes is not used: the folder is in a cluster already", {"cluster": identity.cluster})
    if identity.founders or identity.cluster == identity.disk:
        return _founded(identity, settings)
    return Belonging(identity, Config(), Config())


def _founded(identity: Identity, settings: Settings) -> Belonging:
    addresses = dict(one.split("=", 1) for one in identity.founders.split(",") if one)
    members = static(addresses or {identity.node: settings.address})
    return Belonging(identity, members, members)


async def _join(settings: Settings, disk: str) -> Belonging:
    wish = Join(settings.node_id, settings.address, disk, settings.zone, "")

    def judge(told: Welcome) -> None:
        _judge_shape(settings, told.shards, told.replicas)

    try:
        identity, members = await join(settings.join, wish, settings.cluster_secret or settings.requirepass, judge)
    except Refused as refused:
        raise NotTaken(f"this node does not join {settings.join}: {refused.reason}") from None
    return Belonging(identity, members, founders=Config())


def _judge_shape(settings: Settings, shards: int, replicas: int) -> None:
    """Raises `Refused` when somebody wants another number of shards or replicas than the cluster was founded with."""
    for name, wanted, there in (("shards", settings.shards, shards), ("replicas", settings.replicas, replicas)):
        field = named(name)
        if wanted not in (there, field.kind.parse(field.default)):
            reason = f"the cluster was founded with --{name} {there}, not {wanted}, for good: leave --{name} out"
            raise Refused("shape", reason)


async def unless_signalled(settings: Settings, storage: Storage, signals: tuple[int, ...]) -> Belonging | None:
    """`belong`; None when one of ``signals`` came first."""
    refusal: NotTaken | None = None
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, received, nursery.cancel_scope)
            try:
                return await belong(settings, storage)
            except NotTaken as error:
                refusal = error
            finally:
                nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
    return None


async def _cancel_after(received: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(received)
    scope.cancel()
