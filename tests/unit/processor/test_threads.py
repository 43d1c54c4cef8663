"""Many threads and many event loops at once."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import embedfleet_server
from embedfleet_server import BatchProcessor, BatchProcessorConfig
from embedfleet_server.engine.errors import QueueFull, ShuttingDown


def doubled(batch: list[int]) -> list[int]:
    return [2 * number for number in batch]


def in_threads(work: Callable[[int], None], count: int) -> None:
    """`work(i)` in so many threads at once; what one raises is raised here."""
    errors: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for error in errors:
        raise error


@pytest.mark.requirement("P1")
def test_threads_and_loops_share_one_processor() -> None:
    """Eight threads with Futures, eight with an event loop each: everyone gets its own, and calls are shared."""
    calls: list[int] = []

    def counted(batch: list[int]) -> list[int]:
        calls.append(len(batch))
        return doubled(batch)

    with BatchProcessor(BatchProcessorConfig(max_queued_requests=10_000)).start(counted) as processor:

        async def many(base: int) -> list[Any]:
            return await asyncio.gather(*(processor.submit(base + i) for i in range(200)))

        def use(i: int) -> None:
            base = 1000 * i
            if i % 2:
                assert asyncio.run(many(base)) == [2 * (base + n) for n in range(200)]
            else:
                futures = [processor.enqueue_predict(base + n) for n in range(200)]
                assert [f.result(10) for f in futures] == [2 * (base + n) for n in range(200)]

        in_threads(use, 16)
    assert sum(calls) == 16 * 200
    assert len(calls) < 16 * 200


@pytest.mark.requirement("P1", "P2")
def test_a_small_queue_is_never_passed_and_everyone_who_waits_gets_in() -> None:
    """Three places, twelve threads that wait for room: no loss, and never more than three wait."""
    deepest: list[int] = []
    processor = BatchProcessor(BatchProcessorConfig(max_queued_requests=3, max_batch_size=2))

    def watched(batch: list[int]) -> list[int]:
        deepest.append(processor.get_stats()["queue_size"])
        return doubled(batch)

    with processor.start(watched):

        async def many(base: int) -> list[Any]:
            return await asyncio.gather(*(processor.submit(base + i, timeout=20) for i in range(50)))

        def use(i: int) -> None:
            if i % 2:
                assert asyncio.run(many(100 * i)) == [2 * (100 * i + n) for n in range(50)]
            else:
                for n in range(50):
                    assert processor.enqueue_predict(n, timeout=20).result(10) == 2 * n

        in_threads(use, 12)
    assert max(deepest) <= 3


@pytest.mark.requirement("P1")
def test_pause_holds_what_came_and_resume_serves_it_in_order() -> None:
    """Nothing is called while paused, new items are still taken; then the order is that of arrival."""
    seen: list[int] = []

    def keep(batch: list[int]) -> list[int]:
        seen.extend(batch)
        return batch

    with BatchProcessor(BatchProcessorConfig(max_workers=1, max_batch_size=4)).start(keep) as processor:
        processor.pause()
        futures = [processor.enqueue_predict(i) for i in range(10)]
        processor.update_batch_size(5)  # returns when the loop has seen all that came before
        assert not seen
        processor.resume()
        assert [f.result(5) for f in futures] == list(range(10))
    assert seen == list(range(10))


@pytest.mark.requirement("B10", "P2")
def test_a_cancelled_await_costs_no_call() -> None:
    """Awaits that time out while they wait for their turn or for room are dropped."""
    seen: list[int] = []

    def keep(batch: list[int]) -> list[int]:
        seen.extend(batch)
        return batch

    async def main(processor: BatchProcessor) -> None:
        waiting = asyncio.create_task(processor.submit(1))
        await asyncio.sleep(0)
        in_line = asyncio.create_task(processor.submit(2, timeout=30))
        await asyncio.sleep(0)
        in_line.cancel()
        waiting.cancel()
        await asyncio.wait([waiting, in_line])
        assert waiting.cancelled()
        assert in_line.cancelled()
        with pytest.raises(QueueFull, match=r"no room within 0.01 s"):
            await asyncio.gather(processor.submit(3, timeout=5), processor.submit(4, timeout=0.01))
        processor.resume()

    with BatchProcessor(BatchProcessorConfig(max_queued_requests=1)).start(keep) as processor:
        processor.pause()
        asyncio.run(main(processor))
        assert processor.enqueue_predict(5, timeout=5).result(5) == 5
    assert 1 not in seen
    assert 2 not in seen


@pytest.mark.requirement("P1")
def test_a_loop_closed_while_it_awaits_disturbs_no_one(caplog: pytest.LogCaptureFixture) -> None:
    """Its answer is dropped with one warning; the caller beside it gets its own."""
    running, go = threading.Event(), threading.Event()

    def slow(batch: list[int]) -> list[int]:
        running.set()
        go.wait(5)
        return doubled(batch)

    with BatchProcessor().start(slow) as processor:
        loop = asyncio.new_event_loop()
        task = loop.create_task(processor.submit(1))
        loop.run_until_complete(asyncio.sleep(0))
        running.wait(5)
        loop.close()
        beside = processor.enqueue_predict(2)
        go.set()
        assert beside.result(5) == 4
    assert "an event loop was closed while it awaited an answer" in caplog.text
    coroutine = task.get_coro()
    assert coroutine is not None
    with pytest.raises(RuntimeError):  # no loop runs any more
        coroutine.throw(RuntimeError)  # ends the coroutine, so that Python does not complain of it later
    caplog.clear()


@pytest.mark.requirement("P1")
def test_use_before_the_start_is_one_clear_error() -> None:
    """Every way in says what to do."""
    processor = BatchProcessor()
    for use in (
        lambda: processor.enqueue_predict(1),
        lambda: processor.enqueue(1),
        lambda: asyncio.run(processor.submit(1)),
        processor.pause,
        processor.resume,
        lambda: processor.update_batch_size(3),
    ):
        with pytest.raises(RuntimeError, match=r"not started: call start\(process_func\) first"):
            use()
    assert processor.stop()


@pytest.mark.requirement("P1")
def test_starting_twice_is_refused_and_starting_again_works() -> None:
    """A second start changes nothing; after a stop it begins anew."""
    processor = BatchProcessor().start(doubled)
    with pytest.raises(RuntimeError, match="started already"):
        processor.start(list)
    assert processor.enqueue_predict(1).result(5) == 2
    processor.stop()
    with processor.start(list):
        assert processor.enqueue_predict(1).result(5) == 1
    with pytest.raises(ShuttingDown):
        processor.enqueue_predict(1)


@pytest.mark.requirement("P1", "P2")
def test_the_callable_may_enqueue_itself() -> None:
    """From a worker's thread and from the loop; on the loop a full queue refuses instead of waiting for itself."""
    refused: list[Exception] = []

    def tree(batch: list[int]) -> list[Any]:
        return [processor.enqueue_predict(i - 1) if i else "leaf" for i in batch]

    async def full(batch: list[int]) -> list[int]:
        for _ in range(2):
            try:
                processor.enqueue(0, timeout=60)
            except QueueFull as error:
                refused.append(error)
        return batch

    with BatchProcessor().start(tree) as processor:
        assert processor.enqueue_predict(2).result(5).result(5).result(5) == "leaf"
    with BatchProcessor(BatchProcessorConfig(max_queued_requests=1, max_workers=1)).start(full) as processor:
        assert processor.enqueue_predict(5).result(5) == 5
        processor.stop(0)
    assert refused
    assert all("wait already" in str(error) for error in refused)  # at once, not after a wait


@pytest.mark.requirement("P3")
def test_importing_it_needs_numpy_and_neither_torch_nor_aiohttp() -> None:
    """In a fresh interpreter; the package alone does not even bring NumPy."""
    code = (
        "import sys, embedfleet_server; assert 'numpy' not in sys.modules;"
        "from embedfleet_server import BatchProcessor, BatchProcessorConfig, BatchStats, Priority;"
        "assert 'numpy' in sys.modules; print([m for m in ('torch', 'aiohttp', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    assert "BatchProcessor" in dir(embedfleet_server)
    with pytest.raises(AttributeError, match=r"no attribute 'Nothing'"):
        _ = embedfleet_server.Nothing
