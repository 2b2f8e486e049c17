"""Is there one order of a history's operations that explains every reply?

A history is *linearizable* when each operation can be given one instant between
its call and its return so that a sequential `Model`, run in the order of these
instants, gives the replies the clients saw. Every key is an object of its own
and is judged alone.

The search is Wing and Gong's (1993) with Lowe's memory (2017), as Porcupine has
it. The calls and returns not placed yet are a doubly linked list in the order of
time. Whatever is called before the first return of the list may come next: it is
stepped through the model, lifted out of the list, and put back when what follows
leads nowhere. A set of placed operations with the model's state is tried once.

What only read (its reply says so) is never in the way of others: where it fits,
it comes next, and nothing else is tried there.

An operation whose outcome is unknown has a call only, and need not be placed.
Three rules keep such operations from multiplying the search:

- they are tried where no operation with a reply leads on, not before;
- of those that are alike (`Model.alike`), the earliest is used first;
- what was reached using *some* of them is not tried again using more:
  whatever can follow then could have followed before.

Weak spots: the question is NP-complete, so a search has a limit of steps, past
which the verdict is `Verdict.UNDECIDED`. Two times that are equal do not order
operations, so a coarse clock hides violations; number the events instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Generic, NamedTuple

from tests.simulation.findings import Finding, Placed, Report, Verdict
from tests.simulation.models import UNKNOWN, Call, Model, Operation, Output, State, Unknown

STEPS_MAX = 1_000_000
"""How often the model is stepped for one key: some seconds, and some hundred megabytes at worst."""


def check(history: Iterable[Operation], model: Model[State], *, steps_max: int = STEPS_MAX) -> Report:
    """Judges each key of ``history`` by ``model``, stepping it at most ``steps_max`` times a key.

    The operations may come in any order. `ValueError` for one that returned before it was called.
    """
    by_key: dict[bytes, list[Operation]] = {}
    for operation in sorted(history, key=lambda operation: operation.invoked):
        if operation.returned is not None and operation.returned < operation.invoked:
            raise ValueError(f"returned before it was called: {operation}")
        by_key.setdefault(operation.call[1], []).append(operation)
    return Report(tuple(_Search(model, operations, steps_max).judge(key) for key, operations in by_key.items()))


class _Entry:
    """A call in the list, with its return as ``ending``; or a return; or the list's head, of no operation."""

    __slots__ = ("after", "before", "bit", "ending", "operation")

    def __init__(self, operation: Operation, bit: int = 0, ending: _Entry | None = None) -> None:
        self.operation = operation
        self.bit = bit
        self.ending = ending
        self.before = self.after = self

    def append(self, entry: _Entry) -> None:
        """Puts ``entry`` at the end of the list this is the head of."""
        entry.before, entry.after = self.before, self
        self.before.after = self.before = entry

    def lift(self) -> None:
        """Takes this call and its return out; both remember where they were."""
        for entry in (self, self.ending):
            assert entry is not None
            entry.before.after, entry.after.before = entry.after, entry.before

    def unlift(self) -> None:
        """Puts both back. Calls come back in the opposite order of their leaving."""
        for entry in (self.ending, self):
            assert entry is not None
            entry.before.after = entry.after.before = entry


class _Pending(NamedTuple):
    """An operation of unknown outcome: the call that stands for it, its bit, and that of one alike before it (or 0)."""

    operation: Operation
    call: Call
    bit: int
    earlier: int


class _Move(NamedTuple, Generic[State]):
    """One operation placed: what it led to, and the sets of operations placed by then, with replies and without."""

    operation: Operation
    entry: _Entry | None
    state: State
    done: int
    used: int


class _OutOfSteps(Exception):
    """The search has reached its limit."""


