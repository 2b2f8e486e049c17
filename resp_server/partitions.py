"""Commands for queues that are spread over shards: which part each goes to, and what the parts' answers are together.

A push goes to the part its group (else its id) hashes to, or to the next in
turn; what names a receipt to the part that gave it; the rest to all of them.
Q.POP asks one part after the other, nearest first, every few times beginning
with another one so that no part is left behind. Where all are empty it waits
in all at once: the first that has a message answers, the other waits end, and
what one of them takes meanwhile it gets back.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import chain, zip_longest
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from cluster.machine import queue_parts
from cluster.machine.queue import Settings
from cluster.machine.queue_options import (
    PLAIN_POP,
    PLAIN_PUSH,
    read_dead,
    read_peek,
    read_pop,
    read_push,
    read_redrive,
    read_settings,
)
from cluster.machine.queue_parts import CONSUMERS, UNTAKE, Shape, part_call, part_of
from cluster.machine.reply import NULL_ARRAY, WAITING, CommandError, Reply
from cluster.ring.slots import slot_of
from resp_server.commands.spreading import Merge, Shares, total
from resp_server.places import NOBODY, Place

if TYPE_CHECKING:
    from cluster.node import Node
    from resp_server.commands.table import Route
    from resp_server.server import Server
    from resp_server.session import Session

TURN_EVERY = 8
"""Of so many calls of Q.POP one does not begin with the nearest part."""

KNOWN_MS = 1_000.0
"""How long a Q.CREATE waits at most for all nodes to know of what it made, and DEL for the news of what it deleted."""

FLUSHING = frozenset({"FLUSHALL", "FLUSHDB"})
DELETING = FLUSHING | {"DEL", "UNLINK"}

ADDED = (b"ready", b"delayed", b"in-flight", b"dead", b"pushed", b"acked", b"redelivered", b"expired")

Part: TypeAlias = "tuple[int, list[bytes]]"
"""A shard, and the command for the part there."""

Steps: TypeAlias = "Generator[Part, Reply, Reply]"
"""What to ask whom, given the answer to the last question; returns what the client is told."""

Finish: TypeAlias = "Callable[[Reply], bool]"
"""Told the answer; whether the client may be nearer to it."""


class Partitions:
    """The parts of queues as one node's clients use them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._node = server.node
        self._queues = self._node.atlas.queues
        self._turn = 0
        self.made: list[Hearing] = []

    def shape_of(self, route: Route, args: Sequence[bytes]) -> Shape | None:
        """The shape of the queue a command is for; None when that is in one shard, or it is none for a queue."""
        queues, command = self._node.atlas.queues, route.command
        if not queues or command.group != "queue" or not command.keys.first:
            return None
        return None if command.name == "Q.CREATE" else queues.get(args[1])

    def news_of(self, route: Route, args: Sequence[bytes]) -> News | None:
        """What this node has to hear before a command that makes or deletes queues with parts is answered."""
        queues, name = self._node.atlas.queues, route.command.name
        if name == "Q.CREATE" and len(self._node.shards) > 1:
            known = {key: queues[key] for key in args[1:2] if key in queues}
            made = args[1] if _is_spread(args) else None
            return None if made is None and not known else News(known, made)
        if name in DELETING:
            keys = queues if name in FLUSHING else dict.fromkeys(args[1:])
            known = {key: queues[key] for key in keys if key in queues}
            return News(known) if known else None
        return None

    def shards_of(self, key: bytes, shape: Shape) -> list[int]:
        """Where each part is: evenly spaced from the shard of the key on."""
        home, shards = self._node.slot_shard[slot_of(key)], len(self._node.shards)
        return [queue_parts.shard_of(index, shape.count, home, shards) for index in range(shape.count)]

    def shares(self, args: list[bytes], shape: Shape) -> Shares:
        """What each part has to do for any of the commands but Q.POP and Q.REDRIVE."""
        where, name = self.shards_of(args[1], shape), args[0].upper()

        def parts(wanted: Iterable[int], args: list[bytes] = args) -> list[Part]:
            return [(where[index], part_call(index, shape, args)) for index in wanted]

        every = range(shape.count)
        match name:
            case b"Q.PUSH" | b"Q.MPUSH":
                return Shares(parts([self._part_for(args, shape)]), only)
            case b"Q.NACK" | b"Q.EXTEND":
                return Shares(parts([self._part_of(args[2], shape)]), only)
            case b"Q.ACK":
                by_part: dict[int, list[bytes]] = {}
                for receipt in args[2:]:
                    by_part.setdefault(self._part_of(receipt, shape), []).append(receipt)
                found = [(index, [*args[:2], *receipts]) for index, receipts in by_part.items()]
                return Shares(list(chain.from_iterable(parts([index], part) for index, part in found)), total)
            case b"Q.CONFIG":
                return Shares(parts([0]), only)
            case b"Q.PEEK":
                return Shares(parts(every), in_rounds(read_peek(args)[0]))
            case b"Q.DEAD":
                return Shares(parts(every), by_age(read_dead(args)))
            case b"Q.INFO":
                return Shares(parts(every), self._described(where))
        return Shares(parts(every), total)  # Q.LEN, Q.PURGE

    def walk(self, session: Session, args: list[bytes], shape: Shape, new_place: Callable[[Session], Place]) -> None:
        """Begins a Q.POP or a Q.REDRIVE, whose answer fills a new place; raises what is wrong with it."""
        where = self.shards_of(args[1], shape)
        if args[0].upper() == b"Q.REDRIVE":
            count = read_redrive(args)
            calls = [(number, part_call(index, shape, args[:2])) for index, number in enumerate(where)]
            Walk(self._server, session, redriving(calls, count), new_place(session).fill)
            return
        waits = blocks(args)
        place = new_place(session)
        order = self._nearest_first(where)
        once = without_block(args)
        steps = popping([(where[index], part_call(index, shape, once)) for index in order])

        def finish(reply: Reply) -> bool:
            if not (waits and (reply is NULL_ARRAY or _has_no_leader(reply))):
                return place.fill(reply)
            parts = [(where[index], part_call(index, shape, args)) for index in order]
            Awaiting(self._server, session, parts, place.fill)
            return True  # so that it is looked whether the client is still there

        Walk(self._server, session, steps, finish)

    def _part_for(self, args: list[bytes], shape: Shape) -> int:
        options = read_push(args) if args[0].upper() == b"Q.PUSH" and len(args) > 3 else PLAIN_PUSH
        name = options.given_id if options.group is None else options.group
        if name is not None:
            return crc_hqx(name, 0) % shape.count
        self._turn += 1
        return self._turn % shape.count

    def _described(self, where: Sequence[int]) -> Merge:
        """Q.INFO: counts of all parts, the settings of the first, and how many nodes have any of it."""
        nodes = dict.fromkeys(chain.from_iterable(self._node.shards[number].voters for number in where))

        def merge(replies: list[Any]) -> Reply:
            told = [reply for reply in replies if isinstance(reply, dict)]
            if not told:
                return NULL_ARRAY
            found = dict(told[0])
            for name in ADDED:
                found[name] = sum(one[name] for one in told)
            found[b"oldest-ms"] = max(one[b"oldest-ms"] for one in told)
            found[b"consumers"] = len(dict.fromkeys(chain.from_iterable(one[CONSUMERS] for one in told)))
            found[b"nodes"] = len(nodes)
            del found[CONSUMERS]
            return found

        return merge

    @staticmethod
    def _part_of(receipt: bytes, shape: Shape) -> int:
        part = part_of(receipt)
        return 0 if part is None or part >= shape.count else part  # where it will count nothing

    def _nearest_first(self, where: Sequence[int]) -> list[int]:
        """The parts in the order Q.POP asks them: led here, held here, elsewhere; now and then another one first."""
        self._turn += 1
        turn, due = divmod(self._turn, TURN_EVERY)
        first = turn % len(where) if due == 0 else -1

        def far(index: int) -> tuple[bool, bool, bool]:
            shard = self._node.shards[where[index]]
            return index != first, shard.leader != self._node.name, not shard.here

        return sorted(range(len(where)), key=far)

    # Making and deleting them

    def look_at_waits(self) -> None:
        """Sends those who began to wait in one shard for a message of a queue that has parts by now to ask again.

        A Q.POP that is still on its way there counts, too: what ends its wait comes after it.
        """
        queues = self._node.atlas.queues
        if queues is self._queues:
            return
        self._queues = queues
        for session in self._server.clients.values():
            waits = session.awaiting is None and (session.waiting or session.pending)
            if waits and session.last_command == "q.pop" and session.popped in queues:
                self._server.shard_of(session.popped).unblock(NOBODY, session.origin, b"TIMEOUT")

    def known(self) -> list[Session]:
        """Answers those whose news are known by now, or who have waited long enough; whom."""
        told = [one for one in self.made if one.is_over()]
        self.made[:] = [one for one in self.made if one not in told]
        return [one.session for one in told if one.answer()]

    def hearing(self, place: Place, news: News) -> Hearing:
        """The client of a command that is answered once that is known."""
        return Hearing(self._node, place, news, self.made)


