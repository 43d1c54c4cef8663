"""The figures of the benchmarks' pages say what their tables say."""

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


PAGES = (plot.REPORT, plot.REPORT.with_name("benchmarks-bfloat16.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_figures_of_the_docs_are_drawn_from_the_docs_tables(page: Path) -> None:
    """Each speed of the tables stands at a bar, peers' too, by mix and over HTTP; the page shows the figure.

    How many bars there are goes by the precisions that the processor has.
    """
    text = page.read_text(encoding="utf-8")
    assert f"]({page.with_suffix('.svg').name})" in text
    written = labels(page.with_suffix(".svg"))
    panels = [bars for _, bars in plot.panels(plot.tables(text))]
    beside = ["OpenVINO, float32"] * 3 + ["infinity, 64 clients x 1 text"]
    assert [peer in dict(bars) for peer, bars in zip(beside, panels, strict=True)] == [True] * 4
    bars = [bar for some in panels for bar in some]
    assert {name for name, _ in bars} | {f"{value:,.0f}" for _, value in bars} <= written


def test_a_new_run_is_drawn(tmp_path: Path) -> None:
    """What a run has written is drawn beside it, with thousands as they are written."""
    rows: list[Sequence[str]] = [("embedfleet, 8 clients x 32 texts", "1,312 (289 to 336)", "2.68", "3.75")]
    section = Section("Throughput: 600 mixed texts", ("subject", "texts/s (range)", "x encode", "x infinity"), rows)
    (tmp_path / "run.md").write_text(markdown([section], command="c", when="today"), encoding="utf-8")
    assert {"1,312", "embedfleet, 8 clients x 32 texts"} <= labels(plot.draw(tmp_path / "run.md"))
