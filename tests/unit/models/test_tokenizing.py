"""From texts and token ids to what a forward computes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from embedfleet_server.engine.errors import BadItems
from embedfleet_server.engine.protocols import Item, Model
from tests.support.loading import load
from tests.support.texts import mixed_texts
from tests.support.tiny_models import MAX_TOKENS, PROMPTS, make_bert


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "tiny", prompts=PROMPTS)


@pytest.fixture(scope="module")
def model(directory: Path) -> Model:
    return load(directory)


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Any:
    return AutoTokenizer.from_pretrained(directory)


def test_token_ids_are_the_tokenizers_own(model: Model, tokenizer: Any) -> None:
    """Special tokens, truncation and prompt included, as transformers' own call gives them."""
    texts = mixed_texts(100)
    for prompt in ("", *PROMPTS.values()):
        expected = tokenizer([prompt + text for text in texts], truncation=True, max_length=MAX_TOKENS)["input_ids"]
        assert [encoded.token_ids for encoded in model.encode(texts, prompt)] == expected


def test_only_what_lost_tokens_is_truncated(model: Model) -> None:
    """A text that fits exactly is whole; one more token and it is not."""
    word = model.encode(["self"], "")[0].token_ids
    assert len(word) == 3
    exact, more = model.encode(["self " * (MAX_TOKENS - 2), "self " * (MAX_TOKENS - 1)], "")
    assert (len(exact.token_ids), exact.truncated) == (MAX_TOKENS, False)
    assert (len(more.token_ids), more.truncated) == (MAX_TOKENS, True)


def test_token_ids_are_taken_as_they_are(model: Model) -> None:
    """No prompt and no special token is added; what is too long is cut."""
    short, long = model.encode([(5, 6, 7), range(1, MAX_TOKENS + 2)], PROMPTS["query"])
    assert (list(short.token_ids), short.truncated) == ([5, 6, 7], False)
    assert (list(long.token_ids), long.truncated) == (list(range(1, MAX_TOKENS + 1)), True)


def test_every_bad_item_is_named(model: Model) -> None:
    """Ids out of range, no ids and a lone surrogate, among good items: each has its index and its reason."""
    end = model.info.vocabulary
    items: list[Item] = ["good", [0, end], "lone \ud800", [1, end - 1], [-1], []]
    with pytest.raises(BadItems) as caught:
        model.encode(items, "")
    assert [(error.index, error.code) for error in caught.value.errors] == [
        (index, "invalid_input") for index in (1, 2, 4, 5)
    ]
    messages = [error.message for error in caught.value.errors]
    assert messages[0] == f"token id {end} is out of range: the model knows 0 to {end - 1}"
    assert "lone surrogate" in messages[1]
    assert "token id -1 is out of range" in messages[2]
    assert "empty" in messages[3]


def test_threads_may_encode_at_once(model: Model) -> None:
    """The tokenizer's state is fixed at load, so that calls do not disturb each other."""
    texts = mixed_texts(60)
    expected = model.encode(texts, "")
    with ThreadPoolExecutor(8) as threads:
        for made in threads.map(lambda _: model.encode(texts, ""), range(32)):
            assert made == expected


def test_a_prompt_left_out_of_the_pooling_is_counted(tmp_path: Path) -> None:
    """Its length is the prompt's tokens with the special one before them."""
    model = load(make_bert(tmp_path / "tiny", prompts=PROMPTS, include_prompt=False))
    plain, prompted = model.encode(["self"], "")[0], model.encode(["self"], "is ")[0]
    assert not hasattr(plain, "prompt_length")
    assert getattr(prompted, "prompt_length", 0) == len(prompted.token_ids) - len(plain.token_ids) + 1
