"""What the tasks share: the modules on their device, batches cut into pieces, padded or packed."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.modules import Normalize

from embedfleet_server.engine.protocols import Encoded, ModelInfo
from embedfleet_server.models import lanes, layout
from embedfleet_server.models.compiled import Compiled
from embedfleet_server.models.invariance import ALONE, Form
from embedfleet_server.models.memory import Peaks
from embedfleet_server.models.packed import Packed, Tokens
from embedfleet_server.models.tokenizing import Prompted
from embedfleet_server.models.transfers import transfers

Modules = Sequence[torch.nn.Module]
Features = dict[str, torch.Tensor]
Made = TypeVar("Made")
_TOKENS = 32  # of a text in the trial of lanes


class Forward:
    """The modules of a model on their device, called one after the other."""

    in_rows = False
    """Whether texts that are to have the same bits in any company may share a row: what follows it is told them
    one by one."""

    def __init__(
        self,
        modules: Modules,
        *,
        device: str,
        pad: int,
        limits: layout.Limits | None = None,
        packed: Packed | None = None,
    ) -> None:
        """`limits` say how a batch is cut on this device; unset, as on a CPU, and on a GPU not at all.

        `packed` is the first module for pieces that are packed; unset they are padded.
        """
        self._modules = tuple(modules)
        self._device = torch.device(device)
        self._pad = pad
        self.peaks = Peaks(device, self._modules)
        self._limits = layout.CPU if limits is None and self._device.type == "cpu" else limits
        self.packed = packed
        self.transfers = transfers(self._device) if packed is None else packed.transfers
        self.compiled: Compiled | None = None
        self.lanes: lanes.Lanes | None = None
        """On which rows are computed side by side; None where they are not."""
        self.keeps_bits = False
        """Whether the same input gives the same bits whatever shares its batch, from the next batch on."""
        self._keeps = False  # the same of the batch under way, whatever is asked for meanwhile

    def form(self) -> Form | None:
        """How the batch is computed so; None where that was not asked for."""
        if not self._keeps:
            return None
        return ALONE if self.packed is None or not self.in_rows else self.packed.form()

    def bits_kept(self) -> str | None:
        """The same in words, without waiting for its being found out."""
        if not self.keeps_bits:
            return None
        known = ALONE if self.packed is None or not self.in_rows else self.packed.known
        return "the next batch finds out how" if known is None else known.reason

    @property
    def device(self) -> torch.device:
        """Where the modules are."""
        return self._device

    @property
    def pads(self) -> bool:
        """Whether a batch costs its padded tokens, as on a GPU; packed, or cut into pieces on a CPU, what it holds."""
        return self._device.type != "cpu" and self.packed is None

    def cut(self, batch: Sequence[Encoded]) -> Iterable[list[int]]:
        """Indices of `batch` in pieces for one call each, all of a piece of one kind.

        On a CPU a padded piece is worth cutting off as soon as it saves padding, and a packed one is as large as the
        cache likes it; on a GPU the whole batch goes at once.
        """
        form = self.form()
        if form is not None and form.kind == "alone":
            yield from ([index] for index in range(len(batch)))
            return
        for group in self._groups(batch):
            if self._limits is None:
                yield group
                continue
            lengths = [len(batch[index].token_ids) for index in group]
            for piece in self._cut(lengths, self._limits):
                yield [group[place] for place in piece]

    def each(
        self, batch: Sequence[Encoded], compute: Callable[[Sequence[Encoded]], Made]
    ) -> list[tuple[list[int], Made]]:
        """What is computed of each piece, with the piece's indices; the memory that all take is measured."""
        if (begun := self.begun(batch, compute)) is not None:
            beside, made = begun
            return list(zip(beside, made(), strict=True))
        if self.lanes is not None:
            self.lanes.settle()  # its rows must not see the next line, nor compute beside all threads
        self._keeps = self.keeps_bits
        self.peaks.begin()
        done = [(piece, compute([batch[index] for index in piece])) for piece in self.cut(batch)]
        self.peaks.end()
        return done

    def begun(
        self, batch: Sequence[Encoded], compute: Callable[[Sequence[Encoded]], Made]
    ) -> tuple[list[list[int]], lanes.Begun[Made]] | None:
        """The same where pieces are computed on lanes, behind those that are there: their indices, and what waits.

        None where this thread is to compute the batch.
        """
        on = self.lanes
        if on is None or self.keeps_bits:
            return None
        self._keeps = False  # the last batch, if it was computed with it, has ended: it was by no lanes
        if (beside := self._beside(batch, on)) is None:
            return None
        self.peaks.beside(min(on.count, len(beside)), max(_tokens(batch, piece) for piece in beside))
        return beside, on.begin(compute, [[batch[index] for index in piece] for piece in beside])

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None before the first."""
        return self.peaks.last_mib

    @torch.inference_mode()
    def run(self, piece: Sequence[Encoded]) -> Features:
        """What the modules make of inputs of one kind, padded to the longest."""
        return self._through(self._modules, self.features(piece), self.given(piece))

    @torch.inference_mode()
    def run_compiled(self, piece: Sequence[Encoded]) -> Features | None:
        """The same by a form that was made for pieces of such a shape; None where there is none (see `compiling`)."""
        compiled = self.compiled
        if compiled is None or self._keeps:  # a form has other bits than the text in a larger batch
            return None
        bucket = compiled.bucket(len(piece), max(len(encoded.token_ids) for encoded in piece))
        if bucket is None:
            return None
        features = self.features(piece)
        made = compiled(bucket, features["input_ids"], features["attention_mask"])
        if made is None:
            return None
        return self._through(self._modules[1:], {**features, "token_embeddings": made}, self.given(piece))

    @torch.inference_mode()
    def run_packed(self, piece: Sequence[Encoded], packed: Packed) -> list[tuple[list[int], Features]]:
        """The same of inputs that stand in one row for the first module: by parts of the piece, with their indices."""
        lengths = [len(encoded.token_ids) for encoded in piece]
        tokens, made = self.in_row(piece, packed), []
        for part in self._spread(lengths, packed):
            some = [piece[index] for index in part]
            features = self.features(some)
            features["token_embeddings"] = packed.spread(tokens, part)
            made.append((part, self._through(self._modules[1:], features, self.given(some))))
        self.peaks.piece(sum(lengths))
        return made

    def _through(self, modules: Modules, features: Features, given: Mapping[str, Any]) -> Features:
        for module in modules[:-1]:
            features = _call(module, features, given)
        last = modules[-1]
        if isinstance(last, Normalize):  # in bfloat16 lengths would be off by up to 0.4 %, and dot products with them
            features[last.module_input_name] = features[last.module_input_name].float()
        return _call(last, features, given)

    def close(self) -> None:
        """Drop the modules; on a GPU give their memory back to the driver."""
        self._modules = ()
        self.packed = self.compiled = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def in_row(self, piece: Sequence[Encoded], packed: Packed) -> Tokens:
        """What the first module makes of inputs that stand in one row: of each, (its tokens, width)."""
        return packed([encoded.token_ids for encoded in piece], form=self.form())

    def kind(self, encoded: Encoded) -> Hashable:
        """Inputs of one kind may share a call. Pooling that leaves the prompt out takes one prompt length per call."""
        return _prompt_length(encoded)

    def given(self, piece: Sequence[Encoded]) -> Mapping[str, Any]:
        """Arguments for those modules that take them."""
        return {}

    def features(self, piece: Sequence[Encoded]) -> Features:
        """Padding goes to the right for every model, so that positions do not depend on who shares the batch.

        That is what sentence-transformers computes for a text alone; pooling finds the last token by the mask.
        """
        padded = _filled([encoded.token_ids for encoded in piece], self._pad)
        self.peaks.piece(padded.size)
        lengths = np.array([[len(encoded.token_ids)] for encoded in piece])
        ids, mask = self.transfers.put(padded, (np.arange(padded.shape[1]) < lengths).astype(np.int64))
        features = {"input_ids": ids, "attention_mask": mask}
        if prompt_length := _prompt_length(piece[0]):
            features["prompt_length"] = torch.tensor([prompt_length])
        return features

    def tensor(self, rows: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
        """Whole numbers (n, longest) on the device, `pad` after the end of each row."""
        return self.transfers.put(_filled(rows, pad))[0]

    def try_lanes(self, found: lanes.Lanes | None, most: int) -> float | None:
        """Use lanes from now on unless that takes clearly longer; its share of the time, None where it cannot.

        `most` is how many tokens an input may have.
        """
        if found is None or self.packed is None or self._device.type != "cpu" or not lanes.can(self._modules[0]):
            return None
        length, tokens = min(_TOKENS, most), lanes.trial(self._modules[0])
        batch = [Encoded([self._pad] * length)] * (found.count * -(-tokens // length))
        if not tokens or (beside := self._beside(batch, found)) is None:
            return None
        side, whole = ([[batch[index] for index in piece] for piece in cut] for cut in (beside, self.cut(batch)))
        share = lanes.share(found, self._as_row, side, whole)
        if lanes.is_worth_it(share):
            self.lanes = found
        return share

    @torch.inference_mode()
    def _as_row(self, row: Sequence[Encoded]) -> Tokens:
        assert self.packed is not None
        return self.packed([encoded.token_ids for encoded in row])

    def _beside(self, batch: Sequence[Encoded], on: lanes.Lanes) -> list[list[int]] | None:
        """Its pieces where they are computed side by side; None where all threads compute one after the other."""
        most = self._most(on.count)
        if most is None or len(self._groups(batch)) != 1:
            return None
        return layout.beside([len(encoded.token_ids) for encoded in batch], most, on.count)

    def _cut(self, lengths: Sequence[int], limits: layout.Limits) -> list[list[int]]:
        if self.packed is None:
            return layout.pieces(lengths, limits)
        most = self._most()
        return [list(range(len(lengths)))] if most is None else layout.rows(lengths, most)

    def _most(self, beside: int = 1) -> int | None:
        """Tokens of a packed row at most, where so many are computed at a time; None where it may have any number."""
        form = self.form()
        if form is not None:
            return form.most
        return None if self.packed is None else self.packed.most_tokens

    def _spread(self, lengths: Sequence[int], packed: Packed) -> list[list[int]]:
        """Which inputs of a row are laid out together for the modules behind it."""
        if self.form() is not None:
            return [[index] for index in range(len(lengths))]
        return layout.pieces(lengths, packed.spread_limits)

    def _groups(self, batch: Sequence[Encoded]) -> list[list[int]]:
        groups: dict[Hashable, list[int]] = {}
        for index, encoded in enumerate(batch):
            groups.setdefault(self.kind(encoded), []).append(index)
        return list(groups.values())


def _tokens(batch: Sequence[Encoded], piece: Sequence[int]) -> int:
    return sum(len(batch[index].token_ids) for index in piece)


def _filled(rows: Sequence[Sequence[int]], pad: int) -> NDArray[np.int64]:
    """Whole numbers (n, longest), `pad` after the end of each row."""
    made = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    for index, row in enumerate(rows):
        made[index, : len(row)] = row
    return made


class KeepsBits:
    """What models with one forward have in common (`engine.invariance.KeepsBits`)."""

    info: ModelInfo
    _forward: Forward

    def try_lanes(self, found: lanes.Lanes | None) -> float | None:
        """See `Forward.try_lanes`."""
        return self._forward.try_lanes(found, self.info.max_tokens)

    def keep_bits(self, on: bool) -> None:
        """Whether the same input gives the same bits whatever shares its batch, from the next batch on."""
        self._forward.keeps_bits = on

    def bits_kept(self) -> str | None:
        """How that is done, in words; None where it is not asked for."""
        return self._forward.bits_kept()


def _prompt_length(encoded: Encoded) -> int:
    return encoded.prompt_length if isinstance(encoded, Prompted) else 0


def _call(module: torch.nn.Module, features: Features, given: Mapping[str, Any]) -> Features:
    wanted: Any = getattr(module, "forward_kwargs", ())
    made: Features = module(features, **{name: given[name] for name in wanted if name in given})
    return made
