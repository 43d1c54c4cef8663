"""Whether a model's batches can be computed as one row of tokens: a trial at load shows that it gives the same.

What the row gives for each token is then laid out by text again for the modules behind it, such as pooling.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import Transformer

from embedfleet_server.models import attention, heads, layers, relative, varlen
from embedfleet_server.models.packed import Packed, PackedVarlen, Texts, device_of

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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be packed: `plain` computes tokens' vectors of the model, for which `own` may be a form for rows."""

    whole: Transformer
    plain: Any
    own: Any
    head: heads.Head | None
    has_types: bool
    hides: bool

    @property
    def model(self) -> Any:
        """Transformers' own, of which attention is chosen."""
        return self.plain.model


@torch.inference_mode()
def packed(
    transformer: torch.nn.Module,
    *,
    vocabulary: int,
    most: int,
    kernel: varlen.Kernel | None = None,
    head: heads.Head | None = None,
    has_types: bool = False,
    hides: bool = False,
) -> tuple[Packed | None, Layout]:
    """The transformer packed, where it can be; `most` is its longest text in tokens. Says which, and why.

    In blocks, or for `kernel` where that is given, as on a GPU. With a `head` it is the head's base that is packed, for
    pairs of texts; `has_types`: told apart by token types. `hides`: texts may end with tokens that the others do not
    see. The trial compares each token's vector with the padded one's, and the head's scores; a model that cannot be
    packed is left as it was.
    """
    if not isinstance(transformer, Transformer):
        return None, Layout("padded", f"its first module is a {type(transformer).__name__}")
    if head is None and (given := transformer.module_output_name) != "token_embeddings":
        return None, Layout("padded", f"its transformer gives {given}, and no vectors of tokens")
    plain: Any = transformer if head is None else head.base
    own = relative.rows(plain.model)
    asked = _Asked(transformer, plain, own, head, has_types, hides)
    if (why := _unfit(asked, kernel)) is not None:
        return None, Layout("padded", why)
    before = asked.model.config._attn_implementation
    found = _form(asked, kernel, most)
    try:
        why = _wrong(found, asked, before, vocabulary, most)
    except Exception as error:  # noqa: BLE001  # whatever a model's code raises, its padded form serves
        why = _said(error)
    if why is None:
        return found, Layout("packed", "next to no padding is computed")
    with suppress(Exception):
        asked.model.set_attn_implementation(before)
    return None, Layout("padded", f"{type(asked.model).__name__} cannot be packed: {why}")


def _unfit(asked: _Asked, kernel: varlen.Kernel | None) -> str | None:
    """What says without a trial that the model cannot be packed."""
    if asked.own is None and not asked.model._can_set_attn_implementation():
        return f"{type(asked.model).__name__} does not take its attention from transformers' interface"
    if asked.own is not None and kernel is not None:
        return f"a GPU's packed attention knows no biases for distances, which {type(asked.model).__name__} has"
    return None


def _form(asked: _Asked, kernel: varlen.Kernel | None, most: int) -> Packed:
    compute = asked.own or asked.plain
    if kernel is None:
        return Packed(compute, asked.model)
    return PackedVarlen(compute, asked.model, varlen.Layers(kernel, most))


def _wrong(found: Packed, asked: _Asked, before: str, vocabulary: int, most: int) -> str | None:
    """Why the packed form is not what it should be, from one trial or two; None where it is."""
    why = _found_out(found, asked, before, _texts(vocabulary, most))
    if why is None and (far := _beyond(found, most)):
        why = _found_out(found, asked, before, _texts(vocabulary, most, far))
    return why


def _found_out(found: Packed, asked: _Asked, before: str, texts: Texts) -> str | None:
    """Why the packed form is not what the padded one is with the attention of `before`; the former's is set then."""
    model = asked.model
    if model.config._attn_implementation != before:
        model.set_attn_implementation(before)
    trial = _Trial(asked, texts)
    if asked.own is None:
        model.set_attn_implementation(found.attention)
    fused = not isinstance(found, PackedVarlen) and _is_fused(found, asked.own or model, trial)
    return None if fused else trial.wrong(found)


