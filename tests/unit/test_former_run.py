"""What a node asked in an earlier run of its process, and what is said to that, while it runs anew."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.raft.messages import AskRead, Message
from tests.scenarios.cluster import Cluster

LATE_MS = 40.0


def late(sender: str, to: str, message: Message) -> Sequence[float]:
    """What n2 asks takes twice as long as what it is told."""
    if sender == "n2" and isinstance(message, AskRead):
        return (2 * LATE_MS,)
    return (LATE_MS if (sender, to) == ("n1", "n2") else 0.0,)


def test_what_was_read_in_an_earlier_run_says_nothing_of_what_is_read_now() -> None:
    """Reads are counted from one again in each run; what the leader said to an earlier one is older than a write."""
    cluster = Cluster(3)
    cluster.elect("n1")
    n1, n2 = cluster.hosts["n1"], cluster.hosts["n2"]
    n1.write("SET x old")
    for _ in range(5):
        n2.read("GET x")
        cluster.pass_ms(5)
    cluster.pass_ms(400)
    cluster.fate = late
    n2.read("GET x")
    cluster.turn("n2")
    cluster.crash("n2")
    cluster.start("n2")
    cluster.pass_ms(2 * LATE_MS + 10)  # what that run asked has come, what is said to it has not
    cluster.events.clear()
    n1.write("SET x new")
    cluster.pass_ms(5)
    assert cluster.events == ["n1 SET x new -> OK"]
    n2.read("GET x")
    cluster.pass_ms(400)
    assert cluster.events[1:] == ['n2 GET x -> "new"']
