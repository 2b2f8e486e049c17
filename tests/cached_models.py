"""What a key does that clients use through the caches of several nodes, and one that is loaded by one for all.

As tests.simulation.models: written from the contract, for a search of one order that explains all replies. What is
no call of a client, but may happen, is an operation too: that a deadline passes, that a node goes with what it had
not written back, that a loader's token ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from tests.simulation.models import UNKNOWN, Call, Operation, Output, Unknown, Value

PLAIN = b""
"""Where a call is made that does not go through a cache, or is durable before its reply."""

FOREVER = b""
"""The tag of a value without a deadline."""


class _Version(NamedTuple):
    """A value, and the tag of its deadline."""

    value: Value
    tag: bytes


class Kept(NamedTuple):
    """What memory has, then what its owner changed since; the last one is what everybody reads.

    The owner may have written back any of them, and goes with those it has not.
    """

    versions: tuple[_Version, ...]
    owner: bytes = PLAIN


NOTHING = _Version(None, FOREVER)


class CachedRegister:
    """A string key under plain commands and CACHE.*.

    ``GET key`` · ``READ key node``, the same where writes may be lost · ``SET key value node tag [NX | XX]`` ·
    ``DEL key`` · ``EXPIRE key tag`` · ``LAPSE key tag``: that deadline passes · ``LOSE key node``: the node may
    lose what it had changed and nobody else had seen.
    """

    initial: ClassVar[Kept] = Kept((NOTHING,))

    def step(self, state: Kept, call: Call, output: Output | Unknown) -> Sequence[Kept]:
        """The key afterwards, if the call answers ``output``."""
        match call:
            case [b"GET", _]:
                return (_seen(state),) if _fits(output, state.versions[-1].value) else ()
            case [b"READ", _, node]:
                return (_seen(state, node),) if _fits(output, state.versions[-1].value) else ()
            case [b"SET", _, value, node, tag, *condition]:
                return _set(_seen(state, node), _Version(value, tag), node, condition, output)
            case [b"DEL", _]:
                existed = state.versions[-1].value is not None
                return (self.initial,) if _fits(output, int(existed)) else ()
            case [b"EXPIRE", _, tag]:
                old = state.versions[-1].value
                after = _seen(state) if old is None else Kept((_Version(old, tag),))
                return (after,) if _fits(output, int(old is not None)) else ()
            case [b"LAPSE", _, tag]:
                return (_then(state, NOTHING, state.owner),) if state.versions[-1].tag == tag else ()
            case [b"LOSE", _, node]:
                lost = state.versions[:-1] if state.owner == node else ()
                return (state, *dict.fromkeys(Kept((version,)) for version in lost))
        raise ValueError(f"not a command of the register: {call}")

    def show(self, state: Kept) -> str:
        """What is in memory, and what its owner made of it."""
        shown = " > ".join("nothing" if one.value is None else one.value.decode() for one in state.versions)
        return f"{shown} at {state.owner.decode()}" if state.owner else shown

    def only_reads(self, call: Call, output: Output | Unknown) -> bool:
        """GET, and reads that nobody saw; other reads make durable what another node had changed."""
        return call[0] == b"GET" or (call[0] == b"READ" and output is UNKNOWN)

    def alike(self, unknown: Sequence[Call], known: Sequence[Operation]) -> Sequence[Call]:
        """All as they are: no value is written twice."""
        return unknown


def _fits(output: Output | Unknown, answer: Output) -> bool:
    return output is UNKNOWN or output == answer


def _seen(state: Kept, node: bytes = PLAIN) -> Kept:
    """The key once somebody at this node has seen it: what another had changed is in memory."""
    return state if state.owner in (PLAIN, node) else Kept(state.versions[-1:])


def _then(state: Kept, version: _Version, owner: bytes) -> Kept:
    return Kept((*state.versions, version), owner) if owner else Kept((version,))


def _set(
    state: Kept, version: _Version, node: bytes, condition: Sequence[bytes], output: Output | Unknown
) -> Sequence[Kept]:
    exists = state.versions[-1].value is not None
    if condition and exists == (condition[0] == b"NX"):
        return (state,) if _fits(output, None) else ()
    return (_then(state, version, node),) if _fits(output, "OK") else ()


class Load(NamedTuple):
    """The value of a key, the token of who loads it (0: nobody), and the last token there was."""

    value: Value
    token: int
    last: int


class Loaded:
    """A key that one client loads for all.

    ``FETCH key [ms]`` · ``FILL key token value`` · ``SET key value`` · ``DEL key`` · ``END key token``: the token's
    time is over, or its session. A ``FETCH`` answers the value, or a token. Who waits for one gets it once the other
    has ended.
    """

    initial: ClassVar[Load] = Load(None, 0, 0)

    def step(self, state: Load, call: Call, output: Output | Unknown) -> Sequence[Load]:
        """The key afterwards, if the call answers ``output``."""
        match call:
            case [b"FETCH", _, *_]:
                if isinstance(output, int):
                    free = state.value is None and not state.token and output > state.last
                    return (Load(None, output, output),) if free else ()
                return (state,) if output is UNKNOWN or (output is not None and output == state.value) else ()
            case [b"FILL", _, token, value]:
                good = state.value is None and state.token == int(token)
                if output is UNKNOWN:
                    return (state._replace(value=value, token=0),) if good else ()
                if output is None:
                    return () if good else (state,)
                return (state._replace(value=value, token=0),) if good and output == "OK" else ()
            case [b"SET", _, value]:
                return (state._replace(value=value, token=0),) if _fits(output, "OK") else ()
            case [b"DEL", _]:
                return (state._replace(value=None),) if _fits(output, int(state.value is not None)) else ()
            case [b"END", _, token]:
                return (state._replace(token=0),) if state.token == int(token) else ()
        raise ValueError(f"not a command of a loaded key: {call}")

    def show(self, state: Load) -> str:
        """Its value, and whose it is to load."""
        value = "nothing" if state.value is None else state.value.decode()
        return f"{value}, token {state.token}" if state.token else value

    def only_reads(self, call: Call, output: Output | Unknown) -> bool:
        """What was refused, and a value that was there; a token nobody saw had an end nobody saw."""
        return (call[0] == b"FETCH" and not isinstance(output, int)) or (call[0] == b"FILL" and output is None)

    def alike(self, unknown: Sequence[Call], known: Sequence[Operation]) -> Sequence[Call]:
        """All as they are: no value is written twice."""
        return unknown
