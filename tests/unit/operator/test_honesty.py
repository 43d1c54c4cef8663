"""The judge of what operators told in the integration tests: it sees a status of another generation."""

import pytest

from tests.support import honesty


@pytest.mark.requirement("O4")
@pytest.mark.parametrize(("observed", "ready", "honest"), [(2, 2, True), (1, 2, False), (2, 1, False), (1, 1, False)])
def test_a_status_about_an_older_spec_is_seen(observed: int, ready: int, honest: bool) -> None:
    """The status and each of its conditions must name the generation that the object had when it was written."""
    conditions = [{"type": "Ready", "status": "True", "observedGeneration": ready}]
    service = {"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}}
    assert honesty.is_honest(service) is honest


@pytest.mark.requirement("O4")
def test_only_what_an_operator_wrote_is_judged() -> None:
    """A user's own patch of the status, or one that was refused, says nothing of the operator."""
    mine = {
        "verb": "patch",
        "requestURI": "/x/status?fieldManager=embedfleet-operator",
        "responseStatus": {"code": 200},
    }
    assert honesty.is_taken(mine)
    assert not honesty.is_taken(mine | {"requestURI": "/x/status?fieldManager=kubectl-edit"})
    assert not honesty.is_taken(mine | {"responseStatus": {"code": 409}})
