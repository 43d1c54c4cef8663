"""How a batch is cut into pieces: padded to their longest input each, or packed, with no padding at all. Pure."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """`tokens`: most padded tokens of a piece. `waste`: most padding, in tokens, before another piece is cheaper."""

    tokens: int
    waste: int


CPU = Limits(tokens=2048, waste=32)
"""Measured on 2 cores with MiniLM: beyond 4096 padded tokens activations leave the cache and speed falls by a third;
starting a forward costs as much as about 30 tokens."""

PACKED = 2048
"""Most tokens of a packed piece. Measured with MiniLM, processor time against 2048's: 1024 takes 2 to 4 % more, 4096
2 to 11 % more on mixed texts and 7 to 17 % more on long ones."""
LEAST = 128
"""Tokens of a lane, on average. Measured on two cores of a Zen 3 with MiniLM, two rows side by side, of the time of one
by both cores: of 32 tokens each 1.02 to 1.15, of 64 0.96 to 1.01, of 128 0.89 to 1.06, of 256 and 512 0.86 to 0.93."""
_UNEVEN = 1.1
"""Times its share of the tokens that the longest row may have: more would cost what is gained."""
SPREAD = Limits(tokens=8192, waste=1024)
"""Of tokens' vectors that are laid out by text for pooling: cheap, so that a call more costs more than some padding."""
SPREAD_GPU = Limits(tokens=1 << 17, waste=1 << 17)
"""The same on a GPU, where a call's cost is its launches: all at once, but for texts of such unlike lengths that the
padding would take memory as a forward does (1024 numbers a token in half precision: 256 MiB)."""


def rows(lengths: Sequence[int], tokens: int, lanes: int = 1) -> list[list[int]]:
    """Indices of `lengths` in pieces of about equally many tokens, at most `tokens` but for an input that has more.

    Each piece has long and short inputs, so that short ones fill the blocks of long ones (see `segments`). There are
    as many as each of the lanes gets equally many of, unless inputs are fewer.
    """
    count = -(-sum(lengths) // (tokens * lanes)) * lanes
    while True:
        cut = _dealt(lengths, count)
        if all(len(piece) == 1 or sum(lengths[index] for index in piece) <= tokens for piece in cut):
            return cut
        count += lanes


def beside(lengths: Sequence[int], tokens: int, lanes: int) -> list[list[int]] | None:
    """The same for rows that are computed side by side; None where that would leave lanes idle for too long."""
    whole = sum(lengths)
    if whole < lanes * LEAST:
        return None
    cut = rows(lengths, tokens, lanes)
    longest = max(sum(lengths[index] for index in piece) for piece in cut)
    turns = -(-len(cut) // lanes)
    return cut if turns * lanes * longest <= _UNEVEN * whole else None


def _dealt(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices in so many pieces at most: the longest first, each to the piece with the fewest tokens."""
    cut: list[list[int]] = [[] for _ in range(count)]
    held = [(0, place) for place in range(count)]
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        fewest, place = held[0]
        cut[place].append(index)
        heapq.heapreplace(held, (fewest + lengths[index], place))
    return [piece for piece in cut if piece]


def pieces(lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """Indices of `lengths` in pieces of like length, every index once; an input over the limit is a piece alone."""
    cut: list[list[int]] = []
    waste = longest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        count = len(cut[-1]) if cut else 0
        waste += count * (length - longest)
        if not cut or waste > limits.waste or (count + 1) * length > limits.tokens:
            cut.append([])
            waste = 0
        cut[-1].append(index)
        longest = length
    return cut
