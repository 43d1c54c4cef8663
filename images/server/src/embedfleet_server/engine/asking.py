"""One request on its way through the engine: what it asks, the room it holds, what keeps it out."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Refusal
from embedfleet_server.engine.errors import BadItems, EngineError, ItemError, ModelFailing, QueueFull, TooLarge
from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Side
from embedfleet_server.engine.slots import Slot

_T = TypeVar("_T")
Check = Callable[[ModelInfo], None]
"""Raises what keeps a loaded model from being asked."""
TRUNCATED = "too_long"
"""Code of an input that is longer than the model takes, where nothing may be cut."""


def anything(_: ModelInfo) -> None:
    """Any model may be asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as far as scheduling it goes; `limit` in seconds from its arrival."""

    items: Sequence[Item]
    input_type: str | None
    priority: int
    tenant: str
    limit: float
    is_stated: bool
    """Whether the limit is the caller's own."""
    side: Side | None = None
    truncate: bool = True
    check: Check = anything
    is_accepted: bool = False
    """Whether it belongs to an errand, which was let in when it came."""


class Reservation:
    """Room held between arrival and admission."""

    __slots__ = ("_core", "_inputs", "_model", "_tenant")

    def __init__(self, core: BatchingCore, model: str, inputs: int, tenant: str) -> None:
        self._core, self._model, self._inputs, self._tenant = core, model, inputs, tenant

    def taken_up(self, inputs: int) -> None:
        """So many places are being taken up by inputs that are submitted; those that joined others keep theirs."""
        self._inputs -= inputs

    def give_back(self, inputs: int) -> None:
        """Give back so many, or as many as are left."""
        if few := min(inputs, self._inputs):
            self._core.release(self._model, few, tenant=self._tenant)
            self._inputs -= few

    def release(self) -> None:
        """Give back what is left."""
        self.give_back(self._inputs)


Steps = Callable[[Slot, float, Reservation], Awaitable[_T]]
"""What is done of a request with a model, until when (on the loop's clock), and with what room."""


def refuse_truncated(encoded: Sequence[Encoded], info: ModelInfo) -> None:
    """`BadItems` naming each input that was cut to the model's length."""
    why = f"is longer than the model's {info.max_tokens} tokens, and truncate is false"
    if errors := [ItemError(index, TRUNCATED, why) for index, one in enumerate(encoded) if one.truncated]:
        raise BadItems(errors)


def prompt_of(info: ModelInfo, input_type: str | None) -> str:
    """The text put before each input: by `input_type`, else the model's own default; "" when there is none."""
    name = input_type or info.default_prompt
    return info.prompts.get(name, "") if name else ""


def raise_refused(model: str, refusal: Refusal | None) -> None:
    """Raises what tells of a refusal, where there is one."""
    if refusal is not None:
        raise refused(model, refusal)


def refused(model: str, refusal: Refusal) -> EngineError:
    """The error that tells of a refusal."""
    if refusal.retry_after is None:
        return TooLarge(refusal.reason)
    if refusal.failing:
        return ModelFailing(model, refusal.reason, refusal.retry_after)
    return QueueFull(refusal.reason, refusal.retry_after)
