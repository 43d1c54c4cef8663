"""A tokenizer shown at work: the tokens of a text, and the text of tokens. Nothing is cut, no prompt is put before."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from embedfleet_server.engine.errors import BadItems, ItemError
from embedfleet_server.engine.protocols import Token
from embedfleet_server.models.problems import ModelProblem

NO_UNICODE = "the text holds a lone surrogate, which is no Unicode character"


class Spelling:
    """Tokens and texts of one tokenizer; may be used by several threads at once."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is transformers'; a copy that neither cuts nor pads is made when it is first asked for."""
        self._from = tokenizer
        self._copy: Tokenizer | None = None
        self._making = threading.Lock()

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of every text, in order, with the special ones where `special`; raises `BadItems`."""
        if wrong := [ItemError(i, "invalid_input", NO_UNICODE) for i, text in enumerate(texts) if not is_unicode(text)]:
            raise BadItems(wrong)
        own = self._own()
        # One a call: several would take up the process's pool of tokenizer threads, which other calls wait for.
        made = [own.encode_batch([text], add_special_tokens=special)[0] for text in texts]
        return [_tokens(encoding, text) for encoding, text in zip(made, texts, strict=True)]

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """The text of every list of token ids, special ones shown where `special`."""
        texts: list[str] = self._own().decode_batch([list(one) for one in ids], skip_special_tokens=not special)
        return texts

    def _own(self) -> Tokenizer:
        with self._making:
            if self._copy is None:
                self._copy = copied(self._from)
            return self._copy


def _tokens(encoding: Encoding, text: str) -> list[Token]:
    """Each token with its piece of the text, and where that is in the text's UTF-8."""
    places = _bytes_before(text)
    whole = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True)
    return [
        Token(number, name, special=True, start=None, stop=None)
        if special
        else Token(number, text[start:stop], special=False, start=places[start], stop=places[stop])
        for number, name, special, (start, stop) in whole
    ]


def _bytes_before(text: str) -> Sequence[int]:
    """For each place in a text, its end too, how many bytes of UTF-8 are before it."""
    if text.isascii():
        return range(len(text) + 1)
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    lengths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    places: list[int] = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    return places


def copied(tokenizer: Any) -> Tokenizer:
    """A Rust tokenizer of one's own that neither cuts nor pads; `ModelProblem` where `tokenizer` has no such form."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelProblem(f"its tokenizer {type(tokenizer).__name__} has no fast (Rust) form")
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
    own.no_padding()
    own.no_truncation()
    return own


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded: lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
