"""What fits and what does not, to the last place and token; and the words and delays of refusals."""

import pytest

from embedfleet_server.batching.admission import Load, admit, delay
from embedfleet_server.batching.types import Bound


@pytest.mark.requirement("B7")
@pytest.mark.parametrize(
    ("bound", "load", "asked", "retry_after"),
    [
        (Bound(), Load(10**9, 10**9, 10**9), (10**9, 10**9), "fits"),
        (Bound(10), Load(), (10, 0), "fits"),
        (Bound(10), Load(), (11, 0), None),
        (Bound(10), Load(3, 0, 4), (3, 99), "fits"),
        (Bound(10), Load(3, 0, 4), (4, 0), 2.0),
        (Bound(None, 100), Load(), (5, 100), "fits"),
        (Bound(None, 100), Load(), (5, 101), None),
        (Bound(None, 100), Load(9, 60), (5, 40), "fits"),
        (Bound(None, 100), Load(9, 60), (5, 41), 2.0),
        (Bound(10, 100), Load(9, 0), (1, 100), "fits"),
        (Bound(10, 100), Load(0, 1), (1, 100), 2.0),
    ],
)
def test_a_bound_holds_to_the_last_input_and_token(
    bound: Bound, load: Load, asked: tuple[int, int], retry_after: float | str | None
) -> None:
    """What would pass it is refused: for ever where it passes it alone, for a while where it does beside what waits."""
    refusal = admit([(bound, load)], *asked, 2.0)
    assert (refusal.retry_after if refusal is not None else "fits") == retry_after


@pytest.mark.requirement("B7")
def test_what_never_fits_one_bound_is_too_large_though_another_is_full() -> None:
    """The service is full for now; the model's own bound is passed by the request itself: no use in another try."""
    refusal = admit([(Bound(10), Load(10)), (Bound(4), Load())], 5, 0, 2.0)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after) == ("5 inputs in one request; at most 4 fit", None)


@pytest.mark.requirement("B7")
def test_a_refusal_says_what_waits_and_what_the_bound_is() -> None:
    """In inputs, in tokens, or in both."""
    load = Load(3, 90, 1)
    said = [admit([(bound, load)], 1, 50, 1.0) for bound in (Bound(4), Bound(None, 100), Bound(4, 100))]
    assert [refusal and refusal.reason for refusal in said] == [
        "the queue is full: 4 inputs wait already; the bound is 4 inputs",
        "the queue is full: 4 inputs wait already; the bound is 100 tokens",
        "the queue is full: 4 inputs wait already; the bound is 4 inputs and 100 tokens",
    ]
    too_long = admit([(Bound(4, 40), load)], 1, 50, 1.0)
    assert too_long is not None
    assert too_long.reason == "50 tokens in one request; at most 40 fit"


@pytest.mark.requirement("B7")
@pytest.mark.parametrize(("backlog", "told"), [(None, 1.0), (0.0, 0.05), (0.06, 0.06), (59.0, 59.0), (61.0, 60.0)])
def test_the_delay_is_the_backlog_within_50_ms_and_a_minute(backlog: float | None, told: float) -> None:
    """A second where no speed is known."""
    assert delay(backlog) == told
