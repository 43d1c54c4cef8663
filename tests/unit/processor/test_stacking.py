"""What the callable is given."""

import threading
from typing import Any

import numpy as np
import pytest

from embedfleet_server import BatchProcessor, BatchProcessorConfig
from embedfleet_server.processor.stacking import Buffers


def gathered(items: list[Any], **values: Any) -> tuple[list[Any], list[Any]]:
    """All items in one batch: what the callable was given, and the results (each item, back)."""
    given: list[Any] = []

    def keep(batch: Any) -> Any:
        given.append(batch.copy())
        return list(batch)

    with BatchProcessor(BatchProcessorConfig(**values)).start(keep) as processor:
        processor.pause()
        futures = [processor.enqueue_predict(item) for item in items]
        processor.resume()
        return given, [future.result(5) for future in futures]


@pytest.mark.requirement("P3")
def test_numpy_items_of_one_shape_reach_the_callable_as_one_array() -> None:
    """Rows in the order of arrival, shape (n, 2, 3), C-contiguous, same type."""
    items = [np.full((2, 3), i, np.float32) for i in range(5)]
    given, _ = gathered(items)
    assert len(given) == 1
    assert given[0].dtype == np.float32
    np.testing.assert_array_equal(given[0], np.stack(items))


@pytest.mark.requirement("P3")
def test_other_items_reach_the_callable_as_a_list() -> None:
    """Any object, as it is."""
    items = ["a", {"b": 1}, None, [1, 2], np.ma.masked_array([1, 2], [True, False])]
    given, results = gathered(items)
    assert given[0] == items
    assert all(result is item for result, item in zip(results, items, strict=True))


@pytest.mark.requirement("P3")
def test_how_an_item_is_handed_over_does_not_depend_on_its_company() -> None:
    """Two shapes, two types and an object in one batch: a call for each kind, and each its own result."""
    items = [np.zeros(3), np.ones(4), np.ones(3, np.int8), "text", np.full(3, 2.0), np.float64(7)]
    given, results = gathered(items)
    kinds = [(type(g), getattr(g, "shape", len(g)), getattr(g, "dtype", None)) for g in given]
    assert kinds == [
        (np.ndarray, (2, 3), np.float64),
        (np.ndarray, (1, 4), np.float64),
        (np.ndarray, (1, 3), np.int8),
        (list, 1, None),
        (np.ndarray, (1,), np.float64),
    ]
    for item, result in zip(items, results, strict=True):
        np.testing.assert_array_equal(np.asarray(result), np.asarray(item))


@pytest.mark.requirement("P3")
def test_results_that_are_views_of_the_batch_are_never_overwritten() -> None:
    """The callable gives its own argument back, batch after batch; every result stays what it was."""
    with BatchProcessor(BatchProcessorConfig(max_batch_size=4)).start(lambda batch: batch) as processor:
        futures = [processor.enqueue_predict(np.full(8, i)) for i in range(100)]
        for i, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(5), np.full(8, i))


@pytest.mark.requirement("P3")
def test_a_buffer_is_used_again_once_nobody_holds_it() -> None:
    """The same memory for the next batch, other memory while a view of it lives."""
    buffers = Buffers(2)
    rows = buffers.stack([np.zeros(3), np.ones(3)])
    address = rows.ctypes.data
    buffers.give_back(rows)
    view = rows[1:]
    del rows
    other = buffers.stack([np.zeros(3)])
    assert other.ctypes.data != address
    del view
    again = buffers.stack([np.full(3, 5.0)])
    assert again.ctypes.data == address
    np.testing.assert_array_equal(again, [[5.0, 5.0, 5.0]])


@pytest.mark.requirement("P3")
def test_an_item_that_the_callable_cannot_take_fails_alone() -> None:
    """A row of another width makes the callable raise; its neighbours get their results."""
    weights = np.ones(3)
    items = [np.full(4 if i == 5 else 3, i, np.float64) for i in range(9)]
    with BatchProcessor().start(lambda batch: batch @ weights) as processor:
        processor.pause()
        futures = [processor.enqueue_predict(item) for item in items]
        processor.resume()
        with pytest.raises(ValueError, match="matmul"):
            futures[5].result(5)
        assert [f.result(5) for i, f in enumerate(futures) if i != 5] == [3.0 * i for i in range(9) if i != 5]


@pytest.mark.requirement("P3")
def test_plain_callables_run_in_as_many_threads_as_max_workers() -> None:
    """Three calls meet at a barrier, on threads of the processor; a fourth never is under way beside them."""
    meet = threading.Barrier(3, timeout=5)
    names: set[str] = set()

    def call(batch: list[int]) -> list[int]:
        names.add(threading.current_thread().name)
        meet.wait()
        return batch

    config = BatchProcessorConfig(max_workers=3, max_batch_size=1)
    with BatchProcessor(config).start(call) as processor:
        for future in [processor.enqueue_predict(i) for i in range(9)]:
            future.result(5)
    assert len(names) == 3
    assert all(name.startswith("batch-processor") for name in names)
