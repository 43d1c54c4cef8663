"""The precision of a model: `precision` decides, this builds, computes the self-test and measures.

    dtype named   that one, and no other: it fails the self-test, or it is served
    Auto, GPU     its fastest half precision that is close to float32; float32 where none is
    Auto, CPU     bfloat16 where the processor has it, it measures faster and is close; else float32
                  (not measured where the same bits are asked for after each load)

What rows are compared with: the reference beside the weights, else the model's own rows in float32.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn

from embedfleet_server.engine.protocols import Encoded, Model
from embedfleet_server.engine.rows import AnyRows
from embedfleet_server.models import precision as decide
from embedfleet_server.models import self_test
from embedfleet_server.models.linear import MISSING, PackedLinear
from embedfleet_server.models.precision import FLOAT32, Choice, Hardware, Times
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.reference import FILE, Reference
from embedfleet_server.models.self_test import LEAST, is_close, shown
from embedfleet_server.models.timing import CLOCK, Clock, shortest

_log = logging.getLogger(__name__)
_TRIES = 5
_LAYER_TRIES = 20  # each takes a fraction of a millisecond, and a machine under load disturbs most of them
_ONE, _BATCH = 16, 256  # rows of a layer: the tokens of a short text, and of a small batch
Timed = Callable[[str], tuple[Times, Times] | None]
"""Times of a layer in a precision and in float32; None where they are not known."""


class Build(Protocol):
    """Loads the model in a precision; `ModelProblem` where that cannot be served."""

    def __call__(self, precision: str, /) -> Any:
        """The model, an `engine.protocols.Model` whose `info` can be set."""


@dataclass(frozen=True, slots=True)
class Around:
    """What is known beside the model: its reference, its device, whether two of it have room in memory."""

    hardware: Hardware
    reference: Reference | None = None
    has_room: bool = True
    layer: Timed = lambda precision: None
    """The widest of the model's layers, on a CPU."""
    clock: Clock = field(default=CLOCK)
    timed: bool = True
    """Whether a clock may decide; unset the choice is the same at each load on like hardware."""


def named(build: Build, asked: str, around: Around) -> Model:
    """The model in the precision that the manifest names; `ModelProblem` where it fails the self-test."""
    expected = None if around.reference else _exact_rows(build, around) if asked != FLOAT32 else None
    model = build(asked)
    cosine = _check(model, around.reference)
    if expected is not None:
        cosine = _cosine(model, expected)
        if (why := decide.apart(asked, cosine)) is not None:
            raise _failed(model, f"{why}; set dtype to Auto or Float32")
    return _said(model, decide.named(asked, cosine, around.hardware))


def automatic(build: Build, around: Around) -> Model:
    """The model in the fastest precision that is close to float32; says which, and why."""
    return (_on_gpu if around.hardware.capability is not None else _on_cpu)(build, around)


def _on_gpu(build: Build, around: Around) -> Model:
    """Two precisions are never on the device at once."""
    candidates = decide.candidates(around.hardware)
    expected = _exact_rows(build, around) if candidates and around.reference is None else None
    refused: dict[str, str] = {}
    for candidate in candidates:
        try:
            model = build(candidate)
        except ModelProblem as problem:  # such as a row that is not finite
            refused[candidate] = f"in {candidate} {problem}"
            continue
        cosine = _cosine_to(model, around.reference, expected)
        why = None if cosine is None else decide.apart(candidate, cosine)
        if why is None:
            return _said(model, decide.half(candidate, cosine))
        refused[candidate] = why
        _drop(model)
    return _exact(build(FLOAT32), around, refused)


def _on_cpu(build: Build, around: Around) -> Model:
    model = build(FLOAT32)
    refused: dict[str, str] = {}
    for candidate in decide.candidates(around.hardware):
        why = _not_worth_a_trial(candidate, around)
        if why is None:
            found, why = _tried(build, candidate, model, around)
            if found is not None:
                _check(found, around.reference)
                model.close()
                return found
        refused[candidate] = why
    return _exact(model, around, refused)


def _not_worth_a_trial(candidate: str, around: Around) -> str | None:
    """What a look at one layer shows, before the model is loaded a second time."""
    if not around.has_room:
        return f"{candidate} was not tried: there is no room for the model twice"
    times = around.layer(candidate) if around.timed else None
    return None if times is None else decide.slow(candidate, *times, "the widest layer")


def _tried(build: Build, candidate: str, exact: Any, around: Around) -> tuple[Model | None, str]:
    """The model in `candidate`; or None, and why not."""
    try:
        model = build(candidate)
    except ModelProblem as problem:
        return None, f"in {candidate} {problem}"
    cosine = _cosine(model, _rows(exact))
    why = decide.apart(candidate, cosine)
    if why is None and not around.timed:
        return _said(model, decide.ruled(candidate, cosine)), ""
    if why is None:
        times = measured([model, exact], around.clock)
        why = decide.slow(candidate, *times, "the model")
        if why is None:
            return _said(model, decide.half(candidate, cosine, times)), ""
    model.close()
    return None, why


