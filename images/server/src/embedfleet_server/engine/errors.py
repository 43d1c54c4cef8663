"""The engine's errors. The HTTP status of each stands in one table, `app/errors.py`.

EngineError
├── RequestError                the caller's fault; the same request will fail again
│   ├── InvalidRequest          the request as a whole is malformed
│   ├── BadItems                some of its inputs are; every bad index is listed
│   ├── ModelNotFound           no model of that name
│   ├── PipelineNotFound        no pipeline of that name
│   ├── TooLarge                could never fit
│   └── TooLate                 its deadline had passed before it came
├── Refused                     nobody's fault; nothing was accepted; try again after `retry_after` seconds
│   ├── QueueFull
│   ├── ShuttingDown
│   ├── ModelLoading
│   ├── ModelFailing            its batches fail; one is tried from time to time
│   └── ModelLoadFailed         the model's fault; its next attempt to load comes after a back-off
└── AcceptedError               accepted, then not answered with vectors
    ├── DeadlineExceeded
    ├── DeviceLost              the device failed for good; the process ends, and its successor is worth asking
    └── BatchFailed             the forward failed, or gave rows that cannot be served
        └── Stopped             the server's time to drain ran out first
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ItemError:
    """What is wrong with the input at `index` (counted within the request)."""

    index: int
    code: str
    message: str


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""


class RequestError(EngineError):
    """The caller's fault."""


class InvalidRequest(RequestError):
    """The request is malformed; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BadItems(RequestError):
    """Some inputs cannot be embedded; `errors` lists every one."""

    def __init__(self, errors: Sequence[ItemError]) -> None:
        super().__init__("; ".join(f"input[{e.index}]: {e.message}" for e in errors[:3]) + _more(len(errors) - 3))
        self.errors = tuple(errors)


class ModelNotFound(RequestError):
    """No model of that name; `available` lists those there are."""

    def __init__(self, name: str | None, available: Sequence[str]) -> None:
        asked = f"model {name!r} does not exist" if name is not None else "the request must name a model"
        super().__init__(f"{asked}; this service has: {', '.join(available)}")
        self.available = tuple(available)


class PipelineNotFound(RequestError):
    """No pipeline of that name; `available` lists those there are."""

    def __init__(self, name: str, available: Sequence[str]) -> None:
        known = f"this service has: {', '.join(available)}" if available else "this service has none"
        super().__init__(f"pipeline {name[:80]!r} does not exist; {known}")
        self.available = tuple(available)


class TooLarge(RequestError):
    """Larger than what the service could ever take."""


class TooLate(RequestError):
    """The request's deadline had passed before it came."""


class Refused(EngineError):
    """Nothing was accepted; worth another try after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Refused):
    """The bound of the queues is reached."""


class ShuttingDown(Refused):
    """The server drains."""


class ModelLoading(Refused):
    """The model was not loaded before the request's deadline."""


class ModelFailing(Refused):
    """The model's batches fail, so that it is not asked for now; `cause` is the last batch's."""

    def __init__(self, name: str, cause: str, retry_after: float = 1.0) -> None:
        super().__init__(f"model {name!r} is refused for the time being: {cause}", retry_after)
        self.name = name
        self.cause = cause


class ModelLoadFailed(Refused):
    """The model cannot load; its next attempt comes after a back-off."""

    def __init__(self, name: str, cause: str, retry_after: float = 1.0) -> None:
        super().__init__(f"model {name!r} could not be loaded: {cause}", retry_after)
        self.name = name
        self.cause = cause


class AcceptedError(EngineError):
    """The request was accepted, then not answered with vectors."""


class DeadlineExceeded(AcceptedError):
    """The request's time ran out."""


class DeviceLost(AcceptedError):
    """The device is lost to this process, and only a new one can use it again (a sticky CUDA error).

    Models raise it, from a load or a forward; whatever is in flight then ends with it.
    """

    retry_after = 5.0
    """Seconds: another replica answers at once, a restart takes longer."""


class BatchFailed(AcceptedError):
    """The forward failed or gave rows that cannot be served."""


class Stopped(BatchFailed):
    """The server's time to drain ran out before the answer."""


def _more(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""
