"""The mixed load, as fast as each subject takes it: in process, over HTTP in three client patterns, through the SDK."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from statistics import median

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import hardware, loads, ours
from tests.benchmarks.bench import Bench
from tests.benchmarks.peers import infinity
from tests.benchmarks.report import Goal, Section, rate

_ENCODE = f"sentence-transformers {version('sentence-transformers')} `encode`, batch 32"
_BARE = "the model alone, tokenised before, sorted by length, batches of 32"
_NPY = "embedfleet, 8 clients x 32 texts, npy"
_SDK = "embedfleet, SDK: one `embed` of all texts"
_SHARE = 0.9  # of issue 8
_OVER_PEER, _OVER_PEER_WITH_AMX = 2.5, 8.0  # of issue 9, as is the next: by our best pattern and precision
_SUSTAINED_WITH_AMX = 1000.0  # texts a second
_CLOSE = 0.9999  # float32 of two versions of torch: what differs in the sixth digit is no other vector
Subjects = dict[str, Callable[[], float]]
Taken = dict[str, list[float]]


def measure(bench: Bench) -> Section:
    """Texts a second of every subject, and how they compare."""
    notes = _agreement(bench)
    taken = bench.interleaved(_subjects(bench))
    section = Section(
        f"Throughput: {len(bench.texts)} mixed texts, float32", ("subject", "texts/s (range)", "x encode", "x infinity")
    )
    section.notes = notes
    _ceilings(bench, section)
    _fill(section, len(bench.texts), taken)
    return section


def _ceilings(bench: Bench, section: Section) -> None:
    """What the rates of matrix products allow, beside which all stands."""
    for half in (False, True)[: 1 + hardware.multiplies_bfloat16()]:
        least = bench.ceiling(bench.texts, half=half)
        name = f"matrix products alone, {'bfloat16' if half else 'float32'}, at the machine's rate"
        section.rows.append((name, rate(len(bench.texts), [least]), "-", "-"))


def _subjects(bench: Bench) -> Subjects:
    """What to run, by name; each gives the seconds it took."""
    server, texts = bench.server, bench.texts
    subjects: Subjects = {
        _ENCODE: lambda: float(bench.bare.ask("encode", texts=texts)["seconds"]),
        _BARE: lambda: float(bench.bare.ask("forward", texts=texts)["seconds"]),
    }
    for pattern in loads.PATTERNS:
        subjects[_ours(pattern)] = partial(_over_http, bench, server.url, ours.MODEL, pattern, "float")
        if hardware.multiplies_bfloat16():
            subjects[_ours(pattern, half=True)] = partial(
                _over_http, bench, bench.half.url, ours.MODEL, pattern, "float"
            )
    subjects[_NPY] = partial(_over_http, bench, server.url, ours.MODEL, loads.Pattern(8, 32), "npy")
    subjects[_SDK] = lambda: float(bench.clients.ask("sdk", url=server.url, model=ours.MODEL, texts=texts)["seconds"])
    if bench.peer is not None:
        for pattern in loads.PATTERNS:
            subjects[_theirs(pattern)] = partial(_over_http, bench, bench.peer.url, infinity.MODEL, pattern, "float")
    return subjects


def _over_http(bench: Bench, url: str, model: str, pattern: loads.Pattern, wanted: loads.Format) -> float:
    asked = {"clients": pattern.clients, "size": pattern.texts, "wanted": wanted}
    return float(bench.clients.ask("pattern", url=url, model=model, texts=bench.texts, **asked)["seconds"])


def _agreement(bench: Bench) -> list[str]:
    """That all subjects compute the same vectors: speeds are only comparable then."""
    some = bench.texts[:64]
    true = _unit(bench.bare.ask("vectors", texts=some)["rows"])
    found = {"embedfleet": bench.clients.ask("vectors", url=bench.server.url, model=ours.MODEL, texts=some)["rows"]}
    if bench.peer is not None:
        peer = {"url": bench.peer.url, "model": infinity.MODEL}
        found["infinity"] = bench.clients.ask("vectors", texts=some, **peer)["rows"]
    least = {name: float((_unit(rows) * true).sum(axis=1).min()) for name, rows in found.items()}
    for name, cosine in least.items():
        assert cosine >= _CLOSE, f"{name}'s vectors differ from sentence-transformers': cosine {cosine}"
    told = ", ".join(f"{name} {cosine:.6f}" for name, cosine in least.items())
    absent = [f"infinity {infinity.VERSION} is missing: {bench.missing}"] if bench.missing else []
    return [f"Least cosine to sentence-transformers' vectors, of 64 texts: {told}.", *absent]


def _unit(rows: list[list[float]]) -> NDArray[np.float64]:
    array = np.array(rows, np.float64)
    lengths: NDArray[np.float64] = np.linalg.norm(array, axis=1, keepdims=True)
    return array / lengths


def _fill(section: Section, count: int, taken: Taken) -> None:
    peers = [_theirs(pattern) for pattern in loads.PATTERNS if _theirs(pattern) in taken]
    best_peer = min(peers, key=lambda name: median(taken[name]), default=None)
    for name, seconds in taken.items():
        to_peer = f"{_ratio(taken, name, best_peer):.2f}" if best_peer else "-"
        section.rows.append((name, rate(count, seconds), f"{_ratio(taken, name, _ENCODE):.2f}", to_peer))
    section.goals.append(_goal("at least as fast as sentence-transformers' `encode`", taken, _ENCODE, 1.0))
    section.goals.append(_sdk(taken))
    if best_peer:
        least = _OVER_PEER_WITH_AMX if hardware.has_amx() else _OVER_PEER
        section.goals.append(_goal(f"at least {least} x infinity's best pattern", taken, best_peer, least))
    if hardware.has_amx():
        section.goals.append(_sustained(count, taken))


def _goal(wanted: str, taken: Taken, other: str, least: float) -> Goal:
    """Our best pattern, in its best precision, against the other; the worst is told too."""
    ratios = {name: _ratio(taken, name, other) for name in _served(taken)}
    best, worst = (pick(ratios, key=ratios.__getitem__) for pick in (max, min))
    measured = f"{ratios[best]:.2f} x ({_without_us(best)}); least {ratios[worst]:.2f} x ({_without_us(worst)})"
    return Goal(f"over HTTP: {wanted}", measured, ratios[best] >= least)


def _sustained(count: int, taken: Taken) -> Goal:
    """Texts a second of our best pattern."""
    best = max(count / median(taken[name]) for name in _served(taken))
    return Goal(f"over HTTP: > {_SUSTAINED_WITH_AMX:,.0f} texts/s", f"{best:,.0f} texts/s", best > _SUSTAINED_WITH_AMX)


def _served(taken: Taken) -> list[str]:
    """Our patterns, in each precision."""
    names = (_ours(pattern, half=half) for half in (False, True) for pattern in loads.PATTERNS)
    return [name for name in names if name in taken]


def _without_us(name: str) -> str:
    return name.removeprefix("embedfleet, ")


def _sdk(taken: Taken) -> Goal:
    """The SDK against what the server gives its best load generator, by whatever pattern that is."""
    patterns = [_NPY, *map(_ours, loads.PATTERNS)]
    best = min(patterns, key=lambda name: median(taken[name]))
    share = _ratio(taken, _SDK, best)
    wanted = f"SDK >= {_SHARE:.0%} of what the server gives its best load generator"
    return Goal(wanted, f"{share:.0%} ({_without_us(best)})", share >= _SHARE)


def _ratio(taken: Taken, name: str, other: str) -> float:
    """How many times as fast as the other, the median of the repetitions, each by itself."""
    return median(theirs / own for own, theirs in zip(taken[name], taken[other], strict=True))


def _ours(pattern: loads.Pattern, *, half: bool = False) -> str:
    return f"embedfleet, {'bfloat16, ' if half else ''}{pattern}"


def _theirs(pattern: loads.Pattern) -> str:
    return f"infinity {infinity.VERSION}, {pattern}"
