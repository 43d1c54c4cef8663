"""What a synchronous client can do beside `embed`: the twins of `async_tasks`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from embedfleet.cache import CacheArgument
from embedfleet.progress import Progress
from embedfleet.tasks import Ranked, SparseRows, Token, TokenRows
from embedfleet.wire import InputType, Rows, Vectors

if TYPE_CHECKING:
    from embedfleet.async_client import AsyncService
    from embedfleet.portal import Caller

T = TypeVar("T")


class SyncTasks(ABC):
    """The other tasks; `model` is the name of a model of the task, by default the client's own or the only one."""

    model: str | None

    @abstractmethod
    def _run(self, work: "Callable[[AsyncService, Caller], Coroutine[Any, Any, T]]") -> T:
        """What `work` gives, run on the client's loop."""

    @abstractmethod
    def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        on_error: Literal["raise", "nan"] = "raise",
        with_info: Literal[False] = False,
        cache: CacheArgument = None,
    ) -> Vectors:
        """Vectors of `texts`."""

    def embed_query(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        on_error: Literal["raise", "nan"] = "raise",
        cache: CacheArgument = None,
    ) -> Vectors:
        """Vectors of queries: `embed` with `input_type="query"`, for models that tell both apart."""
        return self.embed(
            texts,
            model=model,
            input_type="query",
            dimensions=dimensions,
            progress=progress,
            timeout=timeout,
            on_error=on_error,
            cache=cache,
        )

    def embed_document(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        on_error: Literal["raise", "nan"] = "raise",
        cache: CacheArgument = None,
    ) -> Vectors:
        """Vectors of documents: `embed` with `input_type="document"`, for models that tell both apart."""
        return self.embed(
            texts,
            model=model,
            input_type="document",
            dimensions=dimensions,
            progress=progress,
            timeout=timeout,
            on_error=on_error,
            cache=cache,
        )

    def rerank(
        self,
        query: str,
        texts: Iterable[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        raw_scores: bool = False,
    ) -> list[Ranked]:
        """`texts` by how well they answer `query`, best first, by a Rerank model; the best `top_n` where given.

        `raw_scores`: the model's logits rather than what its activation makes of them.
        Raises `BadInput`, `RequestRejected` (a model of another task), and what `embed` raises.
        """
        return self._run(lambda core, _: core._asker.rerank(query, texts, model or self.model, top_n, raw=raw_scores))

    def embed_sparse(
        self, texts: Iterable[str], *, model: str | None = None, input_type: InputType | None = None
    ) -> SparseRows:
        """Sparse vectors of `texts`, by a Sparse model, as compressed rows. Errors are those of `rerank`."""
        return self._run(lambda core, _: core._asker.sparse(texts, model or self.model, input_type))

    def embed_multi(
        self, texts: Iterable[str], *, model: str | None = None, input_type: InputType | None = None
    ) -> TokenRows:
        """A vector for each token of each text, by a MultiVector model. Errors are those of `rerank`."""
        return self._run(lambda core, _: core._asker.multi(texts, model or self.model, input_type))

    def similarity(self, text: str, texts: Iterable[str], *, model: str | None = None) -> Rows:
        """The cosine of `text` with each of `texts`, float32 (n,), by a Dense model. Errors are those of `rerank`."""
        return self._run(lambda core, _: core._asker.similarity(text, texts, model or self.model))

    def tokenize(
        self, texts: Iterable[str], *, model: str | None = None, special_tokens: Literal[True, False] = True
    ) -> list[list[Token]]:
        """The tokens of each text, by the tokenizer of any model; nothing is cut. Errors are those of `rerank`."""
        return self._run(lambda core, _: core._asker.tokenize(texts, model or self.model, special=special_tokens))
