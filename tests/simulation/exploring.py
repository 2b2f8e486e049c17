"""All that can happen from a state, breadth first, each state once: all of it as far as it is narrow enough, and
beyond that so many of the states of each depth as one seed chooses.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from tests.simulation.small_world import Budget, Choice, SmallWorld
from tests.simulation.world import Violation


class Explored(NamedTuple):
    """How much was seen: states, down to which depth all of them, and down to which at all."""

    states: int
    whole_depth: int
    depth: int


def explore(
    start: SmallWorld, budget: Budget, *, depth: int, width: int, seed: int = 1, rest_every: int = 50
) -> Explored:
    """Takes every step from every state, and lets one of ``rest_every`` come to rest; a `Violation` tells the way."""
    chance = Random(seed)
    start = start.fork()
    start.budget = budget
    seen = {start.print()}
    states: list[tuple[SmallWorld, tuple[Choice, ...]]] = [(start, ())]
    whole_depth = 0
    for at in range(1, depth + 1):
        following: list[tuple[SmallWorld, tuple[Choice, ...]]] = []
        for world, way in states:
            for choice in world.choices():
                on = (*way, choice)
                try:
                    after = world.after(choice)
                    mark = after.print()
                    if mark in seen:
                        continue
                    seen.add(mark)
                    if len(seen) % rest_every == 0:
                        after.fork().come_to_rest()
                except Violation as found:
                    raise Violation(found.rule, "\n".join([str(found), *map(str, on)])) from None
                following.append((after, on))
        if not following:
            return Explored(len(seen), at - 1 if whole_depth == at - 1 else whole_depth, at - 1)
        if len(following) <= width and whole_depth == at - 1:
            whole_depth = at
        states = following if len(following) <= width else chance.sample(following, width)
    return Explored(len(seen), whole_depth, depth)


def begun(start: SmallWorld, *choices: Choice) -> SmallWorld:
    """A world in which that has happened, and all that came of it has arrived."""
    world = start.fork()
    world.budget = Budget(*[100] * len(Budget.__slots__))
    for choice in choices:
        world.take(choice)
        world.run_dry()
    return world
