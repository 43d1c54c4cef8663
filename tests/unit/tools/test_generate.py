"""The generated files are what the contract gives, and a stale one is seen."""

from pathlib import Path

import pytest

from embedfleet_operator.status.causes import CAUSES
from embedfleet_operator.status.states import STATES
from tools import generate, operations


def test_generated_files_are_up_to_date() -> None:
    """The CRD, the chart's copy and the reference page in the tree are what `make generate` writes."""
    assert generate.stale(generate.ROOT) == []


def test_written_files_are_not_stale(tmp_path: Path) -> None:
    """What is missing is stale, what was written is not, and an edit by hand is seen."""
    assert set(generate.stale(tmp_path)) == set(generate.generated())
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == []
    page = tmp_path / "docs" / "reference.md"
    page.write_text(page.read_text(encoding="utf-8") + "by hand\n", encoding="utf-8")
    assert generate.stale(tmp_path) == [Path("docs/reference.md")]


def test_check_writes_nothing_and_fails_on_a_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` on a tree without the files names each of them, exits 1 and leaves the tree as it was."""
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err.count("make generate") == len(generate.generated())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.requirement("O4")
def test_the_operations_page_keeps_what_people_wrote() -> None:
    """The tables between the marks are made anew, the text around them stays; every reason has its row."""
    made = operations.page(None)
    written = (
        made.replace("# Operations", "# My own words").replace("| `InsufficientGPU` |", "| gone |") + "\nThe end.\n"
    )
    again = operations.page(written)
    assert again == made.replace("# Operations", "# My own words") + "\nThe end.\n"
    assert [reason for reason in (*CAUSES, *STATES) if f"| `{reason}` |" not in made] == []


def test_the_reference_names_every_field() -> None:
    """Each field of the manifest stands on the reference page under the path of its group."""
    page = generate.generated()[Path("docs/reference.md")]
    for field in (
        "`spec.models[].source.huggingFace`",
        "| `maxBatchTokens` |",
        "| `revision` | string",
        "must be unique",
    ):
        assert field in page
