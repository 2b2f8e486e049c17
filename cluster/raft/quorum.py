"""Majorities: the one rule under elections, commits, leases and check-quorum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def reached(voters: Iterable[str], value: Callable[[str], Number]) -> Number:
    """The greatest value that a majority of the voters has reached; 0 when there are no voters."""
    values = sorted(map(value, voters), reverse=True)
    return values[len(values) // 2] if values else 0


def decided(voters: Iterable[str], votes: dict[str, bool]) -> bool | None:
    """How an election ends: won, lost, or (None) not decided yet."""
    names = list(voters)
    needed = len(names) // 2 + 1
    granted = sum(votes.get(name) is True for name in names)
    refused = sum(votes.get(name) is False for name in names)
    if names and granted >= needed:
        return True
    return False if refused > len(names) - needed else None
