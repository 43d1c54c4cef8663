"""Vectors equal those of sentence-transformers for the same directory, alone and in company (S2)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from embedfleet.api.models import HuggingFaceSource, ModelSpec, Source
from embedfleet_server.engine.protocols import Encoded, Item
from embedfleet_server.models.dense import DenseModel
from embedfleet_server.models.loading import loader
from tests.support.loading import load
from tests.support.texts import mixed_texts
from tests.support.tiny_models import PROMPTS, TINY, make_bert, make_decoder
from tools import weights

pytestmark = pytest.mark.requirement("S2")
Array = NDArray[np.float32]
TEXTS = mixed_texts(500)
FLOAT32, BFLOAT16 = 0.99999, 0.999
PROMPTED = ["bert-prompts", "bert-prompt-left-out", "bert-prompt-left-out-weighted", "decoder-left"]


def cosines(left: Array, right: Array) -> Array:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosine: Array = (left * right).sum(axis=1) / lengths
    return cosine


def in_company(model: DenseModel, texts: list[str], prompt: str = "", size: int = 32) -> Array:
    """Batches as they come, short and long together."""
    encoded = model.encode(texts, prompt)
    return np.concatenate([model.forward(encoded[start : start + size]) for start in range(0, len(texts), size)])


def alone(model: DenseModel, texts: list[str], prompt: str = "") -> Array:
    return np.concatenate([model.forward([encoded]) for encoded in model.encode(texts, prompt)])


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tiny")
    return lambda name: root / name if (root / name).is_dir() else TINY[name](root / name)


@pytest.fixture(scope="module")
def mini_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    weights.fill(store)
    return store


def load_mini_lm(store: Path, **fields: str) -> DenseModel:
    source = Source(hugging_face=HuggingFaceSource(repo=weights.REPOSITORY))
    spec = ModelSpec(name="semantic", source=source, **{"dtype": "Float32", **fields})  # type: ignore[arg-type]
    model = loader(spec, store=store, offline=True, gpu_count=0)()
    assert isinstance(model, DenseModel)
    return model


@pytest.mark.parametrize("name", TINY)
def test_every_architecture_and_pooling(directories: Callable[[str], Path], name: str) -> None:
    """500 texts, alone and in company: cosine ≥ 0.99999 to `encode` of the same directory, and the same length."""
    directory = directories(name)
    reference = SentenceTransformer(str(directory), device="cpu")
    model = load(directory)
    prompt = reference.prompts.get(reference.default_prompt_name or "") or ""
    expected = reference.encode(TEXTS)
    for rows in (in_company(model, TEXTS, prompt), alone(model, TEXTS, prompt)):
        assert cosines(rows, expected).min() >= FLOAT32
        assert np.allclose(rows, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_every_architecture_in_bfloat16(directories: Callable[[str], Path], name: str) -> None:
    """In bfloat16: cosine ≥ 0.999 to the float32 of sentence-transformers."""
    directory = directories(name)
    model = load(directory, dtype="BFloat16")
    reference = SentenceTransformer(str(directory), device="cpu")
    prompt = reference.prompts.get(reference.default_prompt_name or "") or ""
    expected = reference.encode(TEXTS)
    assert cosines(in_company(model, TEXTS, prompt), expected).min() >= BFLOAT16


@pytest.mark.parametrize("name", PROMPTED)
def test_prompts(directories: Callable[[str], Path], name: str) -> None:
    """`encode_query` and `encode_document`, in one batch together, and the prompt makes a difference."""
    directory = directories(name)
    reference, model = SentenceTransformer(str(directory), device="cpu"), load(directory)
    texts = TEXTS[:100]
    mixed = [
        encoded
        for pair in zip(
            model.encode(texts, model.info.prompts["query"]),
            model.encode(texts, model.info.prompts["document"]),
            strict=True,
        )
        for encoded in pair
    ]
    rows = model.forward(mixed)
    queries, documents = reference.encode_query(texts), reference.encode_document(texts)
    assert cosines(rows[::2], queries).min() >= FLOAT32
    assert cosines(rows[1::2], documents).min() >= FLOAT32
    assert np.median(cosines(queries, documents)) < FLOAT32


def test_a_prompt_left_out_is_another_vector(directories: Callable[[str], Path]) -> None:
    """The tests above can fail: pooling with the prompt gives another vector than pooling without."""
    left_out, included = load(directories("bert-prompt-left-out")), load(directories("bert-prompts"))
    rows = [in_company(model, TEXTS[:50], PROMPTS["query"]) for model in (left_out, included)]
    assert np.median(cosines(*rows)) < FLOAT32


def test_token_ids_give_the_vector_of_their_text(directories: Callable[[str], Path]) -> None:
    """Token ids made by the model's own tokenizer, special tokens included, equal the text."""
    directory = directories("bert-mean")
    reference, model = SentenceTransformer(str(directory), device="cpu"), load(directory)
    ids: list[Item] = list(reference.tokenizer(TEXTS[:50], truncation=True)["input_ids"])
    rows = model.forward(model.encode(ids, "never put before ids"))
    assert cosines(rows, reference.encode(TEXTS[:50])).min() >= FLOAT32


