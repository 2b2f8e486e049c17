"""ELECT.OBSERVE on several nodes at once: everybody hears of the last leader, and of nobody who never was one."""

from __future__ import annotations

from tests.holders import Threads
from tests.raw_client import RawClient
from tests.stages import LONG_MS, Stage, insist

TERMS = 12
LAST = "last"


class Observer:
    """A client that asks again and again for a leader it does not know, until the last one."""

    def __init__(self, client: RawClient, protocol: int, election: str) -> None:
        self.seen: list[tuple[int, str, str]] = []
        self._client = client
        self._election = election
        client.call("HELLO", protocol)

    def watch(self) -> None:
        known: tuple[str | int, ...] = ()
        while not self.seen or self.seen[-1][1] != LAST:
            candidate, token, value = insist(self._client, "ELECT.OBSERVE", self._election, *known, "BLOCK", 0)
            self.seen.append((token, candidate.decode(), value.decode()))
            known = ("TOKEN", token)


def test_every_observer_hears_of_the_last_leader(stage: Stage) -> None:
    election, elected, threads = stage.key("election"), dict[int, str](), Threads()
    observers = [Observer(node.raw(), protocol, election) for node in stage.nodes for protocol in (2, 3)]
    for observer in observers:
        threads.start(observer.watch)
    names = [*(f"c{number}" for number in range(TERMS)), LAST]
    for number, name in enumerate(names):
        if number == TERMS // 2:
            stage.depose()
        client = stage.client(number)
        token = insist(client, "ELECT.CAMPAIGN", election, name, "VALUE", f"at {name}", "PX", LONG_MS)
        elected[token] = name
        assert insist(client, "ELECT.LEADER", election) == [name.encode(), token, f"at {name}".encode()]
        if name != LAST:
            insist(client, "ELECT.RESIGN", election, name, "TOKEN", token)
    threads.join()
    assert sorted(elected) == list(elected), "tokens grow"
    for observer in observers:
        tokens = [token for token, _, _ in observer.seen]
        assert tokens == sorted(set(tokens)), "the news come in order, and once"
        assert all(elected[token] == name and value == f"at {name}" for token, name, value in observer.seen)
