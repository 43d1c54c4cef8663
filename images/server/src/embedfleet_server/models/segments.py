"""The texts of a batch as one row of tokens, cut into blocks for attention. Pure.

Attention is cheap beside the products of a layer, and its calls are not, when each length of a text has its own. So
texts share blocks of a few lengths, in which a mask tells them apart, and blocks of one length are one call. What a
block has left over is filling, and so is what rounds the row: oneDNN makes and keeps a primitive of 0.4 MiB for every
number of rows that a product meets, so that there are to be few.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
BLOCK = 64
"""Tokens of a block that texts share; a longer text is a block of its own."""
_STEP = 8  # blocks that are not full end at a multiple of it
_STEPS = ((64, 8), (256, 16), (512, 32), (2048, 64))
_FAR = 256
"""Rows of up to so many tokens have a multiple of that as their length; longer ones a multiple of the last. That makes
52 lengths up to 2048 tokens, so 208 primitives of a model whose layers are four products (see `layers`)."""


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks of one length next to each other: `count` times `length` tokens from the row's token `start` on.

    `shared`: a block of them holds more than one text, or filling.
    """

    start: int
    count: int
    length: int
    shared: bool

    @property
    def stop(self) -> int:
        """The token behind the last."""
        return self.start + self.count * self.length


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Where the tokens of some texts stand, in the texts' order: `places`, from each text's `first` on without a gap.

    `owners` is the text of each place; filling has none: -1. `seen`: whether other tokens see the one of a place; None
    where all are seen. `apart`: each text is a block, and is attended to by itself; filling at the end is in no run.
    """

    runs: tuple[Run, ...]
    first: Places
    places: Places
    owners: Places
    seen: NDArray[np.bool_] | None = None
    apart: bool = False


def row(lengths: Sequence[int]) -> Row:
    """Texts of such lengths in blocks, none over the end of one."""
    blocks = sorted(((_size(sum(lengths[text] for text in some)), some) for some in _blocks(lengths)), reverse=True)
    whole = sum(size for size, _ in blocks)
    last, some = blocks[-1]
    blocks[-1] = (last + rounded(whole) - whole, some)
    return Row(_runs(blocks, lengths), *_standing(blocks, lengths))


def hiding(row: Row, lengths: Sequence[int], seen: Sequence[int]) -> Row:
    """The row, where of each text the first `seen` tokens are seen, and no others."""
    places = np.arange(sum(lengths)) - np.repeat(starts(lengths), lengths)
    made = np.ones(len(row.owners), np.bool_)
    made[row.places] = places < np.repeat(np.asarray(seen), lengths)
    return replace(row, seen=made)


def apart(lengths: Sequence[int], whole: int) -> Row:
    """Texts of such lengths, each in a block of its own and like ones next to each other, filled up to `whole`."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    blocks = [(lengths[text], [text]) for text in order]
    first, places, owners = _standing(blocks, lengths)
    filling = np.full(whole - len(owners), -1, np.int64)
    return Row(_runs(blocks, lengths), first, places, np.concatenate([owners, filling]), apart=True)


def rounded(tokens: int) -> int:
    """The length of a row for at least so many tokens."""
    step = next((step for most, step in _STEPS if tokens <= most), _FAR)
    return -(-tokens // step) * step


def _blocks(lengths: Sequence[int]) -> list[list[int]]:
    """Texts that share a block, each with the first that has room for it; long ones come first."""
    least = min(lengths)
    made: list[list[int]] = []
    room: dict[int, int] = {}
    for text in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[text]
        block = next((block for block, left in room.items() if left >= length), len(made))
        if block == len(made):
            made.append([])
            room[block] = max(BLOCK, length)
        made[block].append(text)
        room[block] -= length
        if room[block] < least:
            del room[block]
    return made


def _size(used: int) -> int:
    """The length of a block with so many tokens in it."""
    return used if used > BLOCK else -(-used // _STEP) * _STEP


def _runs(blocks: Sequence[tuple[int, list[int]]], lengths: Sequence[int]) -> tuple[Run, ...]:
    found: list[Run] = []
    start = 0
    for size, group in groupby(blocks, key=lambda block: block[0]):
        texts = [some for _, some in group]
        shared = any(lengths[some[0]] != size for some in texts)
        found.append(Run(start, len(texts), size, shared))
        start = found[-1].stop
    return tuple(found)


def _standing(blocks: Sequence[tuple[int, list[int]]], lengths: Sequence[int]) -> tuple[Places, Places, Places]:
    """The first place of each text, the places of all texts' tokens, and the owners of all places."""
    first = np.zeros(len(lengths), np.int64)
    begins = 0
    for size, some in blocks:
        first[some] = begins + starts([lengths[text] for text in some])
        begins += size
    places = np.repeat(first - starts(lengths), lengths) + np.arange(sum(lengths))
    owners = np.full(begins, -1, np.int64)
    owners[places] = np.repeat(np.arange(len(lengths)), lengths)
    return first, places, owners


def starts(lengths: Sequence[int]) -> Places:
    """The first token of each text."""
    ends = np.cumsum(np.asarray(lengths, np.int64))
    first: Places = ends - np.asarray(lengths, np.int64)
    return first


def positions(ids: Places, lengths: Sequence[int], padding: int | None) -> Places:
    """Position of each token within its text, from 0.

    Where `padding` is given, as RoBERTa's kin have it: counted from behind the padding's id, and a token that is the
    padding itself is not counted and stands at that id.
    """
    first = np.repeat(starts(lengths), lengths)
    if padding is None:
        counted: Places = np.arange(len(ids), dtype=np.int64) - first
        return counted
    real = (ids != padding).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(real)])
    made: Places = (before[1:] - before[first]) * real + padding
    return made
