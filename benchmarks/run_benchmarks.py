"""Measures this server beside a real redis-server: ``python benchmarks/run_benchmarks.py``.

Both run on this machine on free ports with empty folders (under TMPDIR), take
turns round after round, and are compared by their medians.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench import Bench, Measure
from benchmarks.measures import MEASURES
from benchmarks.probes import Endpoint, MeasureFailed
from tests.redis_binaries import NoRedis, find
from tests.servers import ServerFailed

QUICK_DIVISOR = 20


@dataclass(frozen=True, slots=True)
class Result:
    """A measure's samples, in the order taken, and what else it found; ``failed`` says why there are none."""

    measure: Measure
    ours: list[float]
    beside: list[float]
    failed: str = ""
    notes: tuple[str, ...] = ()

    @property
    def figure(self) -> float | None:
        """What the target bounds: the ratio of the medians, or our median where it stands alone."""
        if not self.ours:
            return None
        return median(self.ours) / median(self.beside) if self.beside else median(self.ours)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a figure or a target."""
        if self.figure is None or self.measure.target is None:
            return None
        return self.figure >= self.measure.target if self.measure.at_least else self.figure <= self.measure.target

    def record(self) -> dict[str, object]:
        """As it goes into the JSON file."""
        about = {
            name: getattr(self.measure, name) for name in ("name", "title", "unit", "beside", "target", "at_least")
        }
        samples = {"ours": self.ours, "beside_samples": self.beside, "failed": self.failed, "notes": self.notes}
        return {**about, **samples, "figure": self.figure, "met": self.met}


def take(measure: Measure, bench: Bench, rounds: int, advance: Callable[[], None]) -> Result:
    """Takes a measure; what keeps it from being taken is in the result."""
    ours: list[float] = []
    beside: list[float] = []
    bench.notes.clear()
    try:
        with measure.samplers(bench) as (sample_ours, sample_beside):
            for _ in range(rounds):
                ours.append(sample_ours())
                if sample_beside:
                    beside.append(sample_beside())
                advance()
    except (MeasureFailed, ServerFailed, NoRedis, OSError) as error:
        return Result(measure, [], [], failed=str(error))
    return Result(measure, ours, beside, notes=tuple(bench.notes))


def take_all(measures: Sequence[Measure], bench: Bench, rounds: int, console: Console) -> list[Result]:
    """Takes each measure in turn, showing how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[Result] = []
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        for measure in measures:
            count = rounds if measure.repeats else 1
            task = progress.add_task(measure.title, total=count)
            result = take(measure, bench, count, lambda: progress.advance(task))  # noqa: B023 (called in this turn only)
            results.append(result)
            if result.failed:
                progress.console.print(f"{measure.name}: {result.failed}", style="red", markup=False)
    return results


def table(results: Sequence[Result]) -> Table:
    """The results for a person: medians, the ratio, and whether the target is reached."""
    shown = Table(Column("measure", no_wrap=True), "ours", "beside", "", "figure", "target", "reached", box=SIMPLE_HEAD)
    shown.padding = (0, 1, 0, 0)
    for result in results:
        measure = result.measure
        bound = f"{'≥' if measure.at_least else '≤'} {measure.target:g}" if measure.target is not None else ""
        figure = "" if result.figure is None else f"{result.figure:.2f}"
        reached = {True: "[green]yes[/]", False: "[red]no[/]", None: "failed" if result.failed else ""}[result.met]
        ours, beside = _shown(result.ours, measure.unit), _shown(result.beside, measure.unit)
        shown.add_row(measure.title, ours, beside, measure.beside, figure, bound, reached)
    return shown


def _shown(samples: Sequence[float], unit: str) -> str:
    """A median with its unit, to three figures or whole."""
    if not samples:
        return ""
    middle = median(samples)
    figure = f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}"
    return f"{figure}{unit if unit == '/s' else ' ' + unit}"


def machine() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "redis": ".".join(map(str, find().version)),
    }


def _endpoint(_context: click.Context, _param: click.Parameter, text: str | None) -> Endpoint | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise click.BadParameter("give HOST:PORT, such as 127.0.0.1:6379")
    return Endpoint(host, int(port))


@click.command(context_settings={"show_default": True})
@click.option(
    "--only", multiple=True, type=click.Choice([m.name for m in MEASURES]), help="Take this measure; repeatable."
)
@click.option("--rounds", type=click.IntRange(1), default=5, help="Rounds of each measure.")
@click.option(
    "--quick", is_flag=True, help=f"Divide the work by {QUICK_DIVISOR}: to see that it runs, not for figures."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all samples here.")
@click.option("--server", callback=_endpoint, help="HOST:PORT to measure as ours. ALL ITS DATA IS DELETED.")
@click.option("--list", "list_only", is_flag=True, help="List the measures and end.")
def main(
    only: tuple[str, ...], rounds: int, quick: bool, json_file: Path | None, server: Endpoint | None, list_only: bool
) -> None:
    """Measures this server beside a real redis-server and prints a table; ends with 1 when a target is missed."""
    console = Console()
    measures = [measure for measure in MEASURES if not only or measure.name in only]
    if list_only:
        for measure in measures:
            click.echo(f"{measure.name:28} {measure.title}")
        return
    try:
        about = machine()
    except NoRedis as reason:
        raise click.ClickException(f"no Redis to compare with: {reason}") from None
    results = take_all(measures, Bench(server, QUICK_DIVISOR if quick else 1), rounds, console)
    console.print(table(results))
    for result in results:
        for note in result.notes:
            console.print(f"{result.measure.name}: {note}", markup=False, highlight=False, soft_wrap=True)
    if json_file:
        report = {"machine": about, "rounds": rounds, "quick": quick, "measures": [r.record() for r in results]}
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(int(any(result.met is False for result in results)))


if __name__ == "__main__":
    main()
