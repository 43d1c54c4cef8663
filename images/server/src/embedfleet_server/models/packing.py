"""The transformer over a batch as one row of tokens, nothing padded, where a trial shows that it gives the same.

What it gives for each token is then laid out by text again for the modules behind it, such as pooling. On a CPU texts
stand in blocks (see `segments`, `attention`), on a GPU one behind the other (see `varlen`).
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

from embedfleet_server.models import attention, layers, layout, segments, varlen
from embedfleet_server.models.transfers import Copies, copies

_log = logging.getLogger(__name__)
_TRIAL = (5, 17, 3, 40, 17, 300, 33, 30)  # tokens: equal ones, not in order, one past the usual windows, unlike blocks
_BEYOND, _FARTHEST = 45, 8192
"""How far a text of the trial goes beyond the widest window, and the widest window that one is made for, in tokens."""
_LEAST, _LEAST_HALF = 0.99999, 0.99
"""The least cosine of a token's vector, packed, to the padded one: in float32, and in half precision, where both are
rounded and only what is wrong shows; how close to float32 the model's vectors are is for the self-test to say."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's batches are laid out, `packed` or `padded`, and why."""

    kind: Literal["packed", "padded"]
    reason: str


class Tokens(list[torch.Tensor]):
    """Vectors of each text's tokens, shape (its tokens, width): views of `row`, where text i begins at `first[i]`."""

    def __init__(self, row: torch.Tensor, first: Sequence[int], lengths: Sequence[int]) -> None:
        """`row` is (the row's tokens, width)."""
        super().__init__(row[start : start + length] for start, length in zip(first, lengths, strict=True))
        self.row, self.first = row, first


class Packed:
    """A transformer that takes its texts as one row of tokens: in blocks, as a CPU likes them."""

    attention = attention.NAME
    most_tokens: int | None = layout.PACKED
    """Tokens that a row of several texts should have at most; None where the more the better."""
    spread_limits = layout.SPREAD

    def __init__(self, transformer: Transformer) -> None:
        self._transformer = transformer
        self.copies: Copies = copies(_device(transformer.model))
        self._padding = _padding(transformer.model)
        taken = inspect.signature(transformer.model.forward).parameters
        self._more = {"use_cache": False} if "use_cache" in taken else {}  # nothing is generated

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tokens:
        """Vectors of each text's tokens; a text stands whole in the row."""
        lengths = [len(text) for text in texts]
        ids = np.concatenate([np.asarray(text, np.int64) for text in texts])
        features, first = self._laid_out(ids, segments.positions(ids, lengths, self._padding), lengths)
        made: torch.Tensor = self._transformer({**features, **self._more})["token_embeddings"]
        return Tokens(made[0], first.tolist(), lengths)

    def _laid_out(
        self, ids: segments.Places, positions: segments.Places, lengths: Sequence[int]
    ) -> tuple[dict[str, Any], segments.Places]:
        """What the transformer takes, and where each text begins in its row."""
        row = segments.row(lengths)
        features = {"input_ids": _placed(ids, row), "position_ids": _placed(positions, row), "segments": row}
        return features, row.first

    def spread(self, tokens: Tokens, texts: Sequence[int]) -> torch.Tensor:
        """Vectors of some of the texts, (texts, longest, width); what is padding, the modules' mask covers."""
        return torch.nn.utils.rnn.pad_sequence([tokens[text] for text in texts], batch_first=True)


class PackedVarlen(Packed):
    """The same as a GPU likes it: texts one behind the other, without filling, as many as there are.

    Its products take any number of rows, so that none is rounded; what would have it so is the place to do it.
    """

    attention = varlen.NAME
    most_tokens = None
    spread_limits = layout.SPREAD_GPU

    def __init__(self, transformer: Transformer, seen: varlen.Layers) -> None:
        super().__init__(transformer)
        self.seen = seen
        self._device = _device(transformer.model)

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tokens:
        """Vectors of each text's tokens; a text stands whole in the row."""
        with varlen.only_flash(self._device):
            return super().__call__(texts)

    def _laid_out(
        self, ids: segments.Places, positions: segments.Places, lengths: Sequence[int]
    ) -> tuple[dict[str, Any], segments.Places]:
        first = segments.starts(lengths)
        row_ids, row_positions, bounds = self.copies.put(ids[None], positions[None], np.append(first, len(ids)))
        features = {
            "input_ids": row_ids,
            "position_ids": row_positions,
            # Without it decoders look for the texts' ends in the positions, and the thread waits for what they find.
            "attention_mask": torch.ones_like(row_ids),
            "segments": varlen.Texts(bounds.int(), max(lengths), len(ids), self.seen),
        }
        return features, first

    def spread(self, tokens: Tokens, texts: Sequence[int]) -> torch.Tensor:
        """In one step for all texts; padding are vectors of the row's first token."""
        lengths = np.array([[len(tokens[text])] for text in texts])
        counted = np.arange(lengths.max())
        places = np.where(counted < lengths, np.array([[tokens.first[text]] for text in texts]) + counted, 0)
        (there,) = self.copies.put(places)
        return tokens.row.index_select(0, there.view(-1)).view(*places.shape, -1)


