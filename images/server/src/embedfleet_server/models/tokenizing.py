"""From texts, or token ids that a client made itself, to what a forward computes."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer

from embedfleet_server.engine.errors import BadItems, ItemError
from embedfleet_server.engine.protocols import Encoded, Item, Pair, Side
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.spelling import NO_UNICODE, Spelling, copied, is_unicode

_CODE = "invalid_input"


@dataclass(frozen=True, slots=True)
class Prompted(Encoded):
    """An input whose first `prompt_length` tokens are a prompt that the pooling leaves out."""

    prompt_length: int = 0


@dataclass(frozen=True, slots=True)
class Paired(Encoded):
    """A pair whose model tells the two texts apart by token types, one for each token."""

    type_ids: Sequence[int] = ()


class Tokenizing:
    """A model's tokenizer with its truncation fixed; may be used by several threads at once.

    Works on a copy of the Rust tokenizer: transformers' own wrapper changes truncation and padding at every call, which
    two threads cannot do at once.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_tokens: int,
        vocabulary: int,
        excludes_prompt: bool = False,
        adds_special: bool = True,
    ) -> None:
        """`adds_special`: whether a text gets the tokenizer's special tokens."""
        self._cut = _Cut(_single(tokenizer, max_tokens), tokenizer.truncation_side, max_tokens)
        self._tokenizer = self._cut.of(None)
        self.spelling = Spelling(tokenizer)
        self._adds_special = adds_special
        self._special = frozenset(tokenizer.all_special_ids)
        self.max_tokens = max_tokens
        self.vocabulary = vocabulary
        self._excludes_prompt = excludes_prompt
        self._prompt_lengths: dict[str, int] = {"": 0}

    def encode(self, items: Sequence[Item], prompt: str, side: Side | None = None) -> list[Encoded]:
        """Token ids of every item, in order, special tokens included, cut to the model's length.

        `prompt` is put before each text. Token ids are taken as they are: no prompt, no special token is added, as
        OpenAI's servers do. `side` is the end that is cut, None the model's own.
        Raises `BadItems` naming every item that cannot be embedded.
        """
        texts = [prompt + item for item in items if isinstance(item, str)]
        encodings = iter(_encodings(self._cut.of(side), texts, adds_special=self._adds_special))
        prompt_length = self._prompt_length(prompt) if self._excludes_prompt and texts else 0
        return _checked(
            [
                self._from_text(next(encodings), prompt_length) if isinstance(item, str) else self._from_ids(item, side)
                for item in items
            ]
        )

    def _from_text(self, encoding: Encoding | None, prompt_length: int) -> Encoded | str:
        if encoding is None:
            return NO_UNICODE
        ids = encoding.ids
        if not ids:
            return "the text has no tokens"
        truncated = len(ids) >= self.max_tokens and bool(encoding.overflowing)
        if prompt_length:
            return Prompted(ids, truncated, prompt_length)
        return Encoded(ids, truncated)

    def _from_ids(self, ids: Sequence[int] | Pair, side: Side | None) -> Encoded | str:
        if isinstance(ids, Pair):
            return "is a pair of texts, which only a Rerank model takes"
        if not ids:
            return "the list of token ids is empty"
        if min(ids) < 0 or max(ids) >= self.vocabulary:
            bad = next(token for token in ids if not 0 <= token < self.vocabulary)
            return f"token id {bad} is out of range: the model knows 0 to {self.vocabulary - 1}"
        kept = ids[-self.max_tokens :] if self._cut.side(side) == "left" else ids[: self.max_tokens]
        return Encoded(list(kept), len(ids) > self.max_tokens)

    def _prompt_length(self, prompt: str) -> int:
        """Tokens of the prompt with the special ones before it, as sentence-transformers counts them."""
        if prompt not in self._prompt_lengths:
            ids = self._tokenizer.encode(prompt).ids
            self._prompt_lengths[prompt] = len(ids) - bool(ids and ids[-1] in self._special)
        return self._prompt_lengths[prompt]


