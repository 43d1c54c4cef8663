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
from tests.support.loading import load, load_any
from tests.support.tiny_models import make_bert
from tests.support.tiny_tasks import make_inference_free, make_multi_vector, make_reranker, make_sparse

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


def test_an_activation_of_the_models_own_is_refused(model: Path) -> None:
    """sentence-transformers would put Tanh in its place: other vectors, without an error."""
    change(model / "2_Dense" / "config.json", activation_function="own.Own")
    with pytest.raises(ModelProblem, match=r"its activation 'own\.Own' is code of its own \(in .*2_Dense/config\.json"):
        check(model)


def test_a_tokenizer_of_the_models_own_is_refused(model: Path) -> None:
    """Another class in its place would cut texts otherwise; a class of transformers needs no code of the model."""
    own = {"AutoTokenizer": ["own.Own", "own.OwnFast"]}
    change(model / "tokenizer_config.json", tokenizer_class="OwnTokenizerFast", auto_map=own)
    with pytest.raises(
        ModelProblem, match=r"'OwnTokenizerFast' is code of its own \(auto_map in tokenizer_config\.json"
    ):
        check(model)
    for known in ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "XLMRobertaTokenizer"):
        change(model / "tokenizer_config.json", tokenizer_class=known)
        check(model)


@pytest.mark.parametrize(
    "file", ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"]
)
def test_a_processor_of_the_models_own_is_refused(model: Path, file: str) -> None:
    """The file is named."""
    change(model / file, auto_map={"AutoProcessor": "own.Own"})
    with pytest.raises(ModelProblem, match=rf"its processor is code of its own \(auto_map in {file}\)"):
        check(model)


@pytest.mark.parametrize("kind", ["Router", "Asym"])
def test_two_towers_are_refused(model: Path, kind: str) -> None:
    """Router and Asym choose modules by task, which a shared batch of dense vectors cannot."""
    change_module(model, 0, type=f"sentence_transformers.models.{kind}")
    with pytest.raises(ModelProblem, match=f"its {kind} sends queries and documents through different modules"):
        check(model)


@pytest.mark.requirement("S3")
@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("router_config.json", {"structure": {"query": ["x"], "document": ["y"]}}, "through different modules"),
        ("router_config.json", {"structure": 7}, "no router_config.json with types and structure"),
        ("router_config.json", {"parameters": {"route_mappings": {"a": "b"}}}, "has route_mappings"),
        ("query_0_SparseStaticEmbedding/config.json", {"path": "org/other"}, "in another file"),
    ],
)
def test_other_routes_are_refused(tmp_path: Path, file: str, values: dict[str, Any], said: str) -> None:
    """Only a looked-up query beside a computed document is served, from files of the model alone."""
    model = make_inference_free(tmp_path / "model")
    assert [one.kind for one in check(model)] == ["Transformer", "SpladePooling", "SparseStaticEmbedding"]
    change(model / file, **values)
    with pytest.raises(ModelLoadFailed, match=said):
        load_any(model)


@pytest.mark.requirement("S3")
@pytest.mark.parametrize("module", ["own.M", "../../x"])
def test_a_routed_module_is_as_any_other(tmp_path: Path, module: str) -> None:
    """Code of its own and folders outside are refused inside a Router too."""
    model = make_inference_free(tmp_path / "model")
    config = json.loads((model / "router_config.json").read_text())
    name = config["structure"]["document"][0]
    if module == "own.M":
        config["types"][name] = "own.Transformer"
    else:
        config["types"][module] = config["types"].pop(name)
        config["structure"]["document"][0] = module
    (model / "router_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadFailed, match=r"is code of its own|outside the model's directory"):
        load_any(model)


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


@pytest.mark.requirement("S3")
@pytest.mark.parametrize("make", [make_sparse, make_multi_vector, make_reranker])
def test_no_task_reads_a_pickle(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Sparse, multi-vector and rerank models are read as carefully as dense ones."""
    model, canary = make(tmp_path / "model"), tmp_path / "canary"
    (model / WEIGHTS).unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ModelLoadFailed, match="only safetensors are loaded"):
        load_any(model)
    assert not canary.exists()


@pytest.mark.requirement("S3")
@pytest.mark.parametrize("make", [make_sparse, make_multi_vector, make_reranker])
def test_no_task_runs_code_of_the_model(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """An architecture of its own, and a module of its own, are refused before anything is imported."""
    model, canary = make(tmp_path / "model"), tmp_path / "canary"
    code = f"import os\nos.mkdir({str(canary)!r})\n"
    (model / "own.py").write_text(code)
    config = (model / "config.json").read_text()
    change(model / "config.json", model_type="own", auto_map={"AutoModel": "own.Own", "AutoConfig": "own.Config"})
    with pytest.raises(ModelLoadFailed, match="is code of its own"):
        load_any(model)
    (model / "config.json").write_text(config)
    change_module(model, 0, type="own.Own")
    with pytest.raises(ModelLoadFailed, match=r"its module own\.Own is code of its own"):
        load_any(model)
    assert not canary.exists()


@pytest.mark.requirement("S3")
@pytest.mark.parametrize(
    "name", ["own.Activation", "torch.hub.list", "torch.nn.Module", "torch.nn.modules.activation.GELU"]
)
@pytest.mark.parametrize("place", ["own", "config", "older"])
def test_only_known_activations_are_called(tmp_path: Path, name: str, place: str) -> None:
    """A reranker's files name its activation, in one of three places; sentence-transformers calls whatever of torch."""
    model = make_reranker(tmp_path / "model")
    if place == "own":
        change(model / "config_sentence_transformers.json", activation_fn=name)
    elif place == "config":
        change(model / "config.json", sentence_transformers={"activation_fn": name})
    else:
        change(model / "config.json", sbert_ce_default_activation_function=name)
    with pytest.raises(
        ModelLoadFailed, match=f"its activation is {name}; those of torch.nn that are served: Identity,"
    ):
        load_any(model)
