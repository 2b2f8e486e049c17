"""Which of its nodes should lead each shard: as many shards for every node as can be.

Each shard begins with its first node. Then, as long as some node leads two
more than one that could take a shard off it, it does: directly, or along a
chain, in which each hands on one shard and gets another. The shortest chain
is taken, so that most shards keep their first node. When no chain is left no
other choice would be more even.
"""

from __future__ import annotations

from collections.abc import Sequence


def leaders_of(held: Sequence[Sequence[str]]) -> list[str]:
    """The leader of each shard; ``held`` are the nodes of each, the first choice first."""
    chosen = [nodes[0] for nodes in held]
    led: dict[str, list[int]] = {node: [] for node in sorted(node for nodes in held for node in nodes)}
    for shard, node in enumerate(chosen):
        led[node].append(shard)
    while True:
        fullest_first = sorted(led, key=lambda node: (-len(led[node]), node))
        chain = next(filter(None, (_chain(node, held, led) for node in fullest_first)), None)
        if chain is None:
            return chosen
        for shard, taker in chain:
            led[chosen[shard]].remove(shard)
            led[taker].append(shard)
            chosen[shard] = taker


def _chain(giver: str, held: Sequence[Sequence[str]], led: dict[str, list[int]]) -> list[tuple[int, str]] | None:
    """Which shards go to whom so that ``giver`` leads one less, and somebody with two less or fewer leads one more."""
    came: dict[str, tuple[str, int]] = {}
    reached = [giver]
    for node in reached:  # grows while it is walked: breadth first, so the first end found is the nearest
        for shard in led[node]:
            for taker in held[shard]:
                if taker == giver or taker in came:
                    continue
                came[taker] = node, shard
                if len(led[taker]) <= len(led[giver]) - 2:
                    return _steps(giver, taker, came)
                reached.append(taker)
    return None


def _steps(giver: str, taker: str, came: dict[str, tuple[str, int]]) -> list[tuple[int, str]]:
    steps = []
    while taker != giver:
        node, shard = came[taker]
        steps.append((shard, taker))
        taker = node
    return steps
