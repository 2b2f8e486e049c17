"""Changes of membership and leadership that somebody asked for, until they are so.

A wish is kept by the node it was made at, which repeats it to whoever leads.
It is fulfilled when this node's own committed configuration (or its leader)
says so, which makes asking twice, losing a message and a change of leader
harmless. An old configuration may say so because it has not come to be, so only
one counts that is as new as the leader's when that saw the wish fulfilled.

A leader grants at most one change at a time; what it cannot grant yet it leaves
for the next repetition, what it never will it refuses with a reason.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cluster.batch import Client
from cluster.machine.reply import OK, CommandError, Reply
from cluster.raft.core import Raft
from cluster.raft.membership import Config, Member
from cluster.raft.messages import Wish, WishGranted, WishRefused

MEMBERS_MAX = 100
"""More nodes than anybody has tried."""

PATIENCE_MS = 15_000.0
"""How long a wish is repeated before whoever made it is told that it did not come true."""


class Change(NamedTuple):
    """``kind`` is ``add`` (a member: an empty ``node`` lets the cluster name it), ``remove`` or ``lead``."""

    kind: str
    node: str
    address: str = ""
    disk: str = ""
    zone: str = ""


class Departures(Protocol):
    """Who sees to it that a node that is to leave holds nothing any more."""

    def let_go(self, node: str) -> bool:
        """Begins to free the node of its shards; whether it is free already."""
        ...

    def left_on(self, node: str) -> int:
        """How many shards a node that is to leave still has a part in, as far as is known here; 0 for any other."""
        ...


class Pending(NamedTuple):
    """A wish made here."""

    number: int
    client: Client
    change: Change
    until_ms: float


class Refused(Exception):
    """The change is not possible; ``reason`` is one line for whoever asked."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Wishes:
    """The wishes made at one node, and what it can do towards those of others while it leads.

    ``pending`` are those, ``answers`` collects what those who asked are to be told.
    """

    __slots__ = ("_granted", "_number", "_raft", "answers", "departures", "pending")

    def __init__(self, raft: Raft) -> None:
        self.answers: list[tuple[Client, Reply]] = []
        self._raft = raft
        self.departures: Departures | None = None
        self.pending: list[Pending] = []
        self._granted: dict[int, int] = {}  # by number: the entry after which the leader saw it fulfilled
        self._number = 0

    def make(self, client: Client, change: Change) -> None:
        """Somebody here wishes it; a client of None only hopes."""
        self._number += 1
        self.pending.append(Pending(self._number, client, change, self._raft.now_ms + PATIENCE_MS))

    def pursue(self) -> list[Wish]:
        """Answers those that came true or ran out of time; what to repeat to the leader, if that is another node."""
        raft = self._raft
        for wish in list(self.pending):
            reply = fulfilled(raft, wish.change) if self._may_tell(wish) else None
            if reply is None and raft.leading is not None:
                try:
                    self._grant(wish.change)
                except Refused as refused:
                    reply = CommandError(refused.reason)
            if reply is None and raft.now_ms >= wish.until_ms:
                reply = self._too_late(wish.change)
            if reply is not None:
                self._end(wish, reply)
        return [Wish(0, wish.number, *wish.change) for wish in self.pending] if raft.leading is None else []

    def _may_tell(self, wish: Pending) -> bool:
        """Whether what is carried out here is new enough to tell whether the wish is fulfilled."""
        raft = self._raft
        if raft.leading is not None:
            return raft.leading.settled
        if wish.change.node == raft.name and raft.membership.left(raft.name):
            return True  # a leader that removes itself has nobody to ask
        return wish.change.kind == "lead" or raft.applied >= self._granted.get(wish.number, raft.applied + 1)

    def hear(self, peer: str, message: Wish) -> WishGranted | WishRefused | None:
        """Another node repeats a wish of its clients; the answer, if it is so, or cannot come true.

        One that was removed, and does not know it, has no members to wish for: to be known
        by another address would make it a member again. Who leads a shard may be wished by nodes that have none of it.
        """
        raft = self._raft
        if raft.leading is None:
            return None
        change = Change(message.kind, message.node, message.address, message.disk, message.zone)
        try:
            if change.kind == "lead" or peer in raft.config:
                self._grant(change)
        except Refused as refused:
            return WishRefused(0, message.number, refused.reason)
        if raft.leading is not None and raft.leading.settled and fulfilled(raft, change) is not None:
            return WishGranted(0, message.number, raft.applied)
        return None

    def _grant(self, change: Change) -> None:
        """Does what a leader can do now; a node that is to be removed gives up its shards first."""
        raft, departures = self._raft, self.departures
        leaves = change.kind == "remove" and _removed(raft, change) is not None
        if leaves and departures is not None and not departures.let_go(change.node):
            return
        grant(raft, change)

    def _too_late(self, change: Change) -> CommandError:
        left = self.departures.left_on(change.node) if self.departures is not None and self._raft.leader else 0
        if change.kind == "remove" and left:
            return CommandError(f"{change.node} is being drained: {left} shards are left; ask again", "TRYAGAIN")
        return CommandError("the cluster did not agree in time: see RAFT.INFO, and ask again", "UNCERTAIN")

    def granted(self, message: WishGranted) -> None:
        """The leader saw it fulfilled: who leads it knows for sure, and a node without a replica would never see."""
        for wish in list(self.pending):
            if wish.number != message.number:
                continue
            if wish.change.kind == "lead":
                self._end(wish, OK)
            else:
                self._granted[message.number] = message.index

    def refused(self, message: WishRefused) -> None:
        """The leader will not do it."""
        for wish in list(self.pending):
            if wish.number == message.number:
                self._end(wish, CommandError(message.reason))

    def _end(self, wish: Pending, reply: Reply) -> None:
        self.pending.remove(wish)
        self._granted.pop(wish.number, None)
        if wish.client is not None:
            self.answers.append((wish.client, reply))


