"""Pictures of vectors, by matplotlib, without its global state: nothing is drawn twice in a notebook."""

import base64
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedfleet.errors import BadInput, shortened
from embedfleet.extras import need
from embedfleet.wire import Rows

Method = Literal["pca", "umap"]
Points = NDArray[np.float64]
"""Places in the plane, shape (n, 2)."""

_INCHES = (6.4, 4.8)
_DOTS_PER_INCH = 100
_MOST_HOVERED = 2000  # points with a text of their own: a page with many more is slow
_MOST_PAIRS = 200
_MOST_NAMED = 30
_NAME_CHARACTERS = 30  # at the size that names have a third of the picture
_FEW_KINDS = 10  # that matplotlib's usual colours tell apart
_MARKS = ("o", "^", "s", "D", "v", "P", "X")
_REACH = 5  # pixels around a point in which its text is shown


@dataclass(frozen=True)
class Plot:
    """A picture; shown by a notebook as it is. `figure` is a `matplotlib.figure.Figure`."""

    figure: Any
    hover: tuple[tuple[float, float, str], ...] = field(default=(), repr=False)
    """Pixels from the left and from the top, and what to show there."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture; the ending of `path` chooses the format: .png, .svg, .pdf."""
        self.figure.savefig(path)

    def png(self) -> bytes:
        """The picture as a PNG file."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_html_(self) -> str:
        """The picture with a map of areas, which is the hover that every browser has."""
        name = f"embedfleet-{id(self):x}"
        areas = "".join(
            f'<area shape="circle" coords="{x:.0f},{y:.0f},{_REACH}" title="{html.escape(text)}">'
            for x, y, text in self.hover
        )
        data = base64.b64encode(self.png()).decode()
        return f'<img src="data:image/png;base64,{data}" usemap="#{name}"><map name="{name}">{areas}</map>'


def scatter(
    rows: Rows, texts: Sequence[str], *, method: Method = "pca", labels: Sequence[object] | None = None
) -> Plot:
    """The finite rows as points, coloured by `labels` (one for each row)."""
    purpose, least = _NEEDED[_known(method)]
    good = _finite(rows, least, purpose)
    if labels is not None and len(labels) != len(rows):
        raise BadInput(f"labels has {len(labels)} entries; it must have one for each of the {len(rows)} vectors")
    points = _PLANES[method](rows[good])
    figure, axes = _axes()
    chosen = None if labels is None else [labels[index] for index in good]
    _points(axes, points, chosen)
    axes.set_title(f"{len(good)} vectors by {method.upper()}")
    return Plot(figure, _hover(figure, axes, points, [texts[index] for index in good]))


def heatmap(rows: Rows, texts: Sequence[str]) -> Plot:
    """The cosines of the first finite rows with each other."""
    good = _finite(rows, 1, "heatmap()")[:_MOST_PAIRS]
    figure, axes = _axes()
    picture = axes.imshow(cosines(rows[good]), vmin=-1, vmax=1, cmap="coolwarm")
    figure.colorbar(picture, label="cosine")
    if len(good) <= _MOST_NAMED:
        names = [shortened(texts[index], _NAME_CHARACTERS) for index in good]
        axes.set_xticks(range(len(good)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(good)), names, fontsize=7)
    axes.set_title("cosine similarity")
    return Plot(figure)


def latencies(seconds: Sequence[float]) -> Plot:
    """How many requests took how long."""
    if not seconds:
        raise BadInput("no request was made (all vectors were cached): there are no latencies to show")
    milliseconds = np.asarray(seconds) * 1000
    figure, axes = _axes()
    axes.hist(milliseconds, bins="auto")
    for share, style in ((50, "-"), (95, "--")):
        value = float(np.percentile(milliseconds, share))
        axes.axvline(value, color="black", linestyle=style, label=f"p{share}: {value:.0f} ms")
    axes.set(xlabel="milliseconds", ylabel="requests", title=f"{len(seconds)} requests")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return Plot(figure)


def cosines(rows: Rows) -> NDArray[np.float64]:
    """The cosine of each row with each, shape (n, n); 0 with a row of zeros."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros(rows.shape, np.float64), where=lengths > 0)
    found: NDArray[np.float64] = np.clip(unit @ unit.T, -1.0, 1.0)
    return found


