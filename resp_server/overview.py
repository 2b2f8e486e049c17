"""``sepakat status``: the nodes and the shards of a cluster, as one node sees them and each tells of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resp_server import address
from resp_server.address import Address
from resp_server.ask import AskError, ask
from resp_server.tables import new_table, print_table

PEER_TIMEOUT_S = 1.0
"""How long each of the others has to answer: the node that was asked has said already what it knows of them."""

SHARDS_SHOWN_MAX = 64
"""With more shards than this a person is shown only those that are not in order, unless all are asked for."""

SHARDS_NAMED_MAX = 10

NO_MAJORITY = "Nothing of that is read or written until a majority of its nodes reach each other"


@dataclass(frozen=True, slots=True)
class Row:
    """One node; None is "not known". ``behind`` is how many log entries its replicas lack, over all shards."""

    id: str
    address: str
    zone: str
    state: str
    reachable: bool
    leads: int
    replicas: int
    behind: int | None
    last_contact_ms: int | None
    round_trip_us: int | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {name.replace("_", "-"): getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard, as RAFT.RING has it, and what its leader says of it if that answers.

    ``behind`` is how many log entries each of its other nodes lacks.
    """

    number: int
    first: int
    last: int
    nodes: list[str]
    leader: str | None
    preferred: str | None
    moving: list[str]
    term: int | None = None
    last_index: int | None = None
    behind: dict[str, int | None] = field(default_factory=dict)

    @property
    def arriving(self) -> list[str]:
        """Nodes that are being brought up to date."""
        return [node for node in self.moving if node not in self.nodes]

    @property
    def departing(self) -> list[str]:
        """Nodes that will have no replica soon."""
        return [node for node in self.moving if node in self.nodes]

    def as_json(self) -> dict[str, Any]:
        """For programs, under the names of RAFT.RING and RAFT.INFO."""
        return {
            "shard": self.number,
            "slots": [[self.first, self.last]],
            "nodes": self.nodes,
            "leader": self.leader,
            "preferred": self.preferred,
            "moving": self.moving,
            "term": self.term,
            "last-index": self.last_index,
            "behind": self.behind,
        }


@dataclass(frozen=True, slots=True)
class Overview:
    """A cluster as the node ``asked`` sees it; ``member``: that belongs to it still.

    ``system_leader`` leads the group in which the nodes agree on the cluster itself.
    """

    cluster: str
    asked: str
    member: bool
    system_leader: str | None
    paused: bool
    rows: list[Row]
    shards: list[Shard]

    @property
    def leaderless(self) -> list[Shard]:
        """The shards that nobody leads, as far as the node that was asked hears."""
        return [shard for shard in self.shards if shard.leader is None]

    @property
    def serves(self) -> bool:
        """Whether every key can be read and written."""
        return self.member and not self.leaderless

    @property
    def leader(self) -> str | None:
        """Who leads the only shard; None when nobody does, or there are several shards."""
        return self.shards[0].leader if len(self.shards) == 1 else None

    def headline(self) -> Iterator[str]:
        """How it is, in a sentence or two."""
        yield f"cluster {self.cluster}: {self._leaders()}"
        if self.member and self.system_leader is None:
            yield "most of the nodes that agree on who belongs to it do not reach each other: nobody can join or leave"
        moving = sum(bool(shard.moving) for shard in self.shards)
        if moving or self.paused:
            words = f"{moving} of {len(self.shards)} shards are moving" if moving else "nothing moves"
            yield words + (": rebalancing is paused, sepakat rebalance --resume ends that" if self.paused else "")

    def _leaders(self) -> str:
        if not self.member:
            return f"{self.asked} is no member of it any more"
        missing = self.leaderless
        if len(self.shards) == 1:
            only = self.shards[0]
            return f"no leader. {NO_MAJORITY}" if missing else f"{only.leader} leads in term {_or_dash(only.term)}"
        if not missing:
            leaders = len({shard.leader for shard in self.shards})
            return f"{len(self.shards)} shards, led by {leaders} of {len(self.rows)} nodes"
        which = ", ".join(str(shard.number) for shard in missing[:SHARDS_NAMED_MAX])
        more = ", …" if len(missing) > SHARDS_NAMED_MAX else ""
        return f"{len(missing)} of {len(self.shards)} shards have no leader ({which}{more}). {NO_MAJORITY}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "cluster": self.cluster,
            "asked": self.asked,
            "serves": self.serves,
            "leader": self.leader,
            "system-leader": self.system_leader,
            "paused": self.paused,
            "nodes": [row.as_json() for row in self.rows],
            "shards": [shard.as_json() for shard in self.shards],
        }


