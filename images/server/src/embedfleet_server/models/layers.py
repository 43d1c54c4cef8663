"""Encoder layers of BERT's kind in few steps, on a CPU: what follows a product is computed within it.

Such a layer attends, projects, adds what it was given and normalises; then it widens, activates, narrows, adds and
normalises again. Query, key and value become one product; oneDNN applies bias, activation and residual while the
numbers of a product are in the cache. Where torch's own products are the faster ones (see `linear`) these are computed
in place behind them. Layers are known by their parts, activations by what they compute; whether the whole gives the
same is for the trial in `packing` to say.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, relu

from embedfleet_server.models.attention import Sees, within
from embedfleet_server.models.linear import MISSING, PackedLinear, PlainLinear, Product, joined, pack_few, product
from embedfleet_server.models.segments import Row


@dataclass(frozen=True, slots=True)
class Names:
    """Where a layer keeps its parts."""

    query: str
    key: str
    value: str
    projection: str
    first_norm: str
    widening: str
    activation: str
    narrowing: str
    last_norm: str


_KINDS = (
    Names(  # BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "intermediate.intermediate_act_fn",
        "output.dense",
        "output.LayerNorm",
    ),
    Names(  # DistilBERT
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.activation",
        "ffn.lin2",
        "output_layer_norm",
    ),
    Names(  # MPNet, in the form of `relative`
        "attention.attn.q",
        "attention.attn.k",
        "attention.attn.v",
        "attention.attn.o",
        "attention.LayerNorm",
        "intermediate.dense",
        "intermediate.intermediate_act_fn",
        "output.dense",
        "output.LayerNorm",
    ),
)
_ACTIVATIONS: Mapping[tuple[str, str], Callable[[torch.Tensor], torch.Tensor]] = {
    ("gelu", "none"): gelu,
    ("gelu", "tanh"): lambda x: gelu(x, approximate="tanh"),
    ("relu", ""): relu,
}
"""As oneDNN's operators name them."""
_SAME = 1e-5  # the two forms of GELU differ by up to 5e-4


class FusedLayer(nn.Module):
    """One layer over a row of texts; inference only. `parts` are the old layer's, which it shares."""

    def __init__(self, parts: Mapping[str, Any], heads: int, activation: tuple[str, str]) -> None:
        super().__init__()
        self._heads, self._activation = heads, activation
        self._attended = joined([parts[name] for name in ("query", "key", "value")])
        self._projection, self._first_norm = product(parts["projection"]), parts["first_norm"]
        self._widening, self._narrowing = product(parts["widening"]), product(parts["narrowing"])
        self._last_norm = parts["last_norm"]

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: Sees, *_: Any, segments: Row, **__: Any
    ) -> torch.Tensor:
        """Shape (1, tokens, width) to the same; the signature is that of transformers' layers."""
        x = hidden_states[0]
        query, key, value = self._attended(x).view(len(x), 3, self._heads, -1).unbind(1)
        seen = within(query, key, value, segments, attention_mask, None).reshape(x.shape)
        x = self._first_norm(self._projection.added(seen, x))
        wide = self._widening.activated(x, *self._activation)
        made: torch.Tensor = self._last_norm(self._narrowing.added(wide, x))
        return made.unsqueeze(0)

    def products(self) -> list[tuple[Product, str]]:
        """Its products, each with what is computed within it: "plain", "added" or "activated"."""
        return [
            (self._attended, "plain"),
            (self._projection, "added"),
            (self._widening, "activated"),
            (self._narrowing, "added"),
        ]


@dataclass(frozen=True, slots=True)
class Replaced:
    """A model's layers, and what stood in their place."""

    layers: nn.ModuleList
    before: tuple[nn.Module, ...]

    def undo(self) -> None:
        """Put the old ones back."""
        for place, layer in enumerate(self.before):
            self.layers[place] = layer

    def quicken(self) -> bool:
        """Let few rows take packed products where these are faster, though torch's own are for many; whether so."""
        found = [each for layer in self.layers if isinstance(layer, FusedLayer) for each, _ in layer.products()]
        return pack_few([each for each in found if isinstance(each, PlainLinear)])


def fuse(model: Any) -> Replaced | None:
    """Replace a model's layers; None where they are not all of one known kind."""
    heads = getattr(model.config, "num_attention_heads", None)
    for layers in model.modules():
        if isinstance(heads, int) and isinstance(layers, nn.ModuleList):
            made = [fused for layer in layers if (fused := _fused(layer, heads)) is not None]
            if made and len(made) == len(layers):
                before = Replaced(layers, tuple(layers))
                Replaced(layers, tuple(made)).undo()
                return before
    return None


def _fused(layer: nn.Module, heads: int) -> FusedLayer | None:
    """The layer in its new form; None where it is of no known kind, or not on a CPU."""
    for names in _KINDS:
        with suppress(*MISSING):  # the part, or the operators
            parts = {part: layer.get_submodule(path) for part, path in asdict(names).items()}
            activation = _known(parts["activation"])
            if activation is not None and _are_all(parts, layer):
                return FusedLayer(parts, heads, activation)
    return None


def _are_all(parts: Mapping[str, nn.Module], layer: nn.Module) -> bool:
    """Whether each part is of its kind, and the layer has no others that do something."""
    others = [module for module in layer.modules() if not any(module.children()) and not isinstance(module, nn.Dropout)]
    products = {type(part) for name, part in parts.items() if not name.endswith("_norm") and name != "activation"}
    right = len(products) == 1 and all(_is_right(name, part) for name, part in parts.items())
    return right and set(others) <= set(parts.values())


def _is_right(name: str, part: nn.Module) -> bool:
    if name.endswith("_norm"):
        return type(part) is nn.LayerNorm
    if name == "activation":
        return True
    if type(part) not in (PackedLinear, nn.Linear) or getattr(part, "bias", None) is None:
        return False
    return torch.as_tensor(part.weight).device.type == "cpu"


def _known(activation: nn.Module) -> tuple[str, str] | None:
    """The operators' names for what an activation computes."""
    x = torch.linspace(-8, 8, 257)
    made = activation(x)
    same = (name for name, known in _ACTIVATIONS.items() if torch.allclose(made, known(x), rtol=0, atol=_SAME))
    return next(same, None)
