"""A service as LlamaIndex's `BaseEmbedding`: `pip install 'embedfleet[llama-index]'`."""

from typing import Any, cast

from embedfleet.adapters.embedder import Connecting, Embedder
from embedfleet.client import Service
from embedfleet.extras import need

need("llama_index.core", "llama-index", "embedfleet.adapters.llama_index", "llama-index-core")

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding  # noqa: E402  # after the error that names the extra
from pydantic import Field, PrivateAttr  # noqa: E402

OWN_MODEL = "(default)"
"""`model_name` of the model connected to, else the service's own; no model can have this name."""
_MOST_TEXTS = 2048  # the most that LlamaIndex allows: the client cuts requests itself, several at once


class EmbedfleetEmbedding(BaseEmbedding):
    """Queries and documents with the model's own prompts, sync and awaited natively on any event loop.

    `service` is a service's name, a model's that one service has, or a client made by `connect`; a name is connected
    to at the first use. `model_name` is one of the service's models. `api_key` is never stored: neither `to_dict` nor
    a pickle has it (EMBEDFLEET_API_KEY is what they need). Errors are those of `Service.embed` and `connect`.
    """

    service: str | None = Field(default=None, description="Name of the service, or of one of its models.")
    dimensions: int | None = Field(default=None, description="Shorter vectors, where the model was trained for them.")
    url: str | None = Field(default=None, description="Address of the service.")
    namespace: str | None = Field(default=None, description="Where in the cluster to look.")
    context: str | None = Field(default=None, description="Context of the kubeconfig.")
    ca: str | None = Field(default=None, description="A PEM file of the certificates to trust.")
    _embedder: Embedder = PrivateAttr()

    def __init__(
        self,
        service: str | Service | None = None,
        *,
        model_name: str = OWN_MODEL,
        dimensions: int | None = None,
        api_key: str | None = None,
        embed_batch_size: int = _MOST_TEXTS,
        **more: Any,
    ) -> None:
        connecting: dict[str, Any] = {key: more.pop(key) for key in Connecting.__annotations__ if key in more}
        given = {key: value for key, value in {**connecting, "api_key": api_key}.items() if value is not None}
        embedder = Embedder(
            service, None if model_name == OWN_MODEL else model_name, dimensions, cast("Connecting", given)
        )
        super().__init__(  # type: ignore[call-arg]  # pydantic's own fields, of which its plugin sees none
            service=embedder.name,
            model_name=model_name,
            dimensions=dimensions,
            embed_batch_size=embed_batch_size,
            **connecting,
            **more,
        )
        self._embedder = embedder

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "EmbedfleetEmbedding"

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embedder.lists(self._embedder.embed([query], "query"))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return self._embedder.lists(await self._embedder.aembed([query], "query"))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embedder.lists(self._embedder.embed(texts, "document"))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embedder.lists(await self._embedder.aembed(texts, "document"))
