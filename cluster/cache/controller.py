"""The cache of one node: what its clients read and write through it, and what it says to the leaders of shards.

For each shard the node keeps an *office*: its standing with the shard's leader.
It has a lease, counted on the node's own clock from when it asked for what the
leader granted. Lines are good only while it stands.

A client whose line is not there, or not good, is kept with the *miss* of that key
until the line is granted. When another leads, the office begins anew: lines go,
what was changed is written back to the new one. When the leader says that the
cache was closed (`Lost`), what was not written back is lost.

The rules are those of `cluster.cache.mesi`; what is due to messages that come
late, twice or never is dealt with before: grants count if they are what was
asked for, and are newer than any recall.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cluster.batch import Client, node_of
from cluster.cache.lines import FOREVER_MS, Line, Lines, Traffic
from cluster.cache.mesi import Action, Event, State
from cluster.cache.office import REPEAT_MS, Office
from cluster.cache.snooping import Replica
from cluster.cache.write_backs import WriteBacks
from cluster.machine.reply import OK, CommandError, Reply
from cluster.raft.messages import (
    Census,
    Grant,
    Join,
    Joined,
    Lost,
    Message,
    Recall,
    Release,
    Renewed,
    Surrendered,
    Want,
    WrittenBack,
    Yield,
)

SHARE = 0.89
"""How much of a time that another node names is relied on: clocks may differ by a tenth in pace, and the log's nears
the wall clock by a hundredth."""

AGAIN_MS = 1.0
GIVE_UP_MS = 5_000.0

THROUGH_MAX = 16
"""So many writes of such a line go to memory at once; for the next it is asked whether it can be owned."""

MISS: Reply = object()  # type: ignore[assignment]
"""There is no line that could answer."""

OVERWRITTEN_MS = -FOREVER_MS
"""Up to when a line may be read that is overwritten."""


class Leader(NamedTuple):
    """Who leads a shard, as far as is known here, in which term."""

    name: str | None
    term: int


class Write(NamedTuple):
    """A client's CACHE.SET: ``condition`` is NX, XX or nothing; ``args`` is what to log where no line can be held."""

    client: Client
    value: bytes
    life_ms: int | None
    condition: bytes
    args: list[bytes]


class Miss:
    """What waits for a line: who reads it, and what is written to it, in order."""

    __slots__ = ("asked_ms", "number", "office", "own", "readers", "since_ms", "writes")

    def __init__(self, office: Office, now_ms: float) -> None:
        self.office = office
        self.number = 0
        self.own = False
        self.readers: list[tuple[Client, int]] = []  # with the first request that may answer
        self.writes: deque[Write] = deque()
        self.since_ms = now_ms
        self.asked_ms = 0.0


