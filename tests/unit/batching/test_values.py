"""The values of a model: what its next batch may hold, and what stays of the learnt when values change."""

import pytest

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.pressure import Reading
from embedfleet_server.batching.types import Batch, Bound, Breaking, Fault, Policy, Refusal, Retry, Sizing

BREAKING = Breaking(window=4, at_least=2, delay=5.0)


def core(policy: Policy, *, padded: bool = False) -> BatchingCore:
    made = BatchingCore(9, Bound(10_000), 9, Retry(max_retries=0))
    made.add_model("m", policy)
    made.model_ready("m", "gpu", padded=padded)
    return made


def started(made: BatchingCore, inputs: int = 1, cost: int = 1) -> Batch:
    """A batch of these inputs, all of which it holds if it may."""
    made.submit("m", range(inputs), [cost] * inputs, None, 0.0)
    found = made.next_batch(0.0)
    assert found is not None
    return found


def failing(made: BatchingCore) -> str:
    return made.breaker_of("m")[0].value


@pytest.mark.requirement("A1")
def test_the_size_is_the_configured_one_or_the_learnt_one() -> None:
    """Without sizing `max_batch_size`; with it the initial one, which failures cut and a permanent fault does not."""
    made = core(Policy(max_batch_size=50))
    assert made.batch_size("m") == 50
    assert len(started(made, 60).entries) == 50
    made.change("m", Policy(max_batch_size=50, sizing=Sizing(initial=8)))
    assert made.batch_size("m") == 8
    batch = started(made, 60)
    assert len(batch.entries) == 8
    made.fail(batch, Fault.PERMANENT, 0.0)
    assert made.batch_size("m") == 8
    made.fail(started(made, 8), Fault.TRANSIENT, 0.0)
    assert made.batch_size("m") == 7


@pytest.mark.requirement("A1", "B20")
def test_the_learnt_size_outlives_other_values_and_goes_with_sizing() -> None:
    """New bounds hold at once; a new initial size starts anew; sizing switched off, the configured size holds."""
    made = core(Policy(max_batch_size=50, sizing=Sizing(initial=8)))
    made.fail(started(made, 8), Fault.TRANSIENT, 0.0)
    made.change("m", Policy(max_batch_size=40, max_wait=1.0, sizing=Sizing(initial=8)))
    assert made.batch_size("m") == 7
    made.change("m", Policy(max_batch_size=5, sizing=Sizing(initial=8)))
    assert made.batch_size("m") == 5
    made.change("m", Policy(max_batch_size=40, sizing=Sizing(smallest=6, initial=8)))
    assert made.batch_size("m") >= 6
    made.change("m", Policy(max_batch_size=40, sizing=Sizing(initial=16)))
    assert made.batch_size("m") == 16
    made.change("m", Policy(max_batch_size=40))
    assert made.batch_size("m") == 40


@pytest.mark.requirement("A1")
def test_batches_that_ran_teach_the_size() -> None:
    """Where only full batches pay the next size is tried after six at the first; it goes by the inputs' own tokens."""
    made = core(Policy(max_batch_size=64, sizing=Sizing(initial=8)), padded=True)
    for _ in range(6):
        assert made.batch_size("m") == 8
        made.complete(started(made, 8), 0.1)
    assert made.batch_size("m") == 16


@pytest.mark.requirement("A1")
def test_without_a_measured_time_nothing_is_learnt() -> None:
    """The forward failed to say, or belongs to nobody."""
    made = core(Policy(max_batch_size=64, sizing=Sizing(initial=8)))
    for _ in range(20):
        made.complete(started(made, 8))
    assert made.batch_size("m") == 8
    assert made.costs()["m"].tokens_per_second() is None


@pytest.mark.requirement("A3")
def test_a_batch_predicted_to_take_too_much_memory_is_not_formed() -> None:
    """Batches took 1 MiB a token: of 100 MiB 100 tokens are left, ten inputs; without that limit all go."""
    for source in ("a self-test", "a batch"):
        made = core(Policy(max_batch_mib=100.0))
        if source == "a batch":
            made.complete(started(made, 5, 10), 0.1, peak_mib=50.0)
        else:
            made.learn_memory("m", 50, 50.0)
        assert len(started(made, 30, 10).entries) == 10
        made.change("m", Policy())
        assert len(started(made, 1, 10).entries) == 21


