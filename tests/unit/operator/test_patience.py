"""A pod that does not answer is asked again, and not at every pass."""

from embedfleet_operator.patience import Patience


def test_a_silent_pod_is_asked_later_and_later() -> None:
    """Each silence doubles the wait, from a second to a minute."""
    patience, now, waits = Patience(), 0.0, []
    for _ in range(8):
        patience.silent("p", "1", now)
        began = now
        while not patience.may_ask("p", "1", now):
            now += 1
        waits.append(now - began)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_pod_that_has_changed_is_asked_at_once() -> None:
    """A pod of another version (it has become ready, say) is worth a request, and its waits begin anew."""
    patience = Patience()
    for now in (0.0, 10.0, 20.0):
        patience.silent("p", "1", now)
    assert not patience.may_ask("p", "1", 21.0)
    assert patience.may_ask("p", "2", 21.0)
    patience.silent("p", "2", 21.0)
    assert patience.may_ask("p", "2", 22.0)


def test_an_answer_ends_it() -> None:
    """A pod that answered is asked at every pass again."""
    patience = Patience()
    patience.silent("p", "1", 0.0)
    patience.answered("p")
    assert patience.may_ask("p", "1", 0.0)


def test_pods_that_are_no_more_are_forgotten() -> None:
    """What nobody has asked for in minutes is not kept; what is still waited for is."""
    patience = Patience()
    patience.silent("gone", "1", 0.0)
    patience.silent("here", "1", 200.0)
    patience.forget(200.0)
    assert len(patience) == 1
    assert not patience.may_ask("here", "1", 200.5)
