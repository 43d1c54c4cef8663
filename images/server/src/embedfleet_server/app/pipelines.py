"""Pipelines over HTTP: a JSON document for each input, as one answer or as lines in order while they are made."""

import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
from aiohttp import HttpVersion11, web

from embedfleet_server.app import answers, fields
from embedfleet_server.app.document import decode
from embedfleet_server.app.door import Door
from embedfleet_server.app.errors import describe, printable
from embedfleet_server.app.fields import Field, Fields, kind
from embedfleet_server.app.requests import EMPTY, WRONG_TYPE, bad_items
from embedfleet_server.app.routes import Route
from embedfleet_server.app.shapes import PipelineAnswer, PipelineList, ref
from embedfleet_server.config import Limits
from embedfleet_server.engine.errors import EngineError, TooLarge
from embedfleet_server.engine.rows import Ragged, SparseRows
from embedfleet_server.pipelines.driver import Pipelines, Runner
from embedfleet_server.pipelines.errors import StepFailed
from embedfleet_server.pipelines.results import Failure, Result
from embedfleet_server.pipelines.values import Chunks, Codes, Scores, Texts, Value

NDJSON = "application/x-ndjson"
Encoding = Literal["float", "base64"]
Started = AbstractAsyncContextManager[AsyncIterator[Result]]
_LARGE_NUMBERS = 16_384  # floats that orjson writes in the better part of a millisecond (see `answers.ENCODERS`)
_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}
_INPUT: Mapping[str, Any] = {
    "anyOf": [
        _TEXT,
        {
            "type": "object",
            "properties": {
                "text": _TEXT,
                "texts": {"type": "array", "items": _TEXT, "minItems": 1},
                "query": {**_TEXT, "description": "What a step `rerank` scores the texts by."},
            },
            "additionalProperties": False,
        },
    ]
}
FIELDS: Fields = {
    "inputs": Field(
        lambda value: isinstance(value, list) and bool(value),
        "must be a list with at least one entry: texts, or objects with a text (or texts) and a query",
        {"type": "array", "items": _INPUT, "minItems": 1},
        "Each is run through the graph on its own.",
        required=True,
    ),
    "encoding_format": fields.one_of(
        "float", "base64", about="How arrays are written; base64 of little-endian numbers, with their shape."
    ),
}
"""What `POST /v1/pipelines/{name}` takes."""


@dataclass(frozen=True, slots=True)
class PipelineRequest:
    """A checked request; what is wrong with one input is that input's failure."""

    inputs: Sequence[Texts | Failure]
    encoding: Encoding = "float"


def routes(door: Door, pipelines: Pipelines) -> list[Route]:
    """The rows of pipelines."""
    doors = _Pipelines(door, pipelines)
    return [
        Route(
            method="POST",
            path="/v1/pipelines/{name}",
            name="run_pipeline",
            handler=doors.run,
            dialect="embedfleet",
            about="Inputs through a pipeline of the manifest; one that fails has an error, the others their outputs."
            " `Accept: application/x-ndjson` gives each as a line, in order, as soon as it is there.",
            gives={"application/json": ref(PipelineAnswer), NDJSON: {"type": "string"}},
            takes=FIELDS,
            example={"inputs": ["a document", "another"]},
        ),
        Route(
            method="GET",
            path="/v1/pipelines",
            name="pipelines",
            handler=doors.all,
            dialect="embedfleet",
            about="Every pipeline with its steps, and what keeps it from running, if anything does.",
            gives={"application/json": ref(PipelineList)},
        ),
    ]


