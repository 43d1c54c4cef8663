"""The service of notebook 07: three kinds of model made of the demo's one set of weights, and two pipelines over them.

    .venv/bin/python -m tools.hybrid        makes the models, and serves them until Ctrl-C

No hub is needed, and nothing is trained. `tokens` gives all-MiniLM-L6-v2's vectors of tokens as they are before their
mean is taken. `words` is a sparse model in the form of SPLADE: a document gets the weight of a word that it holds, or
whose vector in MiniLM's table of words lies near to that of one; a query's words weigh by how rare they are in the
documentation of Python's standard library. Models that were trained to be late-interaction or sparse ones do better.
"""

import argparse
import math
import os
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from examples.search_stdlib import docstrings
from tools.weights import DEFAULT_STORE, REPOSITORY, fill

FOLDER = "~/.cache/embedfleet/hybrid"
NEAR = 0.5
"""Cosine of two words' vectors from which on they count as near: at 0.5 most words have none but their own forms."""
SCALE = 10.0
"""A word's own weight is log(1 + SCALE * (1 - NEAR)), before queries weigh it."""
MOST_TOKENS = 256
"""What all-MiniLM-L6-v2 was trained with."""

MANIFEST: dict[str, Any] = {
    "apiVersion": "embedfleet.dev/v1alpha1",
    "kind": "EmbeddingService",
    "metadata": {"name": "hybrid"},
    "spec": {
        "models": [
            {"name": "semantic", "source": {"huggingFace": {"repo": REPOSITORY}}, "dtype": "Float32"},
            {"name": "words", "source": {"path": "words"}, "dtype": "Float32"},
            {"name": "tokens", "source": {"path": "tokens"}, "dtype": "Float32"},
        ],
        "pipelines": [
            {
                "name": "index",
                "steps": [
                    {"name": "chunks", "chunk": {"by": "Sentences", "size": 3, "overlap": 1}, "from": ["input"]},
                    {"name": "dense", "embed": {"model": "semantic", "input": "Document"}, "from": ["chunks"]},
                    {"name": "sparse", "embed": {"model": "words", "input": "Document"}, "from": ["chunks"]},
                    {"name": "late", "embed": {"model": "tokens", "input": "Document"}, "from": ["chunks"]},
                ],
                "outputs": ["chunks", "dense", "sparse", "late"],
            },
            {
                "name": "search",
                "steps": [
                    {"name": "dense", "embed": {"model": "semantic", "input": "Query"}, "from": ["input"]},
                    {"name": "sparse", "embed": {"model": "words", "input": "Query"}, "from": ["input"]},
                    {"name": "late", "embed": {"model": "tokens", "input": "Query"}, "from": ["input"]},
                ],
                "outputs": ["dense", "sparse", "late"],
            },
        ],
        "gpu": {"count": 0},
    },
}


def main(arguments: Sequence[str]) -> None:
    """Make what is not there yet, and become `embedfleet serve`."""
    given = _parser().parse_args(arguments)
    store = os.environ.get("EMBEDFLEET_STORE") or DEFAULT_STORE
    manifest = make(given.folder.expanduser(), fill(Path(store).expanduser()))
    if not given.only_make:
        serve = str(Path(sys.executable).with_name("embedfleet"))
        os.execv(serve, [serve, "serve", "-f", str(manifest), "--port", str(given.port)])  # noqa: S606  # it takes this process's place


def make(folder: Path, weights: Path) -> Path:
    """The manifest in `folder`, and beside it the two models, made of MiniLM's `weights` where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    _once(folder / "tokens", lambda directory: make_tokens(directory, weights))
    _once(folder / "words", lambda directory: make_words(directory, weights, documentation()))
    manifest = folder / "hybrid.yaml"
    manifest.write_text(yaml.safe_dump(MANIFEST, sort_keys=False), encoding="utf-8")
    return manifest


def documentation() -> Iterable[str]:
    """First paragraphs of the standard library's documentation."""
    return docstrings(Path(sysconfig.get_path("stdlib"))).values()


