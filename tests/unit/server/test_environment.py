"""What torch's libraries are told before they are imported."""

import math
from pathlib import Path

import pytest

from embedfleet_server import environment

pytestmark = pytest.mark.requirement("N1")


SOON_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def test_threads_that_wait_soon_sleep() -> None:
    """Without a word of the user's; the number of threads is left to torch."""
    assert environment.threads({}, cores=8, quota=math.inf) == SOON_ASLEEP


@pytest.mark.parametrize(
    ("given", "quota", "expected"),
    [
        ({}, 2.0, {"OMP_NUM_THREADS": "2", **SOON_ASLEEP}),
        ({}, 1.5, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}),
        ({}, 7.5, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"OMP_NUM_THREADS": "2"}, 2.0, SOON_ASLEEP),
        ({"MKL_NUM_THREADS": "3"}, 2.0, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"OMP_NUM_THREADS": "2,1"}, 7.0, {"OMP_WAIT_POLICY": "PASSIVE"}),
    ],
)
def test_threads_that_share_a_quota_sleep_at_once(
    given: dict[str, str], quota: float, expected: dict[str, str]
) -> None:
    """Where the quota has less than a core for each thread, what one spins away is missing to the others."""
    assert environment.threads(given, cores=8, quota=quota) == expected


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"])
def test_the_users_own_word_on_waiting_wins(name: str) -> None:
    """Whichever variable it is said with."""
    assert environment.threads({name: "x"}, cores=8, quota=math.inf) == {}


@pytest.mark.parametrize(
    ("allowed", "threads"), [(0.5, "1"), (1.0, "1"), (2.5, "3"), (7.0, "7"), (7.5, None), (8.0, None), (math.inf, None)]
)
def test_threads_follow_the_quota(allowed: float, threads: str | None) -> None:
    """As many as the quota has cores, rounded up; unset where that is all of them."""
    assert environment.threads({}, cores=8, quota=allowed).get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_users_own_number_of_threads_wins(name: str) -> None:
    """The operator's too, which names the container's limit."""
    assert environment.threads({name: "6"}, cores=8, quota=2.0) == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_few_kernels_are_kept() -> None:
    """By both who keep them, unless the user has a number for one of them."""
    given = {"OMP_WAIT_POLICY": "ACTIVE", "LRU_CACHE_CAPACITY": "7"}
    told = environment.variables(given, cores=8, quota=math.inf)
    assert "LRU_CACHE_CAPACITY" not in told
    assert told["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "256"


def test_what_is_compiled_is_kept_where_nobody_else_writes() -> None:
    """Not in the directory for temporary files, where torch has it; image and operator name places of their own."""
    home = environment.variables({"HOME": "/home/me"}, cores=8, quota=math.inf)
    assert home["TORCHINDUCTOR_CACHE_DIR"] == "/home/me/.cache/embedfleet/inductor"
    assert home["TRITON_CACHE_DIR"] == "/home/me/.cache/embedfleet/triton"
    cache = environment.variables({"XDG_CACHE_HOME": "/cache", "TRITON_CACHE_DIR": "/t"}, cores=8, quota=math.inf)
    assert cache["TORCHINDUCTOR_CACHE_DIR"] == "/cache/embedfleet/inductor"
    assert "TRITON_CACHE_DIR" not in cache


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["150000 100000\n"], 1.5),
        (["max 100000\n"], math.inf),
        (["250000\n", "100000\n"], 2.5),
        (["-1\n", "100000\n"], math.inf),
        (["nonsense\n"], math.inf),
    ],
)
def test_the_quota_of_a_control_group(tmp_path: Path, texts: list[str], expected: float) -> None:
    """Of version 2 and version 1, with a limit and without."""
    files = tuple(tmp_path / str(number) for number in range(len(texts)))
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    assert environment.quota((files,)) == expected


def test_no_control_group_is_no_limit(tmp_path: Path) -> None:
    """As on other systems than Linux."""
    assert environment.quota(((tmp_path / "missing",),)) == math.inf
