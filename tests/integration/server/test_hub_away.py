"""A real server whose hub is away: what is in its store is served, what is not is told, what is corrupt is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from embedfleet.api.models import ModelSpec
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.fetch import main as fetch
from embedfleet_server.models.loading import loader
from tests.support.fake_hub import COMMIT, digest_of, files_of, hub
from tests.support.process import REAL, process
from tests.support.tiny_models import make_bert

pytestmark = pytest.mark.requirement("S5", "O4")
REPO, WEIGHTS = "org/tiny", "model.safetensors"
_NOBODY = "http://127.0.0.1:9"  # discard: nobody listens
_MODELS: list[dict[str, Any]] = [
    {"name": "semantic", "source": {"huggingFace": {"repo": REPO}}, "required": False},
    {"name": "absent", "source": {"huggingFace": {"repo": "org/other"}}, "required": False},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files_of(make_bert(tmp_path_factory.mktemp("models") / "tiny"))


def _filled(directory: Path, files: dict[str, bytes]) -> Path:
    """A store that a hub has filled, which is gone then."""
    store = directory / "store"
    (directory / "models.json").write_text(json.dumps({"service": "fleet", "models": _MODELS[:1]}))
    with hub(REPO, files) as served:
        arguments = ["--settings", str(directory), "--store", str(store), "--termination-log", str(directory / "word")]
        assert fetch(arguments, {"HF_ENDPOINT": served.url}, lambda _: None) == 0
    return store


def test_a_server_starts_without_its_hub(tmp_path: Path, files: dict[str, bytes]) -> None:
    """The model in the store serves; the other fails alone, naming repository, store and cause."""
    store = _filled(tmp_path, files)
    environ = {"HF_ENDPOINT": _NOBODY, "HF_HUB_OFFLINE": "0"}
    options = ["--store", str(store), "--threads", "1"]
    with process(tmp_path, *options, models=_MODELS, module=REAL, extra=environ) as server:
        assert "Dense" in server.line("  semantic")
        failed = server.line("  absent")
        assert "failed: org/other at 'main' is not whole in the local store" in failed
        assert str(store) in failed
        assert "onnect" in failed
        answer, _ = server.ask("POST", "/v1/embeddings", {"model": "semantic", "input": "x"})
        assert answer.status == 200
        server.stop()


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_corrupt_file_is_named(tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    """Weights of the right length, or a tokenizer, with a byte changed: the file, its digest and what it must be."""
    store = _filled(tmp_path, files)
    file = store / f"models--org--tiny/snapshots/{COMMIT}" / name
    content = file.read_bytes()
    file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(ModelLoadFailed) as caught:
        loader(ModelSpec.model_validate(_MODELS[0]), store=store, offline=True, gpu_count=0)()
    assert f"could not be loaded: {name} has the digest " in str(caught.value)
    assert f"must have {digest_of(name, content)}: it is corrupt; remove {file.parent}" in str(caught.value)
