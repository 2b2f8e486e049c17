"""The end of the queues: nobody pushes any more, and one goes on taking until nothing is left that could be taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation.clients import Client
from tests.simulation.models import Call
from tests.simulation.world import MS

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.queue_referee import QueueReferee
    from tests.simulation.sessions import Op
    from tests.simulation.simulation import Simulation

HORIZON_MS = 1_500
"""What comes back or becomes ready so soon is waited for."""

PAUSE_US = 50 * MS


class Emptying(Client):
    """Takes and acknowledges, queue after queue, at one node."""

    leaves = 0.0

    def __init__(self, simulation: Simulation, process: Process) -> None:
        super().__init__(simulation.workload, "emptying")
        self._referees: list[QueueReferee] = [
            group.referee.queues for group in simulation.watch.groups.values() if group.referee is not None
        ]
        self._until_ms = {referee: referee.plain.now_ms + HORIZON_MS for referee in self._referees}
        self._turn = 0
        self._ack: Call | None = None
        self.session = process.connect(self)

    def left(self) -> list[bytes]:
        """The queues in which there is something to take, or soon will be."""
        keys = (
            key
            for referee, until_ms in self._until_ms.items()
            for key, queue in referee.plain.queues.items()
            if queue.comes_to_something(until_ms)
        )
        return list(dict.fromkeys(keys))

    def act(self) -> None:
        """Asks for more, if it has its answers and something is left."""
        session = self.session
        if session is None or session.queue or (self._ack is None and not self.left()):
            return
        calls = list(self.calls())

        def ask() -> None:
            for call in calls:
                session.execute(call)

        session.process.request(ask)

    def calls(self) -> Iterator[Call]:
        """Acknowledges what it has, or takes more."""
        if self._ack is not None:
            yield self._ack
            self._ack = None
            return
        left = self.left()
        self._turn += 1
        yield (b"Q.POP", left[self._turn % len(left)], b"COUNT", b"64", b"VISIBILITY", b"60000")

    def learned(self, op: Op) -> None:
        """What it got, it acknowledges."""
        if op.call[0] == b"Q.POP" and op.returned is not None and isinstance(op.reply, list):
            self._ack = (b"Q.ACK", op.call[1], *(message[0] for message in op.reply))

    def _act_soon(self) -> None:
        self.world.after(MS if self._ack is not None else PAUSE_US, self.act)
