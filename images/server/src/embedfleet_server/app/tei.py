"""text-embeddings-inference's routes: the default model's at the root, every model's under `/models/NAME`.

Its clients take one base URL for one model, so `http://HOST/models/NAME` is a whole such server.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from embedfleet.api.models import Task
from embedfleet_server.app import answers, fields, ranking, spelling
from embedfleet_server.app.answers import Format, finished
from embedfleet_server.app.document import decode
from embedfleet_server.app.door import PARTIAL_HEADER, Door, is_partial
from embedfleet_server.app.fields import Field, Fields
from embedfleet_server.app.outcome import check
from embedfleet_server.app.requests import (
    DIMENSIONS,
    DIRECTION,
    DTYPE,
    FORCE_DIMENSIONS,
    INPUT_TYPE,
    INPUTS,
    PROMPT_NAME,
    TRUNCATE,
    EmbeddingRequest,
    bad_items,
    items,
    options,
)
from embedfleet_server.app.routes import Content, Route
from embedfleet_server.app.shapes import Similarities, SparseVectors, TeiInfo, Texts, Tokens, TokenVectors, Vectors, ref
from embedfleet_server.engine.errors import InvalidRequest, ModelLoading
from embedfleet_server.engine.protocols import ModelInfo

_OPTIONS: Fields = {
    "truncate": TRUNCATE,
    "truncation_direction": DIRECTION,
    "prompt_name": PROMPT_NAME,
    "input_type": INPUT_TYPE,
}
EMBED: Fields = {
    "inputs": INPUTS,
    **_OPTIONS,
    "normalize": fields.flag("Give vectors length 1 (the default)."),
    "dimensions": DIMENSIONS,
    "force_dimensions": FORCE_DIMENSIONS,
    "dtype": DTYPE,
    "encoding_format": fields.one_of("float", about="Vectors are lists of numbers here."),
}
"""What `POST /embed` takes."""
PLAIN: Fields = {"inputs": INPUTS, **_OPTIONS}
"""What `POST /embed_sparse` and `POST /embed_all` take."""
_SENTENCES = Field(
    lambda value: isinstance(value, list),
    "must be a list of strings",
    {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    required=True,
)
_PAIR: Fields = {"source_sentence": fields.text(required=True), "sentences": _SENTENCES}
SIMILARITY: Fields = {
    "inputs": Field(lambda value: isinstance(value, dict), "must be an object", fields.schema(_PAIR), required=True),
    "parameters": Field(lambda value: isinstance(value, dict), "must be an object", fields.schema(_OPTIONS)),
}
"""What `POST /similarity` takes."""
_BINARY = {"type": "string", "format": "binary"}
_VECTORS: Content = {"application/json": ref(Vectors), answers.NPY: _BINARY}


def routes(door: Door) -> list[Route]:
    """The rows of this dialect."""
    doors = _Tei(door)
    health = Route(
        method="GET",
        path="/health",
        name="health",
        handler=doors.health,
        dialect="text-embeddings-inference",
        about="200 and no body while requests are taken and every required model is loaded.",
        gives={},
        is_open=True,
    )
    return [*_of_a_model(doors, "", ""), *_of_a_model(doors, "/models/{model}", "model_"), health]


def _of_a_model(doors: "_Tei", prefix: str, named: str) -> list[Route]:
    """The routes of one model, which `prefix` names."""

    def post(path: str, name: str, handler: _Handler, about: str, gives: Content, takes: Fields, example: Any) -> Route:
        return Route(
            method="POST",
            path=path,
            name=named + name,
            handler=handler,
            dialect="text-embeddings-inference",
            about=about,
            gives=gives,
            takes=takes,
            example=example,
            headers=PARTIAL_HEADER if path.rpartition("/")[2] not in _WHOLE else {},
        )

    embed = "Vectors as bare lists, of length 1 unless `normalize` is false."
    texts = {"inputs": ["a text", "another"]}
    similar = {"inputs": {"source_sentence": "a text", "sentences": ["another", "a third"]}}
    info = Route(
        method="GET",
        path=f"{prefix}/info",
        name=f"{named}info",
        handler=doors.info,
        dialect="text-embeddings-inference",
        about="What the model is and what a request may carry.",
        gives={"application/json": ref(TeiInfo)},
    )
    sparse = "Active dimensions and their values, by a Sparse model. `Accept: application/x-npz` gives the arrays."
    every = "A vector for each token, by a MultiVector model. `Accept: application/x-npz` gives the arrays."
    ranked = "Texts by how well they answer a query, best first, by a Rerank model."
    pairs = {"query": "a text", "texts": ["another", "a third"]}
    weights: Content = {"application/json": ref(SparseVectors), answers.NPZ: _BINARY}
    many: Content = {"application/json": ref(TokenVectors), answers.NPZ: _BINARY}
    tokens: Content = {"application/json": ref(Tokens)}
    cosines: Content = {"application/json": ref(Similarities)}
    return [
        post(prefix or "/", "embed_root", doors.embed, embed, _VECTORS, EMBED, texts),
        post(f"{prefix}/embed", "embed", doors.embed, embed, _VECTORS, EMBED, texts),
        post(f"{prefix}/similarity", "similarity", doors.similarity, "Cosines.", cosines, SIMILARITY, similar),
        post(f"{prefix}/embed_sparse", "embed_sparse", doors.embed_sparse, sparse, weights, PLAIN, texts),
        post(f"{prefix}/embed_all", "embed_all", doors.embed_all, every, many, PLAIN, texts),
        post(f"{prefix}/rerank", "rerank", doors.ranking.tei, ranked, ranking.RANKS, ranking.RERANK, pairs),
        post(
            f"{prefix}/tokenize", "tokenize", doors.spelling.tokenize, "Every token of each text.", tokens,
            spelling.TOKENIZE, texts,
        ),
        post(
            f"{prefix}/decode", "decode", doors.spelling.decode, "The text of token ids.",
            {"application/json": ref(Texts)}, spelling.DECODE, {"ids": [5, 6]},
        ),
        info,
    ]  # fmt: skip


_WHOLE = ("similarity", "tokenize", "decode")
"""Routes that answer all inputs or none."""
_Handler = Callable[[web.Request], Any]


class _Tei:
    """The handlers."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.ranking = ranking.Rerank(door)
        self.spelling = spelling.Spelling(door)

    async def embed(self, request: web.Request) -> web.Response:
        """`POST /embed`."""
        return await self._answer(request, self._parser(request, self._embed_request), "arrays", "npy")

    async def embed_sparse(self, request: web.Request) -> web.Response:
        """`POST /embed_sparse`."""
        return await self._answer(request, self._parser(request, self._plain("Sparse")), "sparse", "npz")

    async def embed_all(self, request: web.Request) -> web.Response:
        """`POST /embed_all`."""
        return await self._answer(request, self._parser(request, self._plain("MultiVector")), "ragged", "npz")

    async def _answer(
        self, request: web.Request, parse: Callable[[bytes], EmbeddingRequest], kind: Format, binary: Format
    ) -> web.Response:
        """Rows in JSON, or as a file where `Accept` names its type."""
        set_aside, scheduled = is_partial(request), self._door.scheduled(request)
        asked = await self._door.read(request, parse)
        made = await self._door.embed(request, asked, scheduled, set_aside=set_aside)
        return await self._door.answer(made, asked, answers.wanted(request.headers.get("Accept"), kind, binary))

    async def similarity(self, request: web.Request) -> web.Response:
        """`POST /similarity`: the first input against the others."""
        scheduled = self._door.scheduled(request)
        asked = await self._door.read(request, self._parser(request, self._similarity_request))
        made = await self._door.embed(request, asked, scheduled)
        rows = finished(made, check(asked, made.info), normalize=True).astype(np.float64)
        cosines = np.clip(rows[1:] @ rows[0], -1.0, 1.0)
        return web.Response(body=orjson.dumps(cosines.tolist()), content_type="application/json")

    async def info(self, request: web.Request) -> web.Response:
        """`GET /info`."""
        engine = self._door.engine
        name = engine.resolve(request.match_info.get("model"))
        batching = engine.settings.for_model(name)
        known = _info(name, engine.info(name)) | {
            "max_concurrent_requests": engine.settings.batching.max_queued_requests,
            "max_batch_tokens": batching.max_batch_tokens,
            "max_batch_requests": batching.largest_batch,
            "max_client_batch_size": engine.max_inputs,
            "auto_truncate": True,
            "version": version("embedfleet-server"),
        }
        return web.Response(body=orjson.dumps(known), content_type="application/json")

    async def health(self, _: web.Request) -> web.Response:
        """`GET /health`."""
        if not self._door.engine.ready:
            raise ModelLoading("unhealthy: not every required model is loaded")
        return web.Response()

    def _parser(
        self, request: web.Request, make: Callable[[dict[str, Any]], EmbeddingRequest]
    ) -> Callable[[bytes], EmbeddingRequest]:
        model = request.match_info.get("model")

        def parse(raw: bytes) -> EmbeddingRequest:
            made = make(decode(raw))
            return made if model is None else made.for_model(model)

        return parse

    def _embed_request(self, document: dict[str, Any]) -> EmbeddingRequest:
        fields.check(document, EMBED)
        return self._request(document["inputs"], "inputs", document, normalize=document.get("normalize") is not False)

    def _plain(self, task: Task) -> Callable[[dict[str, Any]], EmbeddingRequest]:
        def make(document: dict[str, Any]) -> EmbeddingRequest:
            fields.check(document, PLAIN)
            return self._request(document["inputs"], "inputs", document, normalize=None, task=task)

        return make

    def _similarity_request(self, document: dict[str, Any]) -> EmbeddingRequest:
        fields.check(document, SIMILARITY)
        pair, parameters = document["inputs"], document.get("parameters") or {}
        fields.check(pair, _PAIR)
        fields.check(parameters, _OPTIONS)
        if not pair["sentences"]:
            raise InvalidRequest("sentences is an empty list: there is nothing to compare", "inputs")
        return self._request([pair["source_sentence"], *pair["sentences"]], "inputs", parameters, normalize=None)

    def _request(
        self, given: Any, name: str, document: Mapping[str, Any], *, normalize: bool | None, task: Task = "Dense"
    ) -> EmbeddingRequest:
        limits = self._door.limits
        found = items(given, name, self._door.engine.max_inputs, limits.total_characters)
        return EmbeddingRequest(
            items=found,
            normalize=normalize,
            task=task,
            bad=bad_items(found, limits.text_characters),
            **options(document),
        )


def _info(name: str, info: ModelInfo | None) -> dict[str, Any]:
    return {
        "model_id": name,
        "model_sha": info.revision if info is not None else None,
        "model_dtype": info.precision if info is not None else None,
        "model_type": {_type(info): {}},
        "max_input_length": info.max_tokens if info is not None else None,
    }


def _type(info: ModelInfo | None) -> str:
    """What text-embeddings-inference calls the task."""
    if info is None or info.task != "Rerank":
        return "embedding"
    return "reranker" if info.native_dimensions == 1 else "classifier"