# One part after the other


def popping(parts: list[Part]) -> Steps:
    """Q.POP: until one has a message; that a part has no leader is told when none has."""
    nothing: Reply = NULL_ARRAY
    for part in parts:
        reply = yield part
        if _has_no_leader(reply):
            nothing = reply
        elif reply is not NULL_ARRAY:
            return reply
    return nothing


def _has_no_leader(reply: Reply) -> bool:
    return type(reply) is CommandError and reply.code == "CLUSTERDOWN"


def redriving(parts: list[Part], count: int) -> Steps:
    """Q.REDRIVE: until so many went back."""
    driven = 0
    for number, call in parts:
        reply = yield number, [*call, b"COUNT", b"%d" % (count - driven)]
        if type(reply) is not int:
            break
        driven += reply
        if driven == count:
            break
    else:
        reply = driven
    return driven or reply


class Walk:
    """The client of a command that asks parts in turn; ``finish`` is told what comes of it."""

    def __init__(self, server: Server, session: Session, steps: Steps, finish: Finish) -> None:
        self.session = session
        self._server = server
        self._steps = steps
        self._finish = finish
        self._part = next(steps)
        self._ask()

    def _ask(self) -> None:
        number, call = self._part
        shard = self.session.written = self._server.shard(number)
        shard.submit(self, queue_parts.call, call, origin=self.session.known_to(shard))

    def fill(self, reply: Reply) -> bool:
        """As for a `Place`."""
        if self.session.closed:
            give_back(self._server, self._part, reply)
            return False
        try:
            self._part = self._steps.send(reply)
        except StopIteration as stopped:
            return self._finish(stopped.value)
        self._ask()
        return False


