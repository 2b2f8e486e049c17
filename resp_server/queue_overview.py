"""What ``sepakat queue`` asks a cluster, and how it is shown.

Queues are found with ``Q.LIST`` and asked about one by one with ``Q.INFO``, so what
is shown was true of each of them at a slightly different moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rich.console import Console
from rich.text import Text

from resp_server.address import Address
from resp_server.ask import CHANGE_TIMEOUT_S, AskError, ask, ask_owner
from resp_server.tables import bytes_of, counted, duration, moment, new_table, print_table, printable

ASKED_AT_ONCE = 100
QUEUES_SHOWN_MAX = 100
TEXT_SHOWN_MAX = 100  # characters

NOT_ALONE = frozenset({"MOVED", "WRONGTYPE"})
"""Errors of one key among those that were asked about together: another node has it, or it is no queue any more."""

STATES = ("ready", "delayed", "in-flight", "dead")
COUNTERS = ("pushed", "acked", "redelivered", "expired")
SETTINGS = ("partitions", "visibility", "maxdeliveries", "backoff", "dlq", "maxlen", "px", "dedup")
NO_LIMIT = {"maxlen", "px"}
TIMES_MS = {"visibility", "px", "dedup"}

Told = dict[str, Any]
"""Q.INFO."""


@dataclass(frozen=True, slots=True)
class Queues:
    """What was seen: Q.INFO by name, in the order of names. There may be more when not ``complete``."""

    queues: dict[str, Told]
    complete: bool

    def as_json(self) -> dict[str, Any]:
        """For programs, under the names of Q.INFO."""
        return {"queues": [{"queue": name, **told} for name, told in self.queues.items()], "complete": self.complete}


# Looking


def look(where: Address, password: str, match: str, limit: int) -> Queues:
    """Asks a node about the queues of the whole cluster, ``limit`` at most; `AskError` when it does not answer."""
    (names,) = ask(where, ("Q.LIST", "MATCH", bytes_of(match)), password=password)
    told = dict(_told(where, password, names[:limit]))
    return Queues({name: info for name, info in told.items() if info is not None}, len(names) <= limit)


def _told(where: Address, password: str, names: list[str]) -> Iterator[tuple[str, Told | None]]:
    for first in range(0, len(names), ASKED_AT_ONCE):
        some = names[first : first + ASKED_AT_ONCE]
        calls = [("Q.INFO", bytes_of(name)) for name in some]
        try:
            yield from zip(some, ask(where, *calls, password=password), strict=True)
        except AskError as error:
            if error.code not in NOT_ALONE:
                raise
            for name in some:
                yield name, _told_alone(where, password, name)


def _told_alone(where: Address, password: str, name: str) -> Told | None:
    try:
        return inspect(where, password, name)
    except AskError as error:
        if error.code != "WRONGTYPE":
            raise
        return None


def inspect(where: Address, password: str, name: str) -> Told | None:
    """Q.INFO; None when there is no such queue."""
    told: Told | None = ask_owner(where, ("Q.INFO", bytes_of(name)), password=password)
    return told


def messages(where: Address, password: str, name: str, count: int) -> list[dict[str, Any]] | None:
    """Up to ``count`` messages that are ready; None when there is no such queue."""
    found = ask_owner(where, ("Q.PEEK", bytes_of(name), "COUNT", str(count)), password=password)
    if found is None:
        return None
    return [{"id": own, "deliveries": deliveries, "payload": payload} for _, payload, deliveries, own in found]


def dead_letters(where: Address, password: str, name: str, count: int) -> list[dict[str, Any]] | None:
    """Up to ``count`` of Q.DEAD; None when there is no such queue."""
    found: list[dict[str, Any]] | None = ask_owner(
        where, ("Q.DEAD", bytes_of(name), "COUNT", str(count)), password=password
    )
    return found


def change(where: Address, password: str, command: str, name: str, *words: str) -> int:
    """Q.REDRIVE or Q.PURGE: how many messages it was done to."""
    number: int = ask_owner(where, (command, bytes_of(name), *words), password=password, timeout_s=CHANGE_TIMEOUT_S)
    return number


# Showing


def show(seen: Queues) -> None:
    """Prints all queues for people."""
    console = Console()
    ready, dead = (sum(told[state] for told in seen.queues.values()) for state in ("ready", "dead"))
    line = f"{counted(len(seen.queues), 'queue')}, {counted(ready, 'message')} ready, {counted(dead, 'dead letter')}"
    more = "" if seen.complete else "; there are more: choose with --match, or raise --limit"
    console.print(Text(line + more), soft_wrap=True)
    if not seen.queues:
        return
    table = new_table(("queue",), ("ready", "delayed", "in flight", "dead", "oldest", "consumers"))
    for name, told in islice(seen.queues.items(), QUEUES_SHOWN_MAX):
        numbers = (str(told[state]) for state in STATES)
        row = (printable(name), *numbers, duration(told["oldest-ms"]) if told["oldest-ms"] else "-")
        table.add_row(*map(Text, (*row, str(told["consumers"]))), style="yellow" if told["dead"] else "")
    print_table(console, table)
    if len(seen.queues) > QUEUES_SHOWN_MAX:
        console.print(f"{len(seen.queues) - QUEUES_SHOWN_MAX} more: --json or --match")


def show_one(name: str, told: Told) -> None:
    """Prints one queue for people."""
    console = Console()
    console.print(Text(printable(name), style="bold"), soft_wrap=True)
    table = new_table(("now", "", "so far", "", "settings", ""))
    now = [(state.replace("-", " "), str(told[state])) for state in STATES]
    now += [("oldest", duration(told["oldest-ms"])), ("consumers", str(told["consumers"]))]
    so_far = [(counter, str(told[counter])) for counter in COUNTERS]
    settings = [(setting, _setting(setting, told[setting])) for setting in SETTINGS]
    for number in range(len(settings)):
        cells = (cell for column in (now, so_far, settings) for cell in (*column, *[("", "")] * 9)[number])
        table.add_row(*map(Text, cells))
    print_table(console, table)


def _setting(name: str, value: Any) -> str:
    if name == "backoff":
        return " to ".join(map(duration, value))
    if value is None or (value == 0 and name in NO_LIMIT):
        return "none"
    return duration(value) if name in TIMES_MS else printable(str(value))


def show_messages(found: list[dict[str, Any]]) -> None:
    """Prints messages for people; of a long payload only the beginning."""
    console = Console()
    console.print(Text(counted(len(found), "message")))
    if found:
        table = new_table(("id",), ("deliveries", "bytes"))
        table.add_column("payload", no_wrap=True)
        for message in found:
            table.add_row(*map(Text, (printable(message["id"]), *_numbers(message), _begin(message["payload"]))))
        print_table(console, table)


def show_dead_letters(found: list[dict[str, Any]]) -> None:
    """Prints dead letters for people; of a long payload or reason only the beginning."""
    console = Console()
    console.print(Text(counted(len(found), "dead letter")))
    if found:
        table = new_table(("id", "queue", "pushed", "died"), ("deliveries", "bytes"))
        table.add_column("reason", no_wrap=True)
        table.add_column("payload", no_wrap=True)
        for letter in found:
            names = (printable(letter["id"]), printable(letter["queue"]))
            times = (moment(letter["pushed-ms"]), moment(letter["died-ms"]))
            texts = (_begin(letter["reason"]), _begin(letter["payload"]))
            table.add_row(*map(Text, (*names, *times, *_numbers(letter), *texts)))
        print_table(console, table)


def _numbers(message: dict[str, Any]) -> tuple[str, str]:
    return str(message["deliveries"]), str(len(bytes_of(message["payload"])))


def _begin(text: str) -> str:
    return printable(text[:TEXT_SHOWN_MAX]) + ("…" if len(text) > TEXT_SHOWN_MAX else "")
