"""Model directories whose files would run code when read, given to the real server: none of it runs."""

import json
import os
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import REAL, process
from tests.support.tiny_models import make_bert

pytestmark = pytest.mark.requirement("S3", "S6")
_OWN = "own.Own"


class Canary:
    """Unpickled, it makes a directory."""

    def __init__(self, nest: Path) -> None:
        self.nest = nest

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.nest),)


def _change(file: Path, **values: Any) -> None:
    found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(found | values))


def _trusting(model: Path) -> None:
    """Its files ask for their own code to be trusted, wherever sentence-transformers takes arguments from them."""
    arguments = ("model_args", "config_args", "tokenizer_args", "model_kwargs", "config_kwargs", "processor_kwargs")
    _change(model / "sentence_bert_config.json", **{name: {"trust_remote_code": True} for name in arguments})
    _change(model / "config.json", auto_map={"AutoModel": _OWN, "AutoConfig": _OWN})


def _pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes((model / "canary.pkl").read_bytes())


def _module(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["type"] = _OWN
    (model / "modules.json").write_text(json.dumps(modules))


def _architecture(model: Path) -> None:
    _change(model / "config.json", model_type="own", auto_map={"AutoModel": _OWN, "AutoConfig": _OWN})


def _tokenizer(model: Path) -> None:
    _change(model / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": [_OWN, _OWN]})


HOSTILE: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "pickled": (_pickled, "pytorch_model.bin"),
    "architecture": (_architecture, "config.json"),
    "module": (_module, "modules.json"),
    "tokenizer": (_tokenizer, "tokenizer_config.json"),
    "processor": (
        lambda model: _change(model / "processor_config.json", auto_map={"AutoProcessor": _OWN}),
        "processor_config.json",
    ),
    "activation": (
        lambda model: _change(model / "2_Dense/config.json", activation_function=_OWN),
        "2_Dense/config.json",
    ),
    "trusting": (_trusting, None),
    "tempting": (
        lambda model: _change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, _OWN]}),
        None,
    ),
}
"""What is done to a model, and the file that the error names; None where the model loads without its code."""


def _make(directory: Path, nest: Path, spoil: Callable[[Path], None]) -> Path:
    """A model with a module of Python and pickles beside its weights, each of which would make `nest`."""
    model = make_bert(directory, dense=8)
    (model / "own.py").write_text(f"import os\nos.mkdir({str(nest)!r})\nclass Own: pass\n")
    for name in ("canary.pkl", "training_args.bin", "optimizer.pt", "2_Dense/pytorch_model.bin"):
        (model / name).write_bytes(pickle.dumps(Canary(nest)))
    spoil(model)
    return model


def test_no_code_of_a_model_runs(tmp_path: Path) -> None:
    """Pickles, architectures, modules, tokenizers, processors and activations of a model's own write nothing; each
    model fails alone with the file named, and those that need none of it load.
    """
    nests = tmp_path / "nests"
    nests.mkdir()
    models = [
        {
            "name": name,
            "source": {"path": str(_make(tmp_path / "weights" / name, nests / name, spoil))},
            "required": False,
        }
        for name, (spoil, _) in HOSTILE.items()
    ]
    with process(tmp_path, "--store", str(tmp_path / "store"), "--threads", "1", models=models, module=REAL) as server:
        lines = {name: server.line(f"  {name} ") for name in HOSTILE}
        statuses = {
            name: server.ask("POST", "/v1/embeddings", {"model": name, "input": "a text"})[0].status for name in HOSTILE
        }
        server.stop()
    assert list(nests.iterdir()) == []
    for name, (_, file) in HOSTILE.items():
        assert statuses[name] == (200 if file is None else 503), name
        assert file is None or ("failed: " in lines[name] and file in lines[name]), lines[name]


def test_each_canary_would_have_sung(tmp_path: Path) -> None:
    """The test above can fail: the module run, or a pickle read, makes the directory."""
    model = _make(tmp_path / "model", tmp_path / "nest", lambda model: None)
    for sing in (
        lambda: runpy.run_path(str(model / "own.py")),
        lambda: pickle.loads((model / "canary.pkl").read_bytes()),
    ):
        sing()
        (tmp_path / "nest").rmdir()
