"""What the figures were measured on: the processor, what it can do, and how fast it really multiplies matrices."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.child import answer_questions

FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx",
    "amx_bf16": "amx_bf16",
    "amx_int8": "amx_int8",
}
"""Flags of /proc/cpuinfo that change how fast a model runs, and what to call them."""
RATES = {"blas": "float32 by torch's BLAS", "float32": "float32 by oneDNN", "bfloat16": "bfloat16 by oneDNN"}
"""What `gemm` measures, in words; the last where the processor multiplies it."""
_SHAPES = ((2048, 384, 1536), (2048, 2048, 2048))  # the model's own feed-forward on 2048 tokens, and an easy square
_REPEAT = 12
DISTRIBUTIONS = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy", "aiohttp")


def describe() -> dict[str, str]:
    """The machine and the libraries, in words."""
    name, flags = _processor()
    return {
        "processor": name,
        "cores": f"{os.cpu_count()} ({len(psutil.Process().cpu_affinity() or [])} usable)",
        "instructions": ", ".join(label for flag, label in FLAGS.items() if flag in flags)
        or "none of those looked for",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS),
    }


def gemm() -> dict[str, Any]:
    """The best rates of matrix products in TFLOP/s, by the names of `RATES`, and the number of threads.

    Torch's BLAS is MKL, which knows few of others' processors well; the faster of both shows what one really can do.
    """
    import torch

    kinds = {"blas": (torch.float32, False), "float32": (torch.float32, True)}
    if multiplies_bfloat16():
        kinds["bfloat16"] = (torch.bfloat16, True)
    rates = {kind: max(_rate(dtype, *shape, onednn=by) for shape in _SHAPES) for kind, (dtype, by) in kinds.items()}
    return {"threads": torch.get_num_threads(), **rates}


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them a product takes some twenty times that in float32."""
    return bool(_processor()[1] & {"amx_bf16", "avx512_bf16"})


def has_amx() -> bool:
    """Whether the processor has tiles of bfloat16: goals are higher there."""
    return "amx_bf16" in _processor()[1]


def _rate(dtype: Any, rows: int, inner: int, columns: int, *, onednn: bool) -> float:
    import torch

    left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    if onednn and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        left, right = left.to_mkldnn(), right.to_mkldnn()
    with torch.inference_mode():
        seconds = _median_seconds(lambda: torch.nn.functional.linear(left, right))
    return 2 * rows * inner * columns / seconds / 1e12


def _median_seconds(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(_REPEAT):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _processor() -> tuple[str, set[str]]:
    """Name and flags; other systems than Linux tell neither in a file."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return platform.processor() or platform.machine(), set()
    lines = dict(line.split(":", 1) for line in file.read_text(encoding="utf-8").splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    family = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    return facts.get("model name", platform.machine()) + family, set(facts.get("flags", "").split())


if __name__ == "__main__":
    answer_questions({"gemm": gemm})
