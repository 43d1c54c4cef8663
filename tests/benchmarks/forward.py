"""The bare forward by mix and precision: as share of the measured rate of matrix products, and against its peers."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from embedfleet_server import environment
from embedfleet_server.models.device import cpu_flags
from tests.benchmarks import forward_peers, hardware, loads
from tests.benchmarks.bench import Bench
from tests.benchmarks.child import Child
from tests.benchmarks.report import Goal, Section, rate

_SHORT, _MIXED, _LONG = 256, 256, 32
"""Texts of each mix: a second or two of each subject, so that a round of all is soon over."""
_SECONDS = 40.0
"""After so many of a mix no further round begins, but for the second: with all subjects the part takes four minutes."""
_LEAST_ROUNDS = 2
_ENCODE = "sentence-transformers encode, batches of 32, float32"
_SHARES = {
    ("Float32", "long"): 0.65,
    ("Float32", "mixed"): 0.60,
    ("BFloat16", "long"): 0.45,
    ("BFloat16", "mixed"): 0.40,
}
"""Least shares of the rate of matrix products; those of bfloat16 are for processors with AMX."""
_HALF, _EXACT = 4.0, 1.3
"""Least factors against encode on mixed, in the best precision: where the processor multiplies bfloat16, elsewhere."""
_PEERS = {"short": 1.0, "mixed": 1.0, "long": 0.9}
"""Least factors against each runtime, float32 to float32 and best to best precision."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: its seconds for a mix, and the rate of matrix products it is held against."""

    name: str
    seconds: Callable[[str], float]
    rate: str | None
    peer: str | None = None
    dtype: str | None = None
    """Of our own forward in the layout that the server takes."""


@dataclass(slots=True)
class Taken:
    """Seconds of the subjects in the rounds of one mix; those of one round stand at one place."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def factor(self, name: str, other: str) -> float:
        """How many times as fast as `other` a subject is: the median of the rounds' factors."""
        pairs = zip(self.rounds[name], self.rounds[other], strict=True)
        return median(others / own for own, others in pairs)

    def fastest(self, names: Sequence[str]) -> str:
        """Of some subjects."""
        return min(names, key=lambda name: median(self.rounds[name]))


def measure(bench: Bench) -> Section:
    """Each mix by each subject, in rounds of all subjects."""
    section = Section(
        f"Bare forward, {os.cpu_count()} cores",
        ("mix", "subject", "texts/s (range)", "share of the rate of products", "x encode", "embedfleet x it"),
    )
    with Child("tests.benchmarks.hardware", more=_waiting()) as child:
        rates = child.ask("gemm")
    mixes = _mixes(bench.texts)
    peers = forward_peers.tuned(bench, mixes, section.notes.append)
    section.rows += _products(rates)
    with (
        Child("tests.benchmarks.loaded", str(bench.model)) as ours,
        Child("tests.benchmarks.bare", str(bench.model), more=_waiting()) as bare,
    ):
        subjects = [*_own(ours, mixes, section), _encode(bare, mixes), *map(_peer, peers)]
        for mix, texts in mixes.items():
            taken = _rounds(bench, mix, len(texts), subjects)
            work = bench.bare.ask("work", texts=texts)["operations"]
            section.rows += _rows(mix, len(texts), work, subjects, taken, rates)
            section.goals += _goals(mix, work, subjects, taken, rates)
    section.notes += [f"{peer.name}: {peer.settings}." for peer in peers]
    section.notes.append(
        "`embedfleet x it` holds float32 against our float32 and the rest against our fastest, each in the layout that "
        "the server takes; factors are medians of the rounds' own. Tokenising is outside the clock but in encode; "
        "pooling and normalising are in it. Our batches are 64 texts as they come; the peers' are of all texts sorted."
    )
    return section


def _mixes(texts: Sequence[str]) -> dict[str, list[str]]:
    return {"short": list(loads.short(_SHORT)), "mixed": list(texts[:_MIXED]), "long": loads.long(_LONG)}


