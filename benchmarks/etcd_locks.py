"""etcd's lock API as its clients use it: a lease, the lock under it, and back.

A client of etcd holds its locks with a *lease*, which it keeps alive and which
ends them when it is gone. `Lock` and `Unlock` are calls of etcd's lock service.
Numbers of leases are chosen here, which etcd allows: so the key of a hold,
``name/`` and its lease in hexadecimal, is known without reading an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from benchmarks.etcd import Etcd
from benchmarks.grpc_calls import Call, short
from benchmarks.probes import Pace

GRANT = b"/etcdserverpb.Lease/LeaseGrant"
REVOKE = b"/etcdserverpb.Lease/LeaseRevoke"
LOCK = b"/v3lockpb.Lock/Lock"
UNLOCK = b"/v3lockpb.Lock/Unlock"

TTL_SECONDS = 60
CHANGES_PER_PAIR = 2
"""A lock is a key that is put and deleted; leases are no keys."""

Leases = Callable[[bytes, int], Iterator[Call]]
"""How a client comes by its leases: its calls, who locks and unlocks the lock of that name so many times."""

_new_lease = count(1_000_000).__next__


def varint(number: int) -> bytes:
    """A positive integer as protobuf writes it."""
    groups = []
    while number > 0x7F:
        groups.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes((*groups, number))


def grant(lease: int) -> Call:
    """Makes a lease."""
    return Call(GRANT, b"\x08" + varint(TTL_SECONDS) + b"\x10" + varint(lease))


def revoke(lease: int) -> Call:
    """Ends a lease."""
    return Call(REVOKE, b"\x08" + varint(lease))


def lock(name: bytes, lease: int) -> Call:
    """Takes a lock for as long as the lease lasts."""
    return Call(LOCK, b"\x0a" + short(name) + b"\x10" + varint(lease))


def unlock(name: bytes, lease: int) -> Call:
    """Gives it back."""
    return Call(UNLOCK, b"\x0a" + short(b"%b/%x" % (name, lease)))


def one_each(name: bytes, pairs: int) -> Iterator[Call]:
    """A lease for each pair, which is left alone when the lock was given back."""
    for _ in range(pairs):
        lease = _new_lease()
        yield grant(lease)
        yield lock(name, lease)
        yield unlock(name, lease)


def one_each_revoked(name: bytes, pairs: int) -> Iterator[Call]:
    """A lease for each pair, which is ended after it, as etcd's own client and ``etcdctl lock`` do."""
    for _ in range(pairs):
        lease = _new_lease()
        yield grant(lease)
        yield lock(name, lease)
        yield unlock(name, lease)
        yield revoke(lease)


def one_for_all(name: bytes, pairs: int) -> Iterator[Call]:
    """One lease for all pairs, as a client has that locks again and again; it is there before the first."""
    lease = _new_lease()
    yield grant(lease)
    for _ in range(pairs):
        yield lock(name, lease)
        yield unlock(name, lease)


def lock_in_pairs(etcd: Etcd, leases: Leases, clients: int, pairs: int) -> Pace:
    """In what time so many clients each lock and unlock a lock of their own ``pairs`` times.

    What is left of their leases is ended after that time: etcd would do it during a later one.
    """
    first = _new_lease() + 1
    callers = [leases(b"lock:%d" % number, pairs) for number in range(clients)]
    pace = etcd.carry_out(callers, CHANGES_PER_PAIR * clients * pairs)
    if leases is not one_each_revoked:
        left = range(first, _new_lease())
        etcd.carry_out([iter([revoke(lease) for lease in left[number::clients]]) for number in range(clients)], 0)
    return pace
