"""Small sentence-transformers directories: real architectures with seeded weights, real tokenizers built on the spot.

Nothing is downloaded. Each takes a fraction of a second, so every test may make its own.
"""

import string
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
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)
from transformers.utils import logging as transformers_logging

from tests.support.texts import stdlib_words

WIDTH = 32
MAX_TOKENS = 64
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
"""Of configurations in BERT's words."""
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
    tokenizer = word_piece("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, **SIZES)
    transformer = _transformer(directory, BertModel, config, tokenizer)
    modules: list[torch.nn.Module] = [transformer, _pooling(pooling, include_prompt=include_prompt)]
    if dense is not None:
        modules.append(Dense(modules[1].pooling_output_dimension, dense))  # type: ignore[arg-type]
    if normalize:
        modules.append(Normalize())
    return _save(directory, modules, prompts=prompts, default_prompt_name=default_prompt)


def make_mpnet(directory: Path) -> Path:
    """An MPNet: relative positions beside learned ones, which start behind the padding's id."""
    tokenizer = word_piece("<s>", "</s>", "<pad>", "<unk>", leading=("<s>", "<pad>", "</s>", "<unk>"))
    config = MPNetConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS + 2, pad_token_id=1, **SIZES)
    return _save(directory, [_transformer(directory, MPNetModel, config, tokenizer), _pooling("mean"), Normalize()])


def make_xlm_roberta(directory: Path, *, state_length: bool = True) -> Path:
    """An XLM-R with a Unigram tokenizer; without `state_length` its files state only the table of positions."""
    tokenizer = unigram()
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS + 2, pad_token_id=1, **SIZES
    )
    if not state_length:
        tokenizer.model_max_length = 10**30
    return _save(directory, [_transformer(directory, XLMRobertaModel, config, tokenizer), _pooling("cls"), Normalize()])


def make_modern_bert(directory: Path) -> Path:
    """A ModernBERT: rotary positions, and attention to neighbours only in every layer but the first."""
    tokenizer = byte_level(("[CLS]", "[SEP]", "[PAD]", "[UNK]"), "[CLS] $A [SEP]", "[PAD]")
    config = modern_bert_config(tokenizer)
    return _save(directory, [_transformer(directory, ModernBertModel, config, tokenizer), _pooling("mean")])


def modern_bert_config(tokenizer: PreTrainedTokenizerFast, **more: Any) -> ModernBertConfig:
    """A ModernBERT's, for a tokenizer whose first two tokens begin and end a text."""
    return ModernBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        local_attention=8,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=0,
        sep_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
        **SIZES,
        **more,
    )


def make_distil_bert(directory: Path) -> Path:
    """A DistilBERT: BERT without token types."""
    tokenizer = word_piece("[CLS]", "[SEP]", "[PAD]", "[UNK]", types=False)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, dim=WIDTH, n_layers=2, n_heads=4, hidden_dim=48
    )
    return _save(directory, [_transformer(directory, DistilBertModel, config, tokenizer), _pooling("mean")])


def make_deberta(directory: Path) -> Path:
    """A DeBERTa, whose attention is its own: scores of contents and of positions together."""
    tokenizer = word_piece("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    config = DebertaV2Config(
        vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, relative_attention=True,
        pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0, **SIZES,
    )  # fmt: skip
    return _save(directory, [_transformer(directory, DebertaV2Model, config, tokenizer), _pooling("mean")])


def make_gemma(directory: Path) -> Path:
    """A Gemma 3 as embeddings have it: both directions, grouped heads, a window in one of two layers."""
    tokenizer = byte_level(("[CLS]", "[SEP]", "[PAD]", "[UNK]"), "[CLS] $A [SEP]", "[PAD]", types=False)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=0,
        eos_token_id=1,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        use_bidirectional_attention=True,
        query_pre_attn_scalar=8,
        **SIZES,
    )
    return _save(directory, [_transformer(directory, Gemma3TextModel, config, tokenizer), _pooling("mean")])


def make_decoder(directory: Path, *, padding_side: str = "left") -> Path:
    """A Qwen3: causal attention, a last token of its own, last-token pooling, an instruction for queries."""
    tokenizer = byte_level(("<|endoftext|>",), "$A <|endoftext|>", "<|endoftext|>", padding_side=padding_side)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=0,
        **SIZES,
    )
    modules = [_transformer(directory, Qwen3Model, config, tokenizer), _pooling("lasttoken"), Normalize()]
    return _save(directory, modules, prompts={"query": "Instruct: find it\nQuery:", "document": ""})


def make_roberta(directory: Path) -> Path:
    """A RoBERTa: positions behind the padding's id, a byte-level tokenizer."""
    tokenizer = byte_level(("<s>", "<pad>", "</s>"), "<s> $A </s>", "<pad>", types=False)
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS + 2, pad_token_id=1, **SIZES)
    return _save(directory, [_transformer(directory, RobertaModel, config, tokenizer), _pooling("mean")])


