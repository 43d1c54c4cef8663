"""Vectors with what is known of how they came to be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from embedfleet.errors import InputError
from embedfleet.extras import need
from embedfleet.tally import Tally
from embedfleet.wire import Rows, Vectors

if TYPE_CHECKING:
    from embedfleet.plots import Method, Plot

_TEXT, _VECTOR = "text", "vector"


@dataclass(frozen=True)
class EmbedResult:
    """The vectors of one call, and its story. `numpy.asarray(result)` is `result.array`."""

    array: Vectors
    """(d,) for a str, (n, d) for an iterable; float32. NaN where `errors` names the text."""
    tokens: int
    """Computed; what was cached or repeated counts once at most."""
    seconds: float
    """From the call to its end."""
    queue_seconds: float
    """In the server's queue, the sum over all requests."""
    compute_seconds: float
    """Under the model, the sum over all requests."""
    requests: int
    retries: int
    latencies: tuple[float, ...]
    """Seconds of each request that was answered, as seen from here."""
    model: str | None
    fingerprint: str | None
    """Same fingerprint: comparable vectors."""
    precisions: tuple[str, ...]
    pods: tuple[str, ...]
    """Names of the pods that answered; empty where the server runs in none."""
    truncated: tuple[int, ...]
    """Places of the texts that were longer than the model takes, and lost their end."""
    errors: tuple[InputError, ...]
    """The texts without a vector, in their order."""
    cached: int
    """Texts whose vectors came from the cache."""
    repeated: int
    """Texts that were computed once with an equal one."""
    texts: Sequence[str] | None = field(default=None, repr=False)
    """The texts, where a list or a str was given."""

    @classmethod
    def of(cls, array: Vectors, tally: Tally, seconds: float, texts: Sequence[str] | None) -> "EmbedResult":
        """The result of a call that counted `tally`."""
        return cls(
            array=array,
            tokens=tally.tokens,
            seconds=seconds,
            queue_seconds=tally.queue_seconds,
            compute_seconds=tally.compute_seconds,
            requests=tally.requests,
            retries=tally.retries,
            latencies=tuple(tally.latencies),
            model=tally.model,
            fingerprint=tally.fingerprint,
            precisions=tuple(sorted(tally.precisions)),
            pods=tuple(sorted(tally.pods)),
            truncated=tuple(sorted(set(tally.truncated))),
            errors=tuple(tally.errors[index] for index in sorted(tally.errors)),
            cached=tally.cached,
            repeated=tally.repeated,
            texts=texts,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.array, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        bad = f", {len(self.errors)} without a vector" if self.errors else ""
        cut = f", {len(self.truncated)} truncated" if self.truncated else ""
        return (
            f"<EmbedResult {self.array.shape} float32 by {self.model or '?'}: {self.tokens} tokens in "
            f"{self.requests} requests, {self.retries} retries, {self.seconds:.2f} s{cut}{bad}>"
        )

    @cached_property
    def rows(self) -> Rows:
        """The array with a row for each text, shape (n, d), also where there is one."""
        return np.atleast_2d(self.array)

    def to_arrow(self) -> Any:
        """A `pyarrow.Table`: `vector` (fixed-size lists of float32; null without one), and `text` where it is known.

        Raises `ExtraMissing` without pyarrow.
        """
        arrow = need("pyarrow", "arrow", "to_arrow()")
        lacking = np.zeros(len(self), bool)
        lacking[[error.index for error in self.errors]] = True
        vectors = arrow.FixedSizeListArray.from_arrays(
            arrow.array(self.rows.ravel()), self.rows.shape[1], mask=arrow.array(lacking)
        )
        return arrow.table({**self._texts(), _VECTOR: vectors})

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with the columns `text`, where it is known, and `vector`, a row of the array each.

        Raises `ExtraMissing` without pandas.
        """
        pandas = need("pandas", "pandas", "to_pandas()")
        return pandas.DataFrame({**self._texts(), _VECTOR: list(self.rows)})

    def to_polars(self) -> Any:
        """A `polars.DataFrame` with the columns `text`, where it is known, and `vector`, a `polars.Array`.

        Raises `ExtraMissing` without polars.
        """
        polars = need("polars", "polars", "to_polars()")
        vectors = polars.Series(_VECTOR, self.rows, dtype=polars.Array(polars.Float32, self.rows.shape[1]))
        return polars.DataFrame([polars.Series(name, values) for name, values in self._texts().items()] + [vectors])

    def scatter(self, *, method: "Method" = "pca", labels: Sequence[object] | None = None) -> "Plot":
        """The vectors as points in the plane, coloured by `labels`; hovering over one in a notebook shows its text.

        `method`: "pca", or "umap" where the package umap-learn is installed. Raises `ExtraMissing` without matplotlib.
        """
        from embedfleet import plots

        return plots.scatter(self.rows, self._shown(), method=method, labels=labels)

    def heatmap(self) -> "Plot":
        """The cosine of every pair of vectors as a picture; of up to 200. Raises `ExtraMissing` without matplotlib."""
        from embedfleet import plots

        return plots.heatmap(self.rows, self._shown())

    def latency_histogram(self) -> "Plot":
        """How long the requests took, as seen from here. Raises `ExtraMissing` without matplotlib."""
        from embedfleet import plots

        return plots.latencies(self.latencies)

    def _texts(self) -> dict[str, list[str]]:
        return {} if self.texts is None else {_TEXT: list(self.texts)}

    def _shown(self) -> list[str]:
        return [str(number) for number in range(len(self))] if self.texts is None else [str(one) for one in self.texts]
