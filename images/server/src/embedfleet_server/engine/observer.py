"""What the engine tells of itself as it happens: to metrics, to traces, to the garbage collector's keeper."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from embedfleet_server.batching.types import Entry

ORIGIN: ContextVar[object | None] = ContextVar("origin", default=None)
"""Who asks, as the caller of the engine knows it; the engine looks not into it and hands it back in `Share`."""


@dataclass(slots=True)
class Share:
    """What one request has in a batch; `arrived` is when it began to wait, on the loop's clock."""

    origin: object | None
    arrived: float
    inputs: int = 0
    tokens: int = 0


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
    began: float = 0.0
    """When its forward began, on the loop's clock."""
    ended: float = 0.0
    attempt: int = 0
    """How often these inputs were tried before."""
    entries: Sequence[Entry] = ()
    device: str = ""
    """Where it was computed."""

    @property
    def busy_seconds(self) -> float:
        """For how long it held its device, be it in vain."""
        return self.ended - self.began if self.compute_seconds is None else self.compute_seconds

    def shares(self) -> list[Share]:
        """What each request has in it; worked out when asked for, since few ask."""
        found: dict[int, Share] = {}
        for number, tokens, work, _ in self.entries:
            share = found.get(number)
            if share is None:
                share = found[number] = Share(getattr(work.handle, "origin", None), work.arrived)
            share.inputs += 1
            share.tokens += tokens
        return list(found.values())


class Observer:
    """Hears all and does nothing; those who care override what they care for. Called on the loop, so it is quick."""

    def loaded(self, model: str) -> None:
        """A model is ready."""

    def tokenized(self, model: str, seconds: float) -> None:
        """The inputs of a request were tokenised, waiting for a thread included; called in the request's context."""

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
