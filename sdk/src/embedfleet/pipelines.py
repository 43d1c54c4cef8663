"""Pipelines of a service: inputs in, typed results out, in order while they are made.

`AsyncPipeline` is the core, `Pipeline` its synchronous twin on the portal's loop; `service.pipeline(name)` makes them.
"""

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedfleet.attempts import Attempts
from embedfleet.chunks import length
from embedfleet.errors import BadInput, ClientClosed, EmbedfleetError, ProtocolError
from embedfleet.gate import Gate
from embedfleet.portal import Caller, portal
from embedfleet.progress import Progress, reporter
from embedfleet.transport import Transport
from embedfleet.wire import Rows

T = TypeVar("T")
Input = str | Mapping[str, Any]
"""A text, or a mapping with `text` (or `texts`) and, for reranking, a `query`."""
Array = NDArray[Any]

MAX_INPUTS = 16
"""Inputs of one request: enough to keep a pipeline's own parallelism busy, few enough that results flow."""
MAX_CHARACTERS = 500_000
"""Characters of one request; one longer input goes alone."""
AHEAD = 2
"""Requests begun ahead of the one whose results are taken next."""


class StepFailed(EmbedfleetError, RuntimeError):
    """One input of a pipeline has no outputs. `step` says where, `code` is stable, `index` counts over the call."""

    def __init__(self, step: str, code: str, message: str, index: int) -> None:
        super().__init__(f"inputs[{index}], step {step!r}: {message}")
        self.step, self.code, self.message, self.index = step, code, message, index


@dataclass(frozen=True, slots=True)
class Chunks:
    """Pieces of the input's texts: characters `starts[i]` to before `stops[i]` of text number `of[i]`."""

    texts: tuple[str, ...]
    of: Array
    starts: Array
    stops: Array

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Sparse:
    """Rows of few numbers (CSR): row i has `indices` and `values` from `offsets[i]` to before `offsets[i + 1]`."""

    indices: Array
    values: Array
    offsets: Array
    dimensions: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def dense(self) -> Rows:
        """Shape (rows, dimensions), float32."""
        made = np.zeros((len(self), self.dimensions), np.float32)
        made[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.indices] = self.values
        return made


@dataclass(frozen=True, slots=True)
class Codes:
    """Quantised vectors, (n, bytes) int8. Int8: `ranges` (2, d) are the lowest and highest value of each dimension.

    With `offsets`, row i has the vectors from `offsets[i]` to before `offsets[i + 1]`.
    """

    values: Array
    dimensions: int
    ranges: Array | None = None
    offsets: Array | None = None


Value = Rows | Chunks | Sparse | Codes | list[Rows]
"""Vectors (n, d) and scores (n,) are arrays; ragged rows are a list of arrays, one (tokens, d) for each text."""


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """What became of one input; `result["step"]` is that output, or raises `StepFailed` where the input failed."""

    index: int
    outputs: Mapping[str, Value] = field(default_factory=dict)
    error: StepFailed | None = None

    def __getitem__(self, name: str) -> Value:
        if self.error is not None:
            raise self.error
        return self.outputs[name]

    @property
    def ok(self) -> bool:
        """Whether it has its outputs."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class PipelineCard:
    """A pipeline as the service tells of it."""

    name: str
    parallel_executions: int
    steps: tuple[Mapping[str, Any], ...]
    """Each with `name`, `operation`, `model` (or None) and `from`."""
    outputs: tuple[str, ...]
    problems: tuple[str, ...] = ()
    """What keeps it from running, if anything does."""


class Core(Protocol):
    """What a pipeline needs of its service's client."""

    _transport: Transport
    _gate: Gate
    _attempts: Attempts


Ask = Callable[[Callable[[], Any]], Any]


@dataclass(frozen=True, slots=True)
class _Group:
    start: int
    inputs: list[Input]


