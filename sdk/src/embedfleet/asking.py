"""The tasks beside dense embedding, as requests: texts cut into what the server takes, answers put together."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from embedfleet import chunks, tasks
from embedfleet.attempts import Attempts
from embedfleet.chunks import Bounds, Chunk
from embedfleet.embedding import Line
from embedfleet.errors import BadInput
from embedfleet.gate import Gate
from embedfleet.tasks import NPZ, Ranked, SparseRows, Token, TokenRows
from embedfleet.wire import JSON, NPY, InputType, Rows, encode

T = TypeVar("T")

TOKENIZE_CHARACTERS = 250_000
"""The most that `/tokenize` takes in one request."""


@dataclass(frozen=True, slots=True)
class Question:
    """A route with what is asked of it: `body` makes the request of some texts, `read` reads the answer for so many."""

    path: str
    accept: str
    body: Callable[[list[str]], dict[str, Any]]
    read: Callable[[bytes, int], Any]
    model: str | None = None
    bounds: Bounds = chunks.DEFAULT_BOUNDS

    @property
    def route(self) -> str:
        """The path, of the model where one is named."""
        return self.path if self.model is None else f"/models/{quote(self.model, safe='')}{self.path}"


class Asker:
    """Asks questions over `line`; all texts or an error."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def rerank(
        self, query: str, texts: Iterable[str], model: str | None, top: int | None, *, raw: bool
    ) -> list[Ranked]:
        """The texts by how well they answer `query`, best first."""
        given = _texts(texts, {"query": query})
        if top is not None and top < 1:
            raise BadInput(f"top_n is {top}; it must be 1 or more")
        more = {"raw_scores": True} if raw else {}
        asks = Question("/rerank", NPY, lambda some: {"query": query, "texts": some, **more}, tasks.read_scores, model)
        parts = await self._all(asks, given)
        return tasks.ranked(np.concatenate([np.empty(0, np.float32), *parts]), given, top)

    async def sparse(self, texts: Iterable[str], model: str | None, input_type: InputType | None) -> SparseRows:
        """Sparse vectors of the texts."""
        asks = Question("/embed_sparse", NPZ, _inputs(input_type), tasks.read_sparse, model)
        parts = await self._all(asks, _some(texts))
        return tasks.join_sparse(parts)

    async def multi(self, texts: Iterable[str], model: str | None, input_type: InputType | None) -> TokenRows:
        """A vector for each token of the texts."""
        asks = Question("/embed_all", NPZ, _inputs(input_type), tasks.read_tokens_rows, model)
        return tasks.join_token_rows(await self._all(asks, _some(texts)))

    async def similarity(self, text: str, texts: Iterable[str], model: str | None) -> Rows:
        """The cosine of `text` with each of `texts`, shape (n,)."""
        given = _texts(texts, {"text": text})

        def body(some: list[str]) -> dict[str, Any]:
            return {"inputs": {"source_sentence": text, "sentences": some}}

        # One fewer than the server takes: the text itself is an input too.
        asks = Question("/similarity", JSON, body, tasks.read_numbers, model, Bounds(chunks.MAX_INPUTS - 1))
        return np.concatenate([np.empty(0, np.float32), *await self._all(asks, given, own=1)])

    async def tokenize(self, texts: Iterable[str], model: str | None, *, special: bool) -> list[list[Token]]:
        """The tokens of each text; nothing is cut."""
        more = {} if special else {"add_special_tokens": False}
        bounds = Bounds(characters=TOKENIZE_CHARACTERS, tokens=TOKENIZE_CHARACTERS)
        asks = Question("/tokenize", JSON, lambda some: {"inputs": some, **more}, tasks.read_tokens, model, bounds)
        return [tokens for part in await self._all(asks, _texts(texts, {})) for tokens in part]

    async def _all(self, asks: Question, texts: Sequence[str], own: int = 0) -> list[Any]:
        """The answers of all requests, in order; the first error cancels the rest."""
        cards = await self._line.models(False)  # noqa: FBT003  # "not anew", as `Line.models` says
        most = min((card.max_inputs for card in cards), default=chunks.MAX_INPUTS) - own
        bounds = Bounds(max(1, min(most, asks.bounds.inputs)), asks.bounds.characters, asks.bounds.tokens)
        try:
            async with asyncio.TaskGroup() as group:
                pieces = chunks.split(texts, bounds, window=0)
                made = [group.create_task(self._one(asks, chunk)) for chunk in pieces]
        except ExceptionGroup as several:
            failed: Exception = several.exceptions[0]
        else:
            return [task.result() for task in made]
        raise failed

    async def _one(self, asks: Question, chunk: Chunk) -> Any:
        body = encode(asks.body(chunk.texts))
        gate: Gate = self._line.gate
        attempts: Attempts = self._line.attempts
        where = await gate.enter(len(chunk.texts))

        async def once() -> Any:
            _, answer = await self._line.transport.ask(asks.route, body, asks.accept)
            return asks.read(answer, len(chunk.texts))

        try:
            return await attempts.until_answered(once, where)
        except BadInput as error:
            raise self._placed(error, chunk) from error
        finally:
            gate.leave(where)

    def _placed(self, error: BadInput, chunk: Chunk) -> BadInput:
        """The error counted over all texts rather than within the request."""
        inside = [one for one in error.errors if 0 <= one.index < len(chunk.texts)]
        if not inside:
            return error
        return BadInput.of([one.at(chunk.place(one.index)).about(chunk.texts[one.index]) for one in inside])


def _inputs(input_type: InputType | None) -> Callable[[list[str]], dict[str, Any]]:
    more = {} if input_type is None else {"input_type": input_type}
    return lambda some: {"inputs": some, **more}


def _some(texts: Iterable[str]) -> list[str]:
    """The texts, of which there must be one: the shape of no answer is not known."""
    given = _texts(texts, {})
    if not given:
        raise BadInput("texts is empty; give one text or more")
    return given


def _texts(texts: Iterable[str], alone: dict[str, str]) -> list[str]:
    for name, value in alone.items():
        if not isinstance(value, str):
            raise BadInput(f"{name} is {value!r}; it must be a str")
    given = list(chunks.readable(texts))
    chunks.check(given)
    return given
