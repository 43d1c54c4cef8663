"""Whether work may come in: all of it or nothing, within a bound in inputs and one in tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from embedfleet_server.batching.types import Bound, Refusal

_SHORTEST, _LONGEST, _UNKNOWN = 0.05, 60.0, 1.0  # seconds: told to refused callers; unknown before the first batch


@dataclass(slots=True)
class Load:
    """What waits now: reserved inputs are admitted but not yet tokenised."""

    inputs: int = 0
    tokens: int = 0
    reserved: int = 0


def too_large(bound: Bound, inputs: int, tokens: int) -> str | None:
    """Why work could never fit, if so."""
    if bound.inputs is not None and inputs > bound.inputs:
        return f"{inputs} inputs in one request; at most {bound.inputs} fit"
    if bound.tokens is not None and tokens > bound.tokens:
        return f"{tokens} tokens in one request; at most {bound.tokens} fit"
    return None


def is_full(bound: Bound, load: Load, inputs: int, tokens: int) -> bool:
    """Whether work does not fit beside what waits."""
    if inputs and bound.inputs is not None and load.inputs + load.reserved + inputs > bound.inputs:
        return True
    return bound.tokens is not None and load.tokens + tokens > bound.tokens


def admit(
    pairs: Sequence[tuple[Bound, Load]], inputs: int, tokens: int, backlog_seconds: float | None
) -> Refusal | None:
    """The refusal of work under several bounds at once (the service's, the model's), None when it fits."""
    for bound, load in pairs:
        if is_full(bound, load, inputs, tokens):  # so is what could never fit
            never = next((reason for of, _ in pairs if (reason := too_large(of, inputs, tokens)) is not None), None)
            return _full(bound, load, backlog_seconds) if never is None else Refusal(never, None)
    return None


def _full(bound: Bound, load: Load, backlog_seconds: float | None) -> Refusal:
    reason = f"the queue is full: {load.inputs + load.reserved} inputs wait already; the bound is {_words(bound)}"
    return Refusal(reason, delay(backlog_seconds))


def delay(backlog_seconds: float | None) -> float:
    """Seconds after which another try is worth it: when what waits now will have been computed."""
    return _UNKNOWN if backlog_seconds is None else min(_LONGEST, max(_SHORTEST, backlog_seconds))


def _words(bound: Bound) -> str:
    words = [f"{bound.inputs} inputs"] if bound.inputs is not None else []
    return " and ".join(words + ([f"{bound.tokens} tokens"] if bound.tokens is not None else []))
