"""What a warm-up runs, in what order, and what it tells: all of it decided without a clock."""

import math

import pytest

from embedfleet_server.batching.warm_up import Costs, Shape, WarmUp, ladder

START, EACH = 0.010, 0.0001
FREE = math.inf


def run(plan: WarmUp, *, start: float = START, each: float = EACH, fitting: float = FREE) -> list[Shape]:
    """All that it asks for, on a device with a start and seconds for each token."""
    ran = []
    while (shape := plan.next(fitting)) is not None:
        ran.append(shape)
        plan.ran(shape, start + each * shape.tokens)
    return ran


def shapes(*pairs: tuple[int, int]) -> list[Shape]:
    return [Shape(*pair) for pair in pairs]


def test_the_most_telling_batches_come_first() -> None:
    """One short text, eight, then 512, 4,096 and 16,384 tokens at each length that the model takes, 64 first."""
    assert ladder(8192, 4096, 1 << 20) == shapes(
        (1, 16), (8, 16),
        (8, 64), (32, 16), (2, 256), (1, 1024),
        (64, 64), (256, 16), (16, 256), (4, 1024),
        (256, 64), (1024, 16), (64, 256), (16, 1024),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("most", "lengths"),
    [(8192, {16, 64, 256, 1024}), (1024, {16, 64, 256, 1024}), (512, {16, 64, 256, 512}), (256, {16, 64, 256}),
     (200, {16, 64, 200}), (16, {16}), (5, {5})],
)  # fmt: skip
def test_no_text_is_longer_than_the_model_takes(most: int, lengths: set[int]) -> None:
    """Its own limit is the longest length, up to 1,024."""
    assert {shape.length for shape in ladder(most, 256, 16384)} == lengths


def test_no_batch_is_larger_than_traffic_may_form() -> None:
    """With at most 4 inputs and 300 tokens; a text that is longer goes alone, as in traffic. Each comes once."""
    found = ladder(512, 4, 300)
    assert found == shapes((1, 16), (4, 16), (4, 64), (1, 256), (1, 512))
    assert ladder(512, 1, 1) == shapes((1, 16), (1, 64), (1, 256), (1, 512))


def test_the_figures_of_a_device_are_found_exactly() -> None:
    """10 ms to start and 0.1 ms a token: the start, and the speed of the largest batch of each length."""
    plan = WarmUp(ladder(512, 256, 16384), 1000.0)
    run(plan)
    found = plan.costs()
    assert found.start_seconds == pytest.approx(START)
    assert found.tokens_per_second == pytest.approx(dict.fromkeys((16, 64, 256, 512), 4096 / 0.4196))
    assert list(found.tokens_per_second) == [16, 64, 256, 512]
    assert found.reason == "larger batches would hardly have been faster"
    assert dict(plan.points()[:3]) == pytest.approx({16: 0.0116, 128: 0.0228, 512: 0.0612})


@pytest.mark.parametrize(
    ("start", "each", "largest"),
    [(0.003, 2e-7, 16384), (0.003, 2e-6, 16384), (0.010, 1e-4, 4096), (0.002, 1e-4, 512), (0.0, 1e-4, 128)],
)
def test_larger_batches_are_run_only_as_long_as_the_start_counts(start: float, each: float, largest: int) -> None:
    """Where it is a tenth of a batch's time, a larger one could save no more: a GPU goes to the end, a CPU does not."""
    plan = WarmUp(ladder(512, 256, 16384), 1000.0)
    ran = run(plan, start=start, each=each)
    assert max(shape.tokens for shape in ran) == max(largest, 512)
    assert max(shape.tokens for shape in ran if shape.length == 16) == min(largest, 4096)
    assert {shape.length for shape in ran} == {16, 64, 256, 512}
    assert (plan.costs().reason == "all of it was run") == (largest == 16384)


def test_of_two_runs_of_a_quick_batch_the_shorter_counts() -> None:
    """A forward below 0.1 s is run once more, since the first of its kind pays for what is prepared once."""
    plan = WarmUp(shapes((1, 16), (8, 16)), 10.0)
    for seconds in (0.09, 0.01, 0.02, 0.05):
        shape = plan.next(FREE)
        assert shape is not None
        plan.ran(shape, seconds)
    assert plan.next(FREE) is None
    assert plan.points() == [(16, 0.01), (128, 0.02)]
    assert plan.spent == pytest.approx(0.17)
    slow = WarmUp(shapes((1, 16), (8, 16)), 10.0)
    assert run(slow, start=0.1) == shapes((1, 16), (8, 16))


