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
from embedfleet_server.engine.observer import ORIGIN
from embedfleet_server.engine.protocols import Encoded, Model, ModelInfo
from embedfleet_server.engine.rows import AnyRows, Collected, finite, only, problem

_NOT_FINITE = "the model gave a vector that is not finite"


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of one request in the order of its inputs, of the kind that the model's task has (see `rows.AnyRows`).

    `errors` names the inputs for which there is no row (not finite, failed alone, too large): there an array holds NaN,
    `SparseRows` and `Ragged` an empty row.
    """

    rows: Any
    tokens: list[int]
    truncated: list[int]
    errors: dict[int, ItemError]
    queue_seconds: float
    compute_seconds: float
    info: ModelInfo


class Delivery(Protocol):
    """How the results of batches reach those who asked; the dispatcher does not look into either."""

    def check(self, batch: Batch, results: Any, model: Any) -> Sequence[int]:
        """The places of inputs without a result after all; `BatchFailed` when these cannot be the batch's results."""

    def scatter(self, batch: Batch, results: Any, missing: Sequence[int], seconds: float) -> None:
        """Give each request its results, those that are not `missing`."""

    def lose(self, entries: Sequence[Entry], fault: Fault, error: Exception) -> None:
        """Tell each request which of its inputs failed for good; called after every failure, maybe with none."""


class RowDelivery:
    """Rows of every task, for the server's engine."""

    def check(self, batch: Batch, results: AnyRows, model: Model) -> list[int]:
        """As many rows as inputs, of the kind and length that the model states; those not finite are told."""
        return check(batch, results, model.info)

    def scatter(self, batch: Batch, results: AnyRows, missing: Sequence[int], seconds: float) -> None:
        """Each request its rows; those not finite are errors."""
        scatter(batch, results, missing, seconds)

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
    origin: object | None = field(default_factory=ORIGIN.get)
    """Who asked (see `ORIGIN`)."""
    rows: Collected = field(init=False)
    missing: int = field(init=False)
    errors: dict[int, ItemError] = field(default_factory=dict)
    queued: float = 0.0
    computed: float = 0.0

    def __post_init__(self) -> None:
        self.missing = len(self.encoded)
        self.rows = Collected(self.missing, self.info.task, self.info.native_dimensions)

    def take(self, indices: list[int], rows: AnyRows, positions: list[int], batch: Batch, seconds: float) -> None:
        """Rows of some of the inputs, at `positions` of the batch's."""
        self.rows.put(indices, rows, positions)
        self.missing -= len(indices)
        self.queued = max(self.queued, batch.began - self.arrived)
        self.computed += seconds

    def spoil(self, indices: list[int], code: str, message: str) -> None:
        """Rows that came are no good."""
        self.errors |= {index: ItemError(index, code, message) for index in indices}
        self.rows.lose(indices)

    def lose(self, index: int, error: ItemError) -> None:
        """No row will come for one input."""
        self.errors[index] = error
        self.rows.lose([index])
        self.missing -= 1
        self.flight.gave(index, error)

    def tell(self, indices: list[int], rows: AnyRows, positions: list[int]) -> None:
        """Rows for those who joined these inputs."""
        for index, position in zip(indices, positions, strict=True):
            if index in self.flight.joined:
                encoded = self.encoded[index]
                row = Kept(only(rows, position), len(encoded.token_ids), encoded.truncated)
                self.flight.gave(index, self.errors.get(index, row))

    def answer(self) -> None:
        """Answer the request, once nothing of it is missing."""
        if not self.missing and not self.future.done():
            self.future.set_result(self._answer())

    def fail(self, error: Exception) -> None:
        """No rows will come."""
        if not self.future.done():
            self.future.set_exception(error)

    def _answer(self) -> Answer:
        tokens = [len(item.token_ids) for item in self.encoded]
        truncated = [index for index, item in enumerate(self.encoded) if item.truncated]
        return Answer(self.rows.rows(), tokens, truncated, self.errors, self.queued, self.computed, self.info)


def check(batch: Batch, rows: AnyRows, info: ModelInfo) -> list[int]:
    """The positions of rows that are not finite.

    `BatchFailed` when there are not as many rows as inputs, or they are not of the kind and length stated.
    """
    if (wrong := problem(rows, len(batch.entries), info.task, info.native_dimensions)) is not None:
        raise BatchFailed(f"model {batch.model!r} {wrong}")
    bad: list[int] = np.flatnonzero(~finite(rows)).tolist()
    return bad


def scatter(batch: Batch, rows: AnyRows, not_finite: Sequence[int], seconds: float) -> None:
    """Give each request its rows; one that is not finite is none, and named in the errors."""
    bad = set(not_finite)
    for work, (positions, indices) in _by_work(batch).items():
        pending: Pending = work.handle
        wrong = [index for position, index in zip(positions, indices, strict=True) if position in bad] if bad else []
        pending.take(indices, rows, positions, batch, seconds)
        if wrong:
            pending.spoil(wrong, "not_finite", _NOT_FINITE)
        if pending.flight.joined:
            pending.tell(indices, rows, positions)
        pending.answer()


def lose(entries: Sequence[Entry], error: ItemError) -> None:
    """Tell each request which of its inputs failed for good, `error` saying why."""
    for _, _, work, index in entries:
        pending: Pending = work.handle
        pending.lose(index, replace(error, index=index))
        pending.answer()


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
