"""The chart's dashboard drawn as Grafana lays it out, from what a Prometheus answers to each panel's queries."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tests.dashboards.prometheus import Curve

Ask = Callable[[str], Sequence[Curve]]
_WIDE, _HIGH = 0.58, 0.34
"""Inches of a cell of Grafana's grid."""
_LEFT, _RIGHT, _BELOW, _ABOVE = 1.0, 0.3, 2.2, 0.9
"""Cells of a panel's place around its axes: for figures, legend and title."""
_COLUMNS = 24
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
_MOST_LABELS = 10


def expression(text: str, interval: str) -> str:
    """A panel's query with Grafana's variables filled in: all of everything."""
    return re.sub(r"\$(namespace|service|model|operator)", ".+", text.replace("$__rate_interval", interval))


def draw(board: Mapping[str, Any], ask: Ask, interval: str, span: tuple[float, float], target: Path) -> list[str]:
    """Write the picture of a span, in seconds since 1970; gives the titles of panels that have no curve."""
    panels = board["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    empty = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_COLUMNS * _WIDE, rows * _HIGH))
        for panel in panels:
            if panel["type"] == "row":
                figure.text(0.01, 1 - (panel["gridPos"]["y"] + 0.8) / rows, panel["title"], size=13, weight="bold")
                continue
            axes = figure.add_axes(_place(panel["gridPos"], rows))
            if not _panel(axes, panel, lambda text: ask(expression(text, interval)), span):
                empty.append(panel["title"])
        figure.savefig(target, dpi=100)
    return empty


def _place(at: Mapping[str, int], rows: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a panel's axes, in parts of the picture."""
    bottom = 1 - (at["y"] + at["h"] - _BELOW) / rows
    width, height = at["w"] - _LEFT - _RIGHT, at["h"] - _BELOW - _ABOVE
    return (at["x"] + _LEFT) / _COLUMNS, bottom, width / _COLUMNS, height / rows


def _panel(axes: Axes, panel: Mapping[str, Any], ask: Ask, span: tuple[float, float]) -> int:
    """Draws the panel's curves; how many there are."""
    start, end = span
    curves = [(target["legendFormat"], curve) for target in panel["targets"] for curve in ask(target["expr"])]
    if len(curves) > _MOST_LABELS:  # of many codes of an answer most never come
        curves = [(template, curve) for template, curve in curves if any(curve.values)]
    for template, curve in curves:
        minutes = [(at - start) / 60 for at in curve.at]
        axes.plot(minutes, curve.values, label=legend(template, curve.labels), linewidth=1.3)
    field = panel["fieldConfig"]["defaults"]
    for step in field["thresholds"]["steps"][1:]:
        axes.axhline(step["value"], color="tab:red", linestyle="--", linewidth=0.9)
    axes.set_title(panel["title"], loc="left", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, (end - start) / 60)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, field["unit"])))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda minute, _: f"{minute:g} min"))
    if curves:
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.1), fontsize=6.5, frameon=False, ncols=4, columnspacing=1
        )
    return len(curves)


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Grafana's `{{label}}` filled in."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template)


def number(value: float, unit: str) -> str:
    """A value of an axis, short, in Grafana's unit."""
    if unit == "percentunit":
        return f"{100 * value:g} %"
    if unit == "s" and 0 < value < 1:
        return f"{1000 * value:g} ms"
    scale, letter = next(((each, name) for each, name in _SCALES if value >= each), (1.0, ""))
    suffix = {"reqps": "/s", "cps": "/s", "s": " s", "bytes": "B"}.get(unit, "")
    return f"{value / scale:g}{' ' if letter and suffix == 'B' else ''}{letter}{suffix}"


def board(file: Path) -> dict[str, Any]:
    """The chart's dashboard."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
