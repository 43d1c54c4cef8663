"""`embedfleet run`: lines of inputs in, a line of JSON for each out, in memory that does not grow with either."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO

from embedfleet.cli.embedding import lines
from embedfleet.errors import BadInput, EmbedfleetError


class InputsFailed(EmbedfleetError):
    """Some of the inputs have no outputs; their lines say why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pipeline, and of which service."""

    pipeline: str
    service: str | None
    url: str | None


def run_lines(wanted: Wanted) -> None:
    """Run standard input's lines through the pipeline, a line of standard output for each.

    A line is JSON, a string or an object with `text` (or `texts`) and `query`; any other line is itself the text.
    Raises `BadInput` for a line that is empty, no UTF-8 or JSON of another kind, `InputsFailed` once all are through
    where some failed, and whatever `connect` and `Pipeline.run` raise.
    """
    from embedfleet import connect

    with connect(wanted.service, url=wanted.url) as service:
        failed = _run(service.pipeline(wanted.pipeline).run(inputs(sys.stdin.buffer)), sys.stdout)
    if failed:
        raise InputsFailed(f"{failed} of the inputs failed; the error stands in their lines")


def inputs(given: BinaryIO) -> Iterator[Any]:
    """The input of each line."""
    for number, line in enumerate(lines(given), start=1):
        yield _input(line, number)


def _input(line: str, number: int) -> Any:
    if not line.lstrip().startswith(("{", '"')):
        return line
    try:
        made = json.loads(line)
    except ValueError as error:
        raise BadInput(f"line {number} begins like JSON and is none: {error}") from error
    return made


def _run(results: Iterator[Any], out: TextIO) -> int:
    """Write a line for each result; how many failed."""
    from embedfleet.pipelines import as_json

    failed = 0
    for result in results:
        failed += not result.ok
        out.write(json.dumps(as_json(result), ensure_ascii=False, separators=(",", ":")) + "\n")
    out.flush()
    return failed
