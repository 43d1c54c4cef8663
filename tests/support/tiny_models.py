"""Small sentence-transformers directories: real architectures with seeded weights, real tokenizers built on the spot.

Nothing is downloaded. Each takes a fraction of a second, so every test may make its own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)
from transformers.utils import logging as transformers_logging

from tests.support.texts import stdlib_words

WIDTH = 32
MAX_TOKENS = 64
_SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_WORDS = 300
PROMPTS = {"query": "find the answer to: ", "document": "passage about "}


def make_bert(
    directory: Path,
    *,
    pooling: str | Sequence[str] = "mean",
    include_prompt: bool = True,
    dense: int | None = None,
    normalize: bool = False,
    prompts: Mapping[str, str] | None = None,
    default_prompt: str | None = None,
) -> Path:
    """A BERT with WordPiece; `dense` adds a projection to so many dimensions, `normalize` a last Normalize."""
    tokenizer = _word_piece("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, **_SIZES)
    transformer = _transformer(directory, BertModel, config, tokenizer)
    modules: list[torch.nn.Module] = [transformer, _pooling(pooling, include_prompt=include_prompt)]
    if dense is not None:
        modules.append(Dense(modules[1].pooling_output_dimension, dense))  # type: ignore[arg-type]
    if normalize:
        modules.append(Normalize())
    return _save(directory, modules, prompts=prompts, default_prompt_name=default_prompt)


def make_mpnet(directory: Path) -> Path:
    """An MPNet: relative positions beside learned ones, which start behind the padding's id."""
    tokenizer = _word_piece("<s>", "</s>", "<pad>", "<unk>", leading=("<s>", "<pad>", "</s>", "<unk>"))
    config = MPNetConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS + 2, pad_token_id=1, **_SIZES)
    return _save(directory, [_transformer(directory, MPNetModel, config, tokenizer), _pooling("mean"), Normalize()])


def make_xlm_roberta(directory: Path, *, state_length: bool = True) -> Path:
    """An XLM-R with a Unigram tokenizer; without `state_length` its files state only the table of positions."""
    tokenizer = _unigram()
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS + 2, pad_token_id=1, **_SIZES
    )
    if not state_length:
        tokenizer.model_max_length = 10**30
    return _save(directory, [_transformer(directory, XLMRobertaModel, config, tokenizer), _pooling("cls"), Normalize()])


def make_modern_bert(directory: Path) -> Path:
    """A ModernBERT: rotary positions, and attention to neighbours only in every layer but the first."""
    tokenizer = _byte_level(("[CLS]", "[SEP]", "[PAD]", "[UNK]"), "[CLS] $A [SEP]", "[PAD]")
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        local_attention=8,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=0,
        sep_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
        **_SIZES,
    )
    return _save(directory, [_transformer(directory, ModernBertModel, config, tokenizer), _pooling("mean")])


def make_decoder(directory: Path, *, padding_side: str = "left") -> Path:
    """A Qwen3: causal attention, a last token of its own, last-token pooling, an instruction for queries."""
    tokenizer = _byte_level(("<|endoftext|>",), "$A <|endoftext|>", "<|endoftext|>", padding_side=padding_side)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=0,
        **_SIZES,
    )
    modules = [_transformer(directory, Qwen3Model, config, tokenizer), _pooling("lasttoken"), Normalize()]
    return _save(directory, modules, prompts={"query": "Instruct: find it\nQuery:", "document": ""})


