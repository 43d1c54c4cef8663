"""What the documents show runs."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from embedfleet_server import BatchProcessorConfig
from examples.batch_any_function import main

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "batch-processor.md"


@pytest.mark.requirement("P1", "P2")
def test_the_example_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Everyone is answered in far fewer calls than callers, and the bad item is the only one that fails."""
    main()
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["200 results through Futures", "200 results through await"]
    assert told[2] == "the bad item alone failed: ValueError('a row is not finite')"
    assert int(told[3].split()[0]) > 5
    assert told[3].endswith("0.2% failed")


@pytest.mark.requirement("P1")
def test_the_guide_s_code_runs() -> None:
    """Its first block of Python, in a fresh interpreter."""
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert code is not None
    done = subprocess.run([sys.executable, "-c", code[1]], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.requirement("P5")
def test_the_guide_names_every_value_and_no_other() -> None:
    """The names behind `→` are those of the configuration, all of them."""
    table = GUIDE.read_text().split("## Coming from", 1)[1]
    named = set(re.findall(r"`config\.(\w+)`", table))
    assert named == {field.name for field in fields(BatchProcessorConfig)}
