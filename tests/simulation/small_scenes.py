"""Where a search of the small world begins, and what may happen from there."""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.exploring import Explored, begun, explore
from tests.simulation.small_world import Budget, Choice, SmallWorld


class Scene(NamedTuple):
    """So many nodes, of which the first leads; what has happened; what may happen; and who has a replica."""

    nodes: int
    begins: tuple[Choice, ...]
    budget: Budget
    replicas: str = ""

    def begin(self) -> SmallWorld:
        """The world as it is then."""
        return begun(SmallWorld(self.nodes, Budget(), self.replicas), *self.begins)

    def explore(self, *, depth: int, width: int, seed: int = 1, rest_every: int = 50) -> Explored:
        """All that can happen, as far as that; see `tests.simulation.exploring`."""
        return explore(self.begin(), self.budget, depth=depth, width=width, seed=seed, rest_every=rest_every)


_BOTH_SHARE = (("read", "b"), ("read", "a"))
_THREE_SHARE = (("read", "b"), ("read", "c"), ("read", "a"))
_ONE_OWNS = (("read", "a"), ("write", "b"))
_LEADER_OWNS = (("read", "b"), ("write", "a"))
_ONE_OF_THREE_OWNS = (("read", "a"), ("read", "c"), ("write", "b"))

_ALL_READ_OFTEN = (*_THREE_SHARE, *_THREE_SHARE, *_THREE_SHARE)

SCENES: dict[str, Scene] = {
    "from nothing": Scene(2, (), Budget(reads=2, writes=1, plain_writes=1)),
    "three from nothing": Scene(3, (), Budget(reads=2, writes=2, plain_reads=1, plain_writes=1, elections=1, leases=1)),
    "shared": Scene(2, _BOTH_SHARE, Budget(reads=1, writes=1, plain_writes=1, evictions=2)),
    "shared, and given up": Scene(2, _BOTH_SHARE, Budget(reads=2, evictions=3)),
    "shared, time passes": Scene(2, _BOTH_SHARE, Budget(reads=1, writes=1, plain_writes=1, whiles=1, leases=2)),
    "shared by three": Scene(3, _THREE_SHARE, Budget(reads=2, writes=2, plain_writes=1)),
    "read often": Scene(3, _THREE_SHARE, Budget(reads=4, writes=1, plain_writes=2, evictions=1)),
    "owned": Scene(2, _ONE_OWNS, Budget(reads=1, writes=1, plain_reads=1, plain_writes=1, evictions=1, flushes=1)),
    "owned, time passes": Scene(
        2, _ONE_OWNS, Budget(reads=1, writes=1, plain_reads=1, plain_writes=1, whiles=2, leases=2)
    ),
    "owned, bad links": Scene(2, _ONE_OWNS, Budget(reads=1, writes=1, plain_writes=1, doubles=1, losses=1, whiles=1)),
    "owned, elections": Scene(2, _ONE_OWNS, Budget(reads=1, writes=1, plain_writes=1, elections=1, leases=1, whiles=1)),
    "owned by the leader": Scene(
        2, _LEADER_OWNS, Budget(reads=1, writes=1, plain_writes=1, elections=1, leases=1, whiles=1)
    ),
    "owned, crashes": Scene(
        2, _ONE_OWNS, Budget(reads=1, writes=1, plain_reads=1, plain_writes=1, crashes=1, leases=2)
    ),
    "one of three owns": Scene(3, _ONE_OF_THREE_OWNS, Budget(reads=2, writes=1, plain_writes=1, evictions=1)),
    "one of three, crashes": Scene(
        3, _ONE_OF_THREE_OWNS, Budget(reads=2, writes=1, plain_writes=1, crashes=1, leases=2, elections=1)
    ),
    "closed, elections": Scene(2, _ONE_OWNS, Budget(plain_writes=1, elections=1, leases=2)),
    "joining, crashes": Scene(2, (), Budget(reads=2, plain_writes=1, crashes=1)),
    "snooping": Scene(2, _BOTH_SHARE, Budget(reads=2, plain_writes=2), "ab"),
    "snooping, from nothing": Scene(2, (), Budget(reads=3, writes=1, plain_writes=2), "ab"),
    "snooping, evictions": Scene(2, _BOTH_SHARE, Budget(reads=2, writes=1, plain_writes=1, evictions=2), "ab"),
    "snooping, written through": Scene(3, _ALL_READ_OFTEN, Budget(reads=1, writes=3, plain_writes=1), "abc"),
    "snooping, elections": Scene(3, _THREE_SHARE, Budget(reads=1, plain_writes=2, elections=1), "abc"),
    "snooping, elections, time passes": Scene(
        2, _BOTH_SHARE, Budget(reads=2, writes=1, plain_writes=1, elections=2, leases=2), "ab"
    ),
    "snooping, time passes": Scene(2, _BOTH_SHARE, Budget(reads=1, plain_writes=2, whiles=4, leases=2), "ab"),
    "snooping, snapshots": Scene(
        2, _BOTH_SHARE, Budget(reads=2, plain_writes=2, whiles=1, leases=2, snapshots=1), "ab"
    ),
    "snooping, crashes": Scene(2, _BOTH_SHARE, Budget(reads=2, plain_writes=1, crashes=1, leases=2), "ab"),
    "snooping, bad links": Scene(
        2, _BOTH_SHARE, Budget(reads=2, plain_writes=2, evictions=1, doubles=1, losses=1, whiles=1), "ab"
    ),
    "snooping, one of two": Scene(3, _THREE_SHARE, Budget(reads=2, writes=1, plain_writes=2), "ab"),
    "snooping, one of two owns": Scene(
        3, _ONE_OF_THREE_OWNS, Budget(reads=2, writes=1, plain_writes=1, flushes=1), "ab"
    ),
    "snooping, owned": Scene(
        2, _ONE_OWNS, Budget(reads=2, writes=2, plain_reads=1, plain_writes=1, evictions=1, flushes=1), "ab"
    ),
    "snooping, owned, elections": Scene(
        3, _ONE_OF_THREE_OWNS, Budget(reads=1, writes=1, plain_writes=1, elections=2, leases=1), "abc"
    ),
    "snooping, all of it": Scene(3, _ONE_OF_THREE_OWNS, Budget(4, 3, 2, 3, 2, 1, 3, 3, 2, 2, 1, 1, 1), "abc"),
    "snooping, some of it": Scene(3, _THREE_SHARE, Budget(4, 2, 2, 3, 2, 1, 3, 3, 2, 2, 1, 1, 1), "ab"),
    "all of it": Scene(3, _ONE_OF_THREE_OWNS, Budget(4, 3, 2, 2, 2, 1, 3, 3, 2, 2, 1, 1)),
}
