"""A small model that honours the engine's protocol: vectors are hashes of token ids, the same in every process."""

import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from embedfleet_server.engine.errors import BadItems, DeviceLost, ItemError
from embedfleet_server.engine.faults import OutOfMemory
from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Pair, Rows, Side, Token

VOCABULARY = 1000
LOSE, FULL, NOT_FINITE, HOLD, BREAK = 995, 996, 997, 998, 999
"""Tokens of the words LOSE (the device is lost), FULL (out of memory), NOTFINITE (its row is NaN), HOLD (the forward
waits) and BREAK (the forward raises)."""
FIRST = 994
"""The special token."""
_WORDS = {"LOSE": LOSE, "FULL": FULL, "NOTFINITE": NOT_FINITE, "HOLD": HOLD, "BREAK": BREAK}

INFO = ModelInfo(
    name="semantic",
    task="Dense",
    dimensions=8,
    native_dimensions=8,
    max_tokens=16,
    vocabulary=VOCABULARY,
    fingerprint="f" * 64,
    precision="float32",
    device="cpu",
    revision="main",
    matryoshka=(8, 4),
    padded=False,
    normalized=True,
    prompts={"query": "query: ", "document": ""},
)


@dataclass(slots=True)
class Gate:
    """Holds forwards of the word HOLD: `reached` is set once one waits, `opened` lets it go on."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(60), "the test never opened the gate"


class FakeModel:
    """`engine.protocols.Model` without weights; `hold` is called by a forward of the word HOLD."""

    def __init__(self, name: str = "semantic", hold: Callable[[], None] = lambda: None, **changes: object) -> None:
        self.info = replace(INFO, name=name, **changes)  # type: ignore[arg-type]  # fields by name
        self._hold = hold

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """A token for each word; token ids as they are."""
        made = [token_ids(item, prompt) for item in items]
        wrong = [i for i, ids in enumerate(made) if not ids or not all(0 <= t < VOCABULARY for t in ids)]
        if wrong:
            raise BadItems([ItemError(i, "token_out_of_range", f"ids go from 0 to {VOCABULARY - 1}") for i in wrong])
        limit = self.info.max_tokens
        kept = [ids[-limit:] if side == "left" else ids[:limit] for ids in made]
        return [Encoded(few, truncated=len(ids) > limit) for few, ids in zip(kept, made, strict=True)]

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """A token for each word, and a special one before them."""
        first = [Token(FIRST, "[FIRST]", special=True, start=None, stop=None)] if special else []
        return [first + [_shown(word) for word in re.finditer(r"\S+", text)] for text in texts]

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """The ids themselves, as words."""
        return [" ".join(str(one) for one in row if special or one != FIRST) for row in ids]

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        """(n, native_dimensions) float32."""
        tokens = {token for item in batch for token in item.token_ids}
        if HOLD in tokens:
            self._hold()
        if LOSE in tokens:
            raise DeviceLost("CUDA error: an illegal memory access was encountered")
        if FULL in tokens:
            raise OutOfMemory("CUDA out of memory")
        if BREAK in tokens:
            raise RuntimeError("secret detail of the device")
        return np.stack([vector(item.token_ids, self.info.native_dimensions) for item in batch])

    def peak_mib(self) -> float | None:
        return None

    def close(self) -> None:
        """Holds nothing."""


def token_ids(item: Item, prompt: str = "") -> list[int]:
    """The tokens of an input."""
    return [_token(word) for word in (prompt + item).split()] if isinstance(item, str) else given_ids(item)


def given_ids(item: Item) -> list[int]:
    """The token ids that an input consists of."""
    assert not isinstance(item, str | Pair)
    return list(item)


def vector(ids: Sequence[int], dimensions: int = 8) -> Rows:
    """The model's row for these tokens: length 1, or NaN."""
    if NOT_FINITE in ids:
        return np.full(dimensions, np.nan, np.float32)
    seed = hashlib.sha256(repr(list(ids)).encode()).digest()
    row = np.random.default_rng(list(seed)).standard_normal(dimensions)
    made: Rows = (row / np.linalg.norm(row)).astype(np.float32)
    return made


def vectors(items: Sequence[Item], prompt: str = "") -> Rows:
    """The rows of several inputs, as the model alone would give them."""
    return np.stack([vector(token_ids(item, prompt)[: INFO.max_tokens]) for item in items])


def _shown(word: re.Match[str]) -> Token:
    return Token(_token(word[0]), word[0], special=False, start=word.start(), stop=word.end())


def _token(word: str) -> int:
    return _WORDS.get(word, int.from_bytes(hashlib.sha256(word.encode()).digest()[:2]) % FIRST)
