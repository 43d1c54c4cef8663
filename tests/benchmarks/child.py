"""A process that measures when asked: one JSON object a line on its standard input, one a line in answer.

Load generators and in-process subjects live in processes of their own, so that neither shares an interpreter with what
it is compared to; between two questions they sleep.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
Handler = Callable[..., dict[str, Any]]


class ChildFailed(Exception):
    """A measuring process could not do what it was asked; the message is its traceback."""


class Child:
    """A running `python -m MODULE ARGUMENTS`, by this interpreter or another; a context manager that ends it."""

    def __init__(
        self, module: str, *arguments: str, python: str = sys.executable, more: Mapping[str, str] | None = None
    ) -> None:
        """`more` is added to the environment."""
        self._module = module
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **(more or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer of handler `do`; blocks until it is there. Raises `ChildFailed`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"{self._module} ended with status {self._process.wait()} when asked for {do!r}")
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise ChildFailed(f"{self._module} failed when asked for {do!r}:\n{answer['failure']}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def answer_questions(handlers: Mapping[str, Handler]) -> None:
    """The child's side: answer until standard input ends. What libraries print goes to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            question = json.loads(line)
            try:
                answer = handlers[question.pop("do")](**question)
            except Exception:  # noqa: BLE001  # whatever went wrong is for the asking process to show
                answer = {"failure": traceback.format_exc()}
            out.write(json.dumps(answer) + "\n")
            out.flush()
