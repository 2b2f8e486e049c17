"""``sepakat remove``: waits until a node's shards are elsewhere, and shows on a terminal how far that is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from resp_server.address import Address
from resp_server.ask import AskError, ask

ANSWER_TIMEOUT_S = 30.0
"""After half of that the cluster says that it is not done yet."""

LOOK_S = 0.5


class NotDrained(Exception):
    """The node stays in the cluster; the message is one line for a person."""


def remove(node: str, where: Address, password: str) -> None:
    """Has the cluster remove ``node``, and returns once it is; raises `AskError` or `NotDrained`."""
    with _progress(node, where, password):
        while not _removed(node, where, password):
            (told,) = ask(where, ("RAFT.REBALANCE",), password=password)
            if told["paused"]:
                raise NotDrained(
                    f"{node} keeps its shards while rebalancing is paused: it is removed after"
                    " sepakat rebalance --resume"
                )


def _removed(node: str, where: Address, password: str) -> bool:
    """Asks once more; False while shards are left that have to be brought elsewhere."""
    try:
        ask(where, ("CLUSTER", "FORGET", node), password=password, timeout_s=ANSWER_TIMEOUT_S)
    except AskError as error:
        if error.code == "TRYAGAIN":
            return False
        raise
    return True


@contextmanager
def _progress(node: str, where: Address, password: str) -> Iterator[None]:
    """Shows how many shards are left, if somebody is looking."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    over = threading.Event()
    with Progress(*columns, console=console, transient=True) as progress:
        painter = threading.Thread(target=_paint, args=(progress, over, node, where, password), daemon=True)
        painter.start()
        try:
            yield
        finally:
            over.set()


def _paint(progress: Progress, over: threading.Event, node: str, where: Address, password: str) -> None:
    """Counts the shards that are elsewhere until it is ``over``; a look that fails is made again."""
    at_first, task = 0, progress.add_task(f"shards of {node} that are elsewhere", total=None)
    while not over.wait(LOOK_S):
        with suppress(AskError):
            (ring,) = ask(where, ("RAFT.RING",), password=password)
            left = sum(node in (*row["nodes"], *row["moving"]) for row in ring)
            at_first = max(at_first, left)
            progress.update(task, total=at_first, completed=at_first - left)
