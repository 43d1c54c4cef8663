"""Batch calls of any function: many callers with one item each, few calls with many items.

python examples/batch_any_function.py
"""

import asyncio
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embedfleet_server import BatchProcessor, BatchProcessorConfig

CALLERS = 200
WEIGHTS = np.linspace(-1, 1, 64 * 8).reshape(64, 8)


def project(batch: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stands for a model: rows (n, 64) in, rows (n, 8) out. A call with many costs hardly more than with one."""
    if not np.isfinite(batch).all():
        raise ValueError("a row is not finite")
    return batch @ WEIGHTS


def rows() -> Iterator[NDArray[np.float64]]:
    """One row for each caller."""
    return (np.full(64, caller / CALLERS) for caller in range(CALLERS))


async def from_coroutines(processor: BatchProcessor) -> int:
    """On any event loop: `await submit`."""
    return len(await asyncio.gather(*(processor.submit(row) for row in rows())))


def from_threads(processor: BatchProcessor) -> int:
    """From any thread: a Future for each item."""
    return len([future.result() for future in [processor.enqueue_predict(row) for row in rows()]])


def one_bad_item(processor: BatchProcessor) -> str:
    """Its own caller gets the function's own exception; its neighbours in the batch get their results."""
    good, bad = processor.enqueue_predict(np.ones(64)), processor.enqueue_predict(np.full(64, np.nan))
    good.result()
    return repr(bad.exception())


def main() -> None:
    """All three, then what it took."""
    config = BatchProcessorConfig(max_batch_size=64, max_wait_milliseconds=5)
    with BatchProcessor(config).start(project) as processor:
        print(f"{from_threads(processor)} results through Futures")
        print(f"{asyncio.run(from_coroutines(processor))} results through await")
        print(f"the bad item alone failed: {one_bad_item(processor)}")
        stats = processor.get_stats()
    print(f"{stats['avg_batch_size']:.0f} items a call on average, {stats['error_rate']:.1%} failed")


if __name__ == "__main__":
    main()
