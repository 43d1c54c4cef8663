"""The real engine and driver on a virtual clock, before a simulated device, with callers that wait, leave or run late.

Figures in virtual time are exact: the same on every machine and in every run, whatever else the machine does.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Self

from embedfleet.api import Batching
from embedfleet_server.engine.errors import DeadlineExceeded, QueueFull, TooLate
from embedfleet_server.engine.forwards import Computed
from embedfleet_server.engine.protocols import Encoded, Model
from tests.support.simulation import SimulatedWorkers, config, engine
from tests.support.texts import mixed_texts

MODEL = "semantic"
_LONGEST = 256  # tokens: all-MiniLM-L6-v2's limit
_TOKENS_PER_WORD = 4 / 3  # of its tokenizer, over the mixed load; two more are the special ones


class End(Enum):
    """How a call ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    LATE = "late"
    """Its deadline passed."""
    LEFT = "left"
    """The caller went away."""


@dataclass(slots=True, eq=False)
class Call:
    """One request, and what became of it; times in virtual seconds."""

    at: float
    lengths: tuple[int, ...]
    """Tokens of each text."""
    tenant: str = ""
    within: float | None = None
    """The deadline it states, counted from its arrival."""
    leaves: float = math.inf
    """When the caller goes away without a word, counted from its arrival."""
    end: End | None = None
    seconds: float = math.nan
    promised: float = math.nan
    """Seconds until its answer, as admission could know: see `Run.call`."""
    computed: int = 0
    """Of its tokens, those that were computed."""

    @property
    def tokens(self) -> int:
        """Of all its texts."""
        return sum(self.lengths)

    @property
    def is_gone(self) -> bool:
        """Nobody waits for its answer any more."""
        return self.end in (End.LATE, End.LEFT)


@dataclass
class Device(SimulatedWorkers):
    """A device that pads, and knows whose tokens it computes: a text's first token id is the number of its call.

    10 ms to start, 0.1 ms a token: some 270 texts of the mixed load a second.
    """

    calls: list[Call] = field(default_factory=list)
    longest: float = 0.0
    """Seconds of the longest forward so far."""
    gone_before: Counter[Call] = field(default_factory=Counter)
    """Tokens computed of callers already gone when the forward began."""
    gone_after: Counter[Call] = field(default_factory=Counter)
    """Tokens computed of callers gone when it ended, those before included."""

    async def forward(self, model: Model, batch: Sequence[Encoded]) -> Computed:
        """As the simulated device does, with its books kept."""
        whose = [(self.calls[item.token_ids[0]], len(item.token_ids)) for item in batch] if self.calls else []
        self._note(whose, self.gone_before)
        began = asyncio.get_running_loop().time()
        computed = await super().forward(model, batch)
        self.longest = max(self.longest, asyncio.get_running_loop().time() - began)
        self._note(whose, self.gone_after)
        for call, tokens in whose:
            call.computed += tokens
        return computed

    def _note(self, whose: Sequence[tuple[Call, int]], gone: Counter[Call]) -> None:
        for call, tokens in whose:
            if call.is_gone:
                gone[call] += tokens


class Run:
    """An engine with one model over one device; a context in which it runs."""

    def __init__(self, batching: Batching | None = None) -> None:
        self.device = Device()
        self.engine = engine(batching or Batching(), config(MODEL), workers=self.device)

    async def __aenter__(self) -> Self:
        """Load the model and let it pass its self-test."""
        await self.engine.start()
        while not self.engine.ready:  # noqa: ASYNC110  # the engine says how it is when asked, and calls nobody
            await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give everything back."""
        await self.engine.stop(60.0)

    async def call(self, call: Call) -> None:
        """One request from its arrival to its end.

        Admission's promise: the wait by which it would refuse a stated deadline at this moment, and two batches as long
        as the longest so far, since one runs already and it has to be in one itself.
        """
        number = len(self.device.calls)
        self.device.calls.append(call)
        began = asyncio.get_running_loop().time()
        wait = self.engine.wait(MODEL, sum(call.lengths), tenant=call.tenant)
        call.promised = wait + 2 * self.device.longest
        texts = [[number] * length for length in call.lengths]
        try:
            async with asyncio.timeout(call.leaves if math.isfinite(call.leaves) else None):
                await self.engine.embed(MODEL, texts, tenant=call.tenant, within=call.within)
            call.end = End.ANSWERED
        except QueueFull:
            call.end = End.REFUSED
        except (DeadlineExceeded, TooLate):
            call.end = End.LATE
        except TimeoutError:
            call.end = End.LEFT
        call.seconds = asyncio.get_running_loop().time() - began

    async def open_loop(self, calls: Iterable[Call]) -> list[Call]:
        """Every call at its time, whatever became of those before; returns them all ended."""
        made = list(calls)
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for call in made:
                await asyncio.sleep(max(0.0, start + call.at - loop.time()))
                group.create_task(self.call(call))
        return made

    async def closed_loop(self, clients: int, seconds: float, draw: "Draw") -> list[Call]:
        """So many callers, each with its next request as soon as the last is answered; those that end in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        done: list[Call] = []

        async def client() -> None:
            while loop.time() < until:
                call = Call(loop.time(), draw.lengths())
                await self.call(call)
                if loop.time() <= until:
                    done.append(call)

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
        return done


class Draw:
    """Requests and arrivals by a seeded draw: the same in every run."""

    def __init__(self, seed: int, sizes: Sequence[int] = (1,), lengths: Sequence[int] | None = None) -> None:
        self._random = random.Random(seed)
        self._sizes = sizes
        self._lengths = lengths or mixed_lengths()

    def lengths(self) -> tuple[int, ...]:
        """Tokens of the texts of one request."""
        return tuple(self._random.choices(self._lengths, k=self._random.choice(self._sizes)))

    def mean_tokens(self) -> float:
        """Of one request."""
        return sum(self._sizes) / len(self._sizes) * sum(self._lengths) / len(self._lengths)

    def arrivals(self, tokens_per_second: float, seconds: float) -> list[float]:
        """Times of a Poisson process that offers so many tokens a second."""
        times, now = list[float](), 0.0
        while (now := now + self._random.expovariate(tokens_per_second / self.mean_tokens())) < seconds:
            times.append(now)
        return times

    def between(self, low: float, high: float) -> float:
        """Evenly distributed."""
        return self._random.uniform(low, high)

    def chance(self, probability: float) -> bool:
        """True so often."""
        return self._random.random() < probability


@cache
def mixed_lengths() -> tuple[int, ...]:
    """Tokens of the texts of the mixed load, as all-MiniLM-L6-v2 would count them, near enough."""
    return tuple(min(_LONGEST, 2 + round(len(text.split()) * _TOKENS_PER_WORD)) for text in mixed_texts(4096))
