"""The notebooks that need a service of this machine, run from the first cell to the last against the real model."""

import re
from pathlib import Path

import pytest

from tests.support import notebooks

SMALLER = {
    "02-a-million-texts.ipynb": "TEXTS = 600\nSHARD_ROWS = 128",
    "03-search-and-clusters.ipynb": 'MODULES = ["shutil", "random", "statistics", "gzip", "calendar"]',
    "04-tuning-batches.ipynb": "USERS = [1, 4]\nREQUESTS = 16\nTEXTS = TEXTS[:100]",
    "07-hybrid-search.ipynb": 'MODULES = ["shutil", "calendar", "email.utils"]',
}
"""What is put behind the parameters, so that a test is short."""
LOCAL = [name for name in notebooks.NAMES if not name.startswith(("01", "05", "07"))]


@pytest.mark.requirement("K1", "K4")
@pytest.mark.parametrize("name", LOCAL)
def test_a_notebook_runs(name: str, local: dict[str, str], tmp_path: Path) -> None:
    """No cell fails, nothing warns, and no picture is missing."""
    whole = notebooks.run(name, tmp_path, SMALLER.get(name, ""), local)
    assert notebooks.warned(whole) == []
    told = notebooks.said(whole)
    EXPECTED[name](whole, told)


@pytest.mark.requirement("G1", "K1", "K4")
def test_hybrid_search(hybrid: dict[str, str], tmp_path: Path) -> None:
    """The same of the notebook that has a service of its own: it indexes, searches and judges by two pipelines."""
    name = "07-hybrid-search.ipynb"
    whole = notebooks.run(name, tmp_path, SMALLER[name], hybrid)
    assert notebooks.warned(whole) == []
    told = notebooks.said(whole)
    assert told.count("problems: []") == 2
    assert "failed: []" in told
    assert "dense  calendar.weekday" in told
    assert re.search(r"RFC 2822 date: email\.utils\.format", told)
    judged = re.findall(r"(?:written by hand|names): dense 0\.\d\d, sparse 0\.\d\d, late \S+, hybrid (0\.\d\d)", told)
    assert len(judged) == 2
    assert all(float(one) > 0.5 for one in judged), "far above chance, some 0.06 for 80 documents"
    assert notebooks.pictures(whole) == 4


def _quickstart(whole: object, told: str) -> None:
    page = notebooks.html(whole)
    assert "((384,), (2, 384))" in told
    assert "Borrowing money" in told
    assert "texts[1]" in told
    assert page.count("by local service") == 2
    assert page.count("<svg") == 1, "the card has no latencies before the first call, and has them at the end"
    assert notebooks.pictures(whole) == 1


def _million(whole: object, told: str) -> None:
    assert "stopped after" in told
    assert "600 rows, 384 of them from the first run" in told
    assert "array([1., 1., 1., 1., 1.]" in told
    assert "second: 300 of 300 from the cache" in told
    assert notebooks.pictures(whole) == 1


def _search(whole: object, told: str) -> None:
    assert "shutil.copytree" in told
    assert "random.shuffle" in told
    assert notebooks.pictures(whole) == 3
    assert '<area shape="circle"' in notebooks.html(whole)


def _tuning(whole: object, told: str) -> None:
    assert told.count("always wait 50 ms") == 2
    assert notebooks.pictures(whole) == 3


def _adapters(whole: object, told: str) -> None:
    assert told.count("A cat sleeps on the warm roof of the garage.") == 7
    assert told.count("The recipe asks for flour, butter and three eggs.") >= 1


EXPECTED = dict(zip(LOCAL, (_quickstart, _million, _search, _tuning, _adapters), strict=True))
