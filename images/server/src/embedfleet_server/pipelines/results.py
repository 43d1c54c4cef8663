"""What one input of a pipeline comes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from embedfleet_server.pipelines.values import Value


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an input has no outputs: the step, and the engine's error or `errors.StepFailed`."""

    step: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Result:
    """The values of the outputs by name, or a failure; `index` is the input's place in the request."""

    index: int
    values: Mapping[str, Value] = field(default_factory=dict)
    failure: Failure | None = None


class InputFailed(Exception):
    """Ends the way of one input."""

    def __init__(self, step: str, error: Exception) -> None:
        super().__init__(f"step {step!r}: {error}")
        self.failure = Failure(step, error)
