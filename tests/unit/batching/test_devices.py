"""A model on several devices: which of them a batch is for, and what is learnt of each."""

from collections.abc import Sequence

import pytest

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.types import Batch, Bound, Breaking, Fault, Policy, Refusal, Retry, Sizing, Work

ALONE = Policy(max_batch_size=1)
TIMES_OF_FAILURE = (0.0, 1.0, 2.0)


def core(
    policy: Policy = ALONE, devices: Sequence[str] = "xy", *, permits: int = 9, per_device: int = 1, bound: int = 100
) -> BatchingCore:
    """One model `a`, with a copy on each device."""
    made = BatchingCore(permits, Bound(bound), per_device, Retry(max_retries=3, delay=1.0))
    made.add_model("a", policy)
    made.model_ready("a", *devices, padded=False)
    return made


def put(made: BatchingCore, *costs: int, now: float = 0.0) -> Work:
    work = made.submit("a", range(len(costs)), costs, None, now)
    assert isinstance(work, Work)
    return work


def started(made: BatchingCore, now: float = 0.0) -> Batch:
    found = made.next_batch(now)
    assert found is not None
    return found


def learn(made: BatchingCore, device: str, tokens: int, seconds: float, batches: int = 1) -> None:
    """So many batches of so many tokens took so long each on a device."""
    for _ in range(batches):
        _learn(made, device, tokens, seconds)


def _learn(made: BatchingCore, device: str, tokens: int, seconds: float) -> None:
    """Other devices are held meanwhile."""
    put(made, *[1] * tokens)
    held = []
    while (batch := started(made)).device != device:
        put(made, *[1] * len(batch.entries))
        held.append(batch)
    made.complete(batch, seconds)
    for other in held:
        made.complete(other)


@pytest.mark.requirement("B6")
def test_each_device_has_a_place_and_all_share_the_permits() -> None:
    """Three devices take three batches at once, in their order; with two permits only two."""
    made = core(devices="xyz")
    put(made, 1, 1, 1, 1)
    running = [started(made) for _ in range(3)]
    assert [batch.device for batch in running] == ["x", "y", "z"]
    assert (made.next_batch(0.0), made.wake_at(0.0)) == (None, None)
    assert made.devices() == {"x": 1, "y": 1, "z": 1}
    made.complete(running[1])
    assert made.devices() == {"x": 1, "y": 0, "z": 1}
    assert started(made).device == "y"
    few = core(devices="xyz", permits=2)
    put(few, 1, 1, 1)
    assert [started(few).device, started(few).device] == ["x", "y"]
    assert few.next_batch(0.0) is None


@pytest.mark.requirement("B6")
def test_a_batch_goes_to_the_device_with_the_least_to_do_in_seconds() -> None:
    """Where each takes several at once: by the seconds that what runs there takes as measured, then by the number."""
    made = core(Policy(max_batch_size=1, max_batch_tokens=10_000), per_device=3)
    learn(made, "x", 1, 1.0)
    put(made, 900, 10, 10, 10)
    assert started(made).device == "x"
    assert [started(made).device for _ in range(3)] == ["y", "y", "y"]
    unknown = core(per_device=2)
    put(unknown, 900, 1, 1, 1)
    assert [started(unknown).device for _ in range(4)] == ["x", "y", "x", "y"]


@pytest.mark.requirement("B6")
def test_a_slow_device_has_more_to_do_by_the_same_batch() -> None:
    """What runs is weighed by the device's own cost: ten tokens on the slow one outweigh two times ten elsewhere."""
    made = core(Policy(max_batch_size=1), per_device=3)
    learn(made, "x", 1, 10.0)
    learn(made, "y", 1, 1.0, 300)
    put(made, 10, 10, 10, 10)
    assert [started(made).device for _ in range(4)] == ["x", "y", "y", "y"]
    expected = {batch.device: batch.expected for batch in made._running._active.values()}
    assert expected == {"x": pytest.approx(100.0), "y": pytest.approx(10.0, rel=0.05)}


@pytest.mark.requirement("B6")
def test_the_cost_on_a_device_is_soon_its_own() -> None:
    """Twenty batches of its own outweigh what was borrowed of the first one's fifty."""
    made = core(Policy(max_batch_size=1))
    learn(made, "x", 1, 10.0, 50)
    learn(made, "y", 1, 1.0, 20)
    put(made, 10, 10)
    assert [started(made).expected, started(made).expected < 20] == [pytest.approx(100.0), True]


