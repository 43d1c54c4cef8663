"""The states of a server: a drain once begun goes to its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.app.lifecycle import TRANSITIONS, Event, Lifecycle, State
from embedfleet_server.engine.errors import ShuttingDown

pytestmark = pytest.mark.requirement("S4")


def test_the_way_of_a_server() -> None:
    """A stop closes, the end of the drain exits; nothing is accepted from the stop on."""
    life = Lifecycle()
    life.check_open()
    seen = [life.state]
    for event in (Event.STOP, Event.DRAINED):
        assert life.on(event)
        seen.append(life.state)
        with pytest.raises(ShuttingDown):
            life.check_open()
    assert seen == [State.SERVING, State.CLOSING, State.EXIT]


@given(st.lists(st.just(Event.STOP), max_size=5))
def test_further_signals_change_nothing(signals: list[Event]) -> None:
    """However many signals come while it closes or after, the state stays."""
    life = Lifecycle()
    for drained in (False, True):
        life.on(Event.DRAINED if drained else Event.STOP)
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
