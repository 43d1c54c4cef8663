"""A second face of a loaded model: its token vectors, under a queue of their own, over the same weights.

A view is a model to the engine (`slots.ModelConfig.is_view`), so that what is asked of it shares batches, priorities,
deadlines and the device with all else; no caller can name it, since a model's name holds no colon.
"""

from typing import Protocol, runtime_checkable

from embedfleet_server.engine.copies import copies_of, joined
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.engine.protocols import Loader, Model
from embedfleet_server.engine.slots import ModelConfig

_TOKENS = ":tokens"


@runtime_checkable
class GivesTokens(Protocol):
    """A model that has such a view."""

    def token_vectors(self) -> Model:
        """A MultiVector model over the same weights: a vector for each token, special ones too, none normalised."""


def tokens_of(name: str) -> str:
    """The view of model `name` that gives token vectors."""
    return name + _TOKENS


def seen_by(view: str) -> str:
    """The model that a view is of; a model's own name otherwise."""
    return view.partition(":")[0]


def with_view(config: ModelConfig) -> list[ModelConfig]:
    """A model and the view of its tokens, which is loaded when it is first asked for."""
    shared = _Shared(config.name, config.loader)
    view = ModelConfig(tokens_of(config.name), shared.view, lazy=True, required=False, is_view=True)
    return [ModelConfig(config.name, shared.model, config.lazy, config.required), view]


class _Shared:
    """The two loaders of one model."""

    def __init__(self, name: str, loader: Loader) -> None:
        self._name, self._loader = name, loader
        self._model: Model | None = None

    def model(self) -> Model:
        """Load the model itself."""
        self._model = self._loader()
        return self._model

    def view(self) -> Model:
        """Its view; whoever asks for it has asked the model itself before."""
        if self._model is None:
            raise ModelLoadFailed(tokens_of(self._name), f"model {self._name!r} is not loaded yet")
        return joined([self._view_of(copy) for copy in copies_of(self._model)])

    def _view_of(self, copy: Model) -> Model:
        if not isinstance(copy, GivesTokens):
            raise ModelLoadFailed(self._name, "late chunking needs a Dense model, which this is not")
        return copy.token_vectors()
