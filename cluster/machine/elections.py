"""ELECT.*: one leader among candidates, whom everybody can look up and wait for.

The rules: who campaigns first is elected; who campaigns later waits its turn,
in the order they came. The leader campaigning again keeps its token, lives on
as a lock's holder does (`cluster.machine.hold_lives`), and may change its
value. Whoever observes learns of every new leader, not of a new value.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

import msgspec

from cluster.machine import hold_lives
from cluster.machine.arguments import bounded
from cluster.machine.hold import Hold, Holding
from cluster.machine.hold_requests import LIFE, check_name, read_block_ms, read_options, read_px_ms, read_token
from cluster.machine.reply import NULL_ARRAY, WAITING, CommandError, Reply, syntax_error, wrong_type
from cluster.machine.waiters import Waiter

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

CAMPAIGN = {b"VALUE": True, **LIFE, b"BLOCK": True}
RESIGN = {b"TOKEN": True}
OBSERVE = {b"TOKEN": True, b"BLOCK": True, b"PUSH": False}

OBSERVER = b"election observer"
"""What observers wait for: not their turn, so they do not stand in the line of the candidates."""


class Election(Holding, array_like=True, gc=False):
    """An election that somebody has won."""

    kind: ClassVar[bytes] = b"election"
    encoding: ClassVar[bytes] = b"election"

    leader: Hold
    value: bytes | None

    def holder(self, owner: bytes) -> Hold | None:
        """What ``owner`` has, if it leads."""
        return self.leader if self.leader.owner == owner else None

    def holders(self) -> Collection[Hold]:
        """The leader's hold."""
        return (self.leader,)

    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return Holding.size_bytes(self) + len(self.value or b"")


class Request(msgspec.Struct, gc=False):
    """What ELECT.CAMPAIGN was asked. ``px_ms`` None: SESSION; ``block_ms`` None: do not wait."""

    key: bytes
    candidate: bytes
    value: bytes | None
    px_ms: int | None
    block_ms: int | None


def _parse(machine: Machine, args: list[bytes]) -> Request:
    check_name(args[2], "candidate")
    found = read_options(args, 3, CAMPAIGN)
    px_ms = read_px_ms(machine, found, "elect.campaign")
    return Request(args[1], args[2], found.get(b"VALUE"), px_ms, read_block_ms(machine, found))


def _find(machine: Machine, key: bytes) -> Election | None:
    value = machine.keyspace.values.get(key)
    if value is None or type(value) is Election:
        return value
    raise wrong_type()


# Campaigning


def campaign(machine: Machine, args: list[bytes]) -> Reply:
    """ELECT.CAMPAIGN key candidate [VALUE v] [PX ms | SESSION] [BLOCK ms]: the token when elected."""
    request = _parse(machine, args)
    token = _try(machine, request, None)
    if token is not None or request.block_ms is None:
        return token
    return machine.wait(Election.kind, [request.key], args, request.block_ms)


def retry_campaign(machine: Machine, waiter: Waiter) -> Reply:
    """The turn of one who waits with ELECT.CAMPAIGN."""
    token = _try(machine, _parse(machine, waiter.args), waiter)
    return WAITING if token is None else token


def _try(machine: Machine, request: Request, waiter: Waiter | None) -> int | None:
    """Elects the candidate, if the rules allow it now: the token, else None and nothing changed."""
    key = request.key
    election = _find(machine, key)
    if election is not None:
        return _again(machine, request, election) if election.leader.owner == request.candidate else None
    if machine.waiters.first(key, Election.kind) is not waiter:
        return None
    token = machine.issued.issue(key)
    hold = Hold(request.candidate, token, 1, None, b"", ())
    machine.keyspace.put(key, Election(token, hold, request.value))
    hold_lives.begin(machine, key, hold, request.px_ms)
    machine.signal(key)
    return token


def _again(machine: Machine, request: Request, election: Election) -> int:
    machine.keyspace.touch(request.key)
    if request.value is not None:
        election.value = request.value
    hold_lives.prolong(machine, request.key, election, election.leader, request.px_ms)
    return election.leader.token


def resign(machine: Machine, args: list[bytes]) -> Reply:
    """ELECT.RESIGN key candidate [TOKEN token]"""
    key = args[1]
    token = read_token(read_options(args, 3, RESIGN))
    election = _find(machine, key)
    hold = None if election is None else election.holder(args[2])
    if election is None or hold is None or (token is not None and token != hold.token):
        return 0
    hold_lives.end(machine, key, election, hold)
    return 1


# Looking


def leader(machine: Machine, args: list[bytes]) -> Reply:
    """ELECT.LEADER key"""
    return _leader(machine, args[1]) or NULL_ARRAY


def observe(machine: Machine, args: list[bytes]) -> Reply:
    """ELECT.OBSERVE key [TOKEN known] [BLOCK ms | PUSH]: the leader, once it is not the known one.

    That the client hears of others, too, is the business of the node it is
    connected to, which asks for each. A token that was not given yet is refused: all who wait know one of the
    past, so whoever is elected is new to all of them.
    """
    found = read_options(args, 2, OBSERVE)
    if b"TOKEN" in found:
        bounded(found[b"TOKEN"], 0, machine.issued.counter, "TOKEN is not one that was given")
    block_ms = read_block_ms(machine, found)
    if b"PUSH" in found:
        if block_ms is not None:
            raise syntax_error()
        if not machine.may_wait:
            raise CommandError("PUSH is not possible in a transaction")
    seen = _unknown(machine, args, found)
    if seen is not None:
        return seen
    return NULL_ARRAY if block_ms is None else machine.wait(OBSERVER, [args[1]], args, block_ms, null_array=True)


def retry_observe(machine: Machine, waiter: Waiter) -> Reply:
    """ELECT.OBSERVE of one who waits."""
    return _unknown(machine, waiter.args, read_options(waiter.args, 2, OBSERVE)) or WAITING


def _unknown(machine: Machine, args: list[bytes], found: dict[bytes, bytes]) -> list[Reply] | None:
    seen = _leader(machine, args[1])
    return None if seen is None or seen[1] == read_token(found) else seen


def _leader(machine: Machine, key: bytes) -> list[Reply] | None:
    election = _find(machine, key)
    if election is None or election.leader.is_over(machine.now_ms):
        return None
    return [election.leader.owner, election.leader.token, election.value]