def measured(models: Sequence[Model], clock: Clock) -> tuple[Times, Times]:
    """The shortest times of two models."""
    work = [_forward(model, batch) for model in models for batch in _work(model)]
    one, batch, other_one, other_batch = shortest(work, _TRIES, clock)
    return Times(one, batch), Times(other_one, other_batch)


@torch.inference_mode()
def layer_times(layer: tuple[int, int], precision: str, clock: Clock = CLOCK) -> tuple[Times, Times]:
    """Shortest times on the CPU of a linear layer of such a shape, packed or not: in `precision`, and in float32."""
    half, exact = (_forms(nn.Linear(*layer, dtype=getattr(torch, name))) for name in (precision, FLOAT32))
    calls = [_call(form, rows) for rows in (_ONE, _BATCH) for form in (*half, *exact)]
    taken = shortest(calls, _LAYER_TRIES, clock)
    ones, batches = taken[: len(taken) // 2], taken[len(taken) // 2 :]
    split = len(half)
    return (
        Times(min(ones[:split]), min(batches[:split])),
        Times(min(ones[split:]), min(batches[split:])),
    )


def _forms(linear: nn.Linear) -> list[Any]:
    """The layer as torch has it, and packed, where this build can: the model takes the faster one (see `linear`)."""
    try:
        return [linear, PackedLinear(linear)]
    except MISSING:
        return [linear]


def widest(model: nn.Module) -> tuple[int, int] | None:
    """Shape of the largest linear layer, packed or not; None where there is none."""
    layers = [part for part in model.modules() if isinstance(part, nn.Linear | PackedLinear)]
    shapes = [(layer.in_features, layer.out_features) for layer in layers]
    return max(shapes, key=lambda shape: shape[0] * shape[1], default=None)


def _call(form: Any, rows: int) -> Callable[[], object]:
    x = torch.ones(rows, form.in_features, dtype=form.weight.dtype)
    form(x)  # the first call chooses a kernel
    return lambda: form(x)


def _forward(model: Model, batch: Sequence[Encoded]) -> Callable[[], object]:
    return lambda: model.forward(batch)


def _exact_rows(build: Build, around: Around) -> AnyRows | None:
    """The rows of the model in float32, which is dropped again; None where there is no room for it."""
    if not around.has_room:
        return None
    model = build(FLOAT32)
    rows = _rows(model)
    _drop(model)
    return rows


def _exact(model: Any, around: Around, refused: dict[str, str]) -> Model:
    _check(model, around.reference)
    return _said(model, decide.exact(refused))


def _cosine_to(model: Model, reference: Reference | None, expected: AnyRows | None) -> float | None:
    if reference is not None:
        return _reference_cosine(model, reference)
    return None if expected is None else _cosine(model, expected)


def _check(model: Model, reference: Reference | None) -> float | None:
    """The cosine to the reference; `ModelProblem` where it is too low, None where there is nothing to compare."""
    if reference is None:
        return None
    cosine = _reference_cosine(model, reference)
    if cosine is not None and not is_close(cosine, precision := model.info.precision):
        raise _failed(
            model,
            f"in {precision} it has a cosine of {shown(cosine)} to the reference ({FILE}), and {LEAST[precision]} is "
            "the least: these are not the weights or settings that the reference was made of",
        )
    return cosine


def _reference_cosine(model: Model, reference: Reference) -> float | None:
    """None where the model cuts all of the reference's inputs, so that nothing can be compared."""
    if reference.task != model.info.task:
        raise _failed(model, f"the reference ({FILE}) is for {reference.task}, and the model is for {model.info.task}")
    encoded = self_test.encoded(model, reference.items)
    whole = [index for index, one in enumerate(encoded) if not one.truncated]
    if not whole:
        return None
    rows = model.forward([encoded[index] for index in whole])
    exact: Any = reference.rows
    kept = exact[whole] if model.info.task in ("Dense", "Rerank") else exact.take(whole)
    return self_test.close(model.info.task, rows, kept)


def _cosine(model: Model, expected: AnyRows) -> float:
    return self_test.close(model.info.task, _rows(model), expected)


def _rows(model: Model) -> AnyRows:
    return model.forward(self_test.encoded(model, self_test.items(model.info.task)))


def _work(model: Model) -> tuple[list[Encoded], list[Encoded]]:
    """One short text, and a batch."""
    known = self_test.encoded(model, self_test.items(model.info.task))
    return known[:1], known * 2


def _failed(model: Model, why: str) -> ModelProblem:
    model.close()
    return ModelProblem(f"it fails its self-test: {why}")


def _drop(model: Model) -> None:
    """Its memory is free before the next one is loaded: transformers' modules hold each other in cycles."""
    model.close()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _said(model: Any, choice: Choice) -> Model:
    model.info = replace(model.info, precision_reason=choice.reason)
    _log.info("model %s computes in %s: %s", model.info.name, choice.precision, choice.reason)
    made: Model = model
    return made
