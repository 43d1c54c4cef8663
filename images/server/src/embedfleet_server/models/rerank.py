"""Rerankers (cross-encoders): logits of pairs of a query and a text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embedfleet_server.engine.protocols import Encoded, Rows
from embedfleet_server.engine.scoring import ACTIVATIONS
from embedfleet_server.models.array_model import ArrayForward, ArrayModel
from embedfleet_server.models.files import read_json
from embedfleet_server.models.forward import Features
from embedfleet_server.models.packed import Packed, Tokens
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.tokenizing import Paired


class RerankModel(ArrayModel):
    """A loaded reranker: logits, before the activation `info.activation`."""


class RerankForward(ArrayForward):
    """The forward of a reranker."""

    def rows(self, features: Features) -> Callable[[], Rows]:
        """Logits."""
        if "scores" not in features:
            raise ModelProblem("its modules give no scores; only rerankers with a classification head are served")
        return self.transfers.fetch(features["scores"].float())

    def in_row(self, piece: Sequence[Encoded], packed: Packed) -> Tokens:
        """With token types, as `features`."""
        types = [encoded.type_ids for encoded in piece if isinstance(encoded, Paired)]
        ids = [encoded.token_ids for encoded in piece]
        return packed(ids, types if len(types) == len(piece) else None, form=self.form())

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
