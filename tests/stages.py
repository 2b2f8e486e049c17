"""A shard that loses its leader, by a kill or by an operator's wish, and clients of the nodes that live on."""

from __future__ import annotations

import contextlib
import itertools
import select
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from tests.clusters import Cluster, Node, error_of, let_lead
from tests.raw_client import RawClient, Word
from tests.rings import ring_of, wait_for_ring
from tests.servers import START_SECONDS, answered

LONG_MS = 3_600_000  # a life no test wants to see the end of
PASSING = ("CLUSTERDOWN", "UNCERTAIN")
CHANGES = ["kill", "failover"]

_tags = itertools.count()


class Stage:
    """A shard of a cluster: names of keys in it, who leads it, and its change of leader."""

    def __init__(self, cluster: Cluster, change: str) -> None:
        self.cluster = cluster
        self._tag = f"stage{next(_tags)}"
        self._change = change
        row = wait_for_ring(cluster).of(self.key("any"))
        assert row.leader is not None
        self._shard = row.shard
        self._leader = cluster[row.leader]
        let_lead(self._leader, self._shard)  # chosen by hand it stays, whomever the ring wants
        self._heir = next(cluster[name] for name in row.nodes if name != row.leader)
        self.nodes: list[Node] = [node for node in cluster.serving if change == "failover" or node is not self._leader]
        """Those that live on."""

    def key(self, name: str) -> str:
        """A key of the shard that no other test uses."""
        return f"{{{self._tag}}}{name}"

    def client(self, number: int) -> RawClient:
        """A new client, of one node or another."""
        return self.nodes[number % len(self.nodes)].raw()

    def depose(self) -> None:
        """Takes the leader away, and does not wait for the next one."""
        if self._change == "kill":
            self._leader.kill()
        else:
            let_lead(self._heir, self._shard)

    def wait_for_successor(self) -> None:
        """Returns once all know another leader, and are answered by it."""

        def is_known(node: Node) -> bool:
            row = ring_of(node).of(self.key("any"))
            return row.leader not in (None, self._leader.name) and not error_of(node.raw(), "DEL", self.key("any"))

        def is_known_to_all() -> bool:
            with contextlib.suppress(OSError):
                return all(is_known(node) for node in self.nodes)
            return False

        self.cluster.wait_until(is_known_to_all)

    def change_leader(self) -> None:
        """Both."""
        self.depose()
        self.wait_for_successor()

    def info(self, command: str, name: str) -> dict[str, Any]:
        """LOCK.INFO, SEM.INFO or LATCH.INFO, as some node answers, once it does."""
        told: dict[str, Any] = answered(
            partial(self.nodes[-1].ask, command, self.key(name)), OSError, wait=self.cluster.wait_until
        )
        return told

    def owners(self, name: str, of: str = "holders", command: str = "LOCK.INFO") -> list[str]:
        """Who holds it, or waits for it, in their order."""
        return [one["owner"] for one in self.info(command, name)[of]]

    def ttl_ms(self, name: str) -> int:
        """What is left of the life of its one holder."""
        [holder] = self.info("LOCK.INFO", name)["holders"]
        return int(holder["ttl-ms"])

    def wait_until_waiting(self, name: str, owners: Sequence[str], command: str = "LOCK.INFO") -> None:
        """Returns once these wait for it, in this order, and no others."""
        self.cluster.wait_until(lambda: self.owners(name, "waiters", command) == list(owners))

    def queue_up(self, name: str, requests: Iterable[Sequence[Word]], command: str = "LOCK") -> dict[str, RawClient]:
        """One client after another waits for it: the owner comes first in each request, then its options."""
        waiting: dict[str, RawClient] = {}
        for number, (owner, *options) in enumerate(requests, 1):
            waiting[str(owner)] = client = self.client(number)
            client.send(f"{command}.ACQUIRE", self.key(name), owner, "PX", LONG_MS, "BLOCK", 0, *options)
            self.wait_until_waiting(name, list(waiting), f"{command}.INFO")
        return waiting


def nothing_said(clients: Iterable[RawClient]) -> bool:
    """Whether none of them was sent anything that it has not read."""
    return not select.select([client.socket for client in clients], [], [], 0)[0]


def insist(client: RawClient, *words: Word) -> Any:
    """The reply to a call that may be repeated, once it is no error that passes; the last one if all were."""
    give_up_s = time.monotonic() + START_SECONDS
    while True:
        reply = client.call(*words)
        if not str(reply).startswith(PASSING) or time.monotonic() > give_up_s:
            return reply


def is_blocked(looks: RawClient, client_id: int) -> bool:
    """Whether the node ``looks`` is connected to knows that this client of its waits."""
    return b" flags=b " in looks.call("CLIENT", "LIST", "ID", client_id)
