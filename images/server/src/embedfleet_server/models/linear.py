"""Linear layers on a CPU: the faster of torch's own and oneDNN's on packed weights, found out by trying both.

Torch's float32 matrix product goes to MKL, which on AMD processors reaches less than half of what oneDNN does there
(0.107 against 0.25 TFLOP/s per core on a Zen 5; all-MiniLM-L6-v2: 9.98 against 5.23 ms a text). In bfloat16 torch goes
to oneDNN itself, and packs the weights anew at each call: 0.75 to 0.9 of the time is left for a batch, 0.55 to 0.7 for
one text. The packed form is what inductor itself emits; its operators are private, so whatever is amiss with them
leaves the model as it was.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import nn

from embedfleet_server.models.timing import shortest

_ONE, _BATCH = 16, 256  # rows of the trial: the tokens of a short text, and of a small batch
_WHOLE, _WORK = 1024, 2**32
"""Rows of a batch in float32, and multiplications of a trial, by which large layers have fewer: MKL needs many rows to
be at its best, and is the faster one then on a Zen 3 (256 rows: 0.85 of its time; 1024: 0.98; 2048: 1.02 or more)."""
_TRIES = 12
_WORTH_IT = {torch.float32: 0.85, torch.bfloat16: 0.95}
"""Of torch's own time for a batch: less gain could be noise, and is not worth a private operator. In float32 it is 0.4
where MKL does not know the processor, and about 1 where it does: there layers are fused over it as well (see `layers`).
"""
_NO_SLOWER = 1.1  # of torch's own time for one text, which takes microseconds: two measurements differ by less
_FEW, _SOME = (16, 32), 32
"""Rows of a trial of few, and at how many they end. Measured on a Zen 3 with MiniLM, forwards of one text with packed
products for so few, of the time with MKL's: 0.79 to 0.85 of 23 tokens, 0.77 to 0.86 of 8. Of 48 rows the products took
0.95 of the time, which is not worth it."""
_FEW_WORTH_IT = 0.9  # of torch's own time for few rows: they cost memory besides
_FEW_BYTES = 2**27
"""Weights of which a second form is kept; MiniLM's are 42 MB. Larger ones would cost more memory than it is worth."""
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
"""Relative to the largest output: what sums in another order differ by, and one step of bfloat16's 8 bits."""
MISSING = (RuntimeError, AttributeError, NotImplementedError)
"""What is raised where there is no oneDNN in this build, or its operators changed."""


class PackedLinear(nn.Module):
    """`y = x W^T + b` with the weight laid out for oneDNN, in float32 or bfloat16; inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        bias: torch.Tensor | None = linear.bias
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (..., in_features) to (..., out_features)."""
        return self.activated(x, "none", "")

    def activated(self, x: torch.Tensor, activation: str, algorithm: str) -> torch.Tensor:
        """The same with an activation over it, as oneDNN names it: such as ("gelu", "tanh")."""
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], algorithm)
        return made

    def added(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The same with `other`, of the result's shape, added to it."""
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "add")
        return made


