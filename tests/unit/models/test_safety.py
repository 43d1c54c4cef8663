"""Files that must not, or cannot, be loaded: each is refused with its reason, and no code of theirs runs."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.safety import check
from tests.support.loading import load
from tests.support.tiny_models import make_bert

WEIGHTS = "model.safetensors"


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_bert(tmp_path / "model", dense=8)


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | values))


def change_module(model: Path, number: int, **values: str) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules[number] |= values
    (model / "modules.json").write_text(json.dumps(modules))


def test_a_sound_directory_passes(model: Path) -> None:
    """The modules come back in their order, with the files that hold weights."""
    modules = check(model)
    assert [module.kind for module in modules] == ["Transformer", "Pooling", "Dense"]
    assert [len(module.weights) for module in modules] == [1, 0, 1]


@pytest.mark.parametrize("folder", ["", "2_Dense"])
def test_a_pickle_is_refused_and_not_opened(model: Path, tmp_path: Path, folder: str) -> None:
    """Weights that exist only as a pickle are named, and the canary in them stays asleep."""
    canary = tmp_path / "canary"
    (model / folder / WEIGHTS).unlink()
    (model / folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ModelLoadFailed, match=r"are a pickle \(pytorch_model.bin\).*only safetensors are loaded"):
        load(model)
    assert not canary.exists()


def test_the_canary_would_have_sung(tmp_path: Path) -> None:
    """The test above can fail: reading the pickle makes the file."""
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_a_pickle_beside_safetensors_is_left_alone(model: Path, tmp_path: Path) -> None:
    """Many repositories carry both; the pickle is not read."""
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    load(model).close()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("keep", [0, 5, 9, 200, -1])
def test_truncated_weights_are_refused(model: Path, keep: int) -> None:
    """Cut anywhere, from the first byte to the last, the file is named as truncated."""
    file = model / WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelLoadFailed, match=r"'tiny' could not be loaded: .*model.safetensors is truncated"):
        load(model)


def test_weights_with_bytes_to_spare_are_refused(model: Path) -> None:
    """What the header does not promise was not written by safetensors."""
    with (model / WEIGHTS).open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ModelProblem, match="longer than it should be"):
        check(model)


def test_a_git_lfs_pointer_says_what_to_do(model: Path) -> None:
    """A clone without LFS holds pointers; the error names the command."""
    (model / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ModelProblem, match="git lfs pull"):
        check(model)


def test_a_header_that_is_no_json_is_refused(model: Path) -> None:
    """Eight bytes of length and then rubbish."""
    (model / WEIGHTS).write_bytes((16).to_bytes(8, "little") + b"x" * 64)
    with pytest.raises(ModelProblem, match="header cannot be read"):
        check(model)


def test_missing_shards_are_named(model: Path) -> None:
    """An index whose files are not all there is no whole model."""
    change(model / "model.safetensors.index.json", weight_map={"a": WEIGHTS, "b": "model-2.safetensors"})
    with pytest.raises(ModelProblem, match=r"model-2.safetensors does not exist"):
        check(model)


def test_an_index_may_not_leave_its_folder(model: Path) -> None:
    """A path in an index is a path of somebody else's choosing."""
    change(model / "model.safetensors.index.json", weight_map={"a": "../secret.safetensors"})
    with pytest.raises(ModelProblem, match="outside its folder"):
        check(model)


def test_code_of_the_model_is_not_run(model: Path, tmp_path: Path) -> None:
    """A custom architecture (auto_map) is refused and its file not imported."""
    code = f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\nclass M: pass\n"
    (model / "modeling_own.py").write_text(code)
    change(model / "config.json", model_type="own", auto_map={"AutoModel": "modeling_own.M"})
    with pytest.raises(ModelLoadFailed, match=r"'own' is code of its own \(auto_map"):
        load(model)
    assert not (tmp_path / "canary").exists()


def test_code_is_ignored_where_the_architecture_is_known(model: Path, tmp_path: Path) -> None:
    """With a native architecture the auto_map is not needed: the model loads, the code does not."""
    (model / "modeling_own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n")
    change(model / "config.json", auto_map={"AutoModel": "modeling_own.M", "AutoConfig": "modeling_own.C"})
    load(model).close()
    assert not (tmp_path / "canary").exists()


def test_a_module_of_the_models_own_is_not_imported(model: Path, tmp_path: Path) -> None:
    """A class that modules.json names outside sentence-transformers is refused."""
    (model / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\nclass M: pass\n")
    change_module(model, 1, type="own.M")
    with pytest.raises(ModelLoadFailed, match=r"its module own\.M is code of its own"):
        load(model)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", ["Router", "Asym"])
def test_two_towers_are_refused(model: Path, kind: str) -> None:
    """Router and Asym choose modules by task, which a shared batch cannot."""
    change_module(model, 0, type=f"sentence_transformers.models.{kind}")
    with pytest.raises(ModelProblem, match=f"its {kind} sends queries and documents through different modules"):
        check(model)


def test_a_model_without_transformer_is_refused(model: Path) -> None:
    """Bags of words have no token ids to batch."""
    change_module(model, 0, type="sentence_transformers.models.BoW")
    with pytest.raises(ModelProblem, match="its first module is a BoW"):
        check(model)


@pytest.mark.parametrize("path", ["../other", "/other"])
def test_a_module_may_not_leave_the_directory(model: Path, path: str) -> None:
    """A folder in modules.json is inside the model."""
    change_module(model, 1, path=path)
    with pytest.raises(ModelProblem, match="outside the model's directory"):
        check(model)


def test_other_tasks_are_refused(model: Path) -> None:
    """A sparse model's output is no dense vector."""
    change(model / "config_sentence_transformers.json", model_type="SparseEncoder")
    with pytest.raises(ModelProblem, match="it is a SparseEncoder"):
        check(model)


def test_an_adapter_is_refused(model: Path) -> None:
    """An adapter's base model would come from elsewhere."""
    change(model / "adapter_config.json", base_model_name_or_path="org/base")
    with pytest.raises(ModelProblem, match="PEFT adapter"):
        check(model)


def test_a_tokenizer_elsewhere_is_refused(model: Path) -> None:
    """The fingerprint covers the files that are there."""
    change(model / "sentence_bert_config.json", tokenizer_name_or_path="org/other")
    with pytest.raises(ModelProblem, match="its tokenizer is in another place"):
        check(model)


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    """The error says which files make a model."""
    with pytest.raises(ModelProblem, match=r"neither modules\.json nor config\.json"):
        check(tmp_path)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """A path to a file is a likely slip."""
    (tmp_path / "model").touch()
    with pytest.raises(ModelProblem, match="is a file"):
        check(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "reason"), [("{", "is not JSON"), ("{}", "must hold a list of modules"), ('[{"path": 1}]', "a list of")]
)
def test_a_broken_list_of_modules_is_named(model: Path, content: str, reason: str) -> None:
    """modules.json must be what sentence-transformers writes."""
    (model / "modules.json").write_text(content)
    with pytest.raises(ModelProblem, match=reason):
        check(model)


def test_a_transformer_needs_its_config(model: Path) -> None:
    """Without config.json the architecture is unknown."""
    (model / "config.json").unlink()
    with pytest.raises(ModelProblem, match=r"holds no config\.json"):
        check(model)
