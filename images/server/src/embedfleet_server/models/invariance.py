"""The same bits for the same text, whatever shares its batch: how a model is computed for that, by what was found out.

What a text's bits depend on besides the text: how many rows its products have, since the kernel is chosen by that, and
who else stands in its block of attention. So there are two forms:

    alone   each text in a call of its own: it meets nothing but itself, which holds for any model on any device
    rows    texts share a row, whose length is one of those that give the same bits; in attention and pooling each
            text stands by itself. For layers of BERT's kind, whose parts are all known (see `layers`): in others
            torch's functions of single numbers compute the last of an array otherwise than the rest

Which lengths give the same bits is tried. The numbers of the trial are such that the exact sums are 0: what comes out
is rounding alone, and shows any other order of summing, in bfloat16 too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from embedfleet_server.models import layout, segments
from embedfleet_server.models.layers import FusedLayer
from embedfleet_server.models.linear import PackedLinear, PlainLinear

LENGTHS = tuple(sorted({segments.rounded(tokens) for tokens in range(1, layout.PACKED + 1)}))
"""Lengths of rows that are tried: all that pieces of several texts have."""
_START = 30  # tokens that take as long as the start of a forward (see `layout.CPU`)
_PERIOD = 7  # rows of the trial differ, and come again; no kernel's block is a multiple of it
_PLAIN = (nn.Embedding, nn.LayerNorm, nn.Dropout, PackedLinear, FusedLayer)
"""What computes a row by itself, or rounds nothing: modules beside products that a model in rows may have."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a model is computed: `lengths` of its rows, ascending, `()` where each text is computed alone."""

    kind: Literal["alone", "rows"]
    reason: str
    lengths: tuple[int, ...] = ()

    @property
    def most(self) -> int:
        """Most tokens in a row of several texts."""
        return min(self.lengths[-1], layout.PACKED)

    def rounded(self, tokens: int) -> int:
        """The length of a row for at least so many tokens; a text that is longer than all of them has its own."""
        return next((length for length in self.lengths if length >= tokens), segments.rounded(tokens))


ALONE = Form("alone", "each input is computed by itself")


@torch.inference_mode()
def form_of(transformer: nn.Module) -> Form:
    """The form of a packed model; takes the time of about one layer over 37,000 tokens."""
    if (why := unknown(transformer)) is not None:
        return Form("alone", f"{ALONE.reason}: {why}")
    lengths = cheapest(tried(transformer))
    if len(lengths) < 2:
        return Form("alone", f"{ALONE.reason}: products of this processor depend on the length of a row")
    return Form("rows", f"inputs share rows of {len(lengths)} lengths, which give the same bits here", lengths)


def unknown(transformer: nn.Module) -> str | None:
    """Which part may give a row other bits in other company; None where all are known not to."""
    if not any(isinstance(part, FusedLayer) for part in transformer.modules()):
        return "its layers are not of a known kind"
    if any(isinstance(layer, PlainLinear) for layer, _ in _products(transformer)):
        return "its products are torch's own, which depend on the number of rows"
    strange = next((type(part).__name__ for part in _leaves(transformer) if not isinstance(part, _PLAIN)), None)
    return None if strange is None else f"it has a {strange}, which may not compute each row by itself"


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """The parts that compute; what pools the first token by itself gives no token's vector."""
    parts = [part for name, part in module.named_children() if name != "pooler"]
    if isinstance(module, FusedLayer) or not any(module.children()):
        yield module
        return
    for part in parts:
        yield from _leaves(part)


def cheapest(found: Sequence[Mapping[int, bytes]]) -> tuple[int, ...]:
    """The lengths of rows that give the same bits, ascending, of several such sets the cheapest one.

    `found` has for each product what it gave for a length; a length that gave unlike bits within a row is missing.
    """
    sets: dict[tuple[bytes, ...], list[int]] = {}
    for length in LENGTHS:
        if all(length in one for one in found):
            sets.setdefault(tuple(one[length] for one in found), []).append(length)
    if not sets:
        return ()
    best: list[int] = min(sets.values(), key=_cost)
    return tuple(best)


def _cost(lengths: list[int]) -> float:
    """What tokens take in rows of such lengths, against rows of just their number, over all numbers alike."""
    return sum(_taken(lengths, tokens) / (tokens + _START) for tokens in LENGTHS)


def _taken(lengths: list[int], tokens: int) -> int:
    """In rows of the longest, and one for the rest, counted in tokens."""
    whole, left = divmod(tokens, lengths[-1])
    rest = next(length for length in lengths if length >= left) + _START if left else 0
    return whole * (lengths[-1] + _START) + rest


def tried(transformer: nn.Module) -> list[dict[int, bytes]]:
    """For each kind of product in a model: its bits by the length of the row, see `cheapest`."""
    kinds: dict[tuple[object, ...], tuple[PackedLinear, str]] = {}
    for layer, way in _products(transformer):
        if isinstance(layer, PackedLinear):
            kinds[layer.in_features, layer.out_features, layer.weight.dtype, layer.bias is None, way] = (layer, way)
    return [_bits(*kind) for kind in kinds.values()]


def _products(transformer: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The products of its layers, and parts beside them that may be some, each with its way."""
    for part in _leaves(transformer):
        yield from part.products() if isinstance(part, FusedLayer) else [(part, "plain")]


def _bits(layer: PackedLinear, way: str) -> dict[int, bytes]:
    """What a product of the layer's shape, computed in that way, gives for the trial's rows, by the row's length."""
    rows, like = _rounding(layer)
    found: dict[int, bytes] = {}
    for length in LENGTHS:
        places = torch.arange(length) % _PERIOD
        made = _WAYS[way](like, rows[places]).float()
        if torch.equal(made, made[places]):
            found[length] = made[:_PERIOD].numpy().tobytes()
    return found


def _rounding(layer: PackedLinear) -> tuple[torch.Tensor, PackedLinear]:
    """Rows, and a layer of such a shape that gives 0 for them but for rounding, in an order that no kernel knows."""
    draw = torch.Generator().manual_seed(0)
    half = layer.in_features // 2
    order = torch.randperm(2 * half, generator=draw)
    dtype = layer.weight.dtype
    rows, weights = torch.zeros(_PERIOD, layer.in_features), torch.zeros(layer.out_features, layer.in_features)
    for made, sign in ((rows, 1), (weights, -1)):
        some = torch.randn(len(made), half, generator=draw).bfloat16().float()  # products are exact in float32
        made[:, : 2 * half] = torch.cat([some, sign * some], 1)[:, order]
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, dtype=dtype)
    linear.weight = nn.Parameter(weights.to(dtype), requires_grad=False)
    if layer.bias is not None:
        linear.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=dtype), requires_grad=False)
    return rows.to(dtype), PackedLinear(linear)


_WAYS: Mapping[str, Callable[[PackedLinear, torch.Tensor], torch.Tensor]] = {
    "plain": lambda layer, rows: layer(rows),
    "added": lambda layer, rows: layer.added(rows, rows.new_zeros(len(rows), layer.out_features)),
    "activated": lambda layer, rows: layer.activated(rows, "gelu", "none"),
}
