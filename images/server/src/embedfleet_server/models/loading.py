"""From a manifest's `ModelSpec` to a loaded model."""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules.router import Router
from sentence_transformers.sentence_transformer.modules import Dense, Transformer
from transformers.utils import logging as transformers_logging

from embedfleet.api.models import ModelSpec, Task
from embedfleet_server.engine.errors import DeviceLost, ModelLoadFailed
from embedfleet_server.engine.protocols import Loader, Model
from embedfleet_server.models import choosing
from embedfleet_server.models.building import Loaded, build
from embedfleet_server.models.compiled import Asked, finish
from embedfleet_server.models.copying import copied
from embedfleet_server.models.device import Placement, devices_of, free_bytes, hardware
from embedfleet_server.models.digests import DIGESTS, mismatches
from embedfleet_server.models.faults import meaning
from embedfleet_server.models.files import float32_bytes, tensor_names
from embedfleet_server.models.lanes import UsesLanes, is_worth_it, shared
from embedfleet_server.models.linear import left, pack
from embedfleet_server.models.precision import SLOWER, Times
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.reference import read as read_reference
from embedfleet_server.models.rerank import check_activation
from embedfleet_server.models.safety import ModuleFiles, check
from embedfleet_server.models.store import Weights, resolve
from embedfleet_server.models.tasks import task_of

_log = logging.getLogger(__name__)
_CLASSES: Mapping[Task, Callable[..., Any]] = {
    "Dense": SentenceTransformer,
    "Sparse": SparseEncoder,
    "MultiVector": MultiVectorEncoder,
    "Rerank": CrossEncoder,
}
_ROOM = 1.5  # of the weights in float32: they, and they in half precision
# transformers swaps torch's initialisers while it builds a model, for all threads at once.
_ONE_AT_A_TIME = threading.Lock()


def loader(
    spec: ModelSpec,
    *,
    store: Path,
    offline: bool,
    gpu_count: int,
    threads: int | None = None,
    room: Callable[[], float] = lambda: math.inf,
    devices: Callable[[int], Sequence[str]] = devices_of,
    timed: bool = True,
    compile_seconds: float = 0.0,
) -> Loader:
    """A function that loads the model of `spec`; whatever goes wrong is `ModelLoadFailed` with the cause.

    Only where the process cannot use its device any more it is `DeviceLost`.

    `store` is a directory laid out like the Hugging Face cache, asked before the hub; `offline` forbids the hub.
    `threads` is how many torch computes with on a CPU, for the whole process; unset, torch decides. `room` is how many
    bytes of the host's memory are free: a model in half precision is compared with itself in float32 where that fits.
    `devices` says which there are for so many GPUs, by torch's names: the model is loaded on each, one after the other,
    in the precision that was chosen on the first.
    Without `timed` no measurement decides, so that each load makes the same of the model.
    `compile_seconds` is for what is compiled of it; 0 compiles nothing.
    """

    def load() -> Model:
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            weights = resolve(spec.source, store=store, offline=offline)
            _check_digests(weights, store)
            task, (device, *others) = task_of(weights.directory, spec.task), devices(gpu_count)
            making = _Making(spec, weights, task, device, store, timed)
            around = making.around(room())
            if spec.dtype == "Auto":
                model = choosing.automatic(making, around)
            else:
                model = choosing.named(making, spec.dtype.lower(), around)
            more = {name: _Making(spec, weights, task, name, store, timed) for name in others}
            asked = Asked(compile_seconds, is_lazy=spec.loading == "Lazy", is_timed=timed)
            if timed:
                _try_lanes(model)
            return copied(making.told(model), more, lambda made: finish(made, asked))
        except ModelProblem as problem:
            raise ModelLoadFailed(spec.name, str(problem)) from problem
        except Exception as error:  # whatever torch and its libraries raise, only this model must fail
            if isinstance(lost := meaning(error), DeviceLost):
                raise lost from error
            raise ModelLoadFailed(spec.name, f"{type(error).__name__}: {error}") from error

    return load


