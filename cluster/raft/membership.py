"""Who belongs to the cluster, and how that changes.

One server at a time (the paper's dissertation, chapter 4), so that the
majorities of the old and the new configuration always overlap. Three rules
make it safe:

- a configuration counts from the moment it is in the log, committed or not,
  and no longer when a conflict takes it out again;
- no change is begun before the one before it is committed;
- nor before the leader has committed an entry of its own term (the known
  flaw of the first publication: two leaders could otherwise each change an
  uncommitted configuration, and lose the overlap).

Joint consensus would change several at a time; nothing here wants that: a
replica is added, caught up as a learner, promoted, and only then another removed.
"""

from __future__ import annotations

import msgspec

from cluster.storage.contract import Entry

MARK = b"\xc1"
"""The first byte of an entry that holds a configuration: MessagePack never uses it."""

VOTERS_MAX = 9
"""More voters make every write wait for more disks and survive nothing more that happens."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One node: where it is reached, which data folder it is trusted with ("" until it was first met), its zone."""

    id: str
    address: str
    disk: str = ""
    zone: str = ""


class Config(msgspec.Struct, frozen=True, array_like=True):
    """Voters and learners, in a fixed order, and what is known of each member."""

    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    members: dict[str, Member] = msgspec.field(default_factory=dict)

    def __contains__(self, node: str) -> bool:
        return node in self.members

    def others(self, node: str) -> list[str]:
        """Everybody but ``node``, voters first."""
        return [member for member in (*self.voters, *self.learners) if member != node]

    # Changes: each gives another configuration, which differs in one server.

    def with_learner(self, member: Member) -> Config:
        """A new member, that has no vote yet."""
        assert member.id not in self.members
        return Config(self.voters, (*self.learners, member.id), {**self.members, member.id: member})

    def with_voter(self, node: str) -> Config:
        """A learner gets its vote."""
        learners = tuple(one for one in self.learners if one != node)
        return Config((*self.voters, node), learners, self.members)

    def without(self, node: str) -> Config:
        """A member leaves."""
        return Config(
            tuple(one for one in self.voters if one != node),
            tuple(one for one in self.learners if one != node),
            {one: member for one, member in self.members.items() if one != node},
        )

    def with_known(self, member: Member) -> Config:
        """What is known of a member changes: its address, or its disk; no vote does."""
        return Config(self.voters, self.learners, {**self.members, member.id: member})

    def free_id(self) -> str:
        """A name for a node that has none: n1, n2 … past the highest taken."""
        numbers = [int(one[1:]) for one in self.members if one[:1] == "n" and one[1:].isdecimal()]
        return f"n{max(numbers, default=0) + 1}"


def static(addresses: dict[str, str]) -> Config:
    """The first configuration of a new cluster: every node of ``addresses`` (by id) is a voter."""
    names = sorted(addresses)
    return Config(tuple(names), (), {name: Member(name, addresses[name]) for name in names})


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Config).decode


def payload_of(config: Config) -> bytes:
    """A configuration as an entry's payload."""
    return MARK + _encode(config)


def config_in(payload: bytes) -> Config | None:
    """The configuration an entry holds, if it holds one."""
    return _decode(payload[1:]) if payload[:1] == MARK else None


class Membership:
    """The configurations in the log; ``now`` is the one in force: the last, committed or not."""

    __slots__ = ("_history", "now")

    def __init__(self, index: int, config: Config) -> None:
        """``config`` is that of the checkpoint, which ends at ``index``."""
        self.restart(index, config)

    @property
    def since(self) -> int:
        """The index from which it is."""
        return self._history[-1][0]

    @property
    def before(self) -> Config:
        """The one in force before it, as far as that is remembered: as long as it may not be committed."""
        return self._history[max(0, len(self._history) - 2)][1]

    def at(self, index: int) -> Config:
        """The configuration that was in force at an entry."""
        return next(config for since, config in reversed(self._history) if since <= index)

    def left(self, node: str) -> bool:
        """Whether the node was a member and is none any more; one that joins may not have come to its own entry yet."""
        return node not in self.now and any(node in config for _, config in self._history)

    def note(self, entry: Entry) -> bool:
        """An entry was appended; whether it holds a configuration."""
        config = config_in(entry.payload)
        if config is None:
            return False
        self._history.append((entry.index, config))
        self.now = config
        return True

    def cut_from(self, index: int) -> bool:
        """The log was cut from ``index`` on; whether the configuration in force was cut off."""
        before = len(self._history)
        while len(self._history) > 1 and self._history[-1][0] >= index:
            self._history.pop()
        self.now = self._history[-1][1]
        return len(self._history) < before

    def compact(self, index: int) -> None:
        """Nobody asks for what was in force before ``index`` any more."""
        while len(self._history) > 1 and self._history[1][0] <= index:
            del self._history[0]

    def restart(self, index: int, config: Config) -> None:
        """A snapshot was installed."""
        self._history = [(index, config)]
        self.now = config
