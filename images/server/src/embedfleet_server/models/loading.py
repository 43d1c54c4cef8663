"""From a manifest's `ModelSpec` to a loaded model."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers.utils import logging as transformers_logging

from embedfleet.api.models import ModelSpec
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.engine.protocols import Loader, Model, ModelInfo
from embedfleet_server.models import effective
from embedfleet_server.models.dense import DenseModel, Forward, Modules, normalizes
from embedfleet_server.models.device import Placement, place
from embedfleet_server.models.files import tensor_names
from embedfleet_server.models.fingerprint import Behaviour, fingerprint
from embedfleet_server.models.linear import pack
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.safety import ModuleFiles, check
from embedfleet_server.models.store import Weights, resolve
from embedfleet_server.models.tokenizing import Tokenizing

_PROBE = "The quick brown fox jumps over the lazy dog."
# transformers swaps torch's initialisers while it builds a model, for all threads at once.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as sentence-transformers loads it, with the files it came from."""

    weights: Weights
    files: Sequence[ModuleFiles]
    sentence: SentenceTransformer
    transformer: Transformer
    placement: Placement


def loader(spec: ModelSpec, *, store: Path, offline: bool, gpu_count: int, threads: int | None = None) -> Loader:
    """A function that loads the model of `spec`; whatever goes wrong is `ModelLoadFailed` with the cause.

    `store` is a directory laid out like the Hugging Face cache, asked before the hub; `offline` forbids the hub.
    `threads` is how many torch computes with on a CPU, for the whole process; unset, torch decides.
    """

    def load() -> Model:
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            weights = resolve(spec.source, store=store, offline=offline)
            return _model(spec, _load(weights, place(spec.dtype, gpu_count)), cache=store / ".sha256")
        except ModelProblem as problem:
            raise ModelLoadFailed(spec.name, str(problem)) from problem
        except Exception as error:  # whatever torch and its libraries raise, only this model must fail
            raise ModelLoadFailed(spec.name, f"{type(error).__name__}: {error}") from error

    return load


def _load(weights: Weights, placement: Placement) -> Loaded:
    files = check(weights.directory)
    with _ONE_AT_A_TIME:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        sentence = SentenceTransformer(
            str(weights.directory),
            device=placement.device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": placement.dtype, "use_safetensors": True},
        )
    sentence.eval().requires_grad_(requires_grad=False)
    transformer = _transformer(sentence)
    _check_all_loaded(transformer.model, files[0])
    return Loaded(weights, files, sentence, transformer, placement)


def _transformer(sentence: SentenceTransformer) -> Transformer:
    """The first module, if it takes plain text; chat templates, images and query expansion need more than token ids."""
    first: object = sentence[0]
    if not isinstance(first, Transformer) or first.tokenizer is None:
        raise ModelProblem(f"its first module is a {type(first).__name__} without a tokenizer")
    if set(first.modalities) != {"text"}:
        kinds = ", ".join(map(str, first.modalities))
        raise ModelProblem(f"it takes {kinds}; only models of plain text are served")
    unusual = ("query_expansion", "query_length", "document_length", "processing_kwargs")
    if named := [name for name in unusual if getattr(first, name, None)]:
        raise ModelProblem(f"its sentence_bert_config.json sets {', '.join(named)}, which is not served")
    transformer: Transformer = first
    return transformer


def _check_all_loaded(model: torch.nn.Module, files: ModuleFiles) -> None:
    """Weights that the files do not hold are random numbers, which transformers only warns of."""
    present = tensor_names(files.weights)
    tails = {tail for name in present for tail in _tails(name)}
    if all(name in tails or _tails(name) & present for name, _ in model.named_parameters()):
        return
    # Names differ where transformers converts an older file, so its own word decides, at the price of a second load.
    kind: Any = type(model)
    with _ONE_AT_A_TIME:
        _, info = kind.from_pretrained(
            files.directory, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    # Vectors are pooled by sentence-transformers' own module; many files leave the architecture's pooler out.
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
        raise ModelProblem(f"its weights lack {len(missing)} tensors of its architecture, such as {missing[0]}")


def _tails(name: str) -> set[str]:
    """The name without its first parts, one after the other; a class with a head puts a prefix before its base's."""
    parts = name.split(".")
    return {".".join(parts[start:]) for start in range(max(1, len(parts) - 1))}


def _model(spec: ModelSpec, loaded: Loaded, *, cache: Path) -> DenseModel:
    modules = effective.modules(list(loaded.sentence), spec.normalize)
    tokenizing = _tokenizing(spec, loaded.transformer, modules)
    for module in modules:
        pack(module)
    forward = Forward(modules, device=loaded.placement.device, pad=_padding(loaded.transformer))
    native = _probe(tokenizing, forward)
    trained = effective.matryoshka(loaded.weights, native)
    behaviour = Behaviour(
        prompts=effective.prompts(loaded.sentence, spec),
        default_prompt=loaded.sentence.default_prompt_name,
        normalized=normalizes(modules),
        dimensions=effective.dimensions(spec.dimensions, loaded.sentence.truncate_dim, native, trained),
        max_tokens=tokenizing.max_tokens,
    )
    info = ModelInfo(
        name=spec.name,
        task="Dense",
        dimensions=behaviour.dimensions,
        native_dimensions=native,
        max_tokens=tokenizing.max_tokens,
        vocabulary=tokenizing.vocabulary,
        fingerprint=fingerprint(loaded.files, behaviour, cache=cache),
        precision=loaded.placement.precision,
        device=loaded.placement.device,
        revision=loaded.weights.revision,
        matryoshka=trained,
        padded=forward.pads,
        normalized=behaviour.normalized,
        prompts=behaviour.prompts,
        default_prompt=behaviour.default_prompt,
    )
    return DenseModel(info, tokenizing, forward)


def _tokenizing(spec: ModelSpec, transformer: Transformer, modules: Modules) -> Tokenizing:
    embeddings: Any = transformer.model.get_input_embeddings()
    return Tokenizing(
        transformer.tokenizer,
        max_tokens=effective.max_tokens(transformer, spec.max_tokens),
        vocabulary=int(embeddings.num_embeddings),
        excludes_prompt=any(isinstance(module, Pooling) and not module.include_prompt for module in modules),
    )


def _padding(transformer: Transformer) -> int:
    """The token id to pad with; where there is none any will do, since the mask covers it."""
    padding = getattr(transformer.tokenizer, "pad_token_id", None)
    return 0 if padding is None else int(padding)


def _probe(tokenizing: Tokenizing, forward: Forward) -> int:
    """The length of the vectors, from a vector: what the files say is checked against what is computed."""
    vector = forward(tokenizing.encode([_PROBE], ""))
    if vector.ndim != 2 or not np.isfinite(vector).all():
        raise ModelProblem("its vector of a known text is not finite")
    return int(vector.shape[1])