def _once(directory: Path, write: Callable[[Path], None]) -> None:
    """`directory` as `write` makes it, unless it is there; whole or not at all."""
    if not directory.exists():
        with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
            made = Path(folder) / directory.name
            write(made)
            made.rename(directory)


def make_tokens(directory: Path, weights: Path) -> None:
    """A late-interaction model: the transformer in `weights`, each token's vector with length 1."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize, Transformer

    transformer = Transformer(str(weights), max_seq_length=MOST_TOKENS)
    modules = [transformer, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    MultiVectorEncoder(modules=modules, device="cpu").save(str(directory), create_model_card=False)


def make_words(directory: Path, weights: Path, texts: Iterable[str]) -> None:
    """A sparse model: a query's words weigh by how rare they are in `texts`, a document's by how near (`looked_up`)."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules.router import Router
    from sentence_transformers.sentence_transformer.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(weights)
    table = AutoModel.from_pretrained(weights).get_input_embeddings().weight.detach()
    with tempfile.TemporaryDirectory() as bare:
        looked_up(table, tokenizer.all_special_ids).save_pretrained(bare)
        tokenizer.save_pretrained(bare)
        transformer = Transformer(bare, transformer_task="fill-mask", max_seq_length=MOST_TOKENS)
    document = [transformer, SpladePooling()]
    query = SparseStaticEmbedding(tokenizer, rarity(tokenizer, texts), frozen=True)
    router = Router.for_query_document([query], document, default_route="document")
    SparseEncoder(modules=[router], device="cpu").save(str(directory), create_model_card=False)


def looked_up(table: Any, special: Sequence[int]) -> Any:
    """A BERT of no layers: a token's logit for a word is SCALE * (cosine of their rows in `table` - NEAR)."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    words, width = table.shape
    rows = table - table.mean(dim=1, keepdim=True)
    config = BertConfig(
        vocab_size=words, hidden_size=width, num_hidden_layers=0, num_attention_heads=1, intermediate_size=width,
        hidden_act="linear",
    )  # fmt: skip
    made = BertForMaskedLM(config)
    made.train(mode=False)
    embeddings, head = made.bert.embeddings, made.cls.predictions
    with torch.no_grad():
        for one in (embeddings.position_embeddings, embeddings.token_type_embeddings):
            one.weight.zero_()
        # Rows of mean 0 and length sqrt(width), which LayerNorm leaves as they are.
        embeddings.word_embeddings.weight.copy_(rows / rows.norm(dim=1, keepdim=True) * math.sqrt(width))
        head.transform.dense.weight.copy_(torch.eye(width))
        head.transform.dense.bias.zero_()
        head.transform.LayerNorm.weight.fill_(SCALE / width)
        head.bias.fill_(-SCALE * NEAR)
        head.bias[list(special)] = -2 * SCALE  # they stand in every text, and tell nothing
    return made


def rarity(tokenizer: Any, texts: Iterable[str]) -> Any:
    """A weight for each word, (vocabulary,): BM25's inverse document frequency in `texts`; 0 for special tokens."""
    import torch

    ids = tokenizer([*texts], add_special_tokens=False)["input_ids"]
    found = Counter(one for own in ids for one in set(own))
    counts = torch.tensor([found[one] for one in range(len(tokenizer))], dtype=torch.float32)
    weights = torch.log(1 + (len(ids) - counts + 0.5) / (counts + 0.5))
    weights[tokenizer.all_special_ids] = 0.0
    return weights


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.hybrid", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), help=f"where the models are kept ({FOLDER})")
    parser.add_argument(
        "--only-make", action="store_true", help="make the models and their manifest, and serve nothing"
    )
    parser.add_argument("--port", type=int, default=8080, help="of the service; 0 takes a free one")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