def _try_lanes(model: Model) -> None:
    """Rows of a model side by side, unless a clock says that this takes clearly longer."""
    name = model.info.name
    try:
        share = model.try_lanes(shared()) if isinstance(model, UsesLanes) else None
    except Exception as error:  # noqa: BLE001  # whatever it is, the model serves without
        _log.warning("model %s: its rows cannot be computed side by side: %s: %s", name, type(error).__name__, error)
        return
    if share is not None:
        how = "side by side, each by one thread" if is_worth_it(share) else "one by one, by all threads"
        _log.info("model %s: rows of texts are computed %s; side by side they take %.2f of the time", name, how, share)


def _check_digests(weights: Weights, store: Path) -> None:
    """That files from a hub are what the hub said they are; the digests are kept, and the fingerprint's too."""
    if weights.revision is None:
        return
    if wrong := mismatches(weights.directory, cache=store / DIGESTS):
        raise ModelProblem(f"{wrong[0]}: it is corrupt; remove {weights.directory} to have it fetched anew")


class _Making:
    """Builds one model in one precision or another."""

    def __init__(
        self, spec: ModelSpec, weights: Weights, task: Task, device: str, store: Path, timed: bool = True
    ) -> None:
        self._spec, self._weights, self._task, self._device = spec, weights, task, device
        self._timed = timed
        self._left: dict[str, bool] = {}
        self._cache = store / DIGESTS
        self._widest: tuple[int, int] | None = None

    def __call__(self, precision: str, /) -> Model:
        """The model in this precision; `ModelProblem` where it cannot be served."""
        loaded = load_plain(self._weights, Placement(self._device, getattr(torch, precision)), self._task)
        self._widest = choosing.widest(loaded.transformer.model)
        if not self._timed:
            _pack(loaded)
        made = build(self._spec, loaded, cache=self._cache)
        self._left[precision] = left(loaded.transformer)
        return made

    def told(self, model: Any) -> Model:
        """The model, which says what a clock decided against what would be taken without one."""
        decided = [f"its precision, {model.info.precision}"] if SLOWER in model.info.precision_reason else []
        if self._timed and self._left.get(model.info.precision):
            decided.append("linear layers that are not packed")
        if decided:
            model.info = replace(model.info, by_clock=tuple(decided))
        made: Model = model
        return made

    def around(self, room: float) -> choosing.Around:
        """What the choice of a precision needs to know; `room` in bytes of the host's memory."""
        reference, whole = read_reference(self._weights.directory), _size(self._weights)
        has_room = _ROOM * whole <= min(room, free_bytes(self._device))
        return choosing.Around(hardware(self._device), reference, has_room, self._layer, timed=self._timed)

    def _layer(self, precision: str) -> tuple[Times, Times] | None:
        return None if self._widest is None else choosing.layer_times(self._widest, precision)


def _pack(loaded: Loaded) -> None:
    """Layers packed wherever they can be, before `build` asks a clock."""
    for module in loaded.encoder.modules():
        if isinstance(module, Transformer | Dense):
            pack(module, timed=False)


def _size(weights: Weights) -> int:
    """Bytes of the model's weights in float32."""
    return float32_bytes(file for module in check(weights.directory) for file in module.weights)


def load_plain(weights: Weights, placement: Placement, task: Task) -> Loaded:
    """The model as sentence-transformers loads it, and nothing of ours; `ModelProblem` where it is not to be."""
    files = check(weights.directory)
    if task == "Rerank":
        check_activation(weights.directory)
    with _ONE_AT_A_TIME:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        encoder = _CLASSES[task](
            str(weights.directory),
            device=placement.device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": placement.dtype, "use_safetensors": True},
        )
    encoder.eval().requires_grad_(requires_grad=False)
    transformer = _transformer(encoder, task)
    _check_all_loaded(transformer.model, files[0])
    return Loaded(weights, files, task, encoder, transformer, placement)


def _transformer(encoder: Any, task: Task) -> Transformer:
    """The first module, if it takes plain text; chat templates and images need more than token ids."""
    first: object = encoder[0]
    if isinstance(first, Router):
        towers: Any = first.sub_modules
        first = towers["document"][0]
    if not isinstance(first, Transformer) or first.tokenizer is None:
        raise ModelProblem(f"its first module is a {type(first).__name__} without a tokenizer")
    if set(first.modalities) != {"text"}:
        kinds = ", ".join(map(str, first.modalities))
        raise ModelProblem(f"it takes {kinds}; only models of plain text are served")
    late = ("query_expansion", "query_length", "document_length")
    unusual = ("processing_kwargs", *(() if task == "MultiVector" else late))
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
