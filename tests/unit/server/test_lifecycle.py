"""The states of a server: a drain once begun goes to its end."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.app.leaving import lame_duck
from embedfleet_server.app.lifecycle import TRANSITIONS, Event, LameDuck, Lifecycle, State
from embedfleet_server.engine.errors import ShuttingDown
from tests.support import virtual_time

pytestmark = pytest.mark.requirement("S4")
TIMES = LameDuck(propagation=15, quiet=5, most=30)
WAY = (Event.STOP, Event.ALONE, Event.DRAINED)


def is_open(life: Lifecycle) -> bool:
    try:
        life.check_open()
    except ShuttingDown:
        return False
    return True


def test_the_way_of_a_server() -> None:
    """A stop tells clients to leave, the last one gone closes, the end of the drain exits; open until it closes."""
    life = Lifecycle()
    seen = [(life.state, life.is_leaving, is_open(life))]
    for event in WAY:
        assert life.on(event)
        seen.append((life.state, life.is_leaving, is_open(life)))
    assert seen == [
        (State.SERVING, False, True),
        (State.LAME_DUCK, True, True),
        (State.CLOSING, True, False),
        (State.EXIT, True, False),
    ]


@given(st.lists(st.just(Event.STOP), max_size=5))
def test_further_signals_change_nothing(signals: list[Event]) -> None:
    """However many signals come at whatever stage of the drain, the state stays."""
    life = Lifecycle()
    for event in WAY:
        life.on(event)
        state = life.state
        assert not any(life.on(signal) for signal in signals)
        assert life.state is state


def test_states_only_go_forward() -> None:
    """No row of the table leads back."""
    order = list(State)
    assert all(order.index(end) >= order.index(start) for (start, _), end in TRANSITIONS.items())


def test_a_drain_that_was_never_begun_is_a_bug() -> None:
    """An event without a place in the table is not passed over."""
    with pytest.raises(AssertionError, match="This is a bug"):
        Lifecycle().on(Event.DRAINED)


@pytest.mark.parametrize(
    ("last_request", "now", "rest"),
    [
        (None, 100, 15),  # nobody ever came: routing needs its time all the same
        (90, 100, 15),
        (112, 113, 4),  # quiet would be at 117, propagation at 115
        (101, 115, 0),
        (114, 115, 4),
        (128, 129, 1),  # the longest time wins over quiet
        (131, 131, -1),
    ],
)
def test_when_a_lame_duck_may_end(last_request: float | None, now: float, rest: float) -> None:
    """Begun at 100: once routing has had its time and it has been quiet, at the latest when the time is up."""
    assert TIMES.rest(100, last_request, now) == rest


def test_outside_a_pod_it_is_over_at_once() -> None:
    """With all times 0 there is nothing to wait for, even under load."""
    assert LameDuck().rest(100, 100, 100) == 0


@pytest.mark.parametrize(("every", "count", "ends"), [(0, 0, 15), (3, 3, 15), (4, 3, 17), (4, 5, 25), (4, 100, 30)])
def test_requests_keep_a_lame_duck_serving(every: float, count: int, ends: float) -> None:
    """On a virtual clock: each request puts the end off until 5 s after it, and never past 30 s."""

    async def main() -> float:
        life, loop = Lifecycle(), asyncio.get_running_loop()
        for number in range(1, count + 1):
            loop.call_later(every * number, lambda: life.came(loop.time()))
        await lame_duck(life, TIMES)
        assert life.state is State.CLOSING
        return loop.time()

    assert virtual_time.run(main()) == pytest.approx(ends)


def test_a_second_drain_does_not_begin_anew() -> None:
    """Whoever asks again finds it under way."""

    async def main() -> None:
        life = Lifecycle()
        await lame_duck(life, LameDuck())
        await lame_duck(life, TIMES)
        assert life.state is State.CLOSING

    virtual_time.run(main())
