"""Linear layers on a CPU: the faster of torch's own and oneDNN's on packed weights, found out by trying both.

Torch's float32 matrix product goes to MKL, which on AMD processors reaches less than half of what oneDNN does there
(0.107 against 0.25 TFLOP/s per core on a Zen 5; all-MiniLM-L6-v2: 9.98 against 5.23 ms a text). The packed form is what
inductor itself emits; its operators are private, so whatever is amiss with them leaves the model as it was.
"""

import time
from collections.abc import Callable

import torch
from torch import nn

_PROBE_TOKENS = 256  # rows of the trial: about a batch of short texts
_TRIES = 7
_WORTH_IT = 0.9  # of torch's own time: less gain than a tenth could be noise, and is not worth a private operator
_TOLERANCE = 1e-4  # relative to the largest output: what float32 sums in another order differ by, and no more


class PackedLinear(nn.Module):
    """`y = x W^T + b` with the weight laid out for oneDNN; inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        bias: torch.Tensor | None = linear.bias
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (..., in_features) to (..., out_features)."""
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return made


def pack(module: nn.Module) -> bool:
    """Replace the float32 linear layers of `module` by packed ones where those are faster here; whether it did."""
    found = _linears(module)
    if not found or not _is_worth_it(max((linear for _, _, linear in found), key=lambda linear: linear.weight.numel())):
        return False
    for parent, name, linear in found:
        setattr(parent, name, PackedLinear(linear))
    return True


def _linears(module: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Plain float32 layers on the CPU, with where they hang; a subclass may do more than multiply."""
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype == torch.float32 and child.weight.device.type == "cpu"
    ]


@torch.inference_mode()
def _is_worth_it(linear: nn.Linear) -> bool:
    """Whether the packed form gives the same numbers, and clearly sooner."""
    x = torch.randn(_PROBE_TOKENS, linear.in_features, generator=torch.Generator().manual_seed(0))
    try:
        packed = PackedLinear(linear)
        expected, made = linear(x), packed(x)
    except (RuntimeError, AttributeError, NotImplementedError):  # no oneDNN in this build, or its operators changed
        return False
    if not torch.allclose(made, expected, rtol=0, atol=_TOLERANCE * float(expected.abs().max())):
        return False
    return _seconds(lambda: packed(x)) < _WORTH_IT * _seconds(lambda: linear(x))


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of a few runs: other work on the machine only ever adds."""
    runs = []
    for _ in range(_TRIES):
        begun = time.perf_counter()
        work()
        runs.append(time.perf_counter() - begun)
    return min(runs)
