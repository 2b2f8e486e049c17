"""Which cluster this node belongs to: what its folder says, else what its settings ask for.

A new folder is made part of a cluster once: of one of its own, of a new one
that ``cluster`` lists, or of one that ``join`` leads to. Whoever founds a
cluster of one gives it the id of the folder, which is how that folder knows
later that its node may begin alone; a node that joined waits to be called.
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
from resp_server.peering import Join, Refused
from resp_server.settings import Settings

FIRST_NODE = "n1"


class NotTaken(Exception):
    """This node cannot be part of the cluster it was told to be part of; the message is one line for a person."""


class Belonging(NamedTuple):
    """Who this node is, and the members its cluster begins with, as long as the folder does not know better."""

    identity: Identity
    members: Config


async def belong(settings: Settings, storage: Storage) -> Belonging:
    """Finds out, and makes a new folder part of its cluster; raises `NotTaken`."""
    known = storage.identity()
    if known is not None:
        return _known(settings, known)
    disk = secrets.token_hex(8)
    if settings.join:
        found = await _join(settings, disk)
    elif settings.cluster:
        identity = Identity(cluster_of(settings), settings.node_id, disk)
        found = Belonging(identity, static(dict(settings.cluster)))
    else:
        identity = Identity(disk, settings.node_id or FIRST_NODE, disk)
        found = Belonging(identity, static({identity.node: settings.address}))
    storage.claim(found.identity)
    LOGGER.info("a new data folder", found.identity._asdict())
    return found


def cluster_of(settings: Settings) -> str:
    """The id of the cluster that ``cluster`` lists, whatever the order."""
    listed = ",".join(sorted(f"{node}={address}" for node, address in settings.cluster))
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def _known(settings: Settings, identity: Identity) -> Belonging:
    if settings.node_id not in ("", identity.node):
        raise NotTaken(
            f"the data folder is that of {identity.node}, not of {settings.node_id}:"
            " correct --node-id or choose another --dir"
        )
    if settings.join:
        LOGGER.info("not joining: the data folder is in a cluster already", {"cluster": identity.cluster})
    if settings.cluster and cluster_of(settings) == identity.cluster:
        return Belonging(identity, static(dict(settings.cluster)))
    if settings.cluster:
        LOGGER.info("the list of nodes is not used: the folder is in a cluster already", {"cluster": identity.cluster})
    founded = identity.cluster == identity.disk
    return Belonging(identity, static({identity.node: settings.address}) if founded else Config())


async def _join(settings: Settings, disk: str) -> Belonging:
    wish = Join(settings.node_id, settings.address, disk, "")
    try:
        cluster, node, members = await join(settings.join, wish, settings.cluster_secret or settings.requirepass)
    except Refused as refused:
        raise NotTaken(f"{settings.join} does not let this node join: {refused.reason}") from None
    return Belonging(Identity(cluster, node, disk), members)


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
