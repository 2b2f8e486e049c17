"""A group of bare `Raft`s whose every message, disk and clock a test moves by hand.

Messages wait in ``wire`` until they are delivered; `settle` delivers all there
are, and saves what the disks were given, until nothing moves any more. Members
in ``slow_disks`` save nothing, links in ``cuts`` lose everything. After each
step the invariants hold: those of `Raft.check`, one leader a term at most, and
no two members that carried out different entries at one index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from cluster.raft.core import Raft, Timing
from cluster.raft.log import Log
from cluster.raft.membership import Config, Membership, config_in, static
from cluster.raft.messages import Message
from cluster.storage.contract import Entry, HardState

SHARD = 0
STEP_MS = 5.0

Kind = TypeVar("Kind", bound=Message)


class Packet(NamedTuple):
    """One message on its way."""

    sender: str
    to: str
    message: Message


class Draw:
    """Chance that always draws ``value``: how much longer than the election timeout its owner waits."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        """The same number again."""
        return self.value


def entries(terms: Sequence[int], first: int = 1, author: str = "") -> list[Entry]:
    """Entries of these terms, from index ``first`` on; those of one ``author`` are told apart from another's."""
    return [
        Entry(SHARD, first + place, term, f"{author}{first + place}@{term}".encode())
        for place, term in enumerate(terms)
    ]


