"""A device that computes by itself: the next batch is handed to it while results of the last are waited for."""

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from embedfleet_server.engine.errors import DeviceLost
from embedfleet_server.engine.forwards import Computed
from embedfleet_server.engine.observer import BatchRecord, Observer
from embedfleet_server.engine.protocols import Encoded, Model, Rows
from embedfleet_server.engine.raised import OutOfMemory
from embedfleet_server.engine.workers import ThreadWorkers
from tests.support import virtual_time
from tests.support.fake_model import FakeModel, vectors
from tests.support.finishing import finish
from tests.support.simulation import SimulatedWorkers, engine, tokens_of, vector_of

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
        self.fails_at = -1
        self.failed = threading.Event()

    def launch(self, batch: Sequence[Encoded]) -> Callable[[], Rows] | None:
        number, self._launched = self._launched, self._launched + 1
        if number == self.fails_at:
            self.failed.set()
            raise OutOfMemory("CUDA out of memory")
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


def test_one_that_cannot_be_handed_over_fails_before_the_last_is_done() -> None:
    """As where memory runs out: the batch before it has its results all the same."""

    async def main() -> None:
        workers, device = ThreadWorkers(), Device(2)
        first = asyncio.create_task(workers.forward(device, device.encode(["a"], "")))
        device.fails_at = 1
        await asyncio.sleep(0)  # the first is on its way
        with pytest.raises(OutOfMemory):
            await workers.forward(device, device.encode(["b"], ""))
        assert not first.done()
        device.done[0].set()
        np.testing.assert_array_equal((await first).results, vectors(["a"]))
        workers.close()

    asyncio.run(main())


def test_a_model_that_is_computed_at_once_waits_behind_one_that_was_launched() -> None:
    """On the same device: results come in the order of the batches, and tell when they were there."""

    async def main() -> None:
        workers, device, other = ThreadWorkers(), Device(1), FakeModel()
        first = asyncio.create_task(workers.forward(device, device.encode(["a"], "")))
        assert await asyncio.to_thread(device.all_launched.wait, _PATIENCE)
        second = asyncio.create_task(workers.forward(other, other.encode(["b"], "")))
        await workers.aside(lambda: None)
        assert not second.done()
        device.done[0].set()
        made = await asyncio.gather(first, second)
        np.testing.assert_array_equal(made[1].results, vectors(["b"]))
        workers.close()

    asyncio.run(main())


class OutOfTurn(SimulatedWorkers):
    """Whose batches of the text `early` end at once, whatever the device computes: well, or with `error`."""

    error: Exception | None = None

    async def forward(self, model: Model, batch: Sequence[Encoded]) -> Computed:
        if list(batch[0].token_ids) != tokens_of("early"):
            return await super().forward(model, batch)
        if self.error is not None:
            raise self.error
        return Computed(model.forward(batch), asyncio.get_running_loop().time())


@pytest.mark.parametrize("error", [None, OutOfMemory("CUDA out of memory")])
def test_a_batch_that_ends_before_its_turn_took_no_time(error: Exception | None) -> None:
    """Handed over while another was computed: what is told of it is a number, and nothing is learnt of its speed."""
    seen: list[BatchRecord] = []

    class Seeing(Observer):
        def batch(self, record: BatchRecord) -> None:
            seen.append(record)

    async def main() -> None:
        workers = OutOfTurn(start_seconds=1.0)
        workers.error = error
        made = engine(None, workers=workers)
        made._observer = Seeing()  # the simulation's engine takes none
        await made.start()
        await made.embed("semantic", ["warm"])
        speed = made._core.tokens_per_second("semantic")
        first = asyncio.create_task(made.embed("semantic", ["first"]))
        await asyncio.sleep(0.5)
        answer = await made.embed("semantic", ["early"])
        assert not first.done()
        assert [one.code for one in answer.errors.values()] == ([] if error is None else ["input_too_large"])
        assert answer.queue_seconds == pytest.approx(0.0 if error else 0.45, abs=0.06)
        assert answer.compute_seconds == 0.0
        np.testing.assert_array_equal((await first).rows, [vector_of(tokens_of("first"))])
        assert made._core.tokens_per_second("semantic") == pytest.approx(speed)
        assert made.devices()["sim:0"].busy_seconds == pytest.approx(2.0, abs=0.1)
        assert all(math.isfinite(record.queue_seconds) and record.busy_seconds >= 0 for record in seen)
        await finish(made)

    virtual_time.run(main())


