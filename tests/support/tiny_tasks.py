"""Small sparse, multi-vector and rerank models in sentence-transformers' layout; see `tiny_models`."""

import json
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.modules.router import Router
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.multi_vector_encoder.modules.token_pooling import HierarchicalTokenPooling
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SparseStaticEmbedding, SpladePooling
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertModel,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertModel,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

from tests.support.tiny_models import (
    MAX_TOKENS,
    SIZES,
    WIDTH,
    byte_level,
    modern_bert_config,
    seeded,
    unigram,
    word_piece,
)

LATE_WIDTH = 16
"""Length of the vectors of multi-vector models."""
MARKERS = {"query": "[Q] ", "document": "[D] "}
"""Prompts of multi-vector models."""
FAMILIES = ("bert", "distil-bert", "xlm-roberta", "modern-bert")
"""Architectures that every task is made of."""

_BASES: Mapping[str, type[PreTrainedModel]] = {
    "bert": BertModel,
    "distil-bert": DistilBertModel,
    "xlm-roberta": XLMRobertaModel,
    "modern-bert": ModernBertModel,
}
_WITH_WORDS: Mapping[str, type[PreTrainedModel]] = {
    "bert": BertForMaskedLM,
    "distil-bert": DistilBertForMaskedLM,
    "xlm-roberta": XLMRobertaForMaskedLM,
    "modern-bert": ModernBertForMaskedLM,
}
_WITH_LABELS: Mapping[str, type[PreTrainedModel]] = {
    "bert": BertForSequenceClassification,
    "distil-bert": DistilBertForSequenceClassification,
    "xlm-roberta": XLMRobertaForSequenceClassification,
    "modern-bert": ModernBertForSequenceClassification,
    "mpnet": MPNetForSequenceClassification,
    "decoder": Qwen3ForSequenceClassification,
}


def make_sparse(
    directory: Path,
    *,
    family: str = "bert",
    pooling: str = "max",
    activation: str = "relu",
    max_active: int | None = None,
    prompts: Mapping[str, str] | None = None,
) -> Path:
    """A SPLADE of one of the families."""
    transformer = Transformer(str(_bare(directory, _WITH_WORDS[family], family)), transformer_task="fill-mask")
    modules = [transformer, SpladePooling(pooling, activation)]  # type: ignore[arg-type]
    return _save_sparse(directory, modules, max_active_dims=max_active, prompts=dict(prompts or {}))


def make_auto_encoder(directory: Path, *, kept: int = 12, include_prompt: bool = True, **settings: Any) -> Path:
    """A sparse auto-encoder on the mean of a BERT's tokens, that keeps so many dimensions."""
    torch.manual_seed(7)
    encoder = SparseAutoEncoder(WIDTH, hidden_dim=4 * WIDTH, k=kept)
    transformer = Transformer(str(_bare(directory, BertModel, "bert")))
    pooling = Pooling(WIDTH, "mean", include_prompt=include_prompt)
    return _save_sparse(directory, [transformer, pooling, encoder], **settings)


def make_inference_free(directory: Path, *, max_active: int | None = None, default: str | None = "document") -> Path:
    """A SPLADE whose queries are words with weights that are looked up."""
    bare = _bare(directory, BertForMaskedLM, "bert")
    document = [Transformer(str(bare), transformer_task="fill-mask"), SpladePooling()]
    tokenizer: Any = _tokenizer("bert")
    weights = torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(3))
    query = SparseStaticEmbedding(tokenizer, weights.masked_fill(weights < 0.1, 0), frozen=True)
    router = Router.for_query_document([query], document, default_route=default, allow_empty_key=default is not None)
    return _save_sparse(directory, [router], max_active_dims=max_active)


def make_multi_vector(
    directory: Path,
    *,
    family: str = "bert",
    expansion: Mapping[str, Any] | None = None,
    query_length: int | None = None,
    document_length: int | None = None,
    skipped: Sequence[str] = tuple(string.punctuation),
    skipped_of: Sequence[str] = ("document",),
    pooled: int | None = None,
) -> Path:
    """A ColBERT of one of the families, with each part that its files may ask for."""
    transformer = Transformer(
        str(_bare(directory, _BASES[family], family)),
        query_expansion=expansion,
        query_length=query_length,
        document_length=document_length,
    )
    mask = MultiVectorMask(list(skipped), skiplist_tasks=list(skipped_of))
    modules = [transformer, _projection(), mask, Normalize(module_input_name="token_embeddings")]
    if pooled is not None:
        modules.append(HierarchicalTokenPooling(pooled))
    made = MultiVectorEncoder(modules=modules, device="cpu", prompts=dict(MARKERS))
    made.save(str(directory), create_model_card=False)
    return directory