class AsyncPipeline:
    """One pipeline of a service, for `async` code."""

    def __init__(self, core: Core, name: str) -> None:
        self._core = core
        self.name = name

    async def run(self, inputs: Iterable[Input], *, progress: Progress = None) -> AsyncGenerator[PipelineResult]:
        """The result of each of `inputs` in their order, as they are made; see `Pipeline.run`."""
        with reporter(progress, length(inputs)) as done:
            async with aclosing(_results(self._core, self.name, inputs, _here)) as results:
                async for result in results:
                    done(1)
                    yield result

    def __repr__(self) -> str:
        return f"<AsyncPipeline {self.name!r}>"


class Pipeline:
    """One pipeline of a service; `service.pipeline(name)` makes it."""

    def __init__(self, core: Callable[[], Core], name: str) -> None:
        self._core = core
        self.name = name

    def run(self, inputs: Iterable[Input], *, progress: Progress = None) -> Iterator[PipelineResult]:
        """The result of each of `inputs` in their order, as they are made.

        Args:
            inputs: any iterable of texts, or of mappings with `text` (or `texts`) and `query`; read by the calling
                thread, a few requests ahead.
            progress: True: a bar; False: none; None: a bar where somebody looks; or a function of (done, total).

        Raises:
            BadInput: an entry that is neither a str nor a mapping.
            RequestRejected: no such pipeline, or one that does not fit its models.
            ServiceUnavailable: no answer in spite of retries.

        An input that fails is a result with an `error`, and the others go on. Leaving the loop cancels the rest.
        """
        callers: list[Caller] = []  # the caller of the step under way, since each step is a run of its own
        results = _results(self._core(), self.name, inputs, lambda work: callers[0].ask(work))  # noqa: PLW0108

        async def step(caller: Caller) -> PipelineResult | None:
            callers[:] = [caller]
            return await anext(results, None)

        async def close(_: Caller) -> None:
            await results.aclose()

        try:
            with reporter(progress, length(inputs)) as done:
                while (result := portal().run(step)) is not None:
                    done(1)
                    yield result
        finally:
            with suppress(ClientClosed):
                portal().run(close)

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}>"


async def listed(core: Core) -> tuple[PipelineCard, ...]:
    """The pipelines of the service."""

    async def once() -> tuple[PipelineCard, ...]:
        return read_cards(await core._transport.read("/v1/pipelines"))

    place = await core._gate.enter(0)
    try:
        return await core._attempts.until_answered(once, place)
    finally:
        core._gate.leave(place)


def read_cards(body: bytes) -> tuple[PipelineCard, ...]:
    """The list that `GET /v1/pipelines` answers."""
    try:
        return tuple(
            PipelineCard(
                one["id"],
                one["parallel_executions"],
                tuple(one["steps"]),
                tuple(one["outputs"]),
                tuple(one["problems"]),
            )
            for one in json.loads(body)["data"]
        )
    except (ValueError, LookupError, TypeError) as error:
        raise ProtocolError("the list of pipelines is not what an embedfleet server answers") from error


def read_result(line: bytes, start: int) -> PipelineResult:
    """One line of the answer of a request whose first input is number `start` of the call."""
    try:
        document = json.loads(line)
        index = start + int(document["index"])
        if (error := document.get("error")) is not None:
            return PipelineResult(index, error=StepFailed(error["step"], error["code"], error["message"], index))
        return PipelineResult(index, {name: _value(value) for name, value in document["outputs"].items()})
    except (ValueError, LookupError, TypeError) as error:
        raise ProtocolError("a result of the pipeline is not what an embedfleet server answers") from error


def as_json(result: PipelineResult) -> dict[str, Any]:
    """A result as plain JSON: arrays are lists."""
    if result.error is not None:
        told = {"step": result.error.step, "code": result.error.code, "message": result.error.message}
        return {"index": result.index, "error": told}
    return {"index": result.index, "outputs": {name: _plain(value) for name, value in result.outputs.items()}}


