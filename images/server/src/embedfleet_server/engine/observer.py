"""What the engine tells of itself as it happens: to metrics, to the garbage collector's keeper, to a benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch that ended; `tokens` as computed (padding included), `own_tokens` those of the inputs themselves."""

    model: str
    size: int
    tokens: int
    own_tokens: int
    queue_seconds: float
    compute_seconds: float | None
    """None for a batch that failed."""
    failed: int


class Observer:
    """Hears all and does nothing; those who care override what they care for. Called on the loop, so it is quick."""

    def loaded(self, model: str) -> None:
        """A model is ready."""

    def tokenized(self, model: str, seconds: float) -> None:
        """The inputs of a request were tokenised, waiting for a thread included."""

    def batch(self, record: BatchRecord) -> None:
        """A batch ended."""

    def answered(self, model: str, seconds: float) -> None:
        """A request was answered with vectors, so long after it came."""


class Several(Observer):
    """Tells several."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def loaded(self, model: str) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.loaded(model)

    def tokenized(self, model: str, seconds: float) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.tokenized(model, seconds)

    def batch(self, record: BatchRecord) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.batch(record)

    def answered(self, model: str, seconds: float) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.answered(model, seconds)
