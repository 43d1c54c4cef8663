"""SPLADE's pooling with the largest logit taken first, since its activations keep the order.

sentence-transformers activates the logits of every token and word and then takes the largest: a pass over some 30,000
numbers for each token where one over those of the text will do. It took a quarter of a short text's processor time.
"""

from collections.abc import Iterator, Sequence

import torch
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import nn

Features = dict[str, torch.Tensor]


class LargestFirst(nn.Module):
    """What `SpladePooling` by the maximum gives, to the bit; inference only."""

    def __init__(self, twice: bool) -> None:
        """`twice`: the logarithm is taken two times (OpenSearch's form)."""
        super().__init__()
        self._twice = twice

    def forward(self, features: Features) -> Features:
        """`token_embeddings` (n, tokens, vocabulary) to `sentence_embedding` (n, vocabulary), padding left out."""
        logits, mask = features["token_embeddings"], features["attention_mask"]
        if not bool(mask.all()):
            logits = logits.masked_fill(mask.unsqueeze(-1) == 0, 0.0)
        features["sentence_embedding"] = self._activated(logits.amax(dim=1))
        return features

    def of(self, logits: torch.Tensor) -> torch.Tensor:
        """The same of one text, (tokens, vocabulary) to (vocabulary,)."""
        return self._activated(logits.amax(dim=0))

    def _activated(self, largest: torch.Tensor) -> torch.Tensor:
        made = largest.relu_().log1p_()
        return made.log1p_() if self._twice else made


def largest_first(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """The modules of a model, its pooling in this form where that gives the same; a subclass may do something else."""
    for module in modules:
        if type(module) is SpladePooling and module.pooling_strategy == "max":
            yield LargestFirst(twice=module.activation_function == "log1p_relu")
        else:
            yield module
