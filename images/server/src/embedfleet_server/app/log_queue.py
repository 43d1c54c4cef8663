"""Log lines on their way to stderr: a bounded queue with a thread of its own, so that nobody else waits for a reader.

A container's runtime that lags, or a parent that reads no pipe, would otherwise stop the event loop at the first line
that the pipe has no room for. What does not fit into the queue is left out, and how much that was is said once there
is room.
"""

import logging
import os
import select
import threading
import weakref
from queue import SimpleQueue

MOST_BYTES = 1 << 20
"""Of lines that wait: some 5,000. A reader that lags for a moment misses none of them."""
LONGEST = 32 << 10
"""Characters of a line, tracebacks included; the rest is cut."""
FLUSH_SECONDS = 1.0
"""The longest wait for the lines that are left when the process ends; a pipe that nobody reads must not keep it."""
_LEFT_OUT = "log lines left_out=%d: stderr was not read fast enough"

Lines = SimpleQueue[bytes | threading.Event]


class LogQueue(logging.Handler):
    """Writes to a file descriptor in its own thread; `emit` never waits for it. A fork's child begins with none."""

    _waiting: int
    """Bytes that are queued, or being written."""
    _left_out: int
    """Lines since the last that had room."""

    def __init__(self, descriptor: int, most: int = MOST_BYTES) -> None:
        """`most` is the bytes that may wait."""
        super().__init__()
        self._descriptor, self._most = descriptor, most
        self._begin()
        _queues.add(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line, or count it where there is no room. The record is done with when this returns."""
        data = self._bytes(record)
        with self._account:
            notice = self._notice()
            if self._waiting + len(notice) + len(data) > self._most or not self._is_writing():
                self._left_out += 1
                return
            self._left_out = 0
            self._waiting += len(notice) + len(data)
            self._lines.put(notice + data)

    def flush(self) -> None:
        """Wait until all that is queued is written, at most `FLUSH_SECONDS`."""
        if self._thread is not None:
            written = threading.Event()
            self._lines.put(written)
            written.wait(FLUSH_SECONDS)

    def _begin(self) -> None:
        """Nothing waits, and no thread runs: so it is at first, and in the child of a fork.

        The lock is reentrant because a signal's handler may log while the main thread is within it.
        """
        self._account = threading.RLock()
        self._lines: Lines = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting = self._left_out = 0

    def _is_writing(self) -> bool:
        """Whether there is a thread, started now if need be; an interpreter that ends starts none."""
        if self._thread is None:
            thread = threading.Thread(target=self._write_all, args=(self._lines,), name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _write_all(self, lines: Lines) -> None:
        while True:
            found = lines.get()
            if isinstance(found, bytes):
                self._write(found)
                with self._account:
                    self._waiting -= len(found)
            if isinstance(found, threading.Event) or lines.empty():
                self._write(self._last_notice())
            if isinstance(found, threading.Event):
                found.set()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._written(rest) :]
        except OSError:
            """Nobody will ever read it: a server goes on without a log."""

    def _written(self, rest: memoryview) -> int:
        """How many bytes went out; waits for room where the descriptor does not do so itself."""
        try:
            return os.write(self._descriptor, rest)
        except BlockingIOError:
            select.select([], [self._descriptor], [])
            return 0

    def _last_notice(self) -> bytes:
        with self._account:
            notice, self._left_out = self._notice(), 0
            return notice

    def _notice(self) -> bytes:
        """The line that tells of those left out, if any were."""
        if not self._left_out:
            return b""
        return self._bytes(_record(logging.WARNING, _LEFT_OUT, self._left_out))

    def _bytes(self, record: logging.LogRecord) -> bytes:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  # logging's own way out is to print to the stderr that may be full
            words = "a record of %s cannot be written: %s: %s"
            line = self.format(_record(logging.ERROR, words, record.name, record.msg, type(error).__name__))
        if len(line) > LONGEST:
            line = f"{line[:LONGEST]}… cut={len(line) - LONGEST}"
        return line.encode("utf-8", "backslashreplace") + b"\n"


def _record(level: int, words: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, __file__, 0, words, arguments, None)


def _begin_all() -> None:
    for queue in _queues:
        queue._begin()


_queues: weakref.WeakSet[LogQueue] = weakref.WeakSet()
os.register_at_fork(after_in_child=_begin_all)
