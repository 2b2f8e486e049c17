"""How a command is carried out for one client: what a shard is given to run, and what this node runs itself.

Whatever a client can make slow is timed for the slow log, and whatever it can
make large is looked at before it is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, TypeAlias

from cluster.machine import transactions
from cluster.machine.machine import Handler, bug
from cluster.machine.reply import CommandError, Reply
from cluster.shard import Shard
from resp_server.commands.table import Route
from resp_server.places import Finish
from resp_server.session import Session

if TYPE_CHECKING:
    from resp_server.server import Server

Queued: TypeAlias = "tuple[Route, list[bytes]]"


class Calls:
    """Carries out commands on one node."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def handler(self, session: Session, route: Route, shard: Shard) -> Handler:
        """What carries out a command of the session in a shard, as long as that is here."""
        serve = route.command.serve
        if serve is not None and shard.here:
            return lambda machine, args: self._timed(session, lambda: serve(session, args), args)
        run = route.run
        if route.quick and not self._server.slowlog.watches_everything:
            return run
        return lambda machine, args: self._timed(session, lambda: run(machine, args), args)

    def serve(self, session: Session, route: Route, args: list[bytes]) -> Reply:
        """Runs a local command."""
        serve = route.command.serve
        assert serve is not None, f"{route.name} is not local"
        try:
            return self._timed(session, lambda: serve(session, args), args)
        except CommandError as error:
            return error
        except Exception:  # noqa: BLE001 - see `bug`
            return bug(args)

    def _timed(self, session: Session, run: Callable[[], Reply], args: list[bytes]) -> Reply:
        started_ns = perf_counter_ns()
        try:
            return self.affordable(session, run())
        finally:
            self._server.slowlog.note(session, args, (perf_counter_ns() - started_ns) // 1000)

    def affordable(self, session: Session, reply: Reply) -> Reply:
        """The reply, unless it alone is past what the client may leave unread: then it is not even encoded."""
        limit = self._server.settings.client_output_buffer_limit.hard_bytes
        if not limit or type(reply) is not list or size_bytes(reply) <= limit:
            return reply
        self._server.stats.output_limit_disconnections += 1
        self._server.edge.close(session)
        return CommandError("the reply is larger than client-output-buffer-limit")

    # Transactions

    def transaction(self, session: Session, shard: Shard, queued: Sequence[Queued], *, watched: bool) -> Handler:
        """What carries out those commands of a transaction that are not local; ``watched`` where keys are for it."""
        steps = self._steps(session, shard, queued)
        return lambda machine, _: self.affordable(session, transactions.execute(machine, steps, watched=watched))

    def looks(self, session: Session, shard: Shard, queued: Sequence[Queued]) -> Handler:
        """The same where all of them only read."""
        steps = self._steps(session, shard, queued)
        return lambda machine, _: self.affordable(session, transactions.look(machine, steps))

    def _steps(self, session: Session, shard: Shard, queued: Sequence[Queued]) -> list[transactions.Step]:
        return [(self.handler(session, route, shard), args, not route.logged) for route, args in queued]

    def weaving(self, session: Session, queued: Sequence[Queued]) -> Finish | None:
        """Runs the local commands among those of a transaction that was carried out, and adds their replies.

        None where there are none.
        """
        local = [(at, route, args) for at, (route, args) in enumerate(queued) if route.local]

        def weave(reply: Reply) -> Reply:
            if type(reply) is not list:
                return reply  # the null array, or an error: nothing happened
            woven = list(reply)
            session.executing = True
            try:
                for at, route, args in local:
                    woven.insert(at, self.serve(session, route, args))
            finally:
                session.executing = False
            return woven

        return weave if local else None


def size_bytes(reply: Reply) -> int:
    """How many bytes of values a reply holds: a key asked for a thousand times counts a thousand times."""
    if type(reply) is bytes:
        return len(reply)
    return sum(map(size_bytes, reply)) if isinstance(reply, list) else 0
