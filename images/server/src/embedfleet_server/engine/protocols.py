"""What the engine asks of a model: the one seam between batching and torch.

A model is synchronous and may block. The engine calls `encode` from a tokenizer thread and `forward` from the
thread of the model's device, never both from the event loop, and never two forwards of one device at once. A model on
several devices is a copy for each, which are models of their own (`copies`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from embedfleet.api.models import Task
from embedfleet_server.engine.rows import AnyRows, Rows

__all__ = ["Encoded", "Item", "Loader", "Model", "ModelInfo", "Pair", "Rows", "Side", "Token"]

Side = Literal["left", "right"]
"""The end of a text at which it is cut when it is too long."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a reranker scores: how well `text` answers `query`. Its length is that of both, in characters."""

    query: str
    text: str

    def __len__(self) -> int:
        return len(self.query) + len(self.text)


Item = str | Sequence[int] | Pair
"""One input: a text, or token ids that the client made itself (taken as they are); of a Rerank model a `Pair`."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One input as the model computes it; `len(token_ids)` (special tokens included) is its cost."""

    token_ids: Sequence[int]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is shown; `start` and `stop` are places in the text's UTF-8, None of special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model is: shown in `/v1/models`, in status and in the headers of every answer.

    `native_dimensions` is the length of its rows: of a Sparse model the vocabulary's, of a Rerank model the number of
    labels. `activation` turns a Rerank model's logits into scores (see `scoring`).
    """

    name: str
    task: Task
    dimensions: int
    native_dimensions: int
    max_tokens: int
    vocabulary: int
    fingerprint: str
    precision: str
    device: str
    revision: str | None = None
    matryoshka: tuple[int, ...] = ()
    padded: bool = True
    normalized: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    activation: str = "Identity"
    precision_reason: str = ""
    """Why it is this precision, in words."""
    layout: Literal["packed", "padded"] = "padded"
    """Whether a batch is computed as one row of tokens, or as rows that are padded to the longest."""
    layout_reason: str = ""
    """Why it is this layout, in words."""
    compiled: Mapping[str, str] = field(default_factory=dict)
    """Shapes of small batches, as texts x tokens, that are computed by forms made for them, with what made each."""
    compiled_reason: str = ""
    """Why no other shape is, in words; empty where all that were to be are."""
    by_clock: tuple[str, ...] = ()
    """What a measurement chose at this load, and may choose otherwise at the next."""
    other_devices: tuple[str, ...] = ()
    """Beside `device`: where further copies of it stand (see `copies`)."""

    @property
    def devices(self) -> tuple[str, ...]:
        """All that it stands on."""
        return (self.device, *self.other_devices)


class Model(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """What this model is; does not change after load."""

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """Token ids of every item, in order, `prompt` put before each text; raises `BadItems` naming each bad index.

        `input_type` ("query", "document") matters to models that compute one otherwise than the other. `side` is the
        end that what is too long loses; None is the model's own.
        """

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of every text, none cut off, with the special ones where `special`; raises `BadItems`."""

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """The text of every list of token ids, special ones shown where `special`."""

    def forward(self, batch: Sequence[Encoded]) -> AnyRows:
        """Rows of the batch as its task has them (see `rows`), in the batch's order; arrays are C-contiguous."""

    def peak_mib(self) -> float | None:
        """MiB that the last forward took at its peak beyond the model's own; None where that is not known."""

    def close(self) -> None:
        """Give back what the model holds."""


Loader = Callable[[], Model]
"""Makes the model; blocks; raises `ModelLoadFailed` with the cause."""
