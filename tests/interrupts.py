"""A program that is interrupted at any moment, a hundred times."""

from __future__ import annotations

import subprocess
import sys

from tests.clusters import own_environment
from tests.servers import START_SECONDS

SOON = """
import random
import signal
import sys

chance = random.Random(7)

def interrupt(*_):
    raise KeyboardInterrupt

def again(ignored):
    if ignored.exc_type is KeyboardInterrupt:  # it came in a destructor, where Python raises nothing
        signal.setitimer(signal.ITIMER_REAL, 0.001)
    else:
        sys.__unraisablehook__(ignored)

def interrupt_soon():
    signal.setitimer(signal.ITIMER_REAL, 0.0005 + chance.random() * 0.02)

sys.unraisablehook = again
signal.signal(signal.SIGALRM, interrupt)
"""
"""What such a program begins with: `interrupt_soon` raises KeyboardInterrupt, some time within 20 ms."""


def run(program: str, *arguments: str) -> None:
    """Runs it to its end; it must say that all is well."""
    ended = subprocess.run(
        [sys.executable, "-c", SOON + program, *arguments],
        env=own_environment(), capture_output=True, text=True, timeout=2 * START_SECONDS,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
