"""The program as somebody at a terminal meets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Run = Callable[..., tuple[Any, str, str]]
"""Runs ``sepakat words``: exit code, standard output, standard error."""


def lines(output: str) -> list[str]:
    """The lines that say something, with single spaces, without rules."""
    found = [" ".join(line.split()) for line in output.splitlines()]
    return [line for line in found if line.strip("─ ")]
