"""The transformer over a batch as one row of tokens, nothing padded, where a trial shows that it gives the same.

What it gives for each token is then laid out by text again for the modules behind it, such as pooling.
"""

import inspect
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import Transformer

from embedfleet_server.models import attention, layers, segments

_log = logging.getLogger(__name__)
_TRIAL = (5, 17, 3, 40, 17, 300, 33, 30)  # tokens: equal ones, not in order, one past the usual windows, unlike blocks
_LEAST, _LEAST_HALF = 0.99999, 0.99
"""The least cosine of a token's vector, packed, to the padded one: in float32, and in half precision, where both are
rounded and only what is wrong shows; how close to float32 the model's vectors are is for the self-test to say."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's batches are laid out, `packed` or `padded`, and why."""

    kind: Literal["packed", "padded"]
    reason: str


class Packed:
    """A transformer that takes its texts as one row of tokens."""

    def __init__(self, transformer: Transformer) -> None:
        self._transformer = transformer
        self._padding = _padding(transformer.model)
        taken = inspect.signature(transformer.model.forward).parameters
        self._more = {"use_cache": False} if "use_cache" in taken else {}  # nothing is generated

    def __call__(self, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Vectors of each text's tokens, shape (its tokens, width); views of the row, in which a text stands whole."""
        lengths = [len(text) for text in texts]
        ids = np.concatenate([np.asarray(text, np.int64) for text in texts])
        row = segments.row(lengths)
        features: dict[str, Any] = {
            "input_ids": _placed(ids, row),
            "position_ids": _placed(segments.positions(ids, lengths, self._padding), row),
            "segments": row,
            **self._more,
        }
        made: torch.Tensor = self._transformer(features)["token_embeddings"]
        return [made[0, start : start + length] for start, length in zip(row.first.tolist(), lengths, strict=True)]


def _placed(values: segments.Places, row: segments.Row) -> torch.Tensor:
    """Values of the texts' tokens where these stand in the row, shape (1, tokens); 0 in its filling."""
    made = np.zeros((1, len(row.owners)), np.int64)
    made[0, row.places] = values
    return torch.from_numpy(made)


def spread(texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Vectors (tokens, width) of each text as (texts, longest, width), with zeros for padding."""
    return torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)


@torch.inference_mode()
def packed(transformer: torch.nn.Module, *, vocabulary: int, most: int) -> tuple[Packed | None, Layout]:
    """The transformer packed, where it can be; `most` is its longest text in tokens. Says which, and why.

    The trial compares each token's vector with the padded one's; a model that cannot be packed is left as it was.
    """
    if not isinstance(transformer, Transformer):
        return None, Layout("padded", f"its first module is a {type(transformer).__name__}")
    model: Any = transformer.model
    if not model._can_set_attn_implementation():
        return None, Layout(
            "padded", f"{type(model).__name__} does not take its attention from transformers' interface"
        )
    before = model.config._attn_implementation
    texts = _texts(vocabulary, most)
    try:
        expected = _padded(transformer, texts)
        model.set_attn_implementation(attention.NAME)
        found = Packed(transformer)
        why = _tried(found, model, texts, expected)
    except Exception as error:  # noqa: BLE001  # whatever a model's code raises, its padded form serves
        why = _said(error)
    if why is None:
        return found, Layout("packed", "next to no padding is computed")
    with suppress(Exception):
        model.set_attn_implementation(before)
    return None, Layout("padded", f"{type(model).__name__} cannot be packed: {why}")


def _tried(found: Packed, model: Any, texts: Sequence[Sequence[int]], expected: torch.Tensor) -> str | None:
    """Why the packed form is not what it should be; with layers of ours where those do, else with the model's own."""
    if _is_fused(found, model, texts, expected):
        return None
    return _apart(torch.cat(found(texts)), expected)


def _is_fused(found: Packed, model: Any, texts: Sequence[Sequence[int]], expected: torch.Tensor) -> bool:
    """Whether the model's layers were replaced by ours, and give the same; if not it has its own."""
    replaced = layers.fuse(model)
    if replaced is None:
        return False
    try:
        why = _apart(torch.cat(found(texts)), expected)
    except Exception as error:  # noqa: BLE001  # whatever it is, the model's own layers are still to be tried
        why = _said(error)
    if why is not None:
        _log.warning("the layers of %s are its own: fused ones give %s", type(model).__name__, why)
        replaced.undo()
    return why is None


def _said(error: Exception) -> str:
    _log.debug("the model is not packed", exc_info=error)
    return str(error) if isinstance(error, attention.CannotPack) else f"{type(error).__name__}: {error}"


def _texts(vocabulary: int, most: int) -> list[list[int]]:
    """Token ids of the trial, seeded; among the first of a vocabulary are special ones, such as padding."""
    random = np.random.default_rng(0)
    least = min(vocabulary // 4, 110)
    return [random.integers(least, vocabulary, min(length, most)).tolist() for length in _TRIAL]


def _padded(transformer: Transformer, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Vectors of the texts' tokens, each text computed alone, so that nothing is padded in it."""
    made = []
    for text in texts:
        ids = torch.tensor([text])
        made.append(transformer({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["token_embeddings"][0])
    return torch.cat(made)


def _apart(made: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Why what was made is not what was expected; None where it is."""
    if made.shape != expected.shape:
        return f"it gives an array of {tuple(made.shape)} for {tuple(expected.shape)}"
    cosine = float(torch.nn.functional.cosine_similarity(made.double(), expected.double(), dim=1).min())
    least = _LEAST if made.dtype == torch.float32 else _LEAST_HALF
    return None if cosine >= least else f"a cosine of {cosine:.6f} to its padded form in the trial"


def _padding(model: torch.nn.Module) -> int | None:
    """The id behind which positions are counted; None where they count from 0."""
    for module in model.modules():
        table, padding = getattr(module, "position_embeddings", None), getattr(module, "padding_idx", None)
        if isinstance(table, torch.nn.Embedding):
            return padding if isinstance(padding, int) else None
    return None
