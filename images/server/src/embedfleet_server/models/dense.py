"""Dense models: one vector per input, computed by sentence-transformers' modules called one after the other."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.modules import Normalize

from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Rows
from embedfleet_server.models import layout
from embedfleet_server.models.memory import Peaks
from embedfleet_server.models.tokenizing import Prompted, Tokenizing

Modules = Sequence[torch.nn.Module]
Indices = NDArray[np.intp]


class DenseModel:
    """A loaded dense model (`engine.protocols.Model`)."""

    def __init__(self, info: ModelInfo, tokenizing: Tokenizing, forward: "Forward") -> None:
        self.info = info
        self._tokenizing = tokenizing
        self._forward = forward

    def encode(self, items: Sequence[Item], prompt: str) -> list[Encoded]:
        """See `Tokenizing.encode`."""
        return self._tokenizing.encode(items, prompt)

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        """Vectors of the batch, shape (len(batch), native_dimensions), float32, C-contiguous, in the batch's order."""
        rows = np.empty((len(batch), self.info.native_dimensions), dtype=np.float32)
        peaks = self._forward.peaks
        peaks.begin()
        for indices in self._forward.cut(batch):
            rows[indices] = self._forward([batch[index] for index in indices])
        peaks.end()
        return rows

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None before the first."""
        return self._forward.peaks.last_mib

    def close(self) -> None:
        """Forget the weights, so that their memory can be used again."""
        self._forward.close()


class Forward:
    """The modules of a model on their device."""

    def __init__(self, modules: Modules, *, device: str, pad: int) -> None:
        self._modules = tuple(modules)
        self._normalizes = normalizes(self._modules)
        self._device = torch.device(device)
        self._pad = pad
        self.peaks = Peaks(device, self._modules)

    @property
    def pads(self) -> bool:
        """Whether a batch costs its padded tokens; on a CPU, cut into pieces of like length, it costs what it holds."""
        return self._device.type != "cpu"

    def cut(self, batch: Sequence[Encoded]) -> Iterable[list[int]]:
        """Indices of `batch` in pieces for one call each.

        Pooling that leaves the prompt out takes one prompt length per call. On a CPU a piece is worth cutting off as
        soon as it saves padding; on a GPU the whole batch goes at once.
        """
        for group in _by_prompt_length(batch):
            if self.pads:
                yield group
                continue
            lengths = [len(batch[index].token_ids) for index in group]
            for piece in layout.pieces(lengths, layout.CPU):
                yield [group[place] for place in piece]

    @torch.inference_mode()
    def __call__(self, piece: Sequence[Encoded]) -> Rows:
        """Vectors of inputs with one prompt length, shape (len(piece), native_dimensions), padded to the longest."""
        features = self._features(piece)
        for module in self._modules[:-1]:
            features = module(features)
        if self._normalizes:  # in bfloat16 a vector's length would be off by up to 0.4 %, and dot products with it
            features["sentence_embedding"] = features["sentence_embedding"].float()
        rows: Rows = self._modules[-1](features)["sentence_embedding"].float().cpu().numpy()
        return rows

    def close(self) -> None:
        """Drop the modules; on a GPU give their memory back to the driver."""
        self._modules = ()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _features(self, piece: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Padding goes to the right for every model, so that positions do not depend on who shares the batch.

        That is what sentence-transformers computes for a text alone; pooling finds the last token by the mask.
        """
        shape = (len(piece), max(len(encoded.token_ids) for encoded in piece))
        self.peaks.piece(shape[0] * shape[1])
        ids = np.full(shape, self._pad, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, encoded in enumerate(piece):
            length = len(encoded.token_ids)
            ids[row, :length] = encoded.token_ids
            mask[row, :length] = 1
        features = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }
        if prompt_length := _prompt_length(piece[0]):
            features["prompt_length"] = torch.tensor([prompt_length])
        return features


def normalizes(modules: Modules) -> bool:
    """Whether the last of the modules gives vectors length 1."""
    last = modules[-1]
    return isinstance(last, Normalize) and last.module_output_name == "sentence_embedding"


def _prompt_length(encoded: Encoded) -> int:
    return encoded.prompt_length if isinstance(encoded, Prompted) else 0


def _by_prompt_length(batch: Sequence[Encoded]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for index, encoded in enumerate(batch):
        groups.setdefault(_prompt_length(encoded), []).append(index)
    return list(groups.values())
