"""The runtimes that the bare forward is held against: each set up, tuned for the mixes, or named with why it is not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedfleet_server.models.device import cpu_flags
from tests.benchmarks.bench import Bench
from tests.benchmarks.child import Child, ChildFailed
from tests.benchmarks.peers import runtimes
from tests.benchmarks.peers.environment import PeerMissing
from tests.benchmarks.peers.runtimes import RUNTIMES, Runtime

_TUNED = {"short": 128, "mixed": 96, "long": 16}
"""Texts of a mix on which the size of batches is chosen: about a second of each."""
_COMPARED = 16  # texts whose vectors decide whether a precision is near enough to float32
Tokens = Mapping[str, Sequence[Sequence[int]]]
"""Token ids of the texts of each mix."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A runtime in one precision, ready to be measured."""

    runtime: Runtime
    precision: str
    child: Child
    tokens: Tokens
    settings: str

    @property
    def name(self) -> str:
        """As the table's rows say it."""
        return f"{self.runtime.name} {self.runtime.version}, {self.precision}"

    def seconds(self, mix: str) -> float:
        """One forward of a mix."""
        return float(self.child.ask("forward", precision=self.precision, mix=mix, ids=self.tokens[mix])["seconds"])


def tuned(bench: Bench, mixes: Mapping[str, Sequence[str]], left_out: Callable[[str], None]) -> list[Tuned]:
    """All that can be had here; `left_out` is told of each that cannot, and why."""
    if not bench.with_peers:
        left_out("ONNX Runtime and OpenVINO are left out (--no-peers).")
        return []
    tokens = {mix: bench.bare.ask("tokens", texts=texts)["ids"] for mix, texts in mixes.items()}
    expected = bench.bare.ask("vectors", texts=mixes["mixed"][:_COMPARED])["rows"]
    found = list[Tuned]()
    for runtime in RUNTIMES:
        bench.say(f"setting up {runtime.name} {runtime.version}")
        try:
            child = bench.stack.enter_context(runtimes.running(runtime, bench.model))
        except PeerMissing as missing:
            left_out(f"{runtime.name} {runtime.version} could not be set up: {missing}")
            continue
        found += _precisions(runtime, child, tokens, expected, left_out)
    return found


def _precisions(
    runtime: Runtime, child: Child, tokens: Tokens, expected: Any, left_out: Callable[[str], None]
) -> list[Tuned]:
    found = list[Tuned]()
    for precision in runtime.precisions:
        name = f"{runtime.name} {runtime.version}, {precision}"
        if precision != runtime.precisions[0] and runtime.flags and not runtime.flags & cpu_flags():
            left_out(f"{name} is left out: the processor has none of {', '.join(sorted(runtime.flags))}.")
            continue
        try:
            chosen = child.ask(
                "prepare", precision=precision, ids=tokens["mixed"][: _TUNED["mixed"]], expected=expected
            )
            if chosen["far"]:
                left_out(f"{name}: too far from float32, so not measured: {_said(chosen['far'])}.")
            if chosen["way"] is not None:
                found.append(_fitted(runtime, precision, child, tokens, chosen))
        except ChildFailed as failed:
            left_out(f"{name} failed: {str(failed).strip().splitlines()[-1]}")
    return found


def _fitted(runtime: Runtime, precision: str, child: Child, tokens: Tokens, chosen: Mapping[str, Any]) -> Tuned:
    sizes = {
        mix: child.ask("fit", precision=precision, mix=mix, ids=ids[: _TUNED[mix]])["size"]
        for mix, ids in tokens.items()
    }
    batches = ", ".join(f"{size} ({mix})" for mix, size in sizes.items())
    settings = f"{chosen['way']}; batches of {batches}; cosine at least {chosen['cosine']:.6f}"
    return Tuned(runtime, precision, child, tokens, settings)


def _said(far: Mapping[str, float]) -> str:
    return "; ".join(f"{way} (cosine {cosine:.4f})" for way, cosine in far.items())