TINY: dict[str, Callable[[Path], Path]] = {
    "bert-mean": make_bert,
    "bert-cls-normalized": lambda path: make_bert(path, pooling="cls", normalize=True),
    "bert-max": lambda path: make_bert(path, pooling="max"),
    "bert-mean-sqrt": lambda path: make_bert(path, pooling="mean_sqrt_len_tokens"),
    "bert-weighted-mean": lambda path: make_bert(path, pooling="weightedmean"),
    "bert-last-token": lambda path: make_bert(path, pooling="lasttoken"),
    "bert-mean-and-max": lambda path: make_bert(path, pooling=("mean", "max")),
    "bert-dense-normalized": lambda path: make_bert(path, dense=24, normalize=True),
    "bert-prompts": lambda path: make_bert(path, prompts=PROMPTS, default_prompt="document"),
    "bert-prompt-left-out": lambda path: make_bert(path, prompts=PROMPTS, include_prompt=False),
    "bert-prompt-left-out-weighted": lambda path: make_bert(
        path, prompts=PROMPTS, include_prompt=False, pooling="weightedmean"
    ),
    "mpnet": make_mpnet,
    "xlm-roberta": make_xlm_roberta,
    "modern-bert": make_modern_bert,
    "decoder-left": make_decoder,
    "decoder-right": lambda path: make_decoder(path, padding_side="right"),
}
"""Every tiny model by name: a function that makes it in a new directory."""


def _pooling(mode: Any, *, include_prompt: bool = True) -> Pooling:
    pooling: Pooling = Pooling(WIDTH, mode if isinstance(mode, str) else tuple(mode), include_prompt=include_prompt)
    return pooling


def _transformer(
    directory: Path, kind: type[PreTrainedModel], config: Any, tokenizer: PreTrainedTokenizerFast
) -> Transformer:
    """Weights far from each other's mean, so that every input and every position changes the vector."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(7)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
    bare = directory.with_name(f"{directory.name}.transformer")
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    transformer: Transformer = Transformer(str(bare))
    return transformer


def _save(directory: Path, modules: Sequence[torch.nn.Module], **settings: Any) -> Path:
    settings = {name: value for name, value in settings.items() if value is not None}
    SentenceTransformer(modules=list(modules), device="cpu", **settings).save(str(directory), create_model_card=False)
    return directory


def _word_piece(
    begin: str, end: str, pad: str, unknown: str, *, leading: tuple[str, ...] | None = None
) -> PreTrainedTokenizerFast:
    words = _frequent_words(str.lower)
    letters = sorted({letter for word in words for letter in word})
    pieces = [*(leading or (pad, unknown, begin, end)), *letters, *(f"##{letter}" for letter in letters), *words]
    tokenizer = Tokenizer(models.WordPiece(_numbered(pieces), unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = _template(tokenizer, f"{begin} $A {end}", (begin, end))
    return _wrapped(tokenizer, pad_token=pad, unk_token=unknown, cls_token=begin, sep_token=end)


def _unigram() -> PreTrainedTokenizerFast:
    words = _frequent_words(str)
    letters = sorted({letter for word in words for letter in word})
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(token, 0.0) for token in special] + [(letter, -9.0) for letter in ("▁", *letters)]
    pieces += [(f"▁{word}", -5.0 - rank / 100) for rank, word in enumerate(words)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = _template(tokenizer, "<s> $A </s>", ("<s>", "</s>"))
    return _wrapped(tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>")


def _byte_level(
    special: tuple[str, ...], template: str, pad: str, *, padding_side: str = "right"
) -> PreTrainedTokenizerFast:
    words = [f"Ġ{word}" for word in _frequent_words(str)]
    starts = dict.fromkeys(word[:end] for word in words for end in range(2, len(word) + 1))
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *starts]
    merges = [(start[:-1], start[-1]) for start in starts]
    tokenizer = Tokenizer(models.BPE(_numbered(pieces), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    used = tuple(token for token in special if token in template)
    tokenizer.post_processor = _template(tokenizer, template, used)
    return _wrapped(tokenizer, pad_token=pad, eos_token=used[-1], padding_side=padding_side)


def _frequent_words(change: Callable[[str], str]) -> list[str]:
    """Most frequent words first; made here rather than by `tokenizers`' trainers, which break ties by chance."""
    counts = Counter(change(word) for word in stdlib_words())
    return sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))[:_WORDS]


def _numbered(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _template(tokenizer: Tokenizer, single: str, used: tuple[str, ...]) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=single, special_tokens=[(token, tokenizer.token_to_id(token)) for token in used]
    )


def _wrapped(tokenizer: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    made: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = made(tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, **names)
    return wrapped
