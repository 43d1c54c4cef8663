"""The tests that judge a mutant: which of them run which line, and whether one of them fails.

Everything runs in forked processes, as a module can be imported only once in each.
"""

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, ModuleType

import coverage
import hypothesis
import numpy as np  # noqa: F401  # loaded here once, for every process forked from this one
import pytest

import embedfleet.api  # noqa: F401
from tools.mutating import Mutant, mutated

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "embedfleet_server.batching"
CORE = ROOT / "images" / "server" / "src" / "embedfleet_server" / "batching"
MODULES = sorted(path.stem for path in CORE.glob("*.py") if path.stem != "__init__")
STAGES = ("tests/unit/batching", "worlds", "tests/unit/engine")
KEPT = ROOT / "mutants" / "lines.json"
WORLDS = 60

FAILED, SLOW, BROKEN = "failed", "slow", "broken"
_SLOWEST = 3.0  # processor seconds: the few tests above it are left out
_TIMES, _GRACE = 6.0, 2.0  # times what a test takes, and seconds more, after which it counts as hanging
_MEMORY = 3 << 30  # bytes: a mutant that collects for ever
_PYTEST = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]


@dataclass(slots=True)
class Survey:
    """What each test runs and takes."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of the processor, by test (a pytest id, or `worlds:SEED`)."""
    tests: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    """By file and line."""

    def of(self, mutant: Mutant) -> set[str]:
        """The tests that run the mutated lines; all, where these run when the module is imported."""
        lines = self.tests.get(mutant.file, {})
        found = {test for line in range(mutant.first, mutant.last + 1) for test in lines.get(line, [])}
        return found - {""} or set(self.seconds)


def survey() -> Survey:
    """Run every test once, unless this was done with the same sources."""
    digest = _digest()
    if KEPT.exists() and (kept := json.loads(KEPT.read_text("utf-8")))["digest"] == digest:
        tests = {name: {int(line): ids for line, ids in lines.items()} for name, lines in kept["tests"].items()}
        return Survey(kept["seconds"], tests)
    KEPT.parent.mkdir(exist_ok=True)
    if _forked(lambda: _record(digest)) != 0:
        sys.exit("the tests fail as they are: see pytest " + " ".join(STAGES[::2]))
    return survey()


def judge(mutant: Mutant, map_: Survey) -> str:
    """How the mutant was killed; the empty string where it survives."""
    chosen = sorted(map_.of(mutant), key=lambda test: map_.seconds[test])
    chosen = [test for test in chosen if map_.seconds[test] <= _SLOWEST]
    status = _forked(lambda: _try(mutant, chosen, map_))
    if os.WIFSIGNALED(status):
        return SLOW
    return {0: "", 1: FAILED}.get(os.waitstatus_to_exitcode(status), BROKEN)


# In the forked process.


def _try(mutant: Mutant, chosen: Sequence[str], map_: Survey) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    sys.meta_path.insert(0, _Finder(mutant))
    for stage in STAGES:
        own = [test for test in chosen if test.startswith(stage)]
        if own and (status := _run_worlds(own, map_) if stage == "worlds" else _run_tests(own, map_)):
            return status
    return 0


def _run_tests(chosen: Sequence[str], map_: Survey) -> int:
    files = list(dict.fromkeys(test.partition("::")[0] for test in chosen))
    _alarm(10.0)  # for collecting them
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed may take seconds to import
    return int(pytest.main([*_PYTEST, *files], plugins=[_Chosen(chosen, map_)]))


def _run_worlds(chosen: Sequence[str], map_: Survey) -> int:
    _alarm(10.0)
    from tests.unit.simulation.soak import trouble

    for test in chosen:
        _alarm(map_.seconds[test])
        if trouble(int(test.partition(":")[2])) is not None:
            return 1
    return 0


def _alarm(seconds: float) -> None:
    """After some times so much of the processor's time the process is killed, whatever it does."""
    signal.setitimer(signal.ITIMER_PROF, _TIMES * seconds + _GRACE)


class _Chosen:
    """A pytest plugin: the chosen tests, in their order, each with a time limit; failures are not made smaller."""

    def __init__(self, chosen: Sequence[str], map_: Survey) -> None:
        self._place = {test: place for place, test in enumerate(chosen)}
        self._map = map_

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        hypothesis.settings.register_profile(
            "no-shrinking", hypothesis.settings(), phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate)
        )
        hypothesis.settings.load_profile("no-shrinking")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place), key=lambda item: self._place[item.nodeid]
        )

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        _alarm(self._map.seconds[item.nodeid])


class _Finder(importlib.abc.MetaPathFinder):
    """Gives the mutated module in place of the one on disk."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = f"{PACKAGE}.{mutant.file}"
        path = CORE / f"{mutant.file}.py"
        self._loader = _Loader(self._name, str(path))
        self._loader.code = compile(mutated(path.read_text("utf-8"), mutant.number), str(path), "exec")

    def find_spec(
        self, fullname: str, path: object, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self._loader) if fullname == self._name else None


class _Loader(importlib.machinery.SourceFileLoader):
    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


# Which test runs which line.


class _Recorder:
    """A pytest plugin: what each test runs and takes."""

    def __init__(self, traced: coverage.Coverage, seconds: dict[str, float]) -> None:
        self._traced, self._seconds = traced, seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        with_ = _timed(self._traced, item.nodeid, self._seconds)
        next(with_)
        result = yield
        next(with_, None)
        return result


def _timed(traced: coverage.Coverage, test: str, seconds: dict[str, float]) -> Generator[None]:
    traced.switch_context(test)
    begun = time.process_time()
    yield
    seconds[test] = time.process_time() - begun
    traced.switch_context("")


def _record(digest: str) -> int:
    made = Survey()
    traced = coverage.Coverage(data_file=None, include=[str(CORE / "*.py")], config_file=False)
    traced.start()
    for stage in STAGES:
        if stage == "worlds":
            _record_worlds(traced, made.seconds)
        elif status := pytest.main([*_PYTEST, stage], plugins=[_Recorder(traced, made.seconds)]):
            return int(status)
    traced.stop()
    data = traced.get_data()
    for name in MODULES:
        made.tests[name] = data.contexts_by_lineno(str(CORE / f"{name}.py"))
    KEPT.write_text(json.dumps({"digest": digest, **asdict(made)}), "utf-8")
    return 0


def _record_worlds(traced: coverage.Coverage, seconds: dict[str, float]) -> None:
    from tests.unit.simulation.soak import trouble

    for seed in range(WORLDS):
        for _ in _timed(traced, f"worlds:{seed}", seconds):
            assert trouble(seed) is None, f"the world of seed {seed} is broken as it is"


def _digest() -> str:
    """Of all that decides what runs which line."""
    found = hashlib.sha256(Path(__file__).read_bytes())
    for folder in (CORE.parent, *(ROOT / "tests" / "unit" / name for name in ("batching", "simulation", "engine"))):
        for path in sorted(folder.rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def _forked(task: Callable[[], int]) -> int:
    """The wait status of a process that did the task, silently."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 2
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            status = task()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]
