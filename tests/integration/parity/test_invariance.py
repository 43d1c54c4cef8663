"""`batching.deterministic`: the same input has the same bits whatever shares its batch, and after each load."""

import random
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedfleet.api.models import ModelSpec, Source
from embedfleet_server.engine.invariance import KeepsBits
from embedfleet_server.engine.protocols import Encoded, Item, Model, Pair
from embedfleet_server.engine.rows import AnyRows, Ragged, SparseRows, only
from embedfleet_server.models import invariance, linear
from embedfleet_server.models.invariance import LENGTHS, Form
from embedfleet_server.models.loading import loader
from tests.support.loading import load, load_any
from tests.support.texts import mixed_texts
from tests.support.tiny_models import TINY
from tests.support.tiny_tasks import MULTI_VECTOR, RERANK, SPARSE
from tools.weights import packaged_model

pytestmark = pytest.mark.requirement("S2")
DTYPES = ("Float32", "BFloat16")
TEXTS = mixed_texts(30, mu=2.2)
PAIRS: list[Item] = [Pair(query, text) for query, text in zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True)]
KINDS: dict[str, Callable[[Path], Path]] = {
    **{name: TINY[name] for name in TINY if name not in ("decoder-right", "bert-prompts")},
    **{f"sparse {name}": make for name, make in SPARSE.items()},
    **{f"late {name}": make for name, make in MULTI_VECTOR.items()},
    **RERANK,
}
REFUSED = ("sparse splade-strongest", "late late-pooled")
"""In bfloat16 their self-test fails: which numbers of so small a model are largest, or nearest, it does not tell."""
CASES = [(name, dtype) for name in KINDS for dtype in DTYPES if dtype == "Float32" or name not in REFUSED]
Bits = list[bytes]
Kept = Callable[[str, str], "Asked"]


class Asked:
    """A model that was asked to keep its bits, its inputs, and the bits of each of them alone."""

    def __init__(self, model: Model, items: list[Item], input_type: str | None = None) -> None:
        assert isinstance(model, KeepsBits)
        model.keep_bits(True)
        self.model: Any = model
        self.encoded = model.encode(items, "", input_type)
        self.alone = [bits(model.forward([one]))[0] for one in self.encoded]

    def differing(self, batch: list[int]) -> list[int]:
        """The inputs of a batch whose bits are others than alone."""
        made = bits(self.model.forward([self.encoded[index] for index in batch]))
        return [index for index, own in zip(batch, made, strict=True) if own != self.alone[index]]


def bits(rows: AnyRows) -> Bits:
    """Of each row."""
    count = len(rows) if isinstance(rows, np.ndarray) else len(rows.offsets) - 1
    return [_bits(only(rows, index)) for index in range(count)]


def _bits(row: AnyRows) -> bytes:
    if isinstance(row, Ragged):
        return row.vectors.tobytes()
    return row.indices.tobytes() + row.values.tobytes() if isinstance(row, SparseRows) else row.tobytes()


def loaded(directory: Path, **fields: Any) -> Model:
    """As a server does that is started with `deterministic` set: no clock decides."""
    spec = ModelSpec(name="tiny", source=Source(path=str(directory)), **fields)
    return loader(spec, store=directory.parent / "store", offline=True, gpu_count=0, timed=False)()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    root = tmp_path_factory.mktemp("tiny")

    @cache
    def asked(name: str, dtype: str) -> Asked:
        directory = root / name.replace(" ", "-")
        if not directory.is_dir():
            KINDS[name](directory)
        items: list[Item] = PAIRS if name.startswith("rerank") else list(TEXTS)
        return Asked(loaded(directory, dtype=dtype), items, "document" if name.startswith("late") else None)

    return asked


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax")  # sentence-transformers saves no dim
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_any_company_gives_the_same_bits(kept: Kept, name: str, dtype: str) -> None:
    """Of each task, architecture and pooling, in both precisions: batches of any of the inputs, in any order."""
    asked = kept(name, dtype)

    @settings(max_examples=4, deadline=None)
    @given(batch=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=24))
    def any_batch(batch: list[int]) -> None:
        assert asked.differing(batch) == []

    any_batch()


