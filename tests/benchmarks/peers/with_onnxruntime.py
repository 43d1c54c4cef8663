"""The process of ONNX Runtime: float32, and int8 in three forms; runs in its own environment.

Int8 by blocks quantises weights and what is multiplied with them by runs of numbers, each with a scale of its own;
dynamic int8 has one scale for a whole tensor of activations, and its vectors are further from float32's.
"""

import itertools
import json
import logging
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.benchmarks.child import answer_questions
from tests.benchmarks.peers import tuned

_FLOAT = 1  # onnx.TensorProto.FLOAT
_BLOCKS = {"plain graph": 32, "fused graph": 128}
"""Numbers of a block: the largest of 32 and 128 with a cosine over 0.999. In the fused graph what attention takes in
stays float32; in the plain one all layers are quantised."""


class Runs:
    """The model's graphs, made on demand beside the exported one."""

    def __init__(self, file: str, directory: str) -> None:
        self._plain = Path(file)
        config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
        self._shape = {"num_heads": config["num_attention_heads"], "hidden_size": config["hidden_size"]}

    def ways(self, precision: str) -> Mapping[str, Callable[[], tuned.Way]]:
        """Of the plain graph and the one that its optimizer fused; threads that wait spin or sleep, or have none to
        wait for: each core computes a batch of its own.
        """
        graphs = {"plain graph": lambda: self._plain, "fused graph": self._fused}
        if precision == "int8":
            made = {
                f"blocks of {size}, {graph}": partial(self._blocks, graphs[graph], size)
                for graph, size in _BLOCKS.items()
            }
            graphs = {**made, "dynamic, fused graph": self._dynamic}
        shared = {"spinning": _together("1"), "sleeping": _together("0"), "a batch for each core": _beside}
        return {
            f"{graph}, {how}": partial(way, file)
            for (graph, file), (how, way) in itertools.product(graphs.items(), shared.items())
            if not (graph.startswith("dynamic") and how != "spinning")  # it is too far from float32 to be timed
        }

    def _fused(self) -> Path:
        return self._made("fused.onnx", self._fuse)

    def _fuse(self, file: Path) -> None:
        optimizer = import_module("onnxruntime.transformers.optimizer")
        model = optimizer.optimize_model(str(self._plain), "bert", **self._shape, opt_level=0)
        model.save_model_to_file(str(file))

    def _blocks(self, graph: Callable[[], Path], size: int) -> Path:
        def write(file: Path) -> None:
            onnx, nbits = import_module("onnx"), import_module("onnxruntime.quantization.matmul_nbits_quantizer")
            quantizer = nbits.MatMulNBitsQuantizer(
                onnx.load(str(graph())), bits=8, block_size=size, is_symmetric=True, accuracy_level=4
            )
            quantizer.process()
            quantizer.model.save_model_to_file(str(file), False)

        return self._made(f"blocks-{size}.onnx", write)

    def _dynamic(self) -> Path:
        def write(file: Path) -> None:
            quantization = import_module("onnxruntime.quantization")
            quantization.quantize_dynamic(
                str(self._fused()),
                str(file),
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul", "Attention"],
                extra_options={"DefaultTensorType": _FLOAT},
            )

        return self._made("dynamic.onnx", write)

    def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        file = self._plain.with_name(name)
        if not file.exists():
            write(file)
        return file


def _session(file: Path, threads: int, spinning: str) -> Any:
    ort: Any = import_module("onnxruntime")  # of the peer's environment, not of this project's
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _together(spinning: str) -> Callable[[Callable[[], Path]], tuned.Way]:
    """All threads on one batch after the other."""

    def made(file: Callable[[], Path]) -> tuned.Way:
        session = _session(file(), tuned.threads(), spinning)
        return lambda batches: [session.run(None, batch)[0] for batch in batches]

    return made


def _beside(file: Callable[[], Path]) -> tuned.Way:
    """As many batches at once as there are cores, each by one thread."""
    session = _session(file(), 1, "0")
    pool = ThreadPoolExecutor(tuned.threads())
    return lambda batches: list(pool.map(lambda batch: session.run(None, batch)[0], batches))


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # its optimizer and quantisers tell of every node
    answer_questions(tuned.handlers(tuned.Tuned(Runs(*sys.argv[1:3]).ways)))
