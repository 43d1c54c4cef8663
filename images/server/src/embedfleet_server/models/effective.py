"""What holds for a model: its own files' values with the manifest's put over them, each checked against the model."""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.base.model import BaseModel
from sentence_transformers.sentence_transformer.modules import Normalize, Transformer

from embedfleet.api.models import ModelSpec
from embedfleet_server.models.dense import normalizes
from embedfleet_server.models.files import read_json
from embedfleet_server.models.multi_vector import Expansion
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.store import Weights

_NO_LIMIT = 10**6  # tokenizers without a limit say 10**30; no model reads a million tokens


def modules(own: list[torch.nn.Module], normalize: bool | None) -> list[torch.nn.Module]:
    """The model's modules; `normalize` adds a Normalize at their end, or takes it away."""
    if normalize is True and not normalizes(own):
        return [*own, Normalize()]
    if normalize is False and normalizes(own):
        return own[:-1]
    return own


def prompts(sentence: BaseModel, spec: ModelSpec) -> dict[str, str]:
    """Prompts by name."""
    named = spec.prompts.model_dump(exclude_none=True) if spec.prompts is not None else {}
    return {**{name: text or "" for name, text in sentence.prompts.items()}, **named}


def max_tokens(transformer: Transformer, asked: int | None) -> int:
    """The longest input in tokens, special ones included."""
    own = min(transformer.max_seq_length or _NO_LIMIT, _positions(transformer.model.modules()))
    if asked is None and own >= _NO_LIMIT:
        raise ModelProblem("its files state no longest input; set maxTokens")
    if asked is not None and asked > own:
        raise ModelProblem(f"maxTokens is {asked} and the model's own limit is {own}; it can be lowered, not raised")
    return own if asked is None else asked


def matryoshka(weights: Weights, native: int) -> tuple[int, ...]:
    """Dimensions that the model's files say it was trained to be cut to, ascending; `()` when they say nothing."""
    stated: Any = None
    for name in ("config_sentence_transformers.json", "config.json"):
        stated = stated or read_json(weights.directory / name).get("matryoshka_dimensions")
    if not isinstance(stated, list):
        return ()
    return tuple(sorted({size for size in stated if isinstance(size, int) and 0 < size <= native}))


def dimensions(asked: int | None, own: int | None, native: int, trained: tuple[int, ...]) -> int:
    """Length of the vectors served: as `asked` by the manifest, else as the model's files cut them, else `native`."""
    size = asked or own or native
    if size > native:
        raise ModelProblem(f"dimensions is {size} and the model's vectors have {native}")
    if trained and size not in (*trained, native):
        raise ModelProblem(f"dimensions is {size}; the model can be cut to {', '.join(map(str, trained))}")
    return size


def expansion(transformer: Transformer, limit: int) -> Expansion | None:
    """How a multi-vector model fills up queries; `limit` is the longest input."""
    asked: Any = transformer.query_expansion
    if asked is None:
        return None
    if asked["length"] > limit:
        raise ModelProblem(f"its queries are filled up to {asked['length']} tokens, and its longest input has {limit}")
    tokenizer: Any = transformer.tokenizer
    if tokenizer.padding_side != "right":
        raise ModelProblem("its queries are filled up on the left, which is not served")
    own = (tokenizer.mask_token_id, tokenizer.eos_token_id)
    token = tokenizer.convert_tokens_to_ids(asked["token"]) if asked["token"] is not None else None
    known = next(one for one in (token, *own) if one is not None)
    return Expansion(asked["length"], int(known), asked["attend"], asked["strategy"] == "fixed")


def late_lengths(limit: int, query: int | None, document: int | None, expanded: Expansion | None) -> tuple[int, int]:
    """The longest query and the longest document of a multi-vector model, in tokens.

    `query` and `document` are what its files say, None where nothing.
    """
    if expanded is not None:
        query = expanded.length if expanded.fixed else max(query or limit, expanded.length)
    return min(query or limit, limit), min(document or limit, limit)


def _positions(parts: Iterable[torch.nn.Module]) -> int:
    """Inputs the table of learned positions has room for: RoBERTa's kin start counting behind the padding's id.

    Their tokenizers may state the table's size, at which the forward would fail.
    """
    for module in parts:
        table, padding = getattr(module, "position_embeddings", None), getattr(module, "padding_idx", None)
        if isinstance(table, torch.nn.Embedding):
            return table.num_embeddings - (padding + 1 if isinstance(padding, int) else 0)
    return _NO_LIMIT
