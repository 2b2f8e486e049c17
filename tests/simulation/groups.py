"""What must hold of one shard's group after every turn, whatever happens: the paper's safety rules and this design's.

Most of it compares one process with what others were seen to do: one leader a
term, one entry for each index and term, the same state after the same entries,
nothing committed that is lost. Only what changed since the last turn is looked at.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from cluster import batch as batches
from cluster.machine.machine import Machine
from cluster.raft.membership import MARK, Config, config_in
from cluster.raft.messages import Appended, Message, Vote, Voted
from cluster.ring.placement import place
from cluster.ring.slots import SYSTEM, slot_of
from cluster.shard import Shard
from cluster.storage.contract import Entry
from tests.front import state
from tests.simulation.process import commands
from tests.simulation.referee import Referee
from tests.simulation.world import SECOND, Violation

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.raft.core import Raft
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation
    from tests.simulation.watch import Watch

STATES_EVERY = 8
"""The whole state is compared after every so many entries, where a turn ends there."""

ELECTIONS_MAX = 30
"""More leaders in a second than any mishap brings: they chase each other."""

Log = tuple[int, int]
"""How far a log is: the term and the index of its last entry."""


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


class Group:
    """The record of one shard.

    ``compared`` is how often two states were; ``config`` the last one committed; ``referee`` watches its locks.
    """

    def __init__(self, simulation: Simulation, watch: Watch, number: int) -> None:
        self._simulation = simulation
        self._watch = watch
        self.number = number
        self._views: dict[str, View] = {}
        self._leaders: dict[int, tuple[str, str]] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._candidates: dict[tuple[int, str], Log] = {}
        self._had: dict[str, Log] = {}  # by data folder: the log of the replica that was given up there
        self._acked: dict[str, None] = {}  # members that said they have something of the log, since they are members
        self._entries: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        self.committed: dict[int, Entry] = {}
        self.last_committed = 0
        self.config: Config | None = None
        self._parts: dict[tuple[bytes, int], int] = {}
        self._states: dict[int, dict[str, Any]] = {}
        self.leaders_us: list[tuple[int, int]] = []  # when one began to lead, and when its process had been started
        self._elected_us: deque[int] = deque(maxlen=ELECTIONS_MAX)
        self.referee: Referee | None = (
            None
            if number == SYSTEM
            else Referee(simulation.world, commands(), number, simulation.shape.shards, watch.standing)
        )
        self.compared = 0
        self.elections = 0

    # Moments

    def started(self, process: Process, shard: Shard) -> None:
        """A process recovered from its disk."""
        view = self._views[process.name] = View(shard.raft)
        self._log(process, shard, view)
        self._compare(process, shard)

    def crashed(self, process: Process, raft: Raft) -> None:
        """A run is over. A term that its leader never made durable never was: nobody heard of it."""
        self._views.pop(process.name, None)
        if raft.leading is not None and process.disk.hard_state(self.number).term < raft.term:
            self._leaders.pop(raft.term, None)
            for key in [key for key in self._entries if key[1] == raft.term]:
                del self._entries[key]

    def installed(self, process: Process, shard: Shard) -> None:
        """A snapshot took the place of a log."""
        view = self._views[process.name]
        raft = shard.raft
        if raft.commit < view.commit:
            raise Violation("commit goes back", f"{process} installed {raft.commit}, had committed {view.commit}")
        view.commit = view.applied = raft.applied
        view.last_index = -1
        self._log(process, shard, view)
        self._compare(process, shard)

    def compacted(self, process: Process, shard: Shard) -> None:
        """A log was cut behind a checkpoint."""
        raft = shard.raft
        if raft.log.base_index > raft.applied:
            raise Violation("forgotten too early", f"{process} cut its log to {raft.log.base_index}: {shard_of(shard)}")

    def forsakes(self, process: Process, node: Node) -> None:
        """A node decided to give its replica up: not one that a leader still sends something to."""
        raft = process.raft(self.number)
        quiet_ms = node.monotonic_ms - raft.contact_ms
        if self.config is not None and process.name in self.config and quiet_ms < raft.timing.election_ms:
            raise Violation("a member keeps its replica", f"{process} hears its leader, and gives up {self.number}")

    def gives_up(self, process: Process, shard: Shard) -> None:
        """A replica is about to be emptied: it must not be part of the group any more."""
        raft = shard.raft
        since = raft.membership.since
        configs = [(0, self._founding())]
        for index, entry in sorted(self.committed.items()):
            config = config_in(entry.payload)
            if config is not None:
                configs.append((index, config))
        begin = max(place for place, (index, _) in enumerate(configs) if index <= since)
        outside = any(process.name not in config for index, config in configs[begin:] if index)
        outside = outside or all(
            process.name not in config.voters for _, config in configs
        )  # it was only about to come
        if not outside:
            raise Violation("a member keeps its replica", f"{process} gives up {shard_of(shard)}")
        if raft.log.saved_index < raft.log.last_index:
            raise Violation("emptied while it is written", f"{process}: {shard_of(shard)}")

    def _founding(self) -> Config:
        """The configuration the group began with."""
        founders, shape = self._simulation.founding.members, self._simulation.shape
        if self.number == SYSTEM:
            return self._simulation.founding
        nodes = place(shape.shards, shape.replicas, dict.fromkeys(founders, ""))[self.number].nodes
        return Config(nodes, (), {name: founders[name] for name in nodes})

    def empties(self, process: Process, shard: Shard) -> None:
        """A replica is emptied now: nobody counts on what it has."""
        if self.config is not None and process.name in self.config.voters and process.name in self._acked:
            raise Violation("a member keeps its replica", f"{process} empties {shard_of(shard)}")
        had = max(self._had.get(process.disk.id, (0, 0)), process.disk.last(self.number))
        self._had[process.disk.id] = had

    def given_up(self, process: Process, shard: Shard) -> None:
        """A replica was emptied: nothing of it is left."""
        raft = shard.raft
        self._views[process.name] = View(raft)
        left = raft.log.last_index or raft.applied or shard.machine.keyspace.values or shard.member
        if left or not process.disk.empty_of(self.number):
            raise Violation("nothing is left of a replica given up", f"{process}: {shard_of(shard)}")

    def turned(self, process: Process, shard: Shard) -> None:
        """A turn is over."""
        raft, log = shard.raft, shard.raft.log
        try:
            raft.check()
        except AssertionError as error:
            raise Violation("raft.check", f"{process}: {error!r} {shard_of(shard)}") from error
        view = self._views[process.name]
        if raft.term != view.term:
            if raft.term < view.term:
                raise Violation("term goes back", f"{process}: {view.term} to {raft.term}")
            view.term = raft.term
        if log.last_index != view.last_index or log.last_term != view.last_term:
            self._log(process, shard, view)
        if raft.leading is not view.leading:
            view.leading = raft.leading
            if raft.leading is not None:
                self._elected(process, raft)
        if raft.commit != view.commit:
            self._commit(process, shard, view)
        view.voters = raft.config.voters
        if raft.applied != view.applied:
            view.applied = raft.applied
            if raft.applied % STATES_EVERY == 0:
                self._compare(process, shard)

    def says(self, process: Process, shard: Shard, peer: str, message: Message) -> None:
        """A message leaves: what it promises must be durable by now."""
        kind = type(message)
        if kind is Appended:
            assert isinstance(message, Appended)
            term = shard.raft.log.term(message.index)
            if not process.disk.holds(self.number, message.index, term or 0):
                raise Violation("durable before acknowledged", f"{process} to {peer}: {message}")
            self._acked[process.name] = None
        elif kind is Voted:
            assert isinstance(message, Voted)
            if message.granted and not message.pre:
                self._vote(process, message.term, peer)
        elif kind is Vote:
            assert isinstance(message, Vote)
            if not message.pre:
                self._candidates[message.term, process.name] = (message.last_term, message.last_index)
                self._vote(process, message.term, process.name)

    # Rules

    def _vote(self, process: Process, term: int, candidate: str) -> None:
        first = self._votes.setdefault((process.disk.id, term), candidate)
        if first != candidate:
            raise Violation("one vote a term", f"{process} voted for {first} and {candidate} in term {term}")
        log = self._candidates.get((term, candidate))
        had = self._had.get(process.disk.id)
        if had is not None and log is not None and log < had:
            raise Violation("votes by what it had", f"{process}, which had {had}, votes for {candidate}, who has {log}")
        hard_state = process.disk.hard_state(self.number)
        if hard_state.term < term or (hard_state.term == term and hard_state.vote != candidate):
            raise Violation("durable before voted", f"{process} for {candidate} in {term}, its disk has {hard_state}")

    def _elected(self, process: Process, raft: Raft) -> None:
        self.elections += 1
        self._elected_us.append(self._simulation.world.now_us)
        self.leaders_us.append((self._simulation.world.now_us, process.started_us))
        if len(self._elected_us) == ELECTIONS_MAX and self._elected_us[-1] - self._elected_us[0] < SECOND:
            raise Violation("steady leaders", f"shard {self.number} had {ELECTIONS_MAX} of them in a second")
        run = (process.name, process.disk.id + str(process.boot))
        first = self._leaders.setdefault(raft.term, run)
        self._simulation.world.note(process.name, "leads", f"shard {self.number} in term {raft.term}")
        if first != run:
            raise Violation("election safety", f"{first} and {run} both lead in term {raft.term}")
        self._watch_changes(process, raft)
        for other in self._simulation.processes.values():
            if other.node is not None and other is not process:
                self._no_lease(other, other.raft(self.number), raft.term)
        index = self.last_committed
        while index and self.committed[index].term >= raft.term:
            index -= 1
        if not raft.log.holds(index, self.committed[index].term if index else 0):
            raise Violation("leader completeness", f"{process} leads in term {raft.term} without entry {index}")

    def _no_lease(self, process: Process, raft: Raft, term: int) -> None:
        """Whoever has been elected in a later term waited until this one could no longer answer reads by itself."""
        leading = raft.leading
        if leading is None or raft.term >= term or not leading.settled:
            return
        now_ms = process.clock.monotonic_ms(self._simulation.world.now_us)
        until_ms = leading.lease_until_ms()
        if now_ms < until_ms:
            raise Violation(
                "one lease", f"{process} leads in {raft.term} for {until_ms - now_ms} ms more, {term} has begun"
            )

    def _log(self, process: Process, shard: Shard, view: View) -> None:
        """The log changed: every entry that is new in it is the one that everybody else has of that index and term."""
        raft, log, terms = shard.raft, shard.raft.log, view.terms
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
                if self._begins_again(process, raft, index):
                    former = ()
                if former and len({*former} ^ {*voters}) > 1:
                    raise Violation("one server at a time", f"{process} goes from {former} to {voters}")
        view.last_index, view.last_term = log.last_index, log.last_term

    def _begins_again(self, process: Process, raft: Raft, index: int) -> bool:
        """Whether it was told who is there, or knows it from when it was here before, and begins at the first entry."""
        if raft.log.base_index or raft.membership.at(index - 1) is not raft.membership.at(0):
            return False
        return process.disk.id in self._had or not process.founders.members

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
            if self.number != SYSTEM and not self._simulation.by_hand:
                self._judge_change(process, raft.config, config)
            change(config)

        leading.change = checked  # type: ignore[method-assign]

    def _judge_change(self, process: Process, former: Config, config: Config) -> None:
        """A shard is on as many nodes as it should be, whatever it is on its way to, and stays while it is to stay."""
        node = process.node
        assert node is not None
        if b"paused" in node.system.machine.keyspace.values and len(config.members) != len(former.members):
            raise Violation("paused", f"{process} changes {former} of shard {self.number} to {config}")
        targets = node._moves.targets()
        if len(config.voters) < len(former.voters) and targets:
            wanted = min(len(targets[self.number].nodes), len(former.voters))
            if len(config.voters) < wanted:
                raise Violation("as many replicas", f"{process} leaves shard {self.number} with {config.voters}")

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

    def _commit(self, process: Process, shard: Shard, view: View) -> None:
        raft, log = shard.raft, shard.raft.log
        if raft.commit < view.commit:
            raise Violation("commit goes back", f"{process}: {view.commit} to {raft.commit}")
        news = False
        for index in range(max(view.commit, log.base_index) + 1, raft.commit + 1):
            entry = log.entry(index)
            known = self.committed.get(index)
            if known is None:
                news = True
                if index != self.last_committed + 1:
                    raise Violation("one after the other", f"{process} commits {index} after {self.last_committed}")
                self.committed[index] = entry
                self.last_committed = index
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
            wiped = holder is None or self._watch.wiped(self.number, voter, holder.disk.id)
            having += wiped or (holder is not None and holder.disk.holds(self.number, index, term))
        return 2 * having > len(voters)

    def _carried_out(self, entry: Entry) -> None:
        """An entry is committed for the first time: each part of it once, and nothing that was said not to be."""
        payload = entry.payload
        if payload[:1] == MARK:
            self.config = config = config_in(payload)
            assert config is not None
            self._acked = dict.fromkeys(name for name in self._acked if name in config)
        if not payload or payload[:1] == MARK:
            return
        for author, number, body in batches.parts_in(payload)[1]:
            if author and (author, number) in self._parts:
                first = self._parts[author, number]
                raise Violation("carried out once", f"batch {number} of {author!r} in {first} and {entry.index}")
            self._parts[author, number] = entry.index
            for write in batches.writes_in(body)[0]:
                self._watch.written(self.number, write, entry.index)
        if self.referee is not None:
            machine = self.referee.machine
            loaders = dict(machine.loaders)
            self.referee.carry_out(entry)
            self._watch.caches.judge_loaders(entry, loaders, machine)
            if entry.index % STATES_EVERY == 0:
                self._states[entry.index] = found = _state(self.referee.machine)
                self._judge_keys(found)

    def _compare(self, process: Process, shard: Shard) -> None:
        """Whoever has carried out the same entries is in the same state, of keys that belong there."""
        index = shard.raft.applied
        found = _state(shard.machine)
        known = self._states.setdefault(index, found)
        if known is not found:
            self.compared += 1
            if known != found:
                differ = {key: (known[key], found[key]) for key in known if known[key] != found[key]}
                raise Violation("equal states", f"{process} after entry {index} of {self.number}: {differ}")
        elif self.number != SYSTEM:
            self._judge_keys(found)

    def _judge_keys(self, found: dict[str, Any]) -> None:
        slot_shard = self._simulation.slot_shard
        strangers = [key for key in found["values"] if slot_shard[slot_of(key)] != self.number]
        if sorted(strangers) != found["foreign"]:
            raise Violation(
                "every key in its shard", f"{strangers} in shard {self.number}, {found['foreign']} are parts"
            )

    pictured = _compare


def _state(machine: Machine) -> dict[str, Any]:
    """All that replicas must agree on."""
    letters = {number: (letter.args, letter.back) for number, letter in machine.letters.items()}
    return {**state(machine), "letters": letters, "dropped": dict(machine.dropped), "foreign": sorted(machine.foreign)}


def shard_of(shard: Shard) -> str:
    """Where a shard's replica stands, for people."""
    raft = shard.raft
    return (
        f"shard {shard.number} {raft.role} term {raft.term} leader {raft.leader} log {raft.log.base_index} to"
        f" {raft.log.last_index} (saved {raft.log.saved_index}) commit {raft.commit} applied {raft.applied}"
        f" voters {raft.config.voters} learners {raft.config.learners}"
    )
