"""Programs are watched while a cluster starts, and end with whoever started them."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.errors import StartFailed
from tests.cluster.processes import Processes, environment, tail

ROOT = Path(__file__).resolve().parents[3]
PARENT = """
import sys
from pathlib import Path
from tests.cluster.processes import Processes
print(Processes(Path(sys.argv[1])).start("sleeper", "sleep", "600").pid, flush=True)
sys.stdin.read()
"""


def test_a_program_that_ends_is_told_with_its_words(tmp_path: Path) -> None:
    """Waiting stops at once when a program has ended; the error holds the end of its log."""
    processes = Processes(tmp_path)
    processes.start("broken", "sh", "-c", "echo no such flag; exit 4")
    with pytest.raises(StartFailed, match=r"broken ended with status 4\n--- broken\.log\nno such flag"):
        processes.wait_for("anything", lambda: False, "broken")


def test_a_starter_that_is_gone_is_noticed(tmp_path: Path) -> None:
    """When the other end of the lifeline is closed, waiting stops, before and after the start."""
    reading, writing = os.pipe()
    processes = Processes(tmp_path, lifeline=reading)
    processes.check()
    os.close(writing)
    with pytest.raises(StartFailed, match="its starter is gone"):
        processes.wait_for("anything", lambda: False, "none")
    processes.wait_for_an_end()
    os.close(reading)


def test_programs_end_with_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL of the process that started a program kills the program."""
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert select.select([child], [], [], 60)[0]
    os.close(child)


def test_all_are_killed(tmp_path: Path) -> None:
    """`kill` ends every program and waits for it."""
    processes = Processes(tmp_path)
    started = [processes.start(name, "sleep", "600") for name in ("one", "two")]
    assert processes.name_of(started[1].pid) == "two"
    processes.kill()
    assert [process.returncode for process in started] == [-9, -9]


def test_the_environment() -> None:
    """Programs see no proxy of the host's, in either spelling, and find what only root has on its path."""
    made = environment({"PATH": "/bin", "HTTPS_PROXY": "p", "no_proxy": "q", "HOME": "/h"})
    assert made == {"PATH": "/bin:/usr/local/sbin:/usr/sbin:/sbin", "HOME": "/h"}


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    """The last lines, under the log's name; a log that is not there is said to be so."""
    (tmp_path / "a.log").write_text("1\n2\n3\n")
    assert tail(tmp_path / "a.log", 2) == "--- a.log\n2\n3"
    assert tail(tmp_path / "b.log", 2) == "(b.log was not written)"
