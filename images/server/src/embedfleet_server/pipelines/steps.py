"""One step of one input: what it asks of the engine, and what it makes of values."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from embedfleet.api.pipelines import Embed, Pipeline, Step
from embedfleet_server.engine.delivery import Answer
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errand import Errand
from embedfleet_server.engine.errors import QueueFull
from embedfleet_server.engine.protocols import Item, ModelInfo, Pair, Token
from embedfleet_server.engine.rows import AnyRows, Ragged, Rows, SparseRows
from embedfleet_server.engine.scoring import scores
from embedfleet_server.engine.views import tokens_of
from embedfleet_server.pipelines import operations
from embedfleet_server.pipelines.errors import StepFailed
from embedfleet_server.pipelines.values import Chunks, Codes, Scores, Texts, Value

_T = TypeVar("_T")
Aside = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Has work done where it holds up nobody."""
_LARGE_CHARACTERS, _LARGE_NUMBERS = 50_000, 500_000  # what takes the better part of a millisecond to cut, or compute
_KINDS: Mapping[str, tuple[type[Any], ...]] = {
    "pool": (np.ndarray, Ragged),
    "normalize": (np.ndarray, Ragged),
    "truncate": (np.ndarray, Ragged),
    "quantize": (np.ndarray, Ragged),
    "concatenate": (np.ndarray,),
}
"""What a step reads of a model whose task was not known when the pipeline was checked."""
_WORDS: Mapping[type[Any], str] = {
    Texts: "texts", Chunks: "chunks", Scores: "scores", Codes: "codes",
    SparseRows: "sparse", Ragged: "ragged", np.ndarray: "vectors",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asking:
    """What every step of an input shares."""

    engine: Engine
    pipeline: Pipeline
    errand: Errand
    aside: Aside
    until: float
    """When the input's time is up, on the loop's clock."""

    async def value(self, step: Step, values: Mapping[str, Value]) -> Value:
        """What a step makes of the values that it reads; raises the engine's errors and `StepFailed`."""
        read = [values[name] for name in step.sources]
        if step.embed is not None:
            texts = cast("Texts | Chunks", read[0])
            return await (self._late(step.embed, texts) if step.embed.late else self._embed(step.embed, texts))
        if step.rerank is not None:
            return await self._rerank(step.rerank.model, cast("Texts | Chunks", read[0]))
        if step.chunk is not None:
            return await self._chunk(step, cast("Texts", read[0]))
        _check_kinds(step, read)
        return await self._compute(lambda: computed(step, read), sum(map(_numbers, read)) > _LARGE_NUMBERS)

    async def _embed(self, embed: Embed, given: Texts | Chunks) -> AnyRows:
        answer = await self._asked(embed.model, list(given.texts), input_type=_purpose(embed))
        rows: AnyRows = answer.rows
        return _own(rows, answer.info) if isinstance(rows, np.ndarray) else rows

    async def _rerank(self, model: str, given: Texts | Chunks) -> Scores:
        if given.query is None:
            raise StepFailed(
                "invalid_input", "the input has no query, which rerank needs: {query, text} or {query, texts}"
            )
        answer = await self._asked(model, [Pair(given.query, text) for text in given.texts])
        made = scores(answer.rows, answer.info.activation)
        if made.ndim > 1:
            raise StepFailed("shape", f"model {model!r} gives {made.shape[1]} scores a pair: it must give one")
        return Scores(made)

    async def _chunk(self, step: Step, given: Texts) -> Chunks:
        assert step.chunk is not None
        chunk, model = step.chunk, self.pipeline.counting_model(step)
        tokens = None if model is None else await self._tokens(model, given.texts)

        def cut() -> Chunks:
            if tokens is None:
                units: list[list[tuple[int, int]]] = [operations.sentences(text) for text in given.texts]
            else:
                places = map(operations.token_places, given.texts, tokens)
                units = [[place for place in own if place is not None] for own in places]
            return operations.chunked(given, units, chunk.size, chunk.overlap)

        return await self._compute(cut, sum(map(len, given.texts)) > _LARGE_CHARACTERS)

    async def _late(self, embed: Embed, given: Chunks | Texts) -> Rows:
        """Each text of the input in one forward; the mean of the vectors of each chunk's tokens."""
        assert isinstance(given, Chunks)
        texts = given.sources
        tokens = await self._tokens(embed.model, texts, special=True, purpose=_purpose(embed))
        info = self.engine.info(embed.model)
        assert info is not None
        _check_whole(tokens, info)
        ids: list[Item] = [[token.id for token in own] for own in tokens]
        answer = await self._asked(tokens_of(embed.model), ids)
        prompt = len(_prompt(info, embed).encode())
        made = []
        for of, (text, own) in enumerate(zip(texts, tokens, strict=True)):
            pieces = [piece for piece in given.pieces if piece.of == of]
            places = operations.token_places(text, own, prompt)
            made.append(operations.late(answer.rows.row(of), places, pieces, unit=info.normalized))
        return _own(np.concatenate(made), info)

    async def _tokens(
        self, model: str, texts: Sequence[str], *, special: bool = False, purpose: str | None = None
    ) -> list[list[Token]]:
        info = self.engine.info(model)
        if special and info is None:  # its prompts are known once it is loaded
            await self._tokens(model, texts)
            info = self.engine.info(model)
        name = purpose or (info.default_prompt if special and info is not None else None)
        prompt_name = name if info is not None and name in info.prompts else None
        return await self._admitted(
            lambda: self.engine.tokenize(
                model, texts, special=special, prompt_name=prompt_name, tenant=self.errand.tenant,
                within=self.errand.left(), errand=self.errand,
            )
        )  # fmt: skip

    async def _asked(self, model: str, items: list[Item], input_type: str | None = None) -> Answer:
        answer = await self._admitted(
            lambda: self.engine.embed(
                model, items, input_type=input_type, priority=self.errand.priority, tenant=self.errand.tenant,
                within=self.errand.left(), errand=self.errand,
            )
        )  # fmt: skip
        if answer.errors:
            first = answer.errors[min(answer.errors)]
            where = f"text {first.index}: " if len(items) > 1 else ""
            raise StepFailed(first.code, f"{where}{first.message}")
        return answer

    async def _admitted(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What `ask` gives; asked again while the queue is full, as long as the input has time."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await ask()
            except QueueFull as full:
                left = min(self.until - loop.time(), _seconds(self.errand.left()))
                if full.retry_after >= left:
                    raise
                await asyncio.sleep(full.retry_after)

    async def _compute(self, work: Callable[[], _T], is_large: bool) -> _T:
        if not is_large:
            return work()
        made: _T = await self.aside(work)
        return made


def computed(step: Step, read: Sequence[Value]) -> Value:
    """What a step that asks no model makes of the values it reads. Pure; raises `StepFailed`."""
    first: Any = read[0]
    if step.pool is not None:
        weights = cast("Scores | Chunks", read[1]) if len(read) > 1 else None
        return operations.pooled(first, step.pool, weights)
    if step.concatenate is not None:
        return operations.concatenated(cast("Sequence[Rows]", read))
    if step.normalize is not None:
        return operations.each(first, operations.normalized)
    if step.truncate is not None:
        dimensions = step.truncate.dimensions
        return operations.each(first, lambda rows: operations.truncated(rows, dimensions))
    assert step.quantize is not None
    return operations.quantised(first, step.quantize)


def _check_kinds(step: Step, read: Sequence[Value]) -> None:
    kinds = _KINDS[step.operation]
    for name, value in list(zip(step.sources, read, strict=True))[: 1 if step.pool is not None else None]:
        if not isinstance(value, kinds):
            wanted = " or ".join(_WORDS[kind] for kind in kinds)
            raise StepFailed("shape", f"{step.operation} must read {wanted}, and {name!r} gives {_WORDS[type(value)]}")


def _check_whole(tokens: Sequence[Sequence[Token]], info: ModelInfo) -> None:
    for own in tokens:
        if len(own) > info.max_tokens:
            raise StepFailed(
                "input_too_large",
                f"the text has {len(own)} tokens; late chunking takes it whole, at most {info.max_tokens} tokens",
            )


def _own(rows: Rows, info: ModelInfo) -> Rows:
    """As long as the model's vectors are by the manifest; with length 1 again where the model's have."""
    if rows.shape[1] == info.dimensions:
        return rows
    cut = operations.truncated(rows, info.dimensions)
    return operations.normalized(cut) if info.normalized else cut


def _purpose(embed: Embed) -> str | None:
    return None if embed.input is None else embed.input.lower()


def _prompt(info: ModelInfo, embed: Embed) -> str:
    name = _purpose(embed) or info.default_prompt
    return info.prompts.get(name, "") if name else ""


def _seconds(left: float | None) -> float:
    return float("inf") if left is None else left


def _numbers(value: Value) -> int:
    if isinstance(value, Ragged):
        return int(value.vectors.size)
    return int(value.size) if isinstance(value, np.ndarray) else 0
