"""`python -m tests.benchmarks.peers.exporting MODEL LIBRARIES FILE`: the model as ONNX, pooling and all.

Runs under the project's own interpreter and takes only `onnx` from a peer's environment, whose LIBRARIES come last.
"""

import sys
import warnings
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "vectors"
_OPSET = 17  # the newest for which onnxruntime's optimizer finds BERT's attention and layer norms in the graph


class _Whole(torch.nn.Module):
    """All modules of the model behind each other."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        kwargs = {"dtype": torch.float32, "attn_implementation": "eager"}  # products and softmax, which can be fused
        self.parts = torch.nn.ModuleList(SentenceTransformer(directory, device="cpu", model_kwargs=kwargs).eval())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """Shapes (texts, tokens) to vectors (texts, width)."""
        features: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": torch.zeros_like(input_ids),
        }
        for part in self.parts:
            features = part(features)
        return features["sentence_embedding"]


def main(directory: str, libraries: str, file: str) -> None:
    """Write it, for any number of texts and tokens."""
    sys.path.append(libraries)
    warnings.simplefilter("ignore")  # tracing warns of branches on shapes, and that it is the older exporter
    ids = torch.full((2, 7), 1000)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    names = {0: "texts", 1: "tokens"}
    axes = {**dict.fromkeys(INPUTS, names), OUTPUT: {0: "texts"}}
    torch.onnx.export(
        _Whole(directory),
        (ids, mask),
        file,
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_axes=axes,
        opset_version=_OPSET,
        dynamo=False,  # the newer one needs onnxscript, and its graph is not one that the optimizer knows
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
