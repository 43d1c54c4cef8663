"""Many texts through many requests: split lazily, several in flight, rows in the order of the texts."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from embedfleet.errors import BadInput, InputError, ProtocolError
from embedfleet.gate import Gate, Place
from embedfleet.wire import Rows

MAX_INPUTS = 128
"""Texts in one request: work per request stays small beside the forward, and several requests fill a batch."""

MAX_CHARACTERS = 500_000
"""Characters in one request, so that its body stays a few MB; one longer text goes alone."""

AHEAD = 2
"""Chunks begun ahead of the one that is next, as a multiple of what is in flight: one slow answer holds up nothing."""

_WANTED = "it must be a str"


@dataclass(frozen=True, slots=True)
class Chunk:
    """The texts of one request; `start` is the place of the first in the call."""

    start: int
    texts: list[str]


class Embed(Protocol):
    """Gets the vectors of one chunk written into the array that `place(d)` gives."""

    async def __call__(self, chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> None:
        """Returns once the rows are all there."""


Pull = Callable[[], Awaitable[Chunk | None]]
"""The next chunk, None after the last."""


def split(texts: Iterable[str], max_inputs: int = MAX_INPUTS, max_characters: int = MAX_CHARACTERS) -> Iterator[Chunk]:
    """Chunks of `texts`, taken from the iterable only as they are asked for; `BadInput` at one that is no str."""
    start, held, characters = 0, list[str](), 0
    for index, text in enumerate(_iterable(texts)):
        if not isinstance(text, str):
            raise BadInput.of([_not_text(index, text)])
        if held and (len(held) >= max_inputs or characters + len(text) > max_characters):
            yield Chunk(start, held)
            start, held, characters = index, [], 0
        held.append(text)
        characters += len(text)
    if held:
        yield Chunk(start, held)


def _iterable(texts: Iterable[Any]) -> Iterable[Any]:
    if isinstance(texts, str):
        raise BadInput("texts is one str; it must be an iterable of them")
    if isinstance(texts, bytes | bytearray | Mapping | AbstractSet) or not isinstance(texts, Iterable):
        raise BadInput(f"texts is {_shown(texts)}; it must be a str, or an iterable of str that has an order")
    if getattr(texts, "ndim", 1) != 1:
        raise BadInput(f"texts is {_shown(texts)} of {texts.ndim} dimensions; give one column of it")  # type: ignore[attr-defined]  # told by getattr
    return texts


def _not_text(index: int, value: object) -> InputError:
    return InputError(index, "invalid_type", f"is {_shown(value)}; {_WANTED}")


def _shown(value: object) -> str:
    if value is None:
        return "None"
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= 40 else text[:39] + '…'}"


def halves(chunk: Chunk, place: Callable[[int], Rows]) -> list[tuple[Chunk, Callable[[int], Rows]]]:
    """The two halves of `chunk`, each with its part of the chunk's place."""
    middle = len(chunk.texts) // 2
    first, second = Chunk(chunk.start, chunk.texts[:middle]), Chunk(chunk.start + middle, chunk.texts[middle:])
    return [(first, lambda d: place(d)[:middle]), (second, lambda d: place(d)[middle:])]


def check(texts: object) -> None:
    """`BadInput` listing every item of a list or tuple that is no str; other iterables are checked as they are read."""
    if isinstance(texts, list | tuple):
        errors = [_not_text(index, text) for index, text in enumerate(texts) if not isinstance(text, str)]
        if errors:
            raise BadInput.of(errors)


def length(texts: object) -> int | None:
    """How many texts there are, where that can be told before reading them."""
    return len(texts) if isinstance(texts, Sized) else None


