"""The values of a processor are checked once, whole."""

from typing import Any

import pytest

from embedfleet_server import BatchProcessor, BatchProcessorConfig, Priority
from embedfleet_server.engine.errors import InvalidRequest


@pytest.mark.requirement("B15", "P5")
def test_every_wrong_value_is_named_in_one_error() -> None:
    """One ValueError says of each what it must be."""
    wrong: dict[str, Any] = {
        "max_batch_size": 0,
        "max_workers": True,
        "max_retries": 1.5,
        "max_wait_milliseconds": -1,
        "retry_delay_milliseconds": float("nan"),
        "item_timeout_seconds": 0,
        "priorities": "yes",
        "retryable": 3,
        "monitoring_window": None,
    }
    with pytest.raises(ValueError, match="BatchProcessorConfig: ") as caught:
        BatchProcessorConfig(**wrong)
    assert all(f"{name} is {value!r}: it must be" in str(caught.value) for name, value in wrong.items())
    assert "max_batch_size is 0: it must be a whole number from 1 to 4096" in str(caught.value)


@pytest.mark.requirement("B15", "B18")
def test_values_that_contradict_each_other_are_named() -> None:
    """Each value is fine by itself, and both contradictions are told."""
    with pytest.raises(ValueError, match=r"min_batch_size is 8: it must be at most.*initial_batch_size is 2"):
        BatchProcessorConfig(min_batch_size=8, max_batch_size=4, initial_batch_size=2)


@pytest.mark.requirement("P2")
@pytest.mark.parametrize(
    "none", ["initial_batch_size", "item_timeout_seconds", "target_batch_milliseconds", "retryable"]
)
def test_what_may_be_left_out_may_be_none(none: str) -> None:
    """None is a value of the optional ones."""
    left_out: dict[str, Any] = {none: None}
    assert getattr(BatchProcessorConfig(**left_out), none) is None


@pytest.mark.requirement("B8")
@pytest.mark.parametrize("priority", [-1, 256, True, "high", None, 1.0])
def test_a_priority_out_of_range_is_refused_and_the_rest_goes_on(priority: Any) -> None:
    """The names and every number from 0 to 255 are priorities; nothing else is."""
    with BatchProcessor().start(list) as processor:
        with pytest.raises(InvalidRequest, match=r"it must be 0 to 255"):
            processor.enqueue_predict(1, priority=priority)
        assert processor.enqueue_predict(1, priority=Priority.HIGH).result(5) == 1
        assert processor.enqueue_predict(2, priority=0).result(5) == 2