@pytest.mark.requirement("A3")
def test_before_memory_was_measured_the_configured_budget_holds_and_it_is_never_passed() -> None:
    """Nor does a limit below what anything takes stop a model: one input at a time goes on."""
    made = core(Policy(max_batch_mib=100.0, max_batch_tokens=50))
    assert len(started(made, 9, 10).entries) == 5
    made.learn_memory("m", 10, 1.0)
    assert len(started(made, 9, 10).entries) == 5
    tight = core(Policy(max_batch_mib=0.001))
    tight.learn_memory("m", 10, 10.0)
    assert len(started(tight, 9, 10).entries) == 1


@pytest.mark.requirement("A3")
def test_full_memory_shrinks_batches_and_refuses_at_the_door() -> None:
    """At the warning half the budget; at critical a quarter, and what asks is told why and when to come again."""
    made = core(Policy(max_batch_tokens=80))
    assert made.reserve("m", 1, 0.0) is None
    made.pressure.read({"gpu": Reading(85, 100)})
    assert made.reserve("m", 1, 0.0) is None
    assert len(started(made, 20, 10).entries) == 4
    made.pressure.read({"gpu": Reading(95, 100)})
    assert len(started(made, 1, 10).entries) == 2
    refused = made.reserve("m", 1, 0.0)
    assert refused is not None
    assert (refused.reason, refused.retry_after) == ("memory of gpu is 95% full; critical at 90%", 2.0)
    assert not refused.failing


@pytest.mark.requirement("B7", "B20")
def test_bounds_change_while_work_waits() -> None:
    """The service's and the model's own; what waits stays, and more comes in only below them."""
    made = core(Policy(max_wait=9.0, dispatch_when_idle=False))
    assert made.reserve("m", 5, 0.0) is None
    made.change("m", Policy(), Bound(5))
    assert made.reserve("m", 1, 0.0) is not None
    made.change("m", Policy(), None)
    assert made.reserve("m", 1, 0.0) is None
    made.bound = Bound(6)
    assert made.bound == Bound(6)
    assert made.reserve("m", 1, 0.0) is not None
    made.bound = Bound(None)
    assert made.reserve("m", 10**6, 0.0) is None


@pytest.mark.requirement("H2")
def test_a_model_without_a_breaker_is_tried_again_and_again() -> None:
    """However often it failed."""
    made = core(Policy())
    for _ in range(30):
        made.fail(started(made), Fault.PERMANENT, 0.0, "boom")
    assert made.breaker_of("m")[1] == ""
    assert failing(made) == "closed"
    assert made.reserve("m", 1, 0.0) is None


@pytest.mark.requirement("B20", "H2")
def test_a_breaker_keeps_what_it_saw_when_other_values_change_and_goes_when_switched_off() -> None:
    """One failure before a change and one after it open it; switched off and on again it knows nothing."""
    made = core(Policy(breaking=BREAKING))
    made.fail(started(made), Fault.PERMANENT, 0.0, "boom")
    made.change("m", Policy(max_wait=1.0, breaking=BREAKING))
    made.fail(started(made), Fault.PERMANENT, 0.0, "boom")
    assert failing(made) == "open"
    made.change("m", Policy())
    assert failing(made) == "closed"
    assert made.reserve("m", 1, 0.0) is None
    made.change("m", Policy(breaking=BREAKING))
    assert made.reserve("m", 1, 0.0) is None


@pytest.mark.requirement("B20", "H2")
def test_new_limits_of_a_breaker_hold_for_what_it_saw() -> None:
    """One failure is enough now; the delay is the new one, and so it is for a breaker that opens later."""
    made = core(Policy(breaking=BREAKING))
    made.change("m", Policy(breaking=Breaking(window=4, at_least=1, delay=7.0)))
    made.fail(started(made), Fault.PERMANENT, 100.0, "boom")
    refused = made.reserve("m", 1, 100.0)
    assert isinstance(refused, Refusal)
    assert (refused.retry_after, refused.failing) == (7.0, True)
    assert refused.reason == "its batches fail: boom"


