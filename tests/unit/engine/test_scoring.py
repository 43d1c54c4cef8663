"""Activations equal torch's."""

import numpy as np
import pytest
import torch

from embedfleet_server.engine.scoring import ACTIVATIONS, scores

pytestmark = pytest.mark.requirement("S3")
_LOGITS = np.array([[0.5, -2.0, 3.0], [1000.0, -1000.0, 0.0], [-0.1, 0.0, 90.0]], np.float32)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_torchs(name: str) -> None:
    """Of large logits too, without a warning."""
    module = torch.nn.Softmax(dim=1) if name == "Softmax" else getattr(torch.nn, name)()
    wanted = module(torch.from_numpy(_LOGITS)).numpy()
    made = scores(_LOGITS, name)
    assert made.dtype == np.float32
    assert np.allclose(made, wanted, rtol=1e-6, atol=1e-7)


def test_one_label_is_one_score() -> None:
    """Shape (n,) where there is one label, (n, labels) otherwise; NaN stays."""
    assert scores(_LOGITS[:, :1], "Sigmoid").shape == (3,)
    assert scores(_LOGITS, "Sigmoid").shape == (3, 3)
    assert np.isnan(scores(np.full((1, 1), np.nan, np.float32), "Sigmoid")).all()
