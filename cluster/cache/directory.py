"""The directory of one shard, at its leader: which node's cache holds which line, and whom to ask before anything else.

Nobody gets to see what a cache has changed and the memory (the replicated
state) has not, and nobody changes what a cache may read. So

* a *want* of a cache is granted once all others that are in its way have
  answered a `Recall`, and all that was in the log before it is carried out;
* a command that names a key which caches hold is kept out of the log until they
  have answered (`touch`); so is a read while one of them owns the line (`look`).
  While any is kept back nothing is granted, so it comes to its turn;
* caches that share the line on nodes which watch their log (`cluster.cache.snooping`)
  are not asked, but it is not committed before they have it in theirs.

An answer counts once the write-backs it speaks of are carried out. Who does not
answer is waited for until its lease has run out; then its cache is *closed*,
all its lines at once, by an entry in the log.

A lease is counted from when this leader last said that it stands. It says so,
and grants, only while it is certain to lead. So a new leader need but wait for
the longest lease from when it began, or hear before that from each cache that
the state says is open that it holds nothing any more (the *census*). For that
of the leader before, which was good only while that led, it waits no longer than
it hears of its node.

What the caches say names them by author, a node in one run; what is said to
them is numbered, so that a cache can tell a grant from before a recall.

Weak spot: a cache that gives up a line and whose word of it is lost stays
listed until somebody else wants the line: that costs a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from cluster.cache.lines import MUCH_READS
from cluster.cache.mesi import HOME, Call, Holding, Step
from cluster.cache.naming import KEY_BYTES_MAX, clears, words_of
from cluster.machine import caches
from cluster.machine.machine import Machine
from cluster.machine.reply import wrong_type
from cluster.raft.messages import (
    Census,
    Grant,
    Join,
    Joined,
    Lost,
    Message,
    Recall,
    Release,
    Surrendered,
    Want,
    WriteBack,
    WrittenBack,
    Yield,
)

REPEAT_MS = 50.0
"""How long an answer is waited for before the question is asked again."""

NOBODY: tuple[bytes, ...] = ()
FOREVER_MS = float("inf")


class Ground(Protocol):
    """What a directory stands on: a leader that has carried out all from before its term."""

    author: bytes
    term: int
    began_ms: float  # when the term of office began, on the monotonic clock: no lease from before is longer

    @property
    def machine(self) -> Machine:
        """The memory."""

    @property
    def now_ms(self) -> float:
        """Monotonic time."""

    @property
    def log_ms(self) -> int:
        """The log's time now; ``machine`` has that of the last entry that was carried out."""

    @property
    def applied(self) -> int:
        """The last entry that is carried out."""

    @property
    def last_index(self) -> int:
        """The last entry there is."""

    def sure(self) -> bool:
        """Whether it is certain now that nobody else leads."""

    def hears(self, author: bytes) -> bool:
        """Whether the node of that cache was heard of late."""

    def replicates_to(self, author: bytes) -> bool:
        """Whether the node of that cache takes this shard's log as it grows, or is this one."""

    def demand(self, author: bytes, index: int) -> None:
        """The entry is not to be committed before the node of that cache has it in its log."""

    def tell(self, author: bytes) -> None:
        """The node of that cache is to hear soon what is carried out."""

    def has(self, author: bytes, index: int) -> bool:
        """Whether the node of that cache has it."""

    def excuse(self, author: bytes) -> None:
        """Nothing that was demanded of that node so far is waited for."""


class _Recalled:
    """A line that is being recalled, but not from ``besides``: who has not answered, which write-backs to wait for."""

    __slots__ = ("asked_ms", "behind", "besides", "kept", "serial", "share", "waiting")

    def __init__(self, share: bool, waiting: Iterable[bytes], besides: bytes, serial: int, now_ms: float) -> None:
        self.share = share
        self.besides = besides
        self.waiting = dict.fromkeys(waiting)
        self.serial = serial
        self.asked_ms = now_ms
        self.behind: dict[bytes, int] = {}  # who answered, and up to which write-back
        self.kept: dict[bytes, bool] = {}


class _Demanded:
    """What a node must have in its log: the ``index`` that is waited for ``since_ms``, and by line the last."""

    __slots__ = ("by_key", "index", "since_ms")

    def __init__(self, index: int, now_ms: float) -> None:
        self.index = index
        self.since_ms = now_ms
        self.by_key: dict[bytes, int] = {}


