"""The drawings of ``docs/coherence.md``, from the tables of `cluster.cache.mesi`.

``python -m resp_server.diagrams docs/coherence.md`` draws them anew; the words around them are written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cluster.cache.mesi import HOME, LINE, Call, Event, Holding, State

COLUMNS = (State.MODIFIED, State.EXCLUSIVE, State.SHARED, State.INVALID)
CANNOT_HAPPEN = "—"

_PLACE = re.compile(r"(<!-- drawn: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def redraw(page: str) -> str:
    """The page with every drawing as the tables have it now; a `KeyError` when it wants one that there is not."""
    return _PLACE.sub(lambda place: place[1] + DRAWINGS[place[2]] + place[3], page)


def drawn(page: str) -> list[str]:
    """The names of the drawings on a page."""
    return [place[2] for place in _PLACE.finditer(page)]


def _diagram(names: Iterable[tuple[str, str]], arrows: Iterable[tuple[str, str, str]]) -> str:
    """States with what they are called, and arrows with what is written at them; those beside each other are one."""
    labels: dict[tuple[str, str], list[str]] = {}
    for start, end, label in arrows:
        labels.setdefault((start, end), []).append(label)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {name}: {about}" for name, about in names]
    lines += [f"    {start} --> {end}: {'<br/>'.join(found)}" for (start, end), found in labels.items()]
    return "\n".join([*lines, "```", ""])


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    first = list(header)
    lines = [first, ["---"] * len(first), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _line_diagram() -> str:
    names = ((state.value, f"{state.value} ({state.name.lower()})") for state in COLUMNS)
    arrows = (
        (start.value, end.value, f"{event.value} / {', '.join(action.value for action in actions)}")
        for (start, event), (end, actions) in LINE.items()
    )
    return _diagram(names, arrows)


def _line_table() -> str:
    return _table(["", *(state.value for state in COLUMNS)], map(_line_row, Event))


def _line_row(event: Event) -> Iterator[str]:
    yield event.value
    for state in COLUMNS:
        if (state, event) not in LINE:
            yield CANNOT_HAPPEN
            continue
        end, actions = LINE[state, event]
        words = ", ".join(action.value for action in actions)
        yield f"**{end.value}** {words}" if end is not state else words


def _home_diagram() -> str:
    names = ((holding.name, f"{holding.name}, {holding.value}") for holding in Holding)
    arrows = (
        (held.name, decision.holding.name, f"{call.value} / {decision.step.value}")
        for (held, call), decision in HOME.items()
    )
    return _diagram(names, arrows)


def _home_table() -> str:
    return _table(["", *(holding.name for holding in Holding)], map(_home_row, Call))


def _home_row(call: Call) -> Iterator[str]:
    yield call.value
    for held in Holding:
        if (held, call) not in HOME:
            yield CANNOT_HAPPEN
            continue
        end, step = HOME[held, call]
        yield f"**{end.name}** {step.value}" if end is not held else step.value


DRAWINGS = {
    "line": _line_diagram(),
    "line_table": _line_table(),
    "home": _home_diagram(),
    "home_table": _home_table(),
}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(redraw(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
