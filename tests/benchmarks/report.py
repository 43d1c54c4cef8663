"""What a run prints: sections of tables and goals, as text that is also Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Goal:
    """A number that has to hold, what was measured, and whether it held."""

    wanted: str
    measured: str
    met: bool


@dataclass(slots=True)
class Section:
    """One part of the run."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def markdown(sections: Sequence[Section], *, command: str, when: str) -> str:
    """The whole run."""
    lines = ["# Benchmarks", "", f"Written by `{command}` on {when}; medians of interleaved repetitions."]
    lines += ["", "![Texts a second beside the peers](benchmarks.svg)"]
    return "\n".join([*lines, *_goals(sections), *_parts(sections)]) + "\n"


def show(*sections: Section) -> None:
    """Some parts by themselves."""
    print("\n".join([*_parts(sections), *_goals(sections)]))


def _goals(sections: Sequence[Section]) -> list[str]:
    goals = [
        (goal.wanted, goal.measured, "met" if goal.met else "**not met**") for part in sections for goal in part.goals
    ]
    return ["", "## Goals", "", *table(("goal", "measured", ""), goals)] if goals else []


def _parts(sections: Sequence[Section]) -> list[str]:
    lines = list[str]()
    for part in sections:
        lines += ["", f"## {part.title}", "", *table(part.columns, part.rows)]
        lines += ["", *(f"- {note}" for note in part.notes)] if part.notes else []
    return lines


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns also line up as plain text; all columns but the first to the right."""
    widths = [max(3, *(len(row[place]) for row in (columns, *rows))) for place in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [_line(columns, widths), "| " + " | ".join(rule) + " |", *(_line(row, widths) for row in rows)]


def rate(count: int, seconds: Sequence[float]) -> str:
    """Median and range of items a second."""
    rates = sorted(count / taken for taken in seconds)
    spread = f" ({rates[0]:.0f} to {rates[-1]:.0f})" if len(rates) > 1 else ""
    return f"{median(rates):.0f}{spread}"


def milliseconds(seconds: float) -> str:
    """With as many digits as mean something."""
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "| " + " | ".join([cells[0].ljust(widths[0]), *rest]) + " |"
