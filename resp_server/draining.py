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
            told, nodes = ask(where, ("RAFT.REBALANCE",), ("RAFT.NODES",), password=password)
            state = next((one["state"] for one in nodes if one["id"] == node), None)
            if state is None:
                return
            if state != "leaving":
                raise NotDrained(f"the cluster did not agree to remove {node}: see sepakat status, and try again")
            if told["paused"]:
                raise NotDrained(
                    f"{node} keeps its shards while rebalancing is paused: sepakat rebalance --resume, then try again"
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
    about = f"shards of {node} that are elsewhere"
    at_first, task = 0, progress.add_task(about, total=None)
    while not over.wait(LOOK_S):
        with suppress(AskError):
            ring, nodes = ask(where, ("RAFT.RING",), ("RAFT.NODES",), password=password)
            left = [row for row in ring if node in (*row["nodes"], *row["moving"])]
            at_first = max(at_first, len(left))
            silent = [
                one["id"] for one in nodes if not one["reachable"] and any(one["id"] in row["moving"] for row in left)
            ]
            waits = f", which waits for {' and '.join(silent)} (unreachable)" if silent else ""
            progress.update(task, description=about + waits, total=at_first, completed=at_first - len(left))
