"""Many random worlds: real core and driver, simulated devices, a virtual clock, and invariants at every step."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.unit.simulation.plan import draw
from tests.unit.simulation.replay import command
from tests.unit.simulation.soak import trouble
from tests.unit.simulation.world import World, live

SEEDS, PART = 1200, 100
_DIGESTS = """
import hashlib
from tests.unit.simulation.plan import draw
from tests.unit.simulation.world import World, live
for seed in range(30):
    live(world := World(draw(seed)))
    print(seed, hashlib.sha256(repr(world.log).encode()).hexdigest())
"""


@pytest.mark.requirement("B1", "B6", "B7", "B9", "B10", "B12", "B13", "B16", "B19", "B20", "B22", "B23", "B24")
@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_every_invariant_holds_in_every_world(first: int) -> None:
    """A hundred worlds each; what is wrong comes with the line that replays it."""
    found = [said for seed in range(first, first + PART) if (said := trouble(seed)) is not None]
    if found:
        pytest.fail("\n".join([f"{len(found)} of {PART} worlds are broken:", *found[:5]]), pytrace=False)


def test_a_seed_replays_identically_in_any_process() -> None:
    """Thirty worlds, their every event hashed, in three processes with other hash seeds and other addresses."""
    said = {_digests(seed) for seed in ("0", "1", "77")}
    assert len(said) == 1
    assert len(said.pop().splitlines()) == 30


def test_a_broken_world_names_the_line_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With inputs that run for ever each world is broken, and the line given shows the same."""
    monkeypatch.setattr("embedfleet_server.batching.core.BatchingCore._leave", lambda core, batch, now: 0)
    said = trouble(3)
    assert said is not None
    assert said.startswith(command(3))
    assert "counts do not add up" in said


def test_the_worlds_hold_all_that_may_happen() -> None:
    """Three hundred seeds bring about each outcome, each fault, each kind of world, and stops of all kinds."""
    seen: Counter[object] = Counter()
    for seed in range(300):
        live(world := World(draw(seed)))
        seen[world.plan.kind] += 1
        for _, event, *rest in world.log:
            seen[event] += 1
            seen[rest[1] if event in ("error", "fault") else None] += 1
        seen["cut off"] += world.truth.cut_off
        seen["retried"] += world.engine.stats().retried
        seen["cancelled"] += world.engine.stats().cancelled
    outcomes = {"CancelledError", "DeadlineExceeded", "ModelLoading", "ModelLoadFailed", "QueueFull", "TooLarge"}
    outcomes.add("ModelFailing")
    faults = {"RuntimeError", "TransientError", "ConnectionResetError", "TimeoutError", "OutOfMemory", "MemoryError"}
    kinds = {"calm", "faulty", "overload", "answer", "load", "change", "wrong rows", "cut off", "retried", "cancelled"}
    kinds.add("warm-up")
    assert outcomes | faults | kinds | {"Stopped", "ShuttingDown"} <= {key for key, count in seen.items() if count >= 3}


def _digests(hash_seed: str) -> str:
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", _DIGESTS], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    return ran.stdout