class Directory:
    """Of one shard, for one term of office.

    ``calls`` are internal commands for the next entry, before all others; ``mail`` is
    what to send, (author, message). ``lease_ms`` is how long a cache may go by what it was
    told. ``fans_out`` says whether lines are sent anew to those who read them often.
    ``holding`` is set by the leader while it keeps anything back.
    """

    def __init__(self, ground: Ground, lease_ms: int, *, fans_out: bool = True) -> None:
        self.calls: list[list[bytes]] = []
        self.mail: list[tuple[bytes, Message]] = []
        self.lease_ms = lease_ms
        self.fans_out = fans_out
        self.holding = False
        self.recalls_sent = 0
        self._ground = ground
        self._serial = 0
        self._owned = 0
        self._lines: dict[bytes, tuple[bool, tuple[bytes, ...]]] = {}
        self._holdings: dict[tuple[bool, tuple[bytes, ...]], tuple[bool, tuple[bytes, ...]]] = {}  # shared by lines
        self._recalls: dict[bytes, _Recalled] = {}
        self._wants: dict[bytes, dict[bytes, tuple[Want, int]]] = {}  # by key and author, with after which entry
        self._kept_back: dict[bytes, None] = {}  # keys that commands wait for
        self._releases: list[Release] = []
        self._leased_ms: dict[bytes, float] = {}
        self._granted: dict[bytes, int] = {}  # by author: the serial of its last grant
        self._next_number: dict[bytes, int] = {}  # by author: the write-back to come
        self._told: dict[bytes, int] = {}  # by author: the write-backs it knows to be carried out
        self._closing: dict[bytes, int] = {}  # by author: the base that is about to be closed
        self._joining: dict[bytes, int] = {}
        self._fans: dict[bytes, dict[bytes, None]] = {}
        self._fan_after: dict[bytes, int] = {}
        self._snoops: dict[bytes, tuple[int, bool]] = {}  # by author: whether it does, by which of its wants
        self._demanded: dict[bytes, _Demanded] = {}
        self._over: dict[bytes, int] = {}  # by author: the base that no lease stands for any more, and never will
        self._much_read: dict[bytes, None] = {}  # lines that were read by others between two writes
        began = ground.machine.caches
        self._began_ms = ground.began_ms
        self._former_lease_ms = max(began.lease_ms, lease_ms)
        self._census: dict[bytes, int | None] = dict.fromkeys(began.open())  # the write-backs to wait for, once known
        self._census_asked_ms = -FOREVER_MS
        self._former = began.home if began.home != ground.author else b""

    # What the leader asks

    @property
    def counting(self) -> bool:
        """Whether the census is not over: nothing may be read or written."""
        return bool(self._census)

    @property
    def blocked(self) -> bool:
        """Whether commands that were kept back must go on waiting."""
        return bool(self._census or self._kept_back)

    @property
    def minds_reads(self) -> bool:
        """Whether a read must be looked at before it is carried out."""
        return bool(self._owned or self._census)

    @property
    def minds_writes(self) -> bool:
        """Whether a command must be looked at before it goes into the log."""
        return bool(self._lines or self._wants or self._recalls or self._census or self._fan_after)

    def logged(self, index: int) -> None:
        """What was kept back is in the log now, up to entry ``index``."""
        self.holding = False
        for wants in self._wants.values():
            for author, (want, _) in wants.items():
                wants[author] = want, index
        for key in self._fan_after:
            self._fan_after[key] = index

    def touch(self, args: Iterable[Any], index: int) -> None:
        """A command is to go into entry ``index``: what caches hold of its keys is recalled, see `blocked`."""
        for key in self._all() if clears(args) else words_of(args):
            self._touch(key, index)

    def _all(self) -> dict[bytes, None]:
        """The lines that caches hold, and those that they are about to be given."""
        return dict.fromkeys((*self._lines, *self._recalls, *self._wants, *self._fan_after))

    def _touch(self, key: bytes, index: int) -> None:
        wants = self._wants.get(key)
        if wants is not None:
            for author, (want, _) in wants.items():
                wants[author] = want, index
        if key in self._fan_after:
            self._fan_after[key] = index
        if key in self._lines or key in self._recalls:
            distant: list[bytes] | None = None
            if key not in self._recalls and self._decide(key, Call.PLAIN_WRITE).step is Step.OVERWRITE:
                distant = self._overwrite(key, index)
            if distant != []:
                self._kept_back[key] = None
                self._recall(key, share=False, whom=distant)
                if self.fans_out:
                    self._fan_after[key] = index

    def _overwrite(self, key: bytes, index: int) -> list[bytes]:
        """A line that is shared is written by entry ``index``: nodes that watch their log must have it; the others."""
        distant = []
        for author in self._lines[key][1]:
            if self._cache(author) is None:
                continue  # its lease is over for good
            if not (self._snoops.get(author, (0, False))[1] and self._ground.replicates_to(author)):
                distant.append(author)
            elif author != self._ground.author:
                self._ground.demand(author, index)
                demanded = self._demanded.setdefault(author, _Demanded(index, self._ground.now_ms))
                demanded.by_key[key] = index
        return distant

    def look(self, args: Iterable[Any]) -> bool:
        """Whether these commands may be carried out as reads now; if not, what is in their way is recalled."""
        free = not self._census
        for word in words_of(args):
            if word in self._recalls:
                free = False
            elif word in self._lines and self._decide(word, Call.PLAIN_READ).step is Step.RECALL_SHARE:
                self._recall(word, share=True)
                free = False
        return free

    def _decide(self, key: bytes, call: Call) -> Any:
        owned, authors = self._lines.get(key, (False, NOBODY))
        holding = Holding.OWNED if owned else Holding.SHARED if authors else Holding.UNCACHED
        return HOME[holding, call]

    def taken_back(self) -> None:
        """The last entries were taken out of the log again: what they were for is asked for anew."""
        self._joining.clear()
        self._closing.clear()
        self._next_number.clear()

    # What caches say

    def receive(self, message: Message) -> None:
        """A cache's word, in this term; `go_on` follows."""
        if message.term != self._ground.term:
            return
        match message:
            case Join():
                self._on_join(message)
            case Want():
                self._on_want(message)
            case Yield():
                self._on_yield(message)
            case Release():
                self._releases.append(message)
            case WriteBack():
                self._on_write_back(message)
            case Surrendered():
                if message.author in self._census:
                    self._census[message.author] = message.after
            case _:
                return

    def _cache(self, author: bytes) -> caches.Cache | None:
        """The cache as the state knows it, if it is open, and stays so."""
        cache = self._ground.machine.caches.known.get(author)
        if cache is None or not cache.is_open or author in self._closing or self._over.get(author) == cache.base:
            return None
        return cache

    def _on_join(self, message: Join) -> None:
        known = self._ground.machine.caches.known.get(message.author)
        if known is not None and known.is_open and known.base == message.number:
            self._send(message.author, Joined(self._ground.term, message.author, message.number))
        elif known is not None and known.base == message.number:  # it was closed before it heard that it had joined
            self._send(message.author, Lost(self._ground.term, message.author, message.number))
        elif (known is None or known.last < message.number) and self._joining.get(message.author) != message.number:
            if not self._close_other_runs(message.author):
                return  # it will ask again
            self._joining[message.author] = message.number
            self.calls.append([caches.JOIN, message.author, b"%d" % message.number])

    def _close_other_runs(self, author: bytes) -> bool:
        """Whether no cache of that node in another run goes by a lease; those that may come back are closed.

        Which run is the later cannot be told: a word of the one before may come late.
        """
        node = _node_of(author)
        if any(other != author and other.startswith(node) for other in self._joining):
            return False
        others = [one for one in self._ground.machine.caches.open() if one.startswith(node) and one != author]
        if not all(self._is_lease_over(other) for other in others):
            return False
        for other in others:
            self._close(other)
        return True

    def _is_lease_over(self, author: bytes) -> bool:
        leased_ms = self._leased_ms.get(author, self._began_ms + self._former_lease_ms)
        return author != self._ground.author and self._ground.now_ms >= leased_ms

    def _is_lost(self, author: bytes, base: int) -> bool:
        """Whether what joined with that number was closed; it is told, once that is certain."""
        cache = self._cache(author)
        if cache is not None and cache.base == base:
            return False
        if author in self._over:
            self._close(author)  # what was to do that may have been taken out of the log again
        if author not in self._closing:
            self._send(author, Lost(self._ground.term, author, base))
        return True

    def _on_want(self, message: Want) -> None:
        if self._is_lost(message.author, message.base):
            return
        if self._snoops.get(message.author, (0, False))[0] < message.number:
            self._snoops[message.author] = message.number, message.snoops
        wants = self._wants.setdefault(message.key, {})
        known = wants.get(message.author)
        if known is None or known[0].number < message.number:
            wants[message.author] = message, known[1] if known is not None else self._ground.last_index

    def _on_yield(self, message: Yield) -> None:
        recalled = self._recalls.get(message.key)
        if recalled is None or recalled.serial != message.serial or message.author not in recalled.waiting:
            return
        del recalled.waiting[message.author]
        recalled.behind[message.author] = message.after
        recalled.kept[message.author] = message.kept
        demanded = self._demanded.get(message.author)
        if demanded is not None and not message.kept:
            demanded.by_key.pop(message.key, None)
            if not demanded.by_key:
                self._excuse(message.author)  # now: the write-backs that came before may be behind in the log
        if self.fans_out and not recalled.share and message.reads >= MUCH_READS:
            self._fans.setdefault(message.key, {})[message.author] = None
            if recalled.besides:
                self._much_read[message.key] = None

    def _on_write_back(self, message: WriteBack) -> None:
        author = message.author
        known = self._cache(author)
        if self._is_lost(author, message.base) or known is None:
            return
        if message.number <= known.last:
            self._send(author, WrittenBack(self._ground.term, author, known.last))
            return
        if self._ground.applied == self._ground.last_index and not self.calls:
            self._next_number[author] = known.last + 1  # nothing is on its way
        if message.number == self._next_number.setdefault(author, known.last + 1):
            self._next_number[author] += 1
            self.calls.append([caches.WRITE_BACK, author, b"%d" % message.number, *self._with_deadlines(message.cells)])

    def _with_deadlines(self, cells: Sequence[bytes]) -> Iterator[bytes]:
        """What is written back, with when keys end for what is left of their lives."""
        for at in range(0, len(cells), 3):
            key, value, rest = cells[at : at + 3]
            yield key
            yield value
            yield rest if rest == caches.NO_DEADLINE else b"%d" % (self._log_ms + int(rest))

    def renews(self, author: bytes, base: int) -> bool:
        """Whether a cache's lease stands, from now on for `lease_ms`."""
        if self._is_lost(author, base):
            return False
        if author in self._census or not self._ground.sure():
            return False
        self._lease(author)
        return True

    def _lease(self, author: bytes) -> None:
        self._leased_ms[author] = self._ground.now_ms + self.lease_ms

    def _send(self, author: bytes, message: Message) -> None:
        self.mail.append((author, message))

    # Going on

    def go_on(self) -> None:
        """Does what has become possible: after something was carried out, an answer came, or time has passed."""
        self._look_at_caches()
        if self._demanded:
            self._look_at_demands()
        if self._census:
            self._count()
            if self._census:
                return
        for release in self._take_releases():
            self._released(release)
        for key, recalled in list(self._recalls.items()):
            self._look_at(key, recalled)
        if self._wants and not (self._kept_back or self.holding) and self._ground.sure() and self._is_home():
            for key in list(self._wants):
                self._serve(key)
        if self._fan_after and not (self._kept_back or self.holding) and self._ground.sure():
            self._fan()

    def _is_home(self) -> bool:
        """Whether the state knows that this leader grants lines, and how long they are good."""
        known = self._ground.machine.caches
        if known.home == self._ground.author and known.lease_ms == self.lease_ms:
            return True
        if not any(call[0] == caches.HOME for call in self.calls):
            self.calls.append([caches.HOME, self._ground.author, b"%d" % self.lease_ms])
        return False

    def next_ms(self) -> float:
        """When `go_on` has something to do because time passes."""
        at_ms = FOREVER_MS
        if self._census:
            at_ms = self._census_asked_ms + REPEAT_MS
        for recalled in self._recalls.values():
            at_ms = min(at_ms, recalled.asked_ms + REPEAT_MS)
        if self._demanded:
            at_ms = min(at_ms, self._ground.now_ms + REPEAT_MS)
        return self._ground.now_ms + REPEAT_MS if self._wants and at_ms == FOREVER_MS else at_ms

    def _look_at_caches(self) -> None:
        """Tells caches what became of what they wanted in the log."""
        known, term = self._ground.machine.caches.known, self._ground.term
        for author, number in list(self._joining.items()):
            cache = known.get(author)
            if cache is not None and cache.last >= number:
                del self._joining[author]
                self._send(author, Joined(term, author, number))
                self._forget_runs(author)
        for author, base in list(self._closing.items()):
            cache = known.get(author)
            if cache is None or not cache.is_open or cache.base != base:
                del self._closing[author]
                self._forget(author)
                self._send(author, Lost(term, author, base))
        for author, number in self._next_number.items():
            cache = known.get(author)
            if cache is not None and self._told.get(author, -1) < cache.last < number:
                self._told[author] = cache.last
                self._send(author, WrittenBack(term, author, cache.last))

    def _look_at_demands(self) -> None:
        """Whether nodes have in their logs what is to be committed.

        Who has not for a while is asked by message: it may be slow to write, and need not be to give a line up.
        """
        ground = self._ground
        for author, demanded in list(self._demanded.items()):
            last = max(demanded.by_key.values())
            if ground.has(author, last):
                if ground.applied >= last:
                    ground.tell(author)
                    del self._demanded[author]
            elif ground.has(author, demanded.index):
                demanded.by_key = {
                    key: index for key, index in demanded.by_key.items() if not ground.has(author, index)
                }
                demanded.index, demanded.since_ms = last, ground.now_ms
            elif ground.now_ms >= demanded.since_ms + REPEAT_MS:
                self._ask_instead(author, demanded)

    def _ask_instead(self, author: bytes, demanded: _Demanded) -> None:
        """Has a node give up the lines that entries name which it does not have."""
        held = [key for key in demanded.by_key if author in self.holders(key)]
        if not held:
            self._excuse(author)
        elif self._is_lease_over(author):
            self._close(author)
        for key in held:
            if key not in self._recalls:
                self._recall(key, share=False, whom=[author])

    def _excuse(self, author: bytes) -> None:
        """What that node must have in its log it need not: no line there is good that this would overwrite."""
        if self._demanded.pop(author, None) is not None:
            self._ground.excuse(author)

    def _forget_runs(self, author: bytes) -> None:
        """A node's cache in another run: that of the run before is gone."""
        node = _node_of(author)
        for former in dict.fromkeys((*self._leased_ms, *self._next_number, *self._census)):
            if former.startswith(node) and former != author:
                self._forget(former)

    def _forget(self, author: bytes) -> None:
        """A cache holds nothing any more."""
        self._census.pop(author, None)
        self._over.pop(author, None)
        self._excuse(author)
        self._next_number.pop(author, None)
        self._told.pop(author, None)
        for wants in self._wants.values():
            wants.pop(author, None)
        for recalled in self._recalls.values():
            recalled.waiting.pop(author, None)
            recalled.behind.pop(author, None)
            recalled.kept[author] = False
        for key, (owned, authors) in list(self._lines.items()):
            if author in authors and key not in self._recalls:
                self._hold(key, tuple(one for one in authors if one != author), owned=owned and len(authors) > 1)

    def _close(self, author: bytes) -> None:
        cache = self._ground.machine.caches.known.get(author)
        if cache is not None and cache.is_open and author not in self._closing:
            self._closing[author] = self._over[author] = cache.base
            self._excuse(author)  # or this would not be committed either
            self.calls.append([caches.CLOSE, author, b"%d" % cache.base])

    def _count(self) -> None:
        """The census: asks whom it has not heard, and closes whose lease is certainly over."""
        ground, known = self._ground, self._ground.machine.caches.known
        for author, after in list(self._census.items()):
            cache = known.get(author)
            if cache is None or not cache.is_open or (after is not None and cache.last >= after):
                del self._census[author]
        over = ground.now_ms >= self._began_ms + self._former_lease_ms
        if ground.now_ms >= self._census_asked_ms + REPEAT_MS:
            self._census_asked_ms = ground.now_ms
            for author, after in self._census.items():
                if after is None and author not in self._closing:
                    self._send(author, Census(ground.term, author))
        for author in self._census:
            if author != ground.author and (over or (author == self._former and not ground.hears(author))):
                self._close(author)

    def _take_releases(self) -> list[Release]:
        releases, self._releases = self._releases, []
        return releases

    def _released(self, message: Release) -> None:
        cache = self._cache(message.author)
        if cache is None or message.serial < self._granted.get(message.author, 0):
            return
        if cache.last < message.after or message.key in self._recalls:  # it may have overtaken the answer
            self._releases.append(message)
            return
        _, authors = self._lines.get(message.key, (False, NOBODY))
        if message.author in authors:
            self._hold(message.key, tuple(one for one in authors if one != message.author), owned=False)

    # Lines

    def _hold(self, key: bytes, authors: tuple[bytes, ...], *, owned: bool) -> None:
        self._owned += owned - self._lines.get(key, (False, NOBODY))[0]
        if authors:
            self._lines[key] = self._holdings.setdefault((owned, authors), (owned, authors))
        else:
            self._lines.pop(key, None)
            if key not in self._wants and key not in self._fan_after:
                self._much_read.pop(key, None)
                self._fans.pop(key, None)

    def _recall(self, key: bytes, *, share: bool, besides: bytes = b"", whom: Iterable[bytes] | None = None) -> None:
        """Asks those who hold a line (or ``whom`` of them), but for ``besides``, to give it up, or to share it."""
        recalled = self._recalls.get(key)
        if recalled is not None and (share or not recalled.share) and recalled.besides in (b"", besides):
            return  # it is on its way
        _, authors = self._lines.get(key, (False, NOBODY))
        self._serial += 1
        waiting = [one for one in authors if one != besides] if whom is None else whom
        recalled = _Recalled(share, waiting, besides, self._serial, self._ground.now_ms)
        self._recalls[key] = recalled
        for author in recalled.waiting:
            self._ask(key, recalled, author)

    def _ask(self, key: bytes, recalled: _Recalled, author: bytes) -> None:
        self.recalls_sent += 1
        self._send(author, Recall(self._ground.term, author, recalled.serial, key, recalled.share))

    def _look_at(self, key: bytes, recalled: _Recalled) -> None:
        """Whether a recall is over; who does not answer is asked again, or closed when its lease is over."""
        ground = self._ground
        for author, after in list(recalled.behind.items()):
            cache = ground.machine.caches.known.get(author)
            if cache is None or not cache.is_open or cache.last >= after:
                del recalled.behind[author]
        if not (recalled.waiting or recalled.behind):
            self._recalled(key, recalled)
            return
        if recalled.waiting and ground.now_ms >= recalled.asked_ms + REPEAT_MS:
            recalled.asked_ms = ground.now_ms
            for author in recalled.waiting:
                if self._is_lease_over(author):
                    self._close(author)
                else:
                    self._ask(key, recalled, author)
        for author in recalled.behind:  # what it spoke of never came, and nor does anything else
            if self._is_lease_over(author):
                self._close(author)

    def _recalled(self, key: bytes, recalled: _Recalled) -> None:
        del self._recalls[key]
        _, authors = self._lines.get(key, (False, NOBODY))
        self._hold(key, tuple(one for one in authors if recalled.kept.get(one, True)), owned=False)
        self._kept_back.pop(key, None)

    def _serve(self, key: bytes) -> None:
        """Grants a line to those who want it, as far as nobody is in the way."""
        wants = self._wants[key]
        while wants:
            author = next(iter(wants))
            want, after = wants[author]
            cache = self._cache(author)
            if cache is None or cache.base != want.base:
                del wants[author]
                continue
            if key in self._recalls or self._ground.applied < after or cache.last < want.after:
                return
            _, authors = self._lines.get(key, (False, NOBODY))
            others = [one for one in authors if one != author]
            if want.own:
                decision = self._decide(key, Call.OWN_OTHERS if others else Call.OWN)
            else:
                decision = self._decide(key, Call.READ_OTHERS if others else Call.READ)
            if decision.step is Step.RECALL_ALL and self._is_much_read(want) and self._is_string(key):
                del wants[author]
                self._let_read(author, want, through=True)
                continue
            if want.own and not others:
                self._much_read.pop(key, None)
            if decision.step in (Step.RECALL_ALL, Step.RECALL_SHARE):
                self._recall(key, share=decision.step is Step.RECALL_SHARE, besides=author)
                self._look_at(key, self._recalls[key])
                continue
            del wants[author]
            if self._is_not_to_be_held(key):  # in memory, which has all there is: nobody else owns it
                self._send_line(author, want.number, key, "", None)
                continue
            owned = decision.holding is Holding.OWNED
            if owned and self._ground.machine.keyspace.watches(key):
                # Who watches is to hear of every change at once: none may happen in a cache.
                self._let_read(author, want) if want.own else self._grant(author, want, owned=False)
            else:
                self._grant(author, want, owned=owned)
        del self._wants[key]

    def _is_much_read(self, want: Want) -> bool:
        """Whether what others share, and would have to give up, is read so often that it is better written through."""
        return self.fans_out and (want.reads >= MUCH_READS or want.key in self._much_read)

    @property
    def _log_ms(self) -> int:
        """The time by which keys end, now."""
        return max(self._ground.log_ms, self._ground.machine.now_ms)

    def _is_string(self, key: bytes) -> bool:
        """Whether a cache may hold what the key has, or that it has nothing."""
        return isinstance(self._ground.machine.keyspace.values.get(key, b""), bytes)

    def _is_not_to_be_held(self, key: bytes) -> bool:
        """Whether there is no such key, but that may change without anybody being asked for a line of it.

        Or its life is over, and that has not happened yet.
        """
        machine = self._ground.machine
        deadline_ms = machine.keyspace.deadlines.get(key)
        if deadline_ms is not None:
            return deadline_ms <= self._log_ms
        return key not in machine.keyspace.values and machine.may_come(key)

    def _let_read(self, author: bytes, want: Want, *, through: bool = False) -> None:
        """Tells the value, and grants nothing; ``through``: what is to be written goes to memory at once."""
        value = self._ground.machine.keyspace.values.get(want.key)
        known = value if isinstance(value, bytes) else None
        self._send_line(author, want.number, want.key, "", known, through=through)

    def _grant(self, author: bytes, want: Want, *, owned: bool) -> None:
        key = want.key
        value = self._ground.machine.keyspace.values.get(key)
        if value is not None and not isinstance(value, bytes):
            self._send_line(author, want.number, key, "", None, refused=wrong_type().line.decode())
            return
        if len(key) > KEY_BYTES_MAX:
            self._let_read(author, want)
            return
        _, authors = self._lines.get(key, (False, NOBODY))
        self._hold(key, (author,) if owned else (*(one for one in authors if one != author), author), owned=owned)
        self._send_line(author, want.number, key, "E" if owned else "S", value)

    def _send_line(
        self,
        author: bytes,
        number: int,
        key: bytes,
        state: str,
        value: bytes | None,
        *,
        refused: str = "",
        through: bool = False,
    ) -> None:
        machine = self._ground.machine
        deadline_ms = machine.keyspace.deadlines.get(key)
        rest_ms = -1 if deadline_ms is None else max(0, deadline_ms - self._log_ms)
        self._serial += 1
        self._granted[author] = self._serial
        self._lease(author)
        term, index = self._ground.term, self._ground.last_index
        grant = Grant(
            term, author, number, self._serial, key, state, value, rest_ms, self.lease_ms, index, refused, through
        )
        self._send(author, grant)

    def _fan(self) -> None:
        """Sends a line that was written to those who read it often, so that they need not ask."""
        ground = self._ground
        for key, after in list(self._fan_after.items()):
            if ground.applied < after or key in self._recalls:
                continue
            del self._fan_after[key]
            readers = self._fans.pop(key, {})
            value = ground.machine.keyspace.values.get(key)
            owned, authors = self._lines.get(key, (False, NOBODY))
            if owned or not isinstance(value, bytes) or key in self._wants:
                continue
            if key in ground.machine.keyspace.deadlines:
                continue  # who did not ask cannot tell how long the message took, so not how long it may be used
            for author in readers:
                if author not in authors and self._cache(author) is not None:
                    authors = (*authors, author)
                    self._hold(key, authors, owned=False)
                    self._send_line(author, 0, key, "S", value)

    # Looking

    def holders(self, key: bytes) -> tuple[bytes, ...]:
        """The caches that hold a line, as far as is known here."""
        return self._lines.get(key, (False, NOBODY))[1]

    def is_owned(self, key: bytes) -> bool:
        """Whether one cache holds a line alone, and may have changed it."""
        return self._lines.get(key, (False, NOBODY))[0]

    def keys(self) -> Iterator[bytes]:
        """The lines that are held anywhere."""
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


def _node_of(author: bytes) -> bytes:
    """What the authors of one node begin with."""
    return author[: author.index(b".") + 1]
