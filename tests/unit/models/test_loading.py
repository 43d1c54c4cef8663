"""A loaded model is what its files say, with the manifest's fields put over them."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from embedfleet.api.models import ModelSpec, Prompts, Source
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.models.dense import DenseModel
from embedfleet_server.models.device import hardware
from embedfleet_server.models.files import float32_bytes
from embedfleet_server.models.loading import loader
from embedfleet_server.models.precision import Hardware, candidates
from tests.support.loading import load
from tests.support.tiny_models import MAX_TOKENS, PROMPTS, WIDTH, make_bert, make_xlm_roberta

TEXTS = ["a short text", "another one that is a little longer than the first"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "plain", prompts=PROMPTS, default_prompt="document")


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "unit", normalize=True)


def lengths(model: DenseModel) -> NDArray[np.float32]:
    made: NDArray[np.float32] = np.linalg.norm(model.forward(model.encode(TEXTS, "")), axis=1)
    return made


def test_info_tells_what_the_files_say(directory: Path) -> None:
    """Nothing set in the manifest: everything is the model's own."""
    info = load(directory).info
    assert (info.name, info.task, info.precision, info.device) == ("tiny", "Dense", "float32", "cpu")
    assert (info.dimensions, info.native_dimensions, info.matryoshka) == (WIDTH, WIDTH, ())
    assert (info.max_tokens, info.normalized, info.revision) == (MAX_TOKENS, False, None)
    assert (dict(info.prompts), info.default_prompt) == (PROMPTS, "document")


def test_rows_are_float32_and_contiguous(directory: Path) -> None:
    """Whatever the precision of the forward, rows are what the wire carries."""
    for dtype in ("Float32", "BFloat16", "Float16"):
        model = load(directory, dtype=dtype)
        rows = model.forward(model.encode(TEXTS, ""))
        assert rows.shape == (2, WIDTH)
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        assert model.info.precision == dtype.lower()


def test_normalize_adds_a_normalization(directory: Path) -> None:
    """`normalize: true` gives vectors of length 1 to a model that has none."""
    assert lengths(load(directory)) != pytest.approx(np.ones(2))
    model = load(directory, normalize=True)
    assert lengths(model) == pytest.approx(np.ones(2))
    assert model.info.normalized


def test_normalize_takes_the_normalization_away(unit: Path) -> None:
    """`normalize: false` gives the vectors before a model's Normalize."""
    assert lengths(load(unit)) == pytest.approx(np.ones(2))
    model = load(unit, normalize=False)
    assert lengths(model) != pytest.approx(np.ones(2))
    assert not model.info.normalized


def test_unit_vectors_are_exact_in_low_precision(unit: Path) -> None:
    """The last normalisation is computed in float32, so that dot products are cosines."""
    assert lengths(load(unit, dtype="BFloat16")) == pytest.approx(np.ones(2), abs=1e-6)


def test_prompts_of_the_manifest_win_by_name(directory: Path) -> None:
    """One prompt is replaced, the other stays the model's own."""
    info = load(directory, prompts=Prompts(query="ask: ")).info
    assert dict(info.prompts) == {"query": "ask: ", "document": PROMPTS["document"]}


def test_max_tokens_lowers_the_limit(directory: Path) -> None:
    """Inputs are cut at the manifest's limit, special tokens included."""
    encoded = load(directory, max_tokens=8).encode(["self " * 20], "")[0]
    assert (len(encoded.token_ids), encoded.truncated) == (8, True)


def test_max_tokens_cannot_raise_the_limit(directory: Path) -> None:
    """The model has no positions for more."""
    with pytest.raises(ModelLoadFailed, match=f"maxTokens is {MAX_TOKENS + 1} .* limit is {MAX_TOKENS}"):
        load(directory, max_tokens=MAX_TOKENS + 1)


def test_max_tokens_must_leave_room(directory: Path) -> None:
    """A limit that the special tokens fill embeds nothing."""
    with pytest.raises(ModelLoadFailed, match="leaves no room"):
        load(directory, max_tokens=2)


def test_the_table_of_positions_is_a_limit_too(tmp_path: Path) -> None:
    """RoBERTa's kin have two positions fewer than their table; the longest input that is let in can be computed."""
    model = load(make_xlm_roberta(tmp_path / "tiny", state_length=False))
    assert model.info.max_tokens == MAX_TOKENS
    rows = model.forward(model.encode(["self " * 100], ""))
    assert np.isfinite(rows).all()


def test_dimensions_are_checked_against_the_models(directory: Path) -> None:
    """Fewer is the operator's choice, more cannot be had."""
    assert load(directory, dimensions=16).info.dimensions == 16
    with pytest.raises(ModelLoadFailed, match=f"dimensions is {WIDTH + 1} and the model's vectors have {WIDTH}"):
        load(directory, dimensions=WIDTH + 1)


def test_stated_matryoshka_dimensions_bind(tmp_path: Path) -> None:
    """Where the files say what the model was trained for, another size is refused with the list."""
    directory = make_bert(tmp_path / "tiny")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"matryoshka_dimensions": [16, 8, 9999]}))
    assert load(directory, dimensions=16).info.matryoshka == (8, 16)
    assert load(directory).info.dimensions == WIDTH
    with pytest.raises(ModelLoadFailed, match="dimensions is 12; the model can be cut to 8, 16"):
        load(directory, dimensions=12)


def test_a_missing_tensor_is_an_error(tmp_path: Path) -> None:
    """transformers would fill it with random numbers and warn."""
    directory = make_bert(tmp_path / "tiny")
    file = directory / "model.safetensors"
    tensors = load_file(file)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelLoadFailed, match=r"lack 1 tensors .* encoder.layer.1.output.dense.weight"):
        load(directory)


def test_a_missing_pooler_is_none(tmp_path: Path) -> None:
    """The architecture's own pooler takes no part in the vectors, and many files leave it out."""
    directory = make_bert(tmp_path / "tiny")
    expected = lengths(load(directory))
    file = directory / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("pooler.")}
    save_file(tensors, file, metadata={"format": "pt"})
    assert lengths(load(directory)) == pytest.approx(expected)


def test_a_tensor_that_is_not_finite_is_found_at_load(tmp_path: Path) -> None:
    """Weights that compute NaN fail the model, not its requests."""
    directory = make_bert(tmp_path / "tiny")
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors["embeddings.LayerNorm.weight"].fill_(float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelLoadFailed, match="not finite"):
        load(directory)


def test_without_a_gpu_the_cpu_computes_and_a_warning_says_so(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One manifest works on a laptop too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING, logger="embedfleet_server"):
        assert load(directory, gpu_count=1).info.device == "cpu"
    assert "torch finds none" in caplog.text


@pytest.mark.requirement("B12")
def test_every_failure_names_the_model_and_the_cause(tmp_path: Path) -> None:
    """Whatever a library raises becomes `ModelLoadFailed`, with its type where the cause is not ours to word."""
    directory = make_bert(tmp_path / "tiny")
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelLoadFailed, match=r"model 'tiny' could not be loaded: \w+: ") as caught:
        load(directory)
    assert caught.value.name == "tiny"


def test_a_plain_transformer_is_pooled_as_sentence_transformers_does(tmp_path: Path) -> None:
    """Without modules.json: the mean of its tokens."""
    directory = make_bert(tmp_path / "tiny")
    expected = load(directory)
    (directory / "modules.json").unlink()
    bare = load(directory)
    rows, wanted = (model.forward(model.encode(TEXTS, "")) for model in (bare, expected))
    assert np.allclose(rows, wanted, atol=1e-5)


def test_close_gives_the_weights_back(directory: Path) -> None:
    """Nothing of the modules stays with a closed model."""
    model = load(directory)
    model.close()
    with pytest.raises(IndexError):
        model.forward(model.encode(TEXTS, ""))


def test_the_size_in_float32_is_told_by_the_headers(tmp_path: Path) -> None:
    """Whatever the type of the file's tensors: four bytes for each number."""
    made = {"a": torch.zeros(3, 5, dtype=torch.bfloat16), "b": torch.zeros(7), "c": torch.zeros(2, dtype=torch.float64)}
    save_file(made, tmp_path / "model.safetensors")
    assert float32_bytes([tmp_path / "model.safetensors"]) == 4 * (15 + 7 + 2)


def test_a_processor_tells_what_it_multiplies(tmp_path: Path) -> None:
    """As the kernel lists it, on x86 and on Arm; a system without such a file tells nothing."""
    file = tmp_path / "cpuinfo"
    for line in ("flags\t\t: fpu avx512_bf16 amx_bf16", "Features\t: asimd bf16"):
        file.write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
        assert candidates(hardware("cpu", file)) == ("bfloat16",)
    assert hardware("cpu", tmp_path / "missing") == Hardware()


def test_without_room_for_two_only_one_is_loaded(directory: Path, tmp_path: Path) -> None:
    """A named half precision is then served unchecked, and says so."""
    spec = ModelSpec(name="tiny", source=Source(path=str(directory)), dtype="BFloat16")
    tight = loader(spec, store=tmp_path, offline=True, gpu_count=0, room=lambda: 1000.0)()
    wide = loader(spec, store=tmp_path, offline=True, gpu_count=0)()
    assert "not compared with float32" in tight.info.precision_reason
    assert "cosine 0.99" in wide.info.precision_reason
