"""ONNX Runtime and OpenVINO, the peers of the bare forward: which there are, and one of them running."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.child import ROOT, Child, ChildFailed
from tests.benchmarks.peers import environment
from tests.benchmarks.peers.environment import PeerMissing

_EXPORTING = 300.0  # seconds, most of them for importing torch


@dataclass(frozen=True, slots=True)
class Runtime:
    """A library that runs the model's ONNX form, and the precisions it is tried in."""

    name: str
    version: str
    pins: str
    module: str
    precisions: tuple[str, ...]
    flags: frozenset[str] = frozenset()
    """Flags of the processor of which one is needed for more than the first precision."""


RUNTIMES = (
    Runtime(
        "ONNX Runtime", "1.31.1", "onnxruntime.txt", "tests.benchmarks.peers.with_onnxruntime", ("float32", "int8")
    ),
    Runtime(
        "OpenVINO",
        "2026.4.1",
        "openvino.txt",
        "tests.benchmarks.peers.with_openvino",
        ("float32", "bfloat16"),
        frozenset({"amx_bf16", "avx512_bf16"}),
    ),
)


@contextlib.contextmanager
def running(runtime: Runtime, model: Path) -> Iterator[Child]:
    """A process of it with the model in directory `model`; raises `PeerMissing`. Gone when the block is left."""
    pins = Path(__file__).with_name(runtime.pins)
    home = environment.installed(f"{pins.stem}-{runtime.version}", pins, size="0.3 GB")
    with tempfile.TemporaryDirectory(prefix="embedfleet-peer-") as folder:
        file = Path(folder) / "model.onnx"
        _export(home, model, file)
        with Child(runtime.module, str(file), str(model), python=str(home / "bin" / "python")) as child:
            try:
                child.ask("ready")
            except ChildFailed as failed:
                raise PeerMissing(str(failed)) from failed
            yield child


def _export(home: Path, model: Path, file: Path) -> None:
    import sys

    libraries = next((home / "lib").glob("python3*/site-packages"))
    command = [sys.executable, "-m", "tests.benchmarks.peers.exporting", str(model), str(libraries), str(file)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment.run(command, seconds=_EXPORTING, environ={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path})