def make_mistral(directory: Path, *, window: int = 8, tokens: int = MAX_TOKENS) -> Path:
    """A Mistral: causal attention to a window in every layer, grouped heads."""
    tokenizer = byte_level(("<s>", "</s>"), "<s> $A </s>", "</s>", types=False)
    tokenizer.model_max_length = tokens
    config = MistralConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokens,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=window,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **SIZES,
    )
    return _save(directory, [_transformer(directory, MistralModel, config, tokenizer), _pooling("lasttoken")])


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
    "distil-bert": make_distil_bert,
    "deberta": make_deberta,
    "gemma": make_gemma,
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
    model = seeded(kind, config)
    bare = directory.with_name(f"{directory.name}.transformer")
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    transformer: Transformer = Transformer(str(bare))
    return transformer


def seeded(kind: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    """Weights far from each other's mean, so that every input and every position changes the vector."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(7)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
    return model


def _save(directory: Path, modules: Sequence[torch.nn.Module], **settings: Any) -> Path:
    settings = {name: value for name, value in settings.items() if value is not None}
    SentenceTransformer(modules=list(modules), device="cpu", **settings).save(str(directory), create_model_card=False)
    return directory


def word_piece(
    begin: str,
    end: str,
    pad: str,
    unknown: str,
    *,
    leading: tuple[str, ...] | None = None,
    pairs: bool = False,
    types: bool = True,
) -> PreTrainedTokenizerFast:
    """BERT's kind. `pairs`: it knows pairs and has a mask token; `types`: it tells the texts of a pair apart."""
    words = _frequent_words(str.lower)
    letters = sorted({letter for word in words for letter in word})
    mask = {"mask_token": "[MASK]"} if pairs else {}
    special = (*(leading or (pad, unknown, begin, end)), *mask.values())
    signs = string.punctuation if pairs else ""
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *words, *signs]
    tokenizer = Tokenizer(models.WordPiece(_numbered(pieces), unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pair = f"{begin} $A {end} $B:1 {end}:1" if pairs else None
    tokenizer.post_processor = _template(tokenizer, f"{begin} $A {end}", (begin, end), pair)
    return _wrapped(tokenizer, types=types, pad_token=pad, unk_token=unknown, cls_token=begin, sep_token=end, **mask)


def unigram(*, pairs: bool = False) -> PreTrainedTokenizerFast:
    """XLM-R's kind. `pairs`: it knows pairs and has a mask token."""
    words = _frequent_words(str)
    letters = sorted({letter for word in words for letter in word})
    mask = {"mask_token": "<mask>"} if pairs else {}
    special = ["<s>", "<pad>", "</s>", "<unk>", *mask.values()]
    pieces = [(token, 0.0) for token in special] + [(letter, -9.0) for letter in ("▁", *letters)]
    pieces += [(f"▁{word}", -5.0 - rank / 100) for rank, word in enumerate(words)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    pair = "<s> $A </s> </s> $B </s>" if pairs else None
    tokenizer.post_processor = _template(tokenizer, "<s> $A </s>", ("<s>", "</s>"), pair)
    return _wrapped(
        tokenizer, types=not pairs, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>", **mask
    )


def byte_level(
    special: tuple[str, ...],
    template: str,
    pad: str,
    *,
    padding_side: str = "right",
    pair: str | None = None,
    mask: str | None = None,
    types: bool = True,
) -> PreTrainedTokenizerFast:
    """GPT-2's kind."""
    words = [f"Ġ{word}" for word in _frequent_words(str)]
    starts = dict.fromkeys(word[:end] for word in words for end in range(2, len(word) + 1))
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *starts]
    merges = [(start[:-1], start[-1]) for start in starts]
    tokenizer = Tokenizer(models.BPE(_numbered(pieces), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    used = tuple(token for token in special if token in template)
    tokenizer.post_processor = _template(tokenizer, template, used, pair)
    named = {} if mask is None else {"mask_token": mask}
    return _wrapped(tokenizer, types=types, pad_token=pad, eos_token=used[-1], padding_side=padding_side, **named)


def _frequent_words(change: Callable[[str], str]) -> list[str]:
    """Most frequent words first; made here rather than by `tokenizers`' trainers, which break ties by chance."""
    counts = Counter(change(word) for word in stdlib_words())
    return sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))[:_WORDS]


def _numbered(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _template(
    tokenizer: Tokenizer, single: str, used: tuple[str, ...], pair: str | None = None
) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, tokenizer.token_to_id(token)) for token in used]
    )


def _wrapped(tokenizer: Tokenizer, *, types: bool = True, **names: str) -> PreTrainedTokenizerFast:
    """`types`: token types are given to the model."""
    made: Any = PreTrainedTokenizerFast
    inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    wrapped: PreTrainedTokenizerFast = made(
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, model_input_names=inputs, **names
    )
    return wrapped
