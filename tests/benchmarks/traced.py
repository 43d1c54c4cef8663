"""`python -m tests.benchmarks.traced …`: the server, as `embedfleet_server` is run, with the times of its stages kept.

At its end they go to the file that `SPANS` names, as JSON: a list of [stage, thread, began, ended], in seconds of the
clock that all processes of a machine share (CLOCK_MONOTONIC).
"""

import atexit
import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

SPANS = "EMBEDFLEET_BENCHMARK_SPANS"
PARSE, TOKENIZE, FORWARD, ANSWER = "parse", "tokenize", "forward", "answer"
"""Stages; those within a forward have the names of the model's modules."""
Span = tuple[str, str, float, float]
_T = TypeVar("_T")


class Spans:
    """What ran when."""

    def __init__(self) -> None:
        self.made: list[Span] = []
        self._since: dict[tuple[int, int], float] = {}

    def timed(self, stage: str, call: Callable[..., _T]) -> Callable[..., _T]:
        """`call`, which leaves a span each time."""

        @functools.wraps(call)
        def timed(*arguments: Any, **named: Any) -> _T:
            began = time.monotonic()
            try:
                return call(*arguments, **named)
            finally:
                self._add(stage, began)

        return timed

    def follow(self, model: Any) -> None:
        """Times of a loaded model's tokenising, forwards, and modules within these."""
        model.encode = self.timed(TOKENIZE, model.encode)
        model.forward = self.timed(FORWARD, model.forward)
        if hasattr(model, "launch"):
            model.launch = self._launched(model.launch)
        for module in model._forward._modules:
            module.register_forward_pre_hook(self._begin)
            module.register_forward_hook(self._end)

    def _launched(self, launch: Callable[..., Any]) -> Callable[..., Any]:
        """A forward is from its launch until its rows are there."""

        def launched(batch: Any) -> Any:
            began, rows = time.monotonic(), launch(batch)
            if rows is None:
                return None

            def waited() -> Any:
                try:
                    return rows()
                finally:
                    self._add(FORWARD, began)

            return waited

        return launched

    def write(self, path: Path) -> None:
        """All spans, in the order of their ends."""
        path.write_text(json.dumps(self.made), encoding="utf-8")

    def _begin(self, module: Any, _: Any) -> None:
        self._since[id(module), threading.get_ident()] = time.monotonic()  # one thread for each row of a batch

    def _end(self, module: Any, _: Any, __: Any) -> None:
        self._add(type(module).__name__, self._since.pop((id(module), threading.get_ident())))

    def _add(self, stage: str, began: float) -> None:
        self.made.append((stage, threading.current_thread().name, began, time.monotonic()))


def main() -> int:
    """The server, traced to its end."""
    from embedfleet_server.__main__ import main as serve
    from embedfleet_server.app import answers
    from embedfleet_server.app.door import Door
    from embedfleet_server.engine.workers import ThreadWorkers

    spans = Spans()
    atexit.register(spans.write, Path(os.environ[SPANS]))
    load, read = ThreadWorkers.load, Door.read

    async def followed(workers: ThreadWorkers, loader: Any) -> Any:
        model = await load(workers, loader)
        spans.follow(model)
        return model

    async def parsed(door: Door, request: Any, parse: Callable[[bytes], _T]) -> _T:
        return await read(door, request, spans.timed(PARSE, parse))

    with (
        patch.object(ThreadWorkers, "load", followed),
        patch.object(Door, "read", parsed),
        patch.object(answers, "encode", spans.timed(ANSWER, answers.encode)),
    ):
        return serve()


if __name__ == "__main__":
    sys.exit(main())
