"""Print the requirement rows of docs/requirements.md, the tests that show each, and the rows that have none."""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "docs" / "requirements.md"
_ROW = re.compile(r"^\| (?P<id>[A-Z]\d+) \| (?P<what>.*) \|$", re.MULTILINE)
_WIDTH = 72
_COLLECT_QUIETLY = ["--collect-only", "-p", "no:terminal", "-o", "addopts=--import-mode=importlib", str(ROOT / "tests")]


class Collector:
    """A pytest plugin that keeps the tests of each row."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take the markers of everything collected; parameters of one test count once."""
        for item in session.items:
            for marker in item.iter_markers("requirement"):
                for row in marker.args:
                    self._add(str(row), item.nodeid.partition("[")[0])

    def _add(self, row: str, test: str) -> None:
        if test not in self.tests[row]:
            self.tests[row].append(test)


def rows(page: str) -> dict[str, str]:
    """What each row says, by its number, in the order of the page."""
    return {found["id"]: found["what"] for found in _ROW.finditer(page)}


def table(rows: dict[str, str], tests: dict[str, list[str]]) -> list[str]:
    """The lines to print: each row with its tests, then the rows without any, then marks that name no row."""
    lines: list[str] = []
    for row, what in rows.items():
        lines += [f"{row:4}{len(tests.get(row, ())):4}  {what[:_WIDTH]}", *(f"{'':10}{t}" for t in tests.get(row, ()))]
    without = [row for row in rows if not tests.get(row)]
    lines += ["", f"{len(rows) - len(without)} of {len(rows)} rows have tests; none yet: {' '.join(without) or '-'}"]
    return lines + [f"no such row: {row} ({', '.join(tests[row])})" for row in unknown(rows, tests)]


def unknown(rows: Iterable[str], tests: Iterable[str]) -> list[str]:
    """The numbers that tests are marked with and no row has."""
    return sorted(set(tests) - set(rows))


def main() -> int:
    """Collect the tests without running them and print the table; exit status 1 when a mark names no row."""
    collector = Collector()
    status = pytest.main(_COLLECT_QUIETLY, [collector])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print("the tests could not be collected; see: pytest --collect-only", file=sys.stderr)
        return int(status)
    known = rows(ROWS.read_text(encoding="utf-8"))
    print(*table(known, collector.tests), sep="\n")
    return 1 if unknown(known, collector.tests) else 0


if __name__ == "__main__":
    sys.exit(main())
