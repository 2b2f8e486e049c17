"""Deadlocks: how long from sending the request that closes a cycle of owners until its victim is told.

Each owner has a connection and holds a lock; each asks for the next one's, and
the last for the first's. The victim gives its lock back, which lets the others
through one after the other: whoever else had been failed would be noticed.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count

from benchmarks.probes import POLL_SECONDS, RECEIVE_BYTES, Endpoint, MeasureFailed, ask, request
from tests.rings import Ring

HOLD_MS = 600_000
GIVE_UP_SECONDS = 10.0
TRY_AGAIN = (b"-CLUSTERDOWN", b"-UNCERTAIN")
"""What an owner is told whose leader is lost while it asks: it asks again."""

_cycles = count()


class _Owner:
    """One of the cycle: the lock it holds, the one it waits for, and its connection."""

    def __init__(self, name: str, connection: socket.socket, holds: str, wants: str) -> None:
        self.socket = connection
        self.holds = holds
        self.wants = wants
        self._name = name
        self._wait = request("LOCK.ACQUIRE", wants, name, "PX", str(HOLD_MS), "BLOCK", "0")

    def take(self) -> None:
        """Takes its own lock, which is free."""
        self._call("LOCK.ACQUIRE", self.holds, self._name, "PX", str(HOLD_MS))

    def wait(self) -> None:
        """Asks for the next one's."""
        self.socket.sendall(self._wait)

    def give_back(self, key: str) -> None:
        """Gives back a lock that it holds."""
        self._call("LOCK.RELEASE", key, self._name)

    def told(self) -> bytes:
        """What it is told, a line; nothing when it had to ask again."""
        said = self.socket.recv(RECEIVE_BYTES)
        if said.startswith(TRY_AGAIN):
            self.wait()
            return b""
        if not said.endswith(b"\r\n") or said.count(b"\n") != 1:
            raise MeasureFailed(f"{self._name} expected one line, got {said[:100]!r}")
        return said.strip()

    def _call(self, *words: str) -> None:
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < give_up:
            self.socket.sendall(request(*words))
            said = self.socket.recv(RECEIVE_BYTES)
            if not said.startswith(TRY_AGAIN):
                break
        if not said.startswith(b":") or said == b":0\r\n":
            raise MeasureFailed(f"{' '.join(words)} answered {said.strip()[:100]!r}")


@contextmanager
def _owners(endpoints: Sequence[Endpoint], ring: Ring, shards: Sequence[int]) -> Iterator[list[_Owner]]:
    """Owners that each hold a lock in one of the shards, and will want the next one's."""
    cycle = next(_cycles)
    keys = [ring.key_in(shard, f"cycle:{cycle}:{number}") for number, shard in enumerate(shards)]
    with ExitStack() as until:
        owners = []
        for number, key in enumerate(keys):
            connection = until.enter_context(endpoints[number % len(endpoints)].connect(GIVE_UP_SECONDS))
            owners.append(_Owner(f"owner:{cycle}:{number}", connection, key, keys[(number + 1) % len(keys)]))
        yield owners


def break_one(
    endpoints: Sequence[Endpoint], ring: Ring, shards: Sequence[int], disturb: Callable[[], None] | None = None
) -> float:
    """Makes a deadlock of as many owners as shards are named: seconds until it is broken.

    ``disturb`` is called right before the cycle is closed; ``endpoints`` are those that clients are connected to.
    """
    with _owners(endpoints, ring, shards) as owners:
        for owner in owners:
            owner.take()
        for owner in owners[:-1]:
            owner.wait()
            _until_waiting(endpoints[0], owner.wants)
        if disturb is not None:
            disturb()
        started = time.perf_counter()
        owners[-1].wait()
        victim, seconds = _victim(owners, started)
        _unwind(owners, victim)
    return seconds


def _victim(owners: Sequence[_Owner], started: float) -> tuple[int, float]:
    """Who was failed, and after how long."""
    while time.perf_counter() - started < GIVE_UP_SECONDS:
        ready, _, _ = select.select([owner.socket for owner in owners], [], [], POLL_SECONDS)
        seconds = time.perf_counter() - started
        for number, owner in enumerate(owners):
            if owner.socket in ready and (said := owner.told()):
                if not said.startswith(b"-DEADLOCK "):
                    raise MeasureFailed(f"one of a cycle of {len(owners)} was told {said[:100]!r}")
                return number, seconds
    raise MeasureFailed(f"a deadlock of {len(owners)} owners was not broken in {GIVE_UP_SECONDS:g} s")


def _unwind(owners: Sequence[_Owner], victim: int) -> None:
    """The victim gives way; each of the others must now get what it waits for."""
    owners[victim].give_back(owners[victim].holds)
    for step in range(1, len(owners)):
        owner = owners[victim - step]
        said = b""
        while not said:
            said = owner.told()
        if not said.startswith(b":"):
            raise MeasureFailed(f"one of a cycle of {len(owners)} that had been broken was told {said[:100]!r}")
        owner.give_back(owner.wants)
        owner.give_back(owner.holds)


def _until_waiting(endpoint: Endpoint, key: str) -> None:
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < give_up:
        said = ask(endpoint, "LOCK.INFO", key)
        if dict(zip(said[::2], said[1::2], strict=True))[b"waiters"]:
            return
        time.sleep(POLL_SECONDS)
    raise MeasureFailed(f"nobody waits for {key} after {GIVE_UP_SECONDS:g} s")