def pca(rows: Rows) -> Points:
    """The rows along the two directions in which they differ most."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    points: Points = centred @ directions[:2].T
    if points.shape[1] < 2:  # vectors of one number
        points = np.column_stack([points, np.zeros(len(points))])
    return points


def umap(rows: Rows) -> Points:
    """The rows, three or more, by UMAP; the same rows give the same picture."""
    library = need("umap", "umap", 'scatter(method="umap")', package="umap-learn")
    plan = library.UMAP(
        n_components=2,
        n_neighbors=min(_NEIGHBOURS, len(rows) - 1),
        init="spectral" if len(rows) > _SPECTRAL else "random",
        random_state=0,
        n_jobs=1,  # what a fixed seed comes to, said so that it is not warned of
    )
    found: Points = np.asarray(plan.fit_transform(rows), np.float64)
    return found


_PLANES = {"pca": pca, "umap": umap}
_NEEDED = {"pca": ("scatter()", 2), "umap": ('scatter(method="umap")', 3)}
"""What asks, and the least of vectors that it draws: UMAP takes two neighbours of each at least."""
_NEIGHBOURS = 15  # umap-learn's own default, which fewer vectors do not have
_SPECTRAL = 3  # so many vectors have no three eigenvectors, where UMAP would begin


def _known(method: str) -> Method:
    if method not in _PLANES:
        raise BadInput(f"method is {method!r}; it must be one of {', '.join(_PLANES)}")
    return method  # type: ignore[return-value]  # a key of the table


def _finite(rows: Rows, least: int, purpose: str) -> list[int]:
    """The indexes of the rows that are vectors; `BadInput` when there are fewer than `least`."""
    good: list[int] = np.flatnonzero(np.isfinite(rows).all(axis=1)).tolist()
    if len(good) < least:
        raise BadInput(f"{purpose} needs {least} vectors or more; there are {len(good)}")
    return good


def _axes() -> tuple[Any, Any]:
    figure = need("matplotlib.figure", "viz", "a plot", package="matplotlib").Figure(_INCHES, _DOTS_PER_INCH)
    figure.set_layout_engine("constrained")
    return figure, figure.subplots()


def _points(axes: Any, points: Points, labels: Sequence[object] | None) -> None:
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=12)
        return
    kinds = list(dict.fromkeys(labels))
    for label, look in zip(kinds, _looks(len(kinds)), strict=True):
        of = [index for index, one in enumerate(labels) if one == label]
        axes.scatter(points[of, 0], points[of, 1], s=12, label=str(label), **look)
    # Beside the points rather than among them, where it would hide some.
    axes.figure.legend(loc="outside right upper", fontsize=7)


def _looks(count: int) -> list[dict[str, Any]]:
    """A look for each of `count` kinds: colours of their own as far as there are, and then other marks."""
    maps = need("matplotlib", "viz", "a plot").colormaps
    colours = maps["tab10" if count <= _FEW_KINDS else "tab20"].colors
    return [
        {"color": [colours[kind % len(colours)]], "marker": _MARKS[kind // len(colours) % len(_MARKS)]}
        for kind in range(count)
    ]


def _hover(figure: Any, axes: Any, points: Points, texts: Sequence[str]) -> tuple[tuple[float, float, str], ...]:
    """Where the first points stand in the picture, in pixels."""
    figure.draw_without_rendering()  # the layout is known after it
    height = figure.get_size_inches()[1] * _DOTS_PER_INCH
    pixels = axes.transData.transform(points[:_MOST_HOVERED])
    return tuple((float(x), float(height - y), text) for (x, y), text in zip(pixels, texts, strict=False))
