"""What can be made of a result: tables and pictures, and what is said where a package is missing."""

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from embedfleet import EmbedResult, errors, plots
from embedfleet.errors import InputError
from embedfleet.tally import Tally

ROWS = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
TEXTS = ["a", "b", "<c>", "d", "e", "f"]


@pytest.fixture
def result() -> EmbedResult:
    """Six vectors, the second of which is none."""
    rows = ROWS.copy()
    rows[1] = np.nan
    tally = Tally(latencies=[0.01, 0.02, 0.05], errors={1: InputError(1, "c", "m")}, tokens=12, requests=3, tries=4)
    return EmbedResult.of(rows, tally, 0.1, TEXTS)


def test_it_is_an_array_where_one_is_wanted(result: EmbedResult) -> None:
    """NumPy takes it as it is; it tells of its story in a line."""
    assert np.array_equal(np.asarray(result), result.array, equal_nan=True)
    assert len(result) == 6
    assert repr(result).startswith("<EmbedResult (6, 4) float32 by ?: 12 tokens in 3 requests, 1 retries")
    assert "1 without a vector" in repr(result)
    one = EmbedResult.of(ROWS[0], Tally(), 0.1, ["a"])
    assert one.rows.shape == (1, 4)


def test_to_arrow(result: EmbedResult) -> None:
    """A fixed-size list of float32 for each text, null for the bad one."""
    table = result.to_arrow()
    assert str(table.schema.field("vector").type) == "fixed_size_list<item: float>[4]"
    assert table.column("text").to_pylist() == TEXTS
    vectors = table.column("vector").to_pylist()
    assert vectors[1] is None
    assert np.array_equal(np.array(vectors[2], np.float32), ROWS[2])
    assert EmbedResult.of(ROWS, Tally(), 0.1, None).to_arrow().column_names == ["vector"]


def test_to_pandas_and_polars(result: EmbedResult) -> None:
    """Both have a column of texts and one of vectors."""
    frame = result.to_pandas()
    assert list(frame.columns) == ["text", "vector"]
    assert np.array_equal(frame["vector"][2], ROWS[2])
    other = result.to_polars()
    assert other.columns == ["text", "vector"]
    assert np.array_equal(other["vector"].to_numpy()[2:], ROWS[2:])


