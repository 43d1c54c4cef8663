"""The log's way to stderr: nobody who logs waits for who reads."""

import fcntl
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from embedfleet_server.app.log_queue import LONGEST, LogQueue

pytestmark = pytest.mark.requirement("H1")
_LINES = 2000


class Pipe:
    """A pipe of one page, and a logger that writes to it."""

    def __init__(self, most: int) -> None:
        self.end, self.descriptor = os.pipe()
        fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, 4096)
        self.queue = LogQueue(self.descriptor, most)
        self.logger = logging.Logger("test")  # noqa: LOG001  # one of its own for each test, which nobody else configures
        self.logger.addHandler(self.queue)

    def read(self) -> list[str]:
        """All lines, once the last is written."""
        self.logger.warning("the end")
        found = b""
        while not found.endswith(b"the end\n"):
            found += os.read(self.end, 1 << 16)
        return found.decode().splitlines()[:-1]

    def close(self) -> None:
        """Without a reader what still waits is given up, so that its thread writes to no later test's descriptor."""
        os.close(self.end)
        self.queue.flush()
        os.close(self.descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe(most=1 << 16)
    yield made
    made.close()


def test_all_lines_come_in_their_order(pipe: Pipe) -> None:
    """As long as somebody reads, the queue is not seen."""
    for number in range(100):
        pipe.logger.info("line %d", number)
    assert pipe.read() == [f"line {number}" for number in range(100)]


def test_a_pipe_that_nobody_reads_stops_nobody(pipe: Pipe) -> None:
    """Far more than pipe and queue hold is logged without a reader. Who reads then finds lines in their order, and
    wherever some are missing how many, the last too, though no line follows it.
    """
    for number in range(_LINES):
        pipe.logger.info("%04d %s", number, "x" * 90)
    accounted = missing = 0
    with os.fdopen(os.dup(pipe.end)) as lines:
        while accounted < _LINES:
            line = lines.readline()
            if told := re.search(r"left_out=(\d+):", line):
                missing += int(told[1])
                accounted += int(told[1])
            else:
                assert line == f"{accounted:04d} {'x' * 90}\n"
                accounted += 1
    assert 0 < missing < accounted == _LINES
    pipe.logger.info("later")
    assert pipe.read() == ["later"]


def test_a_flush_waits_for_the_last_line(pipe: Pipe) -> None:
    """What was logged before it can be read after it; where nobody reads it gives up."""
    pipe.logger.info("last")
    pipe.queue.flush()
    os.set_blocking(pipe.end, False)
    assert os.read(pipe.end, 100) == b"last\n"
    for _ in range(_LINES):
        pipe.logger.info("x" * 100)
    pipe.queue.flush()


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    """A shared terminal may be set so by somebody else; no line is lost or torn."""
    os.set_blocking(pipe.descriptor, False)
    for number in range(200):
        pipe.logger.info("%03d %s", number, "x" * 90)
    assert [line[:3] for line in pipe.read()] == [f"{number:03d}" for number in range(200)]


def test_a_pipe_whose_reader_is_gone_stops_nobody() -> None:
    """The lines are lost, the process goes on."""
    pipe = Pipe(most=1 << 16)
    os.close(pipe.end)
    for _ in range(_LINES):
        pipe.logger.info("x" * 100)
    pipe.queue.flush()
    os.close(pipe.descriptor)


def test_a_long_line_is_cut(pipe: Pipe) -> None:
    """What is missing is told; lone surrogates are escaped."""
    pipe.logger.info("%s", "x" * (LONGEST + 7))
    pipe.logger.info("a \udc00 b")
    long, odd = pipe.read()
    assert long == "x" * LONGEST + "… cut=7"
    assert odd == "a \\udc00 b"


def test_a_record_that_cannot_be_written_is_told_of(pipe: Pipe) -> None:
    """Wrong arguments of a log call raise nothing, and print nothing; the line names the call."""
    pipe.logger.info("number %d", "none")
    (line,) = pipe.read()
    assert line == "a record of test cannot be written: number %d: TypeError"


_FORKING = """
import logging, os, sys
from embedfleet_server.app import logs
logs.configure(logging.INFO)
log = logging.getLogger("embedfleet")
log.info("parent before")
child = os.fork()
log.info("child" if child == 0 else "parent after")
if child == 0:
    logs.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_logs_too() -> None:
    """The thread does not live on in it; it gets one of its own, and no line of its parent's is written twice."""
    done = subprocess.run([sys.executable, "-c", _FORKING], check=True, capture_output=True, text=True, timeout=60)
    lines = [line.rpartition(" embedfleet ")[2] for line in done.stderr.splitlines() if " embedfleet " in line]
    assert sorted(lines) == ["child", "parent after", "parent before"]


def test_the_last_line_comes_out_at_the_end() -> None:
    """What is logged just before a process ends is written, by Python's own end."""
    code = "import logging; from embedfleet_server.app import logs; logs.configure(10); logging.warning('bye')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr.endswith("WARNING root bye\n")


def test_warnings_go_the_same_way() -> None:
    """Python would write them to stderr itself, and wait for it."""
    code = (
        "import logging, warnings; from embedfleet_server.app import logs; logs.configure(20); warnings.warn('mind it')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert "WARNING py.warnings " in done.stderr
    assert "mind it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
