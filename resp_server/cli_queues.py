"""``sepakat queue``: the commands about queues."""

from __future__ import annotations

import json
from typing import Any

import click

from resp_server import queue_overview
from resp_server.address import Address
from resp_server.cli_asking import AS_JSON, of_a_node, of_those
from resp_server.tables import counted, printable

MESSAGES_MAX = 10_000
"""More of them make one answer that the node has to hold for others."""

COUNT = click.option(
    "--count",
    type=click.IntRange(1, MESSAGES_MAX),
    default=10,
    show_default=True,
    metavar="N",
    help="How many messages are shown, at most.",
)


@click.group(short_help="Shows queues, their messages and dead letters; sends these back.")
def queue() -> None:
    """Shows the queues of a cluster and what is in them. Any node can be asked."""


@queue.command("list", short_help="Shows all queues.")
@of_a_node
@of_those("queues")
@AS_JSON
def list_queues(host: str, port: int, password: str, match: str, limit: int, as_json: bool) -> None:
    """Shows the queues of the whole cluster: how many messages are ready, delayed, in flight and dead in each.

    Each is asked about by itself, so what is shown together need not have been true in the same moment.
    """
    seen = queue_overview.look(Address(host, port), password, match, limit)
    if as_json:
        click.echo(json.dumps(seen.as_json(), indent=2))
    else:
        queue_overview.show(seen)


@queue.command(short_help="Shows one queue: its messages by state, what happened to them, its settings.")
@click.argument("name", metavar="QUEUE")
@of_a_node
@AS_JSON
def inspect(name: str, host: str, port: int, password: str, as_json: bool) -> None:
    """Shows QUEUE: how many messages are in which state, what happened to all so far, and the queue's settings.

    Exit code 1 when there is no such queue.
    """
    told = queue_overview.inspect(Address(host, port), password, name)
    if told is None:
        raise _no_queue(name)
    if as_json:
        click.echo(json.dumps({"queue": name, **told}, indent=2))
    else:
        queue_overview.show_one(name, told)


@queue.command(short_help="Shows the messages that are handed out next, or with --dead the dead letters.")
@click.argument("name", metavar="QUEUE")
@of_a_node
@COUNT
@click.option("--dead", "only_dead", is_flag=True, help="The dead letters instead, as 'sepakat queue dead' does.")
@AS_JSON
def peek(name: str, host: str, port: int, password: str, count: int, only_dead: bool, as_json: bool) -> None:
    """Shows the messages of QUEUE that are ready, in the order they would be handed out, without taking them.

    Exit code 1 when there is no such queue.
    """
    if only_dead:
        _show_dead_letters(Address(host, port), password, name, count, as_json=as_json)
        return
    messages = queue_overview.messages(Address(host, port), password, name, count)
    if messages is None:
        raise _no_queue(name)
    if as_json:
        click.echo(json.dumps({"queue": name, "messages": messages}, indent=2))
    else:
        queue_overview.show_messages(messages)


@queue.command(short_help="Shows the dead letters of a queue.")
@click.argument("name", metavar="QUEUE")
@of_a_node
@COUNT
@AS_JSON
def dead(name: str, host: str, port: int, password: str, count: int, as_json: bool) -> None:
    """Shows the dead letters that are in QUEUE, oldest first: whose they are, how often each was delivered, and why
    it died.

    Those of a queue with a DLQ are in that queue, until they are acknowledged there. Exit code 1 when there is no such
    queue.
    """
    _show_dead_letters(Address(host, port), password, name, count, as_json=as_json)


def _show_dead_letters(where: Address, password: str, name: str, count: int, *, as_json: bool) -> None:
    letters = queue_overview.dead_letters(where, password, name, count)
    if letters is None:
        raise _no_queue(name)
    if as_json:
        click.echo(json.dumps({"queue": name, "messages": letters}, indent=2))
    else:
        queue_overview.show_dead_letters(letters)


@queue.command(short_help="Sends dead letters back to their queue.")
@click.argument("name", metavar="QUEUE")
@of_a_node
@click.option("--count", type=click.IntRange(1), metavar="N", help="How many, at most.  [default: all]")
@AS_JSON
def redrive(name: str, host: str, port: int, password: str, count: int | None, as_json: bool) -> None:
    """Sends the dead letters of QUEUE back to its end, oldest first, as far as its MAXLEN has room."""
    words = () if count is None else ("COUNT", str(count))
    number = queue_overview.change(Address(host, port), password, "Q.REDRIVE", name, *words)
    _tell(as_json, {"queue": name, "redriven": number}, f"{counted(number, 'dead letter')} went back")


@queue.command(short_help="Drops the messages of a queue.")
@click.argument("name", metavar="QUEUE")
@of_a_node
@click.option("--dead", "only_dead", is_flag=True, help="Only its dead letters.")
@click.option("--yes", is_flag=True, help="Does not ask whether it is meant.")
@AS_JSON
def purge(name: str, host: str, port: int, password: str, only_dead: bool, yes: bool, as_json: bool) -> None:
    """Drops every message of QUEUE, those that somebody works on and the dead letters included. It cannot be undone.

    The queue stays, with its settings and counters.
    """
    if not yes:
        what = "the dead letters" if only_dead else "all messages"
        click.confirm(f"Drop {what} of {printable(name)}?", abort=True, err=True)
    words = ("DEAD",) if only_dead else ()
    number = queue_overview.change(Address(host, port), password, "Q.PURGE", name, *words)
    noun = "dead letter" if only_dead else "message"
    _tell(as_json, {"queue": name, "purged": number}, f"{counted(number, noun)} dropped")


def _tell(as_json: bool, told: dict[str, Any], line: str) -> None:
    click.echo(json.dumps(told) if as_json else line)


def _no_queue(name: str) -> click.ClickException:
    return click.ClickException(f"there is no queue {printable(name)}")
