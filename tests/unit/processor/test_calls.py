"""Each caller gets its own result, or the callable's own exception."""

import asyncio
import functools
import logging
import threading
from concurrent.futures import wait
from typing import Any

import pytest

from embedfleet_server import BatchProcessor, BatchProcessorConfig, Priority
from embedfleet_server.engine import BatchRecord
from embedfleet_server.engine.errors import BatchFailed, QueueFull, TooLarge
from embedfleet_server.engine.faults import TransientError

FAST = {"retry_delay_milliseconds": 0}


def doubled(batch: list[int]) -> list[int]:
    return [2 * number for number in batch]


def paused(func: Any, **values: Any) -> BatchProcessor:
    """A processor that holds what it takes."""
    processor = BatchProcessor(BatchProcessorConfig(**values)).start(func)
    processor.pause()
    return processor


@pytest.mark.requirement("P2", "B9")
def test_each_future_has_its_own_result() -> None:
    """A thousand items in batches of seven."""
    with BatchProcessor(BatchProcessorConfig(max_batch_size=7)).start(doubled) as processor:
        futures = [processor.enqueue_predict(i) for i in range(1000)]
        assert [future.result(5) for future in futures] == [2 * i for i in range(1000)]


@pytest.mark.requirement("P2", "B22")
@pytest.mark.parametrize(
    ("kind", "is_async"),
    [(StopIteration, False)]  # in a coroutine Python itself turns it into RuntimeError
    + [(k, a) for k in (KeyError, SystemExit, KeyboardInterrupt, asyncio.CancelledError) for a in (False, True)],
)
def test_the_bad_item_alone_gets_what_the_callable_raised(kind: type[BaseException], is_async: bool) -> None:
    """Of 64 one raises: the very exception reaches its Future, the others get results, in few calls."""
    calls: list[int] = []
    raised = kind("bad")

    def plain(batch: list[int]) -> list[int]:
        calls.append(len(batch))
        if 41 in batch:
            raise raised
        return doubled(batch)

    async def coroutine(batch: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return plain(batch)

    with paused(coroutine if is_async else plain, max_batch_size=64, max_workers=1) as processor:
        futures = [processor.enqueue_predict(i) for i in range(64)]
        processor.resume()
        wait(futures, 5)
        assert futures[41].exception() is raised
        assert [f.result() for i, f in enumerate(futures) if i != 41] == [2 * i for i in range(64) if i != 41]
    assert len(calls) <= 1 + 2 * 6 + 1


@pytest.mark.requirement("P2", "B22")
@pytest.mark.parametrize("error", [TransientError("x"), OSError("x"), TimeoutError("x"), LookupError("passes")])
def test_a_fault_that_may_pass_is_tried_again(error: Exception) -> None:
    """Twice it fails, then it goes well: the kinds that always may pass, and one that the predicate names."""
    left = [error, error]

    def flaky(batch: list[int]) -> list[int]:
        if left:
            raise left.pop()
        return doubled(batch)

    config = BatchProcessorConfig(retryable=lambda e: isinstance(e, LookupError), **FAST)  # type: ignore[arg-type]
    with BatchProcessor(config).start(flaky) as processor:
        assert processor.enqueue_predict(4).result(5) == 8
    assert not left


@pytest.mark.requirement("P2", "B22")
def test_a_fault_that_does_not_pass_is_tried_so_often_and_no_more() -> None:
    """max_retries 2: three calls for one item."""
    calls: list[int] = []

    def down(batch: list[int]) -> list[int]:
        calls.append(len(batch))
        raise OSError("away")

    config = BatchProcessorConfig(max_retries=2, **FAST)  # type: ignore[arg-type]
    with BatchProcessor(config).start(down) as processor, pytest.raises(OSError, match="away"):
        processor.enqueue_predict(1).result(5)
    assert calls == [1, 1, 1]


@pytest.mark.requirement("B9", "P2")
@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (lambda batch: batch[1:], "returned 0 results for 1 items"),
        (lambda batch: [*batch, 1], "returned 2 results for 1 items"),
        (lambda batch: None, "returned a NoneType; a sequence of 1 results was due"),
        (lambda batch: "x", "returned a str"),
        (lambda batch: {1: 2}, "returned a dict"),
        (lambda batch: (i for i in batch), "returned a generator"),
        (lambda batch: asyncio.sleep(0), "returned a coroutine: pass the coroutine function itself"),
    ],
)
def test_results_that_cannot_be_those_of_the_batch_are_an_error(gives: Any, says: str) -> None:
    """Never a shuffled answer; the processor goes on."""
    with BatchProcessor().start(lambda batch: batch if batch == ["good"] else gives(batch)) as processor:
        with pytest.raises(BatchFailed, match=says):
            processor.enqueue_predict(1).result(5)
        assert processor.enqueue_predict("good").result(5) == "good"


