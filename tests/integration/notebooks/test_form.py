"""The notebooks as they lie in the tree: stripped, told as pages, listed, and valid."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.support import notebooks

pytestmark = pytest.mark.requirement("K4")
ROOT = notebooks.ROOT


@pytest.fixture(params=notebooks.NAMES)
def whole(request: pytest.FixtureRequest) -> Any:
    """Each of them."""
    return notebooks.read(request.param)


def test_outputs_are_stripped(whole: Any) -> None:
    """No output, no count, no trace of whoever ran it last."""
    nbformat.validate(whole)
    code = [cell for cell in whole.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert {key for cell in whole.cells for key in cell.metadata} <= {"tags"}
    assert set(whole.metadata) == {"kernelspec", "language_info"}


def test_a_sentence_stands_before_each_cell(whole: Any) -> None:
    """It begins with a title and reads on: no code without words before it."""
    assert whole.cells[0].source.startswith("# ")
    kinds = [cell.cell_type for cell in whole.cells]
    assert all(before == "markdown" for before, kind in pairwise(kinds) if kind == "code")
    assert all(cell.source.strip() for cell in whole.cells)


def test_code_is_tidy(whole: Any) -> None:
    """Lines of 105 characters at most, which a page shows whole, and Python that compiles, `await` at the top included."""
    import ast

    for cell in whole.cells:
        if cell.cell_type == "code":
            compile(cell.source, cell.id, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert all(len(line) <= 105 for line in cell.source.splitlines())


def test_links_lead_somewhere(whole: Any) -> None:
    """Other notebooks and pages that are named are there."""
    text = "\n".join(cell.source for cell in whole.cells if cell.cell_type == "markdown")
    assert [one for one in re.findall(r"\]\(([^)#]+)\)", text) if not (notebooks.FOLDER / one).exists()] == []


def test_the_readme_lists_them() -> None:
    """README has a link to each notebook, and to none that is not there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\(notebooks/([^)]+\.ipynb)\)", text)
    assert sorted(linked) == notebooks.NAMES == sorted(path.name for path in Path(ROOT / "notebooks").iterdir())
