"""`python -m tests.benchmarks.plot`: the figure of docs/benchmarks.md, drawn from the tables that stand there."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.child import ROOT

REPORT = ROOT / "docs/benchmarks.md"
FORWARD, HTTP, LATENCY = "Bare forward", "Throughput", "Latency"
_OURS = ("tab:blue", "#7fb2df")
_OTHERS = {
    "sentence-transformers": "0.45",
    "the model alone": "0.6",
    "ONNX Runtime": "tab:orange",
    "OpenVINO": "tab:green",
}
_OTHERS["infinity"] = "tab:red"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "embedfleet",  # the same figure gives the same file
}
Table = list[dict[str, str]]
Bar = tuple[str, float]


def tables(text: str) -> dict[str, Table]:
    """The table of each heading of the second level, its rows by column."""
    found = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, *lines = part.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        if cells:
            columns, _, *rows = cells
            found[heading] = [dict(zip(columns, row, strict=True)) for row in rows]
    return found


def forward(table: Table) -> dict[str, list[Bar]]:
    """Texts a second of each subject, by mix."""
    made: dict[str, list[Bar]] = {}
    for row in table:
        if row["mix"] != "-":
            made.setdefault(row["mix"], []).append((_short(row["subject"]), first(row["texts/s (range)"])))
    return made


def served(table: Table) -> list[Bar]:
    """Texts a second of each subject, over HTTP and beside it."""
    return [(_short(row["subject"]), first(row["texts/s (range)"])) for row in table]


def first(cell: str) -> float:
    """The number that a cell begins with."""
    return float(re.match(r"[\d.,]+", cell)[0].replace(",", ""))  # type: ignore[index]  # a cell of figures begins so


def _short(subject: str) -> str:
    """A subject without what a label has no room for."""
    subject = re.sub(r"(Runtime|OpenVINO|infinity|sentence-transformers) [\d.]+", r"\1", subject)
    subject = subject.replace(", tokenised before, sorted by length, batches of 32", "").replace("`", "")
    return (
        re.sub(r", batch(es of)? 32(, float32)?", ", float32", subject)
        .replace("Float32", "float32")
        .replace("BFloat16", "bfloat16")
    )


def draw(report: Path = REPORT) -> Path:
    """Write the figure beside the report; what it has no table for is left out. Gives its path."""
    found = tables(report.read_text(encoding="utf-8"))
    drawn = list(panels(found))
    target = report.with_suffix(".svg")
    with mpl.rc_context(_STYLE):
        heights = [len(bars) for _, bars in drawn]
        figure = Figure(figsize=(8.5, sum(heights) * 0.24 + 0.75 * len(drawn)), layout="constrained")
        for axes, (title, bars) in zip(_axes(figure, heights), drawn, strict=True):
            _bars(axes, title, bars)
        figure.savefig(target, metadata={"Date": None})
    return target


def panels(found: dict[str, Table]) -> Iterator[tuple[str, list[Bar]]]:
    """Title and bars of each panel."""
    for heading, table in found.items():
        if heading.startswith(FORWARD):
            for mix, bars in forward(table).items():
                yield f"{heading}, {mix} texts: texts/s", bars
        if heading.startswith(HTTP):
            yield f"{heading}: texts/s", served(table)


def _axes(figure: Figure, heights: Sequence[int]) -> Sequence[Axes]:
    made = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    return [row[0] for row in made]


def _bars(axes: Axes, title: str, bars: Sequence[Bar]) -> None:
    names, values = [name for name, _ in bars], [value for _, value in bars]
    drawn = axes.barh(range(len(bars)), values, color=[_colour(name) for name in names], height=0.72)
    axes.bar_label(drawn, [f" {value:,.0f}" for value in values], fontsize=8)
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(right=max(values) * 1.1)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")


def _colour(name: str) -> str:
    if name.startswith("embedfleet"):
        return _OURS["padded" in name]
    return next((colour for start, colour in _OTHERS.items() if name.startswith(start)), "0.6")


if __name__ == "__main__":
    print(draw(*map(Path, sys.argv[1:])))
