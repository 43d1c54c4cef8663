"""Reading a model's files without trusting them: JSON, and the headers of safetensors."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from embedfleet_server.models.problems import ModelProblem

_LENGTH = 8  # bytes of a safetensors file's first field: the length of its JSON header, little-endian
_FLOAT32 = 4  # bytes
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}  # by safetensors' names
_LARGEST_HEADER = 100_000_000  # safetensors' own limit


def parsed(file: Path) -> Any:
    """The JSON in `file`; `ModelProblem` when it holds none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelProblem(f"{file} is not JSON: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; `{}` when there is no such file."""
    if not file.is_file():
        return {}
    content = parsed(file)
    if not isinstance(content, dict):
        raise ModelProblem(f"{file} must hold a JSON object")
    return content


def tensor_names(files: Iterable[Path]) -> set[str]:
    """Names of all tensors in some safetensors files, from their headers."""
    return {name for file in files for name in _header(file) if name != "__metadata__"}


def float32_bytes(files: Iterable[Path]) -> int:
    """Size of all tensors of some safetensors files as float32, from their headers."""
    tensors = [tensor for file in files for name, tensor in _header(file).items() if name != "__metadata__"]
    return sum(map(_float32_bytes, tensors))


def check_whole(file: Path) -> None:
    """`ModelProblem` unless the safetensors file has exactly the bytes that its header promises."""
    ends = [tensor["data_offsets"][1] for name, tensor in _header(file).items() if name != "__metadata__"]
    promised = _LENGTH + _header_length(file) + max(ends, default=0)
    if (size := file.stat().st_size) != promised:
        kind = "truncated" if size < promised else "longer than it should be"
        raise ModelProblem(f"{file} is {kind}: it has {size} bytes and its header promises {promised}")


def _header(file: Path) -> dict[str, Any]:
    length = _header_length(file)
    with file.open("rb") as stream:
        stream.seek(_LENGTH)
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise ModelProblem(f"{file} is no whole safetensors file: its header cannot be read") from error
    if not isinstance(header, dict) or not all(map(_is_tensor, header.items())):
        raise ModelProblem(f"{file} is no safetensors file: its header does not list tensors")
    return header


def _float32_bytes(tensor: dict[str, Any]) -> int:
    begin, end = tensor["data_offsets"]
    own: int = _FLOAT32 * (end - begin) // _SIZES.get(str(tensor.get("dtype")), _FLOAT32)
    return own


def _is_tensor(entry: tuple[str, Any]) -> bool:
    name, value = entry
    offsets = value.get("data_offsets") if isinstance(value, dict) else None
    return name == "__metadata__" or (
        isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(offset, int) for offset in offsets)
    )


def _header_length(file: Path) -> int:
    if not file.is_file():
        raise ModelProblem(f"weights file {file} does not exist")
    with file.open("rb") as stream:
        start = stream.read(_LENGTH)
    if start == b"version ":
        raise ModelProblem(f"{file} is a Git LFS pointer, not the weights; run `git lfs pull` in its repository")
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH or not 0 < length <= min(_LARGEST_HEADER, file.stat().st_size - _LENGTH):
        raise ModelProblem(f"{file} is truncated or no safetensors file: it has {file.stat().st_size} bytes")
    return length
