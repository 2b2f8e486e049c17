"""``sepakat status``: the nodes of a cluster as one of them sees them, and as each tells of itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resp_server import address
from resp_server.address import Address
from resp_server.ask import AskError, ask

PEER_TIMEOUT_S = 1.0
"""How long each of the others has to answer: the node that was asked has said already what it knows of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One node; None is "not known".

    ``state`` is what the node that was asked says of it. Its term and indexes
    are its own, so they are known only where it answers.
    """

    id: str
    address: str
    role: str
    state: str
    term: int | None = None
    commit: int | None = None
    applied: int | None = None
    last_index: int | None = None
    lag: int | None = None
    last_contact_ms: int | None = None
    round_trip_us: int | None = None

    def telling(self, told: dict[str, Any]) -> Row:
        """The same with what the node's own RAFT.INFO tells."""
        return replace(
            self,
            role=told["role"],
            term=told["term"],
            commit=told["commit"],
            applied=told["applied"],
            last_index=told["last-index"],
        )

    def as_json(self) -> dict[str, Any]:
        """For programs, under the names of RAFT.INFO."""
        return {name.replace("_", "-"): getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Overview:
    """A cluster as the node ``asked`` sees it; ``leader`` is None while that hears of none."""

    cluster: str
    asked: str
    leader: str | None
    rows: list[Row]

    @property
    def headline(self) -> str:
        """Who leads, or that nobody does, as a sentence."""
        if self.leader is not None:
            term = next((row.term for row in self.rows if row.id == self.asked), None)
            return f"cluster {self.cluster}: {self.leader} leads in term {term}"
        if any(row.id == self.asked and row.role == "removed" for row in self.rows):
            return f"cluster {self.cluster}: {self.asked} is no member of it any more"
        elsewhere = [row for row in self.rows if row.role == "leader"]
        if elsewhere:
            best = max(elsewhere, key=lambda row: row.term or 0)
            return (
                f"cluster {self.cluster}: no leader that {self.asked} hears, though {best.id} leads in term {best.term}"
            )
        return (
            f"cluster {self.cluster}: no leader. Nothing is read or written until a majority of its nodes reach each"
            " other"
        )

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        rows = [row.as_json() for row in self.rows]
        return {"cluster": self.cluster, "asked": self.asked, "leader": self.leader, "nodes": rows}


def look(where: Address, password: str) -> Overview:
    """Asks a node about the cluster, then the others about themselves; `AskError` when the first does not answer."""
    text, shards = ask(where, ("INFO", "sepakat"), ("RAFT.INFO",), password=password)
    told, own = shards[0], dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    rows = [_row_of(peer) for peer in told["peers"]]
    with ThreadPoolExecutor(max_workers=max(1, len(rows))) as pool:
        rows = list(pool.map(lambda row: _ask_itself(row, password), rows))
    asked = Row(own["node_id"], own["node_address"] or str(where), told["role"], "reachable").telling(told)
    asked = replace(asked, lag=_lag(asked, rows))
    return Overview(own["cluster_id"], asked.id, told["leader"], sorted([asked, *rows], key=lambda row: row.id))


def _row_of(peer: dict[str, Any]) -> Row:
    return Row(
        peer["id"],
        peer["address"],
        peer["role"],
        peer["state"],
        lag=peer["lag"],
        last_contact_ms=peer["last-contact-ms"],
        round_trip_us=peer["round-trip-us"],
    )


def _ask_itself(row: Row, password: str) -> Row:
    """What a node tells of itself, if it does: the address may be good only among the nodes."""
    try:
        (shards,) = ask(address.parse(row.address), ("RAFT.INFO",), password=password, timeout_s=PEER_TIMEOUT_S)
    except (AskError, ValueError):
        return row
    return row.telling(shards[0])


def _lag(asked: Row, others: list[Row]) -> int | None:
    """How far the node that was asked is behind its leader."""
    if asked.role == "leader":
        return 0
    ends = [row.last_index for row in others if row.role == "leader" and row.last_index is not None]
    return max(0, max(ends) - (asked.last_index or 0)) if ends else None


WORDS = ("node", "address", "role", "state")
NUMBERS = ("term", "commit", "applied", "last\nindex", "lag", "last\ncontact", "round\ntrip")


def show(overview: Overview) -> None:
    """Prints the overview for people. A terminal that is too narrow for it breaks lines; no number is cut short."""
    table = _table(overview)
    console = Console()
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(Text(overview.headline, style="" if overview.leader else "bold red"))
    console.print(table)


def _table(overview: Overview) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in WORDS:
        table.add_column(name, no_wrap=True)
    for name in NUMBERS:
        table.add_column(name, no_wrap=True, justify="right")
    for row in overview.rows:
        table.add_row(
            row.id,
            row.address,
            row.role,
            row.state,
            *("-" if number is None else str(number) for number in _numbers(row)),
            "" if row.id == overview.asked else _ago(row.last_contact_ms),
            "" if row.round_trip_us is None else f"{row.round_trip_us / 1000:.2f} ms",
            style="red" if row.state == "unreachable" else "bold" if row.role == "leader" else "",
        )
    return table


def _numbers(row: Row) -> tuple[int | None, ...]:
    return row.term, row.commit, row.applied, row.last_index, row.lag


def _ago(duration_ms: int | None) -> str:
    if duration_ms is None:
        return "never"
    return f"{duration_ms} ms" if duration_ms < 10_000 else f"{duration_ms // 1000} s"