def test_what_would_not_be_done_in_time_is_left_out() -> None:
    """At 0.1 ms a token: the two batches of 4,096 tokens that are done within 1.5 s, and none of 16,384."""
    plan = WarmUp(ladder(512, 256, 16384), 1.5)
    ran = run(plan)
    assert ran[-2:] == shapes((64, 64), (256, 16))
    assert plan.spent == pytest.approx(2 * (0.0116 + 0.0228 + 4 * 0.0612) + 2 * 0.4196)
    assert plan.spent <= 1.5
    assert plan.costs().reason == "the rest would not have been done within 1.5 s"
    assert set(plan.costs().tokens_per_second) == {16, 64, 256, 512}


@pytest.mark.parametrize("each", [0.00001, 0.0003, 0.002, 0.05, 1.0])
@pytest.mark.parametrize("start", [0.0, 0.003, 0.5])
def test_the_time_is_kept_on_any_device(start: float, each: float) -> None:
    """But for the first forward, which is run whatever it takes: no larger than the self-test's."""
    plan = WarmUp(ladder(512, 256, 16384), 1.5)
    run(plan, start=start, each=each)
    assert plan.spent <= max(1.5, start + 16 * each) + 1e-9


def test_a_model_that_is_too_slow_for_more_tells_one_speed() -> None:
    """Its first forward took longer than all may: no start is known."""
    plan = WarmUp(ladder(512, 256, 16384), 1.5)
    assert run(plan, start=2.0) == shapes((1, 16))
    reason = "the rest would not have been done within 1.5 s"
    assert plan.costs() == Costs({16: 16 / plan.spent}, None, plan.spent, reason)
    assert plan.spent == pytest.approx(2.0016)


def test_what_has_no_room_in_memory_is_left_out() -> None:
    """Of at most 512 tokens four lengths are measured; the very first forward is run however tight memory is."""
    plan = WarmUp(ladder(512, 256, 16384), 1000.0)
    assert max(shape.tokens for shape in run(plan, fitting=512)) == 512
    assert plan.costs().reason == "larger batches would not have had room in memory"
    assert run(WarmUp(ladder(512, 256, 16384), 1000.0), fitting=1) == shapes((1, 16), (1, 16))
    tight = WarmUp(ladder(512, 256, 16384), 1000.0)
    assert tight.next(FREE) == Shape(1, 16)
    tight.failed(0.1)
    assert tight.next(8) is None


def test_a_forward_that_failed_costs_time_and_tells_nothing() -> None:
    """Of two batches the first gave nothing: the second is what is known."""
    plan = WarmUp(shapes((1, 16), (8, 16)), 1.0)
    assert plan.next(FREE) == Shape(1, 16)
    plan.failed(0.5)
    assert run(plan, start=0.2) == shapes((8, 16))
    assert plan.spent == pytest.approx(0.5 + 0.2 + 128 * EACH)
    assert set(plan.costs().tokens_per_second) == {16}


def test_an_end_is_an_end_and_says_why() -> None:
    """Not even what was to be run again is run; each reason is told once."""
    plan = WarmUp(shapes((1, 16), (8, 16)), 1.0)
    shape = plan.next(FREE)
    assert shape is not None
    plan.ran(shape, 0.01)
    plan.say("it rained")
    plan.end("it rained")
    assert plan.next(FREE) is None
    assert plan.costs().reason == "it rained"


def test_a_clock_that_stood_still_tells_no_speed() -> None:
    """Forwards of no time at all."""
    plan = WarmUp(shapes((1, 16), (8, 16)), 1.0)
    run(plan, start=0.0, each=0.0)
    assert plan.costs().tokens_per_second == {}
    assert plan.costs().start_seconds == 0.0


def test_a_start_is_neither_below_nothing_nor_above_what_one_forward_took() -> None:
    """Where many texts took more than their part, or less time than one."""
    for seconds, start in (((0.01, 0.5), 0.0), ((0.05, 0.04), 0.05)):
        plan = WarmUp(shapes((1, 16), (8, 16)), 10.0)
        for shape, took in zip(plan.shapes.copy(), seconds, strict=True):
            plan.ran(shape, took)
        assert plan.costs().start_seconds == pytest.approx(start)