class Group:
    """Members n1 … n``size``, by default all voters with empty logs; n1 is the first to lose patience."""

    def __init__(self, size: int = 3, *, timing: Timing | None = None, config: Config | None = None) -> None:
        self.timing = timing or Timing()
        self.names = [f"n{number + 1}" for number in range(size)]
        self.config = config or static({name: f"{name}:1" for name in self.names})
        self.now_ms = 0.0
        self.wire: list[Packet] = []
        self.cuts: set[tuple[str, str]] = set()
        self.slow_disks: set[str] = set()
        self.down: set[str] = set()
        self.applied: dict[str, list[Entry]] = {}
        self.leaders: dict[int, str] = {}
        self.draws: dict[str, Draw] = {}
        self.rafts: dict[str, Raft] = {}
        self._disks: dict[str, tuple[HardState, dict[int, Entry]]] = {}
        self._under_way: dict[str, tuple[list[Entry], HardState | None]] = {}
        for place, name in enumerate(self.names):
            self.draws[name] = Draw(place / size)
            self.load(name, [])

    def __getitem__(self, name: str) -> Raft:
        return self.rafts[name]

    # Disks, crashes

    def load(self, name: str, log: Iterable[Entry], *, term: int = 0, vote: str = "") -> None:
        """Puts this on a member's disk and starts it from there, in place of what it was."""
        kept = {entry.index: entry for entry in log}
        term = max([term, *(entry.term for entry in kept.values())])
        self._disks[name] = (HardState(term, vote), kept)
        self.start(name)

    def start(self, name: str, *, config: Config | None = None) -> Raft:
        """Starts a member from its disk; what it had in memory only is gone."""
        hard_state, kept = self._disks[name]
        raft = Raft(
            name, config or self.config, shard=SHARD, timing=self.timing, chance=self.draws.setdefault(name, Draw(0.9))
        )
        membership = Membership(0, raft.config)
        log = [kept[index] for index in sorted(kept)]
        for entry in log:
            membership.note(entry)
        raft.recover(Log(0, 0, log), membership, hard_state)
        raft.advance(self.now_ms)
        self.rafts[name] = raft
        self.applied[name] = []
        self._under_way.pop(name, None)
        self.down.discard(name)
        if name not in self.names:
            self.names.append(name)
        return raft

    def join(self, name: str) -> Raft:
        """A new process that belongs to no configuration yet."""
        self._disks[name] = (HardState(), {})
        return self.start(name, config=Config())

    def crash(self, name: str) -> None:
        """Stops a member: what it had not saved is lost, and so is what is on its way to it."""
        self.down.add(name)
        self._under_way.pop(name, None)
        self.wire = [packet for packet in self.wire if packet.to != name]

    def on_disk(self, name: str) -> tuple[HardState, list[Entry]]:
        """What a crash would leave."""
        hard_state, kept = self._disks[name]
        return hard_state, [kept[index] for index in sorted(kept)]

    def save(self, name: str) -> bool:
        """The disk takes what there is; whether there was anything."""
        self.give(name)
        return self.finish_save(name)

    def give(self, name: str) -> None:
        """The disk begins with what there is, unless it is at something already."""
        if name not in self._under_way:
            unsaved, hard_state = self[name].unsaved()
            if unsaved or hard_state is not None:
                self._under_way[name] = (unsaved, hard_state)

    def finish_save(self, name: str) -> bool:
        """The disk is done with what it was given."""
        work = self._under_way.pop(name, None)
        if work is None:
            return False
        unsaved, hard_state = work
        known, kept = self._disks[name]
        for entry in unsaved:
            kept[entry.index] = entry
            for index in [index for index in kept if index > entry.index]:
                del kept[index]
        self._disks[name] = (hard_state or known, kept)
        self[name].saved(unsaved, hard_state)
        return True

    # Moving

    def collect(self, *names: str) -> None:
        """Puts what members want to send on the wire."""
        for name in names or self._up():
            for to, message in self[name].outgoing():
                if (name, to) not in self.cuts and to not in self.down and to in self.rafts:
                    self.wire.append(Packet(name, to, message))

    def deliver(self, *packets: Packet) -> None:
        """Hands over these messages, whether they are on the wire (and then no more) or not."""
        for packet in packets:
            if packet in self.wire:
                self.wire.remove(packet)
            if packet.to not in self.down:
                self[packet.to].receive(packet.sender, packet.message)
                self.carry_out(packet.to)

    def waiting(self, kind: type[Kind], *, sender: str | None = None, to: str | None = None) -> list[Packet]:
        """What is on the wire of a kind, after collecting it."""
        self.collect()
        return [
            packet
            for packet in self.wire
            if type(packet.message) is kind and sender in (None, packet.sender) and to in (None, packet.to)
        ]

    def sent(self, name: str, kind: type[Kind], *, to: str | None = None) -> list[Kind]:
        """What a member has on the wire of a kind."""
        found = (packet.message for packet in self.waiting(kind, sender=name, to=to))
        return [message for message in found if isinstance(message, kind)]

    def lose(self, kind: type[Message] = Message, *, sender: str | None = None, to: str | None = None) -> None:
        """Loses what is on the wire."""
        self.collect()
        self.wire = [
            packet
            for packet in self.wire
            if not (isinstance(packet.message, kind) and sender in (None, packet.sender) and to in (None, packet.to))
        ]

    def settle(self, until: Callable[[], bool] | None = None) -> None:
        """Saves and delivers until nothing moves (or ``until``), without any time passing."""
        for _ in range(10_000):
            if until is not None and until():
                return
            saved = False
            for name in self._up():
                self.carry_out(name)
                if name not in self.slow_disks:
                    saved |= self.save(name)
                self.carry_out(name)
            self.collect()
            if self.wire:
                self.deliver(self.wire[0])
            elif not saved:
                return
        raise AssertionError("it never settles")

    def carry_out(self, name: str) -> None:
        """Carries out what is committed, and looks whether everything is as it must be."""
        raft = self[name]
        while raft.applied < raft.commit:
            entry = raft.log.entry(raft.applied + 1)
            self._agree(name, entry)
            self.applied[name].append(entry)
            raft.carried_out(entry.index)
        raft.check()
        if raft.leading is not None:
            assert self.leaders.setdefault(raft.term, name) == name, f"two leaders in term {raft.term} (figure 3)"

    def _agree(self, name: str, entry: Entry) -> None:
        """State machine safety (figure 3)."""
        for other, applied in self.applied.items():
            for one in applied:
                assert one.index != entry.index or one == entry, f"{other} carried out {one}, {name} {entry}"

    def pass_ms(self, ms: float, *, until: Callable[[], bool] | None = None) -> None:
        """Lets time pass for all that are up, everything being delivered at once; or until something is so."""
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            if until is not None and until():
                return
            self.now_ms = min(self.now_ms + STEP_MS, end_ms)
            for name in self._up():
                self[name].advance(self.now_ms)
                self[name].tick()
            self.settle(until)
        if until is not None:
            assert until(), f"not within {ms} ms"

    def tick(self, *names: str) -> None:
        """Runs the timers of these members, or of all, and delivers nothing."""
        for name in names or self._up():
            self[name].advance(self.now_ms)
            self[name].tick()

    def wait(self, ms: float) -> None:
        """Only the clock moves: nobody ticks."""
        self.now_ms += ms

    # What tests do often

    def elect(self, name: str, *, settled: bool = True) -> Raft:
        """Makes a member the leader: the only one that loses patience. Not ``settled``: nobody has heard of it yet.

        Whoever leads gives up first.
        """
        for one in self._up():
            if self[one].leading is not None and one != name:
                self[one].follow_nobody()
        draws = {one: draw.value for one, draw in self.draws.items()}
        for one, draw in self.draws.items():
            draw.value = 0.0 if one == name else 9.0
        for one in self._up():
            if self[one].leading is None:
                self[one].rest()
        self.pass_ms(4 * self.timing.election_ms, until=lambda: self[name].leading is not None)
        for one, value in draws.items():
            self.draws[one].value = value
        for one in self._up():
            if self[one].leading is None:
                self[one].rest()
        self.settle(lambda: not settled)
        return self[name]

    def write(self, name: str, payload: bytes = b"x") -> int:
        """A leader gets another entry and sends it; nothing is delivered yet. Its index."""
        raft = self[name]
        assert raft.leading is not None
        index = raft.propose(payload)
        raft.leading.replicate_all()
        return index

    def cut(self, *names: str, from_: Iterable[str] | None = None) -> None:
        """Cuts members off from the others, or from some, in both directions."""
        others = [one for one in (from_ or self.names) if one not in names]
        self.cuts |= {(one, other) for one in names for other in others}
        self.cuts |= {(other, one) for one in names for other in others}

    def heal(self) -> None:
        """All links work again."""
        self.cuts.clear()

    def leader(self) -> str | None:
        """Whoever leads in the latest term, of those that are up."""
        found = [(self[name].term, name) for name in self._up() if self[name].leading is not None]
        return max(found)[1] if found else None

    def payloads(self, name: str) -> list[bytes]:
        """What a member carried out, without empty entries and configurations."""
        return [entry.payload for entry in self.applied[name] if entry.payload and config_in(entry.payload) is None]

    def log_of(self, name: str) -> list[tuple[int, bytes]]:
        """A member's whole log: (term, payload)."""
        log = self[name].log
        return [
            (log.entry(index).term, log.entry(index).payload) for index in range(log.base_index + 1, log.last_index + 1)
        ]

    def _up(self) -> list[str]:
        return [name for name in self.names if name not in self.down]
