"""Rerankers (cross-encoders): logits of pairs of a query and a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Rows, Side, Token
from embedfleet_server.engine.scoring import ACTIVATIONS
from embedfleet_server.models.faults import told
from embedfleet_server.models.files import read_json
from embedfleet_server.models.forward import Features, Forward
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.tokenizing import Paired, PairTokenizing


class RerankModel:
    """A loaded reranker (`engine.protocols.Model`)."""

    def __init__(self, info: ModelInfo, tokenizing: PairTokenizing, forward: "RerankForward") -> None:
        self.info = info
        self._tokenizing = tokenizing
        self._forward = forward

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """See `PairTokenizing.encode`."""
        return self._tokenizing.encode(items, prompt, side)

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """See `Spelling.tokenize`."""
        return self._tokenizing.spelling.tokenize(texts, special=special)

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """See `Spelling.decode`."""
        return self._tokenizing.spelling.decode(ids, special=special)

    @told
    def forward(self, batch: Sequence[Encoded]) -> Rows:
        """Logits of the pairs, shape (len(batch), labels), float32, before the activation `info.activation`."""
        rows = np.empty((len(batch), self.info.native_dimensions), dtype=np.float32)
        for indices in self._forward.pieces(batch):
            rows[indices] = self._forward([batch[index] for index in indices])
        return rows

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None before the first."""
        return self._forward.peak_mib()

    def close(self) -> None:
        """Forget the weights, so that their memory can be used again."""
        self._forward.close()


class RerankForward(Forward):
    """The forward of a reranker."""

    def __call__(self, piece: Sequence[Encoded]) -> Rows:
        """Logits of a piece, shape (len(piece), labels)."""
        features = self.run(piece)
        if "scores" not in features:
            raise ModelProblem("its modules give no scores; only rerankers with a classification head are served")
        rows: Rows = features["scores"].float().cpu().numpy()
        return rows

    def features(self, piece: Sequence[Encoded]) -> Features:
        """With token types, where the model tells query and text apart by them."""
        features = super().features(piece)
        if all(isinstance(encoded, Paired) for encoded in piece):
            types = [encoded.type_ids for encoded in piece if isinstance(encoded, Paired)]
            features["token_type_ids"] = self.tensor(types, 0)
        return features


def check_activation(directory: Path) -> None:
    """`ModelProblem` unless each activation that the files name is one of torch's that scores are computed with.

    Checked before the model is loaded: sentence-transformers calls whatever they name within torch.
    """
    for name in _named(directory):
        if not name.startswith("torch.nn.") or name.rpartition(".")[2] not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ModelProblem(f"its activation is {name}; those of torch.nn that are served: {known}")


def _named(directory: Path) -> list[str]:
    config = read_json(directory / "config.json")
    within: Any = config.get("sentence_transformers")
    values: list[Any] = [
        read_json(directory / "config_sentence_transformers.json").get("activation_fn"),
        within.get("activation_fn") if isinstance(within, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    ]
    return [str(value) for value in values if value is not None]
