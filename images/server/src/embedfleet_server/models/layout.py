"""How a batch is cut into pieces that are padded to their longest input each. Pure."""

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
