"""The bare forward by mix and precision: as share of the measured rate of matrix products, and against encode."""

import os
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from embedfleet_server.models.device import cpu_flags
from tests.benchmarks import loads
from tests.benchmarks.bench import Bench
from tests.benchmarks.child import Child
from tests.benchmarks.report import Goal, Section, rate

_DTYPES = ("Float32", "BFloat16")
_TEXTS = 500  # of the short and the mixed load: ten batches take seconds
_LONG = 64
_ENCODE = "sentence-transformers encode, float32"
_SHARES = {
    ("Float32", "long"): 0.65,
    ("Float32", "mixed"): 0.60,
    ("BFloat16", "long"): 0.45,
    ("BFloat16", "mixed"): 0.40,
}
"""Least shares of the rate of matrix products; those of bfloat16 are for processors with AMX."""
_HALF, _EXACT = 4.0, 1.3
"""Least factors against encode on mixed, in the best precision: where the processor multiplies bfloat16, elsewhere."""


def measure(bench: Bench) -> Section:
    """Each mix in each precision, interleaved with sentence-transformers' encode of the same texts."""
    section = Section(
        f"Bare forward, {os.cpu_count()} cores, batches of 64",
        ("mix", "subject", "texts/s", "share of the rate of matrix products", "against encode"),
    )
    with Child("tests.benchmarks.hardware") as child:
        rates = child.ask("gemm")
    with Child("tests.benchmarks.loaded", str(bench.model)) as ours:
        layouts = {dtype: ours.ask("load", dtype=dtype)["layout"] for dtype in _DTYPES}
        automatic = ours.ask("load", dtype="Auto")
        for mix, texts in _mixes(bench.texts).items():
            _measured(bench, ours, section, mix, texts, rates)
    section.notes.append(f"Layouts: {', '.join(f'{dtype} {layout}' for dtype, layout in layouts.items())}.")
    section.notes.append(f"dtype Auto takes {automatic['precision']} here: {automatic['precision_reason']}.")
    return section


def _mixes(texts: Sequence[str]) -> dict[str, list[str]]:
    return {"short": list(loads.short(_TEXTS)), "mixed": list(texts[:_TEXTS]), "long": loads.long(_LONG)}


def _measured(
    bench: Bench, ours: Child, section: Section, mix: str, texts: list[str], rates: Mapping[str, Any]
) -> None:
    """Rows of one mix, and its goals."""
    work = bench.bare.ask("work", texts=texts)["operations"]
    taken: dict[str, list[float]] = {name: [] for name in (*_DTYPES, _ENCODE)}
    for repetition in range(bench.repetitions + 1):
        for name, seconds in taken.items():
            if name == _ENCODE:
                found = bench.bare.ask("encode", texts=texts)
            else:
                found = ours.ask("forward", dtype=name, texts=texts)
            if repetition:  # the first warms up
                seconds.append(found["seconds"])
                bench.say(f"  {mix}, {name}: {len(texts) / found['seconds']:.0f} texts/s")
    encode = median(taken[_ENCODE])
    for name, seconds in taken.items():
        share = work / median(seconds) / 1e12 / rates["float32" if name == _ENCODE else name.lower()]
        factor = encode / median(seconds)
        section.rows.append((mix, name, rate(len(texts), seconds), f"{share:.0%}", f"{factor:.2f} x"))
        if (least := _least(name, mix)) is not None:
            wanted = f"bare forward, {name}, {mix}: at least {least:.0%} of the rate of matrix products"
            section.goals.append(Goal(wanted, f"{share:.0%}", share >= least))
    if mix == "mixed":
        section.goals.append(_against(max(encode / median(taken[dtype]) for dtype in _DTYPES)))


def _least(dtype: str, mix: str) -> float | None:
    """The share that is to be reached; None where none is stated for this processor."""
    return None if dtype == "BFloat16" and "amx_bf16" not in cpu_flags() else _SHARES.get((dtype, mix))


def _against(factor: float) -> Goal:
    least = _HALF if cpu_flags() & {"amx_bf16", "avx512_bf16"} else _EXACT
    wanted = f"bare forward, mixed, best precision: at least {least:g} x sentence-transformers' encode in float32"
    return Goal(wanted, f"{factor:.2f} x", factor >= least)
