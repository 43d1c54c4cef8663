"""Who uses the processor is seen from outside, by the names of threads."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from embedfleet_server.engine.thread_names import name_thread
from embedfleet_server.engine.workers import ThreadWorkers

pytestmark = [
    pytest.mark.requirement("N3"),
    pytest.mark.skipif(sys.platform != "linux", reason="hardware: only Linux names threads in /proc"),
]


def _own_name() -> str:
    return Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip()


def test_the_system_shows_what_a_thread_is_for() -> None:
    """Threads that tokenise bear that name, and give it to those they start."""
    workers = ThreadWorkers()

    def with_child() -> tuple[str, list[str]]:
        found = list[str]()
        child = threading.Thread(target=lambda: found.append(_own_name()))
        child.start()
        child.join()
        return _own_name(), found

    own, children = asyncio.run(workers.aside(with_child))
    workers.close()

    assert own == "tokenize"
    if sys.version_info < (3, 14):  # from then on Python names its threads itself
        assert children == ["tokenize"]


def test_a_long_name_is_cut_as_linux_keeps_it() -> None:
    """A device of a long name does not keep its thread from starting."""
    found = list[str]()

    def run() -> None:
        name_thread("device cuda:0 of many")
        found.append(_own_name())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert found == ["device cuda:0 o"]


def test_threads_that_tokenize_are_there_from_the_start() -> None:
    """None is made amid a request; a server that is closed at once leaves none behind."""
    before = set(threading.enumerate())  # those of other tests may end meanwhile
    workers = ThreadWorkers(tokenizer_threads=5)
    made = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("tokenize")]
    assert len(made) == 5
    workers.close()
    for thread in made:
        thread.join(60)
        assert not thread.is_alive()
