"""Rows whose lengths give the same bits: which are taken, and where texts stand in them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertConfig, BertModel

from embedfleet_server.models import invariance, scores
from embedfleet_server.models.attention import Sees, within
from embedfleet_server.models.invariance import ALONE, LENGTHS, Form, cheapest, form_of
from embedfleet_server.models.layers import fuse
from embedfleet_server.models.linear import PackedLinear
from embedfleet_server.models.scores import attended, each_by_itself
from embedfleet_server.models.segments import apart, rounded
from tests.support.processors import needs_packed_bfloat16
from tests.support.tiny_models import SIZES, seeded

pytestmark = pytest.mark.requirement("S2")


def test_lengths_are_those_that_rows_have_anyway() -> None:
    """So that no kernel is made that is not needed otherwise."""
    assert (len(LENGTHS), LENGTHS[0], LENGTHS[-1]) == (52, 8, 2048)


def test_all_lengths_are_taken_where_all_are_alike() -> None:
    """Of two products."""
    assert cheapest([dict.fromkeys(LENGTHS, b"a"), dict.fromkeys(LENGTHS, b"b")]) == LENGTHS


def test_of_two_kinds_the_cheaper_one_is_taken() -> None:
    """Few short lengths against many long ones; a length that is unlike in one product is in no set of all."""
    first = {length: b"few" if length <= 24 else b"many" for length in LENGTHS}
    second = {length: b"all" for length in LENGTHS if length != 512}
    assert cheapest([first, second]) == tuple(length for length in LENGTHS if length > 24 and length != 512)
    assert cheapest([{}, second]) == ()


@given(chosen=st.sets(st.sampled_from(LENGTHS), min_size=1), tokens=st.integers(1, 6000))
def test_a_row_has_room_and_a_length_of_the_form(chosen: set[int], tokens: int) -> None:
    """Longer than all of them is a text alone only, whose row depends on nothing else."""
    form = Form("rows", "", tuple(sorted(chosen)))
    found = form.rounded(tokens)
    assert found >= tokens
    assert found in chosen if tokens <= max(chosen) else found == rounded(tokens)
    assert form.most <= min(max(chosen), 2048)


@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=30), more=st.integers(0, 70))
def test_texts_stand_apart(lengths: list[int], more: int) -> None:
    """Each in a block of its own length; like ones are one run; filling is behind all runs."""
    row = apart(lengths, sum(lengths) + more)
    assert row.apart
    assert [run.length for run in row.runs] == sorted(set(lengths), reverse=True)
    assert not any(run.shared for run in row.runs)
    assert row.runs[-1].stop == sum(lengths)
    assert (row.owners[row.runs[-1].stop :] == -1).all()
    assert len(row.owners) == sum(lengths) + more
    for text, length in enumerate(lengths):
        assert (row.owners[row.first[text] : row.first[text] + length] == text).all()
    assert np.array_equal(row.owners[row.places], np.repeat(np.arange(len(lengths)), lengths))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [8, 300])
def test_attention_of_each_by_itself_is_the_same(dtype: torch.dtype, length: int) -> None:
    """As together, to rounding; and to the bit as alone."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 12, length, 32, generator=draw).to(dtype) for _ in range(3))
    made = each_by_itself(query, key, value, None, None)
    torch.testing.assert_close(made, attended(query, key, value, None, None), rtol=2e-2, atol=2e-2)
    for place in range(3):
        one = slice(place, place + 1)
        assert torch.equal(made[one], each_by_itself(query[one], key[one], value[one], None, None))


def test_memory_kept_by_a_thread_serves_with_and_without_inference_mode() -> None:
    """Got in inference mode, as a server's forward does, it is written to outside of it too; each gives the same."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 2, 16, 32, generator=draw).to(torch.bfloat16) for _ in range(3))

    def both() -> list[torch.Tensor]:
        with torch.inference_mode():
            first = scores.by_products(query, key, value, None, None)
        return [first, scores.by_products(query, key, value, None, None)]

    with ThreadPoolExecutor(1) as fresh:
        within_mode, without = fresh.submit(both).result()
    assert torch.equal(within_mode, without)


def test_texts_that_stand_apart_are_attended_to_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a call of its own whose arrays begin at a multiple of 64 bytes; filling is left at 0."""
    calls: list[tuple[int, int, set[int]]] = []

    def noted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any) -> torch.Tensor:
        calls.append((query.shape[0], query.shape[2], {each.data_ptr() % 64 for each in (query, key, value)}))
        return scaled_dot_product_attention(query, key, value, **more)

    monkeypatch.setattr(scores, "scaled_dot_product_attention", noted)
    query, key, value = torch.randn(24, 3, 3, 8, generator=torch.Generator().manual_seed(0)).unbind(1)
    sees = Sees(lambda batch, head, one, other: torch.ones_like(one - other, dtype=torch.bool))
    made = within(query, key, value, apart([5, 7, 5, 3], 24), sees, None)
    assert calls == [(1, length, {0}) for length in (7, 5, 5, 3)]
    assert made.shape == query.shape
    assert not made[20:].any()


@needs_packed_bfloat16
def test_the_trial_sees_another_order_of_summing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums that begin at their other end from 64 rows on, in bfloat16, where the rounding of the result hides it."""
    layer = PackedLinear(nn.Linear(64, 32, dtype=torch.bfloat16))

    def product(like: PackedLinear, rows: torch.Tensor) -> torch.Tensor:
        weight, x = like.weight.to_dense().float(), rows.float()
        if len(rows) >= 64:
            weight, x = weight.flip(1), x.flip(1)
        total = torch.zeros(len(rows), like.out_features)
        for place in range(like.in_features):
            total += x[:, place, None] * weight[:, place]
        return total.bfloat16()

    monkeypatch.setattr(invariance, "_WAYS", {"plain": product})
    found = invariance._bits(layer, "plain")
    assert len(set(found.values())) == 2
    assert cheapest([found]) in [tuple(n for n in LENGTHS if n < 64), tuple(n for n in LENGTHS if n >= 64)]


def test_the_trial_sees_rows_that_depend_on_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A length whose last rows are computed otherwise is in no set."""

    def product(like: PackedLinear, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = like(rows)
        if len(rows) == 96:
            made[-1] += 1e-3
        return made

    monkeypatch.setattr(invariance, "_WAYS", {"plain": product})
    found = invariance._bits(PackedLinear(nn.Linear(64, 32)), "plain")
    assert set(LENGTHS) - set(found) == {96}


def test_parts_that_are_not_known_are_computed_alone() -> None:
    """And none is tried."""
    assert form_of(nn.Sequential(nn.Linear(4, 4), nn.GELU())) == Form(
        "alone", f"{ALONE.reason}: its layers are not of a known kind"
    )


def test_torch_s_own_products_are_computed_alone() -> None:
    """Fused or not: which kernel is taken, and so in which order it sums, is BLAS's choice for each number of rows."""
    model = seeded(BertModel, BertConfig(vocab_size=50, **SIZES))
    assert fuse(model) is not None
    assert form_of(model) == Form(
        "alone", f"{ALONE.reason}: its products are torch's own, which depend on the number of rows"
    )
