"""64 texts in one request at an idle server: over the bare forward of the same texts, beside what products allow."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from tests.benchmarks import hardware, ours
from tests.benchmarks.bench import Bench
from tests.benchmarks.child import Child
from tests.benchmarks.loads import chunks
from tests.benchmarks.peers import infinity
from tests.benchmarks.report import Goal, Section, milliseconds

_SIZE, _TOKENS = 64, 32
_SETS = 4
"""So many lists of texts at most, asked for by turns: they differ in what they cost."""
_WARM_UP, _TURNS = 2, 12
_FACTOR, _LIMIT = 1.3, 0.050
"""Over the bare forward; and seconds where the processor has AMX."""
_BARE, _SERVED = "bare forward, tokenised before", "embedfleet over HTTP"
_PEER = f"infinity {infinity.VERSION} over HTTP"


class TooFewTexts(Exception):
    """The load has not enough texts of so few tokens; the message says how many it has."""


def measure(bench: Bench) -> Section:
    """Medians of the subjects, in the processor's best precision, and what the rate of products makes of that work."""
    half = hardware.multiplies_bfloat16()
    dtype = "BFloat16" if half else "Float32"
    sets = _sets(bench)
    taken = _taken(bench, dtype, sets)
    title = f"{_SIZE} texts of at most {_TOKENS} tokens in one request, alone at idle, {dtype.lower()}"
    section = Section(title, ("subject", "p50", "x the bare forward"))
    ceiling = median(bench.ceiling(texts, half=half) for texts in sets)
    section.rows.append(("matrix products alone, at the machine's rate", milliseconds(ceiling), "-"))
    for name, seconds in taken.items():
        section.rows.append((name, milliseconds(median(seconds)), f"{_factor(seconds, taken[_BARE]):.2f}"))
    section.goals.append(_goal(taken))
    section.notes.append(
        "Calls take turns; factors are medians of the turns' own. The bare forward is of the model as the server loads "
        "it, in one batch; infinity computes in float32."
    )
    bench.say(f"{title}: {section.rows}")
    return section


def _goal(taken: dict[str, list[float]]) -> Goal:
    """Milliseconds are asked for where there is AMX, a factor elsewhere."""
    seconds, factor = median(taken[_SERVED]), _factor(taken[_SERVED], taken[_BARE])
    told, wanted = f"{factor:.2f} x, {milliseconds(seconds)}", f"{_SIZE} texts of <= {_TOKENS} tokens: p50"
    if hardware.has_amx():
        return Goal(f"{wanted} <= {_LIMIT * 1000:.0f} ms", told, seconds <= _LIMIT)
    return Goal(f"{wanted} within {_FACTOR} x of the bare forward", told, factor <= _FACTOR)


def _factor(seconds: Sequence[float], bare: Sequence[float]) -> float:
    return median(own / other for own, other in zip(seconds, bare, strict=True))


def _taken(bench: Bench, dtype: str, sets: Sequence[list[str]]) -> dict[str, list[float]]:
    """Seconds of each subject, those of one turn at one place."""
    taken: dict[str, list[float]] = defaultdict(list)
    url = (bench.half if dtype == "BFloat16" else bench.server).url
    with Child("tests.benchmarks.loaded", str(bench.model)) as bare:
        bare.ask("load", dtype=dtype)
        for turn in range(_WARM_UP + _TURNS):
            texts = sets[turn % len(sets)]
            found = [(_BARE, bare.ask("forward", dtype=dtype, texts=texts)["seconds"])]
            found.append((_SERVED, _request(bench, url, ours.MODEL, texts)))
            if bench.peer is not None:
                found.append((_PEER, _request(bench, bench.peer.url, infinity.MODEL, texts)))
            for name, seconds in found if turn >= _WARM_UP else ():
                taken[name].append(seconds)
    return taken


def _request(bench: Bench, url: str, model: str, texts: Sequence[str]) -> float:
    asked = {"clients": 1, "size": len(texts), "wanted": "float"}
    return float(bench.clients.ask("pattern", url=url, model=model, texts=texts, **asked)["p50"])


def _sets(bench: Bench) -> list[list[str]]:
    """Lists of texts of the mixed load, in its order; raises `TooFewTexts`."""
    lengths = bench.bare.ask("work", texts=bench.texts)["lengths"]
    few = [text for text, length in zip(bench.texts, lengths, strict=True) if length <= _TOKENS]
    whole = [texts for texts in chunks(few, _SIZE) if len(texts) == _SIZE][:_SETS]
    if not whole:
        raise TooFewTexts(
            f"{len(few)} of {len(lengths)} texts have at most {_TOKENS} tokens: --texts must give {_SIZE}"
        )
    return whole
