"""A device that computes by itself: the next batch is handed to it while results of the last are waited for."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from embedfleet_server.engine.errors import DeviceLost
from embedfleet_server.engine.forwards import Computed
from embedfleet_server.engine.protocols import Encoded, Rows
from embedfleet_server.engine.workers import ThreadWorkers
from tests.support.fake_model import FakeModel, vectors

pytestmark = pytest.mark.requirement("B6")
_PATIENCE = 30.0  # seconds until a test fails whose threads wait for each other


class Device(FakeModel):
    """Computes a batch once it is told to, in the order in which it was given them."""

    launches = True

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.done = [threading.Event() for _ in range(batches)]
        self.all_launched = threading.Event()
        self.told: list[str] = []
        self._launched = 0

    def launch(self, batch: Sequence[Encoded]) -> Callable[[], Rows]:
        number, self._launched = self._launched, self._launched + 1
        self.told.append(f"launch {number} in {threading.current_thread().name}")
        if self._launched == len(self.done):
            self.all_launched.set()

        def rows() -> Rows:
            assert self.done[number].wait(_PATIENCE)
            self.told.append(f"results {number} in {threading.current_thread().name}")
            return self.forward(batch)

        return rows

    def peak_mib(self) -> float | None:
        return float(self._launched)


def test_the_next_batch_is_handed_over_before_the_results_of_the_last_are_there() -> None:
    """Rows come in the order of the batches, each with what its own batch took of memory."""

    async def main() -> None:
        workers, device = ThreadWorkers(), Device(2)
        first = asyncio.create_task(workers.forward(device, device.encode(["a"], "")))
        second = asyncio.create_task(workers.forward(device, device.encode(["b"], "")))
        assert await asyncio.to_thread(device.all_launched.wait, _PATIENCE)
        device.done[1].set()
        device.done[0].set()
        made = await asyncio.gather(first, second)
        for computed, text in zip(made, "ab", strict=True):
            np.testing.assert_array_equal(computed.results, vectors([text]))
        assert [computed.peak_mib for computed in made] == [1.0, 2.0]
        assert [said.rpartition("_")[0] for said in device.told] == [
            "launch 0 in device cpu",
            "launch 1 in device cpu",
            "results 0 in results cpu",
            "results 1 in results cpu",
        ]
        workers.close()

    asyncio.run(main())


def test_what_the_device_could_not_do_is_told_where_results_are_waited_for() -> None:
    """A loss is heard as from any forward, and the next batch has its results."""
    heard: list[str] = []

    async def main() -> None:
        workers, device = ThreadWorkers(on_lost=lambda error: heard.append(str(error))), Device(2)
        for done in device.done:
            done.set()
        with pytest.raises(DeviceLost):
            await workers.forward(device, device.encode(["LOSE"], ""))
        assert len(heard) == 1
        made: Computed = await workers.forward(device, device.encode(["b"], ""))
        np.testing.assert_array_equal(made.results, vectors(["b"]))
        workers.close()

    asyncio.run(main())


def test_a_model_whose_device_does_not_is_computed_in_one_thread() -> None:
    """As every model on a CPU: nothing is launched."""

    async def main() -> None:
        workers, device = ThreadWorkers(), Device(1)
        device.launches = False
        made = await workers.forward(device, device.encode(["a"], ""))
        np.testing.assert_array_equal(made.results, vectors(["a"]))
        assert device.told == []
        workers.close()

    asyncio.run(main())
