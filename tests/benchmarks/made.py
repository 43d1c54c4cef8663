"""A process that makes a BERT of a shape, with seeded weights, and knows the GPU: none of it needs a hub."""

from pathlib import Path
from typing import Any

from tests.benchmarks.child import answer_questions


def device() -> dict[str, Any]:
    """The first GPU that torch finds; `missing` says why there is none."""
    import torch

    if not torch.cuda.is_available():
        return {"missing": "no GPU here"}
    properties = torch.cuda.get_device_properties(0)
    memory = f"{properties.total_memory / 2**30:.0f} GiB"
    capability = f"compute capability {properties.major}.{properties.minor}"
    return {"name": f"{properties.name}, {memory}, {capability}, CUDA {torch.version.cuda}"}


def bert(folder: str, layers: int, width: int, inner: int, heads: int, tokens: int, words: int) -> dict[str, Any]:
    """A directory as sentence-transformers writes it: a BERT of this shape, the mean of its tokens, length 1."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    from tests.support.tiny_models import word_piece

    tokenizer: Any = word_piece("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    tokenizer.model_max_length = tokens
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=max(words, len(tokenizer)),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=tokens,
    )
    bare, whole = Path(folder) / "bare", Path(folder) / "model"
    BertModel(config).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    modules = [Transformer(str(bare)), Pooling(width, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(whole), create_model_card=False)
    return {"directory": str(whole)}


if __name__ == "__main__":
    answer_questions({"device": device, "bert": bert})
