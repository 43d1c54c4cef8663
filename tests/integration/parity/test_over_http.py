"""What the routes answer equals what sentence-transformers computes for the same directories (S2, S3)."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from transformers import AutoTokenizer

from embedfleet_server.engine.protocols import Model, Pair
from tests.support.loading import load_any
from tests.support.served import Served, run, serving
from tests.support.texts import mixed_texts
from tests.support.tiny_models import make_bert
from tests.support.tiny_tasks import make_multi_vector, make_reranker, make_sparse

pytestmark = [pytest.mark.requirement("S1"), pytest.mark.requirement("S2"), pytest.mark.requirement("S3")]
TEXTS = mixed_texts(40)
MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "dense": make_bert, "sparse": make_sparse, "late": make_multi_vector, "rerank": make_reranker,
}  # fmt: skip


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {name: make(root / name) for name, make in MAKERS.items()}


def loaders(directories: Mapping[str, Path]) -> dict[str, Callable[[], Model]]:
    return {name: lambda path=path: load_any(path) for name, path in directories.items()}  # type: ignore[misc]


async def ask(served: Served, path: str, **fields: Any) -> Any:
    reply = await served.ask("POST", path, data=json.dumps(fields), headers={"Content-Type": "application/json"})
    assert reply.status == 200, reply.body
    return reply.json


def test_every_task(directories: dict[str, Path]) -> None:
    """Sparse, multi-vector and rerank models side by side with a dense one, each at its route, none named."""
    sparse = np.asarray(SparseEncoder(str(directories["sparse"]), device="cpu").encode(TEXTS).to_dense())
    late = MultiVectorEncoder(str(directories["late"]), device="cpu")
    queries, documents = late.encode_query(TEXTS), late.encode_document(TEXTS)
    order = CrossEncoder(str(directories["rerank"]), device="cpu").rank(TEXTS[0], TEXTS)

    async def main() -> None:
        async with serving(loaders(directories)) as served:
            made = np.zeros_like(sparse)
            for row, entries in zip(made, await ask(served, "/embed_sparse", inputs=TEXTS), strict=True):
                row[[entry["index"] for entry in entries]] = [entry["value"] for entry in entries]
            np.testing.assert_allclose(made, sparse, atol=1e-4)
            for kind, wanted in (("query", queries), ("document", documents)):
                rows = await ask(served, "/embed_all", inputs=TEXTS, input_type=kind)
                for row, own in zip(rows, wanted, strict=True):
                    np.testing.assert_allclose(np.array(row, np.float32), np.asarray(own), atol=1e-4)
            ranked = await ask(served, "/rerank", query=TEXTS[0], texts=TEXTS)
            by_index = {entry["corpus_id"]: entry["score"] for entry in order}
            assert [entry["score"] for entry in ranked] == sorted((entry["score"] for entry in ranked), reverse=True)
            for entry in ranked:
                assert entry["score"] == pytest.approx(by_index[entry["index"]], abs=1e-4)

    run(main())


def test_the_end_that_is_cut(directories: dict[str, Path]) -> None:
    """`truncation_direction: Left` gives what a tokenizer with `truncation_side` left gives, for texts and pairs."""
    encoder: Any = SentenceTransformer(str(directories["dense"]), device="cpu")
    encoder.tokenizer.truncation_side = "left"
    long = [" ".join(TEXTS[i : i + 12]) for i in range(4)]
    tokenizer: Any = AutoTokenizer.from_pretrained(directories["rerank"], truncation_side="left")
    model = load_any(directories["rerank"])
    limit = model.info.max_tokens
    wanted = tokenizer([TEXTS[0]] * 4, long, truncation="longest_first", max_length=limit)["input_ids"]
    pairs = model.encode([Pair(TEXTS[0], text) for text in long], "", None, "left")
    assert [list(one.token_ids) for one in pairs] == wanted
    assert all(one.truncated for one in pairs)

    async def main() -> None:
        async with serving(loaders({"dense": directories["dense"]})) as served:
            left = await ask(served, "/embed", inputs=long, truncation_direction="Left", normalize=False)
            np.testing.assert_allclose(np.array(left, np.float32), encoder.encode(long), atol=1e-4)
            right = await ask(served, "/embed", inputs=long, truncation_direction="Right", normalize=False)
            assert not np.allclose(left, right, atol=1e-3)

    run(main())


@pytest.mark.parametrize("name", MAKERS)
def test_tokens(directories: dict[str, Path], name: str) -> None:
    """Ids as transformers' tokenizer gives them, each token's place in the text's UTF-8, and the way back."""
    tokenizer: Any = AutoTokenizer.from_pretrained(directories[name])
    texts = ["self return", "né \U0001f600 raise", "word " * 300]

    async def main() -> None:
        async with serving(loaders({name: directories[name]})) as served:
            rows = await ask(served, "/tokenize", inputs=texts)
            assert [[token["id"] for token in row] for row in rows] == tokenizer(texts)["input_ids"]
            for row, text in zip(rows, texts, strict=True):
                for token in row:
                    if token["special"]:
                        assert (token["start"], token["stop"]) == (None, None)
                    else:
                        assert text.encode()[token["start"] : token["stop"]].decode() == token["text"]
            plain = await ask(served, "/tokenize", inputs=texts, add_special_tokens=False)
            ids = [[token["id"] for token in row] for row in plain]
            assert ids == tokenizer(texts, add_special_tokens=False)["input_ids"]
            assert await ask(served, "/decode", ids=ids) == tokenizer.backend_tokenizer.decode_batch(ids)

    run(main())
