"""text-embeddings-inference's routes: the default model's at the root, every model's under `/models/NAME`.

Its clients take one base URL for one model, so `http://HOST/models/NAME` is a whole such server.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from embedfleet_server.app import fields
from embedfleet_server.app.answers import finished
from embedfleet_server.app.document import decode
from embedfleet_server.app.door import Door
from embedfleet_server.app.fields import Field, Fields
from embedfleet_server.app.outcome import check
from embedfleet_server.app.requests import (
    DIMENSIONS,
    FORCE_DIMENSIONS,
    INPUTS,
    PROMPT_NAME,
    EmbeddingRequest,
    bad_items,
    items,
)
from embedfleet_server.app.routes import Content, Route
from embedfleet_server.app.shapes import Similarities, TeiInfo, Vectors, ref
from embedfleet_server.engine.errors import InvalidRequest, ModelLoading
from embedfleet_server.engine.protocols import ModelInfo

_TRUNCATE = fields.flag("Cut texts too long for the model (the default); else they are an error.")
_DIRECTION = Field(
    lambda value: value in ("Right", "right"),
    "must be 'Right': texts are cut at their end",
    {"type": "string", "enum": ["Right", "right"]},
    "Where texts too long are cut: at their end.",
)
_OPTIONS: Fields = {"truncate": _TRUNCATE, "truncation_direction": _DIRECTION, "prompt_name": PROMPT_NAME}
EMBED: Fields = {
    "inputs": INPUTS,
    **_OPTIONS,
    "normalize": fields.flag("Give vectors length 1 (the default)."),
    "dimensions": DIMENSIONS,
    "force_dimensions": FORCE_DIMENSIONS,
    "encoding_format": fields.one_of("float", about="Vectors are lists of numbers here."),
}
"""What `POST /embed` takes."""
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
_VECTORS: Content = {"application/json": ref(Vectors)}


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
    cosines: Content = {"application/json": ref(Similarities)}
    return [
        post(prefix or "/", "embed_root", doors.embed, embed, _VECTORS, EMBED, texts),
        post(f"{prefix}/embed", "embed", doors.embed, embed, _VECTORS, EMBED, texts),
        post(f"{prefix}/similarity", "similarity", doors.similarity, "Cosines.", cosines, SIMILARITY, similar),
        info,
    ]


_Handler = Callable[[web.Request], Any]


class _Tei:
    """The handlers."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def embed(self, request: web.Request) -> web.Response:
        """`POST /embed`."""
        scheduled = self._door.scheduled(request)
        asked = await self._door.read(request, self._parser(request, self._embed_request))
        return await self._door.answer(await self._door.embed(request, asked, scheduled), asked, "arrays")

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

    def _similarity_request(self, document: dict[str, Any]) -> EmbeddingRequest:
        fields.check(document, SIMILARITY)
        pair, options = document["inputs"], document.get("parameters") or {}
        fields.check(pair, _PAIR)
        fields.check(options, _OPTIONS)
        if not pair["sentences"]:
            raise InvalidRequest("sentences is an empty list: there is nothing to compare", "inputs")
        return self._request([pair["source_sentence"], *pair["sentences"]], "inputs", options, normalize=None)

    def _request(
        self, given: Any, name: str, options: Mapping[str, Any], *, normalize: bool | None
    ) -> EmbeddingRequest:
        limits = self._door.limits
        found = items(given, name, self._door.engine.max_inputs, limits.total_characters)
        return EmbeddingRequest(
            items=found,
            dimensions=options.get("dimensions"),
            force_dimensions=bool(options.get("force_dimensions")),
            prompt_name=options.get("prompt_name"),
            truncate=options.get("truncate") is not False,
            normalize=normalize,
            bad=bad_items(found, limits.text_characters),
        )


def _info(name: str, info: ModelInfo | None) -> dict[str, Any]:
    return {
        "model_id": name,
        "model_sha": info.revision if info is not None else None,
        "model_dtype": info.precision if info is not None else None,
        "model_type": {"embedding": {}},
        "max_input_length": info.max_tokens if info is not None else None,
    }
