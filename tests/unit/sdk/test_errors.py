"""Errors as values: what they hold survives a process boundary, and their messages stay short."""

import pickle

import pytest

from embedfleet.api import Problem
from embedfleet.errors import BadInput, EmbedfleetError, InputError, ManifestInvalid, Refused, ServiceNotFound


@pytest.mark.parametrize(
    "error",
    [
        BadInput.of([InputError(3, "invalid_input", "is empty")]),
        Refused("full", "queue_full", 1.5),
        ServiceNotFound("none", ["here"], ["other"]),
        ManifestInvalid.of("a.yaml", [Problem("spec", None, "is required")]),
    ],
)
def test_errors_survive_pickling(error: EmbedfleetError) -> None:
    """A worker process can hand its error to its parent whole."""
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_bad_input_spells_out_the_first_few() -> None:
    """The message names the first five bad texts and counts the rest; `indexes` has them all."""
    error = BadInput.of([InputError(index, "invalid_input", "is empty") for index in range(9)])
    assert str(error).startswith("texts[0]: is empty; texts[1]: is empty")
    assert str(error).endswith("texts[4]: is empty; and 4 more")
    assert error.indexes == list(range(9))
