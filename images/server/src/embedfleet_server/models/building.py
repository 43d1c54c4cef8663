"""From what sentence-transformers loaded to the model that is served, one function for each task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules.module import Module
from sentence_transformers.base.modules.router import Router
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

from embedfleet.api.models import ModelSpec, Task
from embedfleet_server.engine.protocols import Model, ModelInfo, Pair
from embedfleet_server.engine.rows import AnyRows, finite
from embedfleet_server.engine.scoring import ACTIVATIONS
from embedfleet_server.models import effective, heads, packing, varlen
from embedfleet_server.models.attention import CannotPack
from embedfleet_server.models.dense import DenseForward, DenseModel, normalizes
from embedfleet_server.models.device import Placement, hardware, is_cpu
from embedfleet_server.models.fingerprint import Behaviour, fingerprint
from embedfleet_server.models.forward import Forward, Modules
from embedfleet_server.models.linear import pack
from embedfleet_server.models.multi_vector import LateForward, LateTokenizing, MultiVectorModel
from embedfleet_server.models.packed import Packed
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.rerank import RerankForward, RerankModel
from embedfleet_server.models.safety import ModuleFiles
from embedfleet_server.models.sparse import Route, SparseForward, SparseModel, StaticForward
from embedfleet_server.models.store import Weights
from embedfleet_server.models.tokenizing import PairTokenizing, Tokenizing

_PROBE = "The quick brown fox jumps over the lazy dog."
_DENSE_ONLY = ("dimensions", "normalize")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as sentence-transformers loads it, with the files it came from."""

    weights: Weights
    files: Sequence[ModuleFiles]
    task: Task
    encoder: BaseModel
    transformer: Transformer
    placement: Placement

    @property
    def device(self) -> str:
        """Torch's name of the device."""
        return self.placement.device

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        embeddings: Any = self.transformer.model.get_input_embeddings()
        return int(embeddings.num_embeddings)

    @property
    def pad(self) -> int:
        """The token id to pad with; where there is none any will do, since the mask covers it."""
        padding = getattr(self.transformer.tokenizer, "pad_token_id", None)
        return 0 if padding is None else int(padding)


def build(spec: ModelSpec, loaded: Loaded, *, cache: Path) -> Model:
    """The model of the task that `loaded` is for; `cache` is a directory for sha256s."""
    if loaded.task != "Dense" and (wrong := [name for name in _DENSE_ONLY if getattr(spec, name) is not None]):
        raise ModelProblem(f"{' and '.join(wrong)} can be set for Dense models only; this one is {loaded.task}")
    return _BUILDERS[loaded.task](spec, loaded, cache)


def _dense(spec: ModelSpec, loaded: Loaded, cache: Path) -> Model:
    encoder: Any = loaded.encoder
    modules = _packed(effective.modules(list(encoder), spec.normalize))
    tokenizing = _tokenizing(loaded, modules, effective.max_tokens(loaded.transformer, spec.max_tokens))
    packed, layout = _layout(loaded, modules, tokenizing.max_tokens)
    forward = DenseForward(modules, device=loaded.device, pad=loaded.pad, packed=packed)
    native = _probed(forward(tokenizing.encode([_PROBE], "")))
    trained = effective.matryoshka(loaded.weights, native)
    behaviour = Behaviour(
        prompts=effective.prompts(encoder, spec),
        default_prompt=encoder.default_prompt_name,
        normalized=normalizes(modules),
        dimensions=effective.dimensions(spec.dimensions, encoder.truncate_dim, native, trained),
        max_tokens=tokenizing.max_tokens,
    )
    made = fingerprint(loaded.files, behaviour, cache=cache)
    info = _info(
        spec, loaded, behaviour, forward, native=native, matryoshka=trained, fingerprint=made,
        **_told(layout),
    )  # fmt: skip
    return DenseModel(info, tokenizing, forward)


