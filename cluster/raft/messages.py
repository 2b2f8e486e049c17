"""What nodes say to each other: one record per message, never changed.

Names are the Raft paper's where it has one (figures 2 and 13, sections 6.4 and
9.6 of the dissertation). Any of them may be lost, doubled, late or out of
order; nothing here relies on a connection. ``term`` is the sender's, except in
a pre-vote, where it is the term the sender would stand in.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Message(msgspec.Struct, array_like=True):
    """Any of them."""

    term: int


class Append(Message, tag=1):
    """AppendEntries: ``entries`` are (term, payload) from ``prev_index + 1`` on; none of them is a probe."""

    prev_index: int
    prev_term: int
    commit: int
    entries: list[tuple[int, bytes]]


class Appended(Message, tag=2):
    """The follower's log agrees with the leader's up to ``index``, durably."""

    index: int


class Conflict(Message, tag=3):
    """The follower has no entry (``prev_index``, its term); what it may share ends at ``hint_index``, ``hint_term``."""

    prev_index: int
    hint_index: int
    hint_term: int


class Heartbeat(Message, tag=4):
    """The leader is there. ``commit`` is no further than the follower is known to agree; ``sent_us`` comes back.

    ``matches`` is what the leader knows to be durable on each member, for people and for WAIT;
    ``clock_ms`` the time its entries go by (`cluster.pace`).
    """

    commit: int
    sent_us: int
    matches: dict[str, int]
    clock_ms: int = 0


class Alive(Message, tag=5):
    """The answer to `Heartbeat`: the follower has followed this leader since ``sent_us`` at the least."""

    sent_us: int
    follows: bool


class Presence(Message, tag=6):
    """Every node to every other, now and then: it is there, and leads these shards in these terms.

    ``echo_us`` is the ``sent_us`` that last came from the receiver, ``held_us`` ago; ``both_ways`` says that it showed
    that both hear each other (`cluster.contacts`). ``doubts`` are those shards of ``leads`` of which the sender is only
    certain that nobody else had been elected so many microseconds ago. ``session_timeout_ms`` is the sender's setting.
    """

    sent_us: int
    echo_us: int
    held_us: int
    leads: list[tuple[int, int]]
    both_ways: bool = False
    doubts: list[tuple[int, int]] = []
    session_timeout_ms: int = 0


class Commit(Message, tag=7):
    """The leader has carried out all up to ``index``, and the receiver agrees that far: somebody there waits for it."""

    index: int


class Vote(Message, tag=8):
    """RequestVote, or a pre-vote. ``forced`` comes from a leader's own wish to hand over (TimeoutNow)."""

    last_index: int
    last_term: int
    pre: bool
    forced: bool


class Voted(Message, tag=9):
    """The answer to `Vote`; ``term`` is the one voted in where it was granted."""

    granted: bool
    pre: bool


class TimeoutNow(Message, tag=10):
    """Stand for election at once: the leader hands over (dissertation, section 3.10)."""


class Chunk(Message, tag=11):
    """InstallSnapshot: piece number ``position`` of the checkpoint that ends with (``index``, ``index_term``).

    Its rows are (key, part, kind, deadline_ms, body). The ledger comes with the first piece only.
    """

    index: int
    index_term: int
    position: int
    ledger: bytes
    rows: list[tuple[bytes, bytes, bytes, int | None, bytes]]
    last: bool


class ChunkTaken(Message, tag=12):
    """All pieces of that snapshot before ``position`` are stored; ``installed`` once it is in force."""

    index: int
    position: int
    installed: bool


class Forward(Message, tag=13):
    """A turn's writes of a node that does not lead, to go into the leader's next entry as they are.

    ``number`` counts the batches of ``author``; ``previous`` is the number of
    the one that has to be taken before it, 0 if none has to. ``wanted``: the
    author does not carry it out itself, and wants an `Outcome`.
    """

    author: bytes
    previous: int
    number: int
    body: bytes
    wanted: bool = False


class AskRead(Message, tag=14):
    """From when on may reads up to ``number`` of ``author`` be served (ReadIndex, section 6.4)?

    ``args`` is what they are, where the leader wants to know (`NameReads`).
    """

    author: bytes
    number: int
    args: list[list[bytes]] | None = None


class Readable(Message, tag=15):
    """Reads of ``author`` up to ``number`` may be served once ``index`` is applied, as of the leader's ``now_ms``.

    One of the same number that its node asked for in an earlier run was asked before those of this run.
    """

    author: bytes
    number: int
    index: int
    now_ms: int


class Wish(Message, tag=16):
    """Somebody at the sender wants the membership changed, or another leader; repeated until it is so."""

    number: int
    kind: str
    node: str
    address: str
    disk: str
    zone: str = ""


class WishRefused(Message, tag=17):
    """It will not be so."""

    number: int
    reason: str


class WishGranted(Message, tag=18):
    """It is so in the state after entry ``index``: whoever has carried out that much can see for itself."""

    number: int
    index: int


class Look(Message, tag=19):
    """Reads of a node that has no replica: the leader carries them out once it is sure to lead; `Outcome` answers."""

    author: bytes
    number: int
    calls: list[list[bytes]]


class Outcome(Message, tag=20):
    """What became of batch ``number`` of ``author``.

    ``replies`` holds one for each command of it (outcomes.py makes bytes of
    them); where it is empty, ``never`` says that it certainly did not happen and
    never will, else nobody knows any more.
    """

    author: bytes
    number: int
    replies: bytes
    never: bool