@pytest.mark.requirement("H2")
def test_only_what_tells_of_the_model_counts_for_its_breaker() -> None:
    """Too little memory does not, nor do halves of a batch that failed; a batch without one finite row does."""
    made = core(Policy(breaking=BREAKING))
    short = core(Policy(breaking=BREAKING))
    for _ in range(3):
        short.fail(started(short), Fault.MEMORY, 0.0)
    assert failing(short) == "closed"
    made.fail(started(made, 2), Fault.PERMANENT, 0.0, "boom")
    for _ in range(2):
        half = made.next_batch(0.0)
        assert half is not None
        assert half.is_part
        made.fail(half, Fault.PERMANENT, 0.0, "boom")
    assert failing(made) == "closed"
    for failed in (1, 1, 2, 2):
        made.complete(started(made, 2), failed=failed)
    assert failing(made) == "closed"
    made.complete(started(made, 2), failed=2, now=50.0)
    assert made.breaker_of("m")[1] == "no row of a batch was finite"
    assert failing(made) == "open"
    assert made.reserve("m", 1, 54.0) is not None
    assert made.reserve("m", 1, 55.0) is None


@pytest.mark.requirement("B23", "H2")
def test_a_probe_that_ran_out_of_memory_gives_its_place_to_the_next() -> None:
    """It showed nothing of the model."""
    made = core(Policy(breaking=BREAKING, max_batch_size=1))
    for _ in range(2):
        made.fail(started(made), Fault.PERMANENT, 0.0, "boom")
    made.submit("m", range(3), [1] * 3, None, 0.0)
    probe = made.next_batch(5.0)
    assert probe is not None
    assert made.next_batch(5.0) is None
    made.fail(probe, Fault.MEMORY, 6.0)
    second = made.next_batch(6.0)
    assert second is not None
    made.complete(second, now=7.0)
    assert failing(made) == "closed"


@pytest.mark.requirement("B5", "B17", "B20")
def test_lengths_are_told_apart_only_where_batches_are_sorted_and_shared() -> None:
    """Sorted, like lengths share a batch; with either switched off the order of arrival is back."""
    for policy, expected in (
        (Policy(max_batch_size=2), [30, 31]),
        (Policy(max_batch_size=2, sort_by_length=False), [30, 90]),
        (Policy(max_batch_size=2, enabled=False), [30]),
    ):
        made = core(Policy(), padded=True)
        made.submit("m", [0], [30], None, 0.0)
        made.submit("m", [0, 0], [90, 31], None, 0.0)
        made.change("m", policy)
        batch = made.next_batch(0.0)
        assert batch is not None
        assert [entry[1] for entry in batch.entries] == expected


MEASURED = [(16, 0.0116), (128, 0.0228), (512, 0.0612), (4096, 0.4196)]
"""Tokens and seconds of forwards before the first batch: 10 ms to start and 0.1 ms a token."""


@pytest.mark.requirement("B7")
def test_what_was_measured_before_the_first_batch_is_believed_at_once() -> None:
    """The wait of new work and of a refused caller are known though nothing ran; one forward alone tells a caller."""
    made = core(Policy(max_batch_size=8))
    made.submit("m", range(4), [1000] * 4, None, 0.0)
    assert (made.wait("m"), made.retry_after()) == (0.0, 1.0)
    made.learn_costs("m", MEASURED[:1])
    assert made.wait("m") == 0.0
    assert made.retry_after() == pytest.approx(4000 * 0.0116 / 16)
    made.learn_costs("m", MEASURED[1:])
    speed = made.costs()["m"].tokens_per_second()
    assert speed is not None
    assert 16 / 0.0116 < speed < 1 / 0.0001
    assert made.wait("m") == pytest.approx(1.5 * 4000 / speed)
    assert made.retry_after() == pytest.approx(4000 / speed)


@pytest.mark.requirement("B5", "B7")
def test_what_was_measured_counts_until_five_batches_ran() -> None:
    """On a device that became ten times slower: up to the fourth batch by the measurement, then by the batches alone.

    So is the padding that is worth a start: 100 tokens by the measurement, at first, and then what batches show.
    """
    made = core(Policy(max_batch_size=8))
    made.learn_costs("m", MEASURED)
    measured = made.costs()["m"].tokens_per_second()
    assert made.costs()["m"].start_tokens() == pytest.approx(100)
    for number in range(5):
        assert made.costs()["m"].tokens_per_second() == measured
        made.complete(started(made, 8, 8 + number), 10 * (0.02 + 8 * (8 + number) * 0.0001))
    assert made.costs()["m"].tokens_per_second() == pytest.approx(80 / 0.28, rel=0.01)
    assert made.costs()["m"].start_tokens() == pytest.approx(200)


