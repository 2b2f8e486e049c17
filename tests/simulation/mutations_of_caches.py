"""Planted bugs in the coherence of caches, looked for in the small world: see mutations.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

import msgspec

from cluster.cache import mesi
from cluster.cache.controller import Controller
from cluster.cache.directory import Directory, Ground
from cluster.cache.former import FormerLeases
from cluster.cache.mesi import Action, Event, State
from cluster.cache.naming import named_in
from cluster.cache.office import Office
from cluster.cache.snooping import Overwritten, Replica
from cluster.gate import Gate
from cluster.machine import caches
from cluster.machine.machine import Machine
from cluster.machine.reply import Reply
from cluster.raft.demands import Demands
from cluster.raft.messages import Lost, Recall, Release, WriteBack, Yield
from tests.simulation import small_log
from tests.simulation.mutation import Patch
from tests.simulation.small_scenes import SCENES
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


def committed_without_demands() -> Patch:
    """An entry is committed though somebody who shares the line it writes has it not."""
    return patch.object(Demands, "allowed", lambda demands, index, match: index)


def new_leaders_do_not_wait() -> Patch:
    """What a new leader finds in its log is committed though others may read what it writes."""
    return patch.object(FormerLeases, "are_over", lambda former, node, now_ms, hears: True)


def read_before_it_is_carried_out() -> Patch:
    """A line that was overwritten is read again at once, as memory was before."""

    def all_of_them(overwritten: Overwritten, replica: Replica) -> list[bytes]:
        found = list(overwritten.after)
        overwritten.after.clear()
        return found

    return patch.object(Overwritten, "carried_out", all_of_them)


def grants_have_no_index() -> Patch:
    """A line that comes is taken for what the log says here, whatever came before it or will come after."""
    granted = Overwritten.granted

    def now(overwritten: Overwritten, key: bytes, index: int, replica: Replica, *, shared: bool) -> bool:
        return granted(overwritten, key, replica.last_index, replica, shared=shared)

    return patch.object(Overwritten, "granted", now)


def own_write_backs_overwrite() -> Patch:
    """What a cache wrote back itself is taken for the write of another."""
    return patch.object(small_log, "named_in", lambda payload, author: named_in(payload, b""))


def the_overwritten_answer() -> Patch:
    """A line is read though an entry that writes it is in the log, and has been acknowledged."""
    overwrite = Controller.overwrite

    def unmoved(cache: Controller, number: int, key: bytes, index: int) -> None:
        line = cache.lines.get(key)
        end_ms = line.end_ms if line is not None else 0.0
        overwrite(cache, number, key, index)
        if line is not None:
            line.end_ms = end_ms

    return patch.object(Controller, "overwrite", unmoved)


def excused_in_its_lease() -> Patch:
    """Who has not an entry that it must have is not waited for."""

    def hasty(directory: Directory) -> None:
        for author in list(directory._demanded):
            directory._excuse(author)

    return patch.object(Directory, "_look_at_demands", hasty)


def overwritten_lines_are_not_given_up() -> Patch:
    """Who is asked to give a line up that was overwritten keeps it, until that is carried out."""
    invalidated = {(State.INVALID, Event.INVALIDATE): (State.INVALID, (Action.ANSWER,))}
    return patch.dict(mesi.LINE, invalidated)


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
        small_log.forget()
        try:
            with self.plant():
                SCENES[self.scene].explore(depth=depth, width=self.width, rest_every=self.rest_every)
        except Violation as found:
            return found
        finally:
            small_log.forget()
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


AGREE = (
    "good lines may be read",
    "the directory agrees",
    "the directory knows",
    "lines agree with memory",
    "linearizability",
)
ALONE = ("one owner", "no sharer beside an owner", *AGREE)

OF_CACHES: tuple[Planted, ...] = (
    Planted(granted_before_written_back, "owned", ALONE),
    Planted(grants_outlive_recalls, "shared", ALONE),
    Planted(old_releases_count, "shared", ALONE),
    Planted(no_census, "owned, elections", ALONE),
    Planted(leases_from_when_they_come, "snooping, time passes", ALONE),
    Planted(writes_pass_the_gate, "shared", ALONE),
    Planted(reads_pass_the_gate, "owned", ("linearizability", "durable before others see it")),
    Planted(numbers_are_not_looked_at, "owned, bad links", ALONE),
    Planted(the_closed_are_renewed, "owned, time passes", ALONE),
    Planted(closed_in_its_lease, "owned, time passes", ALONE),
    Planted(told_before_it_is_certain, "closed, elections", ("everybody is answered",), width=200, rest_every=4),
    Planted(a_ghost_may_join, "joining, crashes", ALONE),
    Planted(nothing_is_declined, "owned, bad links", AGREE, rest_every=5),
    Planted(losers_are_taken_for_owners, "shared", ALONE),
    Planted(committed_without_demands, "snooping", AGREE),
    Planted(new_leaders_do_not_wait, "snooping, elections", AGREE),
    Planted(read_before_it_is_carried_out, "snooping", AGREE),
    Planted(grants_have_no_index, "snooping, bad links", AGREE),
    Planted(own_write_backs_overwrite, "snooping, owned", ("overwritten by others",)),
    Planted(the_overwritten_answer, "snooping", AGREE),
    Planted(excused_in_its_lease, "snooping, time passes", AGREE),
    Planted(overwritten_lines_are_not_given_up, "snooping, evictions", ("rest",), rest_every=5),
)
"""All of them."""
