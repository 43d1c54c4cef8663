"""Work that would hardly be computed by the deadline its caller stated is refused, rather than computed for nobody."""

import random

import pytest

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.fairness import Accounts
from embedfleet_server.batching.flow import one_bucket
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.spread import Spread
from embedfleet_server.batching.types import CRITICAL, HIGH, LOW, NORMAL, Batch, Bound, Policy, Refusal, Work

pytestmark = pytest.mark.requirement("B7", "B10")


def core(seconds: float = 1.0, batches: int = 6) -> BatchingCore:
    """One that has seen batches of ten inputs of ten tokens: a hundred tokens in so many seconds."""
    made = BatchingCore(1, Bound(10_000))
    made.add_model("m", Policy(max_batch_size=10))
    made.model_ready("m", "cpu", padded=True)
    for number in range(batches):
        put(made, 10, float(number))
        batch = made.next_batch(float(number))
        assert isinstance(batch, Batch)
        made.complete(batch, seconds)
    return made


def put(made: BatchingCore, inputs: int, now: float = 100.0, **how: object) -> Work | Refusal:
    return made.submit("m", ["x"] * inputs, [10] * inputs, None, now, **how)  # type: ignore[arg-type]


def test_what_cannot_be_in_time_is_refused_with_the_time_it_lacks() -> None:
    """Ten batches of a second wait: one second is too little for the next request; a minute, or none stated, is not."""
    made = core()
    put(made, 100)
    refusal = put(made, 1, within=101.0)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == pytest.approx(made.wait("m", 10) - 1.0)
    assert isinstance(put(made, 1, within=160.0), Work)
    assert isinstance(put(made, 1), Work)
    assert made.stats().refused == 1


def test_one_that_nothing_is_before_is_never_refused_for_its_deadline() -> None:
    """After a batch that took a minute an idle device takes work with a deadline of a second, and so learns anew."""
    assert isinstance(put(core(seconds=60.0), 1, within=101.0), Work)


def test_nothing_is_refused_before_the_speed_is_known() -> None:
    """After four batches their speed is not believed yet; after the fifth it is."""
    assert [isinstance(put_behind(batches), Work) for batches in (4, 5)] == [True, False]


def put_behind(batches: int) -> Work | Refusal:
    made = core(batches=batches)
    put(made, 100)
    return put(made, 1, within=101.0)


def test_what_is_before_depends_on_priority_and_tenant() -> None:
    """A thousand tokens of one tenant: a higher priority has nothing before it, another tenant as much as it brings."""
    made = core()
    put(made, 100, tenant="a")
    assert isinstance(put(made, 1, within=100.5, priority=HIGH), Work)
    assert made.wait("m", 10, tenant="a") == pytest.approx(1.5 * 10.1, rel=0.1)
    assert made.wait("m", 10, tenant="b") < 1.0
    assert isinstance(put(made, 2, within=102.0, tenant="b"), Work)
    assert isinstance(put(made, 2, within=102.0, tenant="a"), Refusal)


@pytest.mark.parametrize(
    ("priority", "tenant", "tokens", "before"),
    [
        (NORMAL, "new", 50, 30 + 50 + 40),
        (NORMAL, "much", 10, 30 + 100 + 40),
        (NORMAL, "little", 10, 30 + 40 + 50),
        (LOW, "new", 50, 30 + 100 + 40),
        (HIGH, "new", 50, 30),
        (CRITICAL, "new", 50, 0),
    ],
)
def test_what_is_served_before_new_work(priority: int, tenant: str, tokens: int, before: int) -> None:
    """All of higher priority; of its own what its tenant has, and of each other at most as much as it then has."""
    queue = ModelQueue(one_bucket, Accounts())
    waiting = ((NORMAL, "much", 100), (NORMAL, "little", 40), (HIGH, "much", 30))
    for number, (of, who, cost) in enumerate(waiting):
        queue.push(Work("m", ["x"], [cost], None, 0.0, number, of, who), 0.0)
    assert queue.ahead(priority, tenant, tokens) == before


def test_each_work_of_a_batch_teaches_the_spread() -> None:
    """Works of which nothing was expected are passed over, whatever their place in the batch."""
    works = [Work("m", ["x"], [1], None, 0.0, number, expected=float(number % 2)) for number in range(40)]
    for work in works:
        work.waiting = 0
    entries = [(work.number, 1, work, 0) for work in works]
    spread = Spread()
    spread.learn(Batch(1, "m", "cpu", entries, 40, 0.0), ended=3.0)
    assert spread.ratio == pytest.approx(1.5 + 20 * 0.05 * 0.99)


def test_the_spread_follows_what_is_seen() -> None:
    """Waits of three times what was expected raise it to three within some tens of works; it never passes four."""
    spread, three, ten = Spread(), 0, 0
    while spread.ratio < 3.0:
        spread.learn(batch(expected=1.0), ended=3.0)
        three += 1
    assert three < 50
    for _ in range(10_000):
        spread.learn(batch(expected=1.0), ended=10.0)
    assert spread.ratio == 4.0
    while spread.ratio > 1.0:
        spread.learn(batch(expected=1.0), ended=0.5)
        ten += 1
    assert ten > 1000


def batch(expected: float) -> Batch:
    work = Work("m", ["x"], [10], None, 0.0, 1, expected=expected)
    work.waiting = 0
    return Batch(1, "m", "cpu", [(1, 10, work, 0)], 10, 0.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.requirement("B10")
def test_deadlines_are_kept_in_order_when_those_of_works_that_left_are_thrown_out(seed: int) -> None:
    """Of 400 works most leave; the others are taken at their deadlines, none late, none early."""
    chance = random.Random(seed)
    queue = ModelQueue(one_bucket, Accounts())
    works = [
        Work("m", ["x"], [1], None, 0.0, number, deadline=float(chance.randint(100, 900))) for number in range(400)
    ]
    for work in works:
        queue.push(work, 0.0)
    for work in chance.sample(works, 350):
        queue.forget(work)
    queue.expired(1.0)
    left = [work for work in works if work.waiting]
    for now in range(100, 901, 50):
        taken = queue.expired(float(now))
        assert {work.number for work in taken} == {work.number for work in left if now - 50 < work.deadline <= now}
        for work in taken:
            queue.forget(work)
