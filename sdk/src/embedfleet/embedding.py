"""One call: from texts to rows, through the cache, in as many requests as it takes, bad texts set aside."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from embedfleet import chunks, stream
from embedfleet.answers import Answered
from embedfleet.attempts import Attempts
from embedfleet.cache import Cache, Entry, Key
from embedfleet.chunks import Bounds, Chunk
from embedfleet.errors import BadInput, InputError
from embedfleet.gate import Gate, Place
from embedfleet.tally import Tally
from embedfleet.transport import AttemptFailed, Transport
from embedfleet.wire import ModelCard, Options, Rows, card_of, request_body

OnError = Literal["raise", "nan", "collect"]
"""What becomes of texts that cannot be embedded."""

Ask = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Has some work done in the caller's thread."""


@dataclass(frozen=True, slots=True)
class Line:
    """The way to one server, shared by all calls of a client; `models(True)` asks anew what it has."""

    transport: Transport
    gate: Gate
    attempts: Attempts
    models: Callable[[bool], Awaitable[tuple[ModelCard, ...]]]


@dataclass(slots=True)
class Call:
    """One call: what it asks for, and what it counts. `deadline` is a time of the event loop."""

    line: Line
    options: Options
    on_error: OnError = "raise"
    cache: Cache | None = None
    deadline: float | None = None
    first: int = 0
    """The place of the first text."""
    tally: Tally = field(default_factory=Tally)
    cards: tuple[ModelCard, ...] = ()

    async def one(self, text: str) -> Rows:
        """The vector of one text, shape (1, d)."""
        if self.cache is not None:
            await self._prepare()
        result, chunk = stream.Result(1), Chunk(0, [text])
        where = await self.line.gate.enter(1)
        try:
            await self.fetch(chunk, where, lambda d: result.place(chunk, d))
        finally:
            self.line.gate.leave(where)
        result.settle(chunk)
        rows = result.rows()
        assert rows is not None
        return rows

    async def many(self, texts: Iterable[str], ask: Ask, done: Callable[[int], None]) -> Rows:
        """The vectors of all texts, shape (n, d)."""
        if self.on_error == "raise":
            chunks.check(texts)
        await self._prepare()
        result = stream.Result(chunks.length(texts))
        await stream.run(self._puller(texts, ask), self.fetch, self.line.gate, result, done)
        rows = result.rows()
        self._copied(result.copies())
        return rows if rows is not None else np.empty((0, await self.dimensions()), np.float32)

    async def arrays(self, texts: Iterable[str], ask: Ask) -> AsyncGenerator[Rows, None]:
        """The vectors as arrays of shape (k, d), in order."""
        await self._prepare()
        result = stream.Result(None, stream=True)
        pieces = stream.ordered(self._puller(texts, ask), self.fetch, self.line.gate, result)
        async with aclosing(pieces):
            async for chunk, rows in pieces:
                self._copied(chunk.copies)
                yield rows

    async def fetch(self, chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> None:
        """Write the rows of the texts of `chunk` into `place(d)`."""
        self.tally.repeated += len(chunk.copies)
        self.tally.errors |= {error.index: error for error in chunk.errors}
        if not chunk.texts:
            place(await self.dimensions())
        elif self.cache is None:
            await self._compute(chunk, where, place)
        else:
            await self._through(self.cache, chunk, where, place)

    async def dimensions(self) -> int:
        """Length of the vectors, asked from the model itself where its card does not know (it is not loaded yet)."""
        card = card_of(self.cards, self.options.model)
        known = self.options.dimensions or (card.dimensions if card is not None else None)
        return known or (await Call(self.line, self.options, deadline=self.deadline).one("a")).shape[1]

    async def _prepare(self) -> None:
        """Learn the server's limits; with a cache, which model it is now: its vectors are as good as that."""
        self.cards = await self.line.models(self.cache is not None)
        if self.cache is not None and (card := card_of(self.cards, self.options.model)) is not None:
            self.tally.made_by(card.fingerprint)

    def _puller(self, texts: Iterable[str], ask: Ask) -> stream.Pull:
        card = card_of(self.cards, self.options.model)
        most = min((card.max_inputs for card in self.cards), default=chunks.MAX_INPUTS)
        bounds = Bounds(min(most, chunks.MAX_INPUTS), text_tokens=card.max_tokens if card is not None else None)
        pieces = chunks.split(texts, bounds, keep_bad=self.on_error != "raise", first=self.first)
        return lambda: ask(lambda: next(pieces, None))

    async def _through(self, cache: Cache, chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> None:
        """What the cache has from there, the rest computed and put there."""
        before = self.tally.fingerprint
        found = await cache.find(self._keys(before, chunk.texts)) if before is not None else {}
        self._warn_of(cache)
        missing = [row for row in range(len(chunk.texts)) if row not in found]
        rows = await self._some(chunk, missing, where, place) if missing else None
        if missing and self.tally.fingerprint is not None:
            await self._keep(cache, chunk, missing, rows, self.tally.fingerprint)
        self._from_cache(chunk, found, place)

    def _from_cache(self, chunk: Chunk, found: dict[int, Entry], place: Callable[[int], Rows]) -> None:
        self.tally.cached += len(found)
        for row, entry in found.items():
            place(len(entry.vector))[row] = entry.vector
            if entry.truncated:
                self.tally.truncated.append(chunk.place(row))

    async def _keep(self, cache: Cache, chunk: Chunk, rows: list[int], made: Rows | None, fingerprint: str) -> None:
        assert made is not None
        cut, keys = set(self.tally.truncated), self._keys(fingerprint, [chunk.texts[row] for row in rows])
        good = np.isfinite(made.sum(axis=1))  # a row with any NaN sums up to NaN
        entries = [Entry(made[i].copy(), chunk.place(row) in cut) for i, row in enumerate(rows)]
        await cache.keep([(keys[i], entries[i]) for i in range(len(rows)) if good[i]])
        self._warn_of(cache)

    def _keys(self, fingerprint: str, texts: Sequence[str]) -> list[Key]:
        return [Key.of(fingerprint, self.options.input_type, self.options.dimensions, text) for text in texts]

    def _warn_of(self, cache: Cache) -> None:
        if (trouble := cache.trouble()) is not None:
            self.tally.warnings.append(trouble)

    async def _some(self, chunk: Chunk, rows: list[int], where: Place, place: Callable[[int], Rows]) -> Rows:
        """Compute some of the texts of `chunk`; their rows alone, which stand in `place(d)` as well."""
        part, made = chunk.part_of(rows), list[Rows]()
        whole = len(rows) == len(chunk.texts)

        def noted(dimensions: int) -> Rows:
            if not made:
                made.append(place(dimensions) if whole else np.empty((len(rows), dimensions), np.float32))
            return made[0]

        await self._compute(part, where, noted)
        if not whole:
            place(made[0].shape[1])[rows] = made[0]
        return made[0]

    async def _compute(self, chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> None:
        """Ask the server, for halves where the whole is too large and without the texts that it cannot take."""
        try:
            body = request_body(chunk.texts, self.options)
            answered = await self._ask(body, chunk, where, place)
        except AttemptFailed:
            for half, part in chunks.halves(chunk, place):
                await self._compute(half, where, part)
        except BadInput as error:
            await self._without(error, chunk, where, place)
        else:
            self._set_aside(chunk, answered.errors)
            self.tally.truncated += [chunk.place(row) for row in answered.truncated if row < len(chunk.texts)]

    async def _ask(self, body: bytes, chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> Answered:
        async def post() -> Answered:
            return await self.line.transport.post(body, len(chunk.texts), place, self._headers())

        return await self.line.attempts.until_answered(post, where, self.tally, may_split=len(chunk.texts) > 1)

    def _headers(self) -> dict[str, str]:
        if self.deadline is None:
            return {}
        left = self.deadline - asyncio.get_running_loop().time()
        return {"X-Embedfleet-Deadline-Milliseconds": str(max(1, round(left * 1000)))}

    async def _without(self, error: BadInput, chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> None:
        """The request was refused for some of its texts: the others again, alone."""
        bad = {one.index for one in error.errors if 0 <= one.index < len(chunk.texts)}
        if not bad:
            raise error
        self._set_aside(chunk, error.errors)
        good = [row for row in range(len(chunk.texts)) if row not in bad]
        if good:
            rows = await self._some(chunk, good, where, place)
            place(rows.shape[1])[sorted(bad)] = np.nan
        else:
            place(await self.dimensions())[:] = np.nan

    def _set_aside(self, chunk: Chunk, errors: Sequence[InputError]) -> None:
        """Note errors that are counted within `chunk`; `BadInput` where they are to be raised."""
        if not errors:
            return
        told = [one.at(chunk.place(one.index)).about(chunk.texts[one.index]) for one in errors]
        if self.on_error == "raise":
            raise BadInput.of(told)
        self.tally.errors |= {one.index: one for one in told}

    def _copied(self, copies: Iterable[tuple[int, int]]) -> None:
        """What was found of a text holds for its copies too."""
        if not self.tally.errors and not self.tally.truncated:
            return
        cut = set(self.tally.truncated)
        for to, source in copies:
            if source in self.tally.errors:
                self.tally.errors[to] = self.tally.errors[source].at(to)
            if source in cut:
                self.tally.truncated.append(to)
