"""``sepakat``: the command line. Every flag of ``serve`` is made from its setting."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from resp_server import __version__, address, local, logs, settings
from resp_server.address import Address
from resp_server.ask import CHANGE_TIMEOUT_S, AskError, ask
from resp_server.cli_asking import AS_JSON, of_a_node, of_those
from resp_server.cli_queues import queue

BAD_USAGE = 2
FAILED = 1
CACHE_LINES_MAX = 10_000


class _Serve(click.Command):
    """A command whose settings are listed under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_attribute = {param.name: param for param in self.get_params(ctx)}
        for heading, fields in groupby(settings.FIELDS, key=lambda field: field.group):
            with formatter.section(heading):
                params = [by_attribute.pop(field.attribute) for field in fields]
                formatter.write_dl([record for param in params if (record := param.get_help_record(ctx))])
        with formatter.section("Other"):
            rest = by_attribute.values()
            formatter.write_dl([record for param in rest if (record := param.get_help_record(ctx))])


def _flag(field: settings.Field) -> click.Option:
    about = f"{field.summary} [default: {field.default or 'none'}]"
    return click.Option([f"--{field.name}", field.attribute], metavar=field.kind.short, help=about)


_CONFIG = click.Option(
    ["--config", "file"],
    type=click.Path(path_type=Path),
    envvar="SEPAKAT_CONFIG",
    help="TOML file of settings by name, such as tcp-backlog = 511.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="sepakat %(version)s")
def sepakat() -> None:
    """Distributed locks, at-least-once queues and coherent caches over the Redis protocol."""


@sepakat.command(cls=_Serve, params=[*map(_flag, settings.FIELDS), _CONFIG])
def serve(file: Path | None, **flags: str | None) -> int:
    """Runs the server until SIGTERM or SIGINT.

    Each setting is a flag, a variable (--tcp-backlog is SEPAKAT_TCP_BACKLOG) or a line of the --config file; a flag
    wins over a variable, a variable over the file. Sizes take Redis's units: 1k is 1000 bytes, 1kb is 1024.
    """
    from resp_server.edge import app

    given = {name: text for name, text in flags.items() if text is not None}
    in_force = settings.load(given, os.environ, file)
    try:
        logs.configure(in_force.loglevel, in_force.log_format, in_force.logfile)
    except OSError as error:
        raise settings.SettingError(f"logfile {in_force.logfile} cannot be opened: {error.strerror}") from None
    try:
        return app.serve(in_force)
    except app.StartError as error:
        raise _Failure(str(error)) from None


@sepakat.command("settings", short_help="Prints every setting as a variable.")
def print_settings() -> None:
    """Prints every setting with its default, as variables: the start of an .env file."""
    click.echo(settings.example(), nl=False)


def _as_setting(name: str, about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option with the values of a setting, handed on as text; None leaves it to the variables and defaults."""
    field = settings.named(name)

    def check(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
        return None if text is None else field.kind.render(field.parse(text, f"--{name}"))

    return click.option(
        f"--{name}", callback=check, metavar=field.kind.short, help=f"{about}  [default: {field.default}]"
    )


@sepakat.command("local", short_help="Runs a whole cluster on this machine.")
@click.option("--nodes", type=click.IntRange(1), default=3, show_default=True, metavar="N", help="How many nodes.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=7001,
    show_default=True,
    metavar="N",
    help="Port of the first node; the others take the ports after it.",
)
@_as_setting("shards", "Shards the keys are cut into.")
@_as_setting("replicas", "Nodes that have each shard.")
@click.option("--zones", type=click.IntRange(1), metavar="N", help="Zones the nodes are dealt out to.  [default: none]")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default="./sepakat-local",
    show_default=True,
    help="Folder for the nodes' folders n1, n2 and so on.",
)
def local_cluster(
    nodes: int, port: int, shards: str | None, replicas: str | None, zones: int | None, folder: Path
) -> int:
    """Runs a cluster on this machine, a process for each node, until Ctrl-C or SIGTERM.

    What a node says is shown behind its name. A node that ends, or is killed, stays away until it is started again by
    the command that is shown for it. Settings in variables, such as SEPAKAT_REQUIREPASS, hold for all nodes.
    """
    try:
        children = local.plan(nodes, port, folder, os.environ, local.Shape(shards, replicas, zones))
        return 0 if local.run(children, os.environ) else FAILED
    except local.LocalError as error:
        raise _Failure(str(error)) from None


@sepakat.command(short_help="Shows the nodes and shards of a cluster.")
@of_a_node
@click.option("--shards", "all_shards", is_flag=True, help="Shows every shard, however many there are.")
@AS_JSON
def status(host: str, port: int, password: str, all_shards: bool, as_json: bool) -> int:
    """Shows the nodes of a cluster, which shards they have, what is moving, and how far it is.

    The state of a node and the round trip to it are what the node that is asked says of it; how many log entries a
    replica is behind is what the leader of its shard says. Exit code 1 when a shard has no leader.
    """
    from resp_server import overview

    seen = overview.look(Address(host, port), password)
    if as_json:
        click.echo(json.dumps(seen.as_json(), indent=2))
    else:
        overview.show(seen, all_shards=all_shards)
    return 0 if seen.serves else FAILED


@sepakat.command("locks", short_help="Shows who holds which lock, and who waits for whom.")
@of_a_node
@of_those("locks")
@AS_JSON
def show_locks(host: str, port: int, password: str, match: str, limit: int, as_json: bool) -> None:
    """Shows the locks of the whole cluster: their holders, those who wait, and who stands in whose way.

    Locks that somebody waits for come first. Each is asked about by itself, so what is shown together need not have
    been true in the same moment.
    """
    from resp_server import lock_overview

    seen = lock_overview.look(Address(host, port), password, match, limit)
    if as_json:
        click.echo(json.dumps(seen.as_json(), indent=2))
    else:
        lock_overview.show(seen)


sepakat.add_command(queue)


@sepakat.command("cache", short_help="Shows what the caches of all nodes hold, and how well they do.")
@of_a_node
@click.option(
    "--top",
    type=click.IntRange(1, CACHE_LINES_MAX),
    default=10,
    show_default=True,
    metavar="N",
    help="How many of the lines that are read most are shown, at most.",
)
@AS_JSON
def show_caches(host: str, port: int, password: str, top: int, as_json: bool) -> None:
    """Shows the cache of every node: its lines by state, hits and misses, the messages it sent and got of each kind,
    and the lines that are read most.

    Every node is asked about its own; one that does not answer has dashes.
    """
    from resp_server import cache_overview

    caches = cache_overview.look(Address(host, port), password, top)
    if as_json:
        click.echo(json.dumps({"nodes": [cache.as_json() for cache in caches]}, indent=2))
    else:
        cache_overview.show(caches, top)


@sepakat.command(short_help="Removes a node from its cluster.")
@click.argument("node")
@of_a_node
def remove(node: str, host: str, port: int, password: str) -> None:
    """Removes NODE, such as n4, from its cluster, whether it runs or not. Any other member can be asked.

    Its shards are brought to other nodes first, which this waits for; interrupted, it goes on in the cluster, and the
    same command waits for it again. The node itself goes on as one that belongs nowhere: stop it. It can come back
    with an empty folder and --join.
    """
    from resp_server import draining

    try:
        draining.remove(node, Address(host, port), password)
    except draining.NotDrained as error:
        raise _Failure(str(error)) from None
    click.echo(f"{node} is removed")


@sepakat.command(short_help="Makes a node the leader of its shards.")
@click.argument("node")
@click.option("--shard", type=click.IntRange(0), metavar="N", help="Of this shard only.  [default: all it has]")
@of_a_node
def transfer(node: str, shard: int | None, host: str, port: int, password: str) -> None:
    """Makes NODE, such as n2, the leader of the shards it has a replica of. Any member can be asked where it is."""
    where = Address(host, port)
    (nodes,) = ask(where, ("RAFT.NODES",), password=password)
    addresses = {one["id"]: one["address"] for one in nodes}
    if node not in addresses:
        raise _Failure(f"{node} is no node of this cluster")
    if addresses[node]:
        where = address.parse(addresses[node])
    words = ("CLUSTER", "FAILOVER") if shard is None else ("CLUSTER", "FAILOVER", str(shard))
    ask(where, words, password=password, timeout_s=CHANGE_TIMEOUT_S)
    click.echo(f"{node} leads" if shard is None else f"{node} leads shard {shard}")


@sepakat.command(short_help="Tells what is moving, or stops it.")
@click.option("--pause", "word", flag_value="PAUSE", help="Nothing moves any more, on any node, until --resume.")
@click.option("--resume", "word", flag_value="RESUME", help="Shards move again.")
@click.option("--status", "word", flag_value="", default=True, help="Tells whether it is paused, and what is moving.")
@of_a_node
def rebalance(word: str, host: str, port: int, password: str) -> None:
    """Shards move by themselves when a node joins, is removed or is lost. This tells of it, or holds it up.

    What is not paused for is the loss of a node: its shards go on on their other replicas.
    """
    where = Address(host, port)
    if word:
        ask(where, ("RAFT.REBALANCE", word), password=password, timeout_s=CHANGE_TIMEOUT_S)
    (told,) = ask(where, ("RAFT.REBALANCE",), password=password)
    moving = ", ".join(map(str, told["moving"])) or "none"
    click.echo(f"rebalancing is {'paused' if told['paused'] else 'on'}; shards on their way: {moving}")
    for state, words in (("leaving", "being drained"), ("lost", "taken for lost")):
        if told[state]:
            click.echo(f"{words}: {', '.join(told[state])}")


class _Failure(click.ClickException):
    """It did not work, for a reason outside the settings."""

    exit_code = FAILED


def main() -> None:
    """Runs the command line; what a person did wrong is one line on standard error."""
    try:
        code = sepakat.main(prog_name="sepakat", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = BAD_USAGE
    except click.ClickException as error:
        click.echo(f"sepakat: {error.format_message()}", err=True)
        code = error.exit_code
    except AskError as error:
        click.echo(f"sepakat: {error}", err=True)
        code = FAILED
    except settings.SettingError as error:
        click.echo(f"sepakat: {error}", err=True)
        code = BAD_USAGE
    except click.Abort:
        code = FAILED
    sys.exit(code)