def test_plots(result: EmbedResult, tmp_path: Path) -> None:
    """Each picture is a PNG; the scatter shows texts where the pointer is, with nothing of them taken for HTML."""
    scatter = result.scatter(labels=["x", "x", "y", "y", "z", "z"])
    for plot in (scatter, result.scatter(), result.heatmap(), result.latency_histogram()):
        assert plot.png().startswith(b"\x89PNG")
        assert plot._repr_png_() == plot.png()
    assert [text for _, _, text in scatter.hover] == ["a", "<c>", "d", "e", "f"]
    assert all(0 < x < 640 and 0 < y < 480 for x, y, _ in scatter.hover)
    page = scatter._repr_html_()
    assert 'title="&lt;c&gt;"' in page
    assert page.count("<area") == 5
    scatter.save(tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_every_kind_has_a_look_of_its_own() -> None:
    """Past the colours that there are comes another mark; the legend stands beside the points and hides none."""
    kinds = [f"kind {number}" for number in range(45)]
    rows = np.random.default_rng(2).standard_normal((45, 4)).astype(np.float32)
    figure = EmbedResult.of(rows, Tally(), 0.1, None).scatter(labels=kinds).figure
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    looks = {(one.get_facecolor().tobytes(), one.get_paths()[0].vertices.tobytes()) for one in axes.collections}
    assert len(looks) == 45
    assert axes.get_window_extent().x1 <= legend.get_window_extent().x0


def test_a_picture_of_many_points_is_told_in_a_line(result: EmbedResult) -> None:
    """Its `repr`, which a terminal and a stored notebook show, has none of the texts."""
    assert "<c>" not in repr(result.scatter())


def test_names_that_are_cut_say_so() -> None:
    """A heat map's names end with an ellipsis where a text goes on."""
    figure = (
        EmbedResult.of(ROWS[:2], Tally(), 0.1, ["a short one", "a text with so many words that no name holds them"])
        .heatmap()
        .figure
    )
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["a short one", "a text with so many words tha…"]


def test_pca_finds_the_plane() -> None:
    """Points of a plane keep their distances; vectors of one number make a line."""
    plane = np.random.default_rng(2).standard_normal((20, 2))
    turned = np.linalg.qr(np.random.default_rng(3).standard_normal((7, 7)))[0][:2]
    points = plots.pca((plane @ turned).astype(np.float32))
    before = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    assert np.allclose(np.linalg.norm(points[:, None] - points[None], axis=2), before, atol=1e-4)
    assert plots.pca(np.array([[1.0], [3.0]], np.float32)).shape == (2, 2)


@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
def test_umap_keeps_groups_apart() -> None:
    """By the package itself: two groups stay apart, the same way each time; so few as three vectors can be drawn."""
    centres = np.repeat(np.array([[0.0] * 16, [20.0] * 16]), 20, axis=0)
    rows = (centres + np.random.default_rng(4).standard_normal((40, 16))).astype(np.float32)
    points = plots.umap(rows)
    assert points.shape == (40, 2)
    assert np.array_equal(points, plots.umap(rows))
    within = max(np.linalg.norm(part - part.mean(axis=0), axis=1).mean() for part in (points[:20], points[20:]))
    assert np.linalg.norm(points[:20].mean(axis=0) - points[20:].mean(axis=0)) > 2 * within
    for count in (3, 4, 16):
        few = EmbedResult.of(rows[:count], Tally(), 0.1, None).scatter(method="umap")
        assert len(few.hover) == count
    with pytest.raises(errors.BadInput, match=r'scatter\(method="umap"\) needs 3 vectors or more; there are 2'):
        EmbedResult.of(rows[:2], Tally(), 0.1, None).scatter(method="umap")


def test_cosines_are_those_of_the_rows() -> None:
    """1 with itself, whatever the lengths; 0 with a row of zeros."""
    rows = np.array([[2, 0], [0, 3], [1, 1], [0, 0]], np.float32)
    half = float(np.sqrt(0.5))
    expected = np.array([[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]])
    assert np.allclose(plots.cosines(rows), expected)


def test_what_cannot_be_drawn_is_told(result: EmbedResult) -> None:
    """Too few vectors, labels that do not fit, a method that is not known, no requests."""
    with pytest.raises(errors.BadInput, match="needs 2 vectors or more; there are 1"):
        EmbedResult.of(ROWS[0], Tally(), 0.1, None).scatter()
    with pytest.raises(errors.BadInput, match="labels has 1 entries"):
        result.scatter(labels=["x"])
    with pytest.raises(errors.BadInput, match="method is 'tsne'; it must be one of pca, umap"):
        result.scatter(method="tsne")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(errors.BadInput, match="no request was made"):
        EmbedResult.of(ROWS, Tally(), 0.1, None).latency_histogram()


@pytest.mark.parametrize(
    ("module", "use", "says"),
    [
        ("pyarrow", "to_arrow", r"to_arrow\(\) needs the package 'pyarrow': pip install 'embedfleet\[arrow\]'"),
        ("pandas", "to_pandas", r"'embedfleet\[pandas\]'"),
        ("polars", "to_polars", r"'embedfleet\[polars\]'"),
        ("matplotlib.figure", "heatmap", r"a plot needs the package 'matplotlib': pip install 'embedfleet\[viz\]'"),
        ("umap", "umap", r"needs the package 'umap-learn': pip install 'embedfleet\[umap\]'"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    result: EmbedResult, monkeypatch: pytest.MonkeyPatch, module: str, use: str, says: str
) -> None:
    """Without an extra the error says how to get it; a plain installation has none of these packages."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(errors.ExtraMissing, match=says):
        result.scatter(method="umap") if use == "umap" else getattr(result, use)()


def test_every_extra_that_is_named_exists() -> None:
    """What the errors tell to install is what the distribution offers."""
    root = Path(__file__).parents[3]
    code = "".join(file.read_text() for file in (root / "sdk/src/embedfleet").rglob("*.py"))
    named = set(re.findall(r'need\("[\w.]+", "([\w-]+)"', code))
    offered = tomllib.loads((root / "sdk/pyproject.toml").read_text())["project"]["optional-dependencies"]
    adapters = {"chroma", "langchain", "llama-index"}
    assert named == set(offered) == {"arrow", "pandas", "polars", "scipy", "umap", "viz"} | adapters
