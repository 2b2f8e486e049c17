"""PEER: how other nodes introduce themselves (`resp_server.peering`), on connections that begin as any client's.

A caller may say what it likes before it has proved anything; all that costs is
one small record for its connection, and a line in the log once a minute.
"""

from __future__ import annotations

import secrets

from cluster.machine.reply import WAITING, CommandError, Reply
from cluster.wishes import Change
from resp_server.commands.command import Command
from resp_server.commands.help import help_for
from resp_server.logs import LOGGER
from resp_server.peering import Hello, Join, Listener, Refused, judge_caller, welcome
from resp_server.session import Session

_FLAGS = ("admin", "noscript", "loading", "stale", "no_auth", "no_multi")


def _introduce(session: Session, args: list[bytes]) -> Reply:
    """PEER HELLO and PEER JOIN: answers what the proof must be about as well."""
    try:
        listener = Listener(args, secrets.token_hex(16))
    except Refused as refused:
        raise _refusal(session, "a stranger", refused) from None
    session.server.handshakes[session.id] = listener
    return listener.nonce.encode()


def _prove(session: Session, args: list[bytes]) -> Reply:
    """Judges the caller; from then on a member's connection carries its messages."""
    server, node = session.server, session.server.node
    listener = server.handshakes.pop(session.id, None)
    if listener is None:
        raise CommandError("PEER HELLO or PEER JOIN comes first")
    who = "a stranger"
    try:
        listener.judge(args[2], server.secret)
        claim = listener.claim
        if isinstance(claim, Hello):
            who = claim.sender if claim.sender in node.members else who
            judge_caller(claim, node)
            if claim.sender in node.members:
                node.meet(claim.sender, claim.disk)
            server.edge.adopt_peer(session, claim.sender, claim.address)
        else:
            server.handshakes[session.id] = listener
    except Refused as refused:
        raise _refusal(session, who, refused) from None
    return list[object](listener.answer(server.secret, node.identity.disk))


def _enter(session: Session, args: list[bytes]) -> Reply:
    """Wishes that the caller becomes a member; the node answers with its id when it is one."""
    claim = _joiner(session)
    node = session.server.node
    own = node.members.members.get(node.name)
    if own is not None and not own.address:
        raise CommandError(f"{node.name} does not say where others reach it: start it with --announce HOST:PORT")
    session.pending += 1
    session.held = True
    session.settle()
    node.change(session, Change("add", claim.node, claim.address, claim.disk, claim.zone))
    return WAITING


def _members(session: Session, args: list[bytes]) -> Reply:
    _joiner(session)
    return list[object](welcome(session.server.node))


def _joiner(session: Session) -> Join:
    """What the client said of itself, who wants to join and knows the secret."""
    listener = session.server.handshakes.get(session.id)
    if listener is None or not listener.proven or not isinstance(listener.claim, Join):
        raise CommandError("PEER JOIN and PEER PROVE come first")
    return listener.claim


def _refusal(session: Session, who: str, refused: Refused) -> CommandError:
    """The reply to a caller that is not taken as a peer, which the log hears of as well."""
    server = session.server
    if server.refusals.new(who, refused.kind, server.now_ms()):
        about = {"peer": who, "from": session.address, "reason": refused.reason}
        LOGGER.warning("refused a peer", about)
    return CommandError(refused.reason)


_SUBCOMMANDS = (
    Command(
        name="PEER HELLO",
        arity=-3,
        group="cluster",
        summary="A node introduces itself to another before it sends messages on this connection. Not for clients.",
        syntax="version [field [field ...]]",
        reply="What the proof must be about as well.",
        flags=_FLAGS,
        example="PEER HELLO 5 5f0c n1 10.0.0.1:6379 n2 9d20 16x3 00112233445566778899aabbccddeeff",
        serve=_introduce,
        alone=True,
    ),
    Command(
        name="PEER JOIN",
        arity=-3,
        group="cluster",
        summary="A node introduces itself that wants to join the cluster. Not for clients.",
        syntax="version [field [field ...]]",
        reply="What the proof must be about as well.",
        flags=_FLAGS,
        example='PEER JOIN 5 "" 10.0.0.4:6379 9d20 rack-1 00112233445566778899aabbccddeeff',
        serve=_introduce,
        alone=True,
    ),
    Command(
        name="PEER PROVE",
        arity=3,
        group="cluster",
        summary="Proves that the caller knows the cluster's secret. Not for clients.",
        syntax="proof",
        reply="Array: the proof that this node knows it too, and the id of its data folder.",
        flags=_FLAGS,
        example='PEER PROVE ""',
        serve=_prove,
        alone=True,
    ),
    Command(
        name="PEER ENTER",
        arity=2,
        group="cluster",
        summary="Makes the node that introduced itself a member. Not for clients.",
        reply="The id it has in the cluster, once that has agreed.",
        flags=_FLAGS,
        example="PEER ENTER",
        serve=_enter,
        alone=True,
    ),
    Command(
        name="PEER MEMBERS",
        arity=2,
        group="cluster",
        summary="Tells a new node what it joins. Not for clients.",
        reply="Array: the cluster's id, shards and replicas, then every member's id, address, folder, zone and role.",
        flags=_FLAGS,
        example="PEER MEMBERS",
        serve=_members,
        alone=True,
    ),
)

COMMANDS = (
    Command(
        name="PEER",
        arity=-2,
        group="cluster",
        summary="Commands nodes have for each other.",
        reply="Depends on the subcommand.",
        complexity="Depends on subcommand.",
        flags=_FLAGS,
        subcommands=(*_SUBCOMMANDS, help_for("PEER", _SUBCOMMANDS, group="cluster", since="1.0.0")),
    ),
)
