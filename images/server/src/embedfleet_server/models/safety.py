"""What may be loaded: sentence-transformers' own modules with safetensors weights, whole, and no code from the model.

Everything here reads only JSON and safetensors headers; nothing is imported or unpickled on a model's word.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedfleet_server.models.files import check_whole, parsed, read_json
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.tasks import PYLATE_DENSE

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
_OWN = "sentence_transformers."
_TRANSFORMER = f"{_OWN}models.Transformer"
_TRANSFORMERS = ("Transformer", "MLMTransformer")  # the second is the first with another head, under its old name
_WEIGHTED = (*_TRANSFORMERS, "Dense", "SparseAutoEncoder", "SparseStaticEmbedding")
_TORCH = "torch.nn."
_PROCESSORS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_ANY_TOKENIZER = "PreTrainedTokenizer"
_SPLADES = tuple([kind, "SpladePooling"] for kind in _TRANSFORMERS)


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """One line of `modules.json`: the class's last name, the module's folder, its safetensors files."""

    kind: str
    directory: Path
    weights: tuple[Path, ...]


def check(directory: Path) -> list[ModuleFiles]:
    """The modules of a sentence-transformers directory, in order, all files whole; `ModelProblem` where not."""
    _check_is_model(directory)
    lines = _module_lines(directory)
    if len(lines) == 1 and lines[0]["type"].rpartition(".")[2] == "Router":
        lines = _routed(directory / lines[0]["path"], lines[0]["path"])
    modules = [_module(directory, line) for line in lines]
    if modules[0].kind not in _TRANSFORMERS:
        raise ModelProblem(f"its first module is a {modules[0].kind}, where only a Transformer is served")
    _check_transformer(modules[0])
    return modules


def _check_is_model(directory: Path) -> None:
    if not directory.exists():
        raise ModelProblem(f"directory {directory} does not exist")
    if not directory.is_dir():
        raise ModelProblem(f"{directory} is a file; the source must be a directory in sentence-transformers' layout")
    if not (directory / "modules.json").is_file() and not (directory / "config.json").is_file():
        raise ModelProblem(f"directory {directory} holds no model: neither modules.json nor config.json is there")


def _module_lines(directory: Path) -> list[dict[str, Any]]:
    file = directory / "modules.json"
    if not file.is_file():
        return [{"path": "", "type": _TRANSFORMER}]
    lines = parsed(file)
    if not isinstance(lines, list) or not lines or not all(_is_line(line) for line in lines):
        raise ModelProblem(f"{file} must hold a list of modules, each with a type and a path")
    return lines


def _is_line(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("type"), str) and isinstance(line.get("path"), str)


def _routed(folder: Path, path: str) -> list[dict[str, Any]]:
    """The modules of a sparse model that looks up the words of a query and computes those of a document.

    The transformer comes first. Any other way to route inputs is refused, the Router itself by `_module`.
    """
    config = read_json(folder / "router_config.json")
    types, routes = config.get("types"), config.get("structure")
    if not isinstance(types, dict) or not isinstance(routes, dict):
        raise ModelProblem(f"{folder} holds no router_config.json with types and structure")
    kinds = {name: [_last(types.get(one)) for one in own] for name, own in routes.items() if isinstance(own, list)}
    if kinds.get("query") != ["SparseStaticEmbedding"] or kinds.get("document") not in _SPLADES or len(routes) != 2:
        return [{"type": f"{_OWN}Router", "path": path}]
    if (settings := config.get("parameters")) and settings.get("route_mappings"):
        raise ModelProblem("its Router has route_mappings, which are not served")
    ids = [*routes["document"], *routes["query"]]
    return [{"type": types[one], "path": str(Path(path) / one)} for one in ids]


def _last(name: Any) -> str:
    return name.rpartition(".")[2] if isinstance(name, str) else ""


def _module(directory: Path, line: dict[str, Any]) -> ModuleFiles:
    kind = line["type"].rpartition(".")[2]
    if not line["type"].startswith(_OWN) and line["type"] != PYLATE_DENSE:
        raise ModelProblem(
            f"its module {line['type']} is code of its own (type in modules.json); only sentence-transformers' modules "
            "are run"
        )
    if kind in ("Asym", "Router"):
        raise ModelProblem(f"its {kind} sends queries and documents through different modules, which is not served")
    if kind == "LogitScore":
        raise ModelProblem(
            "it is a reranker made of a language model; only those with a classification head are served"
        )
    if kind == "SparseStaticEmbedding" and "path" in read_json(directory / line["path"] / "config.json"):
        raise ModelProblem(
            "its weights of words are in another file (path in config.json); only safetensors are loaded"
        )
    folder = directory / line["path"]
    if ".." in Path(line["path"]).parts or Path(line["path"]).is_absolute():
        raise ModelProblem(f"modules.json names the folder {line['path']!r}, outside the model's directory")
    if kind == "Dense":
        _check_activation(folder / "config.json")
    return ModuleFiles(kind, folder, _weights(folder, required=kind in _WEIGHTED))


def _check_activation(file: Path) -> None:
    """sentence-transformers puts another in the place of one it does not trust: other vectors, without an error."""
    name = read_json(file).get("activation_function", _TORCH)
    if not isinstance(name, str) or not name.startswith(_TORCH):
        raise ModelProblem(f"its activation {name!r} is code of its own (in {file}); only those of torch.nn are served")


def _weights(folder: Path, *, required: bool) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    files = {folder / "model.safetensors"} if not index.is_file() else _shards(index)
    if not any(file.is_file() for file in files):
        pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
        if pickles:
            raise ModelProblem(
                f"its weights in {folder} are a pickle ({', '.join(pickles)}), which may run code when read; only "
                "safetensors are loaded"
            )
        if not required:
            return ()
    for file in sorted(files):
        check_whole(file)
    return tuple(sorted(files))


def _shards(index: Path) -> set[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelProblem(f"{index} must map tensors to files (weight_map)")
    if outside := [name for name in names.values() if Path(name).name != name]:
        raise ModelProblem(f"{index} names {outside[0]!r}, outside its folder")
    return {index.parent / name for name in names.values()}


def _check_transformer(module: ModuleFiles) -> None:
    if (module.directory / "adapter_config.json").is_file():
        raise ModelProblem("it is a PEFT adapter; merge it into its base model first")
    config = read_json(module.directory / "config.json")
    if not config:
        raise ModelProblem(f"{module.directory} holds no config.json")
    if "auto_map" in config and not _is_native(config.get("model_type")):
        raise ModelProblem(
            f"its architecture {config.get('model_type')!r} is code of its own (auto_map in config.json), "
            "which is never run"
        )
    _check_tokenizer(module.directory)


def _check_tokenizer(folder: Path) -> None:
    if read_json(folder / "sentence_bert_config.json").get("tokenizer_name_or_path"):
        raise ModelProblem("its tokenizer is in another place (tokenizer_name_or_path); copy it beside the weights")
    config = read_json(folder / "tokenizer_config.json")
    if "auto_map" in config and not _is_known_tokenizer(config.get("tokenizer_class")):
        raise ModelProblem(
            f"its tokenizer {config.get('tokenizer_class')!r} is code of its own (auto_map in tokenizer_config.json), "
            "which is never run"
        )
    if own := [name for name in _PROCESSORS if "auto_map" in read_json(folder / name)]:
        raise ModelProblem(f"its processor is code of its own (auto_map in {own[0]}), which is never run")


def _is_known_tokenizer(name: Any) -> bool:
    """Whether it is a class of transformers; the same class may go with and without "Fast" at its end."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    known = {_ANY_TOKENIZER, *(str(one).removesuffix("Fast") for one in TOKENIZER_MAPPING_NAMES.values())}
    return isinstance(name, str) and name.removesuffix("Fast") in known


def _is_native(model_type: Any) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING
