"""What holds for every test: the same examples on each run, and no skip that goes unseen in continuous integration."""

import os
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import settings

pytest_plugins = ["tests.support.clusters", "tests.support.images"]
"""The fixtures of real Kubernetes clusters and images are the same for all folders, so that each is made once."""

# Derandomised: a failure is the same on every machine and on the next run. No deadline: a busy machine is no bug.
settings.register_profile("same-every-time", derandomize=True, deadline=None)
settings.load_profile("same-every-time")

# A shell has its background jobs ignore Ctrl-C, and so would tests of Ctrl-C and the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

HARDWARE = "hardware: "
"""How the reason of a skip begins that no set-up step can cure; with CI=true every other skip is a failure."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test fails where `CI` is `true`, unless the hardware is the reason."""
    return judged((yield), os.environ)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is collected."""
    return judged((yield), os.environ)


def judged(report: Report, environ: os._Environ[str] | dict[str, str]) -> Report:
    """`report`, made a failure when it is a skip that `environ` does not allow; expected failures stay as they are."""
    if not report.skipped or hasattr(report, "wasxfail") or environ.get("CI") != "true":
        return report
    reason = _reason(report)
    if not reason.startswith(HARDWARE):
        report.outcome = "failed"
        report.longrepr = f"skipped where CI=true: {reason}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return told.removeprefix("Skipped: ")
