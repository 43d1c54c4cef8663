"""What depends on the clock, on a virtual one: the real core and driver, the door and the deadlines."""

import asyncio
import logging
from typing import Any

import pytest

from embedfleet_server.engine.errors import DeadlineExceeded
from embedfleet_server.processor.callables import CallableWorkers
from embedfleet_server.processor.config import BatchProcessorConfig
from embedfleet_server.processor.door import Door
from embedfleet_server.processor.request import Request
from embedfleet_server.processor.runtime import Runtime
from embedfleet_server.processor.stats import BatchStats
from tests.support.virtual_time import run


class Bench:
    """A processor without its thread, on the running loop."""

    def __init__(self, func: Any, **values: Any) -> None:
        config = BatchProcessorConfig(**values)
        self.loop = asyncio.get_running_loop()
        self.stats = BatchStats(clock=self.loop.time)
        self.door = Door(config.max_queued_requests, self.wake)
        self.runtime = Runtime(config, CallableWorkers(func, config.max_workers), self.door, self.stats)

    def wake(self) -> None:
        self.loop.call_soon(self.runtime.empty_box)

    def enqueue(self, item: Any) -> Request:
        request = Request([item], 128, single=True)
        self.door.enter(request)
        return request


class Device:
    """Takes a second a call and remembers when each began."""

    def __init__(self, seconds: float = 1.0, per_item: float = 0.0) -> None:
        self.seconds, self.per_item = seconds, per_item
        self.began: list[float] = []
        self.sizes: list[int] = []

    async def __call__(self, batch: list[Any]) -> list[Any]:
        self.began.append(asyncio.get_running_loop().time())
        self.sizes.append(len(batch))
        await asyncio.sleep(self.seconds + self.per_item * len(batch))
        return batch


@pytest.mark.requirement("B2", "B3")
def test_a_lone_item_leaves_by_the_clock_or_at_once() -> None:
    """After max_wait_milliseconds without dispatch_when_idle, else when it comes."""

    async def main() -> None:
        for idle, due in ((False, 0.2), (True, 0.0)):
            device = Device()
            bench = Bench(device, dispatch_when_idle=idle, max_wait_milliseconds=200)
            start = bench.loop.time()
            bench.enqueue("one")
            assert await bench.runtime.stop(10)
            assert device.began[0] - start == pytest.approx(due)

    run(main())


@pytest.mark.requirement("B24")
def test_no_caller_waits_past_item_timeout() -> None:
    """A call of a minute, one that waits behind it, a limit of two seconds: each fails at its own two."""

    async def main() -> None:
        bench = Bench(Device(60.0), item_timeout_seconds=2, max_workers=1, max_batch_size=1)
        ends: list[float] = []
        first = bench.enqueue(1)
        first.add_done_callback(lambda _: ends.append(bench.loop.time()))
        await asyncio.sleep(0.5)
        second = bench.enqueue(2)
        second.add_done_callback(lambda _: ends.append(bench.loop.time()))
        await asyncio.sleep(5)
        assert ends == pytest.approx([2.0, 2.5])
        for request in (first, second):
            assert isinstance(request.exception(), DeadlineExceeded)
        assert bench.door.depth == 0
        assert await bench.runtime.stop(0)

    run(main())


@pytest.mark.requirement("B22", "P2")
def test_the_back_off_doubles() -> None:
    """Three tries after the first, at 1, 2 and 4 seconds of back-off."""

    async def main() -> None:
        began: list[float] = []

        async def down(batch: list[Any]) -> list[Any]:
            began.append(asyncio.get_running_loop().time())
            raise OSError("away")

        bench = Bench(down)
        request = bench.enqueue(1)
        assert await bench.runtime.stop(60)
        assert isinstance(request.exception(), OSError)
        assert began == pytest.approx([0, 1, 3, 7])

    run(main())


@pytest.mark.requirement("P6")
def test_a_stop_within_a_back_off_ends_in_time() -> None:
    """Cancelled at its timeout, though the next try is seconds away; nothing is left in the core."""

    async def main() -> None:
        async def down(batch: list[Any]) -> list[Any]:
            raise OSError("away")

        bench = Bench(down, retry_delay_milliseconds=60_000)
        request = bench.enqueue(1)
        assert not await bench.runtime.stop(3)
        assert bench.loop.time() == pytest.approx(3.0)
        assert request.cancelled()
        stats = bench.runtime._core.stats()
        assert (stats.waiting, stats.running, stats.cancelled) == (0, 0, 1)

    run(main())


@pytest.mark.requirement("P5", "A1")
def test_adaptive_sizing_learns_from_the_calls_and_can_be_switched_off() -> None:
    """A call costs 100 ms and 1 ms an item, target 150 ms: fixed stays at its size; adaptive finds about 50."""

    async def main(adaptive: bool) -> list[int]:
        device = Device(0.100, 0.001)
        bench = Bench(
            device, adaptive=adaptive, max_batch_size=256, initial_batch_size=8 if adaptive else None, max_workers=1,
            target_batch_milliseconds=150, max_queued_requests=300, dispatch_when_idle=False, item_timeout_seconds=None,
        )  # fmt: skip
        while len(device.sizes) < 300:
            while bench.door.depth < 300:
                bench.enqueue(0)
            await asyncio.sleep(0.01)
        assert await bench.runtime.stop(100)
        return device.sizes[:300]

    assert set(run(main(adaptive=False))) == {256}
    learnt = run(main(adaptive=True))
    assert learnt[0] == 8
    assert 30 <= sum(learnt[250:]) / 50 <= 52


@pytest.mark.requirement("P5", "H1")
@pytest.mark.parametrize("health", [True, False])
def test_health_is_told_once_per_change_unless_switched_off(health: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A call of 100 s with the queue nearly full: looked at three times, told once; then that it is over."""

    async def main() -> None:
        bench = Bench(Device(100.0), health=health, max_queued_requests=10, max_workers=1, item_timeout_seconds=None)
        bench.enqueue(0)
        await asyncio.sleep(1)
        for i in range(9):
            bench.enqueue(i)
        await asyncio.sleep(250)
        assert await bench.runtime.stop(1000)

    with caplog.at_level(logging.WARNING, "embedfleet.processor"):
        run(main())
    told = [record.getMessage() for record in caplog.records if "health" in record.getMessage()]
    assert sum("at least 80% full" in line and "over" not in line for line in told) == health
    assert sum("has not returned" in line and "over" not in line for line in told) in ((1, 2) if health else (0,))
    assert any("over: " in line for line in told) == health


@pytest.mark.requirement("P4")
def test_stats_follow_the_clock() -> None:
    """Ten items a second for ten seconds: throughput, processing and latency are what they are."""

    async def main() -> dict[str, float]:
        bench = Bench(Device(1.0), max_batch_size=10, max_workers=1, max_queued_requests=100)
        for i in range(100):
            bench.enqueue(i)
        assert await bench.runtime.stop(60)
        return bench.stats.get_stats()

    stats = run(main())
    assert stats["throughput"] == pytest.approx(10.0)
    assert stats["avg_processing_time"] == pytest.approx(1.0)
    assert stats["avg_batch_size"] == 10.0
    assert stats["avg_queue_time"] == pytest.approx(4.5)
    assert stats["p95_latency"] == stats["p99_latency"] == pytest.approx(10.0)
