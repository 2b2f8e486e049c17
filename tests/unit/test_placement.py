"""Where shards are put: what must always hold, and how even and how steady it is, measured over many sets of names."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.ring.leaders import leaders_of
from cluster.ring.placement import Placement, place

MEMBERS = st.dictionaries(
    st.text("abcn0123456789-", min_size=1, max_size=6),
    st.sampled_from(["", "east", "west", "north"]),
    min_size=1,
    max_size=9,
)


def names(seed: int, count: int) -> list[str]:
    """Names as people give them, and, from seed 4 on, random ones."""
    chance = random.Random(seed)
    kinds: dict[int, Iterable[str]] = {
        0: (f"n{number}" for number in range(1, count + 1)),
        1: (f"node-{number:02d}" for number in range(count)),
        2: (f"10.0.0.{number}:7001" for number in range(1, count + 1)),
        3: (f"sepakat-{number}.queue.svc.cluster.local" for number in range(count)),
    }
    return list(kinds.get(seed, (f"{chance.getrandbits(48):012x}" for _ in range(count))))


def put(shards: int, nodes: Iterable[str], replicas: int = 3) -> list[Placement]:
    """A placement without zones."""
    return place(shards, replicas, dict.fromkeys(nodes, ""))


def replicas_on(placements: Iterable[Placement]) -> Counter[str]:
    return Counter(node for placement in placements for node in placement.nodes)


def moved(before: Iterable[Placement], after: Iterable[Placement]) -> int:
    """Replicas that have to be made."""
    return sum(node not in old.nodes for old, new in zip(before, after, strict=True) for node in new.nodes)


# What always holds.


@given(members=MEMBERS, shards=st.integers(1, 40), replicas=st.integers(1, 9), data=st.data())
def test_a_placement_is_a_function_of_the_set_of_members(
    members: dict[str, str], shards: int, replicas: int, data: st.DataObject
) -> None:
    found = place(shards, replicas, members)
    assert place(shards, replicas, dict(data.draw(st.permutations(list(members.items()))))) == found


@given(members=MEMBERS, shards=st.integers(1, 40), replicas=st.integers(1, 9))
def test_every_shard_has_its_replicas_on_as_many_zones_as_there_are(
    members: dict[str, str], shards: int, replicas: int
) -> None:
    zones = Counter(zone or f"of {node} alone" for node, zone in members.items())
    found = place(shards, replicas, members)
    assert len(found) == shards
    for nodes, preferred in found:
        assert len(set(nodes)) == len(nodes) == min(replicas, len(members))
        assert preferred == nodes[0]
        assert all(node in members for node in nodes)
        spread = Counter(members[node] or f"of {node} alone" for node in nodes)
        assert len(spread) == min(replicas, len(zones)), "no zone is used twice while another has none"
        least = min((spread[zone] for zone in zones if spread[zone] < zones[zone]), default=9)
        assert max(spread.values()) <= least + 1, "no zone has two more than one that could have had more"


@given(members=MEMBERS, shards=st.integers(1, 64))
@example(members=dict.fromkeys(("0", "a", "00", "011", "00000"), ""), shards=3)
def test_nodes_without_zones_never_have_more_than_their_room(members: dict[str, str], shards: int) -> None:
    found = put(shards, members)
    mean = shards * min(3, len(members)) / len(members)
    assert max(replicas_on(found).values()) <= max(1.25 * mean, mean + 1)


@given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=4, unique=True), max_size=30))
def test_no_other_choice_of_leaders_is_more_even(held: list[list[str]]) -> None:
    """Compared with what is best by the theorem of Hall: no set of shards may be squeezed onto fewer nodes."""
    chosen = leaders_of(held)
    assert all(leader in nodes for leader, nodes in zip(chosen, held, strict=True))
    led = Counter(chosen)
    groups = {frozenset(group) for group in _subsets(sorted({node for nodes in held for node in nodes}))}
    squeezed = [-(-sum(set(nodes) <= group for nodes in held) // len(group)) for group in groups]
    assert max(led.values(), default=0) == max(squeezed, default=0)


def _subsets(nodes: list[str]) -> list[list[str]]:
    return [[node for place, node in enumerate(nodes) if mask >> place & 1] for mask in range(1, 1 << len(nodes))]


def test_leaders_stay_with_the_first_where_that_is_even() -> None:
    held = [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "c", "b"]]
    assert leaders_of(held) == ["a", "b", "c", "a"]
    assert leaders_of([["a", "b"], ["a", "b"], ["b", "c"]]) == ["b", "a", "c"], "c gets one by a chain"


def test_placements_are_the_same_in_every_release() -> None:
    """A cluster with two releases in it would otherwise move its shards to and fro."""
    assert [placement.nodes for placement in put(4, names(0, 5))] == [
        ("n4", "n5", "n2"), ("n3", "n5", "n2"), ("n5", "n3", "n4"), ("n1", "n2", "n4"),
    ]  # fmt: skip


# How even, how steady.


@pytest.mark.parametrize(("shards", "nodes"), [(64, 10), (64, 5), (32, 10), (32, 5), (16, 5), (1024, 20)])
def test_replicas_and_leaders_are_even(shards: int, nodes: int) -> None:
    """The fullest node's share, at worst over many sets of names."""
    for seed in range(3 if shards > 64 else 40):
        members = names(seed, nodes)
        found = put(shards, members)
        assert max(replicas_on(found).values()) / (shards * 3 / nodes) < 1.35, members
        leaders = Counter(preferred for _, preferred in found)
        assert {leaders[node] for node in members} <= {shards // nodes, -(-shards // nodes)}, members


@pytest.mark.parametrize("shards", [16, 32, 64])
def test_the_sixth_node_moves_little_more_than_its_share(shards: int) -> None:
    """The ideal is that nothing but the new node's replicas is made: shards * replicas / nodes of them."""
    for seed in range(60):
        members = names(seed, 6)
        assert moved(put(shards, members[:5]), put(shards, members)) <= 1.3 * shards * 3 / 6, members


@pytest.mark.parametrize(("before", "after"), [(3, 4), (4, 5), (9, 10), (4, 3), (5, 4), (6, 5), (10, 9)])
def test_other_joins_and_leaves_move_little_too(before: int, after: int) -> None:
    for seed in range(40):
        members = names(seed, 10)
        ideal = 64 * 3 / max(before, after)
        assert moved(put(64, members[:before]), put(64, members[:after])) <= 1.3 * ideal, members


def test_whoever_leaves_the_others_keep_nearly_all_they_have() -> None:
    members = names(0, 10)
    before = put(64, members)
    held = replicas_on(before)
    for gone in members:
        after = put(64, [name for name in members if name != gone])
        assert moved(before, after) <= 1.3 * max(held[gone], 64 * 3 / 10)


@pytest.mark.parametrize(
    ("sizes", "share"),
    [
        ((10,), 19.2), ((5, 5), 19.2), ((2, 2, 2, 2, 2), 19.2),
        ((3, 3, 4), 64 / 3),  # a third of the replicas in each zone: more for each node of the smaller ones
        ((4, 4, 1, 1), 32),  # the large zones have one each of a shard at most: 128 of 192; the others share the rest
        ((1, 1, 8), 64), ((1, 9), 64),  # who is alone in its zone is needed for every shard
    ],
)  # fmt: skip
def test_zones_are_as_even_as_their_sizes_let_them(sizes: tuple[int, ...], share: float) -> None:
    for seed in range(10):
        members = names(seed, sum(sizes))
        zones = [f"zone{zone}" for zone, size in enumerate(sizes) for _ in range(size)]
        found = place(64, 3, dict(zip(members, zones, strict=True)))
        assert max(replicas_on(found).values()) <= 1.25 * share
        assert max(Counter(preferred for _, preferred in found).values()) <= 7


@pytest.mark.parametrize("zones", ["abcabca", "abcabc", "ababab", "abcdabc"])
def test_a_node_that_joins_a_zone_moves_little(zones: str) -> None:
    for seed in range(20):
        members = dict(zip(names(seed, len(zones)), zones, strict=True))
        before = dict(list(members.items())[:-1])
        assert moved(place(64, 3, before), place(64, 3, members)) <= 1.3 * 64 * 3 / len(zones), members


def test_the_third_zone_gets_a_replica_of_each_shard_and_nothing_else_moves() -> None:
    members = dict(zip(names(0, 5), "aabbc", strict=True))
    before = {node: zone for node, zone in members.items() if zone != "c"}
    assert moved(place(64, 3, before), place(64, 3, members)) == 64