@pytest.mark.requirement("P3")
def test_every_kind_of_callable() -> None:
    """Coroutine functions, partials of them, objects with an async call, and plain ones."""

    async def function(batch: list[int], by: int = 3) -> list[int]:
        return [by * i for i in batch]

    class Model:
        async def __call__(self, batch: list[int]) -> list[int]:
            return await function(batch)

    for func in (function, functools.partial(function, by=3), Model(), Model().__call__, lambda b: [3 * i for i in b]):
        with BatchProcessor().start(func) as processor:
            assert processor.enqueue_predict(5).result(5) == 15
    with pytest.raises(TypeError, match=r"process_func is 3: it must be callable"):
        BatchProcessor().start(3)  # type: ignore[arg-type]


@pytest.mark.requirement("P2", "B7")
def test_a_full_queue_refuses_at_once_or_waits_for_room() -> None:
    """None and 0 refuse; a timeout is waited out; room that comes within it is taken."""
    processor = paused(doubled, max_queued_requests=2)
    taken = [processor.enqueue_predict(i) for i in range(2)]
    for timeout in (None, 0, 0.01):
        with pytest.raises(QueueFull, match="the queue is full"):
            processor.enqueue_predict(9, timeout=timeout)
    got: list[Any] = []
    waiter = threading.Thread(target=lambda: got.append(processor.enqueue_predict(9, timeout=30).result(5)))
    waiter.start()
    processor.resume()
    waiter.join()
    assert got == [18]
    assert [f.result(5) for f in taken] == [0, 2]
    processor.stop()


@pytest.mark.requirement("P2", "B10")
def test_a_cancelled_future_makes_room_and_costs_no_call() -> None:
    """Two of three are cancelled while they wait: only the third is called, and who waited for room comes in."""
    seen: list[int] = []

    def keep(batch: list[int]) -> list[int]:
        seen.extend(batch)
        return batch

    processor = paused(keep, max_queued_requests=3)
    futures = [processor.enqueue_predict(i) for i in range(3)]
    assert futures[0].cancel()
    assert futures[1].cancel()
    late = processor.enqueue_predict(7, timeout=5)
    wait(futures[:2], 5)  # whoever waits for several at once hears of it too
    processor.resume()
    assert (futures[2].result(5), late.result(5)) == (2, 7)
    assert sorted(seen) == [2, 7]
    assert not late.cancel()
    processor.stop()


@pytest.mark.requirement("P2", "B10")
def test_a_future_cancelled_while_its_call_runs_disturbs_no_other() -> None:
    """The call goes on for its neighbour."""
    running, go = threading.Event(), threading.Event()

    def slow(batch: list[int]) -> list[int]:
        running.set()
        go.wait(5)
        return doubled(batch)

    with paused(slow) as processor:
        first, second = processor.enqueue_predict(1), processor.enqueue_predict(2)
        processor.resume()
        running.wait(5)
        assert first.cancel()
        go.set()
        assert second.result(5) == 4
        assert first.cancelled()


@pytest.mark.requirement("P2")
def test_fire_and_forget_counts_and_logs_its_errors(caplog: pytest.LogCaptureFixture) -> None:
    """One of two fails: a log line with the cause, and an error rate of a half."""

    def picky(batch: list[int]) -> list[int]:
        if 13 in batch:
            raise KeyError("thirteen")
        return batch

    with caplog.at_level(logging.ERROR, "embedfleet.processor"), BatchProcessor().start(picky) as processor:
        processor.enqueue(13)
        processor.enqueue(12)
        processor.stop()
        assert processor.get_stats()["error_rate"] == 0.5
    assert "an item given to enqueue failed: KeyError('thirteen')" in caplog.text


@pytest.mark.requirement("B8", "P5")
@pytest.mark.parametrize("priorities", [True, False])
def test_higher_priorities_go_first_unless_switched_off(priorities: bool) -> None:
    """One at a time, in the order that priorities give, or in that of arrival."""
    seen: list[str] = []

    def keep(batch: list[str]) -> list[str]:
        seen.extend(batch)
        return batch

    processor = paused(keep, max_batch_size=1, max_workers=1, priorities=priorities)
    for priority in Priority:
        processor.enqueue_predict(priority.name, priority=priority)
    processor.stop()
    assert seen == (["CRITICAL", "HIGH", "NORMAL", "LOW"] if priorities else [p.name for p in Priority])


