"""The figure of docs/benchmarks.md says what its tables say."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.benchmarks import plot
from tests.benchmarks.report import Section, markdown

pytestmark = pytest.mark.requirement("N1")


def labels(figure: Path) -> set[str]:
    """All that is written in it."""
    return {found.strip() for found in re.findall(r">([^<>]+)</text>", figure.read_text(encoding="utf-8"))}


def test_the_figure_of_the_docs_is_drawn_from_the_docs_tables() -> None:
    """Each speed of the tables stands at a bar; the page shows the figure."""
    text = plot.REPORT.read_text(encoding="utf-8")
    assert f"]({plot.REPORT.with_suffix('.svg').name})" in text
    written = labels(plot.REPORT.with_suffix(".svg"))
    bars = [bar for _, some in plot.panels(plot.tables(text)) for bar in some]
    assert len(bars) > 30
    assert {name for name, _ in bars} | {f"{value:,.0f}" for _, value in bars} <= written


def test_a_new_run_is_drawn(tmp_path: Path) -> None:
    """What a run has written is drawn beside it, with thousands as they are written."""
    rows: list[Sequence[str]] = [("embedfleet, 8 clients x 32 texts", "1,312 (289 to 336)", "2.68", "3.75")]
    section = Section("Throughput: 600 mixed texts", ("subject", "texts/s (range)", "x encode", "x infinity"), rows)
    (tmp_path / "run.md").write_text(markdown([section], command="c", when="today"), encoding="utf-8")
    assert {"1,312", "embedfleet, 8 clients x 32 texts"} <= labels(plot.draw(tmp_path / "run.md"))