def test_a_lowered_limit_cuts_as_sentence_transformers_cuts(directories: Callable[[str], Path]) -> None:
    """`maxTokens` is sentence-transformers' `max_seq_length`."""
    directory = directories("decoder-left")
    reference, model = SentenceTransformer(str(directory), device="cpu"), load(directory, max_tokens=16)
    reference.max_seq_length = 16
    assert sum(encoded.truncated for encoded in model.encode(TEXTS, "")) > 100
    assert cosines(in_company(model, TEXTS), reference.encode(TEXTS)).min() >= FLOAT32


def test_where_the_tokenizer_pads_does_not_matter(tmp_path: Path) -> None:
    """A decoder padded on the left by its own tokenizer, and on the right: the same vectors."""
    left, right = (load(make_decoder(tmp_path / side, padding_side=side)) for side in ("left", "right"))
    assert cosines(in_company(left, TEXTS[:50]), in_company(right, TEXTS[:50])).min() >= FLOAT32


def test_the_order_of_a_batch_is_the_order_of_its_rows(directories: Callable[[str], Path]) -> None:
    """However a batch is cut inside, row i is input i."""
    model = load(directories("modern-bert"))
    encoded: list[Encoded] = model.encode(TEXTS[:64], "")
    rows = model.forward(encoded)
    assert cosines(model.forward(encoded[::-1])[::-1], rows).min() >= FLOAT32
    others = cosines(rows, np.roll(rows, 1, axis=0))
    assert np.median(others) < 0.99


def test_normalize_equals_normalize_embeddings(tmp_path: Path) -> None:
    """`normalize: true` is `normalize_embeddings=True`."""
    directory = make_bert(tmp_path / "tiny", dense=16)
    expected = SentenceTransformer(str(directory), device="cpu").encode(TEXTS[:50], normalize_embeddings=True)
    assert np.allclose(in_company(load(directory, normalize=True), TEXTS[:50]), expected, atol=1e-5)


def test_all_mini_lm_in_company(mini_lm: Path) -> None:
    """The real all-MiniLM-L6-v2, from the local store: 500 mixed texts."""
    model = load_mini_lm(mini_lm)
    expected = SentenceTransformer(str(weights.packaged_model()), device="cpu").encode(TEXTS)
    rows = in_company(model, TEXTS)
    assert (model.info.dimensions, model.info.max_tokens, model.info.normalized) == (384, 256, True)
    assert cosines(rows, expected).min() >= FLOAT32
    assert cosines(alone(model, TEXTS[::10]), expected[::10]).min() >= FLOAT32


def test_all_mini_lm_in_bfloat16(mini_lm: Path) -> None:
    """The real weights in bfloat16, against float32."""
    model, exact = (load_mini_lm(mini_lm, dtype=dtype) for dtype in ("BFloat16", "Float32"))
    texts = TEXTS[::10]
    assert cosines(in_company(model, texts), in_company(exact, texts)).min() >= BFLOAT16
    assert model.info.fingerprint == exact.info.fingerprint
