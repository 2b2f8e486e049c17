"""Keys read and written through the caches of all nodes while random things happen to these, for as long as wanted.

    python -m tests.soak_caches --minutes 30 --nodes 5 --seed 7

Each round has new keys (tests.cache_traffic), some troubles one after the other, and an end at which each key is read
through every node. Then all replies are judged: is there one order that explains them, in which a change is lost
only with the node that had it? What is broken is told with the calls around it, and a table at the end says what
was done. It ends with 1 when anything was broken.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from tests.cache_traffic import CacheHistory, cache_traffic
from tests.clusters import UNHURRIED, Node
from tests.rings import REPLICAS, wait_for_ring
from tests.simulation.findings import Finding, Verdict
from tests.soaks import MOVE_CHANCE, TROUBLES_PER_ROUND, Soak, command
from tests.troubles import BLOWS, Trouble, hand_over, kill_all, mend, slow_links

REPLIES_BETWEEN = 300

EVERYTHING: tuple[Trouble, ...] = (*BLOWS, hand_over, slow_links, kill_all)


class CacheSoak(Soak):
    """Keys read and written through caches while random things happen to a cluster of real nodes."""

    flags = (*UNHURRIED, "--session-timeout", "3500")
    shape = ("--shards", "8", "--replicas", str(REPLICAS))
    breaches = "keys without an order"

    def round(self, number: int, troubles: Sequence[Trouble] = (), *, moves: bool | None = None) -> None:
        """One, to its end; the troubles, and whether shards move, are drawn unless they are told."""
        nodes = self.members.copy()
        chance = self.chance
        told: list[str] = []
        with cache_traffic(self.cluster, nodes, seed=self.seed * 1000 + number, prefix=f"r{number}") as history:
            history.goes_on()
            for trouble in troubles or chance.sample(EVERYTHING, TROUBLES_PER_ROUND):
                told.append(self._strike(history, trouble))
                if troubles or chance.random() < 0.5:
                    history.goes_on(REPLIES_BETWEEN)  # else the next comes at once
                    history.recovered()
            mend(self.cluster)
            history.goes_on(REPLIES_BETWEEN)
            history.recovered()
            if chance.random() < MOVE_CHANCE if moves is None else moves:
                told.append(self._move(history, nodes))
            history.goes_on()
        self.cluster.hang_up()
        self.cluster.check_output()
        self._judge(number, history, told)

    def _strike(self, history: CacheHistory, trouble: Trouble) -> str:
        chance = self.chance
        self.done["troubles"] += 1
        blow = next((one for one in BLOWS if one is trouble), None)
        if blow is None:
            if trouble is kill_all:
                history.hurts(*self.members)
            what = trouble(self.cluster, chance)
        else:
            victim = chance.choice(self.members)
            history.hurts(victim)
            what = blow(self.cluster, chance, victim)
        click.echo(f"  {what}; replies so far: {history.done}")
        return what

    def _move(self, history: CacheHistory, nodes: list[Node]) -> str:
        """A node joins, shards move to it, and it is removed again."""
        wait_for_ring(self.cluster, self.members)
        with self.guest() as new:
            nodes.append(new)
            wait_for_ring(self.cluster)
            history.goes_on()
            nodes.remove(new)
            history.goes_on()
        what = f"{new} joined and was removed"
        click.echo(f"  {what}; replies so far: {history.done}")
        return what

    def _judge(self, number: int, history: CacheHistory, told: Sequence[str]) -> None:
        self.done.update(history.commands)
        self.done["leases lost by nodes nobody hurt"] += history.unhurt_losses
        self.done["calls that were not answered"] += history.excuses.total()
        reports = history.judge()
        for finding in (finding for report in reports for finding in report.findings):
            self.done["keys judged"] += 1
            self.done["operations judged"] += sum(bool(placed.operation.client) for placed in finding.order)
            self.done["changes lost with their owner"] += _lost(finding)
            if finding.verdict is not Verdict.LINEARIZABLE:
                self.findings.append(str(finding))
                click.echo(f"round {number}: {', '.join(told)}\n{finding}")


def _lost(finding: Finding) -> int:
    """How many times nodes went with what they had changed, in the order that was found."""
    states = ["", *(placed.state for placed in finding.order)]
    return sum(
        placed.operation.call[0] == b"LOSE" and before != placed.state
        for before, placed in zip(states, finding.order, strict=False)
    )


if __name__ == "__main__":
    command(CacheSoak)()