class _Search(Generic[State]):
    """The search for an order of one key's operations, which are given in the order of their calls."""

    def __init__(self, model: Model[State], operations: Sequence[Operation], steps_max: int) -> None:
        self.model = model
        self.steps_max = steps_max
        self.steps = 0
        self.known = [operation for operation in operations if operation.returned is not None]
        unknown = [operation for operation in operations if operation.returned is None]
        self.head = _list_of(self.known)
        self.pending = _pending(model, unknown, self.known)
        self.seen: dict[tuple[int, State], list[int]] = {}
        self.longest: list[_Move[State]] = []

    def judge(self, key: bytes) -> Finding:
        """Runs the search and says what it found."""
        try:
            verdict = Verdict.LINEARIZABLE if self._finds_order() else Verdict.VIOLATED
        except _OutOfSteps:
            verdict = Verdict.UNDECIDED
        while self.longest and self.longest[-1].entry is None:  # tried in vain at the end
            self.longest.pop()
        order = tuple(Placed(move.operation, self.model.show(move.state)) for move in self.longest)
        if verdict is Verdict.LINEARIZABLE:
            return Finding(key, verdict, self.steps, order)
        done, used = (self.longest[-1].done, self.longest[-1].used) if self.longest else (0, 0)
        rest = [operation for number, operation in enumerate(self.known) if not done >> number & 1]
        first_return = min(_returned(operation) for operation in rest)
        stuck = tuple(operation for operation in rest if operation.invoked <= first_return)
        unknown = tuple(entry.operation for entry in self._callable(first_return, used))
        return Finding(key, verdict, self.steps, order, stuck, len(rest) - len(stuck), unknown)

    def _finds_order(self) -> bool:
        """Whether all operations with a reply can be placed. Leaves the longest order in ``longest``."""
        path: list[_Move[State]] = []
        choices = [self._moves(self.model.initial, 0, 0)]
        try:
            while self.head.after is not self.head:
                move = next(choices[-1], None)
                if move is not None:
                    if move.entry is not None:
                        move.entry.lift()
                    path.append(move)
                    choices.append(self._moves(move.state, move.done, move.used))
                    continue
                self._keep(path)
                choices.pop()
                if not path:
                    return False
                entry = path.pop().entry
                if entry is not None:
                    entry.unlift()
            return True
        finally:
            self._keep(path)

    def _keep(self, path: list[_Move[State]]) -> None:
        """Remembers ``path`` if more operations with a reply are placed than ever before."""
        if path and (not self.longest or path[-1].done.bit_count() > self.longest[-1].done.bit_count()):
            self.longest = path.copy()

    def _moves(self, state: State, done: int, used: int) -> Iterator[_Move[State]]:
        """What can come next and was not tried yet. The list must be as it was whenever the next move is asked for."""
        known: list[_Move[State]] = []
        entry = self.head.after
        while entry.ending is not None:
            call, output = entry.operation.call, entry.operation.output
            moves = [
                _Move(entry.operation, entry, after, done | entry.bit, used)
                for after in self._step(state, call, output)
            ]
            if moves and self.model.only_reads(call, output):
                yield from filter(self._is_new, moves)
                return
            known += moves
            entry = entry.after
        yield from filter(self._is_new, known)
        # All are marked before one is followed, so that none is tried after another that makes no difference to it.
        yield from [
            move
            for operation, call, bit, _ in self._callable(_returned(entry.operation), used)
            for after in self._step(state, call, UNKNOWN)
            if self._is_new(move := _Move(operation, None, after, done, used | bit))
        ]

    def _callable(self, first_return: int, used: int) -> Iterator[_Pending]:
        """The operations of unknown outcome that can come before anything returns."""
        for pending in takewhile(lambda pending: pending.operation.invoked <= first_return, self.pending):
            if not used & pending.bit and used & pending.earlier == pending.earlier:
                yield pending

    def _step(self, state: State, call: Call, output: Output | Unknown) -> Sequence[State]:
        if self.steps == self.steps_max:
            raise _OutOfSteps
        self.steps += 1
        return self.model.step(state, call, output)

    def _is_new(self, move: _Move[State]) -> bool:
        """Whether its end was never reached using the same or a part. It counts as reached from now on."""
        used = move.used
        reached = self.seen.setdefault((move.done, move.state), [])
        if any(fewer & used == fewer for fewer in reached):
            return False
        reached[:] = [other for other in reached if other & used != used]
        reached.append(used)
        return True


def _returned(operation: Operation) -> int:
    assert operation.returned is not None
    return operation.returned


def _list_of(known: Sequence[Operation]) -> _Entry:
    """The head of a ring of calls and returns in the order of time, calls first where times are equal."""
    timed: list[tuple[int, int, _Entry]] = []
    for number, operation in enumerate(known):
        ending = _Entry(operation)
        call = _Entry(operation, 1 << number, ending)
        timed += [(operation.invoked, 0, call), (_returned(operation), 1, ending)]
    head = _Entry(Operation("", (), 0))
    for _, _, entry in sorted(timed, key=lambda item: item[:2]):
        head.append(entry)
    return head


def _pending(model: Model[State], unknown: Sequence[Operation], known: Sequence[Operation]) -> list[_Pending]:
    """Those of ``unknown`` that may have changed something, in the order of their calls."""
    writes = [operation for operation in unknown if not model.only_reads(operation.call, UNKNOWN)]
    calls = model.alike([operation.call for operation in writes], known)
    last: dict[Call, int] = {}
    pending = []
    for number, (operation, call) in enumerate(zip(writes, calls, strict=True)):
        pending.append(_Pending(operation, call, 1 << number, last.get(call, 0)))
        last[call] = 1 << number
    return pending
