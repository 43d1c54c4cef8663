"""SPLADE's pooling, the largest logit first."""

from typing import Any

import pytest
import torch
from sentence_transformers.sparse_encoder.modules import SpladePooling

from embedfleet_server.models.splade import LargestFirst, largest_first

pytestmark = pytest.mark.requirement("S2")


def features(dtype: torch.dtype, lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Logits of texts of these lengths, padded to the longest by what must not be seen."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(lengths), max(lengths), 50, generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    logits[~mask] = 9.0
    logits[0, :, :10] = -1.0  # words that no token asks for
    return {"token_embeddings": logits.to(dtype), "attention_mask": mask.long()}


@torch.inference_mode()
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [(5,), (7, 7), (3, 8, 1)])
def test_the_result_is_the_same_to_the_bit(activation: Any, dtype: torch.dtype, lengths: tuple[int, ...]) -> None:
    """As sentence-transformers' pooling in evaluation, with padding and without, in both precisions."""
    theirs = SpladePooling("max", activation).eval()
    (ours,) = largest_first([theirs])
    assert isinstance(ours, LargestFirst)
    expected = theirs(features(dtype, lengths))["sentence_embedding"]
    assert torch.equal(ours(features(dtype, lengths))["sentence_embedding"], expected)
    assert float(expected[0, :10].abs().max()) == 0.0


def test_another_pooling_stays() -> None:
    """A sum does not commute with the logarithm, and a subclass may compute anything."""

    class Own(SpladePooling):
        """Somebody's."""

    modules = [torch.nn.Linear(2, 2), SpladePooling("sum"), Own("max")]
    assert list(largest_first(modules)) == modules
