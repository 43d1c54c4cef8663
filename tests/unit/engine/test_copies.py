"""A model with a copy on each of several devices: loaded, computed, watched, lost."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.engine import Engine
from embedfleet_server.engine.copies import Copies, copies_of, copy_on, joined
from embedfleet_server.engine.errors import DeviceLost, ModelLoadFailed
from embedfleet_server.engine.protocols import Encoded, Model, Rows
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.engine.views import GivesTokens, tokens_of, with_view
from embedfleet_server.engine.workers import ThreadWorkers
from tests.support.fake_model import FakeModel, vectors
from tests.support.finishing import finish
from tests.support.simulation import SimulatedModel, SimulatedWorkers, config, engine, text, texts, vector_of
from tests.support.simulation import tokens_of as ids_of
from tests.support.virtual_time import run

ONE_EACH = Batching(max_batch_size=1, sizing="Fixed")


class Counted(SimulatedModel):
    """Counts its forwards, and whether it was closed."""

    forwards = 0
    closed = False

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        self.forwards += 1
        return super().forward(batch)

    def close(self) -> None:
        self.closed = True


@pytest.mark.requirement("B6", "B9")
def test_each_batch_is_computed_by_the_copy_of_its_device() -> None:
    """Four requests at once on two devices: two each, in half the time, and each its own row."""

    async def main() -> None:
        copies = [Counted(device="sim:0"), Counted(device="sim:1")]
        workers = SimulatedWorkers(start_seconds=1.0)
        made = engine(ONE_EACH, ModelConfig("semantic", lambda: joined(copies)), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        before, began = [copy.forwards for copy in copies], asyncio.get_running_loop().time()
        asked = texts(4, 3)
        answers = await asyncio.gather(*(made.embed("semantic", [one]) for one in asked))
        assert [copy.forwards - b for copy, b in zip(copies, before, strict=True)] == [2, 2]
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, rel=0.01)
        for one, answer in zip(asked, answers, strict=True):
            np.testing.assert_array_equal(answer.rows[0], vector_of(ids_of(one)))
        await finish(made)
        assert all(copy.closed for copy in copies)

    run(main())


@pytest.mark.requirement("B11")
def test_a_model_is_ready_once_all_copies_are() -> None:
    """Each passes the self-test; what is told is the first one's, with all the devices."""

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=1.0)
        made = engine(None, config("semantic", further=["sim:1", "sim:2"]), workers=workers)
        await made.start()
        await asyncio.sleep(2.5)
        seen = [made.ready]
        await asyncio.sleep(1.0)
        assert [*seen, made.ready] == [False, True]
        assert workers.devices == ["sim:0", "sim:1", "sim:2"]
        info = made.info("semantic")
        assert info is not None
        assert (info.device, info.devices) == ("sim:0", ("sim:0", "sim:1", "sim:2"))
        idle = {"batches": 0, "busy_seconds": 0.0, "failing": []}
        assert made.state()["devices"] == dict.fromkeys(info.devices, idle)
        asked = [asyncio.create_task(made.embed("semantic", [text(1)])) for _ in range(2)]
        await asyncio.sleep(0.5)
        assert [figures.batches for figures in made.devices().values()] == [1, 0, 0]
        await asyncio.gather(*asked)
        assert made.devices()["sim:0"].busy_seconds == pytest.approx(1.0, rel=0.01)
        await finish(made)

    run(main())


class Wrong(Counted):
    """A copy that gives NaN."""

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        return np.full((len(batch), 4), np.nan, np.float32)


class Raising(Counted):
    """A copy that cannot compute."""

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        raise RuntimeError("no kernel image is available for execution on the device")


@pytest.mark.requirement("B12")
@pytest.mark.parametrize(
    ("kind", "cause"),
    [(Wrong, "its self-test on sim:1 gave a row"), (Raising, "its self-test on sim:1: RuntimeError: no kernel")],
)
def test_a_copy_that_fails_fails_the_model_with_its_device(kind: type[Counted], cause: str) -> None:
    """The service is not ready, and all copies are given back."""

    async def main() -> None:
        copies = [Counted(device="sim:0"), kind(device="sim:1")]
        made = engine(None, ModelConfig("semantic", lambda: joined(copies)))
        await made.start()
        with pytest.raises(ModelLoadFailed, match=cause):
            await made.embed("semantic", ["x"])
        assert not made.ready
        assert all(copy.closed for copy in copies)
        await finish(made)

    run(main())


