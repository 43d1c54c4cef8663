"""Values as text for a terminal or a program: JSON, YAML, a table."""

import json
from collections.abc import Sequence
from typing import Any

import yaml


def text_of(value: Any, form: str) -> str:
    """`value` as `json` or `yaml`."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    dumped: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return dumped.rstrip("\n")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under the first, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
