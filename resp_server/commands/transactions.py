"""MULTI, EXEC, DISCARD, WATCH and UNWATCH."""

from __future__ import annotations

from cluster.machine import transactions
from cluster.machine.reply import OK, CommandError, Reply
from resp_server.commands.command import ALL_KEYS, Command
from resp_server.session import Session, Transaction


def _multi(session: Session, args: list[bytes]) -> Reply:
    if session.transaction is not None:
        raise CommandError("MULTI calls can not be nested")
    session.transaction = Transaction()
    session.settle()
    return OK


def _discard(session: Session, args: list[bytes]) -> Reply:
    if session.transaction is None:
        raise CommandError("DISCARD without MULTI")
    session.transaction = None
    session.settle()
    session.server.unwatch(session)
    return OK


def _unwatch(session: Session, args: list[bytes]) -> Reply:
    session.server.unwatch(session)
    return OK


COMMANDS = (
    Command(
        name="MULTI",
        arity=1,
        group="transactions",
        since="1.2.0",
        summary="Starts a transaction.",
        reply="`OK`; what follows is answered `QUEUED` until `EXEC`.",
        flags=("noscript", "loading", "stale", "fast", "allow_busy"),
        example="MULTI",
        serve=_multi,
        ends_transaction=True,
        alone=True,
    ),
    Command(
        name="EXEC",
        arity=1,
        group="transactions",
        since="1.2.0",
        summary="Executes all commands of a transaction as one step; their keys, and those watched, are in one shard.",
        reply="Array of replies; null when a watched key changed.",
        complexity="Depends on commands in the transaction",
        flags=("noscript", "loading", "stale", "skip_slowlog"),
        example="EXEC",
        run=transactions.replayed,
        ends_transaction=True,
    ),
    Command(
        name="DISCARD",
        arity=1,
        group="transactions",
        since="2.0.0",
        summary="Discards a transaction.",
        reply="`OK`",
        complexity="O(N), when N is the number of queued commands",
        flags=("noscript", "loading", "stale", "fast", "allow_busy"),
        example="DISCARD",
        serve=_discard,
        alone=True,
        ends_transaction=True,
    ),
    Command(
        name="WATCH",
        arity=-2,
        group="transactions",
        since="2.2.0",
        summary="Monitors changes to keys to determine the execution of a transaction.",
        syntax="key [key ...]",
        reply="`OK`",
        complexity="O(1) for every key.",
        flags=("logged", "session", "noscript", "loading", "stale", "fast", "allow_busy"),
        keys=ALL_KEYS,
        example="WATCH balance",
        run=transactions.watch,
    ),
    Command(
        name="UNWATCH",
        arity=1,
        group="transactions",
        since="2.2.0",
        summary="Forgets about watched keys of a transaction.",
        reply="`OK`",
        flags=("noscript", "loading", "stale", "fast", "allow_busy"),
        example="UNWATCH",
        run=transactions.unwatch,
        serve=_unwatch,
        alone=True,
    ),
)