@pytest.mark.requirement("B8")
def test_submit_batch_keeps_the_order_and_takes_all_or_nothing() -> None:
    """Answers in order; [] at once; one bad item raises, or stands in its place; too many are refused whole."""

    def picky(batch: list[int]) -> list[int]:
        if 2 in batch:
            raise KeyError(2)
        return doubled(batch)

    async def main(processor: BatchProcessor) -> None:
        assert await processor.submit_batch([]) == []
        assert await processor.submit_batch(i for i in (3, 1, 4)) == [6, 2, 8]
        with pytest.raises(KeyError):
            await processor.submit_batch([1, 2, 3])
        results = await processor.submit_batch([1, 2, 3], return_exceptions=True)
        assert (results[0], repr(results[1]), results[2]) == (2, "KeyError(2)", 6)
        for timeout in (None, 5):
            with pytest.raises(TooLarge, match="at most 5 fit"):
                await processor.submit_batch(range(6), timeout=timeout)

    with BatchProcessor(BatchProcessorConfig(max_queued_requests=5)).start(picky) as processor:
        asyncio.run(main(processor))


@pytest.mark.requirement("P5")
def test_the_collector_sees_each_item_in_one_record_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    """Ten items, one of them bad: the records add up to ten; what the collector raises is logged and nothing more."""
    records: list[BatchRecord] = []

    def collect(record: BatchRecord) -> None:
        records.append(record)
        raise RuntimeError("collector down")

    def picky(batch: list[int]) -> list[int]:
        if 3 in batch:
            raise KeyError(3)
        return batch

    with paused(picky, metrics_collector=collect) as processor:
        futures = [processor.enqueue_predict(i) for i in range(10)]
        processor.resume()
        wait(futures, 5)
    assert sum(record.size for record in records) == 10
    assert sum(record.failed for record in records) == 1
    assert "collector down" in caplog.text


@pytest.mark.requirement("P4", "P5")
def test_get_stats_has_these_names_and_monitoring_can_be_switched_off() -> None:
    """The names of P4, no more and no fewer; unmonitored, the averages stay 0 and the collector is not called."""
    names = (
        "avg_processing_time avg_batch_size avg_queue_time p95_latency p99_latency throughput error_rate "
        "current_batch_size system_load active_batches queue_size is_paused is_stopping"
    )
    records: list[BatchRecord] = []
    config = BatchProcessorConfig(monitoring=False, metrics_collector=records.append)
    for processor in (BatchProcessor(), BatchProcessor(config)):
        assert set(processor.get_stats()) == set(names.split())
        with processor.start(doubled):
            processor.enqueue_predict(1).result(5)
            stats = processor.get_stats()
        assert set(stats) == set(names.split())
        assert stats["avg_batch_size"] == (1.0 if processor.config.monitoring else 0.0)
    assert not records


@pytest.mark.requirement("P4")
def test_get_stats_tells_the_state_at_this_instant() -> None:
    """Queue, pause, running calls and size, each as it is."""
    running, go = threading.Event(), threading.Event()

    def slow(batch: list[int]) -> list[int]:
        running.set()
        go.wait(5)
        return batch

    processor = paused(slow, max_workers=1)
    processor.enqueue(1)
    stats = processor.get_stats()
    assert (stats["queue_size"], stats["is_paused"], stats["active_batches"]) == (1, True, 0)
    processor.resume()
    running.wait(5)
    processor.enqueue(2)
    stats = processor.get_stats()
    assert (stats["queue_size"], stats["is_paused"], stats["active_batches"]) == (1, False, 1)
    go.set()
    processor.stop()
    stats = processor.get_stats()
    assert (stats["queue_size"], stats["active_batches"], stats["is_stopping"]) == (0, 0, True)


@pytest.mark.requirement("P5", "B20")
def test_the_batch_size_changes_while_running() -> None:
    """What waits is served by the new size; a wrong one is refused and changes nothing."""
    sizes: list[int] = []

    def keep(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        return batch

    processor = paused(keep, max_batch_size=4, max_workers=1)
    for i in range(9):
        processor.enqueue(i)
    for wrong in (0, 5000, True, "8"):
        with pytest.raises(ValueError, match=r"it must be a whole number from 1 to 4096"):
            processor.update_batch_size(wrong)  # type: ignore[arg-type]
    processor.update_batch_size(3)
    assert processor.get_stats()["current_batch_size"] == 3
    processor.stop()
    assert sizes == [3, 3, 3]


@pytest.mark.requirement("B23")
def test_a_call_that_runs_out_of_memory_is_halved() -> None:
    """More than four at once do not fit: all get results, and the one too large alone gets its own MemoryError."""

    def small(batch: list[int]) -> list[int]:
        if len(batch) > 4 or 7 in batch:
            raise MemoryError
        return doubled(batch)

    with paused(small) as processor:
        futures = [processor.enqueue_predict(i) for i in range(16)]
        processor.resume()
        wait(futures, 5)
        assert isinstance(futures[7].exception(), MemoryError)
        assert [f.result() for i, f in enumerate(futures) if i != 7] == [2 * i for i in range(16) if i != 7]