@pytest.mark.requirement("B5")
def test_padding_is_weighed_against_the_start_that_was_measured() -> None:
    """10 and 150 tokens: 140 of padding are less than 256, the guess, and more than the 100 that a start is worth."""
    for points, inputs in (([], 2), (MEASURED, 1)):
        made = core(Policy(max_batch_size=8), padded=True)
        made.learn_costs("m", points)
        made.submit("m", [0, 1], [10, 150], None, 0.0)
        batch = made.next_batch(0.0)
        assert batch is not None
        assert len(batch.entries) == inputs


@pytest.mark.requirement("B10")
def test_a_stated_deadline_is_judged_before_the_first_batch() -> None:
    """4,000 tokens wait, about 0.4 s of work: a caller with 0.2 s is refused with a delay, one with 2 s is not."""
    made = core(Policy(max_batch_size=8))
    made.learn_costs("m", MEASURED)
    made.submit("m", range(4), [1000] * 4, None, 0.0)
    late = made.submit("m", [0], [10], None, 0.0, within=0.2)
    assert isinstance(late, Refusal)
    assert "its time is up in 0.2 s" in late.reason
    assert not isinstance(made.submit("m", [0], [10], None, 0.0, within=2.0), Refusal)


@pytest.mark.requirement("A1")
def test_the_target_holds_from_the_first_batch_on() -> None:
    """Within 100 ms fit 809 tokens where a start takes 10 ms; without a measurement the first batch has 32 inputs."""
    policy = Policy(max_batch_size=256, sizing=Sizing(initial=32, target=0.1))
    assert len(started(core(policy), 40, 100).entries) == 32
    made = core(policy)
    made.learn_costs("m", MEASURED)
    assert len(started(made, 40, 100).entries) == 8
    assert made.batch_size("m") == 32
    free = core(Policy(max_batch_size=256, sizing=Sizing(initial=32)))
    free.learn_costs("m", MEASURED)
    assert len(started(free, 40, 100).entries) == 32


def allowed(made: BatchingCore) -> int:
    """Most tokens in a batch of the model, on its device."""
    model = made._models["m"]
    return model.first.allowed(model.policy)


@pytest.mark.requirement("A3")
def test_a_batch_has_no_more_tokens_than_there_is_room_for() -> None:
    """At 20 MiB and 1 MiB a token 80 of them have room in 100 MiB; what is configured is never passed."""
    made = core(Policy(max_batch_size=100, max_batch_tokens=400))
    made.has_room("m", 100.0)
    made.learn_memory("m", 10, 30.0)
    assert (made.safe_tokens("m"), allowed(made)) == (None, 400)  # of one size no line is known
    made.learn_memory("m", 40, 60.0)
    assert (made.safe_tokens("m"), allowed(made)) == (80, 80)
    assert len(started(made, 30, 10).entries) == 8
    made.has_room("m", 1000.0)
    assert (made.safe_tokens("m"), allowed(made)) == (980, 400)


@pytest.mark.requirement("A3")
def test_no_batch_is_smaller_than_those_that_went_well_before_the_first() -> None:
    """Memory was full for a moment when it was looked at; without the measurement one token is left."""
    made = core(Policy())
    for tokens, peak in ((10, 30.0), (40, 60.0)):
        made.learn_memory("m", tokens, peak)
    made.has_room("m", -500.0)
    assert (made.safe_tokens("m"), allowed(made)) == (0, 1)
    made.learn_costs("m", MEASURED)
    assert (made.safe_tokens("m"), allowed(made)) == (4096, 4096)


@pytest.mark.requirement("B23")
def test_memory_that_ran_out_before_the_first_batch_halves_the_budget() -> None:
    """Of 4,096 tokens half are left, however much room there seems to be; batches that go well raise it again."""
    made = core(Policy())
    for tokens, peak in ((10, 1.0), (40, 4.0)):
        made.learn_memory("m", tokens, peak)
    made.has_room("m", 1000.0)
    made.ran_out("m", 4096)
    assert (made.safe_tokens("m"), allowed(made)) == (2048, 2048)
    for _ in range(20):
        made.complete(started(made, 8), 0.1)
    assert allowed(made) == int(2048 * 1.05) + 1
