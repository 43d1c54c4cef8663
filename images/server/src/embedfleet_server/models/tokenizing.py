"""From texts, or token ids that a client made itself, to what a forward computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer

from embedfleet_server.engine.errors import BadItems, ItemError
from embedfleet_server.engine.protocols import Encoded, Item
from embedfleet_server.models.problems import ModelProblem

_CODE = "invalid_input"


@dataclass(frozen=True, slots=True)
class Prompted(Encoded):
    """An input whose first `prompt_length` tokens are a prompt that the pooling leaves out."""

    prompt_length: int = 0


class Tokenizing:
    """A model's tokenizer with its truncation fixed; may be used by several threads at once.

    Works on a copy of the Rust tokenizer: transformers' own wrapper changes truncation and padding at every call, which
    two threads cannot do at once.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, vocabulary: int, excludes_prompt: bool) -> None:
        self._tokenizer = _copy(tokenizer, max_tokens)
        self._special = frozenset(tokenizer.all_special_ids)
        self.max_tokens = max_tokens
        self.vocabulary = vocabulary
        self._excludes_prompt = excludes_prompt
        self._prompt_lengths: dict[str, int] = {"": 0}

    def encode(self, items: Sequence[Item], prompt: str) -> list[Encoded]:
        """Token ids of every item, in order, special tokens included, cut to the model's length.

        `prompt` is put before each text. Token ids are taken as they are: no prompt, no special token is added, as
        OpenAI's servers do. Raises `BadItems` naming every item that cannot be embedded.
        """
        texts = [prompt + item for item in items if isinstance(item, str)]
        errors: list[ItemError] = []
        encodings = iter(self._encodings(texts))
        prompt_length = self._prompt_length(prompt) if self._excludes_prompt and texts else 0
        result: list[Encoded] = []
        for index, item in enumerate(items):
            made = self._from_text(next(encodings), prompt_length) if isinstance(item, str) else self._from_ids(item)
            if isinstance(made, str):
                errors.append(ItemError(index, _CODE, made))
            else:
                result.append(made)
        if errors:
            raise BadItems(errors)
        return result

    def _encodings(self, texts: list[str]) -> Sequence[Encoding | None]:
        """One encoding per text; `None` for a text that is no Unicode, which only shows when the tokenizer meets it."""
        try:
            return self._tokenizer.encode_batch_fast(texts)
        except (TypeError, UnicodeEncodeError):
            return [self._tokenizer.encode(text) if _is_unicode(text) else None for text in texts]

    def _from_text(self, encoding: Encoding | None, prompt_length: int) -> Encoded | str:
        if encoding is None:
            return "the text holds a lone surrogate, which is no Unicode character"
        ids = encoding.ids
        if not ids:
            return "the text has no tokens"
        truncated = len(ids) >= self.max_tokens and bool(encoding.overflowing)
        if prompt_length:
            return Prompted(ids, truncated, prompt_length)
        return Encoded(ids, truncated)

    def _from_ids(self, ids: Sequence[int]) -> Encoded | str:
        if not ids:
            return "the list of token ids is empty"
        if min(ids) < 0 or max(ids) >= self.vocabulary:
            bad = next(token for token in ids if not 0 <= token < self.vocabulary)
            return f"token id {bad} is out of range: the model knows 0 to {self.vocabulary - 1}"
        return Encoded(list(ids[: self.max_tokens]), len(ids) > self.max_tokens)

    def _prompt_length(self, prompt: str) -> int:
        """Tokens of the prompt with the special ones before it, as sentence-transformers counts them."""
        if prompt not in self._prompt_lengths:
            ids = self._tokenizer.encode(prompt).ids
            self._prompt_lengths[prompt] = len(ids) - bool(ids and ids[-1] in self._special)
        return self._prompt_lengths[prompt]


def _copy(tokenizer: Any, max_tokens: int) -> Tokenizer:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelProblem(f"its tokenizer {type(tokenizer).__name__} has no fast (Rust) form")
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
    own.no_padding()
    own.no_truncation()
    if any(own.encode("probe").type_ids):
        raise ModelProblem("its tokenizer marks single texts with token types other than 0, which are not passed on")
    if max_tokens <= own.num_special_tokens_to_add(is_pair=False):
        raise ModelProblem(f"maxTokens {max_tokens} leaves no room for a text beside the special tokens")
    own.enable_truncation(max_tokens, direction=tokenizer.truncation_side)
    return own


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