def _sparse(spec: ModelSpec, loaded: Loaded, cache: Path) -> Model:
    encoder: Any = loaded.encoder
    router = encoder[0] if isinstance(encoder[0], Router) else None
    towers: Any = {"document": encoder} if router is None else router.sub_modules
    modules = _packed(list(towers["document"]))
    limit = effective.max_tokens(loaded.transformer, spec.max_tokens)
    kept: int | None = encoder.max_active_dims
    packed, layout = _layout(loaded, modules, limit)
    forward = SparseForward(
        modules, device=loaded.device, pad=loaded.pad, vocabulary=loaded.vocabulary, max_active=kept, packed=packed
    )
    routes = {"document": Route(_tokenizing(loaded, modules, limit), forward)}
    if "query" in towers:
        routes["query"] = _static(towers["query"][0], loaded, limit, kept)
    native = [_probed(route.forward(route.tokenizing.encode([_PROBE], ""))) for route in routes.values()]
    if len(set(native)) > 1:
        raise ModelProblem(f"its documents have {native[0]} dimensions and its queries {native[1]}")
    default = "document" if router is None else router.default_route
    if default not in routes:
        raise ModelProblem("its Router has no default route; one is needed for inputs without an input type")
    settings = {"max_active_dims": kept, "default_route": default, "routes": sorted(routes)}
    info = _plain_info(spec, loaded, forward, limit, native[0], settings, cache, **_told(layout))
    return SparseModel(info, routes, default)


def _static(module: SparseStaticEmbedding, loaded: Loaded, limit: int, kept: int | None) -> Route:
    """The query's side of an inference-free model: its own tokenizer, no special tokens, weights that are looked up."""
    size = len(module.weight)
    if size < loaded.vocabulary:
        raise ModelProblem(f"it has weights for {size} words of queries, and its vocabulary has {loaded.vocabulary}")
    tokenizer: Any = module.tokenizer
    limit = min(limit, tokenizer.model_max_length)
    tokenizing = Tokenizing(tokenizer, max_tokens=limit, vocabulary=size, adds_special=False)
    return Route(tokenizing, StaticForward(module.weight, kept))


def _multi_vector(spec: ModelSpec, loaded: Loaded, cache: Path) -> Model:
    transformer = loaded.transformer
    modules = _packed(list(loaded.encoder))
    limit = effective.max_tokens(transformer, spec.max_tokens)
    expansion = effective.expansion(transformer, limit)
    lengths = effective.late_lengths(limit, transformer.query_length, transformer.document_length, expansion)
    query, document = (_tokenizing(loaded, modules, length) for length in lengths)
    tokenizing = LateTokenizing(_tokenizing(loaded, modules, limit), query, document, expansion)
    attend = expansion is not None and expansion.attend
    packed, layout = _layout(loaded, modules, limit, hides=expansion is not None and not attend)
    forward = LateForward(modules, device=loaded.device, pad=loaded.pad, attend=attend, packed=packed)
    rows = [forward(tokenizing.encode([_PROBE], "", input_type)) for input_type in ("query", "document")]
    native = max(map(_probed, rows))
    settings = {"lengths": lengths, "expansion": None if expansion is None else asdict(expansion)}
    info = _plain_info(spec, loaded, forward, document.max_tokens, native, settings, cache, **_told(layout))
    return MultiVectorModel(info, tokenizing, forward)


def _rerank(spec: ModelSpec, loaded: Loaded, cache: Path) -> Model:
    encoder: Any = loaded.encoder
    modules: Modules = _packed(list(encoder))
    limit = effective.max_tokens(loaded.transformer, spec.max_tokens)
    tokenizing = PairTokenizing(loaded.transformer.tokenizer, max_tokens=limit, vocabulary=loaded.vocabulary)
    packed, layout, modules = _reranking(loaded, modules, tokenizing)
    forward = RerankForward(modules, device=loaded.device, pad=loaded.pad, packed=packed)
    labels = _probed(forward(tokenizing.encode([Pair(_PROBE, _PROBE)], "")))
    activation = type(encoder.activation_fn).__name__
    if activation not in ACTIVATIONS:
        raise ModelProblem(f"its activation is {activation}; those served: {', '.join(ACTIVATIONS)}")
    settings = {"activation": activation}
    info = _plain_info(
        spec, loaded, forward, limit, labels, settings, cache, activation=activation,
        **_told(layout),
    )  # fmt: skip
    return RerankModel(info, tokenizing, forward)


