"""The process of OpenVINO: float32 and bfloat16, by the hint of that name; runs in its own environment."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from tests.benchmarks.child import answer_questions
from tests.benchmarks.peers import tuned

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def ways(file: str, precision: str) -> Mapping[str, Callable[[], tuned.Way]]:
    """One stream with all cores, and a stream for each core."""
    return {
        f"{count} stream{'s' * (count > 1)}": partial(_way, file, precision, count) for count in {1, tuned.threads()}
    }


def _way(file: str, precision: str, streams: int) -> tuned.Way:
    openvino: Any = import_module("openvino")  # of the peer's environment, not of this project's
    config = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(tuned.threads()),
    }
    compiled = openvino.Core().compile_model(file, "CPU", config)
    queue = openvino.AsyncInferQueue(compiled, streams)
    made: dict[int, Any] = {}
    queue.set_callback(lambda request, place: made.__setitem__(place, request.get_output_tensor(0).data.copy()))

    def way(batches: Sequence[tuned.Features]) -> list[Any]:
        for place, batch in enumerate(batches):
            queue.start_async(batch, place)
        queue.wait_all()
        return [made.pop(place) for place in range(len(batches))]

    return way


if __name__ == "__main__":
    answer_questions(tuned.handlers(tuned.Tuned(partial(ways, sys.argv[1]))))
