"""The size of the next batch: as set, or learnt from the calls."""

from embedfleet_server.batching.sizing import AdaptiveSize
from embedfleet_server.processor.config import BatchProcessorConfig, size_problem

_USUAL = 32  # where learning starts when nothing is said, as in the manifest


class BatchSize:
    """Most items in the next batch."""

    def __init__(self, config: BatchProcessorConfig) -> None:
        self._config = config
        self._fixed = config.max_batch_size
        usual = min(max(_USUAL, config.min_batch_size), config.max_batch_size)
        self._adaptive = self._learner(config.initial_batch_size or usual) if config.adaptive else None

    @property
    def now(self) -> int:
        """The size, at this instant."""
        return self._fixed if self._adaptive is None else self._adaptive.size

    def set(self, size: int) -> None:
        """From now on `size`; learning starts anew there. `ValueError` when it is not within the bounds."""
        problem = self.problem(size)
        if problem is not None:
            raise ValueError(problem)
        self._fixed = size
        if self._adaptive is not None:
            self._adaptive = self._learner(size)

    def problem(self, size: object) -> str | None:
        """What is wrong with a size, if anything is."""
        problem = size_problem("batch size", size)
        low, high = self._config.min_batch_size, self._config.max_batch_size
        if problem is None and self._adaptive is not None and not low <= size <= high:  # type: ignore[operator]
            return f"batch size is {size}: with adaptive it must be from {low} to {high}"
        return problem

    def ran(self, items: int, seconds: float) -> None:
        """A batch ran well."""
        if self._adaptive is not None:
            self._adaptive.ran(items, items, seconds)

    def failed(self) -> None:
        """A batch failed in a way that smaller ones may not."""
        if self._adaptive is not None:
            self._adaptive.failed()

    def _learner(self, start: int) -> AdaptiveSize:
        target = self._config.target_batch_milliseconds
        config = self._config
        seconds = None if target is None else target / 1000
        return AdaptiveSize(config.min_batch_size, config.max_batch_size, start, seconds)