def _products(rates: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for kind, name in hardware.RATES.items():
        if kind in rates:
            yield ("-", f"matrix products, {name}", f"{rates[kind]:.2f} TFLOP/s", "-", "-", "-")


def _own(ours: Child, mixes: Mapping[str, list[str]], section: Section) -> Iterator[Subject]:
    """Our own forward in each precision the processor multiplies, in the layout the server takes and padded."""
    half = hardware.multiplies_bfloat16()
    for dtype in ("Float32", "BFloat16") if half else ("Float32",):
        for padded in (False, True):
            layout = ours.ask("load", dtype=dtype, padded=padded)["layout"]
            if padded or layout == "packed":
                yield Subject(
                    f"embedfleet, {dtype}, {layout}",
                    partial(_forward, ours, mixes, dtype, padded),
                    dtype.lower(),
                    dtype=None if padded else dtype,
                )
    if not half:
        section.notes.append("embedfleet in BFloat16 is left out: the processor multiplies none.")
    automatic = ours.ask("load", dtype="Auto")
    section.notes.append(f"dtype Auto takes {automatic['precision']} here: {automatic['precision_reason']}.")


def _forward(ours: Child, mixes: Mapping[str, list[str]], dtype: str, padded: bool, mix: str) -> float:
    return float(ours.ask("forward", dtype=dtype, padded=padded, texts=mixes[mix])["seconds"])


def _waiting() -> dict[str, str]:
    """That waiting threads soon sleep, as ours do: beside other work those that spin on fall to a tenth."""
    return environment.threads(os.environ, environment.cores(), environment.quota())


def _encode(bare: Child, mixes: Mapping[str, list[str]]) -> Subject:
    return Subject(_ENCODE, lambda mix: float(bare.ask("encode", texts=mixes[mix])["seconds"]), "float32")


def _peer(peer: forward_peers.Tuned) -> Subject:
    known = peer.precision if peer.precision in {"float32", "bfloat16"} else None
    return Subject(peer.name, peer.seconds, known, peer=peer.runtime.name)


def _rounds(bench: Bench, mix: str, count: int, subjects: Sequence[Subject]) -> Taken:
    """One round to warm up, and rounds to be counted; every other goes backwards, so that noise hits all."""
    taken = Taken({subject.name: [] for subject in subjects})
    for subject in subjects:
        subject.seconds(mix)
    began = time.monotonic()
    for done in range(max(bench.repetitions, _LEAST_ROUNDS)):
        if done >= _LEAST_ROUNDS and time.monotonic() - began > _SECONDS * done / (done + 1):
            break
        for subject in subjects if done % 2 == 0 else list(reversed(subjects)):
            seconds = subject.seconds(mix)
            taken.rounds[subject.name].append(seconds)
            bench.say(f"  {mix}, {subject.name}: {count / seconds:.0f} texts/s")
    return taken


def _rows(
    mix: str, count: int, work: float, subjects: Sequence[Subject], taken: Taken, rates: Mapping[str, Any]
) -> Iterator[Sequence[str]]:
    for subject in subjects:
        seconds = taken.rounds[subject.name]
        share = "-" if subject.rate is None else f"{_share(work, seconds, _peak(rates, subject.rate)):.0%}"
        against = f"{taken.factor(subject.name, _ENCODE):.2f}"
        rival = _rival(subject, subjects, taken)
        ours = "-" if rival is None else f"{taken.factor(rival, subject.name):.2f}"
        yield (mix, subject.name, rate(count, seconds), share, against, ours)


def _peak(rates: Mapping[str, Any], kind: str) -> float:
    """TFLOP/s in a precision; in float32 of the faster library."""
    return float(max(rates["blas"], rates["float32"]) if kind == "float32" else rates[kind])


def _share(work: float, seconds: Sequence[float], peak: float) -> float:
    return float(work / median(seconds) / 1e12 / peak)


def _rival(subject: Subject, subjects: Sequence[Subject], taken: Taken) -> str | None:
    """The one of ours that a peer is held against; None for our own."""
    own = [one for one in subjects if one.dtype is not None]
    if subject.name.startswith("embedfleet"):
        return None
    if subject.name.endswith("float32"):
        own = [one for one in own if one.dtype == "Float32"]
    return taken.fastest([one.name for one in own]) if own else None


def _goals(
    mix: str, work: float, subjects: Sequence[Subject], taken: Taken, rates: Mapping[str, Any]
) -> Iterator[Goal]:
    own = [subject for subject in subjects if subject.dtype is not None]
    for subject in own:
        if (least := _least(subject.dtype, mix)) is not None and subject.rate is not None:
            share = _share(work, taken.rounds[subject.name], _peak(rates, subject.rate))
            wanted = f"bare forward, {subject.dtype}, {mix}: at least {least:.0%} of the rate of matrix products"
            yield Goal(wanted, f"{share:.0%}", share >= least)
    if not own:
        return
    if mix == "mixed":
        yield _against(max(taken.factor(subject.name, _ENCODE) for subject in own))
    yield from _ahead(mix, subjects, taken)


def _ahead(mix: str, subjects: Sequence[Subject], taken: Taken) -> Iterator[Goal]:
    """Of each runtime in float32, and of its fastest precision by our fastest."""
    best = taken.fastest([subject.name for subject in subjects if subject.dtype is not None])
    for peer in dict.fromkeys(subject.peer for subject in subjects if subject.peer):
        forms = [subject for subject in subjects if subject.peer == peer]
        for form in forms:
            if form.name.endswith("float32") and (rival := _rival(form, subjects, taken)):
                yield _factor(
                    f"bare forward, {mix}, float32: {_words(mix)} {peer}", taken.factor(rival, form.name), mix
                )
        fastest = taken.fastest([form.name for form in forms])
        yield _factor(f"bare forward, {mix}, best precisions: {_words(mix)} {peer}", taken.factor(best, fastest), mix)


def _words(mix: str) -> str:
    return "ahead of" if _PEERS[mix] == 1 else f"at least {_PEERS[mix]:g} x"


def _factor(wanted: str, factor: float, mix: str) -> Goal:
    return Goal(wanted, f"{factor:.2f} x", factor >= _PEERS[mix])


def _least(dtype: str | None, mix: str) -> float | None:
    """The share that is to be reached; None where none is stated for this processor."""
    return None if dtype == "BFloat16" and "amx_bf16" not in cpu_flags() else _SHARES.get((str(dtype), mix))


def _against(factor: float) -> Goal:
    least = _HALF if hardware.multiplies_bfloat16() else _EXACT
    wanted = f"bare forward, mixed, best precision: at least {least:g} x sentence-transformers' encode in float32"
    return Goal(wanted, f"{factor:.2f} x", factor >= least)
