"""What must hold at every moment of a run: Raft's five properties, and what durability promises.

Everything is compared with one record of the whole cluster: who led and voted
when, every entry that was ever in a log, every one that was committed, and the
state after some of them. Only what changed since the last turn is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster import batch as batches
from cluster.raft.membership import MARK, Config
from cluster.raft.messages import Appended, Message, Vote, Voted
from cluster.storage.contract import Entry
from tests.front import state
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.raft.core import Raft
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

STATES_EVERY = 8
"""The whole state is compared after every so many entries, where a turn ends there."""


class View:
    """What was seen of one run of a process at the end of its last turn."""

    __slots__ = ("applied", "commit", "last_index", "last_term", "leading", "term", "terms", "voters")

    def __init__(self, raft: Raft) -> None:
        self.leading: Any = None
        self.applied = raft.applied
        self.commit = raft.commit
        self.term = raft.term
        self.last_index = self.last_term = -1
        self.terms: dict[int, int] = {}
        self.voters = raft.config.voters


class Watch:
    """The record of a run. ``commands`` counts what was carried out, ``compared`` how often two states were."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._views: dict[str, View] = {}
        self._leaders: dict[int, tuple[str, str]] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._entries: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        self.committed: dict[int, Entry] = {}
        self.last_committed = 0
        self._parts: dict[tuple[bytes, int], int] = {}
        self._states: dict[int, dict[str, object]] = {}
        self._void: set[bytes] = set()
        self._written: dict[bytes, int] = {}
        self.commands = 0
        self.compared = 0
        self.elections = 0

    # Moments

    def started(self, process: Process) -> None:
        """A process recovered from its disk."""
        node = process.node
        assert node is not None
        view = self._views[process.name] = View(node.raft)
        self._log(process, node, view)
        self._compare(process, node)

    def crashed(self, process: Process, raft: Raft) -> None:
        """A run is over. A term that its leader never made durable never was: nobody heard of it."""
        self._views.pop(process.name, None)
        if raft.leading is not None and process.disk.hard_state.term < raft.term:
            self._leaders.pop(raft.term, None)
            for key in [key for key in self._entries if key[1] == raft.term]:
                del self._entries[key]

    def installed(self, process: Process, node: Node) -> None:
        """A snapshot took the place of a log."""
        view = self._views[process.name]
        raft = node.raft
        if raft.commit < view.commit:
            raise Violation("commit goes back", f"{process} installed {raft.commit}, had committed {view.commit}")
        view.commit = view.applied = raft.applied
        view.last_index = -1
        self._log(process, node, view)
        self._compare(process, node)

    def pictured(self, process: Process, node: Node) -> None:
        """A checkpoint of what is applied begins."""
        self._compare(process, node)

    def compacted(self, process: Process, node: Node) -> None:
        """A log was cut behind a checkpoint."""
        raft = node.raft
        if raft.log.base_index > raft.applied:
            raise Violation("forgotten too early", f"{process} cut its log to {raft.log.base_index}: {node.status()}")

    def turned(self, process: Process, node: Node) -> None:
        """A turn is over."""
        raft, log = node.raft, node.raft.log
        try:
            raft.check()
        except AssertionError as error:
            raise Violation("raft.check", f"{process}: {error!r} {node.status()}") from error
        view = self._views[process.name]
        if raft.term != view.term:
            if raft.term < view.term:
                raise Violation("term goes back", f"{process}: {view.term} to {raft.term}")
            view.term = raft.term
        if log.last_index != view.last_index or log.last_term != view.last_term:
            self._log(process, node, view)
        if raft.leading is not view.leading:
            view.leading = raft.leading
            if raft.leading is not None:
                self._elected(process, raft)
        if raft.commit != view.commit:
            self._commit(process, node, view)
        view.voters = raft.config.voters
        if raft.applied != view.applied:
            view.applied = raft.applied
            if raft.applied % STATES_EVERY == 0:
                self._compare(process, node)

    def says(self, process: Process, node: Node, peer: str, message: Message) -> None:
        """A message leaves: what it promises must be durable by now."""
        kind = type(message)
        if kind is Appended:
            assert isinstance(message, Appended)
            term = node.raft.log.term(message.index)
            if not process.disk.holds(message.index, term or 0):
                raise Violation("durable before acknowledged", f"{process} to {peer}: {message}")
        elif kind is Voted:
            assert isinstance(message, Voted)
            if message.granted and not message.pre:
                self._vote(process, message.term, peer)
        elif kind is Vote:
            assert isinstance(message, Vote)
            if not message.pre:
                self._vote(process, message.term, process.name)

    # Rules

    def _vote(self, process: Process, term: int, candidate: str) -> None:
        first = self._votes.setdefault((process.disk.id, term), candidate)
        if first != candidate:
            raise Violation("one vote a term", f"{process} voted for {first} and {candidate} in term {term}")
        hard_state = process.disk.hard_state
        if hard_state.term < term or (hard_state.term == term and hard_state.vote != candidate):
            raise Violation("durable before voted", f"{process} for {candidate} in {term}, its disk has {hard_state}")

    def _elected(self, process: Process, raft: Raft) -> None:
        self.elections += 1
        run = (process.name, process.disk.id + str(process.boot))
        first = self._leaders.setdefault(raft.term, run)
        self._simulation.world.note(process.name, "leads", f"in term {raft.term}")
        if first != run:
            raise Violation("election safety", f"{first} and {run} both lead in term {raft.term}")
        self._watch_changes(process, raft)
        for other in self._simulation.processes.values():
            if other.node is not None and other is not process:
                self._no_lease(other, other.node, raft.term)
        index = self.last_committed
        while index and self.committed[index].term >= raft.term:
            index -= 1
        if not raft.log.holds(index, self.committed[index].term if index else 0):
            raise Violation("leader completeness", f"{process} leads in term {raft.term} without entry {index}")

    def _no_lease(self, process: Process, node: Node, term: int) -> None:
        """Whoever has been elected in a later term waited until this one could no longer answer reads by itself."""
        leading = node.raft.leading
        if leading is None or node.raft.term >= term or not leading.settled:
            return
        now_ms = process.clock.monotonic_ms(self._simulation.world.now_us)
        until_ms = leading.lease_until_ms()
        if now_ms < until_ms:
            raise Violation(
                "one lease", f"{process} leads in {node.raft.term} for {until_ms - now_ms} ms more, {term} has begun"
            )

    def _log(self, process: Process, node: Node, view: View) -> None:
        """The log changed: every entry that is new in it is the one that everybody else has of that index and term."""
        raft, log, terms = node.raft, node.raft.log, view.terms
        before = view.last_index
        same = min(before, log.last_index)
        while same > log.base_index and terms.get(same) != log.term(same):
            same -= 1
        if same < before:
            self._cut(process, raft, view, same + 1)
        for index in range(max(same, log.base_index) + 1, log.last_index + 1):
            entry = log.entry(index)
            previous = log.term(index - 1)
            known = self._entries.setdefault((index, entry.term), (entry.payload, previous))
            if known != (entry.payload, previous):
                raise Violation("log matching", f"{process} has another entry {index} of term {entry.term}")
            terms[index] = entry.term
            if entry.payload[:1] == MARK:
                former, voters = raft.membership.at(index - 1).voters, raft.membership.at(index).voters
                if former and len({*former} ^ {*voters}) > 1:
                    raise Violation("one server at a time", f"{process} goes from {former} to {voters}")
        view.last_index, view.last_term = log.last_index, log.last_term

    def _watch_changes(self, process: Process, raft: Raft) -> None:
        """A leader changes the membership: after the change before, and in a term that has begun."""
        leading = raft.leading
        assert leading is not None
        change = leading.change

        def checked(config: Config) -> None:
            if raft.commit < raft.membership.since:
                raise Violation("one change at a time", f"{process}, and {raft.membership.since} is not committed")
            if raft.commit < leading.first_index:
                raise Violation(
                    "change in a term that has begun", f"{process}, and nothing of {raft.term} is committed"
                )
            change(config)

        leading.change = checked  # type: ignore[method-assign]

    def _cut(self, process: Process, raft: Raft, view: View, first: int) -> None:
        if first <= view.commit and first > raft.log.base_index:
            raise Violation("what is committed stays", f"{process} cut its log from {first}, commit is {view.commit}")
        if raft.leading is not None and raft.leading is view.leading:
            if not raft.alone or raft.leading.progress:
                raise Violation("leader append-only", f"{process} cut its log from {first}")
            for index in range(first, view.last_index + 1):  # nobody else ever saw them
                self._entries.pop((index, view.terms[index]), None)
        for index in range(first, view.last_index + 1):
            view.terms.pop(index, None)

    def _commit(self, process: Process, node: Node, view: View) -> None:
        raft, log = node.raft, node.raft.log
        if raft.commit < view.commit:
            raise Violation("commit goes back", f"{process}: {view.commit} to {raft.commit}")
        news = False
        for index in range(max(view.commit, log.base_index) + 1, raft.commit + 1):
            entry = log.entry(index)
            known = self.committed.get(index)
            if known is None:
                news = True
                self.committed[index] = entry
                self.last_committed = max(self.last_committed, index)
                self._carried_out(entry)
            elif known.term != entry.term or known.payload != entry.payload:
                raise Violation("state machine safety", f"{process} carries out another entry {index}: {entry}")
        view.commit = raft.commit
        if news and raft.leading is not None:
            if log.term(raft.commit) != raft.term:
                raise Violation(
                    "own term", f"{process} in {raft.term} commits {raft.commit} of {log.term(raft.commit)}"
                )
            # A change of this turn was made after what came in was counted.
            if not self._durable(raft, view.voters) and not self._durable(raft, raft.config.voters):
                raise Violation(
                    "a majority has it", f"{process} commits {raft.commit}, no majority of {view.voters} has it"
                )

    def _durable(self, raft: Raft, voters: tuple[str, ...]) -> bool:
        """Whether what a leader calls committed is on the disks of a majority; one that was thrown away did have it."""
        index = raft.commit
        term = raft.log.term(index) or 0
        processes = self._simulation.processes
        having = 0
        for voter in voters:
            holder = processes.get(voter)
            member = raft.config.members.get(voter)
            wiped = holder is None or (member is not None and member.disk not in ("", holder.disk.id))
            having += wiped or (holder is not None and holder.disk.holds(index, term))
        return 2 * having > len(voters)

    def _carried_out(self, entry: Entry) -> None:
        """An entry is committed for the first time: each part of it once, and nothing that was said not to be."""
        payload = entry.payload
        if not payload or payload[:1] == MARK:
            return
        for author, number, body in batches.parts_in(payload)[1]:
            if (author, number) in self._parts:
                first = self._parts[author, number]
                raise Violation("carried out once", f"batch {number} of {author!r} in {first} and {entry.index}")
            self._parts[author, number] = entry.index
            for write in batches.writes_in(body)[0]:
                self.commands += 1
                if len(write) > 2 and write[0] == b"SET":
                    self._written.setdefault(write[2], entry.index)
                    if write[2] in self._void:
                        raise Violation("never happened", f"{write} was refused and is carried out in {entry.index}")

    def refused(self, value: bytes) -> None:
        """A client was told that the SET of this value never happened; no other has the same one."""
        self._void.add(value)
        if value in self._written:
            raise Violation("never happened", f"SET of {value!r} was refused after it had been committed")

    def older(self, one: bytes, other: bytes) -> bool:
        """Whether the SET of one value is known to stand in an entry before that of another."""
        return one in self._written and self._written[one] < self._written.get(other, 0)

    def _compare(self, process: Process, node: Node) -> None:
        """Whoever has carried out the same entries is in the same state."""
        index = node.raft.applied
        found = state(node.machine)
        known = self._states.setdefault(index, found)
        if known is not found:
            self.compared += 1
            if known != found:
                differ = {key: (known[key], found[key]) for key in known if known[key] != found[key]}
                raise Violation("equal states", f"{process} after entry {index}: {differ}")
