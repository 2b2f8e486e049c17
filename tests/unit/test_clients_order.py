"""In which order a turn's commands go into the log."""

from __future__ import annotations

from cluster.clients import Clients
from cluster.machine.machine import END_SESSION
from tests.unit.shard import Shard


def test_a_client_that_is_gone_is_gone_before_anything_is_given_to_anybody() -> None:
    """Else the release of a lock would hand it to one whose end was read before."""
    machine = Shard().machine
    clients = Clients(b"n1.b")
    clients.owe((machine.handler(END_SESSION), [END_SESSION, b"n1.b.7"], b""))
    release = [b"LOCK.RELEASE", b"lock", b"owner"]
    clients.submit_writes("client", [(machine.handler(b"LOCK.RELEASE"), release, b"")])
    assert clients.open.logged == [[END_SESSION, b"n1.b.7"], release]


def test_the_end_of_a_wait_is_not_that_of_the_one_that_begins() -> None:
    machine = Shard().machine
    clients = Clients(b"n1.b")
    clients.owe((machine.handler(END_SESSION), [END_SESSION, b"n1.b.7"], b""))
    acquire = [b"LOCK.ACQUIRE", b"lock", b"owner", b"BLOCK", b"0"]
    clients.submit("client", machine.handler(b"LOCK.ACQUIRE"), acquire, origin=b"n1.b.7")
    assert clients.open.logged == [[END_SESSION, b"n1.b.7"], acquire]
    assert clients.open.origins == {1: b"n1.b.7"}
