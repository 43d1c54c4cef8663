"""`python -m tests.benchmarks`: measure this machine; one table of everything, with hardware, dtype and goals."""

import argparse
import contextlib
import datetime as dt
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks import (
    adaptive,
    alone,
    around,
    batch_alone,
    fairness,
    fast_device,
    flood,
    forward,
    gpu,
    hardware,
    hostile,
    importing,
    latency,
    loads,
    memory,
    operator,
    overlap,
    overload,
    overload_served,
    pipelines,
    plot,
    poison,
    proxy,
    scheduling,
    sdk_million,
    throughput,
    throughput_paced,
)
from tests.benchmarks.bench import Bench, start
from tests.benchmarks.child import ROOT
from tests.benchmarks.report import Section, markdown

PARTS: dict[str, Callable[[Bench], Section]] = {
    "import": lambda bench: importing.measure(),
    "core": lambda bench: scheduling.measure(bench.repetitions, bench.say),
    "scaling": lambda bench: scheduling.scaling(bench.repetitions, bench.say),
    "overload": lambda bench: overload.measure(bench.say),
    "overload-http": lambda bench: overload_served.measure(bench.say),
    "fairness": lambda bench: fairness.measure(bench.say),
    "hostile": lambda bench: hostile.measure(bench.say),
    "poison": lambda bench: poison.measure(bench.say),
    "adaptive": lambda bench: adaptive.measure(bench.say),
    "forward": forward.measure,
    "http": throughput.measure,
    "http-paced": lambda bench: throughput_paced.measure(),
    "fast-device": lambda bench: fast_device.measure(),
    "around": around.measure,
    "overlap": lambda bench: overlap.measure(bench.texts)[0],
    "single": alone.measure,
    "batch": batch_alone.measure,
    "pipelines": lambda bench: pipelines.measure(bench.say, bench.repetitions),
    "latency": latency.measure,
    "concurrent": flood.measure,
    "sdk-million": lambda bench: sdk_million.measure(),
    "memory": memory.measure,
    "gpu": lambda bench: gpu.measure(bench.say, bench.repetitions),
    "operator": lambda bench: operator.measure(bench.say),
    "proxy": lambda bench: proxy.measure(bench.say, bench.repetitions),
}
_QUIET = 0.5  # of the cores busy with something else, and a run is worth little
_REPORT = "docs/benchmarks.md"
_METHOD = "\n## How it is measured\n"


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; 0 unless a part erred, whether goals were met or not."""
    given = _parser().parse_args(arguments)
    with contextlib.ExitStack() as stack:
        bench = start(stack, texts=given.texts, repetitions=given.repetitions, with_peers=not given.no_peers)
        sections = [gpu.machine() if given.only == ["gpu"] else _hardware(bench)]
        failed = [name for name in PARTS if name in given.only and not _measured(bench, name, sections)]
    command = shlex.join(["python", "-m", "tests.benchmarks", *arguments])
    when = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = markdown(sections, command=command, when=when)
    print(text)
    if given.write and not failed:
        _write(ROOT / _REPORT, text)
    return 1 if failed else 0


def _write(report: Path, text: str) -> None:
    """Keep the run, and draw it; what the page says of how all is measured stays, whatever the figures."""
    before = report.read_text(encoding="utf-8") if report.is_file() else ""
    _, heading, method = before.partition(_METHOD)
    report.write_text(text + heading + method, encoding="utf-8")
    plot.draw(report)


def _measured(bench: Bench, name: str, sections: list[Section]) -> bool:
    """Whether a part could be measured; what the others found is shown whatever becomes of it."""
    try:
        sections.append(PARTS[name](bench))
    except Exception:  # noqa: BLE001  # shown, and the exit status tells of it
        bench.say(f"part {name!r} failed:\n{traceback.format_exc()}")
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", type=_parts, default=list(PARTS), metavar="PART,…", help=f"of {','.join(PARTS)} (all)")
    add("--repetitions", type=int, default=3, help="how often each speed is measured (%(default)s)")
    add("--texts", type=int, default=loads.MIXED, help="texts of the mixed load (%(default)s)")
    add("--no-peers", action="store_true", help="without infinity, ONNX Runtime, OpenVINO: some GB, once")
    add("--write", action="store_true", help=f"write the table to {_REPORT} too")
    return parser


def _parts(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(PARTS)}")
    return names


def _hardware(bench: Bench) -> Section:
    """The machine, what it can do at most, and the load."""
    rates = bench.rates
    section = Section("The machine and the load", ("what", "value"), list(hardware.describe().items()))
    work = bench.bare.ask("work", texts=bench.texts)
    operations, lengths = work["operations"] / len(bench.texts), sorted(work["lengths"])
    for kind, name in hardware.RATES.items():
        if kind not in rates:
            continue
        ceiling = f"{rates[kind]:.2f} TFLOP/s, so at most {rates[kind] * 1e12 / operations:,.0f} texts/s"
        section.rows.append((f"matrix products, {name}, {rates['threads']} threads", ceiling))
    tokens = f"{sum(lengths) / len(lengths):.1f} tokens, p50 {lengths[len(lengths) // 2]}, longest {lengths[-1]}"
    section.rows.append(("mixed load", f"{len(lengths)} texts, mean {tokens}; sha256 {loads.digest(bench.texts)}…"))
    section.rows.append(("work of the load", f"{work['operations'] / 1e12:.2f} TFLOP, padding left out"))
    section.rows.append(("load of the machine at the start", f"{bench.load:.2f} (1 min)"))
    if bench.load > _QUIET * (os.cpu_count() or 1):
        section.notes.append("Something else was running: torch falls to a third then, so these speeds say little.")
    return section


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
