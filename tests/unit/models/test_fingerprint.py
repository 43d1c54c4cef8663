"""What changes a fingerprint, and what does not."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from embedfleet.api.models import Prompts
from embedfleet_server.models.fingerprint import sha256
from tests.support.loading import load
from tests.support.tiny_models import make_bert


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "tiny", pooling="cls")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "copy")


def of(directory: Path, **fields: Any) -> str:
    return load(directory, **fields).info.fingerprint


def test_a_copy_has_the_same_fingerprint(model: Path, copy: Path) -> None:
    """It depends on content, not on where or when that was written."""
    os.utime(copy / "model.safetensors")
    assert of(copy) == of(model)
    assert len(of(model)) == 32


def test_what_libraries_write_about_themselves_does_not_count(model: Path, copy: Path) -> None:
    """Saved again by another release, the space is the same."""
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "0", "_name_or_path": "x"}))
    assert of(copy) == of(model)


def test_precision_does_not_count(model: Path) -> None:
    """Hardware may choose it; it is told apart."""
    assert of(model, dtype="BFloat16") == of(model, dtype="Float32")


@pytest.mark.parametrize(
    "fields",
    [{"normalize": True}, {"dimensions": 16}, {"max_tokens": 32}, {"prompts": Prompts(query="q: ")}],
    ids=["normalize", "dimensions", "maxTokens", "prompts"],
)
def test_each_field_that_changes_vectors_counts(model: Path, fields: dict[str, Any]) -> None:
    """The manifest's overrides make another space."""
    assert of(model, **fields) != of(model)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("1_Pooling/config.json", '"cls"', '"mean"'), ("tokenizer.json", "true", "false")],
    ids=["pooling", "tokenizer"],
)
def test_each_file_that_changes_vectors_counts(model: Path, copy: Path, file: str, old: str, new: str) -> None:
    """Pooling and tokenizer make another space."""
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    assert of(copy) != of(model)


def test_weights_count(model: Path, copy: Path) -> None:
    """One other bit in the weights makes another space."""
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert of(copy) != of(model)


def test_a_digest_is_kept_and_the_file_not_read_again(tmp_path: Path) -> None:
    """Same path, size and modification time: the kept digest is the answer; another time: it is read."""
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"one")
    first, state = sha256(file, cache=cache), file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert sha256(file, cache=cache) == first
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert sha256(file, cache=cache) != first


def test_a_cache_that_cannot_be_used_costs_only_time(tmp_path: Path) -> None:
    """Where no directory can be made, and where a note is rubbish, the digest is right all the same."""
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"one")
    first = sha256(file, cache=cache)
    for note in cache.iterdir():
        note.write_text("rubbish")
    assert sha256(file, cache=cache) == first
    assert sha256(file, cache=file / "impossible") == first