@pytest.mark.requirement("B22")
def test_one_lost_device_ends_the_service() -> None:
    """The context of the process is lost with it: nothing more is started, on other devices neither."""

    class Lost(SimulatedModel):
        def forward(self, batch: Sequence[Encoded]) -> Rows:
            if self.device == "sim:1" and len(batch[0].token_ids) == 3:
                raise DeviceLost("illegal address")
            return super().forward(batch)

    async def main() -> None:
        workers = SimulatedWorkers(paces={"sim:0": 5.0})
        copies = [Lost(device="sim:0"), Lost(device="sim:1")]
        made = engine(ONE_EACH, ModelConfig("semantic", lambda: joined(copies)), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        before = len(workers.batches)
        asked = [asyncio.create_task(made.embed("semantic", [text(3)])) for _ in range(9)]
        await asyncio.sleep(5)
        assert workers.devices[before:] == ["sim:0", "sim:1"]
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        await made.stop(1)

    run(main())


@pytest.mark.requirement("B13", "H2")
def test_a_device_that_fails_is_left_out_and_named() -> None:
    """One of two devices fails every batch: requests are answered by the other, and `/state` says which it is."""

    class Sick(SimulatedModel):
        def forward(self, batch: Sequence[Encoded]) -> Rows:
            if self.device == "sim:0" and len(batch[0].token_ids) == 3:
                raise RuntimeError("an ECC error")
            return super().forward(batch)

    async def main() -> None:
        copies = [Sick(device="sim:0"), Sick(device="sim:1")]
        made = engine(None, ModelConfig("semantic", lambda: joined(copies)))
        await made.start()
        for _ in range(10):
            await made.embed("semantic", texts(2, 3))
        assert made.state()["devices"]["sim:0"]["failing"] == ["semantic"]
        assert made.state()["breakers"] == {"semantic": "closed"}
        assert not made.is_failing("semantic")
        answers = await asyncio.gather(*(made.embed("semantic", [text(3)]) for _ in range(10)))
        assert not any(answer.errors for answer in answers)
        await finish(made)

    run(main())


@pytest.mark.requirement("H1")
def test_a_stuck_batch_is_named_with_its_device() -> None:
    """The other device goes on."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(ONE_EACH, config("semantic", further=["sim:1"]), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        workers.paces = {"sim:1": 10_000.0}  # from now on
        asked = [asyncio.create_task(made.embed("semantic", [text(1)])) for _ in range(3)]
        await asyncio.sleep(31.0)
        assert sum(task.done() and not task.exception() for task in asked) == 2
        made.look()
        (found,) = made.state()["health"]
        assert "'semantic' runs for 31 s on sim:1" in found["message"]
        await made.stop(0.0)
        await asyncio.wait(asked)

    run(main())


class Viewed(SimulatedModel):
    """Has a view of its tokens."""

    def token_vectors(self) -> Model:
        return SimulatedModel(tokens_of(self.name), self.device)


def test_a_view_stands_where_its_model_does() -> None:
    """A copy of the view on each device; a model without one still says so."""
    plain, view = with_view(ModelConfig("semantic", lambda: joined([Viewed(device="x"), Viewed(device="y")])))
    assert not isinstance(plain.loader(), GivesTokens)
    assert [copy.info.device for copy in copies_of(view.loader())] == ["x", "y"]
    plain, view = with_view(ModelConfig("semantic", lambda: joined([SimulatedModel(device=d) for d in "xy"])))
    plain.loader()
    with pytest.raises(ModelLoadFailed, match="late chunking needs a Dense model"):
        view.loader()


def test_copies_are_the_first_one_to_whoever_knows_of_none() -> None:
    """Tokens, words, rows and figures are its own; one copy alone is itself; two on one device are a bug."""
    first, second = FakeModel(device="x"), FakeModel(device="y", padded=True)
    made = joined([first, second])
    assert (joined([first]), copies_of(first), copy_on(first, "z")) == (first, (first,), first)
    assert (copy_on(made, "x"), copy_on(made, "y")) == (first, second)
    assert made.encode(["a b"], "query: ") == first.encode(["a b"], "query: ")
    assert made.tokenize(["a b"], special=True) == first.tokenize(["a b"], special=True)
    assert made.decode([[1, 2]], special=False) == ["1 2"]
    np.testing.assert_array_equal(made.forward(made.encode(["a"], "")), vectors(["a"]))
    assert (made.peak_mib(), made.info.padded) == (None, True)
    with pytest.raises(AssertionError, match="2 copies on x"):
        Copies([first, FakeModel(device="x")])


@pytest.mark.requirement("B6", "B9")
def test_real_threads_one_for_each_device() -> None:
    """While a forward hangs on one device the other answers, in a thread of its own."""
    names: set[str] = set()

    class Named(FakeModel):
        def forward(self, batch: Sequence[Encoded]) -> Rows:
            names.add(threading.current_thread().name.rpartition("_")[0])
            return super().forward(batch)

    async def main() -> None:
        reached, opened = threading.Event(), threading.Event()

        def hold() -> None:
            reached.set()
            assert opened.wait(60)

        copies = [Named(hold=hold, device=device) for device in ("cpu:0", "cpu:1")]
        settings = BatchingSettings(batching=ONE_EACH)
        made = Engine("semantic", {"semantic": ModelConfig("semantic", lambda: joined(copies))}, settings)
        assert isinstance(made._workers, ThreadWorkers)
        await made.start()
        await made.embed("semantic", ["warm"])
        held = asyncio.create_task(made.embed("semantic", ["HOLD"]))
        await asyncio.to_thread(reached.wait, 60)
        answer = await made.embed("semantic", ["a"])
        np.testing.assert_array_equal(answer.rows, vectors(["a"]))
        assert {name: figures.batches for name, figures in made.devices().items()} == {"cpu:0": 1, "cpu:1": 0}
        opened.set()
        await held
        await finish(made)

    asyncio.run(main())
    assert names == {"device cpu:0", "device cpu:1"}
