"""The models as the server loads them, in one precision each, measured without a server around them."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from embedfleet.api.models import ModelSpec, Source
from embedfleet_server import allocator, environment
from tests.benchmarks.child import answer_questions
from tests.benchmarks.loads import chunks

BATCH = 64
"""Texts of a batch, as the server forms them at saturation."""


class Loaded:
    """The model of a directory in each precision that is asked for."""

    def __init__(self, directory: str, gpu_count: int = 0) -> None:
        self._directory, self._gpu_count = directory, gpu_count
        self._store = tempfile.TemporaryDirectory(prefix="embedfleet-benchmark-")
        self._models: dict[tuple[str, bool], Any] = {}

    def load(self, dtype: str, *, padded: bool = False) -> dict[str, Any]:
        """Load it as the manifest's `dtype` says, `padded` whatever it could be; what it became, and why."""
        from embedfleet_server.models import packing
        from embedfleet_server.models.loading import loader

        fields: dict[str, Any] = {"name": "semantic", "source": Source(path=self._directory), "dtype": dtype}
        asked = packing.Layout("padded", "asked for by the benchmark")
        replaced = patch.object(packing, "packed", return_value=(None, asked)) if padded else nullcontext()
        with replaced:
            model = loader(ModelSpec(**fields), store=Path(self._store.name), offline=True, gpu_count=self._gpu_count)()
        self._models[dtype, padded] = model
        names = ("precision", "precision_reason", "layout", "layout_reason", "device", "max_tokens")
        return {name: getattr(model.info, name) for name in names}

    def forward(self, dtype: str, texts: Sequence[str], *, padded: bool = False) -> dict[str, Any]:
        """Batches tokenised before the clock runs; seconds by the wall and of the processor."""
        model = self._models[dtype, padded]
        batches = [model.encode(some, "") for some in chunks(texts, BATCH)]
        began, processor = time.perf_counter(), time.process_time()
        for each in _asked(model, batches):
            each()
        seconds, used = time.perf_counter() - began, time.process_time() - processor
        tokens = sum(len(encoded.token_ids) for batch in batches for encoded in batch)
        return {"seconds": seconds, "processor": used, "tokens": tokens}


def _asked(model: Any, batches: Sequence[Any]) -> Iterator[Callable[[], object]]:
    """What waits for each batch, given once the next is handed over, where batches are launched.

    A server hands the next one over as well, but later: shortly before the end that it expects.
    """
    before: Callable[[], object] | None = None
    for batch in batches:
        rows = model.launch(batch) if model.launches else None
        if before is not None:
            yield before
        before = partial(model.forward, batch) if rows is None else rows
    if before is not None:
        yield before


if __name__ == "__main__":
    import os

    os.environ.update(
        environment.variables(os.environ, environment.cores(), environment.quota())
    )  # as the server's own process
    allocator.keep_freed(os.environ)
    loaded = Loaded(sys.argv[1], *map(int, sys.argv[2:]))
    answer_questions({"load": loaded.load, "forward": loaded.forward})
