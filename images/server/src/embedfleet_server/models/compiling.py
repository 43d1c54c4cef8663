"""A transformer's forms for small batches: made at load, for a bounded set of shapes, within a time limit.

A form is made for one shape, a bucket, by a maker (`inductor`, `graphs`). It is kept where it gives the same as the
transformer and takes less time; every other shape runs as the transformer has it, and `Outcome` says why. Nothing is
made while requests are served.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from embedfleet_server.models.timing import CLOCK, Clock, shortest

Form = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Token ids and mask, both of a bucket's shape, to the tokens' vectors (texts, tokens, width)."""
Times = Callable[[Sequence[Callable[[], object]], int, Clock], Sequence[float]]
"""How long calls take, of so many tries by a clock (see `timing.shortest`)."""
_TEXTS, _TOKENS = (1, 2, 4, 8), (16, 32, 64, 128)
_TRIES = 20
_WORTH_IT = 0.95  # of the time of what there is: less gain could be noise
_LEAST, _LEAST_HALF = 0.99999, 0.99
"""The least cosine of a token's vector to the transformer's own, as in `packing`."""
_PATIENCE = 2.0
"""Times the limit, after which what was begun in time is no longer waited for."""


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """A shape: so many texts, padded to so many tokens each."""

    texts: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.texts}x{self.tokens}"


BUCKETS = tuple(Bucket(texts, tokens) for texts in _TEXTS for tokens in _TOKENS)
"""On a GPU, where the launches of a batch so small take longer than its numbers; the first ones matter most."""


def fitting(texts: int, tokens: int, buckets: Sequence[Bucket]) -> Bucket | None:
    """The smallest bucket that has room for so many texts and tokens each; None where none has."""
    room = [bucket for bucket in buckets if bucket.texts >= texts and bucket.tokens >= tokens]
    return min(room, key=lambda bucket: (bucket.texts * bucket.tokens, bucket.texts), default=None)


class Maker(Protocol):
    """Makes a form of a bucket; raises whatever its libraries raise where it cannot."""

    @property
    def name(self) -> str:
        """By which the outcome names it."""

    def __call__(self, plain: Form, bucket: Bucket, inputs: tuple[torch.Tensor, torch.Tensor]) -> Form:
        """The form; `inputs` are of the bucket's shape, and `plain` is what the transformer itself computes."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Seconds for all forms of a model, by `clock`, the time of day."""

    seconds: float
    clock: Clock = field(default=time.monotonic)

    def ends(self, began: float, longest: float) -> bool:
        """Whether a further form, which may take as long as the longest so far, would end too late."""
        return self.clock() - began + longest > self.seconds

    @property
    def reason(self) -> str:
        """In words."""
        return f"the time limit of {self.seconds:g} s was reached"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The forms there are, with their maker's name; and by bucket and maker what there is not, and why."""

    forms: Mapping[Bucket, Form]
    made: Mapping[Bucket, str]
    refused: Mapping[tuple[Bucket, str], str]

    def shown(self) -> dict[str, str]:
        """The maker of each bucket that has a form, by the bucket's name."""
        return {str(bucket): self.made[bucket] for bucket in sorted(self.made)}

    def reason(self) -> str:
        """What was not made and why, like reasons together; empty where all was."""
        grouped: dict[tuple[str, str], list[str]] = {}
        for (bucket, maker), why in self.refused.items():
            grouped.setdefault((maker, why), []).append(str(bucket))
        return "; ".join(f"no {maker} of {', '.join(some)}: {why}" for (maker, why), some in grouped.items())


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried, on which inputs, and how long it may take: `clock` is that of the forms' own times."""

    buckets: Sequence[Bucket]
    sample: Callable[[Bucket], tuple[torch.Tensor, torch.Tensor]]
    limit: Limit
    clock: Clock = CLOCK
    times: Times = shortest


