"""One register, and all that it may hold for what its clients were told: a value for each order that explains it.

Every operation is called, and returns unless nobody ever knows what became of it. What was acknowledged by a cache
and never reached the memory is lost when that cache is closed: the register is what the memory has then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from tests.simulation.world import Violation

Value = bytes | None


class Op(NamedTuple):
    """A read, or a write of ``value``; by clients of the node ``name``, 0 for the leader itself."""

    number: int
    name: str
    writes: bool
    value: Value = None


class Config(NamedTuple):
    """What it may hold, and which of those that have not returned have happened, with what they saw."""

    value: Value
    done: tuple[tuple[int, Value], ...] = ()


class Judge(NamedTuple):
    """What is known of the register; never changed. ``undurable`` are (author, value) that memory never had."""

    configs: frozenset[Config] = frozenset({Config(None)})
    pending: tuple[Op, ...] = ()
    undurable: tuple[tuple[bytes, Value], ...] = ()

    def called(self, op: Op) -> Judge:
        """Somebody asks for something."""
        return self._replace(pending=(*self.pending, op))

    def op(self, number: int) -> Op:
        """One that has not returned."""
        return next(op for op in self.pending if op.number == number)

    def failed(self, number: int) -> Judge:
        """It certainly did not happen, and never will."""
        configs = frozenset(one for one in self.configs if all(number != done for done, _ in one.done))
        return self._replace(configs=configs, pending=self._without(number))

    def returned(self, number: int, value: Value) -> Judge:
        """It is answered: with what it read, or with what it wrote."""
        op = self.op(number)
        if not op.writes:
            for author, lost in self.undurable:
                if value == lost and node_of(author) != op.name:
                    raise Violation("durable before others see it", f"{op.name} read {value!r} of {author!r}")
        found = frozenset(
            Config(one.value, tuple(done for done in one.done if done != (number, value)))
            for one in self._reachable()
            if (number, value) in one.done
        )
        if not found:
            raise Violation(
                "linearizability", f"{op} was answered {value!r}; it may be {sorted(self.configs, key=repr)}"
            )
        return self._replace(configs=found, pending=self._without(number))

    def acknowledged(self, author: bytes, value: Value) -> Judge:
        """A cache has answered a write that is in its line alone."""
        return self._replace(undurable=(*self.undurable, (author, value)))

    def stored(self, value: Value) -> Judge:
        """The memory has it."""
        return self._replace(undurable=tuple(one for one in self.undurable if one[1] != value))

    def lost(self, author: bytes, memory: Value) -> Judge:
        """A cache is no more."""
        gone = [value for of, value in self.undurable if of == author]
        if not gone:
            return self
        configs = frozenset(one._replace(value=memory) if one.value in gone else one for one in self.configs)
        return self._replace(configs=configs, undurable=tuple(one for one in self.undurable if one[0] != author))

    def _without(self, number: int) -> tuple[Op, ...]:
        return tuple(op for op in self.pending if op.number != number)

    def _reachable(self) -> Iterable[Config]:
        seen = dict.fromkeys(self.configs)
        todo = list(seen)
        while todo:
            for one in self._after(todo.pop()):
                if one not in seen:
                    seen[one] = None
                    todo.append(one)
        return seen

    def _after(self, config: Config) -> Iterator[Config]:
        for op in self.pending:
            if all(op.number != number for number, _ in config.done):
                value = op.value if op.writes else config.value
                yield Config(value, tuple(sorted((*config.done, (op.number, value)), key=repr)))


@lru_cache(maxsize=10_000)
def may_read(judge: Judge, value: Value) -> bool:
    """Whether somebody who asks now may see that."""
    return any(one.value == value for one in judge._reachable())


def node_of(author: bytes) -> str:
    """Whose cache it is."""
    return author.split(b".")[0].decode()
