"""What only shows when a part is looked at by itself: races and lines, made to happen."""

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest

from embedfleet_server import BatchProcessor, BatchProcessorConfig
from embedfleet_server.processor.callables import CallableWorkers
from embedfleet_server.processor.door import Door
from embedfleet_server.processor.request import Request


def request_of(*items: Any) -> Request:
    return Request(items, 128, single=len(items) == 1)


@pytest.mark.requirement("B10", "P2")
def test_an_item_cancelled_after_its_batch_was_formed_is_not_handed_over() -> None:
    """The others keep their places; with nobody left there is no call at all."""
    seen: list[list[int]] = []

    async def keep(batch: list[int]) -> list[int]:
        seen.append(batch)
        return [10 * i for i in batch]

    async def main() -> None:
        requests = [request_of(i) for i in range(3)]
        requests[1].cancel()
        workers = CallableWorkers(keep, 1)
        assert await workers.forward(None, [r.payloads[0] for r in requests]) == [0, None, 20]
        assert await workers.forward(None, requests[1].payloads) == [None]

    asyncio.run(main())
    assert seen == [[0, 2]]


@pytest.mark.requirement("B7", "P2")
def test_who_leaves_the_line_lets_the_next_one_in() -> None:
    """Two of three places are taken: three items wait for room, one behind them; they leave, it enters."""
    woken: list[None] = []
    door = Door(3, lambda: woken.append(None))
    door.enter(request_of(1, 2))
    many, one = door.line_up(request_of(3, 4, 5)), door.line_up(request_of(6))
    assert not one.done()
    assert door.leave_line(many)
    assert one.done()
    assert not door.leave_line(one)
    assert door.depth == 3
    assert len(woken) == 1  # the loop is woken once for all that comes before it looks


@pytest.mark.requirement("P6")
def test_a_callback_that_raises_does_not_keep_a_stop_from_cancelling_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    """Three Futures are cancelled by a stop, each with a callback that would end the loop."""

    def deadly(future: Future[Any]) -> None:
        raise SystemExit

    async def hangs(batch: list[int]) -> list[int]:
        await asyncio.Event().wait()
        return batch

    processor = BatchProcessor().start(hangs)
    futures = [processor.enqueue_predict(i) for i in range(3)]
    for future in futures:
        future.add_done_callback(deadly)
    assert not processor.stop(0)
    assert all(future.cancelled() for future in futures)
    assert caplog.text.count("a done-callback of a Future failed") == 3


@pytest.mark.requirement("A2", "P5")
def test_an_item_at_fault_says_nothing_of_the_size() -> None:
    """With adaptive sizing a bad item leaves the size as it is; a fault of the device shrinks it."""
    errors: list[Exception] = [KeyError("bad"), MemoryError()]
    sizes: list[int] = []

    def fails(batch: list[int]) -> list[int]:
        raise errors[0]

    config = BatchProcessorConfig(adaptive=True, max_batch_size=256, initial_batch_size=64)
    with BatchProcessor(config).start(fails) as processor:
        for _ in range(2):
            processor.enqueue_predict(1).exception(5)
            processor.pause()  # returns when the loop has done all that came before
            sizes.append(processor.get_stats()["current_batch_size"])
            processor.resume()
            errors.reverse()
    assert sizes[0] == 64
    assert sizes[1] < 64


@pytest.mark.requirement("P5")
def test_with_adaptive_a_new_size_stays_within_the_bounds() -> None:
    """Learning goes on from it; one beyond the bounds is refused."""
    config = BatchProcessorConfig(adaptive=True, min_batch_size=4, max_batch_size=64)
    with BatchProcessor(config).start(list) as processor:
        processor.update_batch_size(16)
        assert processor.get_stats()["current_batch_size"] == 16
        for wrong in (3, 65):
            with pytest.raises(ValueError, match="with adaptive it must be from 4 to 64"):
                processor.update_batch_size(wrong)
