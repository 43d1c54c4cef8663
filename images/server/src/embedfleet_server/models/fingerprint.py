"""The fingerprint of a vector space: the same fingerprint means vectors that may be compared.

It covers weights, tokenizer, modules, prompts, normalisation, dimensions and the length inputs are cut to; of tasks
other than Dense also the task and its settings: activations, pooling, expansion, what is left out. Not precision, which
the hardware may choose. Weights enter by their sha256s, which are kept by path, size and modification
time, so that a restart does not read gigabytes again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedfleet_server.models.files import read_json
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.safety import ModuleFiles

_log = logging.getLogger(__name__)
_TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "added_tokens.json")
_CONFIGS = ("config.json", "sentence_bert_config.json", "tokenizer_config.json", "special_tokens_map.json")
# Written by libraries about themselves or about precision; no vector depends on them.
_IGNORED = frozenset({"_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "__version__"})
_DIGITS = 32  # hex digits kept: 128 bits, enough that two spaces never meet by chance


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What decides vectors beside the files: the model's own values with the manifest's put over them."""

    prompts: Mapping[str, str]
    default_prompt: str | None
    normalized: bool
    dimensions: int
    max_tokens: int


def fingerprint(
    modules: Sequence[ModuleFiles],
    behaviour: Behaviour,
    *,
    cache: Path,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """32 hex digits that name the vector space. `cache` is a directory for sha256s; it may be read-only.

    `settings` is what else decides rows, of other tasks than Dense; plain JSON values.
    """
    parts: dict[str, Any] = {"modules": [_module(module, cache) for module in modules], "behaviour": asdict(behaviour)}
    if settings is not None:
        parts["settings"] = dict(settings)
    return hashlib.sha256(_canonical(parts)).hexdigest()[:_DIGITS]


def sha256(file: Path, *, cache: Path) -> str:
    """The sha256 of a file's bytes, read only when path, size or modification time are new."""
    file = file.resolve()
    state = file.stat()
    key = {"path": str(file), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    note = cache / f"{hashlib.sha256(os.fsencode(file)).hexdigest()[:_DIGITS]}.json"
    known = _read_note(note)
    if {name: known.get(name) for name in key} == key and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _write_note(note, key | {"sha256": digest})
    return digest


def _module(module: ModuleFiles, cache: Path) -> dict[str, Any]:
    tokenizer = sorted({file for pattern in _TOKENIZER for file in module.directory.glob(pattern)})
    return {
        "kind": module.kind,
        "weights": {file.name: sha256(file, cache=cache) for file in module.weights},
        "tokenizer": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tokenizer},
        "configs": {name: _config(module.directory / name) for name in _CONFIGS},
    }


def _config(file: Path) -> dict[str, Any]:
    return {key: value for key, value in read_json(file).items() if key not in _IGNORED}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _read_note(note: Path) -> dict[str, Any]:
    try:
        return read_json(note)
    except (OSError, ModelProblem):
        return {}


def _write_note(note: Path, content: dict[str, Any]) -> None:
    """Atomic, since several servers may share a store; a store that cannot be written costs time, nothing else."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}")
        draft.write_bytes(_canonical(content))
        draft.replace(note)
    except OSError as error:
        _log.info("the sha256 of %s is not kept, so the next start reads the weights again: %s", content["path"], error)
