"""bandit finds nothing of medium severity or above in what is distributed; what it passes over has its reason."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ROOT

pytestmark = pytest.mark.requirement("S6")
SOURCES = ("sdk/src", "images/server/src", "operator/src")
_REASON = re.compile(r"# nosec B\d{3}(,B\d{3})*  # \S+")


def _findings(*sources: str | Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "bandit", "-q", "-ll", "-f", "json", "-r", *map(str, sources)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["errors"] == [], done.stderr
    assert report["metrics"]["_totals"]["loc"] > 0
    found: list[dict[str, Any]] = report["results"]
    return found


def test_nothing_of_medium_severity_is_found() -> None:
    """In the SDK, the server and the operator."""
    assert [f"{one['filename']}:{one['line_number']} {one['issue_text']}" for one in _findings(*SOURCES)] == []


def test_what_is_wrong_would_be_found(tmp_path: Path) -> None:
    """A pickle that is read, and a shell, are told of."""
    (tmp_path / "wrong.py").write_text("import pickle, os\npickle.loads(b'')\nyaml = eval('1')\n")
    assert {one["test_id"] for one in _findings(tmp_path)} == {"B301", "B307"}


def test_what_is_passed_over_has_a_reason() -> None:
    """Each `nosec` names the test, and says why behind it."""
    lines = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for source in SOURCES
        for file in sorted((ROOT / source).rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if "# nosec" in line
    ]
    assert lines
    assert [line for line in lines if not _REASON.search(line)] == []
