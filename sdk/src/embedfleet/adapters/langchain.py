"""A service as LangChain's `Embeddings`: `pip install 'embedfleet[langchain]'`."""

from typing import Unpack

from embedfleet.adapters.embedder import Connecting, Embedder
from embedfleet.client import Service
from embedfleet.extras import need

need("langchain_core", "langchain", "embedfleet.adapters.langchain", "langchain-core")

from langchain_core.embeddings import Embeddings  # noqa: E402  # after the error that names the extra


class EmbedfleetEmbeddings(Embeddings):
    """Queries and documents with the model's own prompts; the `a…` twins are awaited natively, on any event loop.

    Args:
        service: a service's name, a model's that one service has, or a client made by `connect`. A name is connected
            to at the first use. None: the only service.
        model: one of the service's models; default the one connected to, else the service's own.
        dimensions: shorter vectors, where the model was trained for them.
        connecting: `url`, `api_key`, `namespace`, `context`, `ca` as of `connect`.

    Errors are those of `Service.embed` and `connect`.
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

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of `texts`, in their order."""
        return self._embedder.lists(self._embedder.embed(texts, "document"))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._embedder.lists(self._embedder.embed([text], "query"))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents`, awaited."""
        return self._embedder.lists(await self._embedder.aembed(texts, "document"))

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query`, awaited."""
        return self._embedder.lists(await self._embedder.aembed([text], "query"))[0]

    def __repr__(self) -> str:
        return f"EmbedfleetEmbeddings({self._embedder!r})"