@pytest.fixture(scope="module")
def mini_lm() -> Path:
    return packaged_model()


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_mini_lm_in_any_company(mini_lm: Path, dtype: str, tmp_path: Path) -> None:
    """The real model: short texts, long ones and those it cuts, in batches of 1 to 200 of them."""
    texts: list[Item] = [*mixed_texts(60), *mixed_texts(4, mu=6.0, sigma=0.1)]
    asked = Asked(load_any(mini_lm, dtype=dtype, store=tmp_path), texts)
    draw = random.Random(0)
    for size in (1, 2, 3, 8, 17, 40, 90):
        assert asked.differing(draw.choices(range(len(texts)), k=size)) == []


def test_without_it_company_changes_bits(mini_lm: Path, tmp_path: Path) -> None:
    """The same check of the same model, not asked: bits differ, so that the check can fail."""
    asked = Asked(load_any(mini_lm, store=tmp_path), list(mixed_texts(40)))
    asked.model.keep_bits(False)
    assert asked.differing(list(range(40)))


def test_two_loads_give_the_same_bits(mini_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a clock says: layers are packed wherever they can be, and Auto takes what the processor has."""
    spec = ModelSpec(name="tiny", source=Source(path=str(mini_lm)), dtype="Auto")
    texts: list[Item] = list(TEXTS)
    made = []
    for clock in (True, False):
        monkeypatch.setattr(linear, "_is_worth_it", lambda _, says=clock: says)
        model = loader(spec, store=tmp_path, offline=True, gpu_count=0, timed=False)()
        assert model.info.by_clock == ()
        made.append((model.info.precision, Asked(model, texts).alone))
    assert made[0] == made[1]


def test_what_a_clock_chose_is_named(mini_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers left as they are, since a clock said so, are said: another load may pack them."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: False)
    model: Any = load(mini_lm, store=tmp_path)
    assert model.info.by_clock == ("linear layers that are not packed",)


def test_rows_of_lengths_that_are_not_alike_are_found_out(
    mini_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor whose kernel sums in another order from 512 rows on: the trial leaves those lengths out."""
    plain = invariance._WAYS["plain"]

    def other(layer: linear.PackedLinear, rows: Any) -> Any:
        return plain(layer, rows) if len(rows) < 512 else plain(layer, rows) + 1e-6

    monkeypatch.setattr(invariance, "_WAYS", {**invariance._WAYS, "plain": other})
    monkeypatch.setattr(
        linear, "_is_worth_it", lambda _: True
    )  # on processors that MKL knows a clock may say otherwise
    asked = Asked(load_any(mini_lm, store=tmp_path), list(TEXTS))
    assert asked.differing(list(range(30))) == []
    form: Form = asked.model._forward.form()
    assert form.kind == "rows"
    assert set(form.lengths) <= {length for length in LENGTHS if length < 512}


def test_a_model_of_other_parts_is_computed_alone(kept: Kept) -> None:
    """Functions of single numbers may give the last of an array otherwise; the reason says so."""
    names = ("modern-bert", "rerank-bert")
    told: Mapping[str, str | None] = {name: kept(name, "Float32").model.bits_kept() for name in names}
    assert told["modern-bert"] == "each input is computed by itself: its layers are not of a known kind"
    assert told["rerank-bert"] == "each input is computed by itself"


def test_what_follows_the_transformer_is_told_each_text_by_itself(kept: Kept) -> None:
    """Whether its sums depend on others is not seen on every processor."""
    asked, seen = kept("bert-mean", "Float32"), list[int]()
    pooling = asked.model._forward._modules[1]
    noting = pooling.register_forward_hook(lambda module, given, made: seen.append(len(made["sentence_embedding"])))
    asked.model.forward(asked.encoded[:10])
    noting.remove()
    assert asked.model._forward.form().kind == "rows"
    assert seen == [1] * 10


def test_it_may_change_between_batches(kept: Kept) -> None:
    """On, off and on again: the same bits as before."""
    asked = kept("bert-mean", "Float32")
    asked.model.keep_bits(False)
    assert asked.model.bits_kept() is None
    batch: list[Encoded] = asked.encoded[:20]
    alone = np.stack([np.frombuffer(one, np.float32) for one in asked.alone[:20]])
    assert np.allclose(asked.model.forward(batch), alone, atol=1e-5)
    asked.model.keep_bits(True)
    assert asked.differing(list(range(20))) == []
