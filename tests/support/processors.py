"""What tests need of the processor."""

import pytest
import torch
from torch import nn

from embedfleet_server.models.linear import MISSING, PackedLinear


def _packs_bfloat16() -> bool:
    """Whether oneDNN packs layers in bfloat16 here: it refuses where the processor has no AVX-512."""
    try:
        PackedLinear(nn.Linear(8, 8, dtype=torch.bfloat16))
    except MISSING:
        return False
    return True


needs_packed_bfloat16 = pytest.mark.skipif(
    not _packs_bfloat16(), reason="hardware: oneDNN packs no bfloat16 for this processor"
)
PACKED_DTYPES = ("Float32", pytest.param("BFloat16", marks=needs_packed_bfloat16))
"""Each `dtype` whose layers are packed where the processor is one for it."""