class _Pipelines:
    """The handlers."""

    def __init__(self, door: Door, pipelines: Pipelines) -> None:
        self._door, self._pipelines = door, pipelines

    async def all(self, _: web.Request) -> web.Response:
        """`GET /v1/pipelines`."""
        listed = {"object": "list", "data": [_described(runner) for runner in self._pipelines.all]}
        return web.Response(body=orjson.dumps(listed), content_type=answers.JSON)

    async def run(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/pipelines/NAME`."""
        runner = self._pipelines.get(request.match_info["name"])
        scheduled = self._door.scheduled(request)
        asked = await self._door.read(request, self._parse)
        self._door.take(request)
        started = runner.run(
            asked.inputs, priority=scheduled.priority, tenant=scheduled.tenant, within=scheduled.within
        )
        if answers.accepts(request.headers.get("Accept"), NDJSON):
            return await self._stream(request, started, asked.encoding)
        async with started as results:
            pieces = [await self._line(result, asked.encoding) async for result in results]
        head = orjson.dumps({"object": "list", "pipeline": runner.pipeline.name})[:-1]
        return web.Response(body=b"".join((head, b',"data":[', b",".join(pieces), b"]}")), content_type=answers.JSON)

    async def _stream(self, request: web.Request, started: Started, encoding: Encoding) -> web.StreamResponse:
        """A line for each result; what ends the request as a whole is a last line that has no index."""
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        if request.version < HttpVersion11:
            response.force_close()  # no chunks there: the end of the connection is the end of the answer
        try:
            async with started as results:
                await response.prepare(request)
                async for result in results:
                    await response.write(await self._line(result, encoding) + b"\n")
        except EngineError as error:
            if not response.prepared:
                raise
            await response.write(describe(error, admitted=True).body() + b"\n")
        await response.write_eof()
        return response

    async def _line(self, result: Result, encoding: Encoding) -> bytes:
        is_large = sum(map(_numbers, result.values.values())) > _LARGE_NUMBERS
        return await self._door.run(lambda: encoded(result, encoding), elsewhere=is_large)

    def _parse(self, raw: bytes) -> PipelineRequest:
        return parse(raw, self._door.limits, max_inputs=self._door.engine.max_inputs)


def parse(body: bytes, limits: Limits, *, max_inputs: int) -> PipelineRequest:
    """The request in `body`; raises `InvalidRequest` or `TooLarge` for what concerns it as a whole."""
    document = decode(body)
    fields.check(document, FIELDS)
    given = document["inputs"]
    if len(given) > max_inputs:
        raise TooLarge(f"inputs holds {len(given)} entries; one request may carry at most {max_inputs}")
    made = [_input(one, limits.text_characters) for one in given]
    total = sum(len(text) for one in made if isinstance(one, Texts) for text in one.texts)
    if total > limits.total_characters:
        most = limits.total_characters
        raise TooLarge(f"inputs hold {total} characters; one request may carry at most {most}")
    return PipelineRequest(made, document.get("encoding_format") or "float")


def encoded(result: Result, encoding: Encoding) -> bytes:
    """The JSON document of one input."""
    if result.failure is not None:
        return orjson.dumps({"index": result.index, "error": failure(result.failure)})
    outputs = {name: _value(value, encoding) for name, value in result.values.items()}
    return orjson.dumps({"index": result.index, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)


def failure(failed: Failure) -> dict[str, str]:
    """A failure as it is answered: the step, a stable code, words."""
    error = failed.error
    if isinstance(error, StepFailed):
        return {"step": failed.step, "code": error.code, "message": printable(str(error))}
    told = describe(error, admitted=True)
    return {"step": failed.step, "code": told.row.code, "message": told.message}


def _input(given: Any, most: int) -> Texts | Failure:
    if isinstance(given, str):
        return _checked([given], None, most)
    if not isinstance(given, dict):
        return _bad(WRONG_TYPE, f"is {kind(given)}: it must be a text, or an object with a text (or texts) and a query")
    unknown = sorted({*given} - {"text", "texts", "query"})
    if unknown or ("text" in given) == ("texts" in given):
        words = f"has {unknown[0][:60]!r}" if unknown else "has both text and texts, or neither"
        return _bad(WRONG_TYPE, f"{words}: an object must have text or texts, and may have a query")
    texts = [given["text"]] if "text" in given else given["texts"]
    if not isinstance(texts, list):
        return _bad(WRONG_TYPE, f"texts is {kind(texts)}: it must be a list of texts")
    return _checked(texts, given.get("query"), most) if texts else _bad(EMPTY, "texts is empty: there is nothing to do")


def _checked(texts: list[Any], query: Any, most: int) -> Texts | Failure:
    wanted = texts if query is None else [*texts, query]
    if any(not isinstance(text, str) for text in wanted):
        wrong = next(text for text in wanted if not isinstance(text, str))
        return _bad(WRONG_TYPE, f"holds {kind(wrong)}; every text of it, and its query, must be a string")
    if bad := bad_items(wanted, most):
        return _bad(bad[min(bad)].code, bad[min(bad)].message)
    return Texts(texts, query)


def _bad(code: str, message: str) -> Failure:
    return Failure("input", StepFailed(code, message))


def _value(value: Value, encoding: Encoding) -> dict[str, Any]:
    """A value as named arrays, which both encodings call the same."""
    match value:
        case Chunks():
            pieces = value.pieces
            places = {name: [getattr(piece, name) for piece in pieces] for name in ("of", "start", "stop")}
            return {"kind": "chunks", "texts": list(value.texts), **places}
        case SparseRows():
            arrays = {"indices": value.indices, "values": value.values, "offsets": value.offsets}
            return {"kind": "sparse", "dimensions": value.dimensions, **_arrays(arrays, encoding)}
        case Ragged():
            return {"kind": "ragged", **_arrays({"vectors": value.vectors, "offsets": value.offsets}, encoding)}
        case Scores():
            return {"kind": "scores", **_arrays({"scores": value.values}, encoding)}
        case Codes():
            arrays = {"codes": value.values, "ranges": value.ranges, "offsets": value.offsets}
            return {"kind": "codes", "dimensions": value.dimensions, **_arrays(arrays, encoding)}
        case np.ndarray():
            return {"kind": "vectors", **_arrays({"vectors": value}, encoding)}
        case _:
            raise AssertionError(f"This is a bug: {type(value).__name__} is no output of a step")


def _arrays(arrays: Mapping[str, Any], encoding: Encoding) -> dict[str, Any]:
    there = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    return there if encoding == "float" else {name: _packed(array) for name, array in there.items()}


def _packed(array: Any) -> dict[str, Any]:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    text = binascii.b2a_base64(little.data, newline=False).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "base64": text}


def _numbers(value: Value) -> int:
    match value:
        case SparseRows():
            return len(value.indices)
        case Ragged():
            return int(value.vectors.size)
        case np.ndarray():
            return int(value.size)
        case Codes():
            return int(value.values.size)
        case _:
            return 0


def _described(runner: Runner) -> dict[str, Any]:
    pipeline = runner.pipeline
    return {
        "id": pipeline.name,
        "object": "pipeline",
        "parallel_executions": pipeline.parallel_executions,
        "steps": [
            {"name": step.name, "operation": step.operation, "model": step.model, "from": list(step.sources)}
            for step in pipeline.steps
        ],
        "outputs": list(pipeline.outputs),
        "problems": runner.problems(),
        **runner.figures,
    }
