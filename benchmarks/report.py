"""What a benchmark found: a row beside its reference and its goal; as text, as data, and as a table for people."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Row:
    """One line of the table of goals.

    Attributes:
        name: What it is called on the command line, with what was measured where one benchmark has several rows.
        workload: What is done.
        subject: What it cost us, in `unit`.
        against: What the reference is; empty where the goal is a number of its own.
        reference: What that cost, in the same unit and the same run.
        unit: Of both.
        figure: What the goal is about: the ratio, or the number itself.
        goal: The bound.
        bound: Whether the figure is to be at most or at least that.
        round_trips: Counted on a delayed link, where that was done.
        because: Why it is missed, where it is.
        basis: What the figure is a ratio of. Where a goal is close to its reference, wall time tells noise: there CPU
            time is judged.
    """

    name: str
    workload: str
    subject: float
    unit: str
    figure: float
    goal: float
    because: str
    against: str = ""
    reference: float | None = None
    bound: Literal["≤", "≥"] = "≤"
    round_trips: int | None = None
    basis: Literal["wall", "cpu", "count", "memory"] = "wall"

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.figure <= self.goal if self.bound == "≤" else self.figure >= self.goal

    @property
    def verdict(self) -> str:
        """The last cell: the goal is met, or by how much it is not, and why."""
        if self.met:
            return "met"
        off = abs(self.figure - self.goal) / self.goal * 100 if self.goal else self.figure
        return f"missed by {off:.0f}{' %' if self.goal else ''} because {self.because}"


def ratio_row(
    name: str,
    workload: str,
    against: str,
    measured: tuple[float, float, float],
    goal: float,
    *,
    because: str,
    unit: str = "ms",
    bound: Literal["≤", "≥"] = "≤",
    round_trips: int | None = None,
    basis: Literal["wall", "cpu"] = "wall",
) -> Row:
    """A row whose figure is a ratio; `measured` is ours, the reference's, and the median of the rounds' ratios."""
    subject, reference, ratio = measured
    return Row(
        name,
        workload,
        subject,
        unit,
        ratio,
        goal,
        because,
        against=against,
        reference=reference,
        bound=bound,
        round_trips=round_trips,
        basis=basis,
    )


def shown(row: Row) -> str:
    """One row for the terminal."""
    reference = "" if row.reference is None else f"{row.against}: {number(row.reference)} {row.unit}; "
    trips = "" if row.round_trips is None else f"; round trips: {row.round_trips}"
    figure = f"{number(row.figure)} {row.bound} {number(row.goal)}"
    how = " of CPU time" if row.basis == "cpu" else ""
    return (
        f"{row.name:<24} {number(row.subject)} {row.unit} ({reference}goal{how} {figure}{trips})"
        f"\n{'':<24} {row.workload}: {row.verdict}"
    )


def number(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def keep(rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Write rows as data; rows of the same name are replaced, others stay."""
    kept = {row.name: row for row in read(path)} | {row.name: row for row in rows}
    text = json.dumps([asdict(row) for row in kept.values()], indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")


def read(path: Path = RESULTS) -> list[Row]:
    """The rows that were kept."""
    return [Row(**each) for each in json.loads(path.read_text("utf-8"))] if path.exists() else []


def markdown(rows: Sequence[Row]) -> str:
    """The table for docs/performance.md."""
    lines = [
        "| What | Ours | Beside it | Ratio | Goal | Round trips | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        beside = "" if row.reference is None else f"{row.against}: {number(row.reference)} {row.unit}"
        ratio = "" if row.reference is None else f"{number(row.figure)}{' (CPU)' if row.basis == 'cpu' else ''}"
        trips = "" if row.round_trips is None else str(row.round_trips)
        ours, goal = f"{number(row.subject)} {row.unit}", f"{row.bound} {number(row.goal)}"
        lines.append(f"| {row.workload} | {ours} | {beside} | {ratio} | {goal} | {trips} | {row.verdict} |")
    return "\n".join(lines) + "\n"