class Awaiting:
    """A Q.POP that waits in all parts at once; ``open`` are the shards where its wait has not ended.

    The session is held until all have, so that its next wait is none of these.
    """

    def __init__(self, server: Server, session: Session, parts: list[Part], finish: Finish) -> None:
        self.open = dict(parts)
        self.session = session
        self._server = server
        self._finish = finish
        self._answered = False
        self._error: Reply = NULL_ARRAY
        session.awaiting = self
        for number, call in parts:
            shard = server.shard(number)
            shard.submit(_Wait(self, number), queue_parts.call, call, origin=session.known_to(shard))

    def ended(self, number: int, reply: Reply) -> bool:
        """A wait is over; whether the session may be nearer to something."""
        call = self.open.pop(number)
        if type(reply) is list and (self._answered or self.session.closed):
            give_back(self._server, (number, call), reply)
        elif type(reply) is list:
            self._answer(reply)
            self.unblock(b"TIMEOUT")
        elif type(reply) is CommandError:
            self._error = reply
        if not self.open:
            self.session.awaiting = None
            if not self._answered:
                self._answer(self._error)
        return self._answered

    def _answer(self, reply: Reply) -> None:
        self._answered = True
        self._finish(reply)

    def unblock(self, reason: bytes) -> None:
        """Ends all waits there are; each will say so."""
        for number in self.open:
            self._server.shard(number).unblock(NOBODY, self.session.origin, reason)


class _Wait:
    """The wait in one part, as its shard knows the client."""

    def __init__(self, awaiting: Awaiting, number: int) -> None:
        self.session = awaiting.session
        self._awaiting = awaiting
        self._number = number

    def fill(self, reply: Reply) -> bool:
        """As for a `Place`."""
        awaiting, number = self._awaiting, self._number
        return reply is not WAITING and number in awaiting.open and awaiting.ended(number, reply)


def give_back(server: Server, part: Part, reply: Reply) -> None:
    """Puts messages that Q.POP took, and that reached nobody, back to their places."""
    number, call = part
    if type(reply) is list and call[3] == b"Q.POP":
        args = [*call[:3], UNTAKE, *(message[0] for message in reply)]
        server.shard(number).submit(NOBODY, queue_parts.call, args)


