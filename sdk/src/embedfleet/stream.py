"""Many texts through many requests: several in flight, rows in the order of the texts."""

import asyncio
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from embedfleet.chunks import Chunk
from embedfleet.errors import BadInput, ProtocolError
from embedfleet.gate import Gate, Place
from embedfleet.wire import Rows

AHEAD = 2
"""Chunks begun ahead of the one that is next, as a multiple of what is in flight: one slow answer holds up nothing."""

_GROWTH_BYTES = 32 * 1024 * 1024  # by which a result of unknown length grows: what it may be too large by for a moment
_COPIED_AT_ONCE = 4096  # rows: what NumPy holds twice while it copies them


class Embed(Protocol):
    """Gets the vectors of one chunk's texts written into the array that `place(d)` gives."""

    async def __call__(self, chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> None:
        """Returns once the rows are all there; `place` is called even where there is no text."""


Pull = Callable[[], Awaitable[Chunk | None]]
"""The next chunk, None after the last."""


class Growing:
    """Rows of which nobody knows how many there will be, as one array that never exists twice.

    It grows by pieces: the system moves large memory without copying it, where NumPy's `concatenate` would hold all
    rows a second time.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._step = max(1, _GROWTH_BYTES // (4 * dimensions))
        self._rows: Rows = np.empty((0, dimensions), np.float32)
        self._count = 0

    def write(self, start: int, rows: Rows) -> None:
        """Put `rows` at their places."""
        self._count = max(self._count, start + len(rows))
        if self._count > len(self._rows):
            pieces = -(-self._count // self._step)
            self._resize(pieces * self._step)
        self._rows[start : start + len(rows)] = rows

    def finish(self) -> Rows:
        """All rows up to the last, shape (n, d)."""
        self._resize(self._count)
        return self._rows

    def _resize(self, count: int) -> None:
        # No view of it lives longer than `write`, which NumPy cannot tell when a debugger or a profiler holds frames.
        self._rows.resize((count, self._dimensions), refcheck=False)


class Result:
    """The rows of a call, put together from chunks that arrive in any order.

    With `total` known the one array is made when the first answer tells d, and every chunk is written in place.
    Otherwise chunks have arrays of their own until they are whole; and until they are taken, when it is a `stream`.
    """

    def __init__(self, total: int | None, *, stream: bool = False) -> None:
        self._total = total
        self._stream = stream
        self._whole: Rows | None = None
        self._growing: Growing | None = None
        self._blocks: dict[int, Rows] = {}
        self._parts: dict[int, Rows] = {}
        self._to, self._from = array("q"), array("q")
        self._count = 0
        self.dimensions: int | None = None

    def place(self, chunk: Chunk, dimensions: int) -> Rows:
        """Where the rows of the texts of `chunk` are to be written."""
        block = self._block(chunk, dimensions)
        if chunk.offsets is None:
            return block
        if chunk.start not in self._parts:
            self._parts[chunk.start] = np.empty((len(chunk.texts), dimensions), np.float32)
        return self._parts[chunk.start]

    def settle(self, chunk: Chunk) -> None:
        """The rows of `chunk` are written: NaN where it has no text, and note what is a copy."""
        if chunk.offsets is not None:
            part = self._parts.pop(chunk.start)
            block = self._block(chunk, part.shape[1])
            block[list(chunk.offsets)] = part
            block[[error.index - chunk.start for error in chunk.errors]] = np.nan
        if self._growing is not None:
            self._growing.write(chunk.start, self._blocks.pop(chunk.start))
        self._count += chunk.count
        for to, source in chunk.copies:
            self._to.append(to)
            self._from.append(source)

    def take(self, chunk: Chunk) -> Rows:
        """The rows of one settled chunk, which are then the result's no more; only of a stream."""
        del self._to[:], self._from[:]
        return self._blocks.pop(chunk.start)

    def copies(self) -> Iterator[tuple[int, int]]:
        """Each place whose text stands earlier too, with that place."""
        return zip(self._to, self._from, strict=True)

    def rows(self) -> Rows | None:
        """All rows, shape (n, d), float32, C-contiguous; None when there was no text."""
        if self._total is not None and self._count != self._total:
            raise BadInput(f"texts gave {self._count} texts and said that it had {self._total}")
        if self.dimensions is None:
            return None
        whole = self._whole if self._growing is None else self._growing.finish()
        assert whole is not None
        to, source = np.asarray(self._to), np.asarray(self._from)
        for start in range(0, len(to), _COPIED_AT_ONCE):
            piece = slice(start, start + _COPIED_AT_ONCE)
            whole[to[piece]] = whole[source[piece]]
        return whole

    def _block(self, chunk: Chunk, dimensions: int) -> Rows:
        if self.dimensions is None:
            self.dimensions = dimensions
            if self._total is not None:
                self._whole = np.empty((self._total, dimensions), np.float32)
            elif not self._stream:
                self._growing = Growing(dimensions)
        if dimensions != self.dimensions:
            raise ProtocolError(f"an answer has {dimensions} dimensions, those before had {self.dimensions}")
        if self._whole is not None:
            return self._whole[chunk.start : chunk.start + chunk.count]
        if chunk.start not in self._blocks:
            self._blocks[chunk.start] = np.empty((chunk.count, dimensions), np.float32)
        return self._blocks[chunk.start]


class Recent:
    """Rows that were given out and may be copied by chunks to come."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, Rows]] = deque()

    def complete(self, chunk: Chunk, rows: Rows) -> None:
        """Write the copies of `chunk` into its `rows`; to be called in the order of the chunks."""
        self._blocks.append((chunk.start, rows))
        for to, source in chunk.copies:
            rows[to - chunk.start] = self._row(source)
        self._blocks[-1] = (chunk.start, rows.copy())  # those given out are the caller's to change
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= chunk.floor:
            self._blocks.popleft()

    def _row(self, place: int) -> Rows:
        start, rows = self._blocks[bisect_right(self._blocks, place, key=lambda block: block[0]) - 1]
        row: Rows = rows[place - start]
        return row


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


async def ordered(pull: Pull, embed: Embed, gate: Gate, result: Result) -> AsyncGenerator[tuple[Chunk, Rows], None]:
    """Chunk after chunk with its rows, those of some later chunks under way meanwhile.

    An error of `pull` is raised in its turn: after the chunks before it.
    """
    window: deque[asyncio.Task[tuple[Chunk, Rows]]] = deque()
    source, recent = _Source(pull), Recent()
    try:
        while window or not source.ended:
            while len(window) < AHEAD * gate.limit and (chunk := await source.next()) is not None:
                window.append(asyncio.create_task(_rows(chunk, embed, gate, result)))
            if window:
                chunk, rows = await window[0]
                window.popleft()
                recent.complete(chunk, rows)
                yield chunk, rows
        if source.failed is not None:
            raise source.failed
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)


class _Source:
    """The chunks up to the last, or up to the error that came instead of one."""

    def __init__(self, pull: Pull) -> None:
        self._pull = pull
        self.ended = False
        self.failed: Exception | None = None

    async def next(self) -> Chunk | None:
        """The next chunk; None once there is none."""
        if self.ended:
            return None
        try:
            chunk = await self._pull()
        except Exception as error:  # noqa: BLE001  # the caller's own iterable may raise anything; it is raised in turn
            self.failed, chunk = error, None
        self.ended = chunk is None
        return chunk


async def _rows(chunk: Chunk, embed: Embed, gate: Gate, result: Result) -> tuple[Chunk, Rows]:
    where = await gate.enter(len(chunk.texts))
    try:
        await embed(chunk, where, lambda dimensions: result.place(chunk, dimensions))
        result.settle(chunk)
        return chunk, result.take(chunk)
    finally:
        gate.leave(where)


async def _one(chunk: Chunk, where: Place, embed: Embed, result: Result, done: Callable[[int], None]) -> None:
    await embed(chunk, where, lambda dimensions: result.place(chunk, dimensions))
    result.settle(chunk)
    done(chunk.count)