def fulfilled(raft: Raft, change: Change) -> Reply | None:
    """The reply to a wish that has come true, None while it has not."""
    config = raft.config
    if change.kind == "lead":
        return OK if raft.leader == change.node else None
    if raft.membership.since > raft.applied or not config.members:
        return None
    if change.kind == "remove":
        return OK if change.node not in config else None
    member = _known(config, change)
    if member is None or (member.address, member.zone) != (change.address, change.zone):
        return None
    return member.id.encode()


def grant(raft: Raft, change: Change) -> None:
    """Does what a leader can do now towards a wish; raises `Refused` when it cannot come true."""
    leading = raft.leading
    assert leading is not None
    config = raft.config
    if change.kind == "lead":
        if change.node not in config.voters:
            raise Refused(f"{change.node} is no voter of this cluster: see RAFT.INFO")
        if change.node != raft.name and leading.successor != change.node:
            if raft.now_ms - leading.progress[change.node].heard_ms >= raft.timing.election_ms:
                raise Refused(f"{change.node} does not answer: see RAFT.INFO")  # and no write should wait for it
            leading.hand_over(change.node)
        return
    wanted = _removed(raft, change) if change.kind == "remove" else _added(config, change)
    if wanted is not None and leading.may_change() and leading.successor is None:
        leading.change(wanted)


def _removed(raft: Raft, change: Change) -> Config | None:
    config = raft.config
    if change.node not in config:
        return None
    if config.voters == (change.node,):
        raise Refused(f"{change.node} is the last voter: stop it to end the cluster")
    return config.without(change.node)


def _added(config: Config, change: Change) -> Config | None:
    known = _known(config, change)
    if known is not None:
        member = Member(known.id, change.address, known.disk or change.disk, change.zone)
        return None if member == known else config.with_known(member)
    ghosts = [one for one in config.learners if config.members[one].address == change.address != ""]
    if ghosts:  # it joined before, and died before its folder knew: that one never comes back
        return config.without(ghosts[0])
    if change.node in config:
        raise Refused(
            f"{change.node} is a member already, with another data folder: choose another --node-id,"
            f" or remove {change.node} first"
        )
    if len(config.members) >= MEMBERS_MAX:
        raise Refused(f"the cluster has {MEMBERS_MAX} nodes, which is the most it takes: remove one first")
    return config.with_learner(Member(change.node or config.free_id(), change.address, change.disk, change.zone))


def _known(config: Config, change: Change) -> Member | None:
    """The member that is asked about, if it is one: with the same data folder, or not met yet."""
    for member in config.members.values():
        if member.disk == change.disk and change.node in ("", member.id):
            return member
    member = config.members.get(change.node, Member("", "", "?"))
    return member if member.disk == "" else None
