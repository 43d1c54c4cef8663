"""With CI=true a skip that set-up could cure is a failure; one that names the hardware stays a skip."""

import pytest

from tests import conftest


def skipped(reason: str) -> pytest.TestReport:
    place = ("tests/a.py", 1, f"Skipped: {reason}")
    return pytest.TestReport("tests/a.py::test_x", ("tests/a.py", 1, "test_x"), {}, "skipped", place, "call")


@pytest.mark.parametrize(
    ("reason", "environ", "outcome"),
    [
        ("helm is not installed", {"CI": "true"}, "failed"),
        ("hardware: no GPU", {"CI": "true"}, "skipped"),
        ("helm is not installed", {}, "skipped"),
        ("helm is not installed", {"CI": "false"}, "skipped"),
    ],
)
def test_skip_is_judged(reason: str, environ: dict[str, str], outcome: str) -> None:
    """Only CI=true makes a failure of a skip, and never of one that the hardware is the reason for."""
    assert conftest.judged(skipped(reason), environ).outcome == outcome


def test_the_failure_names_the_reason() -> None:
    """Who reads the failure sees why the test was skipped."""
    assert "helm is not installed" in str(conftest.judged(skipped("helm is not installed"), {"CI": "true"}).longrepr)