@pytest.mark.requirement("B1", "B6")
def test_models_share_each_of_the_devices() -> None:
    """With two models on two devices each runs one batch of each turn; the one served less goes first."""
    made = core(Policy(max_batch_size=4))
    made.add_model("b", Policy(max_batch_size=4))
    made.model_ready("b", "x", "y", padded=False)
    for name in "ab":
        for _ in range(3):
            made.submit(name, range(4), [1] * 4, None, 0.0)
    first, second = started(made), started(made)
    assert {first.model, second.model} == {"a", "b"}
    made.complete(first, 1.0)
    third = started(made)
    assert (third.device, third.model) == (first.device, first.model)
    made.complete(second, 1.0)
    assert started(made).device == second.device


@pytest.mark.requirement("B13")
def test_what_failed_is_tried_elsewhere_where_there_is_room() -> None:
    """The same batch after a back-off, and halves at once; on the same device where the others are taken."""
    made = core(Policy(max_batch_size=2))
    put(made, 1, 1)
    made.fail(started(made), Fault.TRANSIENT, 0.0)
    again = started(made, 1.0)
    assert (again.device, again.attempt) == ("y", 1)
    made.fail(again, Fault.MEMORY, 1.0)
    first, second = started(made, 1.0), started(made, 1.0)
    assert (first.device, second.device) == ("x", "y")
    made.complete(second)
    put(made, 1, 1, now=2.0)
    other = started(made, 2.0)
    assert other.device == "y"
    made.fail(first, Fault.TRANSIENT, 2.0)
    made.cancel(other.entries[0][2])
    assert started(made, 4.0).device == "x"


@pytest.mark.requirement("B13")
def test_memory_that_ran_out_on_one_device_makes_batches_smaller_there_alone() -> None:
    """Eight tokens did not fit on x: four go there from then on, and eight to y."""
    made = core(Policy(max_batch_size=8))
    put(made, *[1] * 8)
    work = put(made, *[1] * 8)
    first, second = started(made), started(made)
    made.complete(second, 1.0)
    made.cancel(first.entries[0][2])
    made.fail(first, Fault.MEMORY, 0.0)
    made.cancel(work)
    put(made, *[1] * 16)
    assert [(batch.device, batch.tokens) for batch in (started(made), started(made))] == [("x", 4), ("y", 8)]


@pytest.mark.requirement("A1")
def test_the_latency_target_holds_on_each_device() -> None:
    """One second at most: x computes a hundred tokens in it, and y, ten times slower, ten."""
    made = core(Policy(max_batch_size=256, sizing=Sizing(initial=8, target=1.0)), bound=10_000)
    speeds = {"x": 100, "y": 10}
    put(made, *[1] * 8000)
    running = [started(made), started(made)]
    for _ in range(200):
        batch = running.pop(0)
        made.complete(batch, batch.tokens / speeds[batch.device])
        running.append(started(made))
    sizes = {batch.device: batch.tokens for batch in running}
    assert 80 <= sizes["x"] <= 100
    assert 8 <= sizes["y"] <= 10
    assert made.batch_size("a") == sizes["x"]


