"""What a search for an order of operations found, and how it is told to a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import NamedTuple

from tests.simulation.models import Operation, Output, Unknown

PLACED_SHOWN = 10
STUCK_SHOWN = 12
UNKNOWN_SHOWN = 6
WORD_SHOWN = 24


class Verdict(Enum):
    """What a search can find."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "not linearizable"
    UNDECIDED = "undecided"


class Placed(NamedTuple):
    """An operation that found its place, and the state after it as `Model.show` has it."""

    operation: Operation
    state: str


@dataclass(frozen=True)
class Finding:
    """The verdict on one key, and why.

    ``order`` is the longest order found that explains its replies: of the whole history if it is linearizable.
    Otherwise one of ``stuck`` would have to come next and none can, ``later`` operations must come after them,
    and ``unknown`` are those of unknown outcome that could come next and do not help.
    """

    key: bytes
    verdict: Verdict
    steps: int
    order: tuple[Placed, ...]
    stuck: tuple[Operation, ...] = ()
    later: int = 0
    unknown: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        """One line, and unless the key is linearizable a small timeline of the end of the order and what followed."""
        line = f"key {_word(self.key)}: {self.verdict.value} ({self.steps} steps)"
        return line if self.verdict is Verdict.LINEARIZABLE else "\n".join([line, *_explanation(self)])


@dataclass(frozen=True)
class Report:
    """The findings on all keys of a history, in the order the keys were first called."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the keys' verdicts: violated, else undecided, else linearizable."""
        verdicts = {finding.verdict for finding in self.findings}
        for worst in (Verdict.VIOLATED, Verdict.UNDECIDED):
            if worst in verdicts:
                return worst
        return Verdict.LINEARIZABLE

    @property
    def steps(self) -> int:
        """How often the model was stepped."""
        return sum(finding.steps for finding in self.findings)

    def __str__(self) -> str:
        """Why each key that is not linearizable is not, and one line about all."""
        wrong = [str(finding) for finding in self.findings if finding.verdict is not Verdict.LINEARIZABLE]
        right, count = len(self.findings) - len(wrong), len(self.findings)
        return "\n\n".join([*wrong, f"{right} of {count} keys are linearizable ({self.steps} steps)"])


def _explanation(finding: Finding) -> list[str]:
    placed = finding.order[-PLACED_SHOWN:]
    skipped = len(finding.order) - len(placed)
    stuck, unknown = finding.stuck[:STUCK_SHOWN], finding.unknown[:UNKNOWN_SHOWN]
    heading, *rows = _timeline(
        [(str(number), operation, state) for number, (operation, state) in enumerate(placed, skipped + 1)]
        + [("-", operation, "") for operation in stuck]
        + [("?", operation, "") for operation in unknown]
    )
    line = iter(rows)
    lines = [f"The longest order found has {len(finding.order)} operations:", heading, *islice(line, len(placed))]
    fit = "none fits" if finding.verdict is Verdict.VIOLATED else "none was found to fit"
    lines += [f"One of these must come next, and {fit}:", *islice(line, len(stuck))]
    if unknown:
        lines += ["These may have happened, and do not help:", *line]
    hidden = len(finding.stuck) - len(stuck) + len(finding.unknown) - len(unknown)
    left_out = {"before": skipped, "at the same time": hidden, "after": finding.later}
    counts = [f"{count} {when}" for when, count in left_out.items() if count]
    return [*lines, f"Not shown: {', '.join(counts)}."] if counts else lines


def _timeline(marked: list[tuple[str, Operation, str]]) -> list[str]:
    """A heading, and a line for each operation; the bars show what came after what, not how long it took."""
    times = sorted({time for _, operation, _ in marked for time in operation[2:4] if time is not None})
    column = {time: 2 * number for number, time in enumerate(times)}
    rows = [("", "client", "call", "reply", "state after", "from call to return")]
    for mark, operation, state in marked:
        call = " ".join(map(_word, operation.call))
        reply = _word(operation.output)
        start = column[operation.invoked]
        if operation.returned is None:
            bar = "|".ljust(2 * len(times) - start, "-") + ">"
        else:
            bar = "|".ljust(column[operation.returned] - start, "-") + "|"
        rows.append((mark, operation.client, call, reply, state, " " * start + bar))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _word(value: Output | Unknown) -> str:
    if value is None or isinstance(value, Unknown):
        return "null" if value is None else value.value
    text = repr(value)[2:-1] if isinstance(value, bytes) else str(value)
    return text if len(text) <= WORD_SHOWN else f"{text[: WORD_SHOWN - 1]}…"
