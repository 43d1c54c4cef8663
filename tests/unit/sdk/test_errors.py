"""Errors as values: what they hold survives a process boundary, and their messages stay short."""

import pickle
from pathlib import Path

import pytest

import embedfleet
from embedfleet import errors
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


def test_a_text_without_anything_in_it_is_not_shown() -> None:
    """A message shows the text's beginning where it has one."""
    error = InputError(1, "empty", "is empty")
    assert str(error.about("a text")) == "texts[1]: is empty (the text: 'a text')"
    assert str(error.about("")) == "texts[1]: is empty"


def test_a_manifest_that_is_no_type_is_refused_by_apply() -> None:
    """Before any cluster is looked for, with what makes it one."""
    with pytest.raises(BadInput, match=r"service is of type dict; .*EmbeddingService\.model_validate"):
        embedfleet.apply({"kind": "EmbeddingService"})  # type: ignore[arg-type]  # that is the mistake


def test_the_page_tells_what_to_do_about_each_error() -> None:
    """docs/sdk.md has every error that is raised in its table; the two that others descend from are in words."""
    page = (Path(__file__).parents[3] / "docs" / "sdk.md").read_text(encoding="utf-8")
    table = page[page.index("## Errors") :]
    raised = set(errors.__all__) - {"InputError", "EmbedfleetError", "ClusterError"}
    assert {name for name in raised if f"`{name}`" not in table} == set()
