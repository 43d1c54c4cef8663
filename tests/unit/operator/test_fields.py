"""Every field of the contract is tried (tests/support/fields.py), and each is seen in what is rendered."""

from typing import Any

import pytest

from embedfleet.api import EmbeddingService
from embedfleet_operator import render
from tests.support import fields
from tests.support.fields import Case, cases
from tests.support.operators import manifest_of
from tests.unit.operator.regenerate import SITE

OPERATORS_ALONE = {".rollout.strategy", ".rollout.waitForCapacitySeconds"}
"""Fields by which the operator decides; what it decides is rendered."""


def rendered(spec: dict[str, Any]) -> list[render.Object]:
    """The objects of a service with this spec."""
    return render.objects(EmbeddingService.model_validate(manifest_of("semantic") | {"spec": spec}), SITE)


@pytest.mark.requirement("O1")
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.path)
def test_each_field_is_seen_in_what_is_rendered(case: Case) -> None:
    """Setting a field, and changing it, changes what is rendered; but for the two that the operator decides by."""
    first, second = (rendered(spec) for spec in case.steps)
    changes = [rendered(case.before) != first, first != second]
    assert changes == [case.path not in OPERATORS_ALONE] * 2


def test_a_field_without_values_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new text in the schema is named until somebody gives it values."""
    monkeypatch.setattr(fields, "VALUES", fields.VALUES.copy())
    del fields.VALUES[".weights.endpoint"]
    with pytest.raises(LookupError, match=r"spec\.weights\.endpoint, a string"):
        cases()
