"""A transformer over its texts as one row of tokens: in blocks on a CPU, one behind the other on a GPU.

Whether a model can be computed so is tried at load (see `packing`).
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from embedfleet_server.models import attention, invariance, layout, segments, varlen
from embedfleet_server.models.transfers import Transfers, transfers

Texts = Sequence[Sequence[int]]


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

    def __init__(self, compute: torch.nn.Module, model: Any) -> None:
        """`compute` makes `token_embeddings` of rows for `model`, and may be the transformer itself."""
        self._compute = compute
        self.transfers: Transfers = transfers(device_of(model))
        self._padding = _padding(model)
        taken = inspect.signature(model.forward).parameters
        self._more = {"use_cache": False} if "use_cache" in taken else {}  # nothing is generated
        self.known: invariance.Form | None = None
        """What `form` gives, once it was asked."""

    def form(self) -> invariance.Form:
        """How texts that share a row have the same bits in any company; found out when it is first asked."""
        if self.known is None:
            self.known = invariance.form_of(self._compute)
        return self.known

    def __call__(
        self,
        texts: Texts,
        types: Texts | None = None,
        seen: Sequence[int] | None = None,
        form: invariance.Form | None = None,
    ) -> Tokens:
        """Vectors of each text's tokens; a text stands whole in the row.

        `types` are those of all tokens, where the model tells the texts of a pair apart by them; `seen` is how many of
        a text's tokens are seen by the others, the first ones, where not all are. With a `form` they have the same bits
        in any company.
        """
        lengths = [len(text) for text in texts]
        ids = _joined(texts)
        values = {"input_ids": ids, "position_ids": segments.positions(ids, lengths, self._padding)}
        if types is not None:
            values["token_type_ids"] = _joined(types)
        features, first = self._laid_out(values, lengths, seen, form)
        made: torch.Tensor = self._compute({**features, **self._more})["token_embeddings"]
        return Tokens(made[0], first.tolist(), lengths)

    def _laid_out(
        self,
        values: dict[str, segments.Places],
        lengths: Sequence[int],
        seen: Sequence[int] | None,
        form: invariance.Form | None,
    ) -> tuple[dict[str, Any], segments.Places]:
        """What the transformer takes, and where each text begins in its row; `values` are by token, in their order."""
        row = segments.row(lengths) if form is None else segments.apart(lengths, form.rounded(sum(lengths)))
        if seen is not None:
            row = segments.hiding(row, lengths, seen)
        return {**{name: _placed(each, row) for name, each in values.items()}, "segments": row}, row.first

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

    def __init__(self, compute: torch.nn.Module, model: Any, layers: varlen.Layers) -> None:
        super().__init__(compute, model)
        self.layers = layers
        self._device = device_of(model)

    def __call__(
        self,
        texts: Texts,
        types: Texts | None = None,
        seen: Sequence[int] | None = None,
        form: invariance.Form | None = None,
    ) -> Tokens:
        """The same; `CannotPack` where not all tokens are seen, which the kernel does not know."""
        if seen is not None:
            raise attention.CannotPack("its texts may end with tokens that the others do not see")
        with varlen.only_flash(self._device):
            return super().__call__(texts, types, form=form)

    def _laid_out(
        self,
        values: dict[str, segments.Places],
        lengths: Sequence[int],
        _: Sequence[int] | None,
        __: invariance.Form | None,
    ) -> tuple[dict[str, Any], segments.Places]:
        first = segments.starts(lengths)
        whole = sum(lengths)
        *placed, bounds = self.transfers.put(*(each[None] for each in values.values()), np.append(first, whole))
        features = dict(zip(values, placed, strict=True))
        return {
            **features,
            # Without it decoders look for the texts' ends in the positions, and the thread waits for what they find.
            "attention_mask": torch.ones_like(features["input_ids"]),
            "segments": varlen.Texts(bounds.int(), max(lengths), whole, self.layers),
        }, first

    def spread(self, tokens: Tokens, texts: Sequence[int]) -> torch.Tensor:
        """In one step for all texts; padding are vectors of the row's first token."""
        lengths = np.array([[len(tokens[text])] for text in texts])
        counted = np.arange(lengths.max())
        places = np.where(counted < lengths, np.array([[tokens.first[text]] for text in texts]) + counted, 0)
        (there,) = self.transfers.put(places)
        return tokens.row.index_select(0, there.view(-1)).view(*places.shape, -1)


def device_of(model: torch.nn.Module) -> torch.device:
    """Of its weights."""
    return next(model.parameters()).device


def _joined(texts: Texts) -> segments.Places:
    return np.concatenate([np.asarray(text, np.int64) for text in texts])


def _placed(values: segments.Places, row: segments.Row) -> torch.Tensor:
    """Values of the texts' tokens where these stand in the row, shape (1, tokens); 0 in its filling."""
    made = np.zeros((1, len(row.owners)), np.int64)
    made[0, row.places] = values
    return torch.from_numpy(made)


def _padding(model: torch.nn.Module) -> int | None:
    """The id behind which positions are counted; None where they count from 0."""
    for module in model.modules():
        table, padding = getattr(module, "position_embeddings", None), getattr(module, "padding_idx", None)
        if isinstance(table, torch.nn.Embedding):
            return padding if isinstance(padding, int) else None
    return None
