"""OpenAI's routes: `/v1/embeddings` and `/v1/models`."""

import time
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from embedfleet_server.app import answers, listing
from embedfleet_server.app.door import PARTIAL_HEADER, Door, is_partial
from embedfleet_server.app.requests import OPENAI, EmbeddingRequest, parse
from embedfleet_server.app.routes import Route
from embedfleet_server.app.shapes import EmbeddingList, Model, ModelList, ref
from embedfleet_server.engine.errors import ModelNotFound

_GIVES = {"application/json": ref(EmbeddingList), answers.NPY: {"type": "string", "format": "binary"}}
_EXAMPLE = {"input": ["a text", "another"]}


def routes(door: Door) -> list[Route]:
    """The rows of this dialect."""
    doors = _OpenAI(door)
    about = "Vectors of texts or token ids, by a Dense model. `Accept: application/x-npy` gives the array itself."
    embeddings = {
        path: Route(
            method="POST",
            path=path,
            name=name,
            handler=doors.embeddings,
            dialect="OpenAI",
            about=about,
            gives=_GIVES,
            takes=OPENAI,
            example=_EXAMPLE,
            headers=PARTIAL_HEADER,
        )
        for path, name in (("/v1/embeddings", "embeddings"), ("/embeddings", "embeddings_alias"))
    }
    return [
        *embeddings.values(),
        Route(
            method="GET",
            path="/v1/models",
            name="models",
            handler=doors.models,
            dialect="OpenAI",
            about="Every model with its state and what it is.",
            gives={"application/json": ref(ModelList)},
        ),
        Route(
            method="GET",
            path="/v1/models/{model}",
            name="model",
            handler=doors.model,
            dialect="OpenAI",
            about="One model.",
            gives={"application/json": ref(Model)},
        ),
    ]


class _OpenAI:
    """The handlers."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._created = int(time.time())

    async def embeddings(self, request: web.Request) -> web.Response:
        """`POST /v1/embeddings`."""
        set_aside, scheduled = is_partial(request), self._door.scheduled(request)
        asked = await self._door.read(request, self._parse)
        made = await self._door.embed(request, asked, scheduled, set_aside=set_aside)
        return await self._door.answer(made, asked, answers.wanted(request.headers.get("Accept"), asked.encoding))

    async def models(self, _: web.Request) -> web.Response:
        """`GET /v1/models`."""
        return _json(listing.openai(self._door.engine, self._created))

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/NAME`."""
        name, listed = request.match_info["model"], listing.openai(self._door.engine, self._created)["data"]
        found = next((model for model in listed if model["id"] == name), None)
        if found is None:
            raise ModelNotFound(name[:80], [model["id"] for model in listed])
        return _json(found)

    def _parse(self, raw: bytes) -> EmbeddingRequest:
        limits = self._door.limits
        return parse(
            raw,
            max_inputs=self._door.engine.max_inputs,
            max_characters=limits.text_characters,
            max_total=limits.total_characters,
        )


def _json(value: Mapping[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
