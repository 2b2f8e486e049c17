"""What was freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resp_server.edge import spare_memory

PIECES_FREED_BETWEEN_OTHERS = """
import gc
from pathlib import Path
from resp_server.edge import spare_memory

def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096

pieces = [bytes(20_000) for _ in range(4_000)]
kept = pieces[::50]
del pieces
gc.collect()
before = resident_bytes()
spare_memory.give_back()
print(before - resident_bytes())
"""


@pytest.mark.skipif(not spare_memory.RETURNS, reason="the C library cannot be told to")
def test_what_is_free_between_pieces_in_use_goes_back() -> None:
    """In a process of its own, so that nothing else takes or frees memory meanwhile."""
    line = [sys.executable, "-c", PIECES_FREED_BETWEEN_OTHERS]
    ended = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
    assert int(ended.stdout) > 40_000_000, "of 80 MB that were free"
