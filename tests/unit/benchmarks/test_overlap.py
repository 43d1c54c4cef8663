"""What spans of time say of how much stages overlap."""

from pathlib import Path

import pytest

from tests.benchmarks.overlap import covered, draw, idle_share

pytestmark = pytest.mark.requirement("N3")


def test_spans_over_each_other_count_once() -> None:
    """Covered is what at least one span covers, within the window alone."""
    spans = [("a", "one", 0.0, 2.0), ("b", "two", 1.0, 3.0), ("a", "one", 6.0, 12.0), ("b", "two", 7.0, 8.0)]
    assert covered(spans, (1.0, 11.0)) == pytest.approx(0.7)


def test_nothing_covers_nothing() -> None:
    """A window without a span is idle."""
    assert covered([], (1.0, 2.0)) == 0
    assert covered([("a", "one", 3.0, 4.0)], (1.0, 2.0)) == 0


def test_a_lane_is_idle_while_another_computes() -> None:
    """Of two lanes one computes for half of the window; what the device's own thread computes keeps both busy."""
    side = [("Transformer", "device lane_0", 0.0, 10.0), ("Transformer", "device lane_1", 0.0, 5.0)]
    assert idle_share(side, (0.0, 10.0)) == pytest.approx(0.25)
    assert idle_share([*side, ("Transformer", "device cpu_0", 8.0, 10.0)], (0.0, 10.0)) == pytest.approx(0.15)
    assert idle_share([("Transformer", "device cpu_0", 0.0, 4.0)], (0.0, 10.0)) == pytest.approx(0.6)


def test_the_picture_has_a_line_for_each_thread(tmp_path: Path) -> None:
    """Those too that did nothing in what is shown."""
    spans = [("forward", "device", 0.0, 9.0), ("Transformer", "device", 1.0, 8.0), ("parse", "loop", 0.1, 0.2)]
    draw(spans, tmp_path / "drawn.svg")
    drawn = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    assert "device" in drawn
    assert "loop" in drawn
