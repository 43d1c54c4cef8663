"""What torch's libraries are told before they are imported."""

import math
import os
import threading
from pathlib import Path

import pytest

from embedfleet.api.settings import ModelSettings
from embedfleet_server import environment
from embedfleet_server.__main__ import bound, configure

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


@pytest.mark.parametrize(
    ("environ", "quota", "given", "bound"),
    [
        ({}, math.inf, None, True),
        ({}, 8.0, None, True),
        ({}, 7.5, None, False),
        ({"OMP_NUM_THREADS": "8"}, 8.0, None, True),
        ({"OMP_NUM_THREADS": "2"}, math.inf, None, False),
        ({}, math.inf, 2, False),
        ({}, math.inf, 8, True),
        ({"OMP_NUM_THREADS": "2"}, math.inf, 8, True),
        ({}, math.inf, 16, False),
    ],
)
def test_threads_are_bound_where_each_core_has_one(
    environ: dict[str, str], quota: float, given: int | None, bound: bool
) -> None:
    """Fewer threads than cores would stand on the first ones, with those of every other process."""
    expected = {"OMP_PLACES": "cores", "OMP_PROC_BIND": "true"} if bound else {}
    assert environment.binding(environ, 8, quota, given) == expected


def test_one_thread_is_bound_to_nothing() -> None:
    """It waits for no other."""
    assert environment.binding({}, 1, math.inf) == {}


@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"])
def test_the_users_own_word_on_cores_wins(name: str) -> None:
    """Whichever variable it is said with."""
    assert environment.binding({name: "x"}, 8, math.inf) == {}


def test_nothing_is_bound_in_a_pod() -> None:
    """A kubelet may take cores away from it, and OpenMP would end the process at the next thread it starts there."""
    assert environment.binding({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 8, math.inf) == {}


def test_a_gpu_is_known_by_its_device(tmp_path: Path) -> None:
    """Torch, which would know better, is imported later."""
    devices = (tmp_path / "one", tmp_path / "other")
    assert not environment.has_gpu(devices)
    devices[1].touch()
    assert environment.has_gpu(devices)


@pytest.mark.parametrize(
    ("gpus", "there", "allowed", "is_bound"),
    [
        (0, False, True, True),
        (1, False, True, True),
        (1, True, True, False),
        (0, True, True, True),
        (0, False, False, False),
    ],
)
def test_threads_are_bound_where_models_compute_on_the_cpu(
    gpus: int, there: bool, allowed: bool, is_bound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads that hand work to several GPUs would all stand on one core; a system that forbids binding is left."""
    monkeypatch.setattr(environment, "has_gpu", lambda: there)
    monkeypatch.setattr(environment, "can_bind", lambda: allowed)
    monkeypatch.setattr(environment, "cores", lambda: 4)
    monkeypatch.setattr(environment, "quota", lambda: math.inf)
    source = {"path": "unused"}
    models = ModelSettings.model_validate(
        {"service": "fleet", "gpuCount": gpus, "models": [{"name": "m", "source": source}]}
    )
    environ: dict[str, str] = {}
    config = bound(configure(["--settings", "unused"], {}), models, environ)
    assert config.binds_threads is ("OMP_PROC_BIND" in environ) is is_bound


@pytest.mark.skipif(not environment.can_bind(), reason="hardware: nothing is bound on this system")
def test_a_bound_thread_is_freed() -> None:
    """To where the process' first thread may run."""
    found: list[set[int]] = []

    def import_torch() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        environment.run_anywhere()
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=import_torch)
    thread.start()
    thread.join()
    assert found == [os.sched_getaffinity(os.getpid())]


def test_processes_started_later_hear_no_word_of_binding() -> None:
    """Torch has read it."""
    environ = {"OMP_PLACES": "cores", "OMP_PROC_BIND": "true", "OMP_WAIT_POLICY": "PASSIVE"}
    environment.unbind(environ)
    assert environ == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_a_system_that_refuses_binds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMP would end the process there; freeing a thread is no error."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    assert not environment.can_bind()
    environment.run_anywhere()
