"""A key that is read and written through caches, too: one like any other, but that a write may be lost with its cache.

What a cache took and memory has not is its *owner's* alone: nobody else sees it, and it may be gone with the owner.
So the state is the key's as the owner has it and as memory has it; they are the same where nobody is owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple

from tests.simulation.models import Call, Model, Operation, Output, State, Unknown

THROUGH = b"through"
"""``through key author weak call…``: a call by way of the cache of that author; with ``weak``, memory never had it."""

LOSS = b"loss"
"""``loss key author``: what memory does not have of that cache is gone."""


class Both(NamedTuple, Generic[State]):
    """The key as its owner has it, and as memory has it; ``owner`` is nothing where they are the same."""

    now: State
    kept: State
    owner: bytes = b""


class Cached(Generic[State]):
    """A key as ``model`` has it, under its calls, the same `THROUGH` caches, and `LOSS`."""

    def __init__(self, model: Model[State]) -> None:
        self._model = model
        self.initial: Both[State] = Both(model.initial, model.initial)

    def step(self, state: Both[State], call: Call, output: Output | Unknown) -> Sequence[Both[State]]:
        """The states afterwards; none where somebody else is owner, for that one would have had to write back first."""
        if call[0] == LOSS:
            return (Both(state.kept, state.kept) if state.owner == call[2] else state,)
        author, weak = (call[2], bool(call[3])) if call[0] == THROUGH else (b"", False)
        if state.owner not in (b"", author):
            return ()
        inner = _inner(call)
        after = self._model.step(state.now, inner, output)
        if weak:
            return [Both(now, state.kept, author) for now in after]
        if state.owner and self._model.only_reads(inner, output):
            return [Both(now, state.kept, state.owner) for now in after]
        return [Both(now, now) for now in after]

    def show(self, state: Both[State]) -> str:
        """What the owner has, and memory."""
        now = self._model.show(state.now)
        return f"{now} at {state.owner.decode()}, {self._model.show(state.kept)} kept" if state.owner else now

    def only_reads(self, call: Call, output: Output | Unknown) -> bool:
        """As the model has it."""
        return call[0] != LOSS and self._model.only_reads(_inner(call), output)

    def alike(self, unknown: Sequence[Call], known: Sequence[Operation]) -> Sequence[Call]:
        """As the model has it, of those that went the same way."""
        inner = [one._replace(call=_inner(one.call)) for one in known if one.call[0] != LOSS]
        alike = self._model.alike([_inner(call) for call in unknown], inner)
        return [_through(call, like) if call[0] == THROUGH else like for call, like in zip(unknown, alike, strict=True)]


def _inner(call: Call) -> Call:
    return (call[4], call[1], *call[5:]) if call[0] == THROUGH else call


def _through(call: Call, inner: Call) -> Call:
    return (*call[:4], inner[0], *inner[2:])


def through(author: bytes, call: Call, *, weak: bool) -> Call:
    """A call by way of a cache."""
    return (THROUGH, call[1], author, b"weak" if weak else b"", call[0], *call[2:])


def loss(key: bytes, author: bytes, begin: int, end: int) -> Operation:
    """What a cache had of a key, and memory had not, was lost in that time."""
    return Operation("loss", (LOSS, key, author), begin, end, "OK")