def make_pylate(directory: Path, *, states_type: bool = True) -> Path:
    """A directory as PyLate writes it: its own name for the projection, its settings at the top."""
    transformer = Transformer(str(_bare(directory, BertModel, "bert")))
    made = MultiVectorEncoder(modules=[transformer, _projection()], device="cpu")
    made.save(str(directory), create_model_card=False)
    modules = json.loads((directory / "modules.json").read_text())
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (directory / "modules.json").write_text(json.dumps(modules))
    config = {
        "query_prefix": "[MASK] ",
        "document_prefix": "[D] ",
        "query_length": 16,
        "document_length": 40,
        "attend_to_expansion_tokens": False,
        "skiplist_words": [",", "."],
        "prompts": {},
        **({"model_type": "ColBERT"} if states_type else {}),
    }
    (directory / "config_sentence_transformers.json").write_text(json.dumps(config))
    return directory


def make_stanford(directory: Path) -> Path:
    """A ColBERT as Stanford's own code writes it: the projection beside the transformer's weights."""
    tokenizer = _tokenizer("bert")
    made = seeded(BertModel, _config("bert", tokenizer))
    made.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    weights = {f"bert.{name}": tensor.contiguous() for name, tensor in made.state_dict().items()}
    weights["linear.weight"] = _projection().linear.weight.detach().clone()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]}
    (directory / "config.json").write_text(json.dumps(config))
    settings = {"query_token_id": "[MASK]", "doc_token_id": "[SEP]", "doc_maxlen": 40, "query_maxlen": 16}
    (directory / "artifact.metadata").write_text(json.dumps(settings))
    return directory


def make_reranker(
    directory: Path,
    *,
    family: str = "bert",
    labels: int = 1,
    activation: torch.nn.Module | None = None,
    prompts: Mapping[str, str] | None = None,
    **config: Any,
) -> Path:
    """A cross-encoder of one of the families, of MPNet, or of a decoder, whose head reads the last token."""
    bare = _bare(directory, _WITH_LABELS[family], family, num_labels=labels, **config)
    transformer = Transformer(str(bare), transformer_task="sequence-classification")
    made = CrossEncoder(modules=[transformer], device="cpu", activation_fn=activation, prompts=dict(prompts or {}))
    made.save(str(directory), create_model_card=False)
    return directory