def look(where: Address, password: str) -> Overview:
    """Asks a node about the cluster, then the others about their shards; `AskError` when it does not answer."""
    calls = (("INFO", "sepakat"), ("RAFT.NODES",), ("RAFT.RING",), ("RAFT.REBALANCE",), ("RAFT.INFO",))
    text, nodes, ring, rebalancing, replicas = ask(where, *calls, password=password)
    own = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    others = [node["address"] for node in nodes if node["id"] != own["node_id"]]
    with ThreadPoolExecutor(max_workers=max(1, len(others))) as pool:
        told = [replicas, *pool.map(lambda one: _replicas_of(one, password), others)]
    leading = {shard["shard"]: shard for shards in told for shard in shards if shard["role"] == "leader"}
    shards = [_shard_of(row, leading.get(row["shard"])) for row in ring]
    rows = [_row_of(node, where, shards) for node in nodes]
    member = any(node["id"] == own["node_id"] and node["state"] != "removed" for node in nodes)
    system_leader = own["system_leader"] or None
    paused = bool(rebalancing["paused"])
    return Overview(own["cluster_id"], own["node_id"], member, system_leader, paused, rows, shards)


def _replicas_of(text: str, password: str) -> list[dict[str, Any]]:
    """What a node tells of its replicas, if it does: the address may be good only among the nodes."""
    try:
        (shards,) = ask(address.parse(text), ("RAFT.INFO",), password=password, timeout_s=PEER_TIMEOUT_S)
    except (AskError, ValueError):
        return []
    found: list[dict[str, Any]] = shards
    return found


def _shard_of(row: dict[str, Any], told: dict[str, Any] | None) -> Shard:
    ((first, last),) = row["slots"]
    placed = (row["shard"], first, last, row["nodes"], row["leader"], row["preferred"], row["moving"])
    if told is None or told["leader"] != row["leader"]:
        return Shard(*placed)
    behind = {peer["id"]: peer["lag"] for peer in told["peers"] if peer["role"] != "none"}
    return Shard(*placed, told["term"], told["last-index"], behind)


def _row_of(node: dict[str, Any], where: Address, shards: list[Shard]) -> Row:
    name = node["id"]
    lacking = [shard.behind[name] for shard in shards if name in shard.behind]
    return Row(
        name,
        node["address"] or str(where),
        node["zone"],
        node["state"],
        bool(node["reachable"]),
        node["leads"],
        node["replicas"],
        None if None in lacking else sum(one or 0 for one in lacking),
        node["last-contact-ms"],
        node["round-trip-us"],
    )


WORDS = ("node", "address", "zone", "state")
NUMBERS = ("leads", "replicas", "behind", "last\ncontact", "round\ntrip")


def show(overview: Overview, *, all_shards: bool = False) -> None:
    """Prints the overview for people. A terminal that is too narrow for it breaks lines; no number is cut short."""
    console = Console()
    for line in overview.headline():
        console.print(Text(line, style="" if overview.serves else "bold red"), soft_wrap=True)
    print_table(console, _nodes(overview))
    if len(overview.shards) > 1:
        shown = overview.shards
        if len(shown) > SHARDS_SHOWN_MAX and not all_shards:
            shown = [shard for shard in shown if shard.moving or shard.leader is None]
        if shown:
            print_table(console, _shards(shown))
        if len(shown) < len(overview.shards):
            console.print(f"{len(overview.shards) - len(shown)} shards are in their places: --shards shows them")


def _nodes(overview: Overview) -> Table:
    table = new_table(WORDS, NUMBERS)
    for row in overview.rows:
        state = row.state if row.reachable else f"{row.state}, unreachable" if row.state != "up" else "unreachable"
        table.add_row(
            row.id,
            row.address,
            row.zone or "-",
            state,
            str(row.leads),
            str(row.replicas),
            _or_dash(row.behind),
            "" if row.id == overview.asked else _ago(row.last_contact_ms),
            "" if row.round_trip_us is None or row.id == overview.asked else f"{row.round_trip_us / 1000:.2f} ms",
            style="" if row.reachable else "red",
        )
    return table


def _shards(shards: list[Shard]) -> Table:
    table = new_table(("shard", "slots", "nodes (* leads)", "moving"))
    for shard in shards:
        table.add_row(
            str(shard.number),
            f"{shard.first}-{shard.last}",
            " ".join(f"{node}*" if node == shard.leader else node for node in shard.nodes),
            ", ".join(_moves(shard)),
            style="red" if shard.leader is None else "yellow" if shard.moving else "",
        )
    return table


def _moves(shard: Shard) -> Iterator[str]:
    """Who comes and how far it is, and who goes."""
    for node in shard.arriving:
        lag = shard.behind.get(node)
        if lag is None or shard.last_index is None:
            yield f"+{node}"
        elif lag >= shard.last_index:
            yield f"+{node}: its keys are being sent"
        else:
            yield f"+{node}: {lag} {'entry' if lag == 1 else 'entries'} behind"
    yield from (f"-{node}" for node in shard.departing)


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _ago(duration_ms: int | None) -> str:
    if duration_ms is None:
        return "never"
    return f"{duration_ms} ms" if duration_ms < 10_000 else f"{duration_ms // 1000} s"