def _plain(value: Any) -> Any:
    match value:
        case np.ndarray():
            return value.tolist()
        case list():
            return [rows.tolist() for rows in value]
        case Chunks():
            places = zip(value.texts, value.of.tolist(), value.starts.tolist(), value.stops.tolist(), strict=True)
            return [{"text": text, "of": of, "start": start, "stop": stop} for text, of, start, stop in places]
        case Sparse():
            cut = list(zip(value.offsets, value.offsets[1:], strict=False))
            return [{"indices": value.indices[a:b].tolist(), "values": value.values[a:b].tolist()} for a, b in cut]
        case _:
            arrays = {"codes": value.values, "ranges": value.ranges, "offsets": value.offsets}
            kept = {name: array.tolist() for name, array in arrays.items() if array is not None}
            return {"dimensions": value.dimensions, **kept}


def _value(value: Mapping[str, Any]) -> Value:
    arrays = {name: _array(given) for name, given in value.items() if isinstance(given, dict)}
    match value["kind"]:
        case "vectors":
            return arrays["vectors"]
        case "scores":
            return arrays["scores"]
        case "chunks":
            of, starts, stops = (np.array(value[name], np.int64) for name in ("of", "start", "stop"))
            return Chunks(tuple(value["texts"]), of, starts, stops)
        case "sparse":
            return Sparse(arrays["indices"], arrays["values"], arrays["offsets"], value["dimensions"])
        case "ragged":
            return np.split(arrays["vectors"], arrays["offsets"][1:-1])
        case "codes":
            return Codes(arrays["codes"], value["dimensions"], arrays.get("ranges"), arrays.get("offsets"))
        case kind:
            raise ProtocolError(f"a value of the kind {kind!r}, which this version of the SDK does not know")


def _array(packed: Mapping[str, Any]) -> Array:
    kind = np.dtype(packed["dtype"]).newbyteorder("<")
    flat = np.frombuffer(base64.b64decode(packed["base64"]), kind)
    return flat.reshape(packed["shape"]).astype(kind.newbyteorder("="), copy=True)


async def _results(core: Core, name: str, inputs: Iterable[Input], ask: Ask) -> AsyncGenerator[PipelineResult]:
    """Requests one behind the other, some of them under way at once; their results in order."""
    groups = _groups(inputs)
    window: deque[asyncio.Task[list[PipelineResult]]] = deque()
    ended = False
    try:
        while window or not ended:
            while not ended and len(window) < 1 + AHEAD:
                group = await ask(lambda: next(groups, None))
                ended = group is None
                if group is not None:
                    window.append(asyncio.create_task(_asked(core, name, group)))
            if window:
                for result in await window.popleft():
                    yield result
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)


async def _asked(core: Core, name: str, group: _Group) -> list[PipelineResult]:
    body = json.dumps({"inputs": group.inputs, "encoding_format": "base64"}).encode()

    async def once() -> list[PipelineResult]:
        lines = await core._transport.lines(f"/v1/pipelines/{name}", body)
        results = [read_result(line, group.start) for line in lines]
        if len(results) != len(group.inputs):
            raise ProtocolError(f"{len(results)} results for {len(group.inputs)} inputs")
        return results

    place = await core._gate.enter(len(group.inputs))
    try:
        return await core._attempts.until_answered(once, place, start=group.start)
    finally:
        core._gate.leave(place)


def _groups(inputs: Iterable[Input]) -> Iterator[_Group]:
    if isinstance(inputs, str | Mapping):
        raise BadInput("inputs is one input; it must be an iterable of them")
    start, held, characters = 0, list[Input](), 0
    for index, one in enumerate(inputs):
        size = _size(one, index)
        if held and (len(held) >= MAX_INPUTS or characters + size > MAX_CHARACTERS):
            yield _Group(start, held)
            start, held, characters = index, [], 0
        held.append(one if isinstance(one, str) else dict(one))
        characters += size
    if held:
        yield _Group(start, held)


def _size(one: object, index: int) -> int:
    if isinstance(one, str):
        return len(one)
    if not isinstance(one, Mapping):
        raise BadInput(f"inputs[{index}] is {one!r:.60}; it must be a str, or a mapping with text or texts")
    return sum(len(str(value)) for value in one.values())


async def _here(work: Callable[[], T]) -> T:
    return work()
