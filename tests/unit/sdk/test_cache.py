"""The cache's file by itself."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from embedfleet.cache import Cache, Entry, Key

ONES = np.ones(25_000, np.float32)
"""A vector of 100 kB, so that ten fill a MiB."""


def key(text: str) -> Key:
    """The key of a text for one model."""
    return Key.of("f", None, None, text)


def test_every_part_of_a_key_counts() -> None:
    """No two of model, task, prompt, length and text make the same key, however their letters lie together."""
    keys = [
        Key.of("f", None, None, "a"), Key.of("g", None, None, "a"), Key.of("f", "query", None, "a"),
        Key.of("f", None, 4, "a"), Key.of("f", None, None, "b"), Key.of("f", None, None, "a", task="Sparse"),
        Key.of("fa", None, None, ""), Key.of("f", None, None, "\ud800"),
    ]  # fmt: skip
    assert len({one.digest for one in keys}) == len(keys)


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    """The file stays within its bound; what was asked for lately stays in it."""
    now = 1_000_000.0
    cache = Cache(tmp_path / "c", max_mib=1, clock=lambda: now)

    async def main() -> None:
        nonlocal now
        for number in range(10):
            now += 1
            await cache.keep([(key(str(number)), Entry(ONES))])
        now += 10_000
        assert len(await cache.find([key("0")])) == 1
        await cache.keep([(key("new"), Entry(ONES))])
        assert cache.size() <= 1024 * 1024
        found = await cache.find([key("0"), key("1"), key("new")])
        assert sorted(found) == [0, 2]
        for number in range(100):
            await cache.keep([(key(f"more {number}"), Entry(ONES))])
            assert cache.size() <= 1024 * 1024

    asyncio.run(main())
    cache.clear()
    assert cache.size() == 0
    cache.close()


def test_a_bound_must_be_one() -> None:
    """A cache of nothing is a mistake."""
    with pytest.raises(ValueError, match="max_mib is 0"):
        Cache("c", max_mib=0)
