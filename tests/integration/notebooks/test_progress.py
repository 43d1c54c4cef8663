"""The progress bar in a kernel: a widget where ipywidgets is, a line of text where it is not, and never a warning."""

from pathlib import Path
from typing import Any

import pytest

from tests.support import notebooks
from tests.support.fake_server import FakeServer, serving

WIDGET = "application/vnd.jupyter.widget-view+json"
WITHOUT = "import sys\nsys.modules['ipywidgets'] = None  # as if it were not installed"
EMBED = """
import embedfleet as sdk
with sdk.connect(url={url!r}) as service:
    shape = service.embed([f"text {{number}}" for number in range(600)], progress=True).shape
shape
"""


def outputs(folder: Path, *cells: str) -> list[Any]:
    """What the last of these cells has shown."""
    whole = notebooks.page(*cells)
    notebooks.execute(whole, folder)
    assert notebooks.warned(whole) == []
    return list(whole.cells[-1].outputs)


@pytest.mark.requirement("K3")
def test_without_widgets_it_is_a_line(tmp_path: Path) -> None:
    """Drawn on the cell's standard error, with nothing said of the package that is missing."""
    with serving(FakeServer()) as fake:
        shown = outputs(tmp_path, WITHOUT, EMBED.format(url=fake.url))
    drawn = "".join(one.text for one in shown if one.output_type == "stream")
    assert "600/600" in drawn
    assert "IProgress" not in drawn
    assert not any(WIDGET in one.get("data", {}) for one in shown)


@pytest.mark.requirement("K3")
def test_with_widgets_it_is_one(tmp_path: Path) -> None:
    """A widget, and no line beside it."""
    with serving(FakeServer()) as fake:
        shown = outputs(tmp_path, EMBED.format(url=fake.url))
    assert sum(WIDGET in one.get("data", {}) for one in shown) == 1
    assert [one for one in shown if one.output_type == "stream"] == []
