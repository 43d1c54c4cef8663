"""The end of a processor."""

import asyncio
import logging
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import pytest

from embedfleet_server import BatchProcessor, BatchProcessorConfig
from embedfleet_server.engine.errors import ShuttingDown, Stopped


def doubled(batch: list[int]) -> list[int]:
    return [2 * number for number in batch]


class Gate:
    """A callable that stands still until it is let go."""

    def __init__(self) -> None:
        self.running, self.go = threading.Event(), threading.Event()

    def __call__(self, batch: list[int]) -> list[int]:
        self.running.set()
        self.go.wait(20)
        return doubled(batch)


@pytest.mark.requirement("B13", "P1")
def test_a_stop_finishes_what_was_taken_and_ends_a_pause() -> None:
    """Fifty wait, paused: fifty answers."""
    processor = BatchProcessor().start(doubled)
    processor.pause()
    futures = [processor.enqueue_predict(i) for i in range(50)]
    assert processor.stop(10)
    assert [f.result(0) for f in futures] == [2 * i for i in range(50)]
    assert not processor.get_stats()["is_paused"]


@pytest.mark.requirement("B14", "P1")
def test_after_a_stop_nothing_is_taken() -> None:
    """Every way in says so at once."""
    processor = BatchProcessor().start(doubled)
    processor.stop()
    for use in (
        lambda: processor.enqueue_predict(1, timeout=60),
        lambda: processor.enqueue(1),
        lambda: asyncio.run(processor.submit(1, timeout=60)),
        lambda: asyncio.run(processor.submit_batch([1])),
        processor.pause,
        lambda: processor.update_batch_size(2),
    ):
        with pytest.raises(ShuttingDown, match="stopped, or stopping"):
            use()


@pytest.mark.requirement("P6")
def test_past_its_timeout_a_stop_cancels_what_is_pending(caplog: pytest.LogCaptureFixture) -> None:
    """One call hangs, three items wait: all four Futures are cancelled, whoever waits for them hears of it."""
    gate = Gate()
    processor = BatchProcessor(BatchProcessorConfig(max_workers=1, max_batch_size=1)).start(gate)
    futures = [processor.enqueue_predict(i) for i in range(4)]
    gate.running.wait(5)
    threads = [t for t in threading.enumerate() if t.name.startswith("batch-processor")]
    with caplog.at_level(logging.WARNING, "embedfleet.processor"):
        assert not processor.stop(0.01)
    assert not wait(futures, 5).not_done
    assert all(f.cancelled() for f in futures)
    assert "1 calls of process_func have not returned" in caplog.text
    gate.go.set()  # the one thing that cannot be cancelled is a thread: it ends with its call
    for thread in threads:
        thread.join(5)
    stats = processor.get_stats()
    assert (stats["queue_size"], stats["active_batches"]) == (0, 0)


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("is_stubborn", [False, True])
def test_past_its_timeout_a_stop_cancels_coroutines_too(is_stubborn: bool) -> None:
    """A call that waits for ever is cancelled; one that answers its cancellation with more waiting is left for dead."""
    started, ended = threading.Event(), threading.Event()

    async def hangs(batch: list[int]) -> list[int]:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if is_stubborn:
                await asyncio.Event().wait()
        finally:
            ended.set()
        return batch

    processor = BatchProcessor().start(hangs)
    future = processor.enqueue_predict(1)
    started.wait(5)
    assert not processor.stop(0)
    with pytest.raises(CancelledError):
        future.result(0)
    assert ended.is_set()


@pytest.mark.requirement("P6")
def test_awaits_hear_of_a_stop_past_its_timeout() -> None:
    """Not as a cancellation of their own task, but as an error that says why."""
    gate = Gate()
    processor = BatchProcessor().start(gate)

    async def main() -> list[Any]:
        awaited = asyncio.gather(processor.submit(1), processor.submit_batch([1, 2]), return_exceptions=True)
        await asyncio.to_thread(gate.running.wait, 5)
        await asyncio.to_thread(processor.stop, 0)
        return list(await awaited)

    assert [type(error) for error in asyncio.run(main())] == [Stopped, Stopped]
    gate.go.set()
    processor.stop()
    for thread in threading.enumerate():
        if thread.name.startswith("batch-processor"):
            thread.join(5)