class Waits(Message, tag=21):
    """Sessions of the sender that wait, with the number of each wait: have any of these ended?"""

    waits: list[tuple[bytes, int]]


class Ended(Message, tag=22):
    """A wait of a session of the receiver has ended; ``reply`` as in `Outcome`, empty where nobody knows any more."""

    origin: bytes
    wait: int
    reply: bytes


class Contended(Message, tag=23):
    """From the leader of a shard to whoever looks for deadlocks: the next report of who waits there for whom.

    The receiver does so as the leader of the system group in the term ``office``.
    ``number`` grows in the sender's term; ``fresh``: what was reported before holds no more.
    ``now_ms`` is the time of the shard's log as it is sent, ``body`` a `cluster.contention.Report`.
    """

    office: int
    number: int
    fresh: bool
    now_ms: int
    body: bytes


class ContendedHeard(Message, tag=24):
    """The answer; ``term``, ``office`` and ``number`` are those of the report."""

    office: int
    number: int


class Join(Message, tag=25):
    """The cache of ``author``, which holds no line of the shard, wants some; its write-backs are numbered from there.

    See `cluster.cache` for this and all that follows. ``author`` is always whose cache it is.
    """

    author: bytes
    number: int


class Joined(Message, tag=26):
    """It may ask for lines."""

    author: bytes
    number: int


class Want(Message, tag=27):
    """A cache wants a line, ``own``: as the only one that holds it. ``number`` counts its requests.

    ``base`` is the number it joined with; its write-backs up to ``after`` come first. ``snoops`` says that its node
    has a replica, and goes by its log as to what is written to lines that it shares; ``reads``, how often it has read
    this one.
    """

    author: bytes
    base: int
    number: int
    after: int
    key: bytes
    own: bool
    snoops: bool
    reads: int = 0


class Grant(Message, tag=28):
    """It has it, in that MESI ``state``, "" where the value may be read but not kept.

    ``number`` is that of the request, 0 where nobody asked; ``serial`` counts what the leader says of lines;
    ``rest_ms`` is how long the key lives from now, -1 without an end. ``refused`` is an error's code and text.
    Its lease is good for ``lease_ms`` from when the request was sent. ``index`` is the last entry of the leader's log.
    ``through``: so many read it that what is to be written should go to memory at once.
    """

    author: bytes
    number: int
    serial: int
    key: bytes
    state: str
    value: bytes | None
    rest_ms: int
    lease_ms: int
    index: int
    refused: str = ""
    through: bool = False


class Recall(Message, tag=29):
    """A cache must give a line up, or (``share``) own it no longer, and write back what it changed."""

    author: bytes
    serial: int
    key: bytes
    share: bool


class Yield(Message, tag=30):
    """It did; ``kept``: it still reads it. What it wrote is in its write-backs up to number ``after``.

    ``reads`` is how often the line was read since it was granted.
    """

    author: bytes
    serial: int
    key: bytes
    kept: bool
    after: int
    reads: int = 0


class Release(Message, tag=31):
    """A cache gave a line up by itself, after the grant ``serial`` had come and its write-back ``after`` was sent."""

    author: bytes
    serial: int
    key: bytes
    after: int


class WriteBack(Message, tag=32):
    """What a cache changed: key, value, milliseconds left of its life in decimal digits ("" for all), and so on."""

    author: bytes
    base: int
    number: int
    cells: list[bytes]


class WrittenBack(Message, tag=33):
    """Its write-backs up to ``number`` are carried out."""

    author: bytes
    number: int


class Census(Message, tag=34):
    """A new leader wants to hear that a cache holds nothing of its predecessors' any more."""

    author: bytes


class Surrendered(Message, tag=35):
    """It does not; what it had changed is in its write-backs up to ``after``."""

    author: bytes
    after: int


class Lost(Message, tag=36):
    """A cache's lease ran out and its lines were given away: all it holds is void, what it did not write back lost.

    That is the cache that joined with ``base``.
    """

    author: bytes
    base: int


class Renew(Message, tag=37):
    """A cache wants its leases renewed in these shards, each with the leader's term and the number it joined with."""

    author: bytes
    sent_us: int
    offices: list[tuple[int, int, int]]


class Renewed(Message, tag=38):
    """They are, in these of them, for ``lease_ms`` from ``sent_us`` on."""

    author: bytes
    sent_us: int
    lease_ms: int
    offices: list[tuple[int, int, int]]


class NameReads(Message, tag=39):
    """The reads up to ``number`` must say what they read, as somebody owns lines: ask again with `AskRead.args`."""

    number: int


AnyMessage: TypeAlias = (
    Append
    | Appended
    | Conflict
    | Heartbeat
    | Alive
    | Presence
    | Commit
    | Vote
    | Voted
    | TimeoutNow
    | Chunk
    | ChunkTaken
    | Forward
    | AskRead
    | Readable
    | Wish
    | WishRefused
    | WishGranted
    | Look
    | Outcome
    | Waits
    | Ended
    | Contended
    | ContendedHeard
    | Join
    | Joined
    | Want
    | Grant
    | Recall
    | Yield
    | Release
    | WriteBack
    | WrittenBack
    | Census
    | Surrendered
    | Lost
    | Renew
    | Renewed
    | NameReads
)
