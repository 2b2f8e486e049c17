"""What settings mean for each other: what follows from the list of a cluster's nodes, and what cannot be together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from resp_server import address

if TYPE_CHECKING:
    from resp_server.settings import Settings

NODE_TIMEOUTS = 10
"""A node may miss this many election timeouts before it can be taken for lost: elections, pauses, restarts."""

SESSION_TIMEOUTS = 5
"""A node may miss so many before its clients lose what they hold: two pass until it hears that it was heard."""


def follow_the_list(values: dict[str, Any]) -> None:
    """Adds what this node's own place in ``cluster`` says, where nothing else does: its port, and what to bind."""
    listed = dict(values.get("cluster", ())).get(values.get("node_id", ""))
    if listed is None:
        return
    own = address.parse(listed)
    values.setdefault("port", own.port)
    values.setdefault("bind", ("127.0.0.1",) if own.loopback else ("127.0.0.1", own.host))


def contradictions(settings: Settings) -> Iterator[str]:
    """What is allowed setting by setting but makes no sense together: a line for a person on each."""
    if not settings.port and not settings.unixsocket:
        yield "port 0 without a unixsocket leaves nothing to listen on: set one of them"
    yield from _contradictions_in_time(settings)
    if settings.cluster and settings.join:
        yield "cluster begins a new cluster and join enters one that is there: set one of them"
    if not settings.cluster and not settings.join:
        return
    if not settings.port:
        yield "port 0 leaves other nodes nothing to connect to: set a port"
    if settings.cluster:
        yield from _contradictions_in_list(settings)
    elif not settings.address:
        yield f"bind {' '.join(settings.bind)} does not tell other nodes where this one is: set announce"
    elif settings.join == settings.address:
        yield f"join {settings.join} is this node itself: set it to the address of another"


def _contradictions_in_time(settings: Settings) -> Iterator[str]:
    """The same of how long nodes wait for each other."""
    if settings.heartbeat_interval * 3 > settings.election_timeout:
        yield (
            f"heartbeat-interval {settings.heartbeat_interval} is too long for election-timeout"
            f" {settings.election_timeout}: it may be a third of that, {settings.election_timeout // 3}"
        )
    if settings.session_timeout < SESSION_TIMEOUTS * settings.election_timeout:
        yield (
            f"session-timeout {settings.session_timeout} is too short for election-timeout {settings.election_timeout}:"
            f" set it to at least {SESSION_TIMEOUTS} times that, {SESSION_TIMEOUTS * settings.election_timeout}"
        )
    if settings.node_timeout < NODE_TIMEOUTS * settings.election_timeout:
        yield (
            f"node-timeout {settings.node_timeout} is too short for election-timeout {settings.election_timeout}: it"
            f" must be at least {NODE_TIMEOUTS} times that, {NODE_TIMEOUTS * settings.election_timeout}"
        )


def _contradictions_in_list(settings: Settings) -> Iterator[str]:
    """The same of a node that is one of ``cluster``."""
    listed = dict(settings.cluster)
    if not settings.node_id:
        yield f"cluster needs node-id: say which of {', '.join(listed)} this node is"
    elif settings.node_id not in listed:
        yield f"node-id {settings.node_id} is not in cluster, which lists {', '.join(listed)}"
    elif settings.announce not in ("", listed[settings.node_id]):
        yield (
            f"announce {settings.announce} is not where cluster has {settings.node_id}, {listed[settings.node_id]}:"
            " leave announce empty"
        )
