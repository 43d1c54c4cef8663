"""Late chunking equals its definition: one forward of the whole document, the mean of each span's token vectors."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedfleet.api import BatchingSettings
from embedfleet.api.models import HuggingFaceSource, ModelSpec, Source
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.rows import Rows
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.engine.views import with_view
from embedfleet_server.models.loading import loader
from embedfleet_server.pipelines.driver import Pipelines
from embedfleet_server.pipelines.results import Result
from embedfleet_server.pipelines.values import Chunks, Texts
from tests.support.graphs import Plain, embed, pipeline, step
from tests.support.texts import mixed_texts
from tests.support.tiny_models import PROMPTS, make_bert, make_decoder, make_modern_bert
from tools import weights

pytestmark = pytest.mark.requirement("G1")
LEAST = 0.9999  # issue 10: cosine to the reference
BY_TOKENS = step("cut", chunk={"by": "Tokens", "size": 5, "overlap": 2})
BY_SENTENCES = step("cut", chunk={"by": "Sentences", "size": 1})
DOCUMENTS = [" ".join(mixed_texts(6)[i].split()[:14]) + ". Then this! na\u00efve caf\u00e9 is it?" for i in range(6)]


def results(spec: ModelSpec, store: Path, cut: Plain, documents: Sequence[str], **how: Any) -> list[Result]:
    """What the pipeline makes of documents, on the real engine with the real model."""

    async def main() -> list[Result]:
        config = ModelConfig("m", loader(spec, store=store, offline=True, gpu_count=0))
        engine = Engine("m", {one.name: one for one in with_view(config)}, BatchingSettings())
        await engine.start()
        graph = pipeline(cut, embed("late", "cut", model="m", late=True, **how), outputs=["cut", "late"])
        try:
            async with Pipelines(engine, [graph]).get("index").run([Texts([text]) for text in documents]) as made:
                return [result async for result in made]
        finally:
            await engine.stop(5.0)

    return asyncio.run(main())


def reference(model: SentenceTransformer, text: str, chunks: Chunks, prompt: str = "") -> Rows:
    """By sentence-transformers' own modules alone: whole document, then the mean over each chunk's tokens."""
    given = model.tokenizer(prompt + text, return_offsets_mapping=True, return_tensors="pt")
    offsets = given.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        tokens = model[0](dict(given))["token_embeddings"][0].float().numpy()
    made = []
    for piece in chunks.pieces:
        start, stop = piece.start + len(prompt), piece.stop + len(prompt)
        own = [i for i, (a, b) in enumerate(offsets) if a < b and a < stop and b > start]
        made.append(tokens[own].mean(axis=0))
    return np.stack(made)


def check(made: Sequence[Result], model: SentenceTransformer, documents: Sequence[str], prompt: str = "") -> None:
    for result, text in zip(made, documents, strict=True):
        assert result.failure is None, result.failure
        chunks, own = result.values["cut"], result.values["late"]
        assert isinstance(chunks, Chunks)
        assert isinstance(own, np.ndarray)
        wanted = reference(model, text, chunks, prompt)
        assert own.shape == wanted.shape
        lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(wanted, axis=1)
        assert ((own * wanted).sum(axis=1) / lengths).min() >= LEAST


@pytest.mark.parametrize("cut", [BY_TOKENS, BY_SENTENCES], ids=["tokens", "sentences"])
def test_tiny_models(tmp_path: Path, cut: Plain) -> None:
    """WordPiece and byte-level tokenizers, texts beyond ASCII, documents of many lengths in one batch."""
    for name, make in (("bert", lambda path: make_bert(path, normalize=True)), ("modern", make_modern_bert)):
        directory = make(tmp_path / name)
        made = results(
            ModelSpec(name="m", source=Source(path=str(directory)), dtype="Float32"), tmp_path, cut, DOCUMENTS
        )
        check(made, SentenceTransformer(str(directory), device="cpu"), DOCUMENTS)
        assert any(len(result.values["cut"].texts) > 1 for result in made)  # type: ignore[union-attr]


def test_a_prompt_stands_before_the_document(tmp_path: Path) -> None:
    """It is seen by the forward and belongs to no chunk."""
    directory = make_bert(tmp_path / "bert", prompts={**PROMPTS, "document": "pr\u00e9face: "})
    spec = ModelSpec(name="m", source=Source(path=str(directory)), dtype="Float32")
    short = [text[:40] for text in DOCUMENTS]  # what the model takes holds the prompt too
    made = results(spec, tmp_path, BY_TOKENS, short, input="Document")
    check(made, SentenceTransformer(str(directory), device="cpu"), short, "pr\u00e9face: ")


def test_a_real_model(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 on documents of some hundred tokens; the vectors have length 1 as the model's own have."""
    directory = weights.fill(tmp_path)
    spec = ModelSpec(name="m", source=Source(hugging_face=HuggingFaceSource(repo=weights.REPOSITORY)), dtype="Float32")
    documents = [". ".join(mixed_texts(40)[i::4])[:600] for i in range(4)]
    made = results(spec, tmp_path, step("cut", chunk={"by": "Tokens", "size": 32, "overlap": 8}), documents)
    check(made, SentenceTransformer(str(directory), device="cpu"), documents)
    for result in made:
        np.testing.assert_allclose(np.linalg.norm(result.values["late"], axis=1), 1, rtol=1e-5)  # type: ignore[arg-type]


def test_models_that_cannot(tmp_path: Path) -> None:
    """Another pooling than the mean, a layer behind it, too long a document: the step says what must hold."""
    for name, make, count, words in (
        ("decoder", make_decoder, 4, "takes the mean of its tokens"),
        ("dense", lambda path: make_bert(path, dense=8), 4, "no layer after its pooling"),
        ("bert", make_bert, 100, "takes it whole, at most 64 tokens"),
    ):
        spec = ModelSpec(name="m", source=Source(path=str(make(tmp_path / name))), dtype="Float32")
        (made,) = results(spec, tmp_path, BY_TOKENS, ["word " * count])
        assert made.failure is not None
        assert made.failure.step == "late"
        assert words in str(made.failure.error)
