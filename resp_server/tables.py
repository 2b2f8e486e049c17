"""How the command line shows things to people: tables that no name is cut short in, times, counts, and names."""

from __future__ import annotations

from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table


def new_table(words: tuple[str, ...], numbers: tuple[str, ...] = ()) -> Table:
    """A table with these columns, numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def print_table(console: Console, table: Table) -> None:
    """Prints it; a terminal that is too narrow for it breaks lines, and nothing is cut short."""
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)


def counted(number: int, noun: str) -> str:
    """Such as ``1 lock`` or ``2 locks``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(duration_ms: int) -> str:
    """About how long, such as ``4.2 s`` or ``11 min``."""
    if duration_ms < 10_000:
        return f"{duration_ms / 1000:.1f} s"
    return f"{duration_ms // 1000} s" if duration_ms < 600_000 else f"{duration_ms // 60_000} min"


def moment(unix_ms: int) -> str:
    """A time of day, in UTC to the second."""
    return f"{datetime.fromtimestamp(unix_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"


def bytes_of(text: str) -> bytes:
    """What `resp_server.ask` made a text of."""
    return text.encode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """A key or an owner as it can be printed: what is no text, or moves the cursor, is written out."""
    text = bytes_of(name).decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