class Controller:
    """One node's cache. ``mail`` is what to send, (shard, message), to the shard's leader.

    ``answers`` are for clients, ``plain`` writes that must take the way of every
    other command: (shard, client, arguments). ``lost`` is how much was changed that
    memory may never have, by shard, until somebody takes it. Shards are asked for through
    ``leader_of``, ``is_lost`` (whether nobody has led for long), ``sure_until``
    (until when this node is certain to lead a shard in that term, 0 when it does
    not) and ``replica_of``. ``propagates`` says whether lines stay that others have
    written. ``now_ms`` is when the turn began on a monotonic clock, and ``clock_ms``,
    if it is given, tells that clock's time within the turn.
    """

    def __init__(
        self,
        author: bytes,
        lines: Lines,
        *,
        leader_of: Callable[[int], Leader],
        is_lost: Callable[[int], bool],
        sure_until: Callable[[int, int], float],
        replica_of: Callable[[int], Replica | None],
        writeback_ms: float,
        no_leader: Callable[[int], CommandError],
        propagates: bool = True,
    ) -> None:
        self.author = author
        self.name = node_of(author)
        self.lines = lines
        self.traffic = Traffic()
        self.mail: list[tuple[int, Message]] = []
        self.answers: list[tuple[Client, Reply]] = []
        self.plain: list[tuple[int, Client, list[bytes]]] = []
        self.lost: dict[int, int] = {}
        self.now_ms = 0.0
        self.clock_ms: Callable[[], float] | None = None
        self.turn = 0
        self.offices: dict[int, Office] = {}
        self.write_backs = WriteBacks(
            author, lines, self.traffic, overdue_ms=writeback_ms, say=self._say, wake=self._at
        )
        self._leader_of = leader_of
        self._is_lost = is_lost
        self._sure_until = sure_until
        self._replica_of = replica_of
        self.propagates = propagates
        self._no_leader = no_leader
        self._misses: dict[bytes, Miss] = {}
        self._number = 0
        self._retired = False
        self._next_ms = FOREVER_MS
        self._next_renewal_ms = FOREVER_MS

    # What clients do

    def read(self, key: bytes) -> Reply:
        """The value if a line has it, else `MISS`; None is "no such key"."""
        line = self.lines.get(key)
        if line is None or not self._is_good(line):
            self.traffic.misses += 1
            return MISS
        self.traffic.hits += 1
        line.reads += 1
        self.lines.touch(key)
        return line.value

    def hit(self, key: bytes) -> bytes | None:
        """The value if a line has one; else None, and it is for `read` to say, and to count, what that means."""
        line = self.lines.get(key)
        if line is None:
            return None
        office = line.office  # as `_is_good` has it, without a call for every read
        if office.turn != self.turn:
            self._enter(office)
        if self.now_ms >= office.until_ms or not (line.end_ms == FOREVER_MS or self._lasts(line)):
            return None
        value = line.value
        if value is not None:
            self.traffic.hits += 1
            line.reads += 1
            self.lines.touch(key)
        return value

    def _is_good(self, line: Line) -> bool:
        """Whether clients may use the line now."""
        if line.office.turn != self.turn:
            self._enter(line.office)
        return self.now_ms < line.office.until_ms and (line.end_ms == FOREVER_MS or self._lasts(line))

    def _lasts(self, line: Line) -> bool:
        """Whether a key with a deadline lives on.

        The turn may have lasted since it began: nobody renews the life of a key, so nothing shows later that all was
        well, as it does for a lease.
        """
        return (self.now_ms if self.clock_ms is None else self.clock_ms()) < line.end_ms

    def _enter(self, office: Office) -> None:
        """A line of this shard is used for the first time in this turn."""
        office.turn = self.turn
        if office.leads:
            office.until_ms = self._sure_until(office.number, office.term)

    def await_read(self, client: Client, number: int, key: bytes) -> None:
        """A client waits for what `read` did not have; ``number`` is the key's shard."""
        line = self.lines.get(key)
        if line is not None and self._is_good(line):
            self.answers.append((client, line.value))
            return
        miss = self._miss(number, key)
        miss.readers.append((client, self._number if miss.number else 0))
        self._pursue(key, miss)

    def write(self, key: bytes, value: bytes, life_ms: int | None = None, condition: bytes = b"") -> Reply:
        """Writes to a line this node owns, OK or None as SET answers; `MISS` if there is none that could hold it."""
        line = self.lines.get(key)
        if line is None or key in self._misses or self._retired or not self._is_good(line):
            return MISS
        if line.state not in (State.EXCLUSIVE, State.MODIFIED):
            return MISS
        if condition and (line.value is not None) == (condition == b"NX"):
            return None
        if not self.lines.fits(key, value):
            return MISS
        self.lines.move(line, Event.WRITE)
        self.lines.change(key, line, value)
        line.dies_ms, line.end_ms = None, FOREVER_MS
        if life_ms is not None:
            line.dies_ms = self.now_ms + life_ms
            line.end_ms = self.now_ms + life_ms * SHARE
        self.write_backs.note(key, self.now_ms)
        self._make_room()
        return OK

    def await_write(self, write: Write, number: int, key: bytes) -> None:
        """A client waits to do what `write` did not; ``number`` is the key's shard."""
        if self._retired or not self.lines.fits(key, write.value) or self._goes_through(number, key):
            self.write_through(write.client, number, write.args)
            return
        miss = self._miss(number, key)
        miss.writes.append(write)
        self._pursue(key, miss)

    def _goes_through(self, number: int, key: bytes) -> bool:
        """Whether others read the line so much that it is not worth while to own it, as its leader said of late."""
        office = self.offices.get(number)
        count = office.through.get(key) if office is not None and key not in self._misses else None
        if office is None or count is None:
            return False
        if count == THROUGH_MAX:
            del office.through[key]
            return False
        office.through[key] = count + 1
        return True

    def _miss(self, number: int, key: bytes) -> Miss:
        miss = self._misses.get(key)
        if miss is None:
            self._make_way(key)
            miss = self._misses[key] = Miss(self._office(number), self.now_ms)
        return miss

    def _make_way(self, key: bytes) -> None:
        """Gives up a line that is to be asked for: memory must have what it changed before it is granted again.

        One that is read meanwhile may stay, and so may one that will be.
        """
        line = self.lines.get(key)
        if line is None or key in line.office.overwritten:
            return
        if not (line.state is State.SHARED and self._is_good(line)):
            self._leave(key)

    def _office(self, number: int) -> Office:
        office = self.offices.get(number)
        if office is None:
            office = self.offices[number] = Office(number)
            self._follow(office)
            self._look_at_replica(office)
        return office

    def write_through(self, client: Client, number: int, args: list[bytes]) -> None:
        """A write that must be durable before it is answered, or seen: it goes the way of every other command."""
        self.plain.append((number, client, args))

    def evict(self, key: bytes) -> bool:
        """Gives a line up; whether there was one."""
        return self._leave(key)

    def flush(self, client: Client | None) -> None:
        """Writes back all that is dirty; the client is answered with how many once that is durable."""
        if client is None:
            self.write_backs.send_all(self.now_ms)
        else:
            self.write_backs.flush(client, self.offices.values(), self.now_ms)
            self.answers += self.write_backs.flushed()

    def retire(self) -> None:
        """The node stops: what is dirty is written back, and from now on every write goes to memory at once."""
        self._retired = True
        self.write_backs.send_all(self.now_ms)

    def holds(self, keys: Iterable[bytes]) -> bool:
        """Whether all of them can be answered from lines, now."""
        return all((line := self.lines.get(key)) is not None and self._is_good(line) for key in keys)

    def state(self, key: bytes) -> str:
        """The line's MESI state, as a client may rely on it."""
        line = self.lines.get(key)
        return line.state.value if line is not None and self._is_good(line) else State.INVALID.value

    def resize(self, max_bytes: int) -> None:
        """A new limit, from now on."""
        self.lines.max_bytes = max_bytes
        self._make_room()

    @property
    def waiting(self) -> bool:
        """Whether anybody waits for a line."""
        return bool(self._misses)

    @property
    def dirty(self) -> int:
        """How many lines memory does not have as they are, or may not have."""
        return self.write_backs.count(self.offices.values())

    # Lines that go

    def _leave(self, key: bytes) -> bool:
        """A line goes of its own: memory gets what it changed, and the leader hears of it."""
        line = self.lines.get(key)
        if line is None:
            return False
        office = line.office
        if Action.WRITE_BACK in self.lines.move(line, Event.LEAVE):
            self.write_backs.send(office, [key], self.now_ms)
        self._drop(key, line)
        if key not in self._misses:  # else what it asked for would be taken for what it gave up
            self._say(office, Release(office.term, self.author, office.granted, key, office.last))
        return True

    def _drop(self, key: bytes, line: Line) -> None:
        self.lines.remove(key)
        line.office.overwritten.forget(key)
        line.office.through.pop(key, None)

    def _make_room(self) -> None:
        for key in self.lines.overdue():
            self.traffic.evictions += 1
            self._leave(key)

    # What leaders say

    def receive(self, number: int, message: Message) -> None:
        """A leader's word about a shard."""
        office = self.offices.get(number)
        if office is None or message.term < office.term:
            return
        if message.term > office.term:
            self._follow(office)
            if message.term != office.term:
                return  # it will be said again
        match message:
            case Joined():
                self._on_joined(office, message)
            case Grant():
                self._on_grant(office, message)
            case Recall():
                self._on_recall(office, message)
            case WrittenBack():
                self.write_backs.confirm(office, message.number, self.now_ms)
                self.answers += self.write_backs.flushed()
            case Census():
                self._say(office, Surrendered(office.term, self.author, office.last))
                self.write_backs.resend(office, self.now_ms)
            case Lost():
                self._on_lost(office, message.base)

    def renewed(self, message: Renewed) -> None:
        """Leases stand, counted from when this node asked."""
        sent_ms = message.sent_us / 1000
        if sent_ms > self.now_ms:
            return  # said to an earlier run of this machine
        for number, term, base in message.offices:
            office = self.offices.get(number)
            if office is not None and (office.term, office.base) == (term, base):
                self._lease(office, sent_ms, message.lease_ms)

    def _lease(self, office: Office, asked_ms: float, lease_ms: int) -> None:
        if office.leads:
            return  # it stands while this node leads
        office.until_ms = max(office.until_ms, asked_ms + lease_ms * SHARE)
        self._next_renewal_ms = min(self._next_renewal_ms, self.now_ms + lease_ms / 5)
        self._at(self._next_renewal_ms)

    def _on_joined(self, office: Office, message: Joined) -> None:
        if office.joining == message.number:
            office.base = office.last = message.number
            office.joining = 0
            self._ask_anew(office)

    def _on_grant(self, office: Office, message: Grant) -> None:
        key, miss = message.key, self._misses.get(message.key)
        office.granted = max(office.granted, message.serial)
        if message.number == 0:
            self._on_update(office, message)
        elif miss is None or miss.number != message.number or miss.office is not office:
            self._decline(office, message)
        elif message.serial < office.floor:
            miss.number = 0
            self._pursue(key, miss)
        else:
            del self._misses[key]
            self._lease(office, miss.asked_ms, message.lease_ms)
            if message.refused:
                code, _, text = message.refused.partition(" ")
                self._answer_readers(miss, CommandError(text, code))
                self._go_plain(miss)
            elif message.state and self.lines.fits(key, message.value):
                self._fill(office, message, miss.asked_ms)
                self._use(key, miss, message.number)
                self._make_room()
            else:
                self._do_without(office, message, miss)

    def _on_update(self, office: Office, message: Grant) -> None:
        """A line that was read often, and written by another, comes unasked."""
        line, miss = self.lines.get(message.key), self._misses.get(message.key)
        if miss is None and line is None and message.serial > office.floor and office.base:
            self.traffic.updates += 1
            self._fill(office, message, self.now_ms)
            self._make_room()
        else:
            self._decline(office, message)

    def _do_without(self, office: Office, message: Grant, miss: Miss) -> None:
        """A line that cannot be held, or not be owned: others read it so much that it is written to memory at once."""
        key = message.key
        if message.state or not message.through:
            self._leave(key)
        elif self.lines.get(key) is not None:
            office.through[key] = 0
        if message.state:
            self._say(office, Release(office.term, self.author, office.granted, key, office.last))
        self._answer_readers(miss, message.value, before=message.number)
        self._go_plain(miss)
        if miss.readers:
            self._again(key, miss)

    def _decline(self, office: Office, message: Grant) -> None:
        """What nobody waits for any more, and is not held as it says: the leader takes it to be."""
        if not message.state or message.key in self._misses:
            return
        line = self.lines.get(message.key)
        if line is None:
            self._say(office, Release(office.term, self.author, office.granted, message.key, office.last))
        elif message.state == "E" and line.state in (State.SHARED, State.INVALID):
            self._leave(message.key)

    def _fill(self, office: Office, message: Grant, asked_ms: float) -> None:
        event = Event.FILL_EXCLUSIVE if message.state == "E" else Event.FILL_SHARED
        end_ms = FOREVER_MS if message.rest_ms < 0 else asked_ms + message.rest_ms * SHARE
        line = Line(office, message.value, end_ms)
        former = self.lines.get(message.key)
        if former is not None:
            line.state = former.state
        line.move(event)
        office.through.pop(message.key, None)
        self.lines.add(message.key, line)
        replica, shared = office.replica, line.state is State.SHARED
        if replica is not None and not office.overwritten.granted(message.key, message.index, replica, shared=shared):
            self.lines.move(line, Event.OVERWRITE)
            line.end_ms = OVERWRITTEN_MS

    def _use(self, key: bytes, miss: Miss, number: int) -> None:
        """A line came: those who waited for it have their turn; what it says was so after that request was sent."""
        line = self.lines.get(key)
        assert line is not None
        self._answer_readers(miss, line.value, before=None if self._is_good(line) else number)
        if self._retired:
            self._go_plain(miss)
        while miss.writes:
            write = miss.writes[0]
            reply = self.write(key, write.value, write.life_ms, write.condition)
            if reply is MISS:
                break
            self.answers.append((write.client, reply))
            miss.writes.popleft()
        if miss.readers or miss.writes:
            self._again(key, miss)

    def _again(self, key: bytes, miss: Miss) -> None:
        """The miss is not over: the lease, or the key's life, was before the line could be used, maybe."""
        self._make_way(key)
        line = self.lines.get(key)
        if line is not None and self._is_good(line):
            self._answer_readers(miss, line.value)
        miss.number = 0
        self._misses[key] = miss
        if miss.asked_ms < self.now_ms:
            self._pursue(key, miss)
        else:
            self._at(self.now_ms + AGAIN_MS)  # a leader on this node would say the same as long as the turn lasts

    def _answer_readers(self, miss: Miss, reply: Reply, before: int | None = None) -> None:
        """Those who asked; with ``before``, only who did before that request was sent."""
        answered = [reader for reader in miss.readers if before is None or reader[1] < before]
        miss.readers = [reader for reader in miss.readers if before is not None and reader[1] >= before]
        self.answers += [(client, reply) for client, _ in answered]

    def _go_plain(self, miss: Miss) -> None:
        """No line can be held: what is to be written goes the way of every other command."""
        while miss.writes:
            write = miss.writes.popleft()
            self.plain.append((miss.office.number, write.client, write.args))

    def _on_recall(self, office: Office, message: Recall) -> None:
        office.floor = max(office.floor, message.serial)
        key, line = message.key, self.lines.get(message.key)
        kept, owned, reads = False, False, 0
        if line is not None and line.office is office:
            owned, reads = line.state in (State.EXCLUSIVE, State.MODIFIED), line.reads
            self.traffic.invalidations_received += not message.share
            actions = self.lines.move(line, Event.SHARE if message.share else Event.INVALIDATE)
            if Action.WRITE_BACK in actions:
                self.write_backs.send(office, [key], self.now_ms)
            if Action.DROP in actions:
                self._drop(key, line)
            else:
                kept = True
        self._say(office, Yield(office.term, self.author, message.serial, key, kept, office.last, reads))
        if line is not None and message.serial < office.granted and key not in self._misses:
            # It was late, maybe: from before the line was granted, and nobody waits for the answer.
            if not kept:
                self._say(office, Release(office.term, self.author, office.granted, key, office.last))
            elif owned:
                self._leave(key)  # the leader takes it for owned still
        miss = self._misses.get(key)
        if line is not None and not kept and miss is not None and not miss.number:
            self._pursue(key, miss)  # it waited for what was to come by the log

    def _on_lost(self, office: Office, base: int) -> None:
        """It was closed: the leader gave away what this node held, unless it had not heard yet that it had joined."""
        if base == office.base:
            self._lose(office)
        elif base != office.joining:
            return
        office.joining = 0
        self._ask_anew(office)

    def _lose(self, office: Office) -> None:
        self.traffic.leases_lost += 1
        keys = self.lines.of(office)
        lost = self.write_backs.lose(office, keys)
        if lost:
            self.lost[office.number] = self.lost.get(office.number, 0) + lost
        for key in keys:
            line = self.lines.get(key)
            assert line is not None
            self._drop(key, line)
        office.base = 0
        office.until_ms = office.doubted_ms = 0.0
        self.answers += self.write_backs.flushed()

    # Who leads

    def look(self) -> None:
        """Who leads may have changed; what has to be repeated, written back or given up is."""
        for office in list(self.offices.values()):
            self._follow(office)
            self._look_at_replica(office)
        if self.now_ms < self._next_ms:
            return
        self._next_ms = FOREVER_MS
        self.write_backs.look(self.offices.values(), self.now_ms)
        self.write_backs.give_up(self.now_ms - GIVE_UP_MS, self._is_lost)
        self.answers += self.write_backs.flushed()
        for key, miss in list(self._misses.items()):
            self._pursue(key, miss)
        if self._next_renewal_ms < FOREVER_MS:
            self._at(self._next_renewal_ms)

    def next_ms(self) -> float:
        """When `look` has something to do because time passes."""
        return self._next_ms

    def _at(self, at_ms: float) -> None:
        self._next_ms = min(self._next_ms, at_ms)

    def _follow(self, office: Office) -> None:
        """Another leader, or another term: lines go, and what was changed is written back there."""
        leader = self._leader_of(office.number)
        if leader.term <= office.term or leader.name is None:
            return
        keys = self.lines.of(office) if office.term else []
        for key in keys:
            line = self.lines.get(key)
            assert line is not None
            if Action.WRITE_BACK in self.lines.move(line, Event.LEAVE):
                self.write_backs.send(office, [key], self.now_ms)
            self._drop(key, line)
        office.term, office.leader = leader.term, leader.name
        office.until_ms = office.doubted_ms = 0.0
        office.floor = office.granted = 0
        office.leads = leader.name == self.name
        self.write_backs.resend(office, self.now_ms)
        self._ask_anew(office)

    # What comes into this node's logs

    def overwrite(self, number: int, key: bytes, index: int) -> None:
        """Entry ``index`` of a shard's log here names a key: a line of it that is shared is good no longer."""
        line = self.lines.get(key)
        if line is None or line.office.number != number or line.state not in (State.SHARED, State.INVALID):
            return
        overwritten = line.office.overwritten
        if overwritten.counts(key, index):
            self.lines.move(line, Event.OVERWRITE)
            line.end_ms = OVERWRITTEN_MS
            overwritten.add(key, index, line.reads)

    def overwrite_all(self, number: int, index: int) -> None:
        """Entry ``index`` may change anything."""
        office = self.offices.get(number)
        for key in self.lines.of(office) if office is not None else []:
            self.overwrite(number, key, index)

    def replace(self, number: int) -> None:
        """A snapshot took the place of a shard's log here: what was shared, and is good by that log, is given up."""
        office = self.offices.get(number)
        for key in self.lines.of(office) if office is not None else []:
            line = self.lines.get(key)
            assert line is not None
            if line.state in (State.SHARED, State.INVALID):
                self._leave(key)

    def _look_at_replica(self, office: Office) -> None:
        """What was overwritten, and is carried out, can be read again; all is given up when the replica comes or goes.

        Where there is none lines are good by what the leader says, where there is one by what is in its log.
        """
        replica = self._replica_of(office.number)
        if (replica is None) != (office.replica is None):
            for key in self.lines.of(office):
                self._leave(key)
            for miss in self._misses.values():
                if miss.office is office:
                    miss.number = 0
            self._at(self.now_ms)
        office.replica = replica
        if replica is None or not office.overwritten:
            return
        for key in office.overwritten.carried_out(replica):
            self._read_again(office, key, replica)
        self._make_room()

    def _read_again(self, office: Office, key: bytes, replica: Replica) -> None:
        line, miss, value = self.lines.get(key), self._misses.get(key), replica.value(key)
        assert line is not None
        unread = miss is None and office.overwritten.is_unread(key)
        stays = self.propagates and not unread and replica.is_lasting(key) and self.lines.fits(key, value)
        if not stays:
            self._leave(key)
        else:
            self.lines.move(line, Event.FILL_SHARED)
            self.lines.replace(line, value)
            line.dies_ms, line.end_ms = None, FOREVER_MS
            self.traffic.updates += 1
        if miss is not None and not miss.number:
            self._misses.pop(key)
            if self.lines.get(key) is None:
                self._again(key, miss)
            else:
                self._use(key, miss, 0)

    def _ask_anew(self, office: Office) -> None:
        """What was asked of this shard's leader so far is not answered any more."""
        for key, miss in list(self._misses.items()):
            if miss.office is office:
                miss.number = 0
                self._pursue(key, miss)

    def _pursue(self, key: bytes, miss: Miss) -> None:
        """Asks for a line, unless that was done a moment ago; gives up when nobody leads for long."""
        office = miss.office
        if not (miss.readers or miss.writes):
            self._misses.pop(key, None)
            return
        leader = self._leader_of(office.number)
        if self._is_lost(office.number) or self.now_ms >= miss.since_ms + GIVE_UP_MS:
            self._misses.pop(key, None)
            error = self._no_leader(office.number)
            self.answers += [(client, error) for client, _ in miss.readers]
            self.answers += [(write.client, error) for write in miss.writes]
            return
        self._at(self.now_ms + REPEAT_MS)
        own = bool(miss.writes)
        if key in office.overwritten and not own:
            return  # it comes by the log
        if miss.number and self.now_ms < miss.asked_ms + REPEAT_MS and own <= miss.own:
            return
        if leader.name is None or not office.term:
            return
        if not office.base:
            self._join(office)
            return
        self._number += 1
        miss.number, miss.own, miss.asked_ms = self._number, own, self.now_ms
        line, snoops = self.lines.get(key), office.replica is not None
        reads = line.reads if line is not None else 0
        want = Want(office.term, self.author, office.base, self._number, office.last, key, own, snoops, reads)
        self._say(office, want)

    def _join(self, office: Office) -> None:
        if not office.joining:
            office.joining = office.last + 1
            office.last = office.joining
        elif self.now_ms < office.asked_ms + REPEAT_MS:
            return
        office.asked_ms = self.now_ms
        self._say(office, Join(office.term, self.author, office.joining))

    def _say(self, office: Office, message: Message) -> None:
        self.mail.append((office.number, message))

    # Leases

    def to_renew(self) -> dict[str, list[tuple[int, int, int]]]:
        """By leader: the offices whose leases are to be renewed now: none if nothing is held, under way or in doubt."""
        if self.now_ms < self._next_renewal_ms:
            return {}
        self._next_renewal_ms = FOREVER_MS
        if not (len(self.lines) or any(office.unconfirmed or office.is_in_doubt for office in self.offices.values())):
            return {}
        found: dict[str, list[tuple[int, int, int]]] = {}
        for office in self.offices.values():
            if office.base and not office.leads:
                found.setdefault(office.leader, []).append((office.number, office.term, office.base))
        if found:
            self._next_renewal_ms = self.now_ms + REPEAT_MS * 2
            self._at(self._next_renewal_ms)
        return found

    def await_renewal(self, offices: Iterable[Office], monotonic_ms: float) -> None:
        """Only longer leases show whether lines of these were good that were used until then: they are asked for."""
        for office in offices:
            office.doubted_ms = monotonic_ms
            self._next_renewal_ms = self.now_ms
            self._at(self.now_ms)

    def used(self, turn: int, monotonic_ms: float) -> list[Office]:
        """The shards whose lines were used in this turn, though their leases have run out since."""
        return [
            office
            for office in self.offices.values()
            if office.turn == turn
            and monotonic_ms >= office.until_ms
            and not (office.leads and monotonic_ms < self._sure_until(office.number, office.term))
        ]
