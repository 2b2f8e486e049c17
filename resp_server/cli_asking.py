"""What commands have in common that ask a node which is running."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Prints JSON, for programs; null is what is not known.")


def of_a_node(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that asks a node that is running."""
    options = (
        click.option("--host", default="127.0.0.1", show_default=True, help="Where the node is."),
        click.option(
            "--port", type=click.IntRange(1, 65535), default=6379, show_default=True, metavar="N", help="Its port."
        ),
        click.option(
            "--password",
            envvar="SEPAKAT_REQUIREPASS",
            default="",
            metavar="TEXT",
            help="The nodes' requirepass; better in SEPAKAT_REQUIREPASS, where others on the machine cannot see it.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def of_those(things: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options that say which of the cluster's ``things`` are looked at, and how many."""

    def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
        limit = click.option(
            "--limit",
            type=click.IntRange(1),
            default=1000,
            show_default=True,
            metavar="N",
            help=f"How many {things} are looked at, at most.",
        )
        match = click.option(
            "--match",
            default="*",
            metavar="PATTERN",
            help=f"Only {things} with such a name, as in KEYS.  [default: all]",
        )
        return match(limit(function))

    return with_options