def _placed(values: segments.Places, row: segments.Row) -> torch.Tensor:
    """Values of the texts' tokens where these stand in the row, shape (1, tokens); 0 in its filling."""
    made = np.zeros((1, len(row.owners)), np.int64)
    made[0, row.places] = values
    return torch.from_numpy(made)


@torch.inference_mode()
def packed(
    transformer: torch.nn.Module, *, vocabulary: int, most: int, kernel: varlen.Kernel | None = None
) -> tuple[Packed | None, Layout]:
    """The transformer packed, where it can be; `most` is its longest text in tokens. Says which, and why.

    In blocks, or for `kernel` where that is given, as on a GPU. The trial compares each token's vector with the padded
    one's; a model that cannot be packed is left as it was.
    """
    if not isinstance(transformer, Transformer):
        return None, Layout("padded", f"its first module is a {type(transformer).__name__}")
    model: Any = transformer.model
    if not model._can_set_attn_implementation():
        return None, Layout(
            "padded", f"{type(model).__name__} does not take its attention from transformers' interface"
        )
    before = model.config._attn_implementation
    found = Packed(transformer) if kernel is None else PackedVarlen(transformer, varlen.Layers(kernel, most))
    try:
        why = _found_out(found, transformer, before, _texts(vocabulary, most))
        if why is None and (far := _beyond(found, most)):
            why = _found_out(found, transformer, before, _texts(vocabulary, most, far))
    except Exception as error:  # noqa: BLE001  # whatever a model's code raises, its padded form serves
        why = _said(error)
    if why is None:
        return found, Layout("packed", "next to no padding is computed")
    with suppress(Exception):
        model.set_attn_implementation(before)
    return None, Layout("padded", f"{type(model).__name__} cannot be packed: {why}")


def _found_out(found: Packed, transformer: Transformer, before: str, texts: Sequence[Sequence[int]]) -> str | None:
    """Why the packed form is not what the padded one is with the attention of `before`; the former's is set then."""
    model: Any = transformer.model
    if model.config._attn_implementation != before:
        model.set_attn_implementation(before)
    expected = _padded(transformer, texts)
    model.set_attn_implementation(found.attention)
    return _tried(found, model, texts, expected)


def _beyond(found: Packed, most: int) -> tuple[int, ...]:
    """Lengths of a second trial where a layer's window is wider than the first one's texts; only a GPU's is known."""
    widest = found.seen.widest if isinstance(found, PackedVarlen) else 0
    return (_TRIAL[0], min(most, widest + _BEYOND)) if max(_TRIAL) <= widest < min(most, _FARTHEST) else ()


def _tried(found: Packed, model: Any, texts: Sequence[Sequence[int]], expected: torch.Tensor) -> str | None:
    """Why the packed form is not what it should be; with layers of ours where those do, else with the model's own."""
    if not isinstance(found, PackedVarlen) and _is_fused(found, model, texts, expected):
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


def _texts(vocabulary: int, most: int, lengths: Sequence[int] = _TRIAL) -> list[list[int]]:
    """Token ids of the trial, seeded; among the first of a vocabulary are special ones, such as padding."""
    random = np.random.default_rng(0)
    least = min(vocabulary // 4, 110)
    return [random.integers(least, vocabulary, min(length, most)).tolist() for length in lengths]


def _padded(transformer: Transformer, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Vectors of the texts' tokens, each text computed alone, so that nothing is padded in it."""
    made = []
    for text in texts:
        ids = torch.tensor([text], device=_device(transformer.model))
        made.append(transformer({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["token_embeddings"][0])
    return torch.cat(made)


def _apart(made: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Why what was made is not what was expected; None where it is."""
    if made.shape != expected.shape:
        return f"it gives an array of {tuple(made.shape)} for {tuple(expected.shape)}"
    cosine = float(torch.nn.functional.cosine_similarity(made.double(), expected.double(), dim=1).min())
    least = _LEAST if made.dtype == torch.float32 else _LEAST_HALF
    return None if cosine >= least else f"a cosine of {cosine:.6f} to its padded form in the trial"


def _device(model: torch.nn.Module) -> torch.device:
    """Of its weights."""
    return next(model.parameters()).device


def _padding(model: torch.nn.Module) -> int | None:
    """The id behind which positions are counted; None where they count from 0."""
    for module in model.modules():
        table, padding = getattr(module, "position_embeddings", None), getattr(module, "padding_idx", None)
        if isinstance(table, torch.nn.Embedding):
            return padding if isinstance(padding, int) else None
    return None
