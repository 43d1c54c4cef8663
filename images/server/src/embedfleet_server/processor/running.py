"""One life of a processor, from start to stop: its loop, its threads, its door."""

import logging
import math
import threading
from typing import Any

from embedfleet_server.engine.errors import ShuttingDown
from embedfleet_server.processor.callables import CallableWorkers, ProcessFunc
from embedfleet_server.processor.config import BatchProcessorConfig
from embedfleet_server.processor.door import Door
from embedfleet_server.processor.loop_thread import LoopThread
from embedfleet_server.processor.runtime import Runtime
from embedfleet_server.processor.stats import BatchStats

_GRACE = 1.0  # seconds for threads to end once their calls have
_log = logging.getLogger("embedfleet.processor")


class Running:
    """From any thread, all of it."""

    def __init__(self, config: BatchProcessorConfig, func: ProcessFunc, stats: BatchStats) -> None:
        self._workers = CallableWorkers(func, config.max_workers)
        self._thread = LoopThread("batch-processor-loop")
        self.door = Door(config.max_queued_requests, self._wake)
        self._runtime = self._thread.call(lambda: Runtime(config, self._workers, self.door, stats))
        self._thread.at_end = self._runtime.abandon
        self._stop_lock = threading.Lock()
        self._is_paused = self._in_time = self.is_stopped = False

    @property
    def is_loop_thread(self) -> bool:
        """Whether this is the processor's own loop calling."""
        return threading.current_thread() is self._thread.thread

    def pause(self, *, paused: bool) -> None:
        """In effect when it returns."""
        self._raise_stopping()
        self._thread.call(lambda: self._runtime.pause(paused=paused))
        self._is_paused = paused

    def resize(self, size: int) -> None:
        """In effect when it returns."""
        self._raise_stopping()
        self._thread.call(lambda: self._runtime.resize(size))

    def stop(self, timeout: float | None) -> bool:
        """Once; whoever comes later waits for the first."""
        if self.is_loop_thread or self._workers.pool.holds(threading.current_thread()):
            raise RuntimeError(
                "stop() was called from inside process_func: it would wait for itself; call it from another thread"
            )
        with self._stop_lock:
            if not self.is_stopped:
                self._stop(math.inf if timeout is None else max(0.0, timeout))
        return self._in_time

    def state(self) -> dict[str, Any]:
        """What is the case at this instant."""
        return {
            "current_batch_size": self._runtime.size,
            "active_batches": self._runtime.active,
            "queue_size": self.door.depth,
            "is_paused": self._is_paused,
            "is_stopping": self.door.is_closed,
        }

    def _stop(self, patience: float) -> None:
        self.door.close()
        self._is_paused = False
        if self._thread.thread.is_alive():
            self._in_time = self._thread.run(self._runtime.stop(patience))
        self._thread.stop()
        self._workers.pool.close()
        left = self._workers.pool.join(_GRACE)
        if left:
            _log.warning(
                "stopped, but %d calls of process_func have not returned; each ends its thread when it does", left
            )
        self.is_stopped = True

    def _raise_stopping(self) -> None:
        if self.door.is_closed:
            raise ShuttingDown("the BatchProcessor is stopped, or stopping")

    def _wake(self) -> None:
        self._thread.post(self._runtime.empty_box)
