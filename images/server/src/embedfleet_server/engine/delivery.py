"""From the rows of a batch to the callers that asked, each row to its own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from embedfleet_server.batching.types import Batch, Entry, Fault, Work
from embedfleet_server.engine.cache import Kept
from embedfleet_server.engine.errors import BatchFailed, ItemError
from embedfleet_server.engine.flights import Flight
from embedfleet_server.engine.protocols import Encoded, Model, ModelInfo, Rows

_NOT_FINITE = "the model gave a vector that is not finite"


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors of one request in the order of its inputs: `rows` (n, native_dimensions) float32.

    `errors` names the inputs for which there is no vector (not finite, failed alone, too large); their rows are NaN.
    """

    rows: Rows
    tokens: list[int]
    truncated: list[int]
    errors: dict[int, ItemError]
    queue_seconds: float
    compute_seconds: float
    info: ModelInfo


class Delivery(Protocol):
    """How the results of batches reach those who asked; the dispatcher does not look into either."""

    def check(self, batch: Batch, results: Any, model: Any) -> None:
        """`BatchFailed` when these cannot be the batch's results."""

    def scatter(self, batch: Batch, results: Any, seconds: float) -> int:
        """Give each request its results; returns how many inputs have none after all."""

    def peak_mib(self, model: Any) -> float | None:
        """What the last forward took of its device's memory, where that is known."""

    def lose(self, entries: Sequence[Entry], fault: Fault, error: Exception) -> None:
        """Tell each request which of its inputs failed for good; called after every failure, maybe with none."""


class RowDelivery:
    """Vectors as rows, for the server's engine."""

    def check(self, batch: Batch, results: Rows, model: Model) -> None:
        """As many rows as inputs, as long as the model states."""
        check(batch, results, model.info.native_dimensions)

    def scatter(self, batch: Batch, results: Rows, seconds: float) -> int:
        """Each request its rows; those not finite are errors."""
        return scatter(batch, results, seconds)

    def peak_mib(self, model: Model) -> float | None:
        """As the model says."""
        return model.peak_mib()

    def lose(self, entries: Sequence[Entry], fault: Fault, error: Exception) -> None:
        """An `ItemError` for each input."""
        lose(entries, _item_error(fault, error))


@dataclass(slots=True, eq=False)
class Pending:
    """An admitted request that waits for its rows."""

    future: asyncio.Future[Answer]
    info: ModelInfo
    encoded: Sequence[Encoded]
    arrived: float
    flight: Flight = field(default_factory=Flight)
    rows: Rows = field(init=False)
    missing: int = field(init=False)
    errors: dict[int, ItemError] = field(default_factory=dict)
    queued: float = 0.0
    computed: float = 0.0

    def __post_init__(self) -> None:
        self.missing = len(self.encoded)
        self.rows = np.empty((self.missing, self.info.native_dimensions), np.float32)

    def take(self, indices: list[int], rows: Rows, batch: Batch, seconds: float) -> None:
        """Rows of some of the inputs; the last ones answer the request."""
        self.rows[indices] = rows
        self.missing -= len(indices)
        self.queued = max(self.queued, batch.formed - self.arrived)
        self.computed += seconds
        if self.flight.joined:
            self._tell(indices)
        if not self.missing and not self.future.done():
            self.future.set_result(self._answer())

    def lose(self, index: int, error: ItemError) -> None:
        """No row will come for one input."""
        self.errors[index] = error
        self.rows[index] = np.nan
        self.missing -= 1
        self.flight.gave(index, error)
        if not self.missing and not self.future.done():
            self.future.set_result(self._answer())

    def fail(self, error: Exception) -> None:
        """No rows will come."""
        if not self.future.done():
            self.future.set_exception(error)

    def _tell(self, indices: Sequence[int]) -> None:
        """Rows for those who joined these inputs."""
        for index in self.flight.joined.keys() & set(indices):
            encoded = self.encoded[index]
            row = Kept(self.rows[index].copy(), len(encoded.token_ids), encoded.truncated)
            self.flight.gave(index, self.errors.get(index, row))

    def _answer(self) -> Answer:
        tokens = [len(item.token_ids) for item in self.encoded]
        truncated = [index for index, item in enumerate(self.encoded) if item.truncated]
        return Answer(self.rows, tokens, truncated, self.errors, self.queued, self.computed, self.info)


def check(batch: Batch, rows: Rows, dimensions: int) -> None:
    """`BatchFailed` when there are not as many rows as inputs, they have another length than stated, or no numbers."""
    expected = (len(batch.entries), dimensions)
    if rows.shape != expected:
        raise BatchFailed(f"model {batch.model!r} gave rows of shape {rows.shape} where {expected} was due")
    if not np.issubdtype(rows.dtype, np.floating):
        raise BatchFailed(f"model {batch.model!r} gave rows of {rows.dtype} where float32 was due")


def scatter(batch: Batch, rows: Rows, seconds: float) -> int:
    """Give each request its rows; returns how many were not finite (NaN in the answer, named in its errors)."""
    bad = set(np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist())
    failed = 0
    for work, (positions, indices) in _by_work(batch).items():
        pending: Pending = work.handle
        wrong = [index for position, index in zip(positions, indices, strict=True) if position in bad] if bad else []
        pending.errors |= {index: ItemError(index, "not_finite", _NOT_FINITE) for index in wrong}
        pending.take(indices, rows[positions], batch, seconds)
        pending.rows[wrong] = np.nan
        failed += len(wrong)
    return failed


def lose(entries: Sequence[Entry], error: ItemError) -> None:
    """Tell each request which of its inputs failed for good, `error` saying why."""
    for _, _, work, index in entries:
        pending: Pending = work.handle
        pending.lose(index, replace(error, index=index))


def _by_work(batch: Batch) -> dict[Work, tuple[list[int], list[int]]]:
    """For each work still wanted: the positions of its rows in the batch, and the inputs they belong to."""
    grouped: dict[Work, tuple[list[int], list[int]]] = {}
    for position, (_, _, work, index) in enumerate(batch.entries):
        if not work.cancelled:
            positions, indices = grouped.setdefault(work, ([], []))
            positions.append(position)
            indices.append(index)
    return grouped


def _item_error(fault: Fault, error: Exception) -> ItemError:
    if fault is Fault.MEMORY:
        return ItemError(0, "input_too_large", "the input does not fit into the device's memory, even alone")
    return ItemError(0, "forward_failed", f"the forward failed for this input alone: {error}")