@pytest.mark.requirement("B7")
def test_a_refusal_reckons_with_all_devices_that_may_work_at_once() -> None:
    """Of speeds 10 and 30 tokens a second 80 tokens take two seconds; with one permit four, at their mean of 20."""
    made = core(bound=80)
    learn(made, "x", 1, 0.1)
    learn(made, "y", 1, 1 / 30, 300)
    put(made, *[1] * 80)
    refusal = made.submit("a", [0], [1], None, 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == pytest.approx(2.0, rel=0.05)
    assert made.tokens_per_second("a") == pytest.approx(40.0, rel=0.05)
    made.permits = 1
    assert made.tokens_per_second("a") == pytest.approx(20.0, rel=0.05)
    made.permits = 9
    assert made.retry_after() == pytest.approx(2.0, rel=0.05)


def test_a_device_that_ran_nothing_is_taken_to_be_like_the_first() -> None:
    """In speed, and in what its memory holds: what a self-test took is known of all of them."""
    made = core(Policy(max_batch_size=64, max_batch_mib=10.0))
    made.learn_memory("a", 10, 10.0)
    put(made, *[1] * 40)
    assert [(batch.device, batch.tokens) for batch in (started(made), started(made))] == [("x", 10), ("y", 10)]
    one = core(devices="x", bound=1000)
    three = core(devices="xyz", bound=1000)
    for each in (one, three):
        learn(each, "x", 1, 0.1)
    assert three.tokens_per_second("a") == pytest.approx(3 * (one.tokens_per_second("a") or 0.0))


def broken(made: BatchingCore, device: str, now: float) -> None:
    """A batch fails on a device, those on others are well."""
    put(made, 1, 1, now=now)
    for batch in [started(made, now), started(made, now)]:
        if batch.device == device:
            made.fail(batch, Fault.PERMANENT, now, "an ECC error")
        else:
            made.complete(batch, 1.0, now=now)


@pytest.mark.requirement("H2")
def test_a_device_on_which_a_model_fails_gets_nothing_and_the_others_serve() -> None:
    """After three failures on x all goes to y, and the door stays open; after 5 s one batch tries x again."""
    made = core(Policy(max_batch_size=1, breaking=Breaking(window=3, at_least=3, delay=5.0)))
    for now in TIMES_OF_FAILURE:
        broken(made, "x", now)
    assert (made.failing_on("x"), made.failing_on("y")) == (["a"], [])
    assert (made.breaker_of("a")[0].value, made.reserve("a", 1, 3.0)) == ("closed", None)
    made.release("a", 1)
    put(made, 1, 1, now=3.0)
    well = started(made, 3.0)
    assert (well.device, made.next_batch(3.0), made.wake_at(3.0)) == ("y", None, 7.0)
    probe = started(made, 7.0)
    assert probe.device == "x"
    made.complete(probe, 1.0, now=8.0)
    assert made.failing_on("x") == []


@pytest.mark.requirement("H2")
def test_a_model_that_fails_on_all_devices_is_refused() -> None:
    """With the cause, until the first of them is to be tried again."""
    made = core(Policy(max_batch_size=1, breaking=Breaking(window=3, at_least=3, delay=5.0)))
    for now in TIMES_OF_FAILURE:
        broken(made, "x", now)
    for now in (3.0, 3.5):
        put(made, 1, now=now)
        made.fail(started(made, now), Fault.PERMANENT, now, "on y")
    assert made.breaker_of("a")[0].value == "open"
    refusal = made.reserve("a", 1, 4.0)
    assert refusal is not None
    assert (refusal.retry_after, refusal.failing) == (3.0, True)
    assert "an ECC error" in refusal.reason


@pytest.mark.requirement("B2")
def test_a_queue_may_be_full_for_one_device_alone() -> None:
    """Not idle enough to dispatch at once: five inputs fill a batch of y, whose memory is small, and none of x."""
    made = core(Policy(max_batch_size=8, max_wait=9.0, dispatch_when_idle=False))
    put(made, *[1] * 8)
    put(made, *[1] * 8)
    first, second = started(made), started(made)
    made.complete(first, 1.0)
    made.cancel(second.entries[0][2])
    made.fail(second, Fault.MEMORY, 0.0)
    put(made, *[1] * 5)
    batch = started(made)
    assert (batch.device, batch.tokens) == ("y", 4)
    assert made.next_batch(0.0) is None


def test_the_age_of_batches_is_known_by_device() -> None:
    """Of the oldest on each that runs any."""
    made = core(devices="xyz", per_device=2)
    put(made, 1, now=1.0)
    started(made, 1.0)
    put(made, 1, now=2.0)
    started(made, 2.0)
    assert dict(made.running_since("a")) == {"x": 1.0, "y": 2.0}
    assert made.oldest_running("a") == 1.0


def test_a_line_tells_the_seconds_of_a_batch() -> None:
    """None seen: 0. One size: in proportion. Several: on the line, and never below 0."""
    line = CostLine()
    assert line.seconds(10) == 0.0
    line.learn(10, 1.0)
    assert line.seconds(20) == pytest.approx(2.0)
    line.learn(20, 1.5)
    assert line.seconds(30) == pytest.approx(2.0)
    falling = CostLine()
    falling.learn(100, 1.0)
    falling.learn(200, 3.0)
    assert falling.seconds(10) == 0.0
