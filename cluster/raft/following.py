"""A follower's rules: what it does with its leader's messages (figure 2, AppendEntries).

Whoever gets here has made sure that the message comes from the leader of this term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.raft.messages import Alive, Append, Chunk, ChunkTaken, Commit, Conflict, Heartbeat
from cluster.storage.contract import Entry

if TYPE_CHECKING:
    from cluster.raft.core import Raft


def on_append(raft: Raft, leader: str, message: Append) -> None:
    """Adds the leader's entries if the log agrees with what precedes them; answers once they are durable."""
    if raft.installing:
        return  # the log is about to be replaced: the leader sends it again
    log = raft.log
    if message.prev_index > log.last_index or not log.holds(message.prev_index, message.prev_term):
        if not log.last_index and raft.name not in raft.config.voters:  # who voted from the beginning has lost nothing
            raft.raise_floor(message.prev_term, message.prev_index)
        raft.send(leader, _conflict(raft, message))
        return
    index = message.prev_index
    for term, payload in message.entries:
        index += 1
        if index <= log.last_index:
            if log.holds(index, term):
                continue
            raft.cut_from(index)
        raft.append(Entry(raft.shard, index, term, payload))
    raft.commit_to(min(message.commit, index))
    raft.acknowledge(leader, index)


def _conflict(raft: Raft, message: Append) -> Conflict:
    """Where the logs may still agree: not later than here, and not in a later term than the leader's there.

    The leader goes back a whole term at a time instead of an entry (section 5.3).
    """
    log = raft.log
    index = min(message.prev_index, log.last_index)
    while index > log.base_index and (log.term(index) or 0) > message.prev_term:
        index -= 1
    return Conflict(raft.term, message.prev_index, index, log.term(index) or 0)


def on_heartbeat(raft: Raft, leader: str, message: Heartbeat) -> None:
    """The leader knows that the log agrees as far as its ``commit`` says."""
    raft.commit_to(message.commit)
    raft.send(leader, Alive(raft.term, message.sent_us, True))


def on_commit(raft: Raft, leader: str, message: Commit) -> None:
    """As in a heartbeat, without an answer."""
    raft.commit_to(message.index)


def on_chunk(raft: Raft, leader: str, message: Chunk) -> None:
    """Keeps a piece of a snapshot for the driver to store; one that brings nothing new is answered at once."""
    if brings_nothing(raft, message):
        raft.send(leader, ChunkTaken(raft.term, message.index, message.position + 1, True))
        return
    raft.chunks.append(message)


def brings_nothing(raft: Raft, message: Chunk) -> bool:
    """Whether the entry the snapshot ends with is carried out, or in the log: then what is behind it there stays."""
    log = raft.log
    return message.index <= raft.commit or (
        message.index <= log.last_index and log.term(message.index) == message.index_term
    )