class PlainLinear(nn.Module):
    """The same by torch's own, and what follows it in place, without an array of its own; inference only.

    Few rows take a packed form besides where `pack_few` gave it one. Rows are of shape (rows, in_features).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self._packed: tuple[PackedLinear, ...] = ()  # in a tuple: the model has no more layers by it

    def few(self, x: torch.Tensor) -> PackedLinear | None:
        """What computes these rows in its stead, if anything does."""
        return self._packed[0] if self._packed and len(x) <= _SOME else None

    def take(self, packed: PackedLinear) -> None:
        """Let few rows be computed by it."""
        self._packed = (packed,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (rows, in_features) to (rows, out_features)."""
        few = self.few(x)
        return nn.functional.linear(x, self.linear.weight, self.linear.bias) if few is None else few(x)

    def activated(self, x: torch.Tensor, activation: str, algorithm: str) -> torch.Tensor:
        """As `PackedLinear` has it."""
        if (few := self.few(x)) is not None:
            return few.activated(x, activation, algorithm)
        made: torch.Tensor = self(x)
        if activation == "relu":
            return made.relu_()
        if activation == "gelu":
            torch.ops.aten.gelu_(made, approximate=algorithm)
        return made

    def added(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The same with `other`, of the result's shape, added to it: both are (rows, width).

        The product is summed up on top of what is added to it, where torch would begin with copies of the bias: 0.85
        to 1.0 of the time, about the bare product's.
        """
        if (few := self.few(x)) is not None:
            return few.added(x, other)
        made: torch.Tensor = other + self.linear.bias
        return made.addmm_(x, self.linear.weight.t())


Product = PackedLinear | PlainLinear


def product(layer: nn.Module) -> Product:
    """A linear layer, packed or not, with what can be computed within it."""
    if isinstance(layer, PackedLinear):
        return layer
    assert isinstance(layer, nn.Linear)
    return PlainLinear(layer)


def joined(layers: Sequence[nn.Module]) -> Product:
    """Layers of one kind with biases, over the same input, as one: its outputs are theirs, one behind the other."""
    packed = all(isinstance(layer, PackedLinear) for layer in layers)
    weights, biases = ([getattr(layer, name).detach() for layer in layers] for name in ("weight", "bias"))
    whole = nn.Linear(weights[0].shape[1], sum(map(len, weights)), device="meta")
    dense = [weight.to_dense() for weight in weights] if packed else weights
    whole.weight, whole.bias = (nn.Parameter(torch.cat(each), requires_grad=False) for each in (dense, biases))
    return PackedLinear(whole) if packed else PlainLinear(whole)


def pack(module: nn.Module, *, timed: bool = True) -> bool:
    """Replace the linear layers of `module` by packed ones where those are faster here; whether it did.

    Without `timed` wherever they give the same: a clock may say otherwise from load to load.
    """
    found = _linears(module)
    if not found:
        return False
    if not (_is_worth_it if timed else _is_the_same)(_largest(found)):
        return False
    for parent, name, linear in found:
        setattr(parent, name, PackedLinear(linear))
    return True


def pack_few(layers: Sequence[PlainLinear]) -> bool:
    """Give a model's layers a packed form for few rows, where that is clearly faster here; whether it did.

    Not where their weights are large, which are in memory twice then.
    """
    weights = [layer.linear.weight for layer in layers]
    if not layers or sum(weight.nbytes for weight in weights) > _FEW_BYTES:
        return False
    if any(weight.dtype != torch.float32 for weight in weights) or not _are_faster(layers):
        return False
    for layer in layers:
        layer.take(PackedLinear(layer.linear))
    return True


@torch.inference_mode()
def _are_faster(layers: Sequence[PlainLinear]) -> bool:
    """Whether all of them give the same packed, and sooner; all at once, since their weights come from memory then."""
    if not all(_is_the_same(layer.linear, _SOME) for layer in layers):
        return False
    forms: list[list[tuple[nn.Module, int]]] = [
        [(PackedLinear(layer.linear), layer.linear.in_features) for layer in layers],
        [(layer.linear, layer.linear.in_features) for layer in layers],
    ]
    calls = [partial(_each, form, _inputs(layers, rows)) for rows in _FEW for form in forms]
    packed_one, one, packed_some, some = shortest(calls, _TRIES)
    return packed_one <= _FEW_WORTH_IT * one and packed_some <= _FEW_WORTH_IT * some


def _inputs(layers: Sequence[PlainLinear], rows: int) -> dict[int, torch.Tensor]:
    """Rows for each width that a layer takes."""
    return {layer.linear.in_features: _rows(layer.linear, rows) for layer in layers}


def _each(form: Sequence[tuple[nn.Module, int]], inputs: Mapping[int, torch.Tensor]) -> None:
    for layer, width in form:
        layer(inputs[width])


def _linears(module: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Plain layers on the CPU in a precision that can be packed, with where they hang; a subclass may do more."""
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype in _TOLERANCES and child.weight.device.type == "cpu"
    ]


def left(module: nn.Module) -> bool:
    """Whether layers that could be packed are not: a clock said so."""
    found = _linears(module)
    return bool(found) and _is_the_same(_largest(found))


def multiplications(module: nn.Module) -> int:
    """For each row of numbers, of all linear layers in a module, packed or not; at least 1."""
    layers = [part for part in module.modules() if isinstance(part, PackedLinear | nn.Linear)]
    return max(1, sum(layer.in_features * layer.out_features for layer in layers))


def _largest(found: list[tuple[nn.Module, str, nn.Linear]]) -> nn.Linear:
    return max((linear for _, _, linear in found), key=lambda linear: linear.weight.numel())


@torch.inference_mode()
def _is_the_same(linear: nn.Linear, rows: int = _BATCH) -> bool:
    """Whether the packed form gives the same numbers."""
    batch = _rows(linear, rows)
    try:
        expected, made = linear(batch), PackedLinear(linear)(batch)
    except MISSING:
        return False
    tolerance = _TOLERANCES[linear.weight.dtype] * float(expected.abs().max())
    return torch.allclose(made, expected, rtol=0, atol=tolerance)


@torch.inference_mode()
def _is_worth_it(linear: nn.Linear) -> bool:
    """Whether it does, a batch's clearly sooner and one text's not later."""
    if not _is_the_same(linear):
        return False
    ones, batch = (_rows(linear, rows) for rows in (_ONE, _batch(linear)))
    packed = PackedLinear(linear)
    calls = [partial(form, x) for x in (ones, batch) for form in (packed, linear)]
    packed_one, one, packed_batch, whole = shortest(calls, _TRIES)
    return packed_batch < _WORTH_IT[linear.weight.dtype] * whole and packed_one <= _NO_SLOWER * one


def _batch(linear: nn.Linear) -> int:
    """Rows of a batch; in bfloat16 few, since what torch does anew at each call is then what packing saves."""
    if linear.weight.dtype != torch.float32:
        return _BATCH
    return max(_BATCH, min(_WHOLE, _WORK // linear.weight.numel()))


def _rows(linear: nn.Linear, rows: int) -> torch.Tensor:
    made = torch.randn(rows, linear.in_features, generator=torch.Generator().manual_seed(0))
    return made.to(linear.weight.dtype)
