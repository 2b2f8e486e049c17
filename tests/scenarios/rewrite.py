"""``python -m tests.scenarios.rewrite [name …]``: writes what comes of the scenarios into their files."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.scenarios.script import Script

FOLDER = Path(__file__).parent


def scenarios() -> list[Path]:
    """Every scenario's file, in order."""
    return sorted(FOLDER.glob("*.txt"))


def rewrite(names: list[str]) -> None:
    """Rewrites the scenarios of these names, or all."""
    for path in scenarios():
        if not names or path.stem in names:
            path.write_text(Script().run(path.read_text()))


if __name__ == "__main__":
    rewrite(sys.argv[1:])