class PairTokenizing:
    """A reranker's tokenizer: both texts in one input, the longer of them cut first."""

    def __init__(self, tokenizer: Any, *, max_tokens: int, vocabulary: int) -> None:
        own = _checked_length(copied(tokenizer), max_tokens, is_pair=True)
        self._cut = _Cut(own, tokenizer.truncation_side, max_tokens)
        self.spelling = Spelling(tokenizer)
        self.has_types = "token_type_ids" in tokenizer.model_input_names
        self.max_tokens = max_tokens
        self.vocabulary = vocabulary

    def encode(self, items: Sequence[Item], prompt: str, side: Side | None = None) -> list[Encoded]:
        """Token ids of every pair, in order; `prompt` is put before each query, `side` is cut. Raises `BadItems`."""
        pairs = [(prompt + item.query, item.text) for item in items if isinstance(item, Pair)]
        encodings = iter(self._encodings(pairs, self._cut.of(side)))
        return _checked(
            [
                self._from_pair(next(encodings)) if isinstance(item, Pair) else "must be a pair of a query and a text"
                for item in items
            ]
        )

    def _encodings(self, pairs: list[tuple[str, str]], tokenizer: Tokenizer) -> Sequence[Encoding | None]:
        try:
            return tokenizer.encode_batch_fast(pairs)
        except (TypeError, UnicodeEncodeError):
            return [tokenizer.encode(*pair) if all(map(is_unicode, pair)) else None for pair in pairs]

    def _from_pair(self, encoding: Encoding | None) -> Encoded | str:
        if encoding is None:
            return NO_UNICODE
        truncated = len(encoding.ids) >= self.max_tokens and bool(encoding.overflowing)
        return (
            Paired(encoding.ids, truncated, encoding.type_ids) if self.has_types else Encoded(encoding.ids, truncated)
        )


class _Cut:
    """A tokenizer for each end that may be cut; that of the other end is made when it is first asked for."""

    def __init__(self, own: Tokenizer, side: Side, max_tokens: int) -> None:
        self._own, self._max_tokens = side, max_tokens
        own.enable_truncation(max_tokens, direction=side)
        self._by_side: dict[Side, Tokenizer] = {side: own}
        self._making = threading.Lock()

    def side(self, asked: Side | None) -> Side:
        """The end that is cut."""
        return asked or self._own

    def of(self, asked: Side | None) -> Tokenizer:
        """The tokenizer that cuts there; a tokenizer itself cannot change that while others use it."""
        side = self.side(asked)
        if side not in self._by_side:
            with self._making:
                if side not in self._by_side:
                    self._by_side[side] = self._made(side)
        return self._by_side[side]

    def _made(self, side: Side) -> Tokenizer:
        own = self._by_side[self._own]
        made = Tokenizer.from_str(own.to_str())
        made.encode_special_tokens = own.encode_special_tokens
        made.enable_truncation(self._max_tokens, direction=side)
        return made


def _encodings(tokenizer: Tokenizer, texts: list[str], *, adds_special: bool) -> Sequence[Encoding | None]:
    """One encoding per text; `None` for a text that is no Unicode, which only shows when the tokenizer meets it."""
    try:
        return tokenizer.encode_batch_fast(texts, add_special_tokens=adds_special)
    except (TypeError, UnicodeEncodeError):
        return [tokenizer.encode(text, add_special_tokens=adds_special) if is_unicode(text) else None for text in texts]


def _checked(made: Sequence[Encoded | str]) -> list[Encoded]:
    """What was made of each item; where it is a text, that says what is wrong with the item."""
    errors = [ItemError(index, _CODE, one) for index, one in enumerate(made) if isinstance(one, str)]
    if errors:
        raise BadItems(errors)
    return [one for one in made if isinstance(one, Encoded)]


def _single(tokenizer: Any, max_tokens: int) -> Tokenizer:
    own = copied(tokenizer)
    if any(own.encode("probe").type_ids):
        raise ModelProblem("its tokenizer marks single texts with token types other than 0, which are not passed on")
    return _checked_length(own, max_tokens, is_pair=False)


def _checked_length(own: Tokenizer, max_tokens: int, *, is_pair: bool) -> Tokenizer:
    if max_tokens <= own.num_special_tokens_to_add(is_pair=is_pair):
        raise ModelProblem(f"maxTokens {max_tokens} leaves no room for a text beside the special tokens")
    return own
