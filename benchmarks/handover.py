"""Hand-overs of one contended lock: how long from sending the release until the next holder's reply is here."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count as numbers

from benchmarks.probes import POLL_SECONDS, RECEIVE_BYTES, SILENCE_SECONDS, Endpoint, MeasureFailed, ask, request

HOLD_MS = 600_000

_contests = numbers()


@dataclass(frozen=True, slots=True)
class _Client:
    """One who takes the lock again and again, each time behind all others."""

    socket: socket.socket
    take: bytes
    give_back: bytes

    def reply(self) -> int:
        """The integer it is answered; anything else is `MeasureFailed`."""
        said = self.socket.recv(RECEIVE_BYTES)
        if not said.startswith(b":") or said.count(b"\n") != 1 or not said.endswith(b"\r\n"):
            raise MeasureFailed(f"expected an integer, got {said[:100]!r}")
        return int(said[1:])


class Contest:
    """Clients of one lock, spread over the nodes: one of them holds it, all others wait."""

    def __init__(self, endpoints: Sequence[Endpoint], waiters: int, key: str, until: ExitStack) -> None:
        self._epoll = until.enter_context(select.epoll())
        self._clients: dict[int, _Client] = {}
        for number in range(waiters + 1):
            connection = until.enter_context(endpoints[number % len(endpoints)].connect(SILENCE_SECONDS))
            owner = f"owner:{number}"
            take = request("LOCK.ACQUIRE", key, owner, "PX", str(HOLD_MS), "BLOCK", "0")
            client = _Client(connection, take, request("LOCK.RELEASE", key, owner))
            self._epoll.register(connection, select.EPOLLIN)
            self._clients[connection.fileno()] = client
            connection.sendall(take)
        [(self._holder, _)] = self._ready()
        self._token = self._clients[self._holder].reply()
        give_up = time.monotonic() + SILENCE_SECONDS
        while _waiting(endpoints[0], key) < waiters:
            if time.monotonic() > give_up:
                raise MeasureFailed(f"not all {waiters} wait for the lock after {SILENCE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)

    def hand_over(self) -> float:
        """The holder gives the lock back and goes to the end of the line: seconds until the next one has it."""
        holder = self._clients[self._holder]
        seconds = 0.0
        left = False
        started = time.perf_counter()
        holder.socket.send(holder.give_back)
        while not (left and seconds):
            ready = self._ready()
            now = time.perf_counter()
            for descriptor, _ in ready:
                client = self._clients[descriptor]
                reply = client.reply()
                if client is holder and not left:
                    if reply != 1:
                        raise MeasureFailed("the holder was told that it held nothing")
                    left = True
                    client.socket.send(client.take)
                    continue
                if seconds or reply <= self._token:
                    raise MeasureFailed(f"token {reply} was given after {self._token}, or two were at once")
                self._token = reply
                self._holder = descriptor
                seconds = now - started
        return seconds

    def _ready(self) -> list[tuple[int, int]]:
        ready = self._epoll.poll(SILENCE_SECONDS)
        if not ready:
            raise MeasureFailed(f"nobody was given the lock for {SILENCE_SECONDS:g} s")
        return ready


def _waiting(endpoint: Endpoint, key: str) -> int:
    """How many wait for a lock."""
    said = ask(endpoint, "LOCK.INFO", key)
    return len(dict(zip(said[::2], said[1::2], strict=True))[b"waiters"])


def handovers(endpoints: Sequence[Endpoint], waiters: int, count: int) -> list[float]:
    """So many hand-overs of one lock that ``waiters`` always wait for, in seconds."""
    with ExitStack() as until:
        contest = Contest(endpoints, waiters, f"contended:{next(_contests)}", until)
        return [contest.hand_over() for _ in range(count)]