class Result:
    """The rows of a call, put together from chunks that arrive in any order.

    With `total` known the one array is made when the first answer tells d, and every chunk is written in place.
    Otherwise chunks have arrays of their own until the end.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._whole: Rows | None = None
        self._blocks: dict[int, Rows] = {}
        self._count = 0
        self.dimensions: int | None = None
        self.fingerprint: str | None = None

    def place(self, chunk: Chunk, dimensions: int) -> Rows:
        """Where the rows of `chunk` belong."""
        if self.dimensions is None:
            self.dimensions = dimensions
            self._whole = None if self._total is None else np.empty((self._total, dimensions), np.float32)
        if dimensions != self.dimensions:
            raise ProtocolError(f"an answer has {dimensions} dimensions, those before had {self.dimensions}")
        if self._whole is not None:
            return self._whole[chunk.start : chunk.start + len(chunk.texts)]
        return self._blocks.setdefault(chunk.start, np.empty((len(chunk.texts), dimensions), np.float32))

    def made_by(self, fingerprint: str | None) -> None:
        """Rows came from the model of this fingerprint; `ProtocolError` when others came from another."""
        if self.fingerprint and fingerprint and fingerprint != self.fingerprint:
            raise ProtocolError(
                f"the model changed during the call (fingerprint {self.fingerprint}, then {fingerprint}):"
                " its vectors cannot be compared; embed all texts again"
            )
        self.fingerprint = fingerprint or self.fingerprint

    def counted(self, texts: int) -> None:
        """So many rows are in their place now."""
        self._count += texts

    def take(self, chunk: Chunk) -> Rows:
        """The rows of one chunk, which are then the result's no more; only where the total is not known."""
        return self._blocks.pop(chunk.start)

    def rows(self) -> Rows | None:
        """All rows, shape (n, d), float32, C-contiguous; None when there was no text."""
        if self._total is not None and self._count != self._total:
            raise BadInput(f"texts gave {self._count} texts and said that it had {self._total}")
        if self._whole is not None or self.dimensions is None:
            return self._whole
        count = sum(len(block) for block in self._blocks.values())
        whole = np.empty((count, self.dimensions), np.float32)
        for start in sorted(self._blocks):
            block = self._blocks.pop(start)  # given back as it is copied: the peak is the result, not twice that
            whole[start : start + len(block)] = block
        return whole


async def run(pull: Pull, embed: Embed, gate: Gate, result: Result, done: Callable[[int], None]) -> None:
    """Embed every chunk into `result`; `done(n)` after each n texts. The first error cancels the rest and is raised."""
    failed: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            while (chunk := await pull()) is not None:
                where = await gate.enter(len(chunk.texts))
                task = group.create_task(_one(chunk, where, embed, result, done))
                # Not in the task's own `finally`: one cancelled before its first step never gets there.
                task.add_done_callback(partial(_left, gate, where))
    except ExceptionGroup as several:
        failed = several.exceptions[0]
    if failed is not None:
        raise failed


def _left(gate: Gate, where: Place, _: "asyncio.Task[None]") -> None:
    gate.leave(where)


async def ordered(pull: Pull, embed: Embed, gate: Gate, result: Result) -> AsyncGenerator[Rows, None]:
    """The rows of chunk after chunk, those of some later chunks under way meanwhile."""
    window: deque[asyncio.Task[Rows]] = deque()
    ended = False
    try:
        while window or not ended:
            while not ended and len(window) < AHEAD * gate.limit:
                chunk = await pull()
                ended = chunk is None
                if chunk is not None:
                    window.append(asyncio.create_task(_rows(chunk, embed, gate, result)))
            if window:
                yield await window.popleft()
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)


async def _rows(chunk: Chunk, embed: Embed, gate: Gate, result: Result) -> Rows:
    where = await gate.enter(len(chunk.texts))
    try:
        await embed(chunk, where, lambda dimensions: result.place(chunk, dimensions))
        return result.take(chunk)
    finally:
        gate.leave(where)


async def _one(chunk: Chunk, where: Place, embed: Embed, result: Result, done: Callable[[int], None]) -> None:
    await embed(chunk, where, lambda dimensions: result.place(chunk, dimensions))
    result.counted(len(chunk.texts))
    done(len(chunk.texts))
