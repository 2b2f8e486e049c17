"""A ring as a Redis Cluster: who is a master of what, whose replica a node is, and what is told during an election."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.ring.slots import SLOTS, ranges
from cluster.status import PeerStatus, RingRow, Status
from resp_server.address import Address
from resp_server.commands.topology import Topology, count, hex_id, joined

OWN = Address("10.0.0.9", 6379)
NAMES = ("n1", "n2", "n3", "n4")


def peer(name: str, **known: Any) -> PeerStatus:
    usual: dict[str, Any] = {
        "address": f"127.0.0.1:700{name[1:]}", "zone": "", "role": "follower", "reachable": True,
        "last_contact_ms": 1, "round_trip_us": 1, "leading": 0, "replicas": 0, "state": "up",
    }  # fmt: skip
    return PeerStatus(id=name, **usual | known)


def status(*peers: PeerStatus, address: str = "127.0.0.1:7001") -> Status:
    return Status(
        node="n1", cluster="c", address=address, zone="", state="up", leader="n1", term=1, voters=NAMES, learners=(),
        leading=0, replicas=0, left=False, paused=False, shards=(), peers=peers,
    )  # fmt: skip


def rows(*placed: tuple[str, str | None], moving: dict[int, str] | None = None) -> list[RingRow]:
    """A ring of shards, each with its nodes (in one text) and its leader; the first node is preferred."""
    found = []
    for number, ((first, last), (nodes, leader)) in enumerate(zip(ranges(len(placed)), placed, strict=True)):
        names = tuple(nodes.split())
        on_the_way = tuple((moving or {}).get(number, "").split())
        found.append(RingRow(number, first, last, names, leader, names[0] if names else None, on_the_way))
    return found


def topology(ring: list[RingRow], **unreachable: bool) -> Topology:
    peers = [peer(name, reachable=not unreachable.get(name, False)) for name in NAMES[1:]]
    return Topology(status(*peers), ring, OWN)


def slots(found: Topology, name: str) -> list[tuple[int, int]]:
    return found.slots_of(found.places[name])


def master(found: Topology, name: str) -> str | None:
    one = found.master_of(found.places[name])
    return None if one is None else one.name


def test_a_node_is_the_master_of_all_it_leads_and_neighbours_are_one_range() -> None:
    found = topology(rows(("n1 n2", "n1"), ("n2 n1", "n1"), ("n2 n3", "n2"), ("n1 n3", "n1")))
    assert slots(found, "n1") == [(0, 8191), (12288, 16383)]
    assert slots(found, "n2") == [(8192, 12287)]
    assert found.masters == 2


def test_a_node_that_leads_nothing_is_a_replica_of_the_leader_of_its_first_shard() -> None:
    found = topology(rows(("n1 n2", "n1"), ("n2 n3", "n2"), ("n1 n3", "n1")))
    assert (slots(found, "n3"), master(found, "n3")) == ([], "n2")


def test_a_node_without_a_replica_is_a_master_of_nothing() -> None:
    found = topology(rows(("n1 n2 n3", "n1")))
    assert (slots(found, "n4"), master(found, "n4")) == ([], None)


def test_every_range_has_its_own_replicas_and_those_on_their_way() -> None:
    found = topology(rows(("n1 n2 n3", "n2"), ("n3 n4", "n4"), moving={0: "n4 n3"}))
    first, second = found.ranges
    assert [one.name for one in first.replicas] == ["n1", "n3"]
    assert [one.name for one in first.learners] == ["n4"]
    assert [one.name for one in second.replicas] == ["n3"]


@pytest.mark.parametrize(
    ("unreachable", "expected"),
    [({}, "n2"), ({"n2": True}, "n1"), ({"n2": True, "n3": True}, "n1")],
)
def test_while_nobody_leads_the_slots_are_where_they_will_likely_be_answered(
    unreachable: dict[str, bool], expected: str
) -> None:
    found = topology(rows(("n2 n1 n3", None)), **unreachable)
    (one,) = found.ranges
    assert one.master is not None
    assert (one.master.name, one.led) == (expected, False)


def test_a_shard_that_nobody_is_known_to_have_has_no_master() -> None:
    found = topology(rows(("", None), ("n9", "n9")))
    assert [one.master for one in found.ranges] == [None, None]
    assert found.masters == 0


def test_nodes_are_found_by_either_of_their_ids() -> None:
    found = topology(rows(("n1", "n1")))
    for named in (b"n2", hex_id("c", "n2")):
        place = found.find(named)
        assert place is not None
        assert place.name == "n2"
    assert found.find(b"n9") is None


def test_a_node_that_listens_everywhere_is_where_the_client_found_it() -> None:
    found = Topology(status(address=""), rows(("n1", "n1")), OWN)
    assert found.places["n1"].address == OWN


@given(st.lists(st.tuples(st.sampled_from(["", "n1", "n1 n2 n3", "n4 n3", "n2 n9"]), st.sampled_from([*NAMES, None])),
                min_size=1, max_size=20))  # fmt: skip
def test_slots_of_all_masters_are_what_has_a_master_and_nothing_twice(placed: list[tuple[str, str | None]]) -> None:
    found = topology(rows(*placed))
    owned = [one for name in NAMES for one in slots(found, name)]
    assert count(owned) == count([(one.first, one.last) for one in found.ranges if one.master is not None])
    assert len({slot for first, last in owned for slot in range(first, last + 1)}) == count(owned) <= SLOTS


def test_ranges_that_follow_each_other_are_joined() -> None:
    assert joined([(0, 1), (2, 5), (7, 7), (8, 9)]) == [(0, 5), (7, 9)]
    assert joined([]) == []
