"""The faults that `make mutants` puts in."""

import ast

import pytest

from tools.mutant_tests import CORE, MODULES
from tools.mutants import all_mutants, sample, table
from tools.mutating import Mutant, mutants_of, mutated


def changes(source: str) -> set[tuple[str, str]]:
    return {(mutant.before, mutant.after) for mutant in mutants_of(source, "m")}


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("a < b", {("a < b", "a <= b"), ("a < b", "pass")}),
        ("x = a + b * c", {("a + b * c", "a - b * c"), ("b * c", "b / c")}),
        ("x = a and not b", {("a and (not b)", "a or not b"), ("not b", "b")}),
        ("x = 3", {("3", "4"), ("3", "2")}),
        ("x = 0.5, 0.0", {("0.5", "1.0"), ("0.0", "1.0")}),
        ("x = True", {("True", "False")}),
        ("x = min(a)", {("min(a)", "max(a)")}),
        ("x.y = z", {("x.y = z", "pass")}),
        ("x += y", {("x += y", "x -= y"), ("x += y", "pass")}),
        ("for x in y:\n    break", {("break", "continue")}),
        ("def f():\n    return x", {("return x", "return None")}),
        ("x = [y for y in z if y]", {("for y in z if y", "for y in z")}),
    ],
)
def test_each_kind_of_fault(source: str, faults: set[tuple[str, str]]) -> None:
    """What is written, and what stands in its place."""
    assert changes(source) == faults


@pytest.mark.parametrize("source", ['"doc"', "def f(x: 'a' = y) -> 3: pass", "@d(1)\nclass A: pass", "assert 1 < 2",
                                    "def f():\n    return None", "x = 'text'"])  # fmt: skip
def test_what_decides_nothing_is_left_alone(source: str) -> None:
    """Texts, annotations, decorators, assertions, and a return of nothing."""
    assert changes(source) == set()


def test_every_mutant_of_the_core_differs_in_one_place_and_has_a_name_of_its_own() -> None:
    """And all of them compile; to be found again, each is called otherwise."""
    mutants = all_mutants()
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    for name in ("admission", "isolate"):
        source = (CORE / f"{name}.py").read_text("utf-8")
        was = ast.unparse(ast.parse(source)).splitlines()
        for mutant in mutants_of(source, name):
            tree = mutated(source, mutant.number)
            compile(tree, name, "exec")
            now = ast.unparse(tree).splitlines()
            assert sum(a != b for a, b in zip(was, now, strict=True)) == 1


def test_a_sample_is_the_same_each_time_and_in_proportion_to_the_files() -> None:
    """A tenth of all is a tenth of each file."""
    mutants = all_mutants()
    drawn = sample(mutants, len(mutants) // 10, 4)
    assert drawn == sample(mutants, len(mutants) // 10, 4) != sample(mutants, len(mutants) // 10, 5)
    for name in MODULES:
        of, own = (sum(mutant.file == name for mutant in some) for some in (mutants, drawn))
        assert own == pytest.approx(of / 10, abs=0.6)


def test_the_table_counts_killed_ones_by_file() -> None:
    """A mutant without a cause of death survived."""
    one, other = (Mutant(name, 0, "", "a", "b", 1, 1, "a") for name in ("x", "y"))
    assert table([(one, "failed"), (one, "slow"), (one, ""), (other, "")])[2:] == [
        "| x | 3 | 2 | 1 | 66.7% |",
        "| y | 1 | 0 | 0 | 0.0% |",
        "| **all** | 4 | 2 | 1 | 50.0% |",
    ]
