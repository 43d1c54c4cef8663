"""The in-process subjects: sentence-transformers' own `encode`, and the model alone, without any server around it."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from tests.benchmarks.child import answer_questions
from tests.benchmarks.loads import chunks

BATCH = 32


class Bare:
    """The float32 model of a directory, on the CPU, with as many threads as torch chooses."""

    def __init__(self, directory: str) -> None:
        self._model = SentenceTransformer(directory, device="cpu", model_kwargs={"dtype": torch.float32})
        self._modules = list(self._model)
        self._tokenizer = Tokenizer.from_str(self._model.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(int(self._model.max_seq_length or 256))

    def encode(self, texts: Sequence[str]) -> dict[str, Any]:
        """sentence-transformers' `encode`, batch 32, from texts to an array."""
        started = time.perf_counter()
        self._model.encode(list(texts), batch_size=BATCH, show_progress_bar=False)
        return {"seconds": time.perf_counter() - started}

    def forward(self, texts: Sequence[str]) -> dict[str, Any]:
        """The modules alone: tokenised before the clock runs, sorted by length, padded batches of 32."""
        ids = sorted(self._ids(texts), key=len)
        batches = [self._features(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
        started = time.perf_counter()
        for batch in batches:
            self._run(batch)
        return {"seconds": time.perf_counter() - started}

    def alone(self, text: str) -> dict[str, Any]:
        """One text, tokenised and computed."""
        started = time.perf_counter()
        self._run(self._features([self._tokenizer.encode(text).ids]))
        return {"seconds": time.perf_counter() - started}

    def vectors(self, texts: Sequence[str]) -> dict[str, Any]:
        """The vectors themselves."""
        return {"rows": self._model.encode(list(texts), batch_size=BATCH, show_progress_bar=False).tolist()}

    def work(self, texts: Sequence[str]) -> dict[str, Any]:
        """Tokens of each text as the model takes them, and the floating-point operations of all, padding left out."""
        lengths = [len(ids) for ids in self._ids(texts)]
        first: Any = self._model[0]
        return {"lengths": lengths, "operations": operations(lengths, first.auto_model.config)}

    def tokens(self, texts: Sequence[str]) -> dict[str, Any]:
        """Ids of each text's tokens, special ones and the cut at the model's longest input included."""
        return {"ids": self._ids(texts)}

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for some in chunks(texts, 512) for encoding in self._tokenizer.encode_batch_fast(some)]

    def _features(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        shape = (len(ids), max(map(len, ids)))
        tokens, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, some in enumerate(ids):
            tokens[row, : len(some)] = some
            mask[row, : len(some)] = 1
        return {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}

    @torch.inference_mode()
    def _run(self, features: dict[str, torch.Tensor]) -> Any:
        features = dict(features)
        for module in self._modules:
            features = module(features)
        return features["sentence_embedding"].numpy()


def operations(lengths: Sequence[int], config: Any) -> float:
    """Multiplications and additions of a BERT's matrix products: projections, feed-forward, attention."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tokens, pairs = sum(lengths), sum(length * length for length in lengths)
    return float(layers * (tokens * (8 * hidden * hidden + 4 * hidden * inner) + pairs * 4 * hidden))


if __name__ == "__main__":
    bare = Bare(sys.argv[1])
    asked = ("encode", "forward", "alone", "vectors", "work", "tokens")
    answer_questions({name: getattr(bare, name) for name in asked})
