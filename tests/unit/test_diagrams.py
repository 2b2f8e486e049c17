"""``docs/coherence.md`` draws what the tables of the protocol say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.cache.mesi import HOME, LINE, Event, Holding, State
from resp_server import diagrams

PAGE = Path(__file__).parents[2] / "docs" / "coherence.md"


def test_the_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == diagrams.redraw(page), "run: python -m resp_server.diagrams docs/coherence.md"
    assert diagrams.drawn(page) == list(diagrams.DRAWINGS)


def test_words_around_a_drawing_stay() -> None:
    page = "before\n<!-- drawn: line -->\nsomething old\n<!-- end -->\nafter\n"
    drawn = diagrams.redraw(page)
    assert drawn == f"before\n<!-- drawn: line -->\n{diagrams.DRAWINGS['line']}<!-- end -->\nafter\n"
    with pytest.raises(KeyError):
        diagrams.redraw(page.replace("line", "cloud"))


@pytest.mark.parametrize(("name", "table"), [("line", LINE), ("home", HOME)])
def test_every_transition_is_an_arrow(name: str, table: dict[object, object]) -> None:
    arrows = re.findall(r"^    (\w+) --> (\w+): (.*)$", diagrams.DRAWINGS[name], re.MULTILINE)
    assert sum(len(label.split("<br/>")) for _, _, label in arrows) == len(table)
    assert len({(start, end) for start, end, _ in arrows}) == len(arrows), "one arrow each way"


def test_an_arrow_goes_where_the_table_says() -> None:
    end, actions = LINE[State.MODIFIED, Event.SHARE]
    label = f"{Event.SHARE.value} / {', '.join(action.value for action in actions)}"
    assert f"    M --> {end.value}: {label}\n" in diagrams.DRAWINGS["line"]


def test_cells_of_pairs_that_cannot_happen_say_so() -> None:
    def gaps(name: str) -> int:
        return diagrams.DRAWINGS[name].count(f" {diagrams.CANNOT_HAPPEN} ")

    assert gaps("line_table") == len(State) * len(Event) - len(LINE)
    assert gaps("home_table") == len(Holding) * 6 - len(HOME)


def test_mermaid_would_not_stumble() -> None:
    for name in ("line", "home"):
        for line in diagrams.DRAWINGS[name].splitlines():
            assert line.count(":") <= 1, "one colon ends the arrow"
            assert not set(line) & set(';#"{}'), "signs that mean something in a diagram"
