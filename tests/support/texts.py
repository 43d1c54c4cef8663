"""Texts of mixed length, the same on every run: words in runs from the sources of the standard library."""

import os
import random
import re
from functools import cache
from pathlib import Path

_SOURCES = (
    "argparse",
    "ast",
    "asyncio/base_events",
    "calendar",
    "datetime",
    "decimal",
    "difflib",
    "doctest",
    "inspect",
)
_WORD = re.compile(r"[A-Za-z]{2,}")


@cache
def stdlib_words() -> tuple[str, ...]:
    """All words of some large modules of the standard library, in their order."""
    library = Path(os.__file__).parent
    files = [library / f"{name}.py" for name in _SOURCES]
    return tuple(word for file in files if file.is_file() for word in _WORD.findall(file.read_text(encoding="utf-8")))


def mixed_texts(count: int, *, seed: int = 20, mu: float = 2.9, sigma: float = 0.8) -> list[str]:
    """`count` texts whose word counts are lognormal(`mu`, `sigma`), each a run of the library's words."""
    draw, words = random.Random(seed), stdlib_words()
    texts = []
    for _ in range(count):
        length = max(1, round(draw.lognormvariate(mu, sigma)))
        start = draw.randrange(len(words) - length)
        texts.append(" ".join(words[start : start + length]))
    return texts