class Mixed(Device):
    """Which leaves texts in capitals to the device's thread."""

    def __init__(self, batches: int, device: str) -> None:
        super().__init__(batches)
        self.info = replace(self.info, device=device)
        self.computed = threading.Event()

    def launch(self, batch: Sequence[Encoded]) -> Callable[[], Rows] | None:
        return None if self.is_small(batch) else super().launch(batch)

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        if self.is_small(batch):
            self.told.append(f"forward in {threading.current_thread().name}")
            self.computed.set()
        return super().forward(batch)

    def is_small(self, batch: Sequence[Encoded]) -> bool:
        return list(batch[0].token_ids) == list(self.encode(["SMALL"], "")[0].token_ids)


def _told(device: Device) -> list[str]:
    return [said.rpartition("_")[0] for said in device.told]


def test_a_batch_that_a_gpu_s_thread_computes_is_told_behind_those_before_it() -> None:
    """Its results take the way by the other thread, where some are waited for."""

    async def main() -> None:
        workers, device, order = ThreadWorkers(), Mixed(1, "cuda:0"), list[str]()
        first = asyncio.create_task(workers.forward(device, device.encode(["a"], "")))
        first.add_done_callback(lambda _: order.append("first"))
        assert await asyncio.to_thread(device.all_launched.wait, _PATIENCE)
        behind = asyncio.create_task(workers.forward(device, device.encode(["SMALL"], "")))
        behind.add_done_callback(lambda _: order.append("behind"))
        assert await asyncio.to_thread(device.computed.wait, _PATIENCE)
        await workers.forward(other := FakeModel(), other.encode(["b"], ""))  # on another device, and back
        assert order == []
        device.done[0].set()
        made = await asyncio.gather(first, behind)
        for computed, text in zip(made, ("a", "SMALL"), strict=True):
            np.testing.assert_array_equal(computed.results, vectors([text]))
        assert order == ["first", "behind"]
        workers.close()

    asyncio.run(main())


def test_a_batch_of_all_of_a_cpu_s_threads_begins_when_those_before_it_are_there() -> None:
    """Whatever its model: rows on lanes have the cores until then. Where none are there it begins at once."""

    async def main() -> None:
        workers, device = ThreadWorkers(), Mixed(1, "cpu")
        small = device.encode(["SMALL"], "")
        await workers.forward(device, small)
        first = asyncio.create_task(workers.forward(device, device.encode(["a"], "")))
        assert await asyncio.to_thread(device.all_launched.wait, _PATIENCE)
        behind = asyncio.create_task(workers.forward(device, small))
        for _ in range(3):  # it is in the device's thread by now
            await workers.aside(lambda: None)
        device.done[0].set()
        await asyncio.gather(first, behind)
        forward = "forward in device cpu"
        assert _told(device) == [forward, "launch 0 in device cpu", "results 0 in results cpu", forward]
        workers.close()

    asyncio.run(main())


class OnLanes:
    """Rows that were there before those in front of them."""

    def __init__(self, rows: Callable[[], Rows], ended: float) -> None:
        self._rows, self.ended = rows, ended

    def __call__(self) -> Rows:
        return self._rows()


def test_rows_that_were_there_before_those_in_front_ended_when_they_did() -> None:
    """Not when their turn to be waited for came: no speed is learnt from the moment between the two."""

    class Lanes(Device):
        def launch(self, batch: Sequence[Encoded]) -> Callable[[], Rows] | None:
            rows = super().launch(batch)
            assert rows is not None
            return OnLanes(rows, 1.0 * self._launched)

    async def main() -> None:
        workers, device = ThreadWorkers(), Lanes(1)
        device.done[0].set()
        assert (await workers.forward(device, device.encode(["a"], ""))).ended == 1.0
        workers.close()

    asyncio.run(main())


def test_results_that_nobody_waits_for_are_not_kept() -> None:
    """A batch's vectors are given back though no other batch comes for hours."""

    async def main() -> None:
        workers, device = ThreadWorkers(), Device(1)
        device.done[0].set()
        made = await workers.forward(device, device.encode(["a"], ""))
        kept = weakref.ref(made.results)
        del made
        await workers.aside(gc.collect)
        assert kept() is None
        workers.close()

    asyncio.run(main())


def test_a_model_whose_device_does_not_is_computed_in_one_thread() -> None:
    """As a model without lanes on a CPU: nothing is launched."""

    async def main() -> None:
        workers, device = ThreadWorkers(), Device(1)
        device.launches = False
        made = await workers.forward(device, device.encode(["a"], ""))
        np.testing.assert_array_equal(made.results, vectors(["a"]))
        assert device.told == []
        workers.close()

    asyncio.run(main())
