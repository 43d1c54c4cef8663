"""What the parts of a run share: the load, the measuring processes, the servers; each starts when first asked for."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.benchmarks import loads, ours
from tests.benchmarks.child import Child
from tests.benchmarks.peers import infinity
from tests.benchmarks.peers.environment import PeerMissing


@dataclass
class Bench:
    """One run on one machine; what it starts ends with `stack`."""

    stack: contextlib.ExitStack
    texts: list[str]
    repetitions: int
    with_peers: bool = True
    load: float = field(default_factory=lambda: os.getloadavg()[0], init=False)
    """How busy the machine was over the minute before."""
    missing: str | None = field(default=None, init=False)
    """Why the peer is not there, once that is known."""

    def say(self, line: str) -> None:
        """Progress, beside the report."""
        print(line, file=sys.stderr, flush=True)

    @cached_property
    def model(self) -> Path:
        """Directory of the model that every subject serves."""
        return ours.model_directory()

    @cached_property
    def clients(self) -> Child:
        """The load generator."""
        return self.stack.enter_context(Child("tests.benchmarks.clients"))

    @cached_property
    def bare(self) -> Child:
        """sentence-transformers and the model alone."""
        self.say("loading the model beside the servers")
        return self.stack.enter_context(Child("tests.benchmarks.bare", str(self.model)))

    @cached_property
    def server(self) -> ours.Running:
        """Our own server, ready and warm."""
        self.say("starting embedfleet serve")
        server = self.stack.enter_context(ours.running())
        self._warm(server.url, ours.MODEL)
        return server

    @cached_property
    def half(self) -> ours.Running:
        """The same in bfloat16, where the processor multiplies it."""
        self.say("starting embedfleet serve in bfloat16")
        server = self.stack.enter_context(ours.running(ours.manifest("BFloat16")))
        self._warm(server.url, ours.MODEL)
        return server

    @cached_property
    def rates(self) -> dict[str, Any]:
        """What `hardware.gemm` finds: the rates of matrix products, in TFLOP/s, and the number of threads."""
        with Child("tests.benchmarks.hardware") as child:
            return dict(child.ask("gemm"))

    def ceiling(self, texts: Sequence[str], *, half: bool) -> float:
        """Seconds of the matrix products of these texts at the machine's best rate, in float32 or in bfloat16."""
        rate = self.rates["bfloat16"] if half else max(self.rates["blas"], self.rates["float32"])
        return float(self.bare.ask("work", texts=texts)["operations"] / (rate * 1e12))

    @cached_property
    def peer(self) -> infinity.Running | None:
        """The peer, ready and warm; None where it cannot be had. Idle it uses no processor time."""
        if not self.with_peers:
            self.missing = "left out (--no-peers)"
            return None
        self.say(f"starting infinity {infinity.VERSION}")
        try:
            peer = self.stack.enter_context(infinity.running(self.model))
        except PeerMissing as missing:
            self.missing = str(missing)
            self.say(f"infinity is left out: {missing}")
            return None
        self._warm(peer.url, infinity.MODEL)
        return peer

    def interleaved(self, subjects: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Seconds of each subject in each repetition; every other repetition goes backwards, so that noise hits all."""
        seconds: dict[str, list[float]] = {name: [] for name in subjects}
        for repetition in range(self.repetitions):
            names = list(subjects) if repetition % 2 == 0 else list(reversed(subjects))
            for name in names:
                seconds[name].append(subjects[name]())
                self.say(f"  {name}: {len(self.texts) / seconds[name][-1]:.0f} texts/s")
        return seconds

    def _warm(self, url: str, model: str) -> None:
        some = self.texts[:128]
        self.clients.ask("pattern", url=url, model=model, clients=8, texts=some, size=8, wanted="float")


def start(stack: contextlib.ExitStack, *, texts: int, repetitions: int, with_peers: bool) -> Bench:
    """A run over the first `texts` of the mixed load."""
    return Bench(stack, loads.mix(texts), repetitions, with_peers)
