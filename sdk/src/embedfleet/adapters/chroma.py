"""A service as Chroma's `EmbeddingFunction`: `pip install 'embedfleet[chroma]'`."""

from typing import Any, Unpack

from embedfleet.adapters.embedder import Connecting, Embedder
from embedfleet.client import Service
from embedfleet.errors import BadInput
from embedfleet.extras import need
from embedfleet.wire import InputType

need("chromadb", "chroma", "embedfleet.adapters.chroma")

from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space  # noqa: E402  # after the error that names the extra
from chromadb.utils.embedding_functions import register_embedding_function  # noqa: E402


class EmbedfleetFunction(EmbeddingFunction[Documents]):
    """Documents and queries with the model's own prompts.

    `service` is a service's name, a model's that one service has, or a client made by `connect`; a name is connected
    to at the first use. The other arguments are those of `embedfleet.adapters.langchain`.

    Chroma stores the configuration with a collection, without `api_key`: whoever opens it again gets this function
    once this module is imported, and gives the key by EMBEDFLEET_API_KEY. Errors are those of `Service.embed`.
    """

    def __init__(
        self,
        service: str | Service | None = None,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        **connecting: Unpack[Connecting],
    ) -> None:
        self._embedder = Embedder(service, model, dimensions, connecting)

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002  # Chroma's word
        """The vectors of documents."""
        return self._rows(input, "document")

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002  # Chroma's word
        """The vectors of queries."""
        return self._rows(input, "query")

    @staticmethod
    def name() -> str:
        """The name under which Chroma stores it."""
        return "embedfleet"

    def default_space(self) -> Space:
        """The cosine: what models of texts are trained for."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """What Chroma stores: all arguments but `api_key`."""
        return self._embedder.config()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "EmbedfleetFunction":
        """The function that Chroma has stored."""
        return EmbedfleetFunction(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """A collection's model stays: vectors of two models cannot be compared. Raises `BadInput`."""
        for key in ("service", "model", "dimensions"):
            before, after = old_config.get(key), new_config.get(key)
            if before != after:
                raise BadInput(f"{key} of a collection is {before!r} and cannot become {after!r}: make another one")

    def _rows(self, texts: Documents, input_type: InputType) -> Embeddings:
        return list(self._embedder.embed(texts, input_type))


register_embedding_function(EmbedfleetFunction)  # type: ignore[no-untyped-call]  # Chroma's own
