"""The token budget after out-of-memory: halved at once, grown back by 5 % for every 20 batches that went well."""

import pytest

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.memory import MemoryBudget
from embedfleet_server.batching.types import Bound, Fault, Policy

LIMIT = 1000


def after(budget: MemoryBudget, batches: int) -> int:
    for _ in range(batches):
        budget.went_well(LIMIT)
    return budget.within(LIMIT)


@pytest.mark.requirement("B23")
def test_a_budget_that_never_failed_is_the_configured_one() -> None:
    """However many batches went well."""
    assert after(MemoryBudget(), 0) == LIMIT
    assert after(MemoryBudget(), 100) == LIMIT


@pytest.mark.requirement("B23")
def test_half_of_what_did_not_fit_is_the_budget() -> None:
    """Of 600 tokens 300, of one token one; what is larger than a budget known to be smaller does not raise it."""
    budget = MemoryBudget()
    budget.ran_out(600)
    assert budget.within(LIMIT) == 300
    budget.ran_out(400)
    assert budget.within(LIMIT) == 200
    budget.ran_out(900)
    assert budget.within(LIMIT) == 200
    assert budget.within(50) == 50
    budget.ran_out(1)
    assert budget.within(LIMIT) == 1


@pytest.mark.requirement("B23")
def test_it_grows_by_a_twentieth_for_every_20_batches_in_a_row() -> None:
    """After 19 not yet; a failure on the way begins the count anew."""
    budget = MemoryBudget()
    budget.ran_out(400)
    assert after(budget, 19) == 200
    assert after(budget, 1) == 211
    assert after(budget, 19) == 211
    assert after(budget, 1) == 222
    after(budget, 19)
    budget.ran_out(444)
    assert after(budget, 19) == 222
    assert after(budget, 1) == 234


@pytest.mark.requirement("B23")
def test_a_half_is_back_after_15_quiet_spells_and_then_forgotten() -> None:
    """At the configured budget nothing is remembered: a larger one, set later, holds at once. One below it is kept."""
    budget = MemoryBudget()
    budget.ran_out(16384)
    for _ in range(14 * 20):
        budget.went_well(16384)
    assert budget.within(16384) < 16384
    for _ in range(20):
        budget.went_well(16384)
    assert budget.within(99999) == 99999
    for tokens, later in ((951, 999), (952, 99999)):  # a twentieth more, rounded up: 999 is below 1000, 1000 is not
        grown = MemoryBudget(tokens)
        after(grown, 20)
        assert grown.within(99999) == later


@pytest.mark.requirement("B23")
def test_the_core_forms_smaller_batches_after_memory_ran_out_and_other_faults_do_not_shrink_them() -> None:
    """Sixteen inputs of 10: memory fails at 160 tokens, both halves are tried, and fresh batches hold 80."""
    made = BatchingCore(1, Bound(100))
    made.add_model("m", Policy(max_batch_size=16))
    made.model_ready("m", "gpu", padded=True)
    made.submit("m", range(32), [10] * 32, None, 0.0)
    sizes = []
    for fault in (Fault.PERMANENT, None, None, Fault.MEMORY, None, None):
        batch = made.next_batch(0.0)
        assert batch is not None
        sizes.append(len(batch.entries))
        made.complete(batch) if fault is None else made.fail(batch, fault, 0.0)
    assert sizes == [16, 8, 8, 16, 8, 8]
    made.submit("m", range(32), [10] * 32, None, 0.0)
    fresh = made.next_batch(0.0)
    assert fresh is not None
    assert len(fresh.entries) == 8
