"""A simulated device behind the engine's own seam: the real core and driver, with forwards that take virtual time."""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from embedfleet.api import Batching, BatchingSettings, ModelBatching
from embedfleet_server.engine import Engine, ModelConfig
from embedfleet_server.engine.copies import joined
from embedfleet_server.engine.forwards import Computed
from embedfleet_server.engine.protocols import Encoded, Item, Loader, Model, ModelInfo, Rows, Side, Token
from embedfleet_server.engine.rows import AnyRows
from embedfleet_server.engine.watch import Readings
from tests.support.fake_model import given_ids

DIMENSIONS = 4
T = TypeVar("T")


def vector_of(token_ids: Sequence[int]) -> Rows:
    """What the simulated model gives for these tokens: depends on all of them, on nothing else."""
    seed = np.array([len(token_ids), *token_ids], np.int64)
    weights = np.arange(1, DIMENSIONS + 1)[:, None] * np.arange(1, len(seed) + 1)[None, :]
    return np.asarray(np.sin((weights * seed).sum(axis=1)), np.float32)


@dataclass
class SimulatedModel:
    """Texts are split into words; a token id is the sum of a word's characters."""

    name: str = "semantic"
    device: str = "sim:0"
    padded: bool = True

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            self.name, "Dense", DIMENSIONS, DIMENSIONS, 512, 1 << 20, "f" * 64, "float32", self.device, None, (),
            self.padded, prompts={"query": "q "},
        )  # fmt: skip

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        return [Encoded(tokens_of(prompt + item) if isinstance(item, str) else given_ids(item)) for item in items]

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        raise AssertionError("no simulation asks for tokens")

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        raise AssertionError("no simulation asks for texts")

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        return np.stack([vector_of(item.token_ids) for item in batch])

    def peak_mib(self) -> float | None:
        return None

    def close(self) -> None:
        self.closed = True


def tokens_of(text: str) -> list[int]:
    """Token ids of a text."""
    return [sum(map(ord, word)) for word in text.split()]


@dataclass
class SimulatedWorkers:
    """Loads, tokenises and computes in virtual time, and remembers what ran."""

    start_seconds: float = 0.010
    seconds_per_token: float = 0.0001
    load_seconds: float = 0.0
    encode_seconds: float = 0.0
    batches: list[list[int]] = field(default_factory=list)
    """Lengths of the inputs of each batch, in order."""
    models: list[str] = field(default_factory=list)
    """The model of each batch."""
    devices: list[str] = field(default_factory=list)
    """The device of each batch."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Tokens computed to the end, by device."""
    paces: Mapping[str, float] = field(default_factory=dict)
    """How many times slower than the others a device is, where it is."""
    started: list[float] = field(default_factory=list)
    """When each batch started, on the virtual clock."""
    running: int = 0
    most_running: int = 0
    loads: int = 0
    closed: bool = False
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """Those of a device follow one another in the order in which they came."""

    async def load(self, loader: Loader) -> Model:
        self.loads += 1
        await asyncio.sleep(self.load_seconds)
        return loader()

    async def encode(
        self,
        model: Model,
        items: Sequence[Item],
        prompt: str,
        input_type: str | None = None,
        side: Side | None = None,
    ) -> list[Encoded]:
        await asyncio.sleep(self.encode_seconds)
        return model.encode(items, prompt, input_type, side)

    async def aside(self, call: Callable[[], T]) -> T:
        return call()

    async def forward(self, model: Model, batch: Sequence[Encoded]) -> Computed:
        async with self._turns[model.info.device]:
            rows = await self._forward(model, batch)
            return Computed(rows, asyncio.get_running_loop().time(), model.peak_mib())

    async def _forward(self, model: Model, batch: Sequence[Encoded]) -> AnyRows:
        device = model.info.device
        self.models.append(model.info.name)
        self.devices.append(device)
        self.batches.append([len(item.token_ids) for item in batch])
        self.started.append(asyncio.get_running_loop().time())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            tokens = max(len(item.token_ids) for item in batch) * len(batch)
            await asyncio.sleep((self.start_seconds + self.seconds_per_token * tokens) * self.paces.get(device, 1.0))
            rows = model.forward(batch)
            self.tokens[device] += tokens
            return rows
        finally:
            self.running -= 1

    def close(self) -> None:
        self.closed = True


def engine(
    batching: Batching | None = None,
    *models: ModelConfig,
    workers: SimulatedWorkers | None = None,
    own: dict[str, ModelBatching] | None = None,
    default_model: str | None = None,
    warm_up: float = 0.0,
    readings: Readings = dict,
) -> Engine:
    """An engine over simulated models; one called `semantic` when none is given. `warm_up` in seconds."""
    models = models or (config("semantic"),)
    settings = BatchingSettings(batching=batching or Batching(), models=own or {})
    return Engine(
        "semantic", {m.name: m for m in models}, settings, default_model=default_model,
        workers=workers or SimulatedWorkers(), warm_up_seconds=warm_up, readings=readings,
    )  # fmt: skip


def config(
    name: str, *, lazy: bool = False, required: bool = True, device: str = "sim:0", further: Sequence[str] = ()
) -> ModelConfig:
    """A simulated model of this name, with a copy on each of the `further` devices."""
    return ModelConfig(name, lambda: joined([SimulatedModel(name, one) for one in (device, *further)]), lazy, required)


_numbers = itertools.count()


def text(words: int) -> str:
    """A text of so many tokens, unlike any other: what is alike would share a forward."""
    return " ".join([f"w{next(_numbers)}"] * words)


def texts(inputs: int, words: int) -> list[str]:
    """So many texts of so many tokens each."""
    return [text(words) for _ in range(inputs)]
