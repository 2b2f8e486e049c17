"""Planted bugs in the coherence of caches, looked for in the small world: see mutations.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

import msgspec

from cluster.cache.controller import Controller, Office
from cluster.cache.directory import Directory, Ground
from cluster.cache.mesi import State
from cluster.gate import Gate
from cluster.machine import caches
from cluster.machine.machine import Machine
from cluster.machine.reply import Reply
from cluster.raft.messages import Lost, Recall, Release, WriteBack, Yield
from tests.simulation.mutation import Patch
from tests.simulation.small_scenes import SCENES
from tests.simulation.small_world import forget_machines
from tests.simulation.world import Violation


def granted_before_written_back() -> Patch:
    """What an owner changed may still be on its way when others are let in."""
    on_yield = Directory._on_yield

    def hasty(directory: Directory, message: Yield) -> None:
        on_yield(directory, msgspec.structs.replace(message, after=0))

    return patch.object(Directory, "_on_yield", hasty)


def grants_outlive_recalls() -> Patch:
    """A grant from before a recall is taken for a new one."""
    on_recall = Controller._on_recall

    def forgetful(cache: Controller, office: Office, message: Recall) -> None:
        on_recall(cache, office, message)
        office.floor = 0

    return patch.object(Controller, "_on_recall", forgetful)


def old_releases_count() -> Patch:
    """A cache's word that it gave a line up counts, though it was granted again since."""
    released = Directory._released

    def credulous(directory: Directory, message: Release) -> None:
        released(directory, msgspec.structs.replace(message, serial=1 << 40))

    return patch.object(Directory, "_released", credulous)


def no_census() -> Patch:
    """A new leader does not ask who holds what."""
    new = Directory.__init__

    def init(directory: Directory, ground: Ground, lease_ms: int, *, fans_out: bool = True) -> None:
        new(directory, ground, lease_ms, fans_out=fans_out)
        directory._census.clear()

    return patch.object(Directory, "__init__", init)


def leases_from_when_they_come() -> Patch:
    """A cache counts its lease from the answer."""
    lease = Controller._lease

    def late(cache: Controller, office: Office, asked_ms: float, lease_ms: int) -> None:
        lease(cache, office, cache.now_ms, lease_ms)

    return patch.object(Controller, "_lease", late)


def writes_pass_the_gate() -> Patch:
    """Plain writes do not wait for lines to be given up."""
    return patch.object(Gate, "admits", lambda gate, kept, index: True)


def reads_pass_the_gate() -> Patch:
    """Plain reads do not wait for what an owner changed."""
    return patch.object(Gate, "admits_reads", lambda gate, reads: True)


@contextmanager
def numbers_are_not_looked_at() -> Iterator[None]:
    """Write-backs are carried out whenever they come."""

    def takes_all(directory: Directory, message: WriteBack) -> None:
        if not directory._is_lost(message.author, message.base):
            directory.calls.append(
                [caches.WRITE_BACK, message.author, b"%d" % message.number, *directory._with_deadlines(message.cells)]
            )

    def write_back(machine: Machine, args: list[bytes]) -> Reply:
        cache = machine.caches.known[args[1]]
        last, cache.last = cache.last, int(args[2]) - 1
        reply = caches.write_back(machine, args)
        cache.last = max(cache.last, last)
        return reply

    with (
        patch.object(Directory, "_on_write_back", takes_all),
        patch.dict(caches.HANDLERS, {caches.WRITE_BACK: write_back}),
    ):
        yield


def the_closed_are_renewed() -> Patch:
    """A lease is renewed though the cache was closed."""

    def renews(directory: Directory, author: bytes, base: int) -> bool:
        directory._lease(author)
        return True

    return patch.object(Directory, "renews", renews)


def closed_in_its_lease() -> Patch:
    """Who does not answer is not waited for."""
    return patch.object(Directory, "_is_lease_over", lambda directory, author: author != directory._ground.author)


def told_before_it_is_certain() -> Patch:
    """A cache is told that it is closed when that is in the log, and may be taken out of it."""

    def is_lost(directory: Directory, author: bytes, base: int) -> bool:
        cache = directory._cache(author)
        if cache is not None and cache.base == base:
            return False
        directory._send(author, Lost(directory._ground.term, author, base))
        return True

    return patch.object(Directory, "_is_lost", is_lost)


def a_ghost_may_join() -> Patch:
    """The last to join is taken for the later run of its node."""
    return patch.object(Directory, "_close_other_runs", lambda directory, author: True)


class Planted(NamedTuple):
    """One bug, and the scene in which it shows; the rules it breaks."""

    plant: Callable[[], Patch]
    scene: str
    rules: tuple[str, ...]
    width: int = 100
    rest_every: int = 50

    @property
    def name(self) -> str:
        """What the bug is called."""
        return self.plant.__name__

    def catch(self, depth: int = 40) -> Violation | None:
        """What is found when the bug is there."""
        forget_machines()
        try:
            with self.plant():
                SCENES[self.scene].explore(depth=depth, width=self.width, rest_every=self.rest_every)
        except Violation as found:
            return found
        finally:
            forget_machines()
        return None


def nothing_is_declined() -> Patch:
    """A cache says nothing of a grant that nobody waits for any more."""
    return patch.object(Controller, "_decline", lambda cache, office, message: None)


def losers_are_taken_for_owners() -> Patch:
    """A cache that is told to give a line up for another's write goes on reading it."""
    on_recall = Controller._on_recall

    def keeps(cache: Controller, office: Office, message: Recall) -> None:
        line = cache.lines.get(message.key)
        on_recall(cache, office, message)
        if line is not None and not message.share:
            line.state = State.SHARED
            cache.lines.add(message.key, line)

    return patch.object(Controller, "_on_recall", keeps)


AGREE = ("the directory agrees", "the directory knows", "lines agree with memory", "linearizability")
ALONE = ("one owner", "no sharer beside an owner", *AGREE)

OF_CACHES: tuple[Planted, ...] = (
    Planted(granted_before_written_back, "owned", ALONE),
    Planted(grants_outlive_recalls, "shared", ALONE),
    Planted(old_releases_count, "shared", ALONE),
    Planted(no_census, "owned, elections", ALONE),
    Planted(leases_from_when_they_come, "owned, time passes", ALONE),
    Planted(writes_pass_the_gate, "shared", ALONE),
    Planted(reads_pass_the_gate, "owned", ("linearizability", "durable before others see it")),
    Planted(numbers_are_not_looked_at, "owned, bad links", ALONE),
    Planted(the_closed_are_renewed, "owned, time passes", ALONE),
    Planted(closed_in_its_lease, "owned, time passes", ALONE),
    Planted(told_before_it_is_certain, "closed, elections", ("everybody is answered",), width=200, rest_every=4),
    Planted(a_ghost_may_join, "joining, crashes", ALONE),
    Planted(nothing_is_declined, "owned, bad links", AGREE, rest_every=5),
    Planted(losers_are_taken_for_owners, "shared", ALONE),
)
"""All of them."""