class News:
    """That queues which are ``known`` are gone, and one is ``made``."""

    def __init__(self, known: dict[bytes, Shape], made: bytes | None = None) -> None:
        self.made = made
        self._known = known

    def is_heard(self, queues: dict[bytes, Shape]) -> bool:
        """Whether it is, where these are the queues."""
        old = any(key in queues and queues[key].born == shape.born for key, shape in self._known.items())
        return not old and (self.made is None or self.made in queues)


class Hearing:
    """The client of a command that made or deleted a queue with parts: answered once its node has heard of that.

    When it has, all that is sent to what is gone is refused. Of what is made every node that is in touch with this
    one has to know. So the shape is logged in the system group once more, which changes nothing: who has that entry
    on its disk was told with it that the one before is committed.
    """

    def __init__(self, node: Node, place: Place, news: News, made: list[Hearing]) -> None:
        self.session = place.session
        self._node = node
        self._place = place
        self._news = news
        self._made = made
        self._until_ms = node.monotonic_ms + KNOWN_MS
        self._reply: Reply = None
        self._asks = False
        self._index: int | None = None  # in the system's log, not before the second entry

    def fill(self, reply: Reply) -> bool:
        """As for a `Place`."""
        if type(reply) is CommandError:
            return self._place.fill(reply)
        self._reply = reply
        self._made.append(self)
        return False

    def is_over(self) -> bool:
        """Whether it is known, or was waited for long enough."""
        queues, made = self._node.atlas.queues, self._news.made
        if self._node.monotonic_ms >= self._until_ms:
            return True
        return self._news.is_heard(queues) and (made is None or self._is_everywhere(made, queues[made]))

    def _is_everywhere(self, made: bytes, shape: Shape) -> bool:
        node = self._node
        others = [name for name in node.members.members if name != node.name and node.reachable(name)]
        if not others or self._index is not None:
            matches, index = node.system.matches(), self._index or 0
            return all(matches.get(name, 0) >= index for name in others)
        if not self._asks:
            self._asks = True
            machine, args = node.system.machine, queue_parts.published(made, shape)
            node.ask(node.system, machine.handler(args[0]), args, self._logged, logged=True)
        return False

    def _logged(self, reply: Reply) -> None:
        self._asks = False
        if type(reply) is not CommandError:
            self._index = self._node.system.last_index

    def answer(self) -> bool:
        """It is known."""
        return self._place.fill(self._reply)


def _is_spread(args: Sequence[bytes]) -> bool:
    """Whether a Q.CREATE makes parts; what is wrong with it the queue's shard will say."""
    try:
        return read_settings(list(args), args[1], Settings()).partitions > 1
    except CommandError:
        return False


def without_block(args: list[bytes]) -> list[bytes]:
    """Q.POP that does not wait."""
    words = iter(args[2:])
    options = [(word, next(words)) for word in words]
    return [*args[:2], *chain.from_iterable(pair for pair in options if pair[0].upper() != b"BLOCK")]


def blocks(args: list[bytes]) -> bool:
    """Whether a Q.POP waits; raises what is wrong with it."""
    return (read_pop(args) if len(args) > 2 else PLAIN_POP).block_ms is not None


# What the answers are together


def only(replies: list[Any]) -> Reply:
    """There is one."""
    reply: Reply = replies[0]
    return reply


def in_rounds(count: int) -> Merge:
    """Q.PEEK: the first of each, then the second of each …"""

    def merge(replies: list[list[Reply] | None]) -> Reply:
        lists = [reply for reply in replies if isinstance(reply, list)]
        if not lists:
            return NULL_ARRAY
        rounds = chain.from_iterable(zip_longest(*lists))
        return [message for message in rounds if message is not None][:count]

    return merge


def by_age(count: int) -> Merge:
    """Q.DEAD: in the order they were pushed in."""

    def merge(replies: list[list[dict[bytes, Any]] | None]) -> Reply:
        lists = [reply for reply in replies if isinstance(reply, list)]
        if not lists:
            return NULL_ARRAY
        return sorted(chain.from_iterable(lists), key=itemgetter(b"pushed-ms"))[:count]

    return merge
