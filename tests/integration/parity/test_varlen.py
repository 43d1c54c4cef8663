"""Batches packed as on a GPU, by a stand-in for its kernel or by the kernel itself, give what padded ones give (S2)."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer

from embedfleet_server.engine.protocols import Encoded, Model
from embedfleet_server.engine.rows import AnyRows, Ragged, SparseRows
from embedfleet_server.models import layout, packing, varlen
from embedfleet_server.models.dense import DenseForward, DenseModel
from embedfleet_server.models.packed import PackedVarlen
from embedfleet_server.models.sparse import SparseForward
from tests.support.loading import load, load_any
from tests.support.texts import mixed_texts
from tests.support.tiny_models import TINY, make_bert, make_mistral, make_roberta
from tests.support.tiny_tasks import FAMILIES, MULTI_VECTOR, SPARSE
from tests.support.varlen import STAND_IN, documented, needs_gpu

pytestmark = pytest.mark.requirement("S2", "S5")
TEXTS = mixed_texts(60)
LEAST = {"Float32": 0.99999, "BFloat16": 0.999, "Float16": 0.999}
PADDED = {
    "mpnet": "a GPU's packed attention knows no biases for distances, which MPNetModel has",
    "deberta": "DebertaV2Model does not take its attention from transformers' interface",
}
"""What cannot be packed, and why not."""
DENSE = {**TINY, "mistral": make_mistral, "roberta": make_roberta}
HALVED = ("bert-mean", "modern-bert", "gemma", "decoder-left")
Directories = Callable[[str], Path]
Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Directories:
    root, every = tmp_path_factory.mktemp("tiny"), {**DENSE, **SPARSE, **MULTI_VECTOR}
    return lambda name: root / name if (root / name).is_dir() else every[name](root / name)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Loads a model as a GPU would have it, but for the kernel, which runs there only."""
    own = packing.packed

    def loaded(directory: Path, kernel: varlen.Kernel = STAND_IN, **fields: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(packing, "packed", lambda *given, **more: own(*given, **{**more, "kernel": kernel}))
            return load_any(directory, **fields)

    return loaded


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Loads a model whose batches are padded, whatever it can."""

    def loaded(directory: Path, **fields: Any) -> Any:
        with monkeypatch.context() as patch:
            left = packing.Layout("padded", "by this test")
            patch.setattr(packing, "packed", lambda *_, **__: (None, left))
            return load_any(directory, **fields)

    return loaded


def cosines(left: Array, right: Array) -> Array:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / lengths)


def closeness(left: Array, right: Array) -> float:
    return float(cosines(left, right).min())


def vectors(rows: AnyRows) -> Array:
    """All that there are, whatever the task."""
    return rows.vectors if isinstance(rows, Ragged) else rows.dense() if isinstance(rows, SparseRows) else rows


def kind_of(model: DenseModel) -> type:
    return type(model._forward.packed)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "Float32") for name in DENSE), *((name, dtype) for name in HALVED for dtype in ("BFloat16", "Float16"))],
)
def test_packed_as_on_a_gpu_and_padded_give_the_same(
    directories: Directories,
    as_on_a_gpu: Callable[..., Any],
    padded: Callable[..., Any],
    name: str,
    dtype: str,
) -> None:
    """60 texts in one batch, of each architecture, pooling and precision, against the padded form in float32."""
    model, other = as_on_a_gpu(directories(name), dtype=dtype), padded(directories(name))
    expected = ("padded", PADDED[name]) if name in PADDED else ("packed", "next to no padding is computed")
    assert (model.info.layout, model.info.layout_reason) == expected
    assert kind_of(model) is (PackedVarlen if name not in PADDED else type(None))
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), other.forward(encoded)) >= LEAST[dtype]


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("bert-mean", [(-1, -1)]),
        ("xlm-roberta", [(-1, -1)]),
        ("distil-bert", [(-1, -1)]),
        ("modern-bert", [(-1, -1), (4, 4)]),
        ("gemma", [(-1, -1), (4, 4)]),
        ("decoder-left", [(-1, 0)]),
        ("mistral", [(7, 0)]),
        ("roberta", [(-1, -1)]),
    ],
)
def test_the_kernel_is_told_each_layers_window(
    directories: Directories, as_on_a_gpu: Callable[..., Any], name: str, windows: list[tuple[int, int]]
) -> None:
    """By the model's own mask: all, causal, or a window in some layers, in one call of each layer for all texts."""
    told: list[tuple[int, int]] = []

    @functools.wraps(documented)
    def kernel(*given: Any, window_size: tuple[int, int], **more: Any) -> torch.Tensor:
        told.append(window_size)
        return documented(*given, window_size=window_size, **more)

    model = as_on_a_gpu(directories(name), kernel=varlen.adapted(kernel))
    told.clear()
    model.forward(model.encode(TEXTS, ""))
    assert (len(told), sorted(set(told))) == (2, windows)


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_rows(
    directories: Directories, as_on_a_gpu: Callable[..., Any], padded: Callable[..., Any], name: str
) -> None:
    """The words' weights, pooled where the texts stand or laid out by text."""
    model, other = as_on_a_gpu(directories(name)), padded(directories(name))
    assert model.info.layout == "packed"
    encoded = model.encode(TEXTS, "", "document")
    rows, expected = model.forward(encoded), other.forward(encoded)
    assert isinstance(rows, SparseRows)
    assert closeness(rows.dense(), expected.dense()) >= LEAST["Float32"]


@pytest.mark.parametrize("input_type", ["query", "document"])
@pytest.mark.parametrize("name", MULTI_VECTOR)
def test_vectors_of_tokens(
    directories: Directories,
    as_on_a_gpu: Callable[..., Any],
    padded: Callable[..., Any],
    name: str,
    input_type: str,
) -> None:
    """Those that count, of a ColBERT, packed where it can be."""
    model, other = as_on_a_gpu(directories(name)), padded(directories(name))
    encoded = model.encode(TEXTS, model.info.prompts.get(input_type, ""), input_type)
    rows, expected = model.forward(encoded), other.forward(encoded)
    assert isinstance(rows, Ragged)
    assert np.array_equal(rows.offsets, expected.offsets)
    assert closeness(rows.vectors, expected.vectors) >= LEAST["Float32"]


def test_late_chunking(directories: Directories, as_on_a_gpu: Callable[..., Any], padded: Callable[..., Any]) -> None:
    """A dense model's own tokens, which leave the device in one piece."""
    model, other = (each(directories("bert-mean")).token_vectors() for each in (as_on_a_gpu, padded))
    rows, expected = (each.forward(each.encode(TEXTS, "")) for each in (model, other))
    assert np.array_equal(rows.offsets, expected.offsets)
    assert closeness(rows.vectors, expected.vectors) >= LEAST["Float32"]


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=30), seed=st.integers(0, 100))
def test_any_texts(lengths: list[int], seed: int) -> None:
    """Of any lengths, in any order, with windows: each text's vectors are those it has alone."""
    found = _of_mistral()
    random = np.random.default_rng(seed)
    texts = [random.integers(2, 200, length).tolist() for length in lengths]
    with torch.inference_mode():
        tokens = found(texts)
        alone = [found([text])[0] for text in texts]
    assert tokens.first == np.cumsum([0, *lengths[:-1]]).tolist()
    assert len(tokens.row) == sum(lengths)
    for made, expected in zip(tokens, alone, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    some = random.permutation(len(texts))[: max(1, len(texts) // 2)].tolist()
    whole = found.spread(tokens, some)
    assert whole.shape[:2] == (len(some), max(lengths[text] for text in some))
    for row, text in zip(whole, some, strict=True):
        assert torch.equal(row[: lengths[text]], tokens[text])


@functools.cache
def _of_mistral() -> PackedVarlen:
    with tempfile.TemporaryDirectory() as folder:
        transformer = _transformer(make_mistral(Path(folder) / "mistral"))
    found, told = packing.packed(transformer, vocabulary=200, most=64, kernel=STAND_IN)
    assert isinstance(found, PackedVarlen), told
    return found


def _transformer(directory: Path) -> Transformer:
    encoder: Any = SentenceTransformer(str(directory), device="cpu")
    transformer: Transformer = encoder.eval()[0]
    return transformer


@pytest.mark.parametrize(("window", "asked"), [(8, [300]), (320, [300, 364]), (600, [300])])
def test_a_window_wider_than_the_trials_texts_has_a_trial_of_its_own(
    tmp_path: Path, window: int, asked: list[int]
) -> None:
    """One more text goes beyond it, unless no text of the model's does: a kernel that forgets it is found out."""
    transformer = _transformer(make_mistral(tmp_path / "wide", window=window, tokens=512))
    longest: list[int] = []

    @functools.wraps(documented)
    def forgetful(*given: Any, window_size: tuple[int, int], **more: Any) -> torch.Tensor:
        longest.append(given[5])
        return documented(*given, window_size=(-1, 0) if window_size[0] >= 300 else window_size, **more)

    found, told = packing.packed(transformer, vocabulary=200, most=512, kernel=varlen.adapted(forgetful))
    assert sorted(set(longest)) == asked
    assert (found is None) is (window == 320)
    assert ("cannot be packed: a cosine of" in told.reason) is (window == 320)


def test_a_kernel_that_is_wrong_is_found_out(
    directories: Directories, as_on_a_gpu: Callable[..., Any], padded: Callable[..., Any]
) -> None:
    """A row in which texts see each other: the trial shows it, the model stays padded, as it was."""

    @functools.wraps(documented)
    def wrong(query: Any, key: Any, value: Any, bounds: torch.Tensor, *_: Any, **more: Any) -> torch.Tensor:
        whole = torch.tensor([0, len(query)], dtype=torch.int32)
        return documented(query, key, value, whole, whole, len(query), len(query), **more)

    model = as_on_a_gpu(directories("bert-mean"), kernel=varlen.adapted(wrong))
    assert model.info.layout == "padded"
    assert "BertModel cannot be packed: a cosine of" in model.info.layout_reason
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), padded(directories("bert-mean")).forward(encoded)) >= 0.99999


@pytest.mark.parametrize("error", [RuntimeError("No viable backend for varlen_attn."), ValueError("scale")])
def test_a_kernel_that_fails_leaves_the_model_padded(
    directories: Directories, as_on_a_gpu: Callable[..., Any], error: Exception
) -> None:
    """With the kernel's own words as the reason."""

    def failing(*_: Any, **__: Any) -> torch.Tensor:
        raise error

    model = as_on_a_gpu(directories("bert-mean"), kernel=varlen.adapted(failing))
    said = f"BertModel cannot be packed: {type(error).__name__}: {error}"
    assert (model.info.layout, model.info.layout_reason) == ("padded", said)
    assert np.isfinite(model.forward(model.encode(TEXTS, ""))).all()


def test_what_a_batch_costs_on_a_gpu(tmp_path: Path) -> None:
    """Padded it costs its padding, packed it does not; either way it goes at once, but for logits that have no room."""
    transformer = _transformer(make_bert(tmp_path / "bert"))
    found, _ = packing.packed(transformer, vocabulary=200, most=64, kernel=STAND_IN)
    assert found is not None
    batch = [Encoded([1] * length) for length in (512, 3, 64) * 400]
    packed = DenseForward([transformer], device="cuda:0", pad=0, packed=found)
    padded = DenseForward([transformer], device="cuda:0", pad=0)
    assert (packed.pads, padded.pads) == (False, True)
    assert [len(piece) for piece in packed.cut(batch)] == [len(piece) for piece in padded.cut(batch)] == [1200]
    sparse = SparseForward(
        [transformer], device="cuda:0", pad=0, vocabulary=30_522, max_active=None, packed=found
    )  # fmt: skip
    pieces = list(sparse.cut(batch))
    assert sorted(index for piece in pieces for index in piece) == list(range(1200))
    tokens = [sum(len(batch[index].token_ids) for index in piece) for piece in pieces]
    assert max(tokens) <= 2**30 // 4 // 30_522
    assert len(pieces) == -(-sum(tokens) // (2**30 // 4 // 30_522))


def test_texts_of_unlike_lengths_are_laid_out_within_bounds() -> None:
    """On a GPU a batch of like lengths is laid out for pooling at once; a long text among many short ones is not."""
    assert len(layout.pieces([512] * 256, layout.SPREAD_GPU)) == 1
    assert len(layout.pieces([8] * 4096, layout.SPREAD_GPU)) == 1
    pieces = layout.pieces([8] * 255 + [8192], layout.SPREAD_GPU)
    assert [len(piece) for piece in pieces] == [255, 1]


@needs_gpu
@pytest.mark.parametrize("dtype", ["BFloat16", "Float16"])
@pytest.mark.parametrize("name", [*DENSE, *(f"{kind}-{family}" for kind in ("splade", "late") for family in FAMILIES)])
def test_packed_by_the_kernel_itself(
    directories: Directories, padded: Callable[..., Any], name: str, dtype: str
) -> None:
    """On a GPU, as the server loads and computes it, against the padded form in float32 on the CPU."""
    model: Model = load_any(directories(name), gpu_count=1, dtype=dtype)
    other = padded(directories(name))
    assert (model.info.layout, model.info.padded) == (("padded", True) if name in PADDED else ("packed", False))
    encoded = model.encode(TEXTS, "", "document")
    rows, expected = model.forward(encoded), other.forward(encoded)
    found = cosines(vectors(rows), vectors(expected))  # of single tokens some are short, and rounded more
    assert (np.median(found) if isinstance(rows, Ragged) else found.min()) >= LEAST[dtype]


@needs_gpu
def test_float32_on_a_gpu_stays_padded(directories: Directories) -> None:
    """And says what packing needs."""
    info = load(directories("bert-mean"), gpu_count=1).info
    assert (info.layout, info.padded) == ("padded", True)
    assert info.layout_reason.startswith("packed attention on a GPU needs compute capability 8.0 and half precision")
