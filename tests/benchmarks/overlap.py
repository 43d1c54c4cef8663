"""`python -m tests.benchmarks.overlap [--output docs/overlap.svg]`: whether the device ever waits for Python.

A server at saturation keeps the times of its stages (`traced`). Between the modules of one forward and those of the
next the device has nothing to compute: what that takes is what tokenising, laying out and answering did not overlap.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embedfleet_server.engine.thread_names import LANE
from tests.benchmarks import hardware, loads
from tests.benchmarks.child import Child
from tests.benchmarks.report import Goal, Section, show
from tests.benchmarks.traced import ANSWER, FORWARD, PARSE, SPANS, TOKENIZE, Span
from tests.support.process import process
from tools.weights import DEFAULT_STORE, REPOSITORY, fill

_PATTERNS = (loads.Pattern(256, 1), loads.Pattern(8, 32), loads.Pattern(4, 64))
_MODEL = "semantic"
_IDLE = 0.05
_EDGE = 0.1  # of the load, at its beginning and its end: there clients come and go
_SHOWN = 3.0  # seconds in the picture
_STAGES = {PARSE: "tab:purple", TOKENIZE: "tab:green", FORWARD: "0.75", ANSWER: "tab:red"}
_MODULE = "tab:blue"
Window = tuple[float, float]


def measure(texts: Sequence[str]) -> tuple[Section, list[Span]]:
    """The part of the run, and the spans of its last load."""
    columns = ("precision", "load", "no module computes", "no forward runs", "busy: stage, of the time")
    section = Section(f"Overlap: {len(texts)} mixed texts at saturation", columns)
    idle, spans = [], list[Span]()
    for dtype in ("Float32", "BFloat16") if hardware.multiplies_bfloat16() else ("Float32",):
        for pattern, window, made in _loaded(texts, dtype):
            spans = [span for span in made if span[2] < window[1] and span[3] > window[0]]
            found, row = _row(spans, window)
            idle.append(found)
            section.rows.append((dtype.lower(), str(pattern), *row))
    measured = f"{min(idle):.1%} to {max(idle):.1%} over precisions and client patterns"
    section.goals.append(Goal(f"device idle < {_IDLE:.0%} at saturation", measured, max(idle) < _IDLE))
    section.notes.append(
        "Of the time of a load without its first and last tenth. A module computes from its call to its return, on the "
        "device's thread or, for one of several rows side by side, in a lane, each of which is idle for itself: also "
        "when its row ended before the others'. Other stages run in other threads meanwhile. Laying a batch out is a "
        "part of its forward."
    )
    return section, spans


def _row(spans: Sequence[Span], window: Window) -> tuple[float, tuple[str, str, str]]:
    """The part of the time in which no module computed; the cells of one load."""
    modules = [span for span in spans if span[0] not in _STAGES]
    forwards = [span for span in spans if span[0] == FORWARD]
    idle = idle_share(modules, window)
    stages = dict.fromkeys([PARSE, TOKENIZE, *(span[0] for span in modules), ANSWER])
    busy = ", ".join(f"{one} {covered([span for span in spans if span[0] == one], window):.1%}" for one in stages)
    return idle, (f"{idle:.1%}", f"{1 - covered(forwards, window):.1%}", busy)


def idle_share(modules: Sequence[Span], window: Window) -> float:
    """The part of the time in which no module computed; where rows are computed side by side, of that of each lane."""
    lanes = {thread for _, thread, _, _ in modules if thread.startswith(LANE)}
    by_all = [span for span in modules if span[1] not in lanes]
    each = [[*by_all, *(span for span in modules if span[1] == lane)] for lane in lanes] or [by_all]
    return 1 - fmean(covered(spans, window) for spans in each)


def covered(spans: Iterable[Span], window: Window) -> float:
    """The part of the window in which at least one of the spans ran."""
    first, last = window
    total, until = 0.0, first
    for _, _, began, ended in sorted(spans, key=lambda span: span[2]):
        start, stop = max(began, until), min(ended, last)
        if stop > start:
            total += stop - start
            until = stop
    return total / (last - first)


def _loaded(texts: Sequence[str], dtype: str) -> Iterator[tuple[loads.Pattern, Window, list[Span]]]:
    """Each pattern, when it was in full swing, and the spans of them all."""
    windows = []
    with tempfile.TemporaryDirectory(prefix="embedfleet-bench-") as folder, contextlib.ExitStack() as stack:
        written = Path(folder) / "spans.json"
        clients = stack.enter_context(Child("tests.benchmarks.clients"))
        with _served(Path(folder), written, dtype) as url:
            for pattern in _PATTERNS:
                asked = {"clients": pattern.clients, "size": pattern.texts, "wanted": "npy"}
                clients.ask("pattern", url=url, model=_MODEL, texts=texts[:128], **asked)
                began = time.monotonic()
                clients.ask("pattern", url=url, model=_MODEL, texts=texts, **asked)
                edge = _EDGE * (time.monotonic() - began)
                windows.append((pattern, (began + edge, time.monotonic() - edge)))
        spans: list[Span] = [tuple(one) for one in json.loads(written.read_text(encoding="utf-8"))]
    yield from ((pattern, window, spans) for pattern, window in windows)


@contextlib.contextmanager
def _served(folder: Path, written: Path, dtype: str) -> Iterator[str]:
    """The URL of a traced server, ready."""
    store = Path(DEFAULT_STORE).expanduser()
    fill(store)
    models = [{"name": _MODEL, "source": {"huggingFace": {"repo": REPOSITORY}}, "dtype": dtype}]
    arguments, module = ("--store", str(store)), "tests.benchmarks.traced"
    with process(folder, *arguments, models=models, module=module, extra={SPANS: str(written)}) as server:
        server.line("is ready at")
        yield server.record.url
        server.stop()


def draw(spans: Sequence[Span], target: Path) -> None:
    """A line for each thread: what it did in the middle of the load."""
    since = (spans[0][2] + spans[-1][3] - _SHOWN) / 2
    shown = [span for span in spans if since < span[3] and span[2] < since + _SHOWN]
    threads = sorted({span[1] for span in spans}, key=lambda name: (name.startswith("device"), name))
    figure = Figure(figsize=(9, 0.55 * len(threads) + 1.2), layout="constrained")
    axes = figure.subplots()
    for span in sorted(shown, key=lambda span: span[0] != FORWARD):  # modules over the forward that they are parts of
        _bar(axes, span, threads.index(span[1]), since)
    axes.set(xlim=(0, _SHOWN), xlabel="seconds", yticks=range(len(threads)), yticklabels=threads)
    axes.invert_yaxis()
    for name, colour in {**_STAGES, "modules of the model": _MODULE}.items():
        axes.plot([], [], color=colour, linewidth=6, label="batch, handed over to there" if name == FORWARD else name)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False, fontsize=8)
    figure.savefig(target)


def _bar(axes: Axes, span: Span, place: int, since: float) -> None:
    stage, _, began, ended = span
    face = _STAGES.get(stage, _MODULE)
    edge = "white" if stage == FORWARD else face  # batches lie beside each other: each is to be seen
    axes.broken_barh([(began - since, ended - began)], (place - 0.35, 0.7), facecolors=face, edgecolors=edge)


def main() -> int:
    """Measure, show the table, draw the last load where that is asked for."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--texts", type=int, default=loads.MIXED, help="%(default)s")
    options.add_argument("--output", type=Path, help="the picture, such as docs/overlap.svg")
    given = options.parse_args()
    section, spans = measure(loads.mix(given.texts))
    show(section)
    if given.output:
        draw(spans, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
