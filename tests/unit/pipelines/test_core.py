"""The executor's decisions: which steps may begin, what may be forgotten, whose turn it is."""

import random

import pytest

from embedfleet.api.pipelines import INPUT
from embedfleet_server.pipelines.core import Graph, Line, Way
from tests.support.graphs import embed, pipeline, step

pytestmark = pytest.mark.requirement("G1")

DIAMOND = Graph.of(
    pipeline(
        step("cut", chunk={"by": "Sentences"}),
        embed("left", "cut"),
        embed("right", "cut"),
        step("both", "left", "right", concatenate={}),
        outputs=["right", "both"],
    )
)


def test_steps_with_no_path_between_them_begin_at_once() -> None:
    """Both sides of the diamond begin when its top is done, its foot only when both are."""
    way = Way(DIAMOND)
    assert way.begin() == ["cut"]
    assert way.done("cut") == ["left", "right"]
    assert way.done("right") == []
    assert way.done("left") == ["both"]
    before = way.is_over
    assert way.done("both") == []
    assert (before, way.is_over) == (False, True)


def test_what_nobody_reads_any_more_is_forgotten() -> None:
    """A value is kept until its last reader is done, and for ever when it is an output."""
    way = Way(DIAMOND)
    way.begin()
    assert way.useless("cut") == [INPUT]
    way.done("cut")
    assert way.useless("left") == []
    assert way.useless("right") == ["cut"]
    way.done("left")
    way.done("right")
    assert way.useless("both") == ["left"]


def test_after_a_failure_no_step_begins() -> None:
    """The other side may end, its readers do not begin; the way is over once nothing runs."""
    way = Way(DIAMOND)
    way.begin()
    way.done("cut")
    way.fail("left")
    before = way.is_over
    assert way.done("right") == []
    assert (before, way.is_over, way.failed) == (False, True, "left")


def test_a_step_ends_once() -> None:
    """A second end is a bug, told as one."""
    way = Way(DIAMOND)
    way.begin()
    way.done("cut")
    with pytest.raises(AssertionError, match="This is a bug"):
        way.done("cut")


@pytest.mark.parametrize("seed", range(200))
def test_every_graph_is_run_whole_and_in_order(seed: int) -> None:
    """Random graphs, steps ending in random order: each step begins once, after all that it reads, and all end."""
    rng = random.Random(seed)
    names = [f"s{number}" for number in range(rng.randint(1, 32))]
    reads = {
        name: frozenset(rng.sample([INPUT, *names[:place]], min(place + 1, rng.randint(1, 4))))
        for place, name in enumerate(names)
    }
    graph = Graph.over(reads, frozenset(rng.sample(names, rng.randint(1, len(names)))))
    way, done, kept = Way(graph), {INPUT}, {INPUT}
    running = way.begin()
    begun = [*running]
    while running:
        name = running.pop(rng.randrange(len(running)))
        assert reads[name] <= done
        assert reads[name] <= kept, "a value was forgotten before it was read"
        kept -= {*way.useless(name)}
        done.add(name)
        kept.add(name)
        new = way.done(name)
        begun += new
        running += new
    assert way.is_over
    assert sorted(begun) == sorted(names)
    assert graph.outputs <= kept


def test_at_most_so_many_are_under_way() -> None:
    """The line calls up to its limit, and one more for each that leaves."""
    line = Line(2)
    numbers = [line.come(0.0, 128) for _ in range(4)]
    assert line.next() == numbers[:2]
    assert line.next() == []
    assert (line.under_way, line.waiting) == (2, 2)
    line.leave()
    assert line.next() == [numbers[2]]


def test_who_walks_in_overtakes_nobody() -> None:
    """There has to be a place, and nobody who waits for one."""
    line = Line(1)
    assert line.walk_in()
    assert not line.walk_in()
    waiting = line.come(0.0, 128)
    line.leave()
    assert not line.walk_in()
    assert line.next() == [waiting]
    line.leave()
    assert line.give_up(line.come(0.0, 128))
    assert line.walk_in()
    assert (line.under_way, line.waiting) == (1, 0)


def test_priority_goes_first_and_age_overtakes_it() -> None:
    """HIGH goes before NORMAL of the same moment, and not before what has waited two seconds."""
    line = Line(1)
    normal, high = line.come(0.0, 128), line.come(0.0, 192)
    old, young = line.come(10.0, 128), line.come(12.0, 192)
    called = []
    for _ in range(4):
        called += line.next()
        line.leave()
    assert called == [high, normal, old, young]


def test_who_gives_up_is_not_called() -> None:
    """It is told apart from one that was called in that very moment, who has a place to leave."""
    line = Line(1)
    first, second, third = (line.come(0.0, 128) for _ in range(3))
    assert line.next() == [first]
    assert line.give_up(second)
    assert not line.give_up(first)
    line.leave()
    assert line.next() == [third]
    line.leave()
    with pytest.raises(AssertionError, match="This is a bug"):
        line.leave()
