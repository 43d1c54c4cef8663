"""A reranker's transformer as two: the base, which can be packed, and the head, which scores texts by their tokens."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Transformer
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

Features = dict[str, Any]
_APART, _APART_HALF = 1e-3, 0.2
"""The most that scores may differ from the padded form's, of the largest score: in float32, and in half precision,
where both are rounded and only what is wrong shows."""


class Base(nn.Module):
    """The model below the head, called as sentence-transformers calls a transformer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Features) -> Features:
        """The vectors of tokens as `token_embeddings`."""
        return {"token_embeddings": self.model(**features, return_dict=True).last_hidden_state}


class Head(nn.Module):
    """What a transformer computes above its base, by its own code: the model with its base left out.

    A copy of the model has in its base's place what hands on the vectors that it is given. The model stays as it was.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.base = Base(model.base_model)
        above = copy.copy(model)
        above.__dict__["_modules"] = {**model._modules, model.base_model_prefix: _Given(model.base_model)}
        self._above = above

    def forward(self, features: Features) -> Features:
        """`token_embeddings` (n, longest, width), with their ids and mask, to `scores` (n, labels)."""
        made = self._above(
            input_ids=features["input_ids"],
            attention_mask=features["attention_mask"],
            inputs_embeds=features["token_embeddings"],
            return_dict=True,
        )
        return {**features, "scores": made.logits}


class _Given(nn.Module):
    """In a base's place: gives the vectors that it is given, and pools them as the base would."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.pooler = getattr(base, "pooler", None)

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)


def head(transformer: object) -> Head | None:
    """The head of a transformer that scores its texts itself; None where it has none above a base of its own."""
    if not isinstance(transformer, Transformer) or transformer.module_output_name != "scores":
        return None
    model: Any = transformer.model
    return None if model.base_model is model else Head(model)


def apart(made: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Why scores are not what was expected; None where they are."""
    if made.shape != expected.shape:
        return f"its scores are an array of {tuple(made.shape)} for {tuple(expected.shape)}"
    most = float((made - expected).double().abs().max() / expected.double().abs().max())
    bound = _APART if made.dtype == torch.float32 else _APART_HALF
    return None if most <= bound else f"its scores are up to {most:.6f} of the largest apart from its padded form's"


def batch(texts: Sequence[Sequence[int]], pad: int) -> Features:
    """Ids and mask of texts, padded on the right, for a head."""
    rows = [torch.tensor(text) for text in texts]
    pads = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pads(rows, batch_first=True, padding_value=pad),
        "attention_mask": pads([torch.ones_like(row) for row in rows], batch_first=True),
    }