def compiled(plain: Form, makers: Sequence[Maker], trial: Trial) -> Outcome:
    """Each maker's form of each bucket, cheap makers first; of several the fastest stays.

    They are made in a thread of their own, so that a compiler that hangs holds nobody up beyond twice the limit.
    """
    work = _Work(plain, makers, trial)
    thread = threading.Thread(target=work.run, name="compile", daemon=True)
    thread.start()
    thread.join(_PATIENCE * trial.limit.seconds)
    return work.ended()


class _Work:
    """The making of forms, which may be left to itself; what it makes then is dropped."""

    def __init__(self, plain: Form, makers: Sequence[Maker], trial: Trial) -> None:
        self._plain, self._makers, self._trial = plain, makers, trial
        self._forms: dict[Bucket, Form] = {}
        self._made: dict[Bucket, str] = {}
        self._refused: dict[tuple[Bucket, str], str] = {}
        self._settled: set[tuple[Bucket, str]] = set()
        self._is_over = False
        self._lock = threading.Lock()

    @torch.inference_mode()
    def run(self) -> None:
        """Make them all, or as many as there is time for."""
        limit = self._trial.limit
        began = limit.clock()
        for maker in self._makers:
            longest = 0.0
            for bucket in self._trial.buckets:
                if limit.ends(began, longest):
                    break  # those left are named at the end
                before = limit.clock()
                self._settle(maker.name, bucket, self._tried(maker, bucket))
                longest = max(longest, limit.clock() - before)

    def ended(self) -> Outcome:
        """What there is now; whatever comes later is dropped."""
        with self._lock:
            self._is_over = True
            for maker in self._makers:
                for bucket in self._trial.buckets:
                    if (bucket, maker.name) not in self._settled:
                        self._refused[bucket, maker.name] = self._trial.limit.reason
            return Outcome(self._forms, self._made, self._refused)

    def _settle(self, name: str, bucket: Bucket, found: Form | str) -> None:
        with self._lock:
            if self._is_over:
                return
            self._settled.add((bucket, name))
            if isinstance(found, str):
                self._refused[bucket, name] = found
            else:
                self._forms[bucket], self._made[bucket] = found, name

    def _tried(self, maker: Maker, bucket: Bucket) -> Form | str:
        """The maker's form where it is right and faster; else why it is not."""
        try:
            inputs = self._trial.sample(bucket)
            expected = self._plain(*inputs).clone()
            form = maker(self._plain, bucket, inputs)
            why = _apart(form(*inputs), expected, inputs[1]) or self._slow(form, bucket, inputs)
        except Exception as error:  # noqa: BLE001  # whatever a compiler raises, the transformer itself serves
            return said(error)
        return form if why is None else why

    def _slow(self, form: Form, bucket: Bucket, inputs: tuple[torch.Tensor, torch.Tensor]) -> str | None:
        before = self._forms.get(bucket, self._plain)
        new, old = self._trial.times([lambda: form(*inputs), lambda: before(*inputs)], _TRIES, self._trial.clock)
        # No figures: like reasons stand together, and the buckets of one differ in theirs.
        return None if new < _WORTH_IT * old else "it is no faster"


def _apart(made: torch.Tensor, expected: torch.Tensor, mask: torch.Tensor) -> str | None:
    """Why what was made is not what was expected, padding left out; None where it is."""
    if made.shape != expected.shape:
        return f"it gives an array of {tuple(made.shape)} for {tuple(expected.shape)}"
    real = mask.bool()
    cosine = float(torch.nn.functional.cosine_similarity(made[real].double(), expected[real].double(), dim=1).min())
    least = _LEAST if expected.dtype == torch.float32 else _LEAST_HALF
    return None if cosine >= least else f"a cosine of {cosine:.6f} to the eager form in the trial"


def said(error: Exception) -> str:
    """The error's kind and first line, of the one within where torch wraps it: compilers add pages to theirs."""
    error = getattr(error, "inner_exception", error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
