"""Whether processors are free: looking for the next request without sleeping takes one from others if they are not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
"""What Linux counts of a thread: for how long it had a processor, and stood in line for one, both in ns."""

LOOK_NS = 100_000_000
"""How long what was found holds."""

IN_LINE_MAX = 0.15
"""A thread that stands in line for more of the time than this has others beside it that are at work.

With a processor for everybody it is 0.02 to 0.04, with five processes on two of them 0.3 to 0.5.
"""


class Processors:
    """As the thread sees them that made this; free where the system does not say."""

    def __init__(self, source: Path = SCHEDSTAT) -> None:
        try:
            self._source = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._source = -1
        self._free = True
        self._looked_ns = 0
        self._in_line_ns = 0

    def are_free(self, now_ns: int) -> bool:
        """Whether the thread got one when it wanted one, of late; ``now_ns`` is monotonic."""
        passed_ns = now_ns - self._looked_ns
        if passed_ns >= LOOK_NS and self._source >= 0:
            in_line_ns = int(os.pread(self._source, 100, 0).split()[1])
            self._free = in_line_ns - self._in_line_ns <= IN_LINE_MAX * passed_ns
            self._looked_ns, self._in_line_ns = now_ns, in_line_ns
        return self._free

    def close(self) -> None:
        """Lets go of what it opened."""
        if self._source >= 0:
            os.close(self._source)
            self._source = -1
