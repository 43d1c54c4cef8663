"""`python -m embedfleet_server.reference --model DIR`: the reference rows that a model must give at each load.

Computed by plain sentence-transformers in float32 on the CPU and written beside the weights. Exit status 0: written;
1: the model cannot be served, or the file cannot be written.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from embedfleet_server.app import logs


def main(arguments: Sequence[str]) -> int:
    """Compute and write; returns the exit status."""
    given = _parser().parse_args(arguments)
    from embedfleet_server.models.problems import ModelProblem

    try:
        print(f"wrote {_write(given.model.expanduser(), given.task, given.output)}")
    except (ModelProblem, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _write(directory: Path, task: str | None, output: Path | None) -> Path:
    import torch

    from embedfleet_server.models import reference
    from embedfleet_server.models.device import Placement
    from embedfleet_server.models.loading import load_plain
    from embedfleet_server.models.safety import check
    from embedfleet_server.models.store import Weights
    from embedfleet_server.models.tasks import task_of

    check(directory)
    found = task_of(directory, task)  # type: ignore[arg-type]  # one of the choices
    loaded = load_plain(Weights(directory, None), Placement("cpu", torch.float32), found)
    file = output or directory / reference.FILE
    reference.write(reference.compute(loaded.encoder, found), file)
    return file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m embedfleet_server.reference", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="a sentence-transformers directory, or a snapshot in a weight store")
    add("--task", choices=("Dense", "Sparse", "MultiVector", "Rerank"), help="as spec.models[].task (the files' own)")
    add("--output", type=Path, help="the file to write (embedfleet-reference.json in the model's directory)")
    return parser


if __name__ == "__main__":
    logs.configure(logging.INFO)
    sys.exit(main(sys.argv[1:]))
