"""A twin of `sentence_transformers.SentenceTransformer` for code that is written for it; needs no other package.

>>> from embedfleet.adapters.sentence_transformers import SentenceTransformer
>>> SentenceTransformer("semantic").encode(["a text"]).shape  # doctest: +SKIP
(1, 384)
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Literal, Unpack

import numpy as np

from embedfleet.adapters.embedder import Connecting, Embedder
from embedfleet.client import Service
from embedfleet.errors import BadInput
from embedfleet.wire import InputType, Rows, Vectors

PROMPTS: dict[str, InputType] = {"query": "query", "document": "document", "passage": "document", "corpus": "document"}
"""The names of prompts that it knows, and which of the model's two prompts each is."""
_SMALLEST = 1e-12  # what torch's normalize() divides by at least


class SentenceTransformer:
    """`encode` as sentence-transformers has it, computed by the service.

    Args:
        service: a service's name, a model's that one service has, or a client made by `connect`. A name is connected
            to at the first use.
        model: one of the service's models; default the one connected to, else the service's own.
        truncate_dim: shorter vectors, where the model was trained for them.
        connecting: `url`, `api_key`, `namespace`, `context`, `ca` as of `connect`.
    """

    def __init__(
        self,
        service: str | Service | None = None,
        *,
        model: str | None = None,
        truncate_dim: int | None = None,
        **connecting: Unpack[Connecting],
    ) -> None:
        self._embedder = Embedder(service, model, truncate_dim, connecting)

    def encode(
        self,
        sentences: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        precision: Literal["float32"] = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
    ) -> Any:
        """The vectors of `sentences`, in their order.

        Args:
            sentences: one str, or any iterable of them.
            prompt_name: "query", or "document" (also "passage", "corpus"): the model's own prompt is put before each.
            prompt: put before each instead.
            batch_size: taken so that calls run unchanged; the service forms its batches of all clients' requests.
            show_progress_bar: None: where somebody looks.
            output_value: "sentence_embedding"; for a vector per token see `Service.embed_multi`.
            precision: "float32".
            convert_to_numpy: an array. False: a list of PyTorch's tensors.
            convert_to_tensor: one PyTorch tensor.
            device: where tensors are to lie; the service chooses where it computes.
            normalize_embeddings: length 1, where the model's vectors are not that already.

        Returns:
            float32: (d,) for a str, (n, d) for an iterable.

        Raises:
            BadInput: an argument that the service cannot follow, texts that cannot be embedded.
            EmbedfleetError: see `Service.embed` and `connect`.
        """
        _only("output_value", output_value, "sentence_embedding")
        _only("precision", precision, "float32")
        purpose = _purpose(prompt_name)
        texts = sentences if prompt is None else _prompted(prompt, sentences)
        rows = self._embedder.embed(texts, None if prompt is not None else purpose, progress=show_progress_bar)
        return _converted(
            unit(rows) if normalize_embeddings else rows,
            tensor=convert_to_tensor,
            array=convert_to_numpy,
            device=device,
        )

    def encode_query(self, sentences: str | Iterable[str], **options: Any) -> Any:
        """`encode` with the model's prompt for queries."""
        return self.encode(sentences, **{"prompt_name": "query", **options})

    def encode_document(self, sentences: str | Iterable[str], **options: Any) -> Any:
        """`encode` with the model's prompt for documents."""
        return self.encode(sentences, **{"prompt_name": "document", **options})

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Rows:
        """The cosine of every vector of the one with every vector of the other, (n, m), as an array."""
        made: Rows = unit(_rows(embeddings1)) @ unit(_rows(embeddings2)).T
        return made

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Rows:
        """The cosine of each vector of the one with the vector at its place in the other, (n,), as an array."""
        made: Rows = np.sum(unit(_rows(embeddings1)) * unit(_rows(embeddings2)), axis=1)
        return made

    def get_sentence_embedding_dimension(self) -> int | None:
        """Length of the vectors; None while the model has not been loaded."""
        return self._embedder.dimensions or self._embedder.service.model_info(self._embedder.model).dimensions

    get_embedding_dimension = get_sentence_embedding_dimension

    @property
    def max_seq_length(self) -> int | None:
        """Tokens that the model reads of a text; None while it has not been loaded."""
        return self._embedder.service.model_info(self._embedder.model).max_tokens

    def __repr__(self) -> str:
        return f"SentenceTransformer({self._embedder!r})"


def unit(rows: Vectors) -> Vectors:
    """The vectors, each divided by its length, (d,) or (n, d); zeros stay zeros."""
    made: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _SMALLEST)
    return made


def _purpose(prompt_name: str | None) -> InputType | None:
    if prompt_name is None:
        return None
    if prompt_name not in PROMPTS:
        raise BadInput(f"prompt_name is {prompt_name!r}; it must be one of {', '.join(PROMPTS)}, or give prompt=")
    return PROMPTS[prompt_name]


def _prompted(prompt: str, sentences: str | Iterable[str]) -> str | Iterable[str]:
    if isinstance(sentences, str):
        return prompt + sentences
    return (_put_before(prompt, one) for one in sentences)


def _put_before(prompt: str, sentence: Any) -> Any:
    return prompt + sentence if isinstance(sentence, str) else sentence  # what is no str is refused by its place


def _only(name: str, value: object, must: str) -> None:
    if value != must:
        raise BadInput(f"{name} is {value!r}; a service gives {must!r} alone")


def _rows(given: Any) -> Rows:
    return np.atleast_2d(np.asarray(given, np.float32))


def _converted(rows: Vectors, *, tensor: bool, array: bool, device: str | None) -> Any:
    if array and not tensor:
        return rows
    try:
        torch = import_module("torch")
    except ModuleNotFoundError as error:
        raise BadInput("tensors need PyTorch: pip install torch, or take the array (convert_to_numpy=True)") from error
    made = torch.from_numpy(rows).to(device or "cpu")
    return made if tensor or rows.ndim == 1 else list(made)
