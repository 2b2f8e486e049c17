"""CACHE.FETCH and CACHE.FILL: of all who miss a key, in the whole cluster, one loads it, and the others wait for that.

Whoever fetches a key that is not there, and for which nobody has a token, gets
one. It is good until it is used, its time is over, or the session ends; then
the first of those who wait gets the next. When the key comes to be there, by a
fill or by any other command, all have its value, and the token is void: what its
loader brings may be older than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cluster.machine import strings
from cluster.machine.arguments import Options, integer
from cluster.machine.clockwork import Alarm
from cluster.machine.expiry import future
from cluster.machine.hold_requests import read_life_ms
from cluster.machine.reply import WAITING, Reply, syntax_error

if TYPE_CHECKING:
    from cluster.machine.machine import Machine
    from cluster.machine.waiters import Waiter

KIND = b"fill"
LOAD = 5  # the alarm of a token's end
LOAD_MS = 10_000
"""How long a token is good unless it is told."""


class Loader(msgspec.Struct, array_like=True):
    """Who loads a key: a session with a token, until a time of the log."""

    token: int
    origin: bytes
    until_ms: int


def fetch(machine: Machine, args: list[bytes]) -> Reply:
    """CACHE.FETCH key [PX ms]"""
    life_ms = _read_life(machine, args)
    key = args[1]
    found = _value_or_token(machine, key, life_ms)
    if found is not WAITING:
        return found
    return machine.wait(KIND, [key], args, 0, null_array=True)


def retry_fetch(machine: Machine, waiter: Waiter) -> Reply:
    """CACHE.FETCH of one who waits."""
    return _value_or_token(machine, waiter.args[1], _read_life(machine, waiter.args))


def _read_life(machine: Machine, args: list[bytes]) -> int:
    life_ms = LOAD_MS
    options = Options(args, 2)
    for word in options:
        if word != b"PX":
            raise syntax_error()
        life_ms = read_life_ms(machine, options.value(), "cache.fetch")
    return life_ms


def _value_or_token(machine: Machine, key: bytes, life_ms: int) -> Reply:
    value = machine.keyspace.string(key)
    if value is not None:
        return [value, None]
    loader = machine.loaders.get(key)
    if loader is not None and loader.origin != machine.origin:
        return WAITING
    if loader is not None:  # it lost count: whatever it had counts no more
        end(machine, key)
    token = machine.next_id()
    machine.loaders[key] = Loader(token, machine.origin, machine.now_ms + life_ms)
    machine.clockwork.set(machine.now_ms + life_ms, _alarm(key))
    machine.keyspace.watch(key)
    if machine.origin:
        machine.sessions.open(machine.origin).loading[key] = None
    return [None, token]


def fill(machine: Machine, args: list[bytes]) -> Reply:
    """CACHE.FILL key token value [EX s | PX ms]"""
    key = args[1]
    loader = machine.loaders.get(key)
    token = integer(args[2])
    options = Options(args, 4)
    for word in options:
        if word not in (b"EX", b"PX") or len(args) > 6:
            raise syntax_error()
        future(machine, args[0], word, options.value())  # refused whoever asks
    if loader is None or loader.token != token or key in machine.keyspace.values:
        return None
    reply = strings.set_(machine, [b"CACHE.FILL", key, *args[3:]])
    end(machine, key)
    return reply


def end(machine: Machine, key: bytes) -> None:
    """The token counts no more, and somebody who waits may have the next."""
    loader = machine.loaders.pop(key)
    machine.clockwork.cancel(loader.until_ms, _alarm(key))
    machine.keyspace.unwatch(key)
    session = machine.sessions.get(loader.origin)
    if session is not None:
        session.loading.pop(key, None)
        machine.sessions.forget_if_empty(loader.origin)
    machine.signal(key)


def _alarm(key: bytes) -> Alarm:
    return Alarm(LOAD, key, b"")


def _over(machine: Machine, alarm: Alarm, due_ms: int) -> None:
    loader = machine.loaders.get(alarm.key)
    if loader is not None and loader.until_ms == due_ms:
        end(machine, alarm.key)


def restore(machine: Machine, loaders: dict[bytes, Loader]) -> None:
    """The tokens of a ledger."""
    machine.loaders = loaders
    for key, loader in loaders.items():
        machine.clockwork.set(loader.until_ms, _alarm(key))
        machine.keyspace.watch(key)


RINGS = {LOAD: _over}
