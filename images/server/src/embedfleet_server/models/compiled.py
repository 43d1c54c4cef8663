"""Which models get forms for small batches, and those forms in service."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.nn.functional import pad

from embedfleet_server.engine.protocols import Model, ModelInfo
from embedfleet_server.models.compiling import (
    BUCKETS,
    Bucket,
    Form,
    Limit,
    Maker,
    Outcome,
    Times,
    Trial,
    fitting,
    said,
)
from embedfleet_server.models.compiling import compiled as made_of
from embedfleet_server.models.device import is_cpu
from embedfleet_server.models.timing import shortest

_log = logging.getLogger(__name__)
ON_CPU = "on a CPU nothing is compiled, since that was slower where it was measured"
"""MiniLM, 1.08 to 1.9 of the packed form's time (decision 0016)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the server was told: seconds for the forms of a model, and whether requests wait for its load.

    `is_timed`: whether a clock may decide what it is computed with.
    """

    seconds: float
    is_lazy: bool = False
    is_timed: bool = True


@runtime_checkable
class Compiles(Protocol):
    """A model that has forms made."""

    def compile(self, seconds: float) -> None:
        """Make them within so many seconds; afterwards `info` says which there are."""


def finish(model: Model, asked: Asked) -> Model:
    """The model with its forms, where it is to have some; `info` and a line of the log say which, and why no others."""
    why = unfit(model.info, asked)
    if why is None and isinstance(model, Compiles):
        try:
            model.compile(asked.seconds)
        except Exception as error:  # noqa: BLE001  # whatever it is, the model serves as it is
            why = f"nothing could be compiled: {said(error)}"
    if why is not None:
        told: Any = model
        told.info = _with(model.info, {}, why)
    info = model.info
    made = ", ".join(f"{bucket} ({maker})" for bucket, maker in info.compiled.items())
    _log.info("model %s: compiled for %s; %s", info.name, made or "no shape", info.compiled_reason or "all of them")
    return model


def unfit(info: ModelInfo, asked: Asked) -> str | None:
    """Why a model runs as it is, whatever its shapes; None where forms are to be tried."""
    if is_cpu(info.device):
        return ON_CPU
    if not asked.is_timed:
        return "it is deterministic, and a clock would decide which forms there are"
    if not asked.seconds:
        return "compilation is off: its time limit is 0 s"
    if asked.is_lazy:
        return "it is loaded when it is first asked for, and requests would wait"
    return None if info.task == "Dense" else f"compiled are Dense models, and this one is {info.task}"


@dataclass(slots=True)
class Compiled:
    """Forms in service: what has room in a bucket is filled up to it. `told` hears when a form is lost."""

    outcome: Outcome
    buckets: Sequence[Bucket]
    padding: int
    told: Callable[[], None] = lambda: None
    _lost: dict[Bucket, str] = field(default_factory=dict)

    def bucket(self, texts: int, tokens: int) -> Bucket | None:
        """The bucket of so many texts of so many tokens; None where it has no form."""
        found = fitting(texts, tokens, self.buckets)
        return found if found in self.outcome.forms and found not in self._lost else None

    def __call__(self, bucket: Bucket, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        """The tokens' vectors (texts, tokens, width); None where the form fails, which is not asked again then."""
        texts, tokens = ids.shape
        try:
            made = self.outcome.forms[bucket](*_filled(ids, mask, bucket, self.padding))
        except Exception as error:  # noqa: BLE001  # whatever a form raises, the transformer itself serves
            self._lost[bucket] = said(error)
            _log.warning("the form of %s is dropped, its texts are computed without: %s", bucket, self._lost[bucket])
            self.told()
            return None
        return made[:texts, :tokens]

    def into(self, info: ModelInfo) -> ModelInfo:
        """`info` with what is compiled, and why the rest is not."""
        made = {name: maker for name, maker in self.outcome.shown().items() if name not in map(str, self._lost)}
        dropped = [f"{bucket} was dropped: {why}" for bucket, why in self._lost.items()]
        return _with(info, made, "; ".join(filter(None, [self.outcome.reason(), *dropped])))


def _with(info: ModelInfo, made: Mapping[str, str], reason: str) -> ModelInfo:
    return replace(info, compiled=made, compiled_reason=reason)


def _filled(ids: torch.Tensor, mask: torch.Tensor, bucket: Bucket, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the bucket's shape; texts that are not there have tokens, since attention to none is not a number."""
    tokens, texts = bucket.tokens - ids.shape[1], bucket.texts - len(ids)
    return pad(ids, (0, tokens, 0, texts), value=padding), pad(pad(mask, (0, tokens)), (0, 0, 0, texts), value=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made for a model on `device`, whose ids are below `vocabulary`."""

    device: torch.device
    vocabulary: int
    makers: Sequence[Maker]
    buckets: Sequence[Bucket]
    limit: Limit
    times: Times = shortest


def plan_for(device: torch.device, info: ModelInfo, seconds: float) -> Plan:
    """On a GPU. Cheap makers first: a capture takes a fraction of a second, and a compilation up to a minute."""
    from embedfleet_server.models.graphs import Captured
    from embedfleet_server.models.inductor import Inductor

    makers = (Captured(device), Captured(device, Inductor()))
    buckets = tuple(bucket for bucket in BUCKETS if bucket.tokens <= info.max_tokens)
    return Plan(device, info.vocabulary, makers, buckets, Limit(seconds))


def forms_of(transformer: Any, plan: Plan) -> Outcome:
    """The forms of a transformer."""
    trial = Trial(plan.buckets, lambda bucket: _sample(bucket, plan), plan.limit, _clock(plan.device), plan.times)
    with _padded(transformer.model):
        return made_of(plain(transformer), plan.makers, trial)


@contextmanager
def _padded(model: Any) -> Iterator[None]:
    """The model with an attention over padded texts: a packed one has ours, and a graph keeps what it was made with."""
    before = str(model.config._attn_implementation)
    is_ours = before.startswith("embedfleet")
    if is_ours:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if is_ours:
            model.set_attn_implementation(before)


def plain(transformer: Any) -> Form:
    """What the transformer computes of ids and mask."""

    def call(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = transformer({"input_ids": ids, "attention_mask": mask})["token_embeddings"]
        return made

    return call


def _sample(bucket: Bucket, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Seeded ids of texts that differ in length, and their mask."""
    random = np.random.default_rng(0)
    least = min(plan.vocabulary // 4, 110)  # special tokens are among a vocabulary's first
    ids = random.integers(least, plan.vocabulary, (bucket.texts, bucket.tokens))
    lengths = np.maximum(1, bucket.tokens - 3 * np.arange(bucket.texts))
    mask = (np.arange(bucket.tokens) < lengths[:, None]).astype(np.int64)
    return torch.from_numpy(ids).to(plan.device), torch.from_numpy(mask).to(plan.device)


def _clock(device: torch.device) -> Callable[[], float]:
    """The time of day once the device has done all it was given."""
    if device.type == "cpu":
        return perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return perf_counter()

    return clock