def _reranking(
    loaded: Loaded, modules: Modules, tokenizing: PairTokenizing
) -> tuple[Packed | None, packing.Layout, Modules]:
    """How a reranker's batches are laid out; packed, the head of its transformer is a module of its own."""
    head = heads.head(modules[0]) if len(modules) == 1 else None
    packed, layout = _layout(loaded, modules, tokenizing.max_tokens, head=head, has_types=tokenizing.has_types)
    return packed, layout, modules if packed is None or head is None else [*modules, head]


_BUILDERS: Mapping[Task, Callable[[ModelSpec, Loaded, Path], Model]] = {
    "Dense": _dense,
    "Sparse": _sparse,
    "MultiVector": _multi_vector,
    "Rerank": _rerank,
}


def _plain_info(
    spec: ModelSpec,
    loaded: Loaded,
    forward: Forward,
    max_tokens: int,
    native: int,
    settings: Mapping[str, Any],
    cache: Path,
    **more: Any,
) -> ModelInfo:
    """Of tasks other than Dense: no dimensions to choose from; what decides rows is in the modules' own values."""
    behaviour = Behaviour(
        prompts=effective.prompts(loaded.encoder, spec),
        default_prompt=loaded.encoder.default_prompt_name,
        normalized=False,
        dimensions=native,
        max_tokens=max_tokens,
    )
    whole = {"task": loaded.task, "modules": _settings(list(loaded.encoder.modules())), **settings}
    made = fingerprint(loaded.files, behaviour, cache=cache, settings=whole)
    return _info(spec, loaded, behaviour, forward, native=native, fingerprint=made, **more)


def _info(
    spec: ModelSpec, loaded: Loaded, behaviour: Behaviour, forward: Forward, *, native: int, **more: Any
) -> ModelInfo:
    return ModelInfo(
        name=spec.name,
        task=loaded.task,
        dimensions=behaviour.dimensions,
        native_dimensions=native,
        max_tokens=behaviour.max_tokens,
        vocabulary=loaded.vocabulary,
        precision=loaded.placement.precision,
        device=loaded.device,
        revision=loaded.weights.revision,
        padded=forward.pads,
        normalized=behaviour.normalized,
        prompts=behaviour.prompts,
        default_prompt=behaviour.default_prompt,
        **more,
    )


def _told(layout: packing.Layout) -> dict[str, str]:
    return {"layout": layout.kind, "layout_reason": layout.reason}


def _layout(
    loaded: Loaded, modules: Modules, most: int, *, head: heads.Head | None = None, **more: bool
) -> tuple[Packed | None, packing.Layout]:
    """How a model's batches are laid out; see `packing.packed`."""
    if len(modules) == 1 and head is None:
        return None, packing.Layout("padded", "its transformer pools by itself")
    try:
        kernel = None if is_cpu(loaded.device) else varlen.kernel(hardware(loaded.device), loaded.placement.dtype)
    except CannotPack as why:
        return None, packing.Layout("padded", str(why))
    return packing.packed(modules[0], vocabulary=loaded.vocabulary, most=most, kernel=kernel, head=head, **more)


def _settings(modules: Modules) -> list[Any]:
    """The values of sentence-transformers' modules behind the transformer, as they are after loading."""
    own: list[Any] = [module for module in modules if isinstance(module, Module)]
    return [
        [type(module).__name__, {key: value for key, value in module.get_config_dict().items() if key != _COUNTED}]
        for module in own
        if not isinstance(module, Transformer | Router)
    ]


_COUNTED = "embedding_dimension"  # set by a forward where files leave it out


def _packed(modules: list[torch.nn.Module]) -> list[torch.nn.Module]:
    """Modules that do more with their weights than to call a layer would not find them in its packed form."""
    for module in modules:
        if isinstance(module, Transformer | Dense):
            pack(module)
    return modules


def _tokenizing(loaded: Loaded, modules: Modules, max_tokens: int) -> Tokenizing:
    return Tokenizing(
        loaded.transformer.tokenizer,
        max_tokens=max_tokens,
        vocabulary=loaded.vocabulary,
        excludes_prompt=any(isinstance(module, Pooling) and not module.include_prompt for module in modules),
    )


def _probed(rows: AnyRows) -> int:
    """The length of the rows, from a row: what the files say is checked against what is computed."""
    if not finite(rows).all():
        raise ModelProblem("its vector of a known text is not finite")
    return int(rows.shape[1]) if isinstance(rows, np.ndarray) else rows.dimensions
