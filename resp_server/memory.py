"""How much memory the process takes, as the system counts it."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

_STATUS = Path("/proc/self/status")


class Memory(NamedTuple):
    """Resident memory now and at most so far, and what the machine has, in bytes."""

    used_bytes: int
    peak_bytes: int
    system_bytes: int


def measure() -> Memory:
    """The memory of this process; where the system does not tell what is used now, the peak stands for it."""
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    used_bytes = peak_bytes
    if _STATUS.exists():
        lines = (line.split() for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines())
        kilobytes = {words[0]: int(words[1]) for words in lines if words and words[0] in ("VmRSS:", "VmHWM:")}
        used_bytes = kilobytes.get("VmRSS:", 0) * 1024 or peak_bytes
        peak_bytes = kilobytes.get("VmHWM:", 0) * 1024 or peak_bytes
    system_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Memory(used_bytes, max(used_bytes, peak_bytes), system_bytes)


def human(size_bytes: int) -> str:
    """A size as Redis writes it for people: ``1.50M``."""
    for unit, scale in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.2f}{unit}"
    return f"{size_bytes}B"
