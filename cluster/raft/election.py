"""How a leader is found: pre-votes, votes, and who may have one (sections 5.2, 5.4 and 9.6).

A member asks first whether it could win (pre-vote), in a term it does not
enter, so that one that was cut off disturbs nobody when it comes back. And
whoever has heard from a leader within the election timeout votes for nobody
else: a leader may rely on that for its lease. A leader that hands over forces
the election of the one it chose, and lets go of its lease before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.raft.messages import TimeoutNow, Vote, Voted
from cluster.raft.quorum import decided

if TYPE_CHECKING:
    from cluster.raft.core import Raft


class Candidacy:
    """One election this member stands in: who voted how. ``pre`` while it only asks."""

    __slots__ = ("pre", "votes")

    def __init__(self, name: str, *, pre: bool) -> None:
        self.pre = pre
        self.votes = {name: True}


def stand(raft: Raft, *, pre: bool, forced: bool = False) -> None:
    """Stands for election, for real or (``pre``) to see whether it would be worth it."""
    if pre:
        raft.candidacy = Candidacy(raft.name, pre=True)
        raft.leader = None
        term = raft.term + 1
    else:
        raft.enter(raft.term + 1, vote=raft.name)
        raft.candidacy = Candidacy(raft.name, pre=False)
        term = raft.term
    raft.rest()
    request = Vote(term, raft.log.last_index, raft.log.last_term, pre, forced)
    for peer in raft.config.voters:
        if peer != raft.name:
            raft.send(peer, request)
    _count(raft)


def on_vote(raft: Raft, peer: str, message: Vote) -> None:
    """Votes for the peer, or not."""
    if raft.hears_leader and not message.forced:
        if message.term <= raft.term and not message.pre:
            raft.send(peer, Voted(raft.term, False, message.pre))
        return  # its term is not entered either: it may be somebody who was removed, or cut off
    if not message.pre and message.term > raft.term:
        raft.enter(message.term)
        raft.rest()
    log = raft.log
    up_to_date = (message.last_term, message.last_index) >= max(raft.floor, (log.last_term, log.last_index))
    # Who votes knows that it does (`Leading` promotes nobody else): one that was given no replica has no say.
    may_vote = raft.name in raft.config and up_to_date
    if message.pre:
        granted = message.term > raft.term and may_vote
    else:
        granted = message.term == raft.term and raft.vote in ("", peer) and may_vote
        if granted:
            raft.cast(peer)
            raft.rest()
    raft.send(peer, Voted(message.term if granted else raft.term, granted, message.pre))


def on_voted(raft: Raft, peer: str, message: Voted) -> None:
    """Counts an answer; one that tells of a later term ends the candidacy."""
    if not message.granted and message.term > raft.term:
        raft.enter(message.term)
        raft.rest()
        return
    candidacy = raft.candidacy
    if candidacy is None or candidacy.pre != message.pre:
        return
    if message.granted and message.term != (raft.term + 1 if candidacy.pre else raft.term):
        return  # of an election before this one
    candidacy.votes[peer] = message.granted
    _count(raft)


def on_timeout_now(raft: Raft, leader: str, message: TimeoutNow) -> None:
    """The leader hands over to this member."""
    if raft.stands:
        stand(raft, pre=False, forced=True)


def _count(raft: Raft) -> None:
    candidacy = raft.candidacy
    assert candidacy is not None
    outcome = decided(raft.config.voters, candidacy.votes)
    if outcome is None:
        return
    if not outcome:
        raft.candidacy = None
    elif candidacy.pre:
        stand(raft, pre=False)
    else:
        raft.lead()
