"""ELECT.OBSERVE on several nodes at once: everybody hears of the last leader, and of nobody who never was one."""

from __future__ import annotations

from pathlib import Path

from tests.clusters import UNHURRIED, running_cluster
from tests.holders import Threads
from tests.raw_client import RawClient
from tests.stages import LONG_MS, Stage, insist

TERMS = 12
LAST = "last"
SESSION_TIMEOUT_MS = "6000"  # others wait there who must not be closed when a process stands still for a second


class Observer:
    """A client that hears of one leader after the other, until the last one."""

    def __init__(self, client: RawClient, election: str) -> None:
        self.seen: list[tuple[int, str, str]] = []
        self._client = client
        self._election = election

    def ask(self) -> None:
        """With RESP2: again and again for a leader it does not know."""
        known: tuple[str | int, ...] = ()
        while not self._heard_last():
            self._note(*insist(self._client, "ELECT.OBSERVE", self._election, *known, "BLOCK", 0))
            known = ("TOKEN", self.seen[-1][0])

    def listen(self) -> None:
        """With RESP3: once, and the news come by themselves."""
        self._client.call("HELLO", 3)
        leader = insist(self._client, "ELECT.OBSERVE", self._election, "PUSH")
        if leader is not None:
            self._note(*leader)
        while not self._heard_last():
            kind, key, *news = self._client.read()
            assert (kind, key) == (b"elect", self._election.encode())
            self._note(*news)

    def _note(self, candidate: bytes, token: int, value: bytes) -> None:
        self.seen.append((token, candidate.decode(), value.decode()))

    def _heard_last(self) -> bool:
        return bool(self.seen) and self.seen[-1][1] == LAST


def test_every_observer_hears_of_the_last_leader(stage: Stage) -> None:
    election, elected, threads = stage.key("election"), dict[int, str](), Threads()
    observers = [Observer(node.raw(), election) for node in stage.nodes for _ in range(2)]
    for asks, listens in zip(observers[::2], observers[1::2], strict=True):
        threads.start(asks.ask)
        threads.start(listens.listen)
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


def test_an_observer_at_a_node_that_was_cut_off_hears_of_the_last_leader(tmp_path: Path) -> None:
    """For so long that the others ended what its clients held there and waited for."""
    flags = (*UNHURRIED, "--session-timeout", SESSION_TIMEOUT_MS)
    with running_cluster(tmp_path, 3, *flags) as cluster:
        leader = cluster.wait_for_lasting_leader()
        away, other = cluster.others(leader)
        client, holder, waiter, threads = away.raw(), away.raw(), other.raw(), Threads()
        observer = Observer(client, "election")
        assert holder.call("LOCK.ACQUIRE", "session", "ann", "SESSION") > 0
        assert waiter.call("ELECT.CAMPAIGN", "election", "first", "VALUE", "", "PX", LONG_MS) > 0
        threads.start(observer.listen)
        cluster.wait_until(lambda: observer.seen)
        assert holder.call("SET", "marker", 1) == b"OK", "what its node asked before is in the log, too"
        cluster.network.isolate(away.name)
        assert waiter.call("LOCK.ACQUIRE", "session", "bob", "BLOCK", 0) > 0, "the others gave its sessions up"
        assert waiter.call("ELECT.RESIGN", "election", "first") == 1
        assert waiter.call("ELECT.CAMPAIGN", "election", LAST, "VALUE", "", "PX", LONG_MS) > 0
        cluster.network.heal()
        threads.join()
        assert [candidate for _, candidate, _ in observer.seen] == ["first", LAST]