def _beyond(found: Packed, most: int) -> tuple[int, ...]:
    """Lengths of a second trial where a layer's window is wider than the first one's texts; only a GPU's is known."""
    widest = found.layers.widest if isinstance(found, PackedVarlen) else 0
    return (_TRIAL[0], min(most, widest + _BEYOND)) if max(_TRIAL) <= widest < min(most, _FARTHEST) else ()


class _Trial:
    """Texts, what the padded form makes of them, and whether the packed one makes the same."""

    def __init__(self, asked: _Asked, texts: Texts) -> None:
        types = [_halves(text, _kinds(asked.model)) for text in texts] if asked.has_types else None
        seen = [len(text) - place % 2 * (len(text) // 3) for place, text in enumerate(texts)] if asked.hides else None
        device, whole = device_of(asked.model), asked.whole
        self._given = (texts, types, seen)
        self._head = asked.head
        made = _alone(asked.plain, device, *self._given)
        self._tokens = torch.cat([one["token_embeddings"][0] for one in made])
        if self._head is not None:
            batch = heads.batch(texts, getattr(whole.model.config, "pad_token_id", None) or 0)
            self._batch = {name: value.to(device) for name, value in batch.items()}
            self._scores = torch.cat([one["scores"] for one in _alone(whole, device, *self._given)])

    def wrong(self, found: Packed) -> str | None:
        """Why the packed form is not what it should be; None where it is."""
        made = found(*self._given)
        why = _apart(torch.cat(made), self._tokens)
        if why is not None or self._head is None:
            return why
        scores = self._head({**self._batch, "token_embeddings": found.spread(made, range(len(made)))})["scores"]
        return heads.apart(scores, self._scores)


def _is_fused(found: Packed, model: Any, trial: _Trial) -> bool:
    """Whether the model's layers were replaced by ours, and give the same; if not it has its own."""
    replaced = layers.fuse(model)
    if replaced is None:
        return False
    try:
        why = trial.wrong(found)
    except Exception as error:  # noqa: BLE001  # whatever it is, the model's own layers are still to be tried
        why = _said(error)
    if why is not None:
        _log.warning("the layers of %s are its own: fused ones give %s", type(model).__name__, why)
        replaced.undo()
        return False
    if replaced.quicken():
        _log.info("%s: rows of few tokens take packed products, others torch's own", type(model).__name__)
    return True


def _said(error: Exception) -> str:
    _log.debug("the model is not packed", exc_info=error)
    return str(error) if isinstance(error, attention.CannotPack) else f"{type(error).__name__}: {error}"


def _texts(vocabulary: int, most: int, lengths: Sequence[int] = _TRIAL) -> list[list[int]]:
    """Token ids of the trial, seeded; among the first of a vocabulary are special ones, such as padding."""
    random = np.random.default_rng(0)
    least = min(vocabulary // 4, 110)
    return [random.integers(least, vocabulary, min(length, most)).tolist() for length in lengths]


def _kinds(model: Any) -> int:
    """How many token types the model knows; some take no notice of them, and say nothing."""
    return int(getattr(model.config, "type_vocab_size", 0))


def _halves(text: Sequence[int], kinds: int) -> list[int]:
    """Token types of a pair whose query is the first third of the tokens."""
    first = len(text) // 3
    return [0] * first + [int(kinds > 1)] * (len(text) - first)


def _alone(
    compute: torch.nn.Module, device: torch.device, texts: Texts, types: Texts | None, seen: Sequence[int] | None
) -> Iterator[dict[str, Any]]:
    """What a form makes of each text alone, so that nothing is padded in it."""
    for place, text in enumerate(texts):
        ids = torch.tensor([text], device=device)
        mask = torch.ones_like(ids)
        if seen is not None:
            mask[:, seen[place] :] = 0
        more = {} if types is None else {"token_type_ids": torch.tensor([types[place]], device=device)}
        yield compute({"input_ids": ids, "attention_mask": mask, **more})


def _apart(made: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Why what was made is not what was expected; None where it is."""
    if made.shape != expected.shape:
        return f"it gives an array of {tuple(made.shape)} for {tuple(expected.shape)}"
    cosine = float(torch.nn.functional.cosine_similarity(made.double(), expected.double(), dim=1).min())
    least = _LEAST if made.dtype == torch.float32 else _LEAST_HALF
    return None if cosine >= least else f"a cosine of {cosine:.6f} to its padded form in the trial"
