"""The texts of a batch as one row of tokens: where each begins, and which of one length stand together. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Run:
    """Texts of one length next to each other: `count` times `length` tokens from the row's token `start` on."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """The token behind the last."""
        return self.start + self.count * self.length


def runs(lengths: Sequence[int]) -> list[Run]:
    """Texts of such lengths, one behind the other; fewest where they are sorted."""
    found: list[Run] = []
    start = 0
    for length in lengths:
        if found and found[-1].length == length:
            found[-1] = Run(found[-1].start, found[-1].count + 1, length)
        else:
            found.append(Run(start, 1, length))
        start += length
    return found


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
