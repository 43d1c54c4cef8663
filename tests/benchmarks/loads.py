"""The texts that every part embeds, and the requests that carry them, prepared before any clock runs."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from tests.support.texts import mixed_texts, stdlib_words

MIXED = 2000
"""Texts in the mixed load."""
_SEED = 26  # with all-MiniLM-L6-v2's tokenizer and Python 3.11's library: mean 35.7 tokens, p50 25, longest 256
_SHORT_WORDS = 4
_LONG_WORDS = 400  # more than 256 tokens, where all-MiniLM-L6-v2 cuts
Format = Literal["float", "base64", "npy"]


@dataclass(frozen=True, slots=True)
class Pattern:
    """So many clients, each with one request of so many texts at a time."""

    clients: int
    texts: int

    def __str__(self) -> str:
        return f"{self.clients} clients x {self.texts} text{'s' if self.texts > 1 else ''}"


PATTERNS = (Pattern(64, 1), Pattern(8, 32), Pattern(4, 64))


def mix(count: int = MIXED) -> list[str]:
    """The mixed load: word counts lognormal (mu 2.9, sigma 0.8), words in runs from the standard library's sources."""
    return mixed_texts(count, seed=_SEED, mu=2.9, sigma=0.8)


def short(count: int) -> Iterator[str]:
    """Texts of four words each, where the number of requests is what counts; all differ within 70 000."""
    words = stdlib_words()
    for start in itertools.islice(itertools.cycle(range(len(words) - _SHORT_WORDS)), count):
        yield " ".join(words[start : start + _SHORT_WORDS])


def long(count: int) -> list[str]:
    """Texts that the model cuts at its longest input, all of one length then."""
    words = stdlib_words()
    starts = range(0, count * _LONG_WORDS, _LONG_WORDS)
    return [" ".join(words[start : start + _LONG_WORDS]) for start in starts]


def digest(texts: Sequence[str]) -> str:
    """The first hex digits of the texts' sha256: same digits, same load."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def chunks(texts: Sequence[str], size: int) -> list[list[str]]:
    """Runs of `size` texts; the last may be shorter."""
    return [list(texts[start : start + size]) for start in range(0, len(texts), size)]


def request(url: str, model: str, texts: Sequence[str], wanted: Format) -> bytes:
    """The bytes of one `POST /v1/embeddings` over a connection that is kept alive."""
    body = {"model": model, "input": list(texts)}
    if wanted == "base64":
        body["encoding_format"] = "base64"
    payload = json.dumps(body).encode()
    accept = "application/x-npy" if wanted == "npy" else "application/json"
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
        f"Accept: {accept}\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload
