"""Which task a model is for is read from its own files, and a manifest can only say the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from embedfleet.api.models import Task
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.tasks import Evidence, choose, evidence
from tests.support.loading import load_any
from tests.support.tiny_models import make_bert
from tests.support.tiny_tasks import (
    make_bare_reranker,
    make_inference_free,
    make_multi_vector,
    make_pylate,
    make_reranker,
    make_sparse,
)

pytestmark = pytest.mark.requirement("S3")
_MODULES = "sentence_transformers.models."
_PLAIN = (f"{_MODULES}Transformer", f"{_MODULES}Pooling")


@pytest.mark.parametrize(
    ("found", "task"),
    [
        (Evidence("SentenceTransformer", _PLAIN), "Dense"),
        (Evidence(None, _PLAIN), "Dense"),
        (Evidence("SparseEncoder", _PLAIN), "Sparse"),
        (Evidence("MultiVectorEncoder", _PLAIN), "MultiVector"),
        (Evidence("ColBERT", _PLAIN), "MultiVector"),
        (Evidence("CrossEncoder", _PLAIN), "Rerank"),
        (Evidence(None, (*_PLAIN, f"{_MODULES}SpladePooling")), "Sparse"),
        (Evidence(None, (f"{_MODULES}MLMTransformer",)), "Sparse"),
        (Evidence("SentenceTransformer", (*_PLAIN, f"{_MODULES}MultiVectorMask")), "MultiVector"),
        (Evidence(None, (*_PLAIN, "pylate.models.Dense.Dense")), "MultiVector"),
        (Evidence(None, _PLAIN, config_keys=frozenset({"query_prefix"})), "MultiVector"),
        (Evidence(architectures=("BertForSequenceClassification",)), "Rerank"),
        (Evidence(architectures=("HF_ColBERT",)), "MultiVector"),
        (Evidence(architectures=("BertForMaskedLM",)), "Dense"),
        (Evidence(architectures=("BertModel",)), "Dense"),
        (Evidence(), "Dense"),
    ],
)
def test_each_sign_shows_its_task(found: Evidence, task: Task) -> None:
    """The type stated first, then modules, then the architecture; and the manifest may say it too."""
    assert choose(found, None) == task
    assert choose(found, task) == task


@pytest.mark.parametrize("asked", ["Dense", "Sparse", "MultiVector", "Rerank"])
@pytest.mark.parametrize("kind", ["SentenceTransformer", "SparseEncoder", "MultiVectorEncoder", "CrossEncoder"])
def test_a_contradiction_names_both(kind: str, asked: Task) -> None:
    """What the files say cannot be overridden."""
    found = Evidence(kind, _PLAIN)
    if choose(found, None) != asked:
        with pytest.raises(ModelProblem, match=rf"task is {asked} and its own files say \w+: model_type '{kind}'"):
            choose(found, asked)


def test_what_files_leave_open_the_manifest_says() -> None:
    """A masked language model without modules.json serves both: its mean, and its words."""
    assert choose(Evidence(architectures=("BertForMaskedLM",)), "Sparse") == "Sparse"
    with pytest.raises(ModelProblem, match="task is Rerank and its own files say Dense: architecture BertForMaskedLM"):
        choose(Evidence(architectures=("BertForMaskedLM",)), "Rerank")
    with pytest.raises(ModelProblem, match="task is Sparse and its own files say Dense: a plain transformer"):
        choose(Evidence(), "Sparse")


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (Evidence("HologramEncoder", _PLAIN), "model_type 'HologramEncoder'"),
        (Evidence(architectures=("BertForTokenClassification",)), "architecture BertForTokenClassification"),
    ],
)
def test_what_is_unknown_is_named(found: Evidence, named: str) -> None:
    """Nobody guesses; a dense use of it is the operator's word."""
    with pytest.raises(ModelProblem, match=f"do not say which task it is for: they show .*{named}; set task"):
        choose(found, None)
    assert choose(found, "Dense") == "Dense"


def test_directories_are_read(tmp_path: Path) -> None:
    """What sentence-transformers, PyLate and transformers write is recognised."""
    made = {
        make_bert(tmp_path / "dense"): "Dense",
        make_sparse(tmp_path / "sparse"): "Sparse",
        make_multi_vector(tmp_path / "late"): "MultiVector",
        make_pylate(tmp_path / "pylate", states_type=False): "MultiVector",
        make_reranker(tmp_path / "rerank"): "Rerank",
        make_bare_reranker(tmp_path / "bare"): "Rerank",
    }
    assert {path: choose(evidence(path), None) for path in made} == made


def test_files_of_the_wrong_shape_show_nothing(tmp_path: Path) -> None:
    """Rubbish where a text should be is no sign, and breaks nothing."""
    for name, content in {
        "config_sentence_transformers.json": {"model_type": 7},
        "config.json": {"architectures": "Bert"},
        "modules.json": {"not": "a list"},
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert evidence(tmp_path) == Evidence(None, (), (), frozenset({"model_type"}))


def test_a_contradiction_fails_the_load(tmp_path: Path) -> None:
    """The manifest's task reaches the loader."""
    with pytest.raises(ModelLoadFailed, match="task is Sparse and its own files say Rerank"):
        load_any(make_reranker(tmp_path / "tiny"), task="Sparse")


@pytest.mark.parametrize("fields", [{"dimensions": 8}, {"normalize": True}])
def test_fields_of_dense_models_are_refused_elsewhere(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A field that would do nothing is an error."""
    with pytest.raises(
        ModelLoadFailed, match=f"{next(iter(fields))} can be set for Dense models only; this one is Sparse"
    ):
        load_any(make_sparse(tmp_path / "tiny"), **fields)


def test_a_reranker_made_of_a_language_model_is_refused(tmp_path: Path) -> None:
    """Its score is the chance of a word, asked for in a chat template."""
    directory = make_reranker(tmp_path / "tiny")
    modules = json.loads((directory / "modules.json").read_text())
    modules.append({"idx": 1, "name": "1", "path": "1_LogitScore", "type": f"{_MODULES}LogitScore"})
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelLoadFailed, match="a reranker made of a language model"):
        load_any(directory)


def test_a_router_needs_a_default(tmp_path: Path) -> None:
    """An input without an input type must have a way to go."""
    with pytest.raises(ModelLoadFailed, match="its Router has no default route"):
        load_any(make_inference_free(tmp_path / "tiny", default=None))
    assert load_any(make_inference_free(tmp_path / "query", default="query")).info.fingerprint != (
        load_any(make_inference_free(tmp_path / "document")).info.fingerprint
    )
