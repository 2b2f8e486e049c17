"""What soaks have in common: rounds on a cluster of real nodes until the time is up, and a table of what was done."""

from __future__ import annotations

import random
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import click

from tests.clusters import Cluster, Node, new_cluster
from tests.rings import wait_for_ring
from tests.troubles import guest

TROUBLES_PER_ROUND = 5
MOVE_CHANCE = 0.3  # of a round in which a node joins and is removed


class Soak(ABC):
    """What is done to one cluster. ``done`` is what was, and how often; ``findings`` tell what was broken.

    ``flags`` and ``shape`` are what the nodes are started with, and ``breaches`` is what findings are called.
    """

    flags: ClassVar[tuple[str, ...]]
    shape: ClassVar[tuple[str, ...]]
    breaches: ClassVar[str]

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.findings: list[str] = []
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.seed = seed
        self.members = list(cluster.nodes.values())
        self._guests = 0

    @abstractmethod
    def round(self, number: int) -> None:
        """One, to its end."""

    @contextmanager
    def guest(self) -> Iterator[Node]:
        """Another node, which joined the members, and is removed again when the block ends."""
        self._guests += 1
        with guest(self.cluster, self.members, f"n{len(self.members) + self._guests}") as new:
            yield new
        self.done["joined and removed"] += 1

    def rounds(self, seconds: float) -> None:
        """As many as are begun before the time is up."""
        began_s = time.monotonic()
        number = 0
        while time.monotonic() - began_s < seconds:
            number += 1
            click.echo(f"round {number}, after {time.monotonic() - began_s:.0f} s")
            self.round(number)
        self.done["rounds"] = number
        self.done["seconds"] = round(time.monotonic() - began_s)

    def table(self) -> Iterator[str]:
        """What was done, for people."""
        yield "| what | how often |"
        yield "| --- | ---: |"
        for what, count in sorted(self.done.items()):
            yield f"| {what} | {count} |"
        yield f"| **{self.breaches}** | **{len(self.findings)}** |"


Kind = TypeVar("Kind", bound=Soak)


@contextmanager
def soaked(kind: type[Kind], folder: Path, size: int, seed: int) -> Iterator[Kind]:
    """A soak of a new cluster, whose shards are where they should be."""
    with new_cluster(folder, size, *kind.flags, shape=kind.shape) as cluster:
        cluster.start()
        wait_for_ring(cluster)
        yield kind(cluster, seed)


def command(kind: type[Soak]) -> click.Command:
    """The command line of a soak. It ends with 1 when anything was broken."""

    @click.command(help=kind.__doc__)
    @click.option("--minutes", type=float, default=10.0, show_default=True, help="For how long to begin rounds.")
    @click.option("--nodes", type=int, default=5, show_default=True, help="How many nodes.")
    @click.option("--seed", type=int, default=1, show_default=True, help="Which troubles, in which order.")
    def main(minutes: float, nodes: int, seed: int) -> None:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder, soaked(kind, Path(folder), nodes, seed) as soak:
            soak.rounds(minutes * 60)
        click.echo("\n".join(["", *soak.table()]))
        raise SystemExit(1 if soak.findings else 0)

    return main
