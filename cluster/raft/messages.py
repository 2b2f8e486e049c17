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
    """From when on may reads up to ``number`` be served (ReadIndex, section 6.4)?"""

    number: int


class Readable(Message, tag=15):
    """Reads up to ``number`` may be served once ``index`` is applied, as of the leader's time ``now_ms``."""

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
)