@pytest.mark.requirement("P6", "P2")
def test_who_waits_for_room_is_told_of_the_stop() -> None:
    """Two wait in line, a thread and a coroutine: neither waits out its minute."""
    gate = Gate()
    processor = BatchProcessor(BatchProcessorConfig(max_queued_requests=1, max_workers=1)).start(gate)
    processor.enqueue(0)
    gate.running.wait(5)
    processor.enqueue(1)
    errors: list[BaseException] = []

    def waits(use: Any) -> None:
        try:
            use()
        except ShuttingDown as error:
            errors.append(error)

    uses = (lambda: processor.enqueue(2, timeout=60), lambda: asyncio.run(processor.submit(2, timeout=60)))
    threads = [threading.Thread(target=waits, args=(use,)) for use in uses]
    for thread in threads:
        thread.start()
    while len(line_of(processor)) < 2:
        threads[0].join(0.001)
    stopping = threading.Thread(target=processor.stop)
    stopping.start()
    for thread in threads:
        thread.join(5)
    assert len(errors) == 2
    assert processor.get_stats()["is_stopping"]
    gate.go.set()
    stopping.join(5)


@pytest.mark.requirement("P1", "P6")
def test_stopping_twice_and_at_once_from_many_threads() -> None:
    """All return once it is stopped; one of them did it."""
    processor = BatchProcessor().start(doubled)
    futures = [processor.enqueue_predict(i) for i in range(100)]
    threads = [threading.Thread(target=processor.stop) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [f.result(0) for f in futures] == [2 * i for i in range(100)]
    assert processor.stop()


@pytest.mark.requirement("P1")
@pytest.mark.parametrize("is_async", [False, True])
def test_a_stop_from_inside_the_callable_is_one_clear_error(is_async: bool) -> None:
    """It would wait for itself; its own callers hear why, and the processor goes on."""

    def plain(batch: list[str]) -> list[str]:
        if "stop" in batch:
            processor.stop()
        return batch

    async def coroutine(batch: list[str]) -> list[str]:
        return plain(batch)

    with BatchProcessor().start(coroutine if is_async else plain) as processor:
        with pytest.raises(RuntimeError, match="from inside process_func: it would wait for itself"):
            processor.enqueue_predict("stop").result(5)
        assert processor.enqueue_predict("go on").result(5) == "go on"


@pytest.mark.requirement("P6")
def test_leaving_the_context_stops_even_when_its_body_raises() -> None:
    """What was taken is answered; the body's own exception comes out."""
    futures: list[Future[Any]] = []
    with pytest.raises(KeyError), BatchProcessor().start(doubled) as processor:  # noqa: PT012
        futures.append(processor.enqueue_predict(1))
        raise KeyError
    assert futures[0].result(0) == 2


@pytest.mark.requirement("P6")
def test_a_loop_that_dies_leaves_no_one_waiting() -> None:
    """However it came to that: every Future is cancelled, none hangs, and a stop returns."""
    gate = Gate()
    processor = BatchProcessor(BatchProcessorConfig(max_workers=1, max_batch_size=1)).start(gate)
    futures = [processor.enqueue_predict(i) for i in range(3)]
    gate.running.wait(5)
    gate.go.set()
    assert processor._running is not None
    processor._running._thread.stop()
    assert not wait(futures, 5).not_done
    with pytest.raises(ShuttingDown):
        processor.enqueue_predict(9)
    assert not processor.stop(0)


@pytest.mark.requirement("P2")
def test_a_callback_that_raises_disturbs_no_one(caplog: pytest.LogCaptureFixture) -> None:
    """Be it SystemExit, which would end an event loop: it is logged, and the next item has its result."""

    def deadly(future: Future[Any]) -> None:
        raise SystemExit

    with BatchProcessor().start(doubled) as processor:
        processor.pause()
        processor.enqueue_predict(1).add_done_callback(deadly)
        second = processor.enqueue_predict(2)
        processor.resume()
        assert second.result(5) == 4
        assert processor.enqueue_predict(3).result(5) == 6
    assert "a done-callback of a Future failed" in caplog.text


@pytest.mark.requirement("P6")
def test_a_processor_never_stopped_does_not_keep_python_from_ending() -> None:
    """One call hangs for ever and nobody stops anything: the interpreter ends all the same."""
    code = (
        "import threading; from embedfleet_server import BatchProcessor; seen = threading.Event()\n"
        "def hang(batch): seen.set(); threading.Event().wait()\n"
        "BatchProcessor().start(hang).enqueue(1); seen.wait()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0


def line_of(processor: BatchProcessor) -> Any:
    """Who waits for room: there is no way to see it from outside, and a test that sleeps would be worse."""
    assert processor._running is not None
    return processor._running.door._lined_up
