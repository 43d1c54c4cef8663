"""Runs the warm-ups: forwards of made texts on the model's device, once its self-test passed and before it is Ready.

One at a time on a device. It is for nobody but those who come later: as soon as anyone waits for the service, or is
served, it ends. It measures and does not judge, which the self-test did: what fails in it fails no model.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from embedfleet.api import Batching
from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.pressure import Reading
from embedfleet_server.batching.types import Fault
from embedfleet_server.batching.warm_up import Costs, Shape, WarmUp, ladder
from embedfleet_server.engine.errors import DeviceLost
from embedfleet_server.engine.faults import classify
from embedfleet_server.engine.protocols import Encoded, Model
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.engine.watch import Readings
from embedfleet_server.engine.workers import Workers

SECONDS = 1.5
"""Of all warm-ups of a service together: half of what its smallest model takes to load (MiniLM on two cores, 3 s)."""
_MIB = 1 << 20
_SPECIAL = 110  # ids at either end of a vocabulary that may be special ones, such as padding
_log = logging.getLogger("embedfleet.engine")


class Warming:
    """What is done with a model between its self-test and Ready; keeps what was measured."""

    def __init__(
        self,
        core: BatchingCore,
        workers: Workers,
        readings: Readings,
        batching_of: Callable[[str], Batching],
        seconds: float,
    ) -> None:
        """`seconds`: what the forwards of one model may take; 0 is no warm-up."""
        self._core, self._workers, self._readings, self._batching_of = core, workers, readings, batching_of
        self._seconds = seconds
        self._loaded: dict[str, tuple[str, ...]] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.costs: dict[str, Costs] = {}

    async def __call__(self, config: ModelConfig, model: Model, tokens: int) -> None:
        """A model was loaded, and a self-test of so many tokens was its last forward.

        One that loads when it is first asked for has a caller who waits, and batches that teach the same.
        """
        name, device = config.name, model.info.device
        if (peak := model.peak_mib()) is not None:
            self._core.learn_memory(name, tokens, peak)
        self._loaded[name] = model.info.devices
        self._share_room()
        if self._seconds and not config.lazy:
            async with self._turns[device]:
                self.costs[name] = await self._measured(name, model)

    def _share_room(self) -> None:
        """Each model of a device may fill what is free; forwards of a device follow one another.

        What a model learns of its first device is taken for the others, so that the fullest of them counts.
        """
        readings = self._readings()
        for name, devices in self._loaded.items():
            found = [readings[place] for device in devices if (place := _place(device)) in readings]
            critical = self._batching_of(name).health.memory_critical_percent / 100
            if found:
                self._core.has_room(name, min(room_mib(reading, critical) for reading in found))

    async def _measured(self, name: str, model: Model) -> Costs:
        batching, info = self._batching_of(name), model.info
        plan = WarmUp(ladder(info.max_tokens, batching.largest_batch, batching.max_batch_tokens), self._seconds)
        while (shape := plan.next(self._core.fitting(name))) is not None:
            if not self._core.is_idle:
                plan.end("there was work to do")
                break
            await self._run(name, model, shape, plan)
        self._core.learn_costs(name, plan.points())
        costs = plan.costs()
        _log.info("model %s was measured seconds=%.3f reason=%s", name, costs.seconds, costs.reason)
        return costs

    async def _run(self, name: str, model: Model, shape: Shape, plan: WarmUp) -> None:
        loop = asyncio.get_running_loop()
        batch = made(shape, model.info.vocabulary)
        began = loop.time()
        try:
            computed = await self._workers.forward(model, batch)
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a model raises, known text it did embed
            plan.failed(loop.time() - began)
            self._failed(name, shape, plan, error)
        else:
            plan.ran(shape, loop.time() - began)
            if computed.peak_mib is not None:
                self._core.learn_memory(name, shape.tokens, computed.peak_mib)

    def _failed(self, name: str, shape: Shape, plan: WarmUp, error: Exception) -> None:
        """Out of memory: smaller batches from now on, in the warm-up too. Anything else ends it."""
        words = f"{shape.inputs} texts of {shape.length} tokens"
        if classify(error) is Fault.MEMORY:
            self._core.ran_out(name, shape.tokens)
            plan.say(f"{words} had no room in memory")
        else:
            plan.end(f"{words} failed: {type(error).__name__}: {error}")
            _log.warning("the warm-up of model %s ends, %s failed: %r", name, words, error)


def _place(device: str) -> str:
    """The name of the device's memory in readings."""
    return "host" if device.startswith("cpu") else device


def room_mib(reading: Reading, critical: float) -> float:
    """MiB that a batch may take before so large a share of the memory is in use that the door refuses."""
    return (critical * reading.total - reading.used) / _MIB


def made(shape: Shape, vocabulary: int) -> list[Encoded]:
    """Texts of random tokens, the same for every model; special tokens stand at the ends of a vocabulary."""
    least = min(vocabulary // 4, _SPECIAL)
    ids = np.random.default_rng(0).integers(least, vocabulary - least, (shape.inputs, shape.length))
    return [Encoded(row) for row in ids.tolist()]
