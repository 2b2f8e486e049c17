"""Queues under traffic while random things happen to a cluster, for as long as somebody wants.

    python -m tests.soak_queues --minutes 30 --seed 7

Each round has three new queues (one part, eight parts, dead letters that go to another shard), some troubles
one after the other, and an end at which everything is worked off and judged as in
tests/process/test_queue_faults.py. What is broken is told with the stories of the messages concerned, and a table
at the end says what was done. It ends with 1 when anything was broken.
"""

from __future__ import annotations

import click

from tests.clusters import UNHURRIED
from tests.queue_traffic import Traffic, three_queues, traffic
from tests.rings import REPLICAS, ring_of, wait_for_ring
from tests.soaks import MOVE_CHANCE, TROUBLES_PER_ROUND, Soak, command
from tests.troubles import TROUBLES, mend


class QueueSoak(Soak):
    """Queues under traffic while random things happen to a cluster of real nodes."""

    flags = UNHURRIED
    shape = ("--shards", "16", "--replicas", str(REPLICAS))
    breaches = "breaches"

    def round(self, number: int) -> None:
        """One, to its end."""
        ring = ring_of(self.members[0])
        with traffic(self.cluster, three_queues(ring, f"{number}"), seed=self.seed * 1000 + number) as running:
            running.goes_on()
            for trouble in self.chance.sample(TROUBLES, TROUBLES_PER_ROUND):
                self._tell(running, trouble(self.cluster, self.chance))
                self.done[trouble.__name__] += 1
                if self.chance.random() < 0.5:
                    running.goes_on()  # else the next comes at once
            if self.chance.random() < MOVE_CHANCE:
                self._move(running)
            mend(self.cluster)
            running.goes_on()
            running.finish()
            broken = running.broken()
            faults = [f"{at_s:10.4f} {what}" for at_s, what in running.history.faults]
        self.cluster.hang_up()
        self.cluster.check_output()
        self._count(running)
        if broken:
            self.findings += broken
            click.echo("\n".join([f"round {number}: {len(broken)} breaches", *faults, *broken]))

    def _tell(self, running: Traffic, what: str) -> None:
        running.fault(what)
        click.echo(f"  {what}; pushed so far: {running.pushed}")

    def _count(self, running: Traffic) -> None:
        items = running.history.items.values()
        self.done["messages"] += len(items)
        self.done["pushes whose outcome nobody knows"] += sum(item.doubtful for item in items)
        self.done["deliveries"] += sum(len(item.given) for item in items)
        self.done["acknowledged"] += sum(bool(item.acknowledged) for item in items)
        self.done["delivered more than once"] += sum(len(item.given) > 1 for item in items)
        self.done["calls that were not answered"] += running.excuses.total()

    def _move(self, running: Traffic) -> None:
        """A node joins, shards move to it, and it is removed again."""
        mend(self.cluster)
        with self.guest() as new:
            running.joined_by(new)
            wait_for_ring(self.cluster)
            self._tell(running, f"{new} joined")
            running.goes_on()
            running.left_by(new)
        self._tell(running, f"{new} was removed")


if __name__ == "__main__":
    command(QueueSoak)()
