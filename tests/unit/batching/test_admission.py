"""What comes in, what is refused, and that the counts add up."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.types import Batch, Bound, Fault, Policy, Refusal, Retry, Work


def core(bound: Bound, own: Bound | None = None) -> BatchingCore:
    made = BatchingCore(4, bound)
    for name in "ab":
        made.add_model(name, Policy(max_batch_size=4), own)
        made.model_ready(name, "cpu", padded=True)
    return made


@pytest.mark.requirement("B7")
def test_admission_is_whole_or_not_at_all() -> None:
    """Ten places, eight taken: three more are refused together, and nothing of them is queued."""
    made = core(Bound(10))
    assert made.reserve("a", 8, 0.0) is None
    refusal = made.reserve("b", 3, 0.0)
    assert refusal is not None
    assert refusal.retry_after == 1.0
    assert made.total_queue_depth == 8
    assert made.reserve("b", 2, 0.0) is None


@pytest.mark.requirement("B7")
def test_what_could_never_fit_is_told_apart() -> None:
    """More inputs or tokens than the bound itself is too large, with no delay: another try would not help."""
    made = core(Bound(10, 100))
    too_many, too_long = made.reserve("a", 11, 0.0), made.submit("a", ["x"], [101], None, 0.0)
    assert too_many is not None
    assert too_many.retry_after is None
    assert isinstance(too_long, Refusal)
    assert too_long.retry_after is None


@pytest.mark.requirement("B7")
def test_what_a_model_could_never_take_is_told_though_the_service_is_full() -> None:
    """Another try would not help, whatever waits before it: three inputs for a model that takes two at most."""
    made = core(Bound(10), Bound(2))
    made.add_model("wide", Policy(max_batch_size=4))
    assert made.reserve("wide", 9, 0.0) is None
    never = made.reserve("a", 3, 0.0)
    assert never is not None
    assert (never.reason, never.retry_after) == ("3 inputs in one request; at most 2 fit", None)


@pytest.mark.requirement("B7")
def test_tokens_are_bounded_over_all_models() -> None:
    """100 tokens over the service: 60 of one model leave no room for 50 of another."""
    made = core(Bound(10, 100))
    assert isinstance(made.submit("a", ["x"], [60], None, 0.0), Work)
    refused = made.submit("b", ["x"], [50], None, 0.0)
    assert isinstance(refused, Refusal)
    assert "the bound is 10 inputs and 100 tokens" in refused.reason


@pytest.mark.requirement("B7")
def test_a_model_may_have_a_lower_bound() -> None:
    """Two places for each model: the third input of one is refused while the other has room."""
    made = core(Bound(10), Bound(2))
    assert made.reserve("a", 2, 0.0) is None
    assert isinstance(made.reserve("a", 1, 0.0), Refusal)
    assert made.reserve("b", 1, 0.0) is None


@pytest.mark.requirement("B7")
def test_the_delay_is_backlog_over_measured_speed() -> None:
    """At 1000 tokens/s, 5000 tokens waiting mean five seconds."""
    made = core(Bound(5))
    made.costs()["a"].learn(2000, 2.0)
    made.submit("a", list("vwxyz"), [1000] * 5, None, 0.0)
    refusal = made.reserve("b", 1, 0.0)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(5.0)


@pytest.mark.requirement("B16")
def test_a_cancelled_work_leaves_the_counts_at_once() -> None:
    """What waited of it is gone from depth and tokens; what ran is counted as cancelled when its batch ends."""
    made = core(Bound(100))
    work = made.submit("a", list("abcdef"), [5] * 6, None, 0.0)
    assert isinstance(work, Work)
    running = made.next_batch(0.0)
    assert running is not None
    made.cancel(work)
    assert made.total_queue_depth == 0
    made.complete(running, 0.1)
    assert (made.stats().cancelled, made.stats().completed) == (6, 0)
    assert made.next_batch(1.0) is None


def test_the_cost_line_finds_start_and_slope() -> None:
    """Batches that cost 10 ms + 0.1 ms a token: a start is worth 100 tokens."""
    line = CostLine()
    for tokens in (50, 400, 120, 800, 300):
        line.learn(tokens, 0.010 + 0.0001 * tokens)
    assert line.start_tokens() == pytest.approx(100, rel=1e-3)
    assert line.slope() == pytest.approx(0.0001, rel=1e-3)


def test_the_cost_line_admits_ignorance() -> None:
    """Before two sizes were seen there is no slope, and before any batch no speed."""
    line = CostLine()
    assert line.tokens_per_second() is None
    line.learn(100, 0.1)
    assert line.slope() is None
    assert line.tokens_per_second() == pytest.approx(1000)


class CoreMachine(RuleBasedStateMachine):
    """Any order of reservations, requests, batches, ends and cancels keeps the bounds and the sum of the counts."""

    def __init__(self) -> None:
        super().__init__()
        self.core = core(Bound(20, 400), Bound(15))
        self.works: list[Work] = []
        self.running: list[Batch] = []
        self.reserved: list[tuple[str, int]] = []
        self.now = 0.0

    @rule(model=st.sampled_from("ab"), inputs=st.integers(1, 8))
    def reserve(self, model: str, inputs: int) -> None:
        if self.core.reserve(model, inputs, self.now) is None:
            self.reserved.append((model, inputs))

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        model, inputs = self.reserved.pop()
        costs = data.draw(st.lists(st.integers(1, 60), min_size=inputs, max_size=inputs))
        self.core.release(model, inputs)
        work = self.core.submit(model, list(range(inputs)), costs, None, self.now)
        if isinstance(work, Work):
            self.works.append(work)

    @rule()
    def run(self) -> None:
        self.now += 0.01
        batch = self.core.next_batch(self.now)
        if batch is not None:
            self.running.append(batch)

    @precondition(lambda self: self.running)
    @rule()
    def end(self) -> None:
        self.core.complete(self.running.pop(0), 0.01)

    @precondition(lambda self: self.works)
    @rule()
    def cancel(self) -> None:
        self.core.cancel(self.works.pop(0))

    @invariant()
    def counts_add_up(self) -> None:
        s = self.core.stats()
        assert s.submitted == s.completed + s.failed + s.cancelled + s.waiting + s.running

    @invariant()
    def bounds_hold(self) -> None:
        assert self.core.total_queue_depth <= 20
        assert all(self.core.queue_depth(name) <= 15 for name in "ab")
        assert self.core.stats().active_batches == len(self.running) <= 1

    def teardown(self) -> None:
        """Everything left can be finished: nothing is stuck, no permit is lost."""
        for batch in self.running:
            self.core.complete(batch, 0.01)
        for model, inputs in self.reserved:
            self.core.release(model, inputs)
        while (batch_ := self.core.next_batch(self.now)) is not None:
            self.core.complete(batch_, 0.01)
        assert self.core.is_idle


TestCore = CoreMachine.TestCase
TestCore.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestCore = pytest.mark.requirement("B16")(TestCore)


@pytest.mark.requirement("B10")
def test_what_waits_past_its_deadline_is_dropped_before_it_costs_a_forward() -> None:
    """Work whose time is up is gone when the next batch is formed, though nobody cancelled it, and counted once."""
    core = BatchingCore(1, Bound(10))
    core.add_model("m", Policy())
    core.model_ready("m", "cpu", padded=True)
    late = core.submit("m", ["a", "b"], [1, 1], None, 0.0, deadline=2.0)
    core.submit("m", ["c"], [1], None, 0.0, deadline=9.0)
    batch = core.next_batch(2.0)
    assert batch is not None
    assert batch.payloads() == ["c"]
    assert isinstance(late, Work)
    core.cancel(late)
    assert (core.stats().cancelled, core.stats().running, core.total_queue_depth) == (2, 1, 0)


@pytest.mark.requirement("B10", "B22")
def test_what_waits_for_another_try_is_dropped_when_its_deadline_passes() -> None:
    """A batch held after a fault that may pass is not tried again for a caller whose time is up."""
    core = BatchingCore(1, Bound(10), retry=Retry(3, 5.0))
    core.add_model("m", Policy())
    core.model_ready("m", "cpu", padded=True)
    core.submit("m", ["a"], [1], None, 0.0, deadline=4.0)
    batch = core.next_batch(0.0)
    assert batch is not None
    core.fail(batch, Fault.TRANSIENT, 1.0)
    assert core.next_batch(6.0) is None
    assert (core.stats().cancelled, core.is_idle) == (1, True)


def test_deadlines_of_work_that_left_are_not_kept() -> None:
    """After 10,000 works with far deadlines came and went, the queue remembers no more than a few of them."""
    core = BatchingCore(1, Bound(10))
    core.add_model("m", Policy())
    core.model_ready("m", "cpu", padded=True)
    for number in range(10_000):
        core.submit("m", ["a"], [1], None, float(number), deadline=1e9)
        batch = core.next_batch(float(number))
        assert batch is not None
        core.complete(batch)
    assert len(core._models["m"].queue._deadlines) < 200