def make_modular_reranker(directory: Path) -> Path:
    """A cross-encoder whose head is modules of sentence-transformers: the mean of the tokens, and a layer."""
    torch.manual_seed(13)
    transformer = Transformer(str(_bare(directory, BertModel, "bert")))
    scores = Dense(WIDTH, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    made = CrossEncoder(modules=[transformer, Pooling(WIDTH, "mean"), scores], device="cpu")
    made.save(str(directory), create_model_card=False)
    return directory


def make_bare_reranker(directory: Path, *, activation: str | None = None) -> Path:
    """As older cross-encoders are: transformers' files alone, the activation in config.json."""
    return _bare(
        directory, BertForSequenceClassification, "bert", at=directory, num_labels=1,
        **({} if activation is None else {"sbert_ce_default_activation_function": activation}),
    )  # fmt: skip


SPARSE: dict[str, Callable[[Path], Path]] = {
    **{f"splade-{family}": lambda path, family=family: make_sparse(path, family=family) for family in FAMILIES},  # type: ignore[misc]
    "splade-sum": lambda path: make_sparse(path, pooling="sum"),
    "splade-twice": lambda path: make_sparse(path, activation="log1p_relu"),
    "splade-strongest": lambda path: make_sparse(path, max_active=20),
    "inference-free": make_inference_free,
    "auto-encoder": make_auto_encoder,
    "auto-encoder-strongest": lambda path: make_auto_encoder(path, max_active_dims=5),
}
"""Every tiny sparse model by name."""

MULTI_VECTOR: dict[str, Callable[[Path], Path]] = {
    **{f"late-{family}": lambda path, family=family: make_multi_vector(path, family=family) for family in FAMILIES},  # type: ignore[misc]
    "late-lengths": lambda path: make_multi_vector(path, query_length=8, document_length=24),
    "late-skips-nothing": lambda path: make_multi_vector(path, skipped=()),
    "late-skips-in-queries": lambda path: make_multi_vector(path, skipped_of=("query", "document")),
    "late-fixed": lambda path: make_multi_vector(path, expansion={"strategy": "fixed", "length": 16}),
    "late-fixed-attending": lambda path: make_multi_vector(
        path, expansion={"strategy": "fixed", "length": 16, "attend": True}, document_length=48
    ),
    "late-fixed-xlm-roberta": lambda path: make_multi_vector(
        path, family="xlm-roberta", expansion={"strategy": "fixed", "length": 16, "token": "<mask>"}
    ),
    "late-least": lambda path: make_multi_vector(path, expansion={"strategy": "min", "length": 16}, query_length=32),
    "late-least-attending": lambda path: make_multi_vector(
        path, family="modern-bert", expansion={"strategy": "min", "length": 16, "attend": True}
    ),
    "late-pooled": lambda path: make_multi_vector(path, pooled=2),
    "pylate": make_pylate,
    "pylate-untyped": lambda path: make_pylate(path, states_type=False),
    "stanford": make_stanford,
}
"""Every tiny multi-vector model by name."""

RERANK: dict[str, Callable[[Path], Path]] = {
    **{f"rerank-{family}": lambda path, family=family: make_reranker(path, family=family) for family in FAMILIES},  # type: ignore[misc]
    "rerank-modern-bert-mean": lambda path: make_reranker(path, family="modern-bert", classifier_pooling="mean"),
    "rerank-mpnet": lambda path: make_reranker(path, family="mpnet"),
    "rerank-decoder": lambda path: make_reranker(path, family="decoder"),
    "rerank-modules": make_modular_reranker,
    "rerank-raw": lambda path: make_reranker(path, activation=torch.nn.Identity()),
    "rerank-tanh": lambda path: make_reranker(path, activation=torch.nn.Tanh()),
    "rerank-three": lambda path: make_reranker(path, labels=3),
    "rerank-three-shares": lambda path: make_reranker(path, labels=3, activation=torch.nn.Softmax(dim=1)),
    "rerank-bare": make_bare_reranker,
    "rerank-bare-raw": lambda path: make_bare_reranker(path, activation="torch.nn.modules.linear.Identity"),
}
"""Every tiny reranker by name."""


def _bare(directory: Path, kind: type[PreTrainedModel], family: str, *, at: Path | None = None, **config: Any) -> Path:
    """Transformers' own files, beside the directory that is to be made, or `at` a place."""
    tokenizer = _tokenizer(family)
    bare = at or directory.with_name(f"{directory.name}.transformer")
    seeded(kind, _config(family, tokenizer, **config)).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    return bare


def _tokenizer(family: str) -> PreTrainedTokenizerFast:
    if family == "xlm-roberta":
        return unigram(pairs=True)
    if family == "modern-bert":
        return byte_level(
            ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"), "[CLS] $A [SEP]", "[PAD]",
            pair="[CLS] $A [SEP] $B [SEP]", mask="[MASK]", types=False,
        )  # fmt: skip
    if family == "decoder":
        return byte_level(
            ("<|endoftext|>", "<|pad|>"), "$A <|endoftext|>", "<|pad|>", pair="$A $B <|endoftext|>", types=False
        )
    if family == "mpnet":
        special = ("<s>", "</s>", "<pad>", "<unk>")
        return word_piece(*special, leading=("<s>", "<pad>", "</s>", "<unk>"), pairs=True, types=False)
    return word_piece("[CLS]", "[SEP]", "[PAD]", "[UNK]", pairs=True, types=family == "bert")


def _config(family: str, tokenizer: PreTrainedTokenizerFast, **more: Any) -> Any:
    if family == "xlm-roberta":
        return XLMRobertaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS + 2, pad_token_id=1, **SIZES, **more
        )
    if family == "mpnet":
        return MPNetConfig(
            vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS + 2, pad_token_id=1, **SIZES, **more
        )
    if family == "decoder":
        return Qwen3Config(
            vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, num_key_value_heads=2, head_dim=8,
            pad_token_id=1, eos_token_id=0, bos_token_id=0, **SIZES, **more,
        )  # fmt: skip
    if family == "modern-bert":
        return modern_bert_config(tokenizer, **more)
    if family == "distil-bert":
        return DistilBertConfig(
            vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, dim=WIDTH, n_layers=2, n_heads=4,
            hidden_dim=48, **more,
        )  # fmt: skip
    return BertConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, **SIZES, **more)


def _projection() -> Dense:
    torch.manual_seed(11)
    made: Dense = Dense(
        WIDTH, LATE_WIDTH, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
    )
    return made


def _save_sparse(directory: Path, modules: Sequence[torch.nn.Module], **settings: Any) -> Path:
    made = SparseEncoder(modules=list(modules), device="cpu", **settings)
    made.save(str(directory), create_model_card=False)
    return directory
